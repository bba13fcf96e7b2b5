"""`ppfr train`, `evaluate` and `attack` on folders of people whom the test shares, or does not share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ppfr.cli import run
from ppfr.core import OverlapError, RunOptions
from ppfr.data import read_folder, read_pair_list, write_crop, write_insightface_bin
from ppfr.experiments._training import StrategyTraining
from ppfr.masking import Unprotected
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import FromScratch, TrainingSet, load_system
from ppfr.training import Plan
from ppfr.workflows import AttackRequest, TrainingRequest, attack_method, evaluate_model, train_system

TRAINED = ["José_Núñez", "Ann_Lee", "Bob_Ray", "LeBron_James", "Di_Oak", "Ed_Elm"]
STRANGERS = ["Cy_Fox", "Flo_Ash", "Guy_Bay", "Hal_Ivy", "Ida_Jay", "Jo_Kay"]
SHARED = ["jose nunez", "ANN LEE", "Lebron James", *STRANGERS[:3]]  # three trained people in other spellings


def write_people(folder: Path, people: Sequence[str], *, first_subject: int = 0) -> Path:
    """Two crops per person, and a list of a genuine and an impostor pair per person."""
    faces = SyntheticFaces(len(people), 2, seed=7, first_subject=first_subject)
    for index, image_HWC in enumerate(faces.read(range(len(faces)))):
        write_crop(image_HWC, folder / people[index // 2] / f"{index % 2}.png")
    lines = [f"{one}/0.png\t{one}/1.png\t1" for one in people]
    lines += [f"{one}/0.png\t{other}/1.png\t0" for one, other in zip(people, people[1:] + people[:1], strict=True)]
    (folder / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("people")
    return {
        "trained": write_people(root / "trained", TRAINED),
        "strangers": write_people(root / "strangers", STRANGERS, first_subject=10),
        "shared": write_people(root / "shared", SHARED, first_subject=20),
    }


def train(images: Path, out_dir: Path, **changes: Any) -> Path:
    request = TrainingRequest(
        images=str(images),
        method="unprotected",
        strategy="scratch",
        teacher="mobilefacenet-y1",
        network="mobilefacenet-small",
        head="cosface",
        epochs=1,
        batch_size=12,
        precision="32-true",
        seed=1,
    )
    train_system(
        dataclasses.replace(request, **changes),
        options=RunOptions(run_dir=out_dir, device="cpu"),
        secret_path=None,
        data=None,
        weights=None,
        with_tensorboard=False,
    )
    return out_dir


@pytest.fixture(scope="module")
def system(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(folders["trained"], tmp_path_factory.mktemp("system") / "system")


def evaluate(system: Path, protocol: Path, **options: Any) -> dict[str, Any]:
    return evaluate_model(
        str(system),
        str(protocol),
        secret_path=None,
        flips=False,
        data=None,
        weights=None,
        seed=1,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize(("tested", "num"), [("trained", 6), ("shared", 3)])
def test_evaluation_on_trained_people_is_refused_with_their_number(
    system: Path, folders: Mapping[str, Path], tested: str, num: int
) -> None:
    with pytest.raises(OverlapError, match=rf"^{num} of the 6 people .*--allow-training-overlap"):
        evaluate(system, folders[tested] / "pairs.txt")


def test_allowed_overlap_is_part_of_the_result(
    system: Path, folders: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate",
        "--model",
        str(system),
        "--protocol",
        str(folders["shared"] / "pairs.txt"),
        "--device",
        "cpu",
    ]
    assert run([*command, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "OverlapError" and error["message"].startswith("3 of the 6 people")
    assert run([*command, "--allow-training-overlap", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["training_overlap"] == {"status": "allowed", "num_shared": 3, "num_people": 6, "unchecked": []}
    assert output["accuracy"]["n"] == 12
    assert run([*command, "--allow-training-overlap"]) == 0
    assert "allowed" in capsys.readouterr().out


def test_evaluation_on_other_people_says_that_none_is_shared(system: Path, folders: Mapping[str, Path]) -> None:
    output = evaluate(system, folders["strangers"] / "pairs.txt")
    assert output["training_overlap"] == {"status": "none", "num_shared": 0, "num_people": 6, "unchecked": []}


def test_overlap_with_protocols_without_names_is_unknown(
    system: Path, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    write_insightface_bin(read_pair_list(folders["trained"] / "pairs.txt"), tmp_path / "faces.bin")
    overlap = evaluate(system, tmp_path / "faces.bin")["training_overlap"]
    assert (overlap["status"], overlap["num_shared"]) == ("unknown", None)
    assert "numbers instead of names" in overlap["unchecked"][0]


def test_system_without_list_of_people_is_evaluated_as_unknown(folders: Mapping[str, Path], tmp_path: Path) -> None:
    silent = train(folders["trained"], tmp_path / "silent", lists_subjects=False)
    overlap = evaluate(silent, folders["trained"] / "pairs.txt")["training_overlap"]
    assert overlap["status"] == "unknown" and overlap["unchecked"] == ["trained: its people are not listed"]


def test_systems_of_experiments_list_their_people(folders: Mapping[str, Path], tmp_path: Path) -> None:
    strategy = FromScratch(
        plan=Plan(epochs=1, batch_size=12, checkpoint_every_steps=10), network="mobilefacenet-small", head="cosface"
    )
    images = read_folder(folders["trained"])
    StrategyTraining(strategy).train(Unprotected(), images, seed=1, options=RunOptions(run_dir=tmp_path, device="cpu"))
    assert load_system(tmp_path / "system").trained_on == (TrainingSet.of(images),)


def attack(system: Path, folders: Mapping[str, Path], out_dir: Path, **changes: Any) -> dict[str, Any]:
    request = AttackRequest(
        kind="linkage",
        method="frequency",
        public="synthetic:8x2",
        targets=str(folders["shared"] / "pairs.txt"),
        knows_secret=True,
        teacher=str(system),
        epochs=1,
        batch_size=16,
        num_targets=5,
        seed=1,
        runs_controls=False,
    )
    return attack_method(
        dataclasses.replace(request, **changes),
        options=RunOptions(run_dir=out_dir, device="cpu"),
        secret_path=None,
        data=None,
        weights=None,
    )


def test_attack_with_a_recogniser_of_the_targets_is_refused(
    system: Path, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(OverlapError, match=r"^3 of the 6 people .*--allow-training-overlap"):
        attack(system, folders, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    output = attack(system, folders, tmp_path / "run", allows_training_overlap=True)
    assert (output["training_overlap"]["status"], output["training_overlap"]["num_shared"]) == ("allowed", 3)
    record = json.loads(Path(output["record"]).read_text(encoding="utf-8"))
    assert record["experiment"]["command"].endswith(" --allow-training-overlap")
    assert record["recognisers"][0]["provenance"][0]["may_have_seen"] == ["pairs: 3 of its 6 people"]
    assert "pairs: 3 of its 6 people" in Path(output["report"]).read_text(encoding="utf-8")


def test_attack_on_other_people_says_that_none_is_shared(
    system: Path, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    output = attack(system, folders, tmp_path / "run", targets=str(folders["strangers"] / "pairs.txt"))
    assert output["training_overlap"] == {"status": "none", "num_shared": 0, "num_people": 6, "unchecked": []}
    record = json.loads(Path(output["record"]).read_text(encoding="utf-8"))
    assert record["recognisers"][0]["provenance"][0]["may_have_seen"] == []
