"""Embeddings of plain or masked images, in batches with fresh randomness, and scores of pairs of embeddings.

Suffixes: N images or comparisons, D embedding, B batch, C H W image, K P Q masked image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import (
    Embedder,
    ImageMasker,
    ImageSet,
    MixedBatch,
    MixingMasker,
    ShapeError,
    UnsupportableError,
    derive_seed,
    unit_rows,
)
from ppfr.data import float_images
from ppfr.metrics import Comparisons

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


class Settings(Protocol):
    """Settings of embedding and of the bootstrap. `Experiment` and `EvaluationSettings` satisfy this protocol."""

    @property
    def seed(self) -> int: ...

    @property
    def num_resamples(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def mirrors_input(self) -> bool: ...


_MASKED_BYTES_AT_ONCE = 256 << 20
_MOST_AT_ONCE = 1024

CANNOT_MIRROR = (
    "{} cannot compute the mask of a mirrored image from a masked image, and a second masked image is not offered: "
    "privacy guarantees, bytes and attacks are those of one. Use mirrors_input=False, or omit --flip"
)


def can_mirror(masker: ImageMasker) -> bool:
    """Whether the masker computes the mask of a mirrored image from a masked image."""
    return masker.mirrored(torch.empty(0, *masker.spec.out_shape)) is not None


def read_images(images: ImageSet, indices: Sequence[int], *, device: torch.device) -> Tensor:
    """(N, 3, H, W) float32 in [0, 1] on `device`."""
    return float_images(images.read(list(indices)), device=device).contiguous()


def batches(indices: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    """Slices of at most `batch_size`."""
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


class Embedding:
    """Plain and masked embeddings under one set of settings."""

    def __init__(self, settings: Settings, *, device: torch.device) -> None:
        self._seed, self._batch_size = settings.seed, settings.batch_size
        self._mirrors_input, self.device = settings.mirrors_input, device

    def plain(self, embedder: Embedder, images: ImageSet, indices: Sequence[int]) -> np.ndarray:
        """(N, D) unit rows of plain images."""

        def embed(image_BCHW: Tensor, number: int) -> Tensor:
            return self._with_mirrored(embedder, image_BCHW, image_BCHW.flip(-1).contiguous())

        return self._embed(embed, images, indices)

    def masked(
        self, masker: ImageMasker, embedder: Embedder, images: ImageSet, indices: Sequence[int], *, purpose: str
    ) -> np.ndarray:
        """(N, D) unit rows of masked images. `purpose` names the random stream of the masker.

        Each image is masked once, since privacy guarantees, bytes and attacks are those of one masked image.

        Raises:
            UnsupportableError: the setting asks for mirrored inputs, and the masker cannot mirror its output.
        """
        if self._mirrors_input and not can_mirror(masker):
            raise UnsupportableError(f"mirrors_input=True, but {CANNOT_MIRROR.format(masker.name)}")

        def embed(image_BCHW: Tensor, number: int) -> Tensor:
            masked_BKPQ = self.mask(masker, image_BCHW, purpose=f"{purpose}/{number}")
            return self._with_mirrored(embedder, masked_BKPQ, masker.mirrored(masked_BKPQ))

        return self._embed(embed, images, indices)

    def mask(self, masker: ImageMasker, image_BCHW: Tensor, *, purpose: str) -> Tensor:
        """Mask one batch with the random stream named `purpose`."""
        with torch.no_grad():
            return masker.mask(image_BCHW, rng=self._mask_rng(masker, purpose))

    def _mask_rng(self, masker: ImageMasker, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self._seed, "mask", masker.name, purpose))

    def observed(
        self, masker: ImageMasker, images: ImageSet, indices: Sequence[int], *, purpose: str
    ) -> Iterator[tuple[slice, Tensor]]:
        """Masked images as the server sees them, on the CPU, in parts of about equal size that fit in memory."""
        for low, high, parts in self._parts(masker, images, indices):
            masked = [
                self.mask(masker, image_BCHW, purpose=f"{purpose}/{low}/{number}").cpu()
                for number, (_, image_BCHW) in enumerate(parts)
            ]
            yield slice(low, high), torch.cat(masked)

    def observed_mixtures(
        self, masker: MixingMasker, images: ImageSet, indices: Sequence[int], *, purpose: str
    ) -> Iterator[tuple[slice, MixedBatch]]:
        """The images of `observed` with what each is mixed from: `partners_Bk` are places in `indices`."""
        for low, high, parts in self._parts(masker, images, indices):
            mixed = []
            for number, (start, image_BCHW) in enumerate(parts):
                rng = self._mask_rng(masker, f"{purpose}/{low}/{number}")
                with torch.no_grad():
                    batch = masker.mask_and_mix(image_BCHW, rng=rng)
                mixed.append((batch, start))
            partners_Bk = torch.cat([batch.partners_Bk.cpu() + start for batch, start in mixed])
            yield (
                slice(low, high),
                MixedBatch(
                    values_BKPQ=torch.cat([batch.values_BKPQ.cpu() for batch, _ in mixed]),
                    labels_Bk=partners_Bk,
                    weights_Bk=torch.cat([batch.weights_Bk.cpu() for batch, _ in mixed]),
                    partners_Bk=partners_Bk,
                ),
            )

    def _parts(
        self, masker: ImageMasker, images: ImageSet, indices: Sequence[int]
    ) -> Iterator[tuple[int, int, Iterator[tuple[int, Tensor]]]]:
        """(low, high, (first place, plain images) of each batch of `indices[low:high]`)."""
        bytes_each = 4 * math.prod(masker.spec.out_shape)
        at_once = min(_MOST_AT_ONCE, max(self._batch_size, _MASKED_BYTES_AT_ONCE // bytes_each))
        num_pieces = max(1, math.ceil(len(indices) / at_once))
        edges = [len(indices) * piece // num_pieces for piece in range(num_pieces + 1)]
        for low, high in itertools.pairwise(edges):
            parts = (
                (low + self._batch_size * number, read_images(images, batch, device=self.device))
                for number, batch in enumerate(batches(indices[low:high], self._batch_size))
            )
            yield low, high, parts

    def _with_mirrored(self, embedder: Embedder, x_BKPQ: Tensor, mirrored_BKPQ: Tensor | None) -> Tensor:
        """(B, D) embeddings of an input; with `mirrors_input`, those of the mirrored input are added."""
        embedding_BD = embedder.embed(x_BKPQ)
        if not self._mirrors_input:
            return embedding_BD
        assert mirrored_BKPQ is not None  # checked by `masked`
        return functional.normalize(embedding_BD + embedder.embed(mirrored_BKPQ), dim=1)

    def _embed(self, embed: Callable[[Tensor, int], Tensor], images: ImageSet, indices: Sequence[int]) -> np.ndarray:
        rows = []
        for number, batch in enumerate(batches(indices, self._batch_size)):
            image_BCHW = read_images(images, batch, device=self.device)
            rows.append(embed(image_BCHW, number).cpu())
        return checked_rows(torch.cat(rows).numpy(), len(indices), what="the embedder")


def checked_rows(embeddings_ND: np.ndarray, num: int, *, what: str) -> np.ndarray:
    """Unit rows, one for each image, as float64.

    Raises:
        ShapeError: not (num, D).
        RangeError: not finite, or not of unit length.
    """
    array_ND = np.asarray(embeddings_ND)
    if array_ND.ndim != 2 or len(array_ND) != num:
        raise ShapeError(f"{what} returned shape {array_ND.shape} for {num} images; expected ({num}, D)")
    return unit_rows(array_ND, array_ND.shape[1], f"rows of {what}")


def pair_comparisons(protocol: PairProtocol, first_ND: np.ndarray, second_ND: np.ndarray | None = None) -> Comparisons:
    """Scores of a protocol's pairs from the embeddings of `protocol.used()`.

    `second_ND` is a second view of the same images. With it, each pair is compared in both orders, one side from each
    view.
    """
    place = {index: row for row, index in enumerate(protocol.used().tolist())}
    a = np.array([place[i] for i in protocol.first.tolist()])
    b = np.array([place[i] for i in protocol.second.tolist()])
    if second_ND is None:
        return comparisons_of(protocol, np.einsum("nd,nd->n", first_ND[a], first_ND[b]))
    orders = [np.einsum("nd,nd->n", first_ND[i], second_ND[j]) for i, j in ((a, b), (b, a))]
    return comparisons_of(protocol, np.concatenate(orders))


def comparisons_of(protocol: PairProtocol, scores_N: np.ndarray) -> Comparisons:
    """Scores with the labels, subjects and folds of the protocol. There may be two scores per pair, one per order."""
    times = len(scores_N) // len(protocol)
    subjects = np.asarray(protocol.images.subject_ids)
    return Comparisons(
        scores=scores_N,
        is_genuine=np.tile(protocol.is_genuine, times),
        subject_a=np.tile(subjects[protocol.first], times),
        subject_b=np.tile(subjects[protocol.second], times),
        fold=np.tile(protocol.fold, times),
    )
