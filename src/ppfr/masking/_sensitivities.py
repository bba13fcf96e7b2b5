"""Smallest and largest value of every coefficient among reference faces, which set the scale of Laplace noise.

Shape suffixes: N images, C colours, H W pixels, K frequency channels, P Q block grid.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ppfr.core import ImageSet, InvalidInputError, RangeError, ShapeError
from ppfr.data import float_images
from ppfr.frequency import bdct_upsampled, bdct_upsampled_strongest, empty_large, lowest_channels, strongest_colour
from ppfr.masking._front_end import FrontEnd, FrontEndName, check_choice
from ppfr.synthetic import SyntheticFaces

BLOCK = 8
SCALE = 128.0 * BLOCK
_BUILT_IN_PEOPLE = 256
_BUILT_IN_SEED = 20261123
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoisyFrontEnd:
    """From an aligned crop to the coefficients that get noise: channels without DC of Y, Cb and Cr, optionally fused.

    Attributes:
        front_end: "upsampled" for the x8-upsampled one (112x112 grid), "block" for a plain block DCT.
        fuses: for each frequency at each place keep the coefficient of largest magnitude among the colours, with its
            sign.
        stride: step between blocks, front_end="block" only.
        num_channels: the lowest frequencies in zig-zag order after DC, 1..63; output in ascending order of the index 8u
            + v.
        in_shape: (3, H, W) of the crop.

    Raises:
        RangeError: an attribute is outside its allowed range.
    """

    front_end: FrontEndName = "upsampled"
    fuses: bool = False
    stride: int = 4
    num_channels: int = 63
    in_shape: tuple[int, int, int] = (3, 112, 112)

    def __post_init__(self) -> None:
        check_choice("front_end", self.front_end, ("block", "upsampled"))
        self._plain()

    def _plain(self) -> FrontEnd:
        kept = tuple(sorted(lowest_channels(self.num_channels, block=BLOCK, keeps_dc=False)))
        return FrontEnd(
            kind=self.front_end,
            colours="ycbcr",
            block=BLOCK,
            stride=self.stride,
            in_shape=self.in_shape,
            channels=kept,
        )

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(K, P, Q): `num_channels`, three times as many if the colours are not fused, and the grid."""
        return (self.num_channels * (1 if self.fuses else 3), *self._plain().grid())

    def coefficients(self, image_BCHW: Tensor, *, num_spare: int = 0) -> Tensor:
        """Orthonormal coefficients of planes in [-128, 127], over 1024, so that they lie in [-1, 1].

        Args:
            image_BCHW: RGB in [0, 1]; not checked again.
            num_spare: number of uninitialised channels appended for the caller to fill; only without gradient.

        Returns:
            (B, K + num_spare, P, Q), a new tensor.
        """
        batch, (num, *grid), plain = len(image_BCHW), self.out_shape, self._plain()
        needs_gradient = torch.is_grad_enabled() and image_BCHW.requires_grad
        assert not (needs_gradient and num_spare)
        if needs_gradient:
            found = plain.channels_of(image_BCHW)
            return (strongest_colour(found) if self.fuses else found) / SCALE
        image_BCHW = image_BCHW.detach()
        out_BKPQ = empty_large(image_BCHW, (batch, num + num_spare, *grid))
        if self.fuses and self.front_end == "upsampled":
            found_BKPQ = out_BKPQ[:, :num]
            options: Any = {"channels": plain.channels, "scale": 1 / SCALE, "checks_range": False}
            bdct_upsampled_strongest(image_BCHW, out=found_BKPQ, **options)
            return out_BKPQ
        piece = plain.chunk_size(batch, image_BCHW.device)
        for start in range(0, batch, piece):
            target_BKPQ = out_BKPQ[start : start + piece, :num]
            if self.front_end == "upsampled" and target_BKPQ.is_contiguous():
                given = image_BCHW[start : start + piece]
                bdct_upsampled(given, channels=plain.channels, out=target_BKPQ, checks_range=False)
                target_BKPQ.mul_(1 / SCALE)
                continue
            found = plain.channels_of(image_BCHW[start : start + piece])
            found = strongest_colour(found) if self.fuses else found
            torch.mul(found, 1 / SCALE, out=target_BKPQ)
        return out_BKPQ

    def blocks_that_read(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, H) and (Q, W) bool: the pixel rows and columns that each block row and column depends on."""
        _, height, width = self.in_shape
        _, rows, columns = self.out_shape
        return self._reads(rows, height), self._reads(columns, width)

    def _reads(self, num_blocks: int, num_px: int) -> np.ndarray:
        block, px = np.arange(num_blocks)[:, None], np.arange(num_px)[None, :]
        if self.front_end == "upsampled":
            return np.asarray(np.abs(block - px) <= 1)
        reads = np.zeros((num_blocks, num_px), bool)
        for offset in range(BLOCK):
            at = block[:, 0] * self.stride - (BLOCK - self.stride) // 2 + offset
            at = np.abs(at)  # reflected at the border
            reads[block[:, 0], np.where(at >= num_px, 2 * (num_px - 1) - at, at)] = True
        return reads

    def facts(self) -> str:
        """Settings that determine the values of the coefficients, as JSON for fingerprints."""
        fields = dataclasses.asdict(self) | {"in_shape": list(self.in_shape), "format": "noisy-front-end/1"}
        if self.front_end == "upsampled":
            fields.pop("stride")
        return json.dumps(fields, sort_keys=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivities:
    """The range of each coefficient among reference faces. A masker clips coefficients to this range.

    Attributes:
        low: (K, P, Q) float32, the smallest value of each coefficient.
        high: (K, P, Q) float32, the largest.
        front_end: `NoisyFrontEnd.facts` of the coefficients.
        origin: 32 bytes of identification: sha256 of the pixels and the front end, so that a measurement has the same
            identification on every machine although its last digits differ. By default the sha256 of the arrays.

    Raises:
        ShapeError: the shapes of the arrays do not match.
        RangeError: values are not finite, or low is above high.

    Privacy:
        They are public and reveal the extremes of the reference faces without noise: each value belongs to one face.
        The guarantee of a masker that uses them does not cover the reference faces.
    """

    low: np.ndarray
    high: np.ndarray
    front_end: str
    origin: bytes = b""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            array = np.array(getattr(self, name), np.float32, order="C")  # a copy that the caller cannot change
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.low.ndim != 3 or self.low.shape != self.high.shape or 0 in self.low.shape:
            raise ShapeError(
                f"low and high have shapes {self.low.shape} and {self.high.shape}; both must be the same (K, P, Q): "
                "use Sensitivities.measure"
            )
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low <= self.high).all()):
            raise RangeError(
                "low and high must be finite with low <= high; measure them again with Sensitivities.measure"
            )
        if not self.origin:
            digest = hashlib.sha256(b"sensitivities/1/arrays" + self.front_end.encode())
            digest.update(repr(self.low.shape).encode() + self.low.tobytes() + self.high.tobytes())
            object.__setattr__(self, "origin", digest.digest())
        elif len(self.origin) != hashlib.sha256().digest_size:
            raise ShapeError(f"origin has {len(self.origin)} bytes, a sha256 has 32; omit it to have it computed")

    @property
    def range_KPQ(self) -> np.ndarray:
        """S, the sensitivity: high - low, (K, P, Q) float32; 0 where all reference faces have the same value."""
        found: np.ndarray = self.high - self.low
        return found

    @property
    def sha256(self) -> str:
        """`origin` in hexadecimal."""
        return self.origin.hex()

    @classmethod
    def measure(cls, images: ImageSet | np.ndarray, front_end: NoisyFrontEnd) -> Self:
        """The range of every coefficient over all images of a set.

        Args:
            images: the reference, usually the training set; an image set or (N, H, W, 3) uint8.
            front_end: front end of the masker that will use them, `masker.front_end`.

        Raises:
            ShapeError: there are no images, or their size is not the in_shape of the front end.
        """
        height, width = front_end.in_shape[1:]
        digest = hashlib.sha256(b"sensitivities/1/measured" + front_end.facts().encode())
        low_KPQ = torch.full(front_end.out_shape, torch.inf)
        high_KPQ = -low_KPQ
        for start in range(0, len(images), _BATCH_SIZE):
            chosen = range(start, min(start + _BATCH_SIZE, len(images)))
            read_BHWC = images[list(chosen)] if isinstance(images, np.ndarray) else images.read(chosen)
            if read_BHWC.shape[1:] != (height, width, 3) or read_BHWC.dtype != np.uint8:
                raise ShapeError(
                    f"the reference is {read_BHWC.dtype} {tuple(read_BHWC.shape)}; it must be (N, {height}, {width}, "
                    "3) uint8, as ImageSet.read returns it: align the images, or use another in_shape"
                )
            digest.update(repr(read_BHWC.shape).encode() + np.ascontiguousarray(read_BHWC).tobytes())
            image_BCHW = float_images(read_BHWC)
            with torch.no_grad():
                found_BKPQ = front_end.coefficients(image_BCHW)
            torch.minimum(low_KPQ, found_BKPQ.amin(0), out=low_KPQ)
            torch.maximum(high_KPQ, found_BKPQ.amax(0), out=high_KPQ)
        if len(images) == 0:
            raise ShapeError("the reference contains no images; pass (N, H, W, 3) uint8 or a non-empty image set")
        return cls(low=low_KPQ.numpy(), high=high_KPQ.numpy(), front_end=front_end.facts(), origin=digest.digest())

    def check_belongs_to(self, front_end: NoisyFrontEnd) -> None:
        """Check that they were measured with `front_end`.

        Raises:
            InvalidInputError: they were not; the message names the differences.
        """
        expected, found = json.loads(front_end.facts()), json.loads(self.front_end)
        differences = [
            f"{key}={found.get(key)!r}, expected {expected.get(key)!r}"
            for key in sorted(expected.keys() | found.keys())
            if expected.get(key) != found.get(key)
        ]
        if differences or self.low.shape != front_end.out_shape:
            raise InvalidInputError(
                f"the sensitivities belong to another front end ({'; '.join(differences) or 'another shape'}): "
                "measure them with Sensitivities.measure(images, masker.front_end)"
            )

    def arrays(self) -> Mapping[str, np.ndarray]:
        """All attributes as arrays, for a file; `from_arrays` is the inverse."""
        return {
            "low": self.low,
            "high": self.high,
            "front_end": np.frombuffer(self.front_end.encode(), np.uint8),
            "origin": np.frombuffer(self.origin, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Sensitivities from the result of `arrays`.

        Raises:
            InvalidInputError: the names differ, or the front end is not valid JSON.
            ShapeError: the shapes of the arrays do not match.
            RangeError: values are not finite, or low is above high.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(arrays) != names:
            raise InvalidInputError(
                f"sensitivities consist of {', '.join(sorted(names))}, got {', '.join(sorted(arrays)) or 'none'}: "
                "pass the result of Sensitivities.arrays()"
            )
        text = np.asarray(arrays["front_end"], np.uint8).tobytes()
        try:
            facts: Any = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(
                "front_end of the sensitivities is not a JSON object; measure them again"
            ) from error
        if not isinstance(facts, dict):
            raise InvalidInputError("front_end of the sensitivities is not a JSON object; measure them again")
        origin = np.asarray(arrays["origin"], np.uint8).tobytes()
        return cls(low=arrays["low"], high=arrays["high"], front_end=text.decode(), origin=origin)

    def __repr__(self) -> str:
        return f"Sensitivities(shape={self.low.shape}, sha256={self.sha256[:12]}...)"


@functools.lru_cache(maxsize=4)
def built_in_sensitivities(front_end: NoisyFrontEnd) -> Sensitivities:
    """Sensitivities of synthetic people, one image per person. Takes some seconds at first use."""
    measured = Sensitivities.measure(_built_in_reference(front_end), front_end)
    return dataclasses.replace(measured, origin=built_in_origin(front_end))


@functools.lru_cache(maxsize=16)
def built_in_origin(front_end: NoisyFrontEnd) -> bytes:
    """`origin` of `built_in_sensitivities`, computed from the version and arguments of the face generator alone."""
    facts = ("sensitivities/1/built-in", front_end.facts(), _built_in_reference(front_end).fingerprint())
    return hashlib.sha256(repr(facts).encode()).digest()


def check_built_in(front_end: NoisyFrontEnd) -> None:
    """Check that synthetic faces can be generated in the crop size of the front end.

    Raises:
        InvalidInputError: they cannot.
    """
    _, height, width = front_end.in_shape
    if height != width or height not in range(32, 1025, 2):
        raise InvalidInputError(
            f"in_shape is {front_end.in_shape}: built-in sensitivities require square crops with an even side from 32 "
            "to 1024; pass sensitivities=Sensitivities.measure(images, masker.front_end)"
        )


def _built_in_reference(front_end: NoisyFrontEnd) -> SyntheticFaces:
    return SyntheticFaces(_BUILT_IN_PEOPLE, 1, seed=_BUILT_IN_SEED, size=front_end.in_shape[1])


def as_sensitivities(
    given: Sensitivities | Mapping[str, np.ndarray] | None, front_end: NoisyFrontEnd
) -> Sensitivities | NoisyFrontEnd:
    """Check the sensitivities that a masker was given. Returns the front end itself for the built-in ones.

    Raises:
        InvalidInputError: they have another front end or another type, or there are no built-in ones for this crop
            size.
    """
    if given is None:
        check_built_in(front_end)
        return front_end
    if isinstance(given, Mapping):
        given = Sensitivities.from_arrays(given)
    if not isinstance(given, Sensitivities):
        raise InvalidInputError(
            f"sensitivities is a {type(given).__name__}; pass Sensitivities.measure(images, masker.front_end) or None"
        )
    given.check_belongs_to(front_end)
    return given
