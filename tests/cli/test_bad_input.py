"""Invalid input: exit code 2, one message that names the remedy, nothing on stdout, no incomplete files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ppfr.data import read_image

Ppfr = Callable[..., Any]  # the fixture of conftest

FACES = ["--images", "synthetic:6x4", "--strategy", "scratch", "--network", "mobilefacenet-small"]


@pytest.fixture
def folder(tmp_path: Path, crop: Path) -> Path:
    """A folder with valid and invalid files."""
    (tmp_path / "good.png").write_bytes(crop.read_bytes())
    (tmp_path / "truncated.png").write_bytes(crop.read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no image at all", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    (tmp_path / "short.key").write_bytes(bytes(31))
    (tmp_path / "photos" / "person").mkdir(parents=True)
    (tmp_path / "photos" / "person" / "a.png").write_bytes(crop.read_bytes())
    (tmp_path / "photos" / "person" / "b.png").write_bytes(crop.read_bytes()[:500])
    (tmp_path / "photos" / "person" / "c.jpg").write_text("neither", encoding="utf-8")
    (tmp_path / "nothing").mkdir()
    return tmp_path


def error_message(ppfr: Ppfr, *arguments: object) -> str:
    """Run a command that must refuse its input, and return its message."""
    printed = ppfr(*arguments)
    assert printed.code == 2, printed
    assert not printed.stdout
    assert printed.stderr.startswith("error: ") and "Traceback" not in printed.stderr
    as_json = ppfr(*arguments, "--json")
    assert as_json.code == 2 and as_json.json["exit_code"] == 2
    assert as_json.json["error"]["message"].split()[:3] == printed.stderr.removeprefix("error: ").split()[:3]
    return printed.stderr


@pytest.mark.parametrize(
    ("command", "photo", "expected"),
    [
        ("mask", "absent.png", ["absent.png", "does not exist"]),
        ("mask", "photos", ["is a directory", "command for folders"]),
        ("mask", "truncated.png", ["damaged or truncated"]),
        ("mask", "empty.png", ["empty"]),
        ("align", "absent.png", ["absent.png", "does not exist"]),
        ("align", "text.jpg", ["not a supported image"]),
    ],
)
def test_unreadable_photos_are_refused(command: str, photo: str, expected: list[str], ppfr: Ppfr, folder: Path) -> None:
    message = error_message(ppfr, command, folder / photo, "--out", folder / "out")
    assert all(word in message for word in expected), message
    assert not (folder / "out").exists()


def test_missing_face_detector_is_named_with_its_download(ppfr: Ppfr, folder: Path) -> None:
    Image.fromarray(np.full((200, 150, 3), 90, np.uint8)).save(folder / "large.png")
    for command in ("mask", "align"):
        message = error_message(ppfr, command, folder / "large.png", "--out", folder / "out")
        for word in ("yunet.onnx", "sha256", "--weights", "PPFR_WEIGHTS", "ppfr models fetch"):
            assert word in message
    message = error_message(
        ppfr, "mask", folder / "large.png", "--out", folder / "out", "--weights", folder / "nothing"
    )
    assert str(folder / "nothing") in message
    (folder / "yunet.onnx").write_bytes(b"another network")
    assert "sha256" in error_message(ppfr, "mask", folder / "large.png", "--out", folder / "out", "--weights", folder)
    assert not (folder / "out").exists()


@pytest.mark.real_data
def test_photos_without_face_or_with_several_are_refused(
    ppfr: Ppfr, tmp_path: Path, data_root: Path, weights_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPFR_WEIGHTS", str(weights_root))
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "blank.png")
    assert "face" in error_message(ppfr, "mask", tmp_path / "blank.png", "--out", tmp_path / "out")
    one = read_image(sorted((data_root / "lfw_photos").rglob("*.jpg"))[0])
    Image.fromarray(np.concatenate([one, one], axis=1)).save(tmp_path / "two.png")
    assert "2 faces" in error_message(ppfr, "mask", tmp_path / "two.png", "--out", tmp_path / "out")
    assert ppfr("mask", tmp_path / "two.png", "--out", tmp_path / "out", "--largest").code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("mask good.png --out out --method blur", ["'blur'", "ppfr-fd", "unprotected"]),
        ("mask good.png --out out --secret short.key", ["31 bytes", "32"]),
        ("mask good.png --out out --secret photos", ["photos is not a file"]),
        ("train --out out --images lfw-train --method unprotected", ["--data", "PPFR_DATA", "ppfr data fetch lfw"]),
        ("train --out out --images nonsense", ["'nonsense'", "lfw-train", "synthetic:SUBJECTSxIMAGES"]),
        ("train --out out --images synthetic:0x3", ["synthetic:0x3", "whole numbers"]),
        ("train --out out --images nothing", ["nothing"]),
        ("train --out out --images synthetic:6x4 --strategy magic", ["'magic'", "scratch", "distill", "finetune"]),
        ("train --out out --images synthetic:6x4 --method blur", ["'blur'", "ppfr-fd"]),
        ("train --out out --images synthetic:6x4 --network vgg", ["'vgg'", "mobilefacenet-small"]),
        ("train --out out --images synthetic:6x4 --head softmax", ["'softmax'", "arcface"]),
        ("train --out out --images synthetic:6x4 --teacher me", ["'me'", "mobilefacenet-y1"]),
        ("train --out out --images synthetic:6x4 --device tpu", ["'tpu'", "cpu", "cuda"]),
        ("train --out out --images synthetic:6x4 --device cuda:99", ["cuda:99", "use cpu or auto"]),
        ("train --out out --images synthetic:6x4 --epochs 0", ["epochs"]),
        ("train --out out --images synthetic:6x4 --precision 8", ["precision", "32-true"]),
        ("train --out out --images synthetic:6x4 --strategy scratch --secret short.key", ["31 bytes", "32"]),
        ("evaluate --model nobody", ["'nobody'", "mobilefacenet-y1", "ppfr train --out"]),
        ("evaluate --model nothing", ["masker.json", "ppfr train --out"]),
        ("evaluate --model mobilefacenet-y1", ["mobilefacenet_y1_ms1m.safetensors", "sha256", "--weights"]),
        ("attack --attack guess --public synthetic:9x4 --targets synthetic --out out", ["'guess'", "unet", "linkage"]),
        ("attack --attack unet --public synthetic:9x4 --targets synthetic --out out", ["--weights", "PPFR_WEIGHTS"]),
        ("run spine:nothing --out out", ["'spine:nothing'", "spine:demo", "spine:lfw"]),
        ("run spine:demo --preset huge --out out", ["'huge'", "laptop"]),
        ("run spine:demo --device cuda:99 --out out", ["cuda:99"]),
        ("run spine:lfw --out out", ["--data", "PPFR_DATA", "ppfr data fetch lfw"]),
        ("run spine:lfw --out out --data nothing", ["lfw112", "nothing", "ppfr data fetch lfw"]),
        ("run spine:cfp --out out --data absent", ["absent", "no such directory"]),
        ("report absent.json --out out", ["absent.json"]),
        ("report good.png --out out", ["good.png"]),
        ("data list", ["--data", "PPFR_DATA", "ppfr data fetch lfw"]),
        ("data fetch cfp --data out", ["'cfp'", "cfpw.io", "ppfr align"]),
        ("data fetch lfw --data out", ["yunet.onnx", "ppfr models fetch"]),
        ("data check absent", ["'absent'", "folder"]),
        ("data synthetic --out out --subjects 0", ["0"]),
        ("models show nobody", ["'nobody'", "mobilefacenet-y1", ".safetensors"]),
        ("models show absent.safetensors", ["absent.safetensors"]),
        ("models export mobilefacenet-y1 --out out", ["out", ".onnx"]),
    ],
)
def test_invalid_arguments_name_value_and_remedy(
    arguments: str, expected: list[str], ppfr: Ppfr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    message = error_message(ppfr, *arguments.split())
    assert all(word in message for word in expected), message
    assert not (folder / "out").exists(), "nothing is written before the input has been checked"


def test_problems_of_a_folder_are_reported_together(ppfr: Ppfr, folder: Path) -> None:
    message = error_message(ppfr, "data", "check", folder / "photos")
    assert "2 problem(s)" in message and "b.png" in message and "c.jpg" in message
    assert "a.png" not in message


def test_earlier_run_is_not_overwritten(ppfr: Ppfr, tmp_path: Path, system: Path) -> None:
    network = (system / "network.safetensors").read_bytes()
    message = error_message(ppfr, "train", "--out", system, *FACES)
    assert "--resume" in message and "--out" in message
    assert (system / "network.safetensors").read_bytes() == network

    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    for command in (
        ["run", "spine:demo", "--preset", "fast-test"],
        ["demo"],
        ["attack", "--attack", "unet", "--public", "synthetic:9x4", "--targets", "synthetic"],
    ):
        message = error_message(ppfr, *command, "--out", tmp_path)
        assert "--resume" in message and "--out" in message
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda system: (system / "secret.key").unlink(), ["secret.key", "--secret"]),
        (lambda system: (system / "secret.key").write_bytes(bytes(5)), ["5 bytes", "32"]),
        (lambda system: (system / "network.safetensors").unlink(), ["network.safetensors"]),
        (lambda system: (system / "network.safetensors").write_bytes(b"damaged"), ["network.safetensors"]),
        (lambda system: (system / "masker.json").write_text("{"), ["masker.json", "damaged"]),
        (lambda system: (system / "masker.json").write_text("[1]"), ["masker.json", "damaged"]),
        (
            lambda system: (system / "masker.json").write_text('{"format": 1, "name": "unprotected", "config": {}}'),
            ["(36, 28, 28)", "(3, 112, 112)", "mixed up"],
        ),
        (
            lambda system: (system / "masker.json").write_text('{"format": 1, "name": "blur", "config": {}}'),
            ["'blur'", "masker.json"],
        ),
    ],
)
def test_inconsistent_files_of_a_system_are_refused(
    damage: Callable[[Path], object], expected: list[str], ppfr: Ppfr, system: Path, tmp_path: Path
) -> None:
    for file in ("network.safetensors", "masker.json", "secret.key"):
        (tmp_path / file).write_bytes((system / file).read_bytes())
    damage(tmp_path)
    message = error_message(ppfr, "evaluate", "--model", tmp_path, "--protocol", "synthetic:60")
    assert all(word in message for word in expected), message


def test_training_that_cannot_work_is_refused_before_it_begins(ppfr: Ppfr, folder: Path) -> None:
    """Batch normalisation failed on one image, after the secret had been created and the data read."""
    message = error_message(ppfr, "train", "--out", folder / "out", *FACES, "--batch-size", "1")
    assert "--batch-size 1" in message and "at least 2" in message
    one_person = ["--images", "synthetic:1x4", *FACES[2:]]
    message = error_message(ppfr, "train", "--out", folder / "out", *one_person, "--batch-size", "2")
    assert "1 person" in message and "at least 2" in message
    assert not (folder / "out").exists()


def test_archives_are_to_be_unpacked(ppfr: Ppfr, folder: Path, system: Path) -> None:
    (folder / "faces.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    for command in (
        ["align", folder / "faces.zip", "--out", folder / "out"],
        ["data", "check", folder / "faces.zip"],
        ["evaluate", "--model", system, "--protocol", folder / "faces.zip"],
    ):
        assert "unpack it first" in error_message(ppfr, *command)
