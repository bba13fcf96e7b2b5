"""Runs with small transparent systems: figures, records, crashes and shared runs."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ppfr.attacks import FreshSecret, masked_images_threat
from ppfr.core import (
    AttackResult,
    ImageMasker,
    MaskSpec,
    ObservedImages,
    ProblemsError,
    Record,
    UnsupportableError,
    as_json,
    check_record,
)
from ppfr.data import ArrayImageSet, PairProtocol
from ppfr.evaluation import (
    RENDERINGS,
    Comparison,
    EvaluationSettings,
    Stage,
    TrainedSystem,
    Workspace,
    evaluate,
)
from ppfr.evaluation import _run as run_module
from ppfr.evaluation._run import remaining_s
from ppfr.masking import Constant, PpfrFd, Unprotected
from support.records import entry, row, rows, stage_states, without_timing
from support.toy_experiment import (
    MASKERS_SEEN,
    SECRET,
    SIDE,
    Projection,
    ToyLinkage,
    ToyRecovery,
    ToyTraining,
    reader,
    start,
    toy_experiment,
    toy_measures,
    toy_plan,
    toy_plans,
    toy_protocol,
    toy_systems,
)


@pytest.fixture(scope="module", autouse=True)
def _quick_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppfr.evaluation.measures._cost._MIN_S", 0.0)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("finished")
    MASKERS_SEEN.clear()
    record = start(toy_experiment(), folder)
    _SEEN_IN_FINISHED[:] = MASKERS_SEEN  # other tests add to the list
    return folder, record


_SEEN_IN_FINISHED: list[tuple[str, ImageMasker]] = []


def test_masked_images_are_measured_under_another_rendering_too(tmp_path: Path) -> None:
    plans = [plan for plan in toy_plans() if plan.name == "recover-fd"]
    record = start(toy_experiment(measures=toy_measures(plans=plans, renderings=RENDERINGS[1:])), tmp_path)
    check_record(record)
    (found,) = rows(record, "masked_picture")
    shown = row(record, "image_recovery", attack="recover-fd")["masked"]
    assert (found["attack"], found["rendering"]) == ("recover-fd", "channel-magnitude")
    assert found["lpips"]["n"] == shown["lpips"]["n"] and found["lpips"]["value"] != shown["lpips"]["value"]
    unknown = toy_measures(plans=plans, renderings=("mosaic",))
    with pytest.raises(ProblemsError, match=r"'mosaic'.*channel-magnitude"):
        start(toy_experiment(measures=unknown), tmp_path / "unknown")


def test_copying_attack_is_perfect_and_average_face_is_at_chance_level(finished: tuple[Path, Record]) -> None:
    _, record = finished
    assert record["status"] == "complete"
    check_record(record)
    recovered = row(record, "image_recovery", attack="recover-plain")["recovered"]
    assert recovered["ssim"]["value"] == pytest.approx(1, abs=1e-6)
    assert recovered["identity_cosine"]["value"] == pytest.approx(1, abs=1e-6)
    assert recovered["lpips"]["value"] == pytest.approx(0, abs=1e-6)
    found = row(record, "re_identification", attack="recover-plain")
    assert found["rank_1"] == found["plain_rank_1"]
    assert found["rank_1"]["value"] > 0.8
    # The average face, shown for everyone, is found at rank 1 for one in the gallery's size.
    for name in ("recover-fd", "recover-constant"):
        assert row(record, "re_identification", attack=name)["rank_1"]["value"] == pytest.approx(1 / 30)
        recovery = row(record, "image_recovery", attack=name)
        assert recovery["recovered"]["at_far"]["accuracy"]["value"] == pytest.approx(0.5, abs=0.06)
        similarity = recovery["average"]["ssim"]["value"]
        assert recovery["recovered"]["ssim"]["value"] == pytest.approx(similarity, abs=0.1)
    verdicts = {run["attack"]: run["is_control_met"] for run in rows(record, "attack_run")}
    assert verdicts == {"recover-plain": True, "recover-fd": None, "link-fd-known": None, "recover-constant": True}
    assert not rows(record, "image_recovery", attack="link-fd-known")
    pairs = row(record, "verification", source="attack", name="recover-plain")
    assert pairs["num_genuine"] == 120  # both orders of 60 pairs


def test_gallery_size_chance_level_gap_and_cost_are_consistent(finished: tuple[Path, Record]) -> None:
    _, record = finished
    found = rows(record, "re_identification")[0]
    assert (found["gallery_size"], found["chance_rank_1"], found["chance_rank_5"]) == (30, 1 / 30, 5 / 30)
    plain, fd = (row(record, "verification", source="system", name=name)["accuracy"] for name in ("plain", "fd"))
    gap = row(record, "accuracy_gap")
    assert (gap["system"], gap["against"], gap["comparison"]) == ("fd", "plain", None)
    assert gap["gap"]["value"] == pytest.approx(fd["value"] - plain["value"])
    assert "paired" in gap["gap"]["method"]
    cost, masker = row(record, "cost", system="fd"), entry(record, "systems", "fd")["masker"]
    assert cost["bytes_relative_to_image"] == masker["bytes_per_face"] / 3072


def test_comparison_has_the_paired_gap_of_its_systems(tmp_path: Path) -> None:
    asked = Comparison(name="price", text="What does the mask cost?", system="fd", against="plain")
    record = start(toy_experiment(comparisons=[asked], plans=()), tmp_path)
    to_baseline, answered = rows(record, "accuracy_gap")
    assert answered["comparison"] == "price" and answered["gap"] == to_baseline["gap"]
    assert entry(record, "comparisons", "price")["text"] == "What does the mask cost?"
    assert row(record, "training", system="fd")["guarantee"] is None


def test_only_a_granted_secret_reaches_the_adversary(finished: tuple[Path, Record]) -> None:
    kinds = {name.removeprefix("attack-"): type(masker) for name, masker in _SEEN_IN_FINISHED}
    assert kinds == {
        "recover-plain": Unprotected,
        "recover-fd": FreshSecret,
        "link-fd-known": PpfrFd,
        "recover-constant": Constant,
    }


def test_record_states_what_the_adversary_has_and_the_attack_does_not_use(tmp_path: Path) -> None:
    server = masked_images_threat(knows_secret=True)
    without = dataclasses.replace(server, knows_recogniser=False)
    plans = [
        toy_plan("uses-it", "fd", granted=server),
        toy_plan("does-not", "fd", granted=server, make=lambda options: ToyRecovery(options, needs=without)),
    ]
    record = start(toy_experiment(plans=plans), tmp_path)
    threats = {attack["name"]: attack["threat_model"] for attack in record["attacks"]}
    assert all(threat["knows_recogniser"] for threat in threats.values())
    assert all(
        "knows" in threat["in_words"] and "recogniser's weights" in threat["in_words"] for threat in threats.values()
    )
    assert threats["uses-it"]["in_words"] == server.in_words()
    assert threats["does-not"]["in_words"] == f"{server.in_words()} This attack does not use the recogniser's weights."


def test_record_contains_no_subject_path_or_secret(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    text = (folder / "record.json").read_text()
    assert "tested-" not in text
    assert str(folder) not in text
    assert "/home/" not in text
    assert "…/faces" in text
    assert SECRET.hex() not in text


def test_strips_of_faces_are_in_the_folder_of_the_run(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    listed = json.loads((folder / "pictures" / "index.json").read_text())["rows"]
    assert [row["kind"] for row in listed].count("original") == 1
    assert [row["kind"] for row in listed].count("seen") == 3  # one per system
    assert [row["kind"] for row in listed].count("recovered") == 3  # one per attack that recovers pictures
    assert all((folder / "pictures" / row["file"]).is_file() for row in listed)


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

    def claim_and_signal(self: Workspace, *args: Any, **kwargs: Any) -> None:
        claim(self, *args, **kwargs)
        claimed.set()

    monkeypatch.setattr(Workspace, "claim", claim_and_signal)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(start, toy_experiment(), tmp_path)
        assert claimed.wait(30)
        second = pool.submit(start, toy_experiment(), tmp_path, resumes=True)
        records = [first.result(timeout=120), second.result(timeout=120)]
    stages = [stage["name"] for stage in finished[1]["stages"]]
    assert sorted(name for _, name in measured) == sorted(stages), "each once"
    assert len({worker for worker, _ in measured}) == 2, "by both"
    for record in records:
        assert without_timing(record) == without_timing(finished[1])
    assert without_timing(json.loads((tmp_path / "record.json").read_text())) == without_timing(finished[1])


def test_resumed_run_ends_with_the_same_record(finished: tuple[Path, Record], tmp_path: Path) -> None:
    dies = [1]
    with pytest.raises(KeyboardInterrupt):
        start(toy_experiment(dies=dies), tmp_path)
    partial = json.loads((tmp_path / "record.json").read_text())
    check_record(partial)
    assert partial["status"] == "partial"
    assert set(stage_states(partial).values()) == {"done", "pending"}
    assert rows(partial, "verification", source="system", name="fd")
    training = ToyTraining(noise=0.3)
    record = start(toy_experiment(protected=training), tmp_path, resumes=True)
    assert without_timing(record) == without_timing(finished[1])
    assert (training.num_full, training.num_loaded) == (0, 0)  # nothing that is done is done again


def test_resuming_between_training_and_evaluation_loads_the_training(tmp_path: Path) -> None:
    start(toy_experiment(plans=()), tmp_path)
    (tmp_path / "parts" / "evaluate--fd.json").unlink()
    (tmp_path / "parts" / "compare--fd.json").unlink()
    training = ToyTraining(noise=0.3)
    record = start(toy_experiment(protected=training, plans=()), tmp_path, resumes=True)
    assert record["status"] == "complete"
    assert (training.num_full, training.num_loaded) == (0, 1)


def test_failed_stage_is_recorded_and_independent_stages_run(finished: tuple[Path, Record], tmp_path: Path) -> None:
    record = start(toy_experiment(protected=ToyTraining(noise=0.3, breaks=True)), tmp_path)
    check_record(record)
    states = stage_states(record)
    assert record["status"] == "failed"
    assert states["train/fd"] == "failed"
    assert {states["evaluate/fd"], states["compare/fd"], states["cost/fd"]} == {"skipped"}
    assert {states["evaluate/plain"], states["attack/recover-fd"], states["attack/recover-constant"]} == {"done"}
    error = next(s["error"] for s in record["stages"] if s["error"])
    assert error["kind"] == "InvalidInputError"
    written = json.loads((tmp_path / "record.json").read_text())
    assert "mend it at …/shop.py" in json.dumps(written, ensure_ascii=False)
    # Mended and resumed, it ends like a run that never failed.
    record = start(toy_experiment(), tmp_path, resumes=True)
    assert without_timing(record) == without_timing(finished[1])


def test_traceback_of_unexpected_error_is_not_in_the_record(tmp_path: Path) -> None:
    class Broken(ToyTraining):
        def train(self, *args: Any, **kwargs: Any) -> TrainedSystem:
            raise KeyError("George")

    record = start(toy_experiment(protected=Broken(noise=0.3), plans=()), tmp_path)
    error = next(stage["error"] for stage in record["stages"] if stage["error"])
    assert error["kind"] == "KeyError"
    assert "George" not in json.dumps(record)
    assert "George" in (tmp_path / "errors" / "train--fd.txt").read_text()


def test_attack_with_embeddings_of_another_length_fails_with_the_remedy(tmp_path: Path) -> None:
    class Short(ToyLinkage):
        def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
            found = super().run(seen, seed=seed).embeddings_ND
            assert found is not None
            return AttackResult(embeddings_ND=found[:, :5])

    plan = toy_plan("short", "fd", kind=Short, granted=reader(knows_secret=True))
    record = start(toy_experiment(plans=[plan]), tmp_path)
    error = next(stage["error"] for stage in record["stages"] if stage["error"])
    assert error["kind"] == "ShapeError" and "Set `recogniser`" in error["message"]


def test_stochastic_masks_differ_by_purpose_and_repeat_in_each_run(tmp_path: Path) -> None:
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

    plain, fd, _ = toy_systems()
    systems = [plain, dataclasses.replace(fd, masker=Noisy())]
    records = [start(toy_experiment(systems=systems, plans=()), tmp_path / name) for name in ("a", "b")]
    assert without_timing(records[0]) == without_timing(records[1])
    assert entry(records[0], "systems", "fd")["masker"]["value_range"] == [None, None]
    accuracies = [row(records[0], "verification", source="system", name=s.name)["accuracy"] for s in systems]
    assert accuracies[1]["value"] < accuracies[0]["value"]


def test_evaluate_returns_the_figures_of_the_experiment(finished: tuple[Path, Record]) -> None:
    masker = toy_systems()[1].masker
    assert masker is not None
    settings = EvaluationSettings(seed=3, num_resamples=100, batch_size=16)
    alone = as_json(evaluate(masker, Projection(5, 0.3), toy_protocol(), settings=settings))
    assert {**alone, "name": "fd"} == row(finished[1], "verification", source="system", name="fd")


@pytest.mark.parametrize("mirrors_input", [False, True])
def test_accuracy_costs_one_masked_image_for_each_image(mirrors_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    masker, protocol = Unprotected(in_shape=(3, SIDE, SIDE)), toy_protocol()
    mask, seen = Unprotected.mask, []

    def counted(self: Unprotected, image_BCHW: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        seen.append(len(image_BCHW))
        return mask(self, image_BCHW, rng=rng)

    monkeypatch.setattr(Unprotected, "mask", counted)
    settings = EvaluationSettings(seed=3, num_resamples=100, batch_size=16, mirrors_input=mirrors_input)
    found = evaluate(masker, Projection(5, 0.3), protocol, settings=settings)
    assert sum(seen) == len(protocol.used())
    mirrored = dataclasses.replace(protocol, images=_mirror_images(protocol))
    of_mirrored = evaluate(masker, Projection(5, 0.3), mirrored, settings=settings)
    assert (found.roc == of_mirrored.roc) == mirrors_input, "both inputs weigh the same if both are embedded"


def _mirror_images(protocol: PairProtocol) -> ArrayImageSet:
    pixels = protocol.images.read(range(len(protocol.images)))[:, :, ::-1].copy()
    return ArrayImageSet(pixels, list(protocol.images.subject_ids), name="mirrored")


@pytest.mark.parametrize("permutation", ["fixed", "per_image"])
def test_evaluate_refuses_mirrored_inputs_of_a_masker_that_cannot_mirror(permutation: Any) -> None:
    secret = SECRET if permutation == "fixed" else None
    masker = PpfrFd(secret=secret, permutation=permutation, in_shape=(3, SIDE, SIDE))
    settings = EvaluationSettings(seed=3, num_resamples=100, mirrors_input=True)
    with pytest.raises(UnsupportableError, match=r"ppfr-fd .*mirrors_input=False"):
        evaluate(masker, Projection(5), toy_protocol(), settings=settings)


STAGES = [("train/a", 10), ("train/b", 10), ("train/c", 10), ("cost/a", 0.2), ("cost/b", 0.2)]


def test_remaining_time_of_a_known_kind_is_independent_of_other_kinds() -> None:
    """Two trainings of 100 s are left, whatever the short stages before them took."""
    stages = [Stage(name=name, title="", weight=weight, after=(), measure=list) for name, weight in STAGES]
    known = {"train/a": 100.0}
    assert remaining_s(stages, known | {"cost/a": 1.0}) == pytest.approx(200 + 1)
    assert remaining_s(stages, known | {"cost/a": 30.0}) == pytest.approx(200 + 30)
    assert remaining_s(stages, known) == pytest.approx(200 + 2 * 2), "an unknown kind: as all so far"
    assert remaining_s(stages, {"cost/a": 1.0}) == 0, "most of what is left is of an unknown kind"
    assert remaining_s(stages, {}) == 0
    assert remaining_s(stages, dict.fromkeys((name for name, _ in STAGES), 1.0)) == 0
