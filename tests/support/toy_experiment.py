"""Systems small enough to see through: people of patterns, a linear recogniser, attacks that invert it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import (
    Attack,
    AttackResult,
    ImageMasker,
    ImageSet,
    InvalidInputError,
    MaskedImages,
    Observation,
    ObservedImages,
    Provenance,
    Record,
    RunOptions,
    ThreatModel,
)
from ppfr.data import ArrayImageSet, PairProtocol
from ppfr.evaluation import (
    AccuracyGaps,
    Cost,
    EvaluationRecogniser,
    Experiment,
    ImageAttackPlan,
    ImageAttacks,
    Measure,
    System,
    Targets,
    TrainedSystem,
    Training,
    Verification,
    run,
)
from ppfr.masking import Constant, PpfrFd, Unprotected

SIDE = 32


def people(num: int, each: int, *, seed: int, name: str, first: int = 0) -> ArrayImageSet:
    """A smooth random pattern for each person, noise for each image."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(num, 3, 5, 5)))
    base = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").numpy().repeat(each, axis=0)
    images = np.clip(0.5 + 0.16 * base + 0.02 * rng.normal(size=base.shape), 0, 1)
    subjects = [f"{name}-{first + i // each}" for i in range(num * each)]
    return ArrayImageSet((images * 255).astype(np.uint8).transpose(0, 2, 3, 1).copy(), subjects, name=name)


def pairs(images: ArrayImageSet, *, each: int, num_folds: int = 4) -> PairProtocol:
    """Every person's first two images, and every person against the next."""
    num = len(images) // each
    a = np.arange(num) * each
    first, second = np.concatenate([a, a]), np.concatenate([a + 1, np.roll(a, -1)])
    fold = np.concatenate([np.arange(num) % num_folds] * 2)
    return PairProtocol(
        name="toy", images=images, first=first, second=second, is_genuine=np.arange(2 * num) < num, fold=fold
    )


class Projection:
    """A fixed random projection of the pooled input, as an embedder of any masked or plain image."""

    dim = 24

    def __init__(self, seed: int, noise: float = 0.0) -> None:
        self._seed, self._noise = seed, noise

    def embed(self, x_BKPQ: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x_BKPQ.float(), 8).flatten(1)
        pooled = pooled - pooled.mean(dim=1, keepdim=True)
        rng = torch.Generator().manual_seed(self._seed)
        matrix = torch.randn(pooled.shape[1], self.dim, generator=rng)
        rows = pooled @ matrix + 1e-3
        rows = rows + self._noise * rows.norm(dim=1, keepdim=True) * torch.sin(997 * rows)
        return functional.normalize(rows, dim=1)


class ToyTraining:
    """Counts its trainings and can be told to break."""

    def __init__(self, *, noise: float = 0.0, breaks: bool = False, network: str = "net-a") -> None:
        self.noise, self.breaks, self.network, self.num_full, self.num_loaded = noise, breaks, network, 0, 0

    mixes = False

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        return (Provenance(name=self.network, used_as="body", training_data="toys"),)

    def public_config(self) -> Mapping[str, Any]:
        return {"noise": self.noise}

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        done = options.run_dir / "done"
        if done.exists():
            assert options.resumes
            self.num_loaded += 1
        else:
            self.num_full += 1
            if self.breaks:
                raise InvalidInputError("the toy broke; mend it at /home/somebody/toys/shop.py")
            done.parent.mkdir(parents=True)
            done.touch()
        return TrainedSystem(embedder=Projection(5, self.noise), fits=[{"steps": 3, "curve": [[0, 1.0], [2, 0.5]]}])


def reader(*, knows_secret: bool = False, sees: type[Observation] = MaskedImages) -> ThreatModel:
    return ThreatModel(name="reader", sees=sees, knows_secret=knows_secret, knows_recogniser=False)


class ToyRecovery(Attack):
    """Gives back three-channel images as they are, and the mean public face for anything else."""

    def __init__(self, options: RunOptions, *, needs: ThreatModel | None = None, dies: list[int] | None = None) -> None:
        self.options, self._needs, self._dies = options, needs or reader(), dies
        self.maskers: list[str] = []

    @property
    def name(self) -> str:
        return "toy-recovery"

    @property
    def needs(self) -> ThreatModel:
        return self._needs

    def fit(self, masker: ImageMasker, public: ImageSet, *, seed: int) -> Mapping[str, float | int | str]:
        self._average = torch.from_numpy(public.read(range(20)).mean(axis=0) / 255).permute(2, 0, 1).float()
        MASKERS_SEEN.append((self.options.run_dir.name, masker))
        return {"steps": 2}

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        if self._dies:
            self._dies.pop()
            raise KeyboardInterrupt
        values = seen.images_NKPQ
        if values.shape[1:] == self._average.shape:
            return AttackResult(recovered_NCHW=values.clone(), notes={"kind": "copy"})
        return AttackResult(recovered_NCHW=self._average.expand(len(values), -1, -1, -1).clone())


