"""Runs with systems small enough to see through: what is measured, what is told, what survives a crash."""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_experiment import (
    MASKERS_SEEN,
    SECRET,
    SIDE,
    Projection,
    ToyLinkage,
    ToyTraining,
    reader,
    start,
    toy_experiment,
    without_timing,
)

from ppfr.attacks import FreshSecret
from ppfr.core import (
    AttackResult,
    ImageMasker,
    MaskSpec,
    Observation,
    Record,
    check_record,
)
from ppfr.evaluation import EvaluationSettings, Experiment, Question, TrainedArm, evaluate, picture_of_masked
from ppfr.evaluation import _run as run_module
from ppfr.evaluation._workspace import Workspace
from ppfr.masking import Constant, PpfrFd, Unprotected
from ppfr.report import write_report


@pytest.fixture
def experiment() -> Experiment:
    return toy_experiment()


@pytest.fixture(scope="module", autouse=True)
def _quick_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppfr.evaluation._cost._LEAST_S", 0.0)
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


def test_a_question_is_answered_by_the_paired_gap_of_its_two_arms(
    finished: tuple[Path, Record], tmp_path: Path
) -> None:
    _, record = finished
    base, protected = (arm["name"] for arm in record["arms"][:2])
    asked = Question(name="price", text="What does the mask cost?", arm=protected, against=base)
    again = start(dataclasses.replace(toy_experiment(), questions=[asked], attacks=[]), tmp_path)
    (answered,) = again["questions"]
    assert answered["gaps"] == {p["name"]: p["gap_to_baseline"] for p in again["arms"][1]["protocols"]}
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert page.count("What does the mask cost?") >= 1
    assert record["questions"] == [] and record["arms"][1]["guarantee"] is None


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


def test_two_processes_share_the_stages_of_one_run(
    finished: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, str]] = []
    measure = run_module._measure

    def noted(stage: Any, workspace: Any) -> None:
        measured.append((threading.get_ident(), stage.name))
        time.sleep(0.05)  # so that the other one gets a turn
        measure(stage, workspace)

    monkeypatch.setattr(run_module, "_measure", noted)
    monkeypatch.setattr(run_module, "_LOOK_AGAIN_S", 0.01)
    claimed = threading.Event()
    claim = Workspace.claim

    def claim_and_tell(self: Workspace, *args: Any, **kwargs: Any) -> None:
        claim(self, *args, **kwargs)
        claimed.set()

    monkeypatch.setattr(Workspace, "claim", claim_and_tell)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(start, toy_experiment(), tmp_path)
        assert claimed.wait(30)
        second = pool.submit(start, toy_experiment(), tmp_path, resume=True)
        records = [first.result(timeout=120), second.result(timeout=120)]
    stages = [stage["name"] for stage in finished[1]["stages"]]
    assert sorted(name for _, name in measured) == sorted(stages), "each once"
    assert len({worker for worker, _ in measured}) == 2, "by both"
    for record in records:
        assert without_timing(record) == without_timing(finished[1])
    assert without_timing(json.loads((tmp_path / "record.json").read_text())) == without_timing(finished[1])


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
