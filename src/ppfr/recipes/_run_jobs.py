"""What `ppfr run`, `demo`, `report`, `evaluate` and `attack` do: build an experiment, run it, tell what came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ppfr.attacks import masked_images_threat
from ppfr.benchmark import (
    Arm,
    AttackPlan,
    EvaluationSettings,
    Experiment,
    Judge,
    Knowledge,
    Victims,
    evaluate,
    read_record,
    run,
    write_report,
)
from ppfr.core import ImageMasker, InvalidInputError, choose_device
from ppfr.masking import Unprotected
from ppfr.models import PRETRAINED, NetworkEmbedder, for_inference, load_pretrained
from ppfr.recipes import _spine as spine
from ppfr.recipes._catalogue import make_masker, needs_secret, read_images, read_or_create_secret, read_protocol
from ppfr.recipes._system import SECRET_FILE, load_system

Recipe = Callable[[spine.RecipeContext], Experiment]
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {"spine:demo": spine.demo, "spine:lfw": spine.lfw, "spine:cfp": spine.cfp}
)
RECORD_FILE, REPORT_FILE = "record.json", "report.html"


def list_recipes() -> dict[str, str]:
    """Name of each recipe -> its first line."""
    return {name: (recipe.__doc__ or "").strip().splitlines()[0] for name, recipe in RECIPES.items()}


def run_recipe(
    name: str,
    *,
    preset: str,
    out_dir: Path,
    seed: int,
    device: str,
    resumes: bool,
    data: Path | None = None,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Run a recipe and write its record and report.

    Raises:
        InvalidInputError: unknown recipe or preset.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"no recipe is named {name!r}; there are {', '.join(RECIPES)}")
    context = spine.RecipeContext(
        preset=preset,
        out_dir=out_dir,
        seed=seed,
        device=device,
        resumes=resumes,
        data=data,
        weights=weights,
        command=f"ppfr run {name} --preset {preset} --seed {seed}",
    )
    return _run(RECIPES[name](context), out_dir, device=device, resumes=resumes)


def _run(experiment: Experiment, out_dir: Path, *, device: str, resumes: bool) -> dict[str, Any]:
    record = run(experiment, out_dir=out_dir, resume=resumes, device=device)
    report = write_report([out_dir / RECORD_FILE], out_dir / REPORT_FILE)
    return {
        "is_complete": record["status"] == "complete" and not _failed_controls(record),
        "status": record["status"],
        "failed_controls": _failed_controls(record) or "none",
        **_headline(record),
        "wall_s": round(record["wall_s"], 1),
        "record": str(out_dir / RECORD_FILE),
        "report": str(report),
    }


def _failed_controls(record: Mapping[str, Any]) -> list[str]:
    verdicts = [(attack["name"], attack.get("control")) for attack in record["attacks"]]
    return [name for name, verdict in verdicts if verdict is not None and not verdict["passed"]]


def _headline(record: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy of each arm on each protocol, as one line."""
    lines = {}
    for arm in record["arms"]:
        for protocol in arm.get("protocols") or []:
            lines[f"{arm['name']} on {protocol['name']}"] = _estimate(protocol["accuracy"])
    return lines


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "not measured"
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.2f} % [{low:.2f}, {high:.2f}], n={estimate['n']}"


def write_reports(records: Sequence[Path], out_path: Path, *, with_pictures: bool) -> dict[str, Any]:
    """Write the report of one or several records again."""
    for path in records:
        read_record(path)
    return {"report": str(write_report(list(records), out_path, with_pictures=with_pictures)), "records": len(records)}


