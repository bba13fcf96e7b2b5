"""Runs with systems small enough to see through: what is measured, what is refused, what survives a crash."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ppfr.attacks import FreshSecret
from ppfr.benchmark import (
    Arm,
    AttackPlan,
    EvaluationSettings,
    Experiment,
    Judge,
    Knowledge,
    Record,
    RunOptions,
    TrainedArm,
    Victims,
    check_record,
    evaluate,
    picture_of_masked,
    run,
    write_report,
)
from ppfr.core import (
    Attack,
    AttackResult,
    CheckpointError,
    ImageMasker,
    ImageSet,
    InvalidInputError,
    MaskSpec,
    Observation,
    OverlapError,
    ProblemsError,
    ThreatModel,
    ThreatModelError,
)
from ppfr.data import ArrayImageSet, PairProtocol
from ppfr.masking import Constant, PpfrFd, Unprotected

SIDE = 32
# What two runs of the same thing may differ in; the checkout can change while tests run.
TIMING = {"wall_s", "mask_images_per_s", "embed_images_per_s", "peak_memory_bytes", "commit", "is_modified"}


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

    @property
    def knowledge(self) -> tuple[Knowledge, ...]:
        return (Knowledge(name=self.network, used_as="body", training_data="toys"),)

    def public_config(self) -> Mapping[str, Any]:
        return {"noise": self.noise}

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedArm:
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
        return TrainedArm(embedder=Projection(5, self.noise), fits=[{"steps": 3, "curve": [[0, 1.0], [2, 0.5]]}])


def reader(*, knows_secret: bool = False, sees: str = "masked_images") -> ThreatModel:
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

    def run(self, seen: Observation, *, seed: int) -> AttackResult:
        if self._dies:
            self._dies.pop()
            raise KeyboardInterrupt
        values = seen.values_NKPQ
        if values.shape[1:] == self._average.shape:
            return AttackResult(recovered_NCHW=values.clone(), notes={"kind": "copy"})
        return AttackResult(recovered_NCHW=self._average.expand(len(values), -1, -1, -1).clone())


class ToyLinkage(ToyRecovery):
    """Guesses the judge's embeddings of what `ToyRecovery` gives back."""

    @property
    def name(self) -> str:
        return "toy-linkage"

    def run(self, seen: Observation, *, seed: int) -> AttackResult:
        recovered = super().run(seen, seed=seed).recovered_NCHW
        assert recovered is not None
        return AttackResult(embeddings_ND=Projection(9).embed(recovered).numpy())


MASKERS_SEEN: list[tuple[str, ImageMasker]] = []
SECRET = bytes(range(32))


@pytest.fixture
def experiment() -> Experiment:
    return toy_experiment()


def toy_experiment(
    *, dies: list[int] | None = None, protected: ToyTraining | None = None, **changes: Any
) -> Experiment:
    shape = (3, SIDE, SIDE)
    tested = people(60, 3, seed=1, name="tested")
    plain, mask = Unprotected(in_shape=shape), PpfrFd(secret=SECRET, in_shape=shape)

    def plan(
        name: str, arm: str, *, role: str = "attack", kind: type[ToyRecovery] = ToyRecovery, **kw: Any
    ) -> AttackPlan:
        granted = kw.pop("granted", reader())
        return AttackPlan(
            name=name,
            label=kind.__name__,
            arm=arm,
            make=lambda options: kind(options, needs=granted, dies=dies if name == "recover-fd" else None),
            granted=granted,
            judge="judge",
            role=role,
            **kw,
        )

    settings: dict[str, Any] = {
        "name": "toy",
        "title": "Toys",
        "command": "ppfr run toy --data /home/ada/faces",
        "seed": 3,
        "people": "synthetic",
        "arms": (
            Arm(name="plain", label="Plain", role="baseline", masker=plain, training=ToyTraining()),
            Arm(
                name="fd",
                label="FD",
                role="protected",
                masker=mask,
                training=protected or ToyTraining(noise=0.3),
                baseline="plain",
            ),
            Arm(
                name="constant", label="Constant", role="control", masker=Constant(out_shape=(2, 4, 4), in_shape=shape)
            ),
        ),
        "training_images": people(20, 3, seed=2, name="train"),
        "protocols": (pairs(tested, each=3),),
        "judges": (Judge(name="judge", label="Judge", embedder=Projection(9)),),
        "attacks": (
            plan("recover-plain", "plain", role="positive control"),
            plan("recover-fd", "fd"),
            plan("link-fd-known", "fd", kind=ToyLinkage, granted=reader(knows_secret=True)),
            plan("recover-constant", "constant", role="negative control"),
        ),
        "public_images": people(20, 3, seed=4, name="public"),
        "victims": Victims(num_subjects=30, num_pictured=4),
        "lpips": lambda a, b: np.abs(a - b).mean(axis=(1, 2, 3)),
        "num_resamples": 100,
        "batch_size": 16,
    }
    return Experiment(**{**settings, **changes})


