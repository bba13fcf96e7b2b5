import dataclasses
from pathlib import Path

from ppfr.core import RunOptions
from ppfr.data import PairProtocol
from ppfr.evaluation import Experiment, run
from ppfr.report import SECTIONS, write_report

from .repeatability import Repeatability
from .repeatability_section import RepeatabilitySection


def run_with_repeatability(experiment: Experiment, protocol: PairProtocol, folder: Path) -> Path:
    """Run an experiment with one more measure, and write its page with one more section."""
    measures = [*experiment.measures, Repeatability(protocol=protocol)]
    run(dataclasses.replace(experiment, measures=measures), options=RunOptions(run_dir=folder))
    return write_report(folder, folder / "report.html", sections=(*SECTIONS, RepeatabilitySection()))