def evaluate_model(
    model: str,
    protocol_name: str,
    *,
    secret_path: Path | None,
    flips: bool,
    data: Path | None,
    weights: Path | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Verify a protocol's pairs with a public network or a trained system.

    Raises:
        InvalidInputError: a model that is neither.
    """
    where = choose_device(device)
    if model in PRETRAINED:
        network, card = load_pretrained(model, weights_dir=weights)
        masker: ImageMasker = Unprotected()
    elif Path(model).is_dir():
        system = load_system(Path(model), secret_path=secret_path)
        network, card, masker = system.network, system.card, system.masker
    else:
        raise InvalidInputError(
            f"{model!r} is no public network ({', '.join(PRETRAINED)}) and no directory that `ppfr train --out` wrote"
        )
    protocol = read_protocol(protocol_name, data=data)
    figures = evaluate(
        masker,
        NetworkEmbedder(for_inference(network).to(where)),
        protocol,
        settings=EvaluationSettings(seed=seed, adds_mirrored=flips),
        device=str(where),
    )
    del figures["roc"], figures["gap_to_baseline"]  # for the report, not for a terminal
    return {
        "model": card.name,
        "masker": masker.name,
        "protocol": protocol.name,
        "may_have_seen": list(card.may_have_seen) or "nothing known",
        **figures,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """What to attack and how, in the command line's words.

    Attributes:
        kind: a key of `spine.ATTACK_LABELS`.
        method: a key of `MASKERS`.
        public: a name that `read_images` knows.
        victims: a name that `read_protocol` knows.
        knows_secret: what the adversary is granted.
        teacher: public network: teacher of linkage, and judge.
        passes: of the attacker's training.
        num_victims: people attacked.
        seed: root of every draw.
    """

    kind: str
    method: str
    public: str
    victims: str
    knows_secret: bool
    teacher: str
    passes: int
    num_victims: int
    seed: int


def attack_method(
    request: AttackRequest,
    *,
    out_dir: Path,
    secret_path: Path | None,
    data: Path | None,
    weights: Path | None,
    device: str,
    resumes: bool,
) -> dict[str, Any]:
    """Run one attack on one protection, with a record and a report.

    Raises:
        InvalidInputError: words that name nothing.
    """
    if request.kind not in spine.ATTACK_LABELS:
        raise InvalidInputError(f"no attack is named {request.kind!r}; there are {', '.join(spine.ATTACK_LABELS)}")
    secret = None
    if needs_secret(request.method):
        secret, _ = read_or_create_secret(secret_path or out_dir / SECRET_FILE)
    masker = make_masker(request.method, secret=secret)
    network, card = load_pretrained(request.teacher, weights_dir=weights)
    laptop = spine.REAL_BUDGETS["laptop"]
    budget = dataclasses.replace(laptop, attack_passes=dict.fromkeys(spine.ATTACK_LABELS, request.passes))
    # Not a control in the report's sense: an arm of that role is one that is attacked without recognising.
    arm = Arm(name=request.method, label=request.method, role="control", masker=masker)
    plans = spine.attack_matrix([arm], budget, teacher=network, teacher_card=card)
    wanted = masked_images_threat(knows_secret=request.knows_secret)
    chosen: list[AttackPlan] = [
        dataclasses.replace(plan, role="attack")
        for plan in plans
        if plan.name.startswith(f"{request.kind}-") and (not masker.spec.is_keyed or plan.granted == wanted)
    ]
    protocol, public = read_protocol(request.victims, data=data), read_images(request.public, data=data)
    experiment = Experiment(
        name=f"attack:{request.kind}",
        title=f"{spine.ATTACK_LABELS[request.kind]} on {request.method}",
        command=f"ppfr attack --attack {request.kind} --method {request.method} --public {request.public} "
        f"--victims {request.victims} --{'' if request.knows_secret else 'no-'}knows-secret --passes {request.passes} "
        f"--num-victims {request.num_victims} --seed {request.seed}",
        seed=request.seed,
        people="synthetic" if request.victims.startswith("synthetic") else "real",
        arms=[arm],
        training_images=public,
        protocols=[protocol],
        judges=[
            Judge(
                name=card.name,
                label=card.name,
                embedder=NetworkEmbedder(for_inference(network).to(choose_device(device))),
                knowledge=[Knowledge.of_card(card, used_as="judge and teacher")],
            )
        ],
        attacks=chosen,
        public_images=public,
        victims=Victims(num_subjects=request.num_victims),
    )
    result = _run(experiment, out_dir, device=device, resumes=resumes)
    record = read_record(out_dir / RECORD_FILE)
    return {**result, "outcome": [entry.get("outcome") for entry in record["attacks"]]}