def without_timing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_timing(item) for key, item in value.items() if key not in TIMING}
    return [without_timing(item) for item in value] if isinstance(value, list) else value


def start(experiment: Experiment, folder: Path, **options: Any) -> Record:
    return run(experiment, out_dir=folder, device="cpu", progress=False, **options)


@pytest.fixture(scope="module", autouse=True)
def _quick_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppfr.benchmark._cost._LEAST_S", 0.0)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("finished")
    MASKERS_SEEN.clear()
    return folder, start(toy_experiment(), folder)


def test_record_is_complete_valid_and_says_what_a_see_through_system_must(finished: tuple[Path, Record]) -> None:
    _, record = finished
    assert record["status"] == "complete"
    check_record(record)
    attacks = {attack["name"]: attack for attack in record["attacks"]}
    plain = attacks["recover-plain"]["outcome"]
    # A copy of the image: perfect likeness, and named exactly as often as the plain image itself.
    assert plain["recovery"]["recovered"]["ssim"]["value"] == pytest.approx(1, abs=1e-6)
    assert plain["recovery"]["recovered"]["identity_cosine"]["value"] == pytest.approx(1, abs=1e-6)
    assert plain["recovery"]["recovered"]["lpips"]["value"] == pytest.approx(0, abs=1e-6)
    assert plain["linkage"]["top1"] == plain["linkage"]["plain_top1"]
    assert plain["linkage"]["top1"]["value"] > 0.8
    # The average face, shown for everyone, names one in the gallery's size, and is what the guess row shows.
    for name in ("recover-fd", "recover-constant"):
        outcome = attacks[name]["outcome"]
        assert outcome["linkage"]["top1"]["value"] == pytest.approx(1 / 30)
        likeness, guess = outcome["recovery"]["recovered"], outcome["recovery"]["guess"]
        assert likeness["at_far"]["accuracy"]["value"] == pytest.approx(0.5, abs=0.06)
        assert likeness["ssim"]["value"] == pytest.approx(guess["ssim"]["value"], abs=0.1)
    verdicts = {name: attack["control"] and attack["control"]["is_met"] for name, attack in attacks.items()}
    assert verdicts == {"recover-plain": True, "recover-fd": None, "link-fd-known": None, "recover-constant": True}
    assert attacks["link-fd-known"]["outcome"]["recovery"] is None
    assert plain["pairs"][0]["num_genuine"] == 120  # both orders of 60 pairs


def test_victims_gallery_and_gap_are_as_stated(finished: tuple[Path, Record]) -> None:
    _, record = finished
    linkage = record["attacks"][0]["outcome"]["linkage"]
    assert (linkage["gallery_size"], linkage["chance_top1"], linkage["chance_top5"]) == (30, 1 / 30, 5 / 30)
    base, protected = (arm["protocols"][0] for arm in record["arms"][:2])
    gap = protected["gap_to_baseline"]
    assert gap["value"] == pytest.approx(protected["accuracy"]["value"] - base["accuracy"]["value"])
    assert "paired" in gap["method"]
    assert base["gap_to_baseline"] is None
    assert record["arms"][1]["cost"]["bytes_relative_to_image"] == record["arms"][1]["masker"]["bytes_per_face"] / 3072


def test_adversary_gets_the_deployed_secret_only_if_it_is_granted(finished: tuple[Path, Record]) -> None:
    kinds = {name.removeprefix("attack-"): type(masker) for name, masker in MASKERS_SEEN}
    assert kinds == {
        "recover-plain": Unprotected,
        "recover-fd": FreshSecret,
        "link-fd-known": PpfrFd,
        "recover-constant": Constant,
    }


