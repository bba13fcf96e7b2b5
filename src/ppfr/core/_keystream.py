"""AES in counter mode as a source of words: keystreams that parties share, and the protective randomness of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppfr.core._errors import RangeError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_KEY_SIZES = (16, 32)
# Sized to stay in the core's cache; the same zeros are encrypted repeatedly.
_ZEROS = memoryview(bytes(1 << 18))


class Keystream:
    """AES in counter mode over zeros, written directly into arrays.

    Args:
        key: 16 bytes for AES-128, or 32 for AES-256.
        number: 0..2^64 - 1, the first half of the initial counter block; each number gives another stream. The second
            half counts 2^64 blocks.

    Raises:
        RangeError: a key of another length, or a number out of range.
    """

    def __init__(self, key: bytes, number: int) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if len(key) not in _KEY_SIZES:
            raise RangeError(f"Expected a key of 16 or 32 bytes, got {len(key)}. Draw one with os.urandom.")
        if not 0 <= number < 2**64:
            raise RangeError(f"The number of a keystream must be in 0..2^64 - 1, got {number}.")
        counter = number.to_bytes(8, "big") + bytes(8)
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()

    def words(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the next words of the stream, uniform over the type."""
        import numpy as np

        out: NDArray[Any] = np.empty(shape, dtype=dtype)
        out_bytes = out.reshape(-1).view(np.uint8).data
        for start in range(0, len(out_bytes), len(_ZEROS)):
            part = out_bytes[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(part)], part)
        return out
