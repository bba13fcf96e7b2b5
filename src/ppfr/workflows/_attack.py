"""What `ppfr attack` does: one attack on one protection, judged, with a record and a report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppfr.assets import read_record
from ppfr.attacks import masked_images_threat
from ppfr.core import ImageMasker, ImageSet, InvalidInputError, MissingAssetError, Record, RunOptions, choose_device
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
from ppfr.experiments._attack_plans import IMAGE_ATTACKS, attack_matrix
from ppfr.experiments.spine._experiments import REAL_BUDGETS
from ppfr.masking import Unprotected
from ppfr.models import Lpips, NetworkEmbedder, for_inference
from ppfr.systems._catalogue import make_masker, needs_secret, read_images, read_or_create_secret, read_protocol
from ppfr.systems._system import SECRET_FILE, MaskedSystem, read_recogniser
from ppfr.workflows._run import RECORD_FILE, refuse_earlier_run, run_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """What to attack and how, in the command line's words.

    Attributes:
        kind: a key of `IMAGE_ATTACKS`.
        method: a key of `MASKERS`.
        public: a name that `read_images` knows.
        targets: a name that `read_protocol` knows.
        knows_secret: what the adversary is granted.
        teacher: recogniser of plain faces: teacher of linkage, and evaluation recogniser.
        epochs: of the attacker's training.
        batch_size: of the attacker's training.
        num_targets: people attacked.
        seed: root of every draw.
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

    @property
    def command(self) -> str:
        """The command line, less directories."""
        return (
            f"ppfr attack --attack {self.kind} --method {self.method} --public {self.public} --targets {self.targets} "
            f"--{'' if self.knows_secret else 'no-'}knows-secret --teacher {self.teacher} --epochs {self.epochs} "
            f"--batch-size {self.batch_size} --num-targets {self.num_targets} --seed {self.seed}"
        )


def attack_method(
    request: AttackRequest,
    *,
    options: RunOptions,
    secret_path: Path | None,
    data: Path | None,
    weights: Path | None,
) -> dict[str, Any]:
    """Run one attack on one protection, with a record and a report in `options.run_dir`.

    Returns:
        What `run_experiment` returns, less the accuracies, and "outcome": attack -> its figures.

    Raises:
        InvalidInputError: words that name nothing, or a teacher that takes masked faces.
        CheckpointError: `options.run_dir` holds a run and `resumes` is false, or a run of another configuration.
        OverlapError: the public faces show target subjects.
    """
    if request.kind not in IMAGE_ATTACKS:
        raise InvalidInputError(f"no attack is named {request.kind!r}; there are {', '.join(IMAGE_ATTACKS)}")
    where = choose_device(options.device)
    is_keyed = needs_secret(request.method)
    refuse_earlier_run(options)
    teacher = _teacher(request.teacher, weights)
    protocol, public = read_protocol(request.targets, data=data), read_images(request.public, data=data)
    secret = read_or_create_secret(secret_path or options.directory / SECRET_FILE)[0] if is_keyed else None
    masker = make_masker(request.method, secret=secret)
    recogniser = EvaluationRecogniser(
        name=teacher.card.name,
        label=teacher.card.name,
        embedder=NetworkEmbedder(for_inference(teacher.network).to(where)),
        provenance=[provenance_of(teacher.card, used_as="evaluation recogniser and teacher")],
    )
    plans = _plans(request, masker, teacher)
    experiment = _experiment(
        request, masker, plans, recogniser, protocol=protocol, public=public, lpips=_lpips(weights)
    )
    result = run_experiment(experiment, options)
    del result["accuracy"]  # nothing recognises here
    record = read_record(options.directory / RECORD_FILE)
    return {**result, "outcome": {entry["name"]: outcome_of(record, entry["name"]) for entry in record["attacks"]}}


def outcome_of(record: Record, attack: str) -> dict[str, Any]:
    """The figures of one attack of a record that say what was recovered and who was re-identified."""
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
            f"{name!r} was trained on {teacher.masker.name} faces; the adversary's recogniser takes plain ones: name a "
            "public network, or a system trained with --method unprotected"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", teacher.card.name)  # records name recognisers so
    return dataclasses.replace(teacher, card=dataclasses.replace(teacher.card, name=name))


def _lpips(weights: Path | None) -> Any:
    """The LPIPS distance where its weights are at hand; without them the record says that it was not measured."""
    try:
        return Lpips.from_weights(weights_dir=weights).distance
    except MissingAssetError:
        return None


def _plans(request: AttackRequest, masker: ImageMasker, teacher: MaskedSystem) -> list[ImageAttackPlan]:
    """The one attack that was asked for, on the laptop budget but for what the request says."""
    budget = dataclasses.replace(REAL_BUDGETS["laptop"], attack_epochs=request.epochs, batch_size=request.batch_size)
    wanted = masked_images_threat(knows_secret=request.knows_secret)
    return [
        dataclasses.replace(plan, role="attack")
        for plan in attack_matrix(
            [_system(request, masker)], budget, teacher=teacher.network, teacher_card=teacher.card
        )
        if plan.name.startswith(f"{request.kind}-") and (not masker.spec.is_keyed or plan.granted == wanted)
    ]


def _system(request: AttackRequest, masker: ImageMasker) -> System:
    # Not a control in the report's sense: a system of that role is one that is attacked without recognising.
    return System(name=request.method, label=request.method, role="control", masker=masker)


def _experiment(
    request: AttackRequest,
    masker: ImageMasker,
    plans: list[ImageAttackPlan],
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
        systems=[_system(request, masker)],
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
