"""Workflows of `ppfr align` and `ppfr mask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppfr.assets import WEIGHTS_VARIABLE, Asset, find_asset, weights_root
from ppfr.core import MissingAssetError, MissingWeightsError
from ppfr.data import CROP_SHAPE, Aligner, align_folder, float_images, list_photos, read_image, write_crop

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


def align_photos(source: Path, out_dir: Path, *, takes_largest: bool, weights: Path | None) -> dict[str, Any]:
    """Align a photo or a folder of photos into 112x112 PNG crops.

    Raises:
        ImageReadError: the photo cannot be read.
        AlignmentError: no face, or several and `takes_largest` is False.
        ProblemsError: some photos of a folder cannot be aligned; all are listed, and the others are written.
    """
    if source.is_dir():
        aligner = Aligner(find_yunet(weights), largest=takes_largest)
        written = align_folder(source, out_dir, aligner)
        left_out = list_photos(source).describe_left_out()
        return {"directory": str(out_dir), "crops": len(written), "files_left_out": left_out}
    photo_HWC = read_image(source)  # before the detector is searched: a wrong path is the more likely mistake
    crop = Aligner(find_yunet(weights), largest=takes_largest).align(photo_HWC)
    path = out_dir / f"{source.stem}.png"
    write_crop(crop, path)
    return {"file": str(path), "crops": 1}


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
