"""Workflows of `ppfr align` and `ppfr mask`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppfr.assets import WEIGHTS_VARIABLE, Asset, find_asset, weights_root
from ppfr.core import MissingAssetError, MissingWeightsError, ProblemsError
from ppfr.data import (
    CROP_SHAPE,
    Aligner,
    FaceQuality,
    QualityLimits,
    align_folder,
    float_images,
    list_photos,
    read_image,
    write_crop,
)

_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo"
_YUNET_PATH = "models/face_detection_yunet/face_detection_yunet_2026may.onnx"
YUNET = Asset(
    name="yunet.onnx",
    sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    size_bytes=229_738,
    urls=(f"{_ZOO}/47534e27c9851bb1128ccc0102f1145e27f23f98/{_YUNET_PATH}", f"{_ZOO}/main/{_YUNET_PATH}"),
    licence="MIT",
    note="YuNet face detector, face_detection_yunet_2026may.onnx of opencv_zoo.",
)


def find_yunet(weights: Path | None) -> Path:
    """Find the file of the face detector in the weights directory.

    Raises:
        MissingWeightsError: the file does not exist.
        ChecksumError: the file has another checksum.
    """
    remedy = f"Download it with `ppfr models fetch --weights DIR`, or set {WEIGHTS_VARIABLE} to the directory with it."
    try:
        root = weights_root(weights)
    except MissingAssetError as error:
        raise MissingWeightsError(YUNET.name, looked_in=error.looked_in, remedy=remedy, sha256=YUNET.sha256) from error
    return find_asset(YUNET, [root], remedy=remedy, error=MissingWeightsError)


def describe_quality(measured: Sequence[tuple[Path, FaceQuality]]) -> dict[str, Any]:
    """The figures of each photo, and how many photos lack which figures."""
    rows = [
        {"name": str(photo)} | {key: figure and round(figure, 4) for key, figure in dataclasses.asdict(quality).items()}
        for photo, quality in measured
    ]
    partly = [quality.not_measured() for _, quality in measured if quality.not_measured()]
    missing = f"{', '.join(partly[0])} of {len(partly)} aligned crops" if partly else "none"
    return {"not_measured": missing, "quality": rows}


def align_photos(
    source: Path, out_dir: Path, *, takes_largest: bool, weights: Path | None, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Align a photo or a folder of photos into 112x112 PNG crops.

    Args:
        source: the photo or folder.
        out_dir: directory for the crops.
        takes_largest: use the largest face of a photo with several.
        weights: directory of the detector, or None for PPFR_WEIGHTS.
        limits: fields of `QualityLimits`; those that are not given are no limits. With a limit, the crops of earlier
            runs are made again.

    Raises:
        ImageReadError: the photo cannot be read.
        AlignmentError: no face, or several and `takes_largest` is False.
        RangeError: a limit is out of range.
        ProblemsError: some photos of a folder cannot be aligned or fail a limit; all are listed, and the others are
            written.
    """
    no_limits: dict[str, float | None] = dict.fromkeys(field.name for field in dataclasses.fields(QualityLimits))
    checks = QualityLimits(**(no_limits | dict(limits))) if limits else None
    if source.is_dir():
        measured: list[tuple[Path, FaceQuality]] = []
        written = align_folder(
            source,
            out_dir,
            Aligner(find_yunet(weights), largest=takes_largest),
            keeps_existing=checks is None,
            limits=checks,
            on_aligned=lambda photo, quality: measured.append((photo, quality)),
        )
        left_out = list_photos(source).describe_left_out()
        counts = {"directory": str(out_dir), "crops": len(written), "files_left_out": left_out}
        return counts | {"crops_of_earlier_runs": len(written) - len(measured)} | describe_quality(measured)
    photo_HWC = read_image(source)  # before the detector is searched: a wrong path is the more likely mistake
    face = Aligner(find_yunet(weights), largest=takes_largest).aligned_face(photo_HWC)
    failed = () if checks is None else checks.problems(face.quality)
    if failed:
        raise ProblemsError(f"{source} is not aligned", failed)
    path = out_dir / f"{source.stem}.png"
    write_crop(face.crop_HWC, path)
    return {"file": str(path), "crops": 1} | describe_quality([(source, face.quality)])


def mask_photo(
    photo: Path, out_dir: Path, *, method: str, secret_path: Path | None, takes_largest: bool, weights: Path | None
) -> dict[str, Any]:
    """Mask one face, and write the masked image and a picture of it.

    Raises:
        InvalidInputError: unknown method, or an invalid secret file.
        ImageReadError: the photo cannot be read.
        AlignmentError: no face, or several and `takes_largest` is False.
    """
    from ppfr.masking import visualise, write_masked
    from ppfr.systems import SECRET_FILE, make_masker, needs_secret, read_or_create_secret

    is_keyed = needs_secret(method)
    image_HWC = read_image(photo)
    if image_HWC.shape != CROP_SHAPE:
        image_HWC = Aligner(find_yunet(weights), largest=takes_largest).align(image_HWC)
    secret, path, was_drawn = None, None, False
    if is_keyed:
        path = secret_path or out_dir / SECRET_FILE
        secret, was_drawn = read_or_create_secret(path)
    masker = make_masker(method, secret=secret)
    image_BCHW = float_images(image_HWC[None])
    masked = masker.mask(image_BCHW)
    sent, picture = out_dir / f"{photo.stem}.masked.safetensors", out_dir / f"{photo.stem}.masked.png"
    write_masked(sent, masked, masker, is_seeded=False)
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
