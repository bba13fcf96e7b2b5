"""The server's side of CKKS matching: computes on ciphertexts without a key. Suffix: D embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, final

import numpy as np
from numpy.typing import ArrayLike

from ppfr.core import CorruptTemplateError, InvalidInputError, ShapeError, UnsupportableError, unit_rows
from ppfr.secure._homomorphic._key import SCALE_BITS, ciphertext, context_of
from ppfr.secure._homomorphic._messages import Message


@final
class CkksServer:
    """An encrypted gallery and the computation of encrypted scores.

    Args:
        context: from `CkksKey.context()`.

    Raises:
        CorruptTemplateError, OutdatedTemplateError: not a context of this release.
        MissingExtraError: `tenseal` is not installed.

    Privacy:
        The server learns the number and time of references and probes. It learns nothing about their contents as long
        as ring learning with errors (128 bits) is hard and no decrypted score is disclosed to it. It reads plain
        probes. It can return wrong scores: the key holder gets no proof of correctness.
    """

    def __init__(self, context: bytes) -> None:
        message = Message.from_bytes(context, kind="context")
        self._context = context_of(message)
        if self._context.has_secret_key():
            raise InvalidInputError("The context contains the secret key. Give the server CkksKey.context() instead.")
        self._dim, self._key_id = message.dim, message.key_id
        self._blocks: list[list[Any]] = []
        self._sizes: list[int] = []

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of references in each block."""
        return tuple(self._sizes)

    def add(self, block: bytes) -> None:
        """Append a block of references; it uses 66 KB times D of memory.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not a block made with the key of the context.
        """
        message = Message.from_bytes(block, kind="references", key_id=self._key_id)
        self._blocks.append(self._vectors(message))
        self._sizes.append(message.num)

    def answer(self, probe: bytes | ArrayLike, blocks: Sequence[int] | None = None) -> bytes:
        """Compute the encrypted scores of a probe.

        Args:
            probe: from `CkksKey.encrypt_probe`, or (D,) of L2 norm 1 in the clear, which takes half the time and
                saves 66 KB times D of traffic.
            blocks: indices of the blocks; all by default.

        Returns:
            A message with one ciphertext per block: 98 KB, or 66 KB for a plain probe.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not a probe made with the key of the context.
            ShapeError, RangeError: an invalid plain probe.
            InvalidInputError: a block that does not exist, or an empty gallery.
        """
        if not self._blocks:
            raise InvalidInputError("The gallery is empty. Add at least one block.")
        chosen = range(len(self._blocks)) if blocks is None else blocks
        if any(block not in range(len(self._blocks)) for block in chosen):
            raise InvalidInputError(f"Block indices must be in 0..{len(self._blocks) - 1}.")
        factors = self._factors(probe)
        parts = [bytes(_inner_product(self._blocks[block], factors).serialize()) for block in chosen]
        return Message(kind="scores", dim=self._dim, num=len(parts), key_id=self._key_id, parts=parts).to_bytes()

    def _factors(self, probe: bytes | ArrayLike) -> list[Any]:
        if isinstance(probe, bytes):
            return self._vectors(Message.from_bytes(probe, kind="probe", key_id=self._key_id))
        row_D = np.asarray(probe)
        if row_D.ndim != 1:
            raise ShapeError(f"Expected a probe of shape ({self._dim},), got {row_D.shape}.")
        # Coordinates that round to zero on the scale's grid are skipped: SEAL rejects transparent products.
        grid_D = np.rint(unit_rows(row_D[None], self._dim, "probes")[0] * 2**SCALE_BITS) / 2**SCALE_BITS
        return [value if value else None for value in grid_D.tolist()]

    def _vectors(self, message: Message) -> list[Any]:
        if message.dim != self._dim or len(message.parts) != self._dim:
            raise CorruptTemplateError(f"Expected {self._dim} ciphertexts, got {len(message.parts)}.")
        return [ciphertext(self._context, part) for part in message.parts]

    def __repr__(self) -> str:
        return f"CkksServer(dim={self._dim}, num_references={sum(self._sizes)}, contents=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("A server with its gallery cannot be pickled. Store the blocks instead.")


def _inner_product(block: list[Any], factors: list[Any]) -> Any:
    """Slot-wise sum over D, accumulated in place; one product fits the modulus, so nothing is rescaled."""
    total = None
    for coordinate, factor in zip(block, factors, strict=True):
        if factor is None:
            continue
        product = coordinate * factor
        total = product if total is None else total.add_(product)
    return total
