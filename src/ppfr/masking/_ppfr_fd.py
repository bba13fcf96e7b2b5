"""PPFR-FD (AAAI 2022): frequency channels without DC, shuffled, normalised, mixed, shuffled and normalised again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, Self, final

import torch
from torch import Generator, Tensor

from ppfr.core import ImageMasker, InvalidInputError, MaskSpec, RangeError, UnsupportableError, draws_from
from ppfr.frequency import lowest_channels
from ppfr.masking._checks import check_image
from ppfr.masking._front_end import FrontEnd, check_choice, check_front_end
from ppfr.masking._permutations import permutation_from

SECRET_BYTES = 32
_EPS = 1e-5
_DEAD_STD = 1e-2
_NUM_CHANNELS = 36


@final
class PpfrFd(ImageMasker):
    """Fast frequency masking: M shuffled, mixed and self-normalised frequency channels leave the device.

    The image is transformed into block-DCT channels. DC is dropped and the `num_channels` lowest of the other channels
    in zig-zag order are kept, or exactly the channels in `channels`. The further steps are shuffle 1;
    self-normalisation (x - mean) / std per image and channel; mixing, which adds channel (i+1) mod M to channel i;
    shuffle 2; and self-normalisation. A channel whose std on the [0, 255] scale is below 0.01 contains only rounding
    errors. It is output as zeros, because normalisation would amplify the errors to full scale.

    Args:
        secret: 32 bytes from which both shuffles are derived, shared by all devices and the training of one
            deployment; create one with `PpfrFd.new_secret()`. Must be None with permutation="per_image".
        front_end: "block" is a plain block DCT of the crop (28x28 grid at 112, block 8, stride 4); "upsampled" is the
            x8-upsampled front end of later papers (112x112 grid, block 8, no stride).
        colours: "y" (luma only, as the paper) or "ycbcr" (`num_channels` of each colour plane, M three times as large).
        block: side of a block, front_end="block" only.
        stride: step between blocks, front_end="block" only.
        num_channels: frequency channels kept of each colour plane after DC is dropped; 36 unless `channels` is given.
        channels: the frequency channels c = block*u + v kept of each colour plane, in place of `num_channels`; their
            order does not matter. DC, which is channel 0, is kept if it is listed. It is almost a picture of the face,
            of which self-normalisation removes only mean and scale.
        permutation: "fixed" derives the shuffles from the secret; "per_image" draws new ones for every image
            and discards them: there is no secret, and the output is stochastic.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument is outside its allowed range.
        InvalidInputError: the secret is not 32 bytes, or it was given with permutation="per_image".

    Privacy:
        Claims that a face cannot be made visible from the masked image. The claim relies on the secrecy of two
        permutations and on the loss of channel means and scales. Both are weak. An adversary with the secret can invert
        the mixing (`ppfr.masking.unmix`), and trained networks recover faces and re-identify people without the secret.
        It is not encryption.

    References:
        Wang, Liu, Luo, Yang, Wang: "Privacy-Preserving Face Recognition in the Frequency Domain", AAAI 2022.
        Deviations are listed in docs/methods/ppfr-fd.md.
    """

    def __init__(
        self,
        *,
        secret: bytes | None,
        front_end: Literal["block", "upsampled"] = "block",
        colours: Literal["y", "ycbcr"] = "y",
        block: int = 8,
        stride: int = 4,
        num_channels: int | None = None,
        channels: Sequence[int] | None = None,
        permutation: Literal["fixed", "per_image"] = "fixed",
        in_shape: tuple[int, int, int] = (3, 112, 112),
    ) -> None:
        check_front_end(front_end, colours, block)
        check_choice("permutation", permutation, ("fixed", "per_image"))
        self._permutation = permutation
        kept, self._choice = _kept(num_channels, channels, block=block)
        self._front_end = FrontEnd(
            kind=front_end, colours=colours, block=block, stride=stride, in_shape=in_shape, channels=kept
        )
        num, *grid = self._front_end.out_shape
        self._shuffles: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._take_secret(secret, num)
        bound = float(grid[0] * grid[1]) ** 0.5  # |x - mean| / std of n values is at most sqrt(n - 1)
        self._spec = MaskSpec(
            in_shape=(3, int(in_shape[1]), int(in_shape[2])),
            out_shape=self._front_end.out_shape,
            value_range=(-bound, bound),
            is_stochastic=permutation == "per_image",
            is_keyed=permutation == "fixed",
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * num * grid[0] * grid[1],
        )

    def _take_secret(self, secret: bytes | None, num: int) -> None:
        if self._permutation == "per_image":
            if secret is not None:
                raise InvalidInputError("permutation='per_image' has no secret: pass secret=None")
            return
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            kind = f"{len(secret)} bytes" if isinstance(secret, bytes) else f"a {type(secret).__name__}"
            raise InvalidInputError(f"secret is {kind}; it must be {SECRET_BYTES} bytes: use PpfrFd.new_secret()")
        self._shuffles = tuple(permutation_from(secret, f"ppfr-fd/1/shuffle-{i}", num) for i in (1, 2))  # type: ignore[assignment]

    @staticmethod
    def new_secret() -> bytes:
        """32 bytes from the operating system: the secret of a deployment. Do not write it to records or logs."""
        return secrets.token_bytes(SECRET_BYTES)

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "ppfr-fd"

    @property
    def spec(self) -> MaskSpec:
        """Output shape (M, P, Q); |value| is at most sqrt(P*Q)."""
        return self._spec

    @property
    def kept_channels(self) -> tuple[int, ...]:
        """Frequency channels c = block*u + v kept of each colour plane, ascending. Public."""
        return self._front_end.channels

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`. `rng` is used by permutation="per_image" only."""
        image_BCHW = check_image(image_BCHW, self._spec)
        batch = image_BCHW.shape[0]
        if batch == 0:
            return image_BCHW.new_empty(0, *self._spec.out_shape)
        pairs_2BM = self._pairs(batch, rng).to(image_BCHW.device)
        piece = self._front_end.chunk_size(batch, image_BCHW.device)
        outputs = [
            _mix(self._front_end.channels_of(image_BCHW[start : start + piece]), pairs_2BM[:, start : start + piece])
            for start in range(0, batch, piece)
        ]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _pairs(self, batch: int, rng: Generator | None) -> Tensor:
        """The two kept channels that each output channel mixes, (2, B, M)."""
        num = self._spec.out_shape[0]
        if self._shuffles is not None:
            first_BM, second_BM = torch.tensor(self._shuffles, dtype=torch.int64).expand(batch, 2, num).unbind(1)
        else:
            keys = draws_from(rng).uniform(2, batch, num)
            first_BM, second_BM = keys.argsort(dim=-1, stable=True)
        # Output j is w_P2[j], w_i = x_P1[i] + x_P1[i+1]: normalising commutes with both shuffles.
        return torch.stack([first_BM.gather(1, second_BM), first_BM.gather(1, (second_BM + 1) % num)])

    def with_new_secret(self, *, rng: Generator | None = None) -> Self:
        """The same parameters with a new secret; see `ImageMasker.with_new_secret`."""
        if self._shuffles is None:
            return super().with_new_secret(rng=rng)
        return type(self)(secret=draw_secret(rng=rng), **self._arguments())

    def with_shuffles(self, first: Sequence[int], second: Sequence[int]) -> Self:
        """The same parameters with given shuffles, as an adversary knows them who does not know the secret.

        Args:
            first: order of the M kept channels in which each is added to its successor.
            second: output channel j is sum number `second[j]`.

        Raises:
            UnsupportableError: the permutations are drawn per image.
            RangeError: a shuffle is not a permutation of 0..M-1.
        """
        if self._shuffles is None:
            raise UnsupportableError("permutation='per_image' has no fixed shuffles")
        shuffles = tuple(int(i) for i in first), tuple(int(i) for i in second)
        num = self._spec.out_shape[0]
        if any(sorted(order) != list(range(num)) for order in shuffles):
            raise RangeError(f"a shuffle is not a permutation of 0..{num - 1}; give each of these numbers once")
        placeholder = bytes(SECRET_BYTES)  # its shuffles are replaced at once
        result = type(self)(secret=placeholder, **self._arguments())
        result._shuffles = shuffles
        return result

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments without the secret."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self._arguments().items()}

    def _arguments(self) -> dict[str, Any]:
        return {
            "front_end": self._front_end.kind,
            "colours": self._front_end.colours,
            "block": self._front_end.block,
            "stride": self._front_end.stride,
            **self._choice,
            "permutation": self._permutation,
            "in_shape": self._spec.in_shape,
        }

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"PpfrFd(secret={'<redacted>' if self._shuffles else None}, {arguments})"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError(
            "a PpfrFd cannot be pickled, because the pickle would contain its secret; transfer public_config() and the "
            "secret separately, and construct it again on the other side"
        )

    def __copy__(self) -> Self:
        return self  # immutable

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def draw_secret(*, rng: Generator | None = None) -> bytes:
    """The secret of a deployment, or of a simulated one.

    Args:
        rng: None for the operating system; a CPU generator for a simulated deployment that can be repeated.

    Returns:
        `SECRET_BYTES` bytes.
    """
    return draws_from(rng).secret(SECRET_BYTES)


