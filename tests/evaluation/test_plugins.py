"""The code of the how-to pages in one run: a masker, an attack, a measure and its section from outside the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppfr.assets import read_record
from ppfr.core import ProblemsError, Record, check_record
from ppfr.evaluation import Experiment, System
from ppfr.report import write_report
from support.plugins.coarse import Coarse
from support.plugins.linear_plans import linear_plan
from support.plugins.repeatability import Repeatability
from support.plugins.repeatability_section import RepeatabilitySection
from support.plugins.run_repeatability import run_with_repeatability
from support.records import row, rows
from support.toy_experiment import (
    SIDE,
    ToyTraining,
    people,
    start,
    toy_experiment,
    toy_measures,
    toy_protocol,
    toy_systems,
)

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
PLUGINS = Path(__file__).parents[1] / "support" / "plugins"


def plugin_experiment() -> Experiment:
    """Plain images, the example masker and a constant, under the example attack."""
    plain, _, constant = toy_systems()
    coarse = System(
        name="coarse",
        label="Coarse",
        role="protected",
        masker=Coarse(block=4, in_shape=(3, SIDE, SIDE)),
        training=ToyTraining(),
        baseline="plain",
    )
    plans = [
        linear_plan("plain", recogniser="recogniser", role="positive control"),
        linear_plan("coarse", recogniser="recogniser"),
        linear_plan("constant", recogniser="recogniser", role="negative control"),
    ]
    measures = toy_measures(plans=plans, public_images=people(150, 2, seed=4, name="public"))
    return toy_experiment(systems=[plain, coarse, constant], measures=measures)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Record]]:
    """The run's folder, with the page in it, and its record."""
    folder = tmp_path_factory.mktemp("plugins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppfr.evaluation.measures._cost._MIN_S", 0.0)
        run_with_repeatability(plugin_experiment(), toy_protocol(), folder)
        yield folder, read_record(folder)


def test_external_measure_writes_checked_rows_with_their_schema(finished: tuple[Path, Record]) -> None:
    _, record = finished
    assert record["status"] == "complete", record["stages"]
    check_record(record)
    assert record["schemas"]["repeatability"]["required"] == ["system", "protocol", "cosine"]
    assert [found["system"] for found in rows(record, "repeatability")] == ["plain", "coarse"]
    assert row(record, "repeatability", system="coarse")["cosine"]["value"] == pytest.approx(1)


def test_external_attack_passes_its_controls_and_recovers_faces(finished: tuple[Path, Record]) -> None:
    _, record = finished
    met = {found["attack"]: found["is_control_met"] for found in rows(record, "attack_run")}
    assert met == {"linear-plain": True, "linear-coarse": None, "linear-constant": True}
    recovered = row(record, "image_recovery", attack="linear-coarse")
    assert recovered["recovered"]["ssim"]["value"] > recovered["average"]["ssim"]["value"] + 0.2


def test_external_masker_is_described_in_the_record(finished: tuple[Path, Record]) -> None:
    _, record = finished
    masker = next(system["masker"] for system in record["systems"] if system["name"] == "coarse")
    assert masker["name"] == "coarse" and masker["out_shape"] == [3, SIDE // 4, SIDE // 4]


def test_external_section_is_on_the_page(finished: tuple[Path, Record], tmp_path: Path) -> None:
    folder, _ = finished
    page = (folder / "report.html").read_text("utf-8")
    assert 'id="repeatability"' in page
    assert "Each image is masked twice with independent randomness." in page
    assert RepeatabilitySection.rules in page and RepeatabilitySection.terms["Repeatability"] in page
    assert "Linear recovery" in page and "Coarse" in page
    without = write_report(folder, tmp_path / "without.html").read_text("utf-8")
    assert 'id="repeatability"' not in without


def test_external_measure_can_reject_an_experiment(tmp_path: Path) -> None:
    experiment = toy_experiment(measures=[Repeatability(protocol=toy_protocol())])
    with pytest.raises(ProblemsError, match=r"Training\(\)"):
        start(experiment, tmp_path / "run")


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("add-a-measure.md", ("repeatability.py", "repeatability_section.py", "run_repeatability.py")),
        ("add-a-protection.md", ("coarse.py",)),
        ("add-an-attack.md", ("linear_recovery.py", "linear_plans.py")),
    ],
)
def test_how_to_page_shows_the_tested_code(page: str, files: tuple[str, ...]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
    for file in files:
        assert (PLUGINS / file).read_text("utf-8") in blocks, f"{page} shows another {file} than tests/support/plugins"
