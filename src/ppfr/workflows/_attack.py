"""The workflow of `ppfr attack`: runs one attack on one protection and writes a record and a report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppfr.assets import read_record
from ppfr.attacks import masked_images_threat
from ppfr.core import (
    ImageMasker,
    ImageSet,
    InvalidInputError,
    MissingAssetError,
    Record,
    RunOptions,
    SystemRole,
    as_json,
    choose_device,
)
from ppfr.data import PairProtocol
from ppfr.evaluation import (
    EvaluationRecogniser,
    Experiment,
    ImageAttackPlan,
    ImageAttacks,
    System,
    Targets,
    Verification,
    provenance_of,
)
from ppfr.experiments import IMAGE_ATTACKS, attack_matrix
from ppfr.experiments.spine import REAL_BUDGETS
from ppfr.masking import Unprotected
from ppfr.models import Lpips, NetworkEmbedder, for_inference
from ppfr.systems import (
    SECRET_FILE,
    MaskedSystem,
    TrainingOverlap,
    check_training_overlap,
    make_masker,
    needs_secret,
    read_images,
    read_or_create_secret,
    read_protocol,
    read_recogniser,
)
from ppfr.workflows._run import RECORD_FILE, refuse_earlier_run, run_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """What to attack and how, with the names of the command line.

    Attributes:
        kind: a key of `IMAGE_ATTACKS`.
        method: a key of `MASKERS`.
        public: training faces of the adversary: a name that `read_images` accepts.
        targets: protocol with the target subjects: a name that `read_protocol` accepts.
        knows_secret: whether the adversary knows, or can use, the secret of the deployment.
        teacher: recogniser of plain faces, as teacher for linkage and as evaluation recogniser.
        epochs: number of times that the adversary uses every training image.
        batch_size: images per training step of the adversary.
        num_targets: number of target subjects.
        seed: seeds every random draw.
        runs_controls: also run the attack on unprotected faces, where it must win, and on a constant, where it must
            stay at the chance level.
        allows_training_overlap: whether the teacher may have been trained on people of the protocol.
    """

    kind: str
    method: str
    public: str
    targets: str
    knows_secret: bool
    teacher: str
    epochs: int
    batch_size: int
    num_targets: int
    seed: int
    runs_controls: bool = True
    allows_training_overlap: bool = False

    @property
    def command(self) -> str:
        """The command line without directories."""
        return (
            f"ppfr attack --attack {self.kind} --method {self.method} --public {self.public} --targets {self.targets} "
            f"--{'' if self.knows_secret else 'no-'}knows-secret --teacher {self.teacher} --epochs {self.epochs} "
            f"--batch-size {self.batch_size} --num-targets {self.num_targets} --seed {self.seed}"
            f"{'' if self.runs_controls else ' --no-controls'}"
            f"{' --allow-training-overlap' if self.allows_training_overlap else ''}"
        )


def attack_method(
    request: AttackRequest,
    *,
    options: RunOptions,
    secret_path: Path | None,
    data: Path | None,
    weights: Path | None,
) -> dict[str, Any]:
    """Run one attack on one protection and its controls, with a record and a report in `options.run_dir`.

    Returns:
        The result of `run_experiment` without "accuracy". "training_overlap" is the `TrainingOverlap` of the protocol
        with the teacher's training data, and "outcome" has the figures of the attack and of each control.

    Raises:
        InvalidInputError: a name is unknown, or the teacher was trained on masked faces.
        CheckpointError: `options.run_dir` holds an earlier run and `resumes` is False, or the run has another
            configuration.
        OverlapError: the public faces include people of the protocol, or the teacher was trained on such and
            `request.allows_training_overlap` is False.
    """
    if request.kind not in IMAGE_ATTACKS:
        raise InvalidInputError(f"--attack must be one of {', '.join(IMAGE_ATTACKS)}, got {request.kind!r}.")
    where = choose_device(options.device)
    is_keyed = needs_secret(request.method)
    refuse_earlier_run(options)
    teacher = _teacher(request.teacher, weights)
    protocol, public = read_protocol(request.targets, data=data), read_images(request.public, data=data)
    overlap = check_training_overlap(
        teacher.trained_on, protocol.used_images(), is_allowed=request.allows_training_overlap
    )
    teacher = _with_overlap(teacher, overlap, protocol)
    secret = read_or_create_secret(secret_path or options.directory / SECRET_FILE)[0] if is_keyed else None
    masker = make_masker(request.method, secret=secret)
    recogniser = EvaluationRecogniser(
        name=teacher.card.name,
        label=teacher.card.name,
        embedder=NetworkEmbedder(for_inference(teacher.network).to(where)),
        provenance=[provenance_of(teacher.card, used_as="evaluation recogniser and teacher")],
    )
    systems = _systems(request, masker)
    plans = _plans(request, systems, teacher)
    experiment = _experiment(
        request, systems, plans, recogniser, protocol=protocol, public=public, lpips=_lpips(weights)
    )
    result = run_experiment(experiment, options)
    del result["accuracy"]  # the experiment trains no recogniser
    record = read_record(options.directory / RECORD_FILE)
    outcome = {entry["name"]: outcome_of(record, entry["name"]) for entry in record["attacks"]}
    return {**result, "training_overlap": as_json(overlap), "outcome": outcome}


def outcome_of(record: Record, attack: str) -> dict[str, Any]:
    """The figures of one attack in a record: image recovery, re-identification and verification."""
    secret = next(entry["secret"] for entry in record["attacks"] if entry["name"] == attack)

    def row(kind: str) -> Mapping[str, Any] | None:
        return next((each for each in record["results"].get(kind, ()) if each["attack"] == attack), None)

    run, found, recovery = row("attack_run"), row("re_identification"), row("image_recovery")
    if run is None or found is None:
        return {"secret": secret, "measured": False}
    figures: dict[str, Any] = {"secret": secret, "measured": True, "num_targets": run["num_targets"]}
    if recovery is not None:
        recovered = recovery["recovered"]
        figures |= {name: recovered[name] for name in ("ssim", "psnr", "lpips", "identity_cosine")}
        figures[f"accepted_at_far_{recovery['far']:g}"] = recovered["at_far"]["other_image"]
    figures |= {name: found[name] for name in ("gallery_size", "rank_1", "chance_rank_1", "plain_rank_1", "rank_5")}
    figures["pairs"] = {
        each["protocol"]: each["accuracy"]
        for each in record["results"].get("verification", ())
        if (each["source"], each["name"]) == ("attack", attack)
    }
    return figures


def _teacher(name: str, weights: Path | None) -> MaskedSystem:
    teacher = read_recogniser(name, weights=weights)
    if not isinstance(teacher.masker, Unprotected):
        raise InvalidInputError(
            f"--teacher must be a recogniser of plain faces, but {name!r} was trained on {teacher.masker.name} faces. "
            "Name a public network, or a system trained with --method unprotected."
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", teacher.card.name)  # characters that records allow in names
    return dataclasses.replace(teacher, card=dataclasses.replace(teacher.card, name=name))


def _with_overlap(teacher: MaskedSystem, overlap: TrainingOverlap, protocol: PairProtocol) -> MaskedSystem:
    """The teacher with a card that states what is known of the overlap, as the record and the report will."""
    if overlap.status == "none":
        return teacher
    seen = (*teacher.card.may_have_seen, overlap.in_words(protocol.name))
    return dataclasses.replace(teacher, card=dataclasses.replace(teacher.card, may_have_seen=seen))


def _lpips(weights: Path | None) -> Any:
    """The LPIPS distance if its weights are available, else None: the record then states that it was not measured."""
    try:
        return Lpips.from_weights(weights_dir=weights).distance
    except MissingAssetError:
        return None


def _systems(request: AttackRequest, masker: ImageMasker) -> list[System]:
    """The attacked system, with an unprotected and a constant one for the controls. No recogniser is trained."""
    roles: dict[str, SystemRole] = {"unprotected": "baseline", "constant": "control"}
    attacked = System(
        name=request.method, label=request.method, role=roles.get(request.method, "protected"), masker=masker
    )
    if not request.runs_controls:
        return [attacked]
    others = {
        name: System(name=name, label=name, role=role, masker=make_masker(name, secret=None))
        for name, role in roles.items()
    }
    return list(({"unprotected": others["unprotected"], request.method: attacked} | others).values())


def _plans(request: AttackRequest, systems: Sequence[System], teacher: MaskedSystem) -> list[ImageAttackPlan]:
    """The attack on each system, with the compute budget of the laptop preset where the request does not set it.

    An attack on an unprotected or a constant system is a control by itself. With `runs_controls` False, a request to
    attack such a system has no control either, because it has no other to be compared with.
    """
    budget = dataclasses.replace(REAL_BUDGETS["laptop"], attack_epochs=request.epochs, batch_size=request.batch_size)
    wanted = masked_images_threat(knows_secret=request.knows_secret)
    keyed = {system.name for system in systems if system.is_keyed}
    plans = [
        plan
        for plan in attack_matrix(
            systems, budget, teacher=teacher.network, teacher_card=teacher.card, kinds=(request.kind,)
        )
        if plan.system not in keyed or plan.granted == wanted
    ]
    return plans if request.runs_controls else [dataclasses.replace(plan, role="attack") for plan in plans]


def _experiment(
    request: AttackRequest,
    systems: Sequence[System],
    plans: Sequence[ImageAttackPlan],
    recogniser: EvaluationRecogniser,
    *,
    protocol: PairProtocol,
    public: ImageSet,
    lpips: Any,
) -> Experiment:
    return Experiment(
        name=f"attack:{request.kind}",
        title=f"{IMAGE_ATTACKS[request.kind].title} on {request.method}",
        command=request.command,
        seed=request.seed,
        people="synthetic" if request.targets.startswith("synthetic") else "real",
        systems=systems,
        measures=[
            Verification(protocols=[protocol]),
            ImageAttacks(
                plans=plans,
                protocols=[protocol],
                targets=Targets(num_subjects=request.num_targets),
                public_images=public,
                lpips=lpips,
            ),
        ],
        recognisers=[recogniser],
    )
