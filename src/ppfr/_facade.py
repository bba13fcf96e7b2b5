"""Functions that the package `ppfr` itself exports: three lines from import to a result."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ppfr.core import ImageMasker, InvalidInputError, choose_device
from ppfr.data import CROP_SHAPE, Aligner, PairProtocol, float_images, read_image
from ppfr.evaluation import EvaluationSettings, VerificationRow
from ppfr.evaluation import evaluate as evaluate_masked
from ppfr.masking import SECRET_BYTES
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems import (
    MaskedSystem,
    TrainingOverlap,
    check_training_overlap,
    load_system,
    make_masker,
    read_protocol,
    read_recogniser,
)
from ppfr.systems import needs_secret as method_needs_secret
from ppfr.workflows import find_yunet

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskedFace:
    """A masked face and what it was masked with.

    Attributes:
        values_KPQ: (K, P, Q) float32: what leaves the device.
        masker: the masker, to mask more faces of the same deployment.
        secret: the deployment's 32-byte secret, which never leaves the device; None for methods without one.
    """

    values_KPQ: Tensor
    masker: ImageMasker
    secret: bytes | None

    def __repr__(self) -> str:
        shape = tuple(self.values_KPQ.shape)
        return f"MaskedFace(method={self.masker.name!r}, shape={shape}, values=<redacted>, secret=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of a recogniser on a protocol, and whether they are of people that it was trained on.

    Attributes:
        figures: accuracy, EER, AUC and TAR at FAR, each with n and a 95 % interval over subjects.
        training_overlap: people of the protocol in the training data of the recogniser, as far as it is known.
    """

    figures: VerificationRow
    training_overlap: TrainingOverlap


def mask(
    photo: str | Path | NDArray[np.uint8],
    *,
    method: str = "ppfr-fd",
    secret: bytes | None = None,
    weights: Path | None = None,
) -> MaskedFace:
    """Mask the face in a photo.

    Args:
        photo: path of an image, or (H, W, 3) uint8 RGB. A 112x112 image is used as an aligned crop; in any other image
            the face is detected and aligned.
        method: name of an image protection, as in `ppfr mask --method`.
        secret: the deployment's 32-byte secret; None to draw a new one from the operating system if the method needs
            one.
        weights: directory with the face detector; None for PPFR_WEIGHTS. Aligned crops do not need it.

    Returns:
        The masked face, with the masker and the secret.

    Raises:
        InvalidInputError: unknown method, or a secret of another length.
        ImageReadError: the photo cannot be read.
        AlignmentError: no face, or several.
        MissingWeightsError: the photo must be aligned, and the face detector is not available.

    Privacy: as stated in the documentation of the method. Noise comes from the operating system. Anyone with the secret
    can undo the steps that depend on it.

    >>> from ppfr.synthetic import SyntheticFaces
    >>> masked = mask(SyntheticFaces(1, 1, seed=1).read([0])[0], method="ppfr-fd")
    >>> tuple(masked.values_KPQ.shape)
    (36, 28, 28)
    """
    image_HWC = read_image(Path(photo)) if isinstance(photo, str | Path) else np.asarray(photo)
    if image_HWC.ndim != 3 or image_HWC.shape[-1] != 3 or image_HWC.dtype != np.uint8:
        raise InvalidInputError(
            f"Expected (H, W, 3) uint8 RGB for `photo`, got {image_HWC.dtype} of shape {image_HWC.shape}. "
            "Convert it, or give the path of an image."
        )
    if image_HWC.shape != CROP_SHAPE:
        image_HWC = Aligner(find_yunet(weights)).align(image_HWC)
    needs_secret = method_needs_secret(method)
    if needs_secret and secret is None:
        secret = secrets.token_bytes(SECRET_BYTES)
    masker = make_masker(method, secret=secret if needs_secret else None)
    image_1CHW = float_images(image_HWC[None])
    with torch.no_grad():
        masked_1KPQ = masker.mask(image_1CHW)
    return MaskedFace(values_KPQ=masked_1KPQ[0], masker=masker, secret=secret if needs_secret else None)


def evaluate(
    system: str | Path | MaskedSystem,
    protocol: str | PairProtocol,
    *,
    seed: int = 1,
    device: str = "auto",
    data: Path | None = None,
    weights: Path | None = None,
    allows_training_overlap: bool = False,
) -> Evaluation:
    """Measure how well a recogniser verifies the pairs of a protocol.

    Args:
        system: name of a public network, directory of a system that `ppfr train` wrote, or a loaded system.
        protocol: name of a protocol, as in `ppfr evaluate --protocol`, or a protocol.
        seed: seeds the masker and the bootstrap.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        data: directory of real faces; None for PPFR_DATA.
        weights: directory of public networks; None for PPFR_WEIGHTS.
        allows_training_overlap: also evaluate on people that the recogniser was trained on.

    Returns:
        The figures, and what is known of an overlap of the protocol with the training data.

    Raises:
        InvalidInputError: unknown system or protocol.
        OverlapError: the system was trained on people of the protocol, and `allows_training_overlap` is False.
        MissingAssetError: data or weights are not available.
        DeviceError: the device is not available.
    """
    if isinstance(system, Path):
        system = load_system(system)
    elif isinstance(system, str):
        system = read_recogniser(system, weights=weights)
    where = choose_device(device)
    if isinstance(protocol, str):
        protocol = read_protocol(protocol, data=data)
    overlap = check_training_overlap(system.trained_on, protocol.used_images(), is_allowed=allows_training_overlap)
    figures = evaluate_masked(
        system.masker,
        NetworkEmbedder(for_inference(system.network).to(where)),
        protocol,
        settings=EvaluationSettings(seed=seed),
        device=str(where),
    )
    return Evaluation(figures=figures, training_overlap=overlap)