class ToyLinkage(ToyRecovery):
    """Estimates the evaluation recogniser's embeddings of what `ToyRecovery` gives back."""

    @property
    def name(self) -> str:
        return "toy-linkage"

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        recovered = super().run(seen, seed=seed).recovered_NCHW
        assert recovered is not None
        return AttackResult(embeddings_ND=Projection(9).embed(recovered).numpy())


MASKERS_SEEN: list[tuple[str, ImageMasker]] = []
SECRET = bytes(range(32))


def toy_plan(
    name: str,
    system: str,
    *,
    role: str = "attack",
    kind: type[ToyRecovery] = ToyRecovery,
    granted: ThreatModel | None = None,
    dies: list[int] | None = None,
    **changes: Any,
) -> ImageAttackPlan:
    threat = granted or reader()
    settings: dict[str, Any] = {
        "name": name,
        "label": kind.__name__,
        "system": system,
        "make": lambda options: kind(options, needs=threat, dies=dies),
        "granted": threat,
        "recogniser": "recogniser",
        "role": role,
    }
    return ImageAttackPlan(**{**settings, **changes})


def toy_plans(dies: list[int] | None = None) -> list[ImageAttackPlan]:
    """A positive control, an attack without and one with the secret, a negative control."""
    return [
        toy_plan("recover-plain", "plain", role="positive control"),
        toy_plan("recover-fd", "fd", dies=dies),
        toy_plan("link-fd-known", "fd", kind=ToyLinkage, granted=reader(knows_secret=True)),
        toy_plan("recover-constant", "constant", role="negative control"),
    ]


def toy_systems(protected: ToyTraining | None = None) -> list[System]:
    """Plain images, PPFR-FD and a constant."""
    shape = (3, SIDE, SIDE)
    training = protected or ToyTraining(noise=0.3)
    fd, nothing = PpfrFd(secret=SECRET, in_shape=shape), Constant(out_shape=(2, 4, 4), in_shape=shape)
    return [
        System(
            name="plain", label="Plain", role="baseline", masker=Unprotected(in_shape=shape), training=ToyTraining()
        ),
        System(name="fd", label="FD", role="protected", masker=fd, training=training, baseline="plain"),
        System(name="constant", label="Constant", role="control", masker=nothing),
    ]


def toy_protocol() -> PairProtocol:
    """60 people."""
    return pairs(people(60, 3, seed=1, name="tested"), each=3)


def toy_measures(
    *,
    protocol: PairProtocol | None = None,
    plans: Sequence[ImageAttackPlan] | None = None,
    dies: list[int] | None = None,
    **attack_changes: Any,
) -> list[Measure]:
    """Every measure of masked images; attacks are left out with `plans=()`."""
    protocols = [protocol or toy_protocol()]
    chosen = toy_plans(dies) if plans is None else list(plans)
    measures: list[Measure] = [
        Training(),
        Verification(protocols=protocols),
        Cost(),
        AccuracyGaps(protocols=protocols),
    ]
    if chosen:
        settings: dict[str, Any] = {
            "plans": chosen,
            "protocols": protocols,
            "targets": Targets(num_subjects=30, num_pictured=4),
            "public_images": people(20, 3, seed=4, name="public"),
            "lpips": lambda a, b: np.abs(a - b).mean(axis=(1, 2, 3)),
        }
        measures.append(ImageAttacks(**{**settings, **attack_changes}))
    return measures


def toy_experiment(
    *,
    dies: list[int] | None = None,
    protected: ToyTraining | None = None,
    plans: Sequence[ImageAttackPlan] | None = None,
    **changes: Any,
) -> Experiment:
    settings: dict[str, Any] = {
        "name": "toy",
        "title": "Toys",
        "command": "ppfr run toy --data /home/ada/faces",
        "seed": 3,
        "people": "synthetic",
        "systems": toy_systems(protected),
        "measures": toy_measures(plans=plans, dies=dies),
        "recognisers": [EvaluationRecogniser(name="recogniser", label="Recogniser", embedder=Projection(9))],
        "training_images": people(20, 3, seed=2, name="train"),
        "num_resamples": 100,
        "batch_size": 16,
    }
    return Experiment(**{**settings, **changes})


def start(experiment: Experiment, folder: Path, **options: Any) -> Record:
    """Run on the CPU without printing."""
    return run(experiment, options=RunOptions(run_dir=folder, device="cpu", shows_progress=False, **options))
