"""What `ppfr align` and `ppfr mask` do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppfr.assets import WEIGHTS_VARIABLE
from ppfr.core import MissingWeightsError
from ppfr.data import CROP_SHAPE, Aligner, align_folder, read_image, write_crop
from ppfr.masking import visualise, write_masked
from ppfr.recipes._catalogue import make_masker, needs_secret, read_or_create_secret
from ppfr.recipes._system import SECRET_FILE

YUNET_FILE = "yunet.onnx"


def find_yunet(weights: Path | None) -> Path:
    """The detector's file in the weights directory.

    Raises:
        MissingWeightsError: it is not there.
    """
    given = str(weights) if weights is not None else os.environ.get(WEIGHTS_VARIABLE, "")
    path = Path(given) / YUNET_FILE
    if given and path.is_file():
        return path
    raise MissingWeightsError(
        YUNET_FILE,
        looked_in=[given] if given else [],
        remedy=f"Give --weights DIR (or set {WEIGHTS_VARIABLE}) to a directory that holds it; it is "
        "face_detection_yunet_2023mar.onnx of the opencv_zoo project (MIT).",
    )


def align_photos(source: Path, out_dir: Path, *, takes_largest: bool, weights: Path | None) -> dict[str, Any]:
    """Align a photo or a folder of photos into 112x112 PNG crops.

    Raises:
        AlignmentError: no face, or several and `takes_largest` is false.
        ProblemsError: some photos of a folder; the others were written.
    """
    aligner = Aligner(find_yunet(weights), largest=takes_largest)
    if source.is_dir():
        written = align_folder(source, out_dir, aligner)
        return {"directory": str(out_dir), "crops": len(written)}
    crop = aligner.align(read_image(source))
    path = out_dir / f"{source.stem}.png"
    write_crop(crop, path)
    return {"file": str(path), "crops": 1}


def mask_photo(
    photo: Path, out_dir: Path, *, method: str, secret_path: Path | None, takes_largest: bool, weights: Path | None
) -> dict[str, Any]:
    """Mask one face and write what leaves the device, and a picture of it.

    Raises:
        ImageReadError: the photo cannot be read.
        AlignmentError: no face, or several and `takes_largest` is false.
    """
    image_HWC = read_image(photo)
    if image_HWC.shape != CROP_SHAPE:
        image_HWC = Aligner(find_yunet(weights), largest=takes_largest).align(image_HWC)
    secret, path, was_drawn = None, None, False
    if needs_secret(method):
        path = secret_path or out_dir / SECRET_FILE
        secret, was_drawn = read_or_create_secret(path)
    masker = make_masker(method, secret=secret)
    image_BCHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).permute(2, 0, 1)[None].float() / 255.0
    rng = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "little"))
    masked = masker.mask(image_BCHW, rng=rng)
    sent, picture = out_dir / f"{photo.stem}.masked.safetensors", out_dir / f"{photo.stem}.masked.png"
    write_masked(sent, masked, masker)
    write_crop(visualise(masked[0], layout="grid"), picture)
    return {
        "method": masker.name,
        "sent": str(sent),
        "picture": str(picture),
        "shape": "x".join(map(str, masker.spec.out_shape)),
        "bytes_per_face": masker.spec.bytes_per_face,
        "secret": str(path) if path else "none",
        "secret_was_drawn": was_drawn,
    }