def test_record_tells_nobodys_name_place_or_secret(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    text = (folder / "record.json").read_text()
    assert "tested-" not in text
    assert str(folder) not in text
    assert "/home/" not in text
    assert "…/faces" in text
    assert SECRET.hex() not in text


def test_pictures_lie_beside_the_record_and_in_the_report(finished: tuple[Path, Record], tmp_path: Path) -> None:
    folder, _ = finished
    page = write_report(folder, tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 3 + 3  # originals, seen by arm, recovered by attack
    assert "Toys" in page


def test_same_record_after_a_crash_in_the_middle(finished: tuple[Path, Record], tmp_path: Path) -> None:
    dies = [1]
    with pytest.raises(KeyboardInterrupt):
        start(toy_experiment(dies=dies), tmp_path)
    partial = json.loads((tmp_path / "record.json").read_text())
    check_record(partial)
    assert partial["status"] == "partial"
    assert {s["status"] for s in partial["stages"]} == {"done", "pending"}
    assert partial["arms"][1]["protocols"]
    write_report(tmp_path, tmp_path / "partial.html")
    training = ToyTraining(noise=0.3)
    record = start(toy_experiment(protected=training), tmp_path, resume=True)
    assert without_timing(record) == without_timing(finished[1])
    assert (training.num_full, training.num_loaded) == (0, 0)  # nothing that is done is done again


def test_resume_between_training_and_evaluation_loads_the_training(tmp_path: Path) -> None:
    start(toy_experiment(attacks=(), victims=None), tmp_path)
    (tmp_path / "parts" / "evaluate--fd.json").unlink()
    (tmp_path / "parts" / "compare--fd.json").unlink()
    training = ToyTraining(noise=0.3)
    record = start(toy_experiment(protected=training, attacks=(), victims=None), tmp_path, resume=True)
    assert record["status"] == "complete"
    assert (training.num_full, training.num_loaded) == (0, 1)


def test_a_failing_stage_is_told_and_the_others_go_on(finished: tuple[Path, Record], tmp_path: Path) -> None:
    record = start(toy_experiment(protected=ToyTraining(noise=0.3, breaks=True)), tmp_path)
    check_record(record)
    states = {stage["name"]: stage["status"] for stage in record["stages"]}
    assert record["status"] == "failed"
    assert states["train/fd"] == "failed"
    assert {states["evaluate/fd"], states["compare/fd"], states["cost/fd"]} == {"skipped"}
    assert {states["evaluate/plain"], states["attack/recover-fd"], states["attack/recover-constant"]} == {"done"}
    error = next(s["error"] for s in record["stages"] if s["error"])
    assert error["kind"] == "InvalidInputError"
    written = json.loads((tmp_path / "record.json").read_text())
    assert "mend it at …/shop.py" in json.dumps(written, ensure_ascii=False)
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert "This run is incomplete" in page
    # Mended and resumed, it ends like a run that never failed.
    record = start(toy_experiment(), tmp_path, resume=True)
    assert without_timing(record) == without_timing(finished[1])


def test_an_unexpected_error_leaves_its_traceback_out_of_the_record(tmp_path: Path) -> None:
    class Broken(ToyTraining):
        def train(self, *args: Any, **kwargs: Any) -> TrainedArm:
            raise KeyError("George")

    record = start(toy_experiment(protected=Broken(noise=0.3), attacks=(), victims=None), tmp_path)
    error = next(stage["error"] for stage in record["stages"] if stage["error"])
    assert error["kind"] == "KeyError"
    assert "George" not in json.dumps(record)
    assert "George" in (tmp_path / "errors" / "train--fd.txt").read_text()


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    slim: dict[str, Any] = {"attacks": (), "victims": None}
    start(toy_experiment(**slim), tmp_path)
    with pytest.raises(CheckpointError, match="earlier run; resume it"):
        start(toy_experiment(**slim), tmp_path)
    with pytest.raises(CheckpointError, match="another configuration: seed"):
        start(toy_experiment(seed=4, **slim), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"another configuration: data\.training/train"):
        start(toy_experiment(training_images=people(20, 3, seed=99, name="train"), **slim), tmp_path, resume=True)
    other = toy_experiment(**slim)
    arms = list(other.arms)
    masker = PpfrFd(secret=bytes(32), in_shape=(3, SIDE, SIDE))
    arms[1] = dataclasses.replace(arms[1], masker=masker)
    with pytest.raises(CheckpointError, match="another secret of arm 'fd'"):
        start(dataclasses.replace(other, arms=arms), tmp_path, resume=True)
    (tmp_path / "parts" / "train--plain.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"train--plain\.json is damaged"):
        start(toy_experiment(**slim), tmp_path, resume=True)


def test_shared_people_are_refused_before_anything_runs(experiment: Experiment, tmp_path: Path) -> None:
    overlapping = people(20, 3, seed=2, name="tested", first=55)
    for change in ({"training_images": overlapping}, {"public_images": overlapping}):
        with pytest.raises(OverlapError, match="share 5"):
            start(dataclasses.replace(experiment, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("needs", "granted", "words"),
    [
        (reader(knows_secret=True), reader(), "needs the deployment's secret"),
        (reader(), reader(knows_secret=True), "does not use it"),
        (reader(sees="embeddings"), reader(), "needs to see 'embeddings'"),
        (dataclasses.replace(reader(), knows_recogniser=True), reader(), "needs the recogniser's weights"),
    ],
)
def test_threat_model_mismatch_is_refused(
    experiment: Experiment, tmp_path: Path, needs: ThreatModel, granted: ThreatModel, words: str
) -> None:
    plan = dataclasses.replace(
        experiment.attacks[1], granted=granted, make=lambda options: ToyRecovery(options, needs=needs)
    )
    with pytest.raises(ThreatModelError, match=words):
        start(dataclasses.replace(experiment, attacks=(plan,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_problems_of_an_experiment_are_told_at_once(experiment: Experiment, tmp_path: Path) -> None:
    arms = [
        dataclasses.replace(experiment.arms[0], name="a/b"),
        dataclasses.replace(experiment.arms[1], training=ToyTraining(network="judge")),
        dataclasses.replace(experiment.arms[2], role="control", training=ToyTraining()),
    ]
    attacks = [
        dataclasses.replace(experiment.attacks[1], judge="nobody"),
        dataclasses.replace(experiment.attacks[1], role="positive control", name="wrong-place"),
        dataclasses.replace(experiment.attacks[2]),
    ]
    bad = dataclasses.replace(
        experiment, arms=arms, attacks=attacks, victims=Victims(num_subjects=500), people="some", fars=(2.0,)
    )
    with pytest.raises(ProblemsError) as caught:
        start(bad, tmp_path / "run")
    text = str(caught.value)
    for words in (
        "arm name 'a/b'",
        "baseline 'plain' is no arm before it",
        "a control has no training",
        "there is no judge 'nobody'",
        "a positive control does not belong on an arm of role 'protected'",
        "was made from; judge with another network",
        "500 victims; 60 people have two images",
        "people='some'",
        "each must lie in (0, 1]",
    ):
        assert words in text, words


def test_an_attack_that_guesses_in_another_space_fails_with_the_remedy(experiment: Experiment, tmp_path: Path) -> None:
    class Short(ToyLinkage):
        def run(self, seen: Observation, *, seed: int) -> AttackResult:
            found = super().run(seen, seed=seed).embeddings_ND
            assert found is not None
            return AttackResult(embeddings_ND=found[:, :5])

    plan = dataclasses.replace(
        experiment.attacks[2], make=lambda options: Short(options, needs=reader(knows_secret=True))
    )
    record = start(dataclasses.replace(experiment, attacks=(plan,)), tmp_path)
    error = next(stage["error"] for stage in record["stages"] if stage["error"])
    assert "name the judge whose embeddings" in error["message"]


def test_stochastic_masks_are_fresh_for_each_purpose_and_the_same_in_each_run(tmp_path: Path) -> None:
    class Noisy(ImageMasker):
        name = "noisy"
        spec = MaskSpec(
            in_shape=(3, SIDE, SIDE),
            out_shape=(3, SIDE, SIDE),
            value_range=(-float("inf"), float("inf")),
            is_stochastic=True,
            is_keyed=False,
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=6144,
        )

        def mask(self, image_BCHW: Tensor, *, rng: torch.Generator) -> Tensor:
            return image_BCHW + 0.3 * torch.randn(image_BCHW.shape, generator=rng)

        def public_config(self) -> Mapping[str, Any]:
            return {}

    slim: dict[str, Any] = {"attacks": (), "victims": None}
    experiment = toy_experiment(**slim)
    arms = [experiment.arms[0], dataclasses.replace(experiment.arms[1], masker=Noisy())]
    records = [start(dataclasses.replace(experiment, arms=arms), tmp_path / name) for name in ("a", "b")]
    assert without_timing(records[0]) == without_timing(records[1])
    assert records[0]["arms"][1]["masker"]["value_range"] == [None, None]
    accuracies = [arm["protocols"][0]["accuracy"]["value"] for arm in records[0]["arms"]]
    assert accuracies[1] < accuracies[0]


def test_one_recogniser_evaluated_alone_gets_the_figures_that_the_arm_gets(finished: tuple[Path, Record]) -> None:
    experiment = toy_experiment()
    settings = EvaluationSettings(seed=3, num_resamples=100, batch_size=16)
    alone = evaluate(experiment.arms[1].masker, Projection(5, 0.3), experiment.protocols[0], settings=settings)
    of_arm = finished[1]["arms"][1]["protocols"][0]
    assert {**alone, "gap_to_baseline": of_arm["gap_to_baseline"]} == of_arm


def test_masked_faces_are_drawn_as_what_they_are() -> None:
    plain = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = picture_of_masked(plain, (0.0, 1.0))
    assert np.abs(drawn / 255 - plain.permute(0, 2, 3, 1).numpy()).max() <= 0.5 / 255 + 1e-6
    channels = torch.zeros(1, 5, 4, 4)
    channels[0, 4] = torch.arange(16.0).reshape(4, 4)
    mosaic = picture_of_masked(channels, (-float("inf"), float("inf")))
    assert mosaic.shape == (1, 8, 12, 3)  # 5 channels in rows of 3
    assert set(np.unique(mosaic[0, :4])) == {128}  # channels without contrast are grey, none is blown up
    assert mosaic[0, 4:, 4:8].min() == 0
    assert mosaic[0, 4:, 4:8].max() == 255
    assert copy.copy(drawn).dtype == np.uint8
