"""The functions `ppfr.mask` and `ppfr.evaluate`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ppfr
from ppfr.core import AlignmentError, InvalidInputError, MissingWeightsError, OverlapError
from ppfr.masking import PpfrFd, Unprotected
from ppfr.models import ModelCard
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import NETWORKS, MaskedSystem, TrainingOverlap, TrainingSet, read_protocol

CROP = SyntheticFaces(1, 1, seed=1).read([0])[0]


def test_import_loads_no_package_and_no_heavy_dependency() -> None:
    code = "import sys, ppfr; print(sorted(n for n in sys.modules if n in ('torch', 'numpy') or n.startswith('ppfr.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = ppfr.nothing
    assert set(dir(ppfr)) == {"Evaluation", "MaskedFace", "__version__", "evaluate", "mask"}


def test_mask_equals_the_masker_with_the_returned_secret() -> None:
    masked = ppfr.mask(CROP)
    assert masked.secret is not None and masked.secret != ppfr.mask(CROP).secret
    image_1CHW = torch.from_numpy(CROP).permute(2, 0, 1)[None].float() / 255
    again = PpfrFd(secret=masked.secret).mask(image_1CHW, rng=torch.Generator())[0]
    torch.testing.assert_close(masked.values_KPQ, again)
    assert masked.secret.hex() not in repr(masked) and "redacted" in repr(masked)


def test_methods_without_a_secret_return_none() -> None:
    masked = ppfr.mask(CROP, method="unprotected", secret=bytes(32))
    assert masked.secret is None and tuple(masked.values_KPQ.shape) == CROP.shape[::-1]


@pytest.mark.parametrize(
    ("photo", "method", "error"),
    [
        (np.zeros((112, 112), np.uint8), "ppfr-fd", InvalidInputError),
        (CROP.astype(np.float32), "ppfr-fd", InvalidInputError),
        (CROP, "blur", InvalidInputError),
    ],
)
def test_bad_input_is_refused(photo: np.ndarray, method: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ppfr.mask(photo, method=method)


def test_unaligned_photo_needs_the_face_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    with pytest.raises(MissingWeightsError, match="ppfr models fetch"):
        ppfr.mask(np.zeros((200, 200, 3), np.uint8), weights=tmp_path)


@pytest.mark.real_data
def test_photo_without_face_is_refused(weights_root: Path) -> None:
    with pytest.raises(AlignmentError):
        ppfr.mask(np.zeros((200, 200, 3), np.uint8), weights=weights_root)


def random_system() -> MaskedSystem:
    network = NETWORKS["mobilefacenet-small"](in_shape=(3, 112, 112), seed=1).eval()
    card = ModelCard(
        name="random",
        architecture="MobileFaceNet",
        config={},
        dim=network.dim,
        in_shape=network.in_shape,
        training_data="none",
        licence="MIT",
        source="this test",
    )
    return MaskedSystem(masker=Unprotected(), network=network, card=card)


def test_evaluate_takes_loaded_systems_and_protocols_by_name_or_value() -> None:
    system = random_system()
    evaluation = ppfr.evaluate(system, "synthetic:60", device="cpu")
    assert evaluation == ppfr.evaluate(system, read_protocol("synthetic:60"), device="cpu")
    figures, overlap = evaluation.figures, evaluation.training_overlap
    assert figures.num_genuine + figures.num_impostor == 60 and figures.accuracy is not None
    assert (overlap.status, overlap.num_shared, overlap.num_people) == ("unknown", None, 37)
    assert "training data is unknown" in overlap.unchecked[0]


def test_evaluate_refuses_people_of_the_training_set() -> None:
    protocol = read_protocol("synthetic:60")
    system = dataclasses.replace(random_system(), trained_on=(TrainingSet.of(protocol.images.subset(range(18))),))
    with pytest.raises(OverlapError, match=r"^3 of the 37 people .*allows_training_overlap=True"):
        ppfr.evaluate(system, protocol, device="cpu")
    evaluation = ppfr.evaluate(system, protocol, device="cpu", allows_training_overlap=True)
    assert evaluation.training_overlap == TrainingOverlap(status="allowed", num_shared=3, num_people=37)


def test_unknown_systems_and_protocols_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        ppfr.evaluate("nobody", "lfw")
