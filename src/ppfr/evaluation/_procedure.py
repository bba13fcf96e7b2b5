"""What `run` needs to know of an experiment, whichever kind it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from ppfr.core import Record
from ppfr.evaluation._assembly import assemble, write_picture_index
from ppfr.evaluation._attack_stages import AttackSession
from ppfr.evaluation._checks import check_experiment
from ppfr.evaluation._experiment import Experiment
from ppfr.evaluation._identity import describe_experiment_data, identity_of, resolved_config
from ppfr.evaluation._provenance import provenance
from ppfr.evaluation._stages import Session, Stage
from ppfr.evaluation._templates._assembly import assemble_templates
from ppfr.evaluation._templates._checks import check_template_experiment, describe_template_data, template_config
from ppfr.evaluation._templates._experiment import TemplateExperiment
from ppfr.evaluation._templates._inversion import Inversions
from ppfr.evaluation._templates._queries import Queries
from ppfr.evaluation._templates._recognition import Recognition
from ppfr.evaluation._templates._session import TemplateSession
from ppfr.evaluation._workspace import Json, Workspace, config_sha256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Procedure:
    """An experiment that was checked, as steps.

    Attributes:
        identity: what a resumed run must share with the first.
        stages: in the order in which they run.
        assemble: the record of what is there so far.
        write_pictures: lists the pictures that are there, if this kind of experiment has any.
    """

    identity: Json
    stages: Sequence[Stage]
    assemble: Callable[[], Record]
    write_pictures: Callable[[], None] = lambda: None


def procedure_on_images(
    experiment: Experiment,
    workspace: Workspace,
    *,
    device: torch.device,
    num_devices: int,
    resumes: bool,
    progress: bool,
) -> Procedure:
    """Check an experiment on masked images; errors are those of `check_experiment`."""
    check_experiment(experiment, device=str(device))
    data = describe_experiment_data(experiment)
    config = resolved_config(experiment, data)
    session = Session(experiment, workspace, device=device, num_devices=num_devices, resumes=resumes, progress=progress)
    stages = [*session.recognition_stages(), *AttackSession(session).stages()]
    origin = provenance()
    return Procedure(
        identity=identity_of(experiment, config),
        stages=stages,
        assemble=lambda: assemble(
            experiment, stages, workspace, config=config, data=data, origin=origin, device=device
        ),
        write_pictures=lambda: write_picture_index(experiment, workspace),
    )


def procedure_on_templates(experiment: TemplateExperiment, workspace: Workspace, *, device: torch.device) -> Procedure:
    """Check an experiment on templates; errors are those of `check_template_experiment`."""
    check_template_experiment(experiment)
    data = describe_template_data(experiment)
    config = template_config(experiment, data)
    session = TemplateSession(experiment, workspace, device=device)
    recognition, inversions, queries = Recognition(session), Inversions(session), Queries(session)
    stages = recognition.judge_stages()
    for arm in experiment.arms:  # arm by arm, since keys are drawn, or selected, for one at a time
        stages += [*recognition.stages_of(arm), *inversions.stages_of(arm), *queries.stages_of(arm)]
    origin = provenance()
    return Procedure(
        identity={"config": config, "config_sha256": config_sha256(config), "probes": {}},
        stages=stages,
        assemble=lambda: assemble_templates(
            experiment, stages, workspace, config=config, data=data, origin=origin, device=device
        ),
    )