def normalised_channels(masker: PpfrFd, image_BCHW: Tensor) -> Tensor:
    """(B, M, P, Q): kept channels of each image after the first self-normalisation, in public order."""
    channels_BMPQ = masker._front_end.channels_of(check_image(image_BCHW, masker.spec))
    return _normalised(channels_BMPQ, dead_std=_DEAD_STD)


def _normalised(x_BMPQ: Tensor, *, dead_std: float) -> Tensor:
    """(x - mean) / std over space, for each image and channel; zeros where the std is at most `dead_std`."""
    centred = x_BMPQ - x_BMPQ.mean((2, 3), keepdim=True)
    variance = centred.square().mean((2, 3), keepdim=True)  # torch.var_mean is sixty times slower on a CPU
    return centred * torch.where(variance > dead_std**2, torch.rsqrt(variance + _EPS**2), 0.0)


def _mix(channels_BMPQ: Tensor, pairs_2BM: Tensor) -> Tensor:
    """Self-normalise, add the two channels of each pair, self-normalise."""
    x_BMPQ = _normalised(channels_BMPQ, dead_std=_DEAD_STD)
    batch, num = x_BMPQ.shape[:2]
    row = torch.arange(batch, device=x_BMPQ.device)[:, None] * num
    rows_2N = (pairs_2BM + row).view(2, batch * num)
    flat_NS = x_BMPQ.view(batch * num, -1)
    mixed = flat_NS.index_select(0, rows_2N[0]) + flat_NS.index_select(0, rows_2N[1])
    return _normalised(mixed.view_as(x_BMPQ), dead_std=_DEAD_STD)


def _kept(
    num_channels: int | None, channels: Sequence[int] | None, *, block: int
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The kept channels in ascending order, and the argument that selected them.

    The front end computes ascending channels fastest. Their order does not matter, because a shuffle follows.
    """
    if channels is None:
        num = _NUM_CHANNELS if num_channels is None else num_channels
        return tuple(sorted(lowest_channels(num, block=block, keeps_dc=False))), {"num_channels": num}
    if num_channels is not None:
        raise RangeError(
            f"num_channels={num_channels} and channels={tuple(channels)} both select channels: pass only one of them"
        )
    given = tuple(channels)
    is_good = all(isinstance(c, int) and not isinstance(c, bool) and 0 <= c < block * block for c in given)
    if not given or not is_good or len(set(given)) != len(given):
        raise RangeError(
            f"channels is {given}; it must be one or more distinct integers c = {block}*u + v in "
            f"0..{block * block - 1}, of which 0 is DC"
        )
    kept = tuple(sorted(given))
    return kept, {"channels": kept}
