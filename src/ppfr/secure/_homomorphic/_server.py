"""The server's side of CKKS matching: ciphertexts in, ciphertexts out, no key. Suffix: D embedding."""

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
    """An encrypted gallery and the arithmetic on it.

    Args:
        context: `CkksKey.context()`.

    Raises:
        CorruptTemplateError, OutdatedTemplateError: not a context of this release.
        MissingExtraError: `tenseal` is not installed.

    Privacy:
        It learns how many references and probes there are and when, and nothing of an encrypted one as long as CKKS's
        problem (ring learning with errors, 128 bits) is hard and no decrypted score comes back to it. A plain probe it
        reads. It can answer with anything: that a score is right is not proven to the key holder.
    """

    def __init__(self, context: bytes) -> None:
        message = Message.from_bytes(context, kind="context")
        self._context = context_of(message)
        if self._context.has_secret_key():
            raise InvalidInputError("this context has the secret key in it; a server gets CkksKey.context()")
        self._dim, self._key_id = message.dim, message.key_id
        self._blocks: list[list[Any]] = []
        self._sizes: list[int] = []

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many references each block holds."""
        return tuple(self._sizes)

    def add(self, block: bytes) -> None:
        """Append a block of references; it takes 66 KB times D of memory.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not a block under the key of the context.
        """
        message = Message.from_bytes(block, kind="references", key_id=self._key_id)
        self._blocks.append(self._vectors(message))
        self._sizes.append(message.num)

    def answer(self, probe: bytes | ArrayLike, blocks: Sequence[int] | None = None) -> bytes:
        """Encrypted scores of a probe.

        Args:
            probe: `CkksKey.encrypt_probe(...)`, or (D,) of L2 norm 1 in the clear, which is faster by half and sends 66
                KB times D less.
            blocks: which; all if left out.

        Returns:
            A ciphertext for each block: 98 KB, or 66 KB for a plain probe.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not a probe under the key of the context.
            ShapeError, RangeError: a plain probe that is none.
            InvalidInputError: no such block, or an empty gallery.
        """
        if not self._blocks:
            raise InvalidInputError("the gallery is empty; add at least one block")
        chosen = range(len(self._blocks)) if blocks is None else blocks
        if any(block not in range(len(self._blocks)) for block in chosen):
            raise InvalidInputError(f"a block outside 0..{len(self._blocks) - 1} was asked for")
        factors = self._factors(probe)
        parts = [bytes(_inner_product(self._blocks[block], factors).serialize()) for block in chosen]
        return Message(kind="scores", dim=self._dim, num=len(parts), key_id=self._key_id, parts=parts).to_bytes()

    def _factors(self, probe: bytes | ArrayLike) -> list[Any]:
        if isinstance(probe, bytes):
            return self._vectors(Message.from_bytes(probe, kind="probe", key_id=self._key_id))
        row_D = np.asarray(probe)
        if row_D.ndim != 1:
            raise ShapeError(f"a probe has shape {row_D.shape}; give ({self._dim},)")
        # What rounds to zero on the scale's grid is left out: SEAL refuses a product that would not be encrypted.
        grid_D = np.rint(unit_rows(row_D[None], self._dim, "probes")[0] * 2**SCALE_BITS) / 2**SCALE_BITS
        return [value if value else None for value in grid_D.tolist()]

    def _vectors(self, message: Message) -> list[Any]:
        if message.dim != self._dim or len(message.parts) != self._dim:
            raise CorruptTemplateError(
                f"{len(message.parts)} ciphertexts were given; this gallery has {self._dim} each"
            )
        return [ciphertext(self._context, part) for part in message.parts]

    def __repr__(self) -> str:
        return f"CkksServer(dim={self._dim}, num_references={sum(self._sizes)}, contents=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a server holds a gallery and cannot be pickled; keep blocks as they came")


def _inner_product(block: list[Any], factors: list[Any]) -> Any:
    """Sum over D, slot by slot; sums grow in place, and nothing is rescaled: one product fits the modulus."""
    total = None
    for coordinate, factor in zip(block, factors, strict=True):
        if factor is None:
            continue
        product = coordinate * factor
        total = product if total is None else total.add_(product)
    return total
