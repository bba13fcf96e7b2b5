"""The key holder's side of CKKS matching: encrypts references and probes, and decrypts scores.

Suffixes: D embedding, M references, S slots of a ciphertext.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.assets import check_private, create_private
from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    MissingExtraError,
    RangeError,
    ShapeError,
    UnsupportableError,
    unit_rows,
)
from ppfr.secure._homomorphic._messages import KEY_ID_BYTES, Message

# 109 bits of modulus at degree 4096 is the maximum of the Homomorphic Encryption Standard (2018) for 128 bits of
# security with a ternary secret; SEAL rejects more. Scores need one prime, of 60 bits: nothing is rescaled,
# relinearised or rotated. The second prime is for key switching, which is not used, but TenSEAL requires it.
DEGREE = 4096
MODULUS_BITS = (60, 49)
SCALE_BITS = 28
SLOTS = DEGREE // 2
_NOISE_VARIANCE = 21 / 2 + 1 / 12  # per coefficient: SEAL's centred binomial error; rounding of a plaintext
_DEVIATIONS = 8
_MAX_DIM = 4096


def load_tenseal() -> Any:
    """Import `tenseal`.

    Raises:
        MissingExtraError: `tenseal` is not installed.
    """
    try:
        import tenseal
    except ImportError as error:
        raise MissingExtraError("he", "homomorphic matching") from error
    return tenseal


def largest_error() -> float:
    """6.3e-6: bound on the error of a decrypted score, exceeded by one score in 10^15.

    The error of a slot of a fresh ciphertext is the real part of a sum of DEGREE independent coefficient errors times
    roots of unity, divided by the scale: its variance is DEGREE / 2 times theirs. A score sums D such errors times the
    other side's coordinates, which have norm 1, for references and for probes: standard deviation sqrt(2) times that,
    7.8e-7. The bound is eight standard deviations plus the rounding of a plain probe to the scale's grid.
    """
    slot = math.sqrt(DEGREE / 2 * _NOISE_VARIANCE) / 2**SCALE_BITS
    return float(_DEVIATIONS * math.sqrt(2) * slot + math.sqrt(_MAX_DIM) / 2 ** (SCALE_BITS + 1))


@final
class CkksKey:
    """A secret CKKS key and the key holder's operations; make one with `create` or `load`.

    Encryption is symmetric: the key is needed for enrolment and for queries. The server gets `context()` and
    ciphertexts. Ciphertext d of a block holds coordinate d of up to 2,048 references, one per slot, so a score is a sum
    of D slot-wise products without rotations.

    Privacy:
        The key reveals references, probes and scores. Do not disclose decrypted scores to the server or to anyone who
        sees ciphertexts: they contain CKKS noise, from which the key can be computed (Li and Micciancio, Eurocrypt
        2021). Disclose decisions only, at one threshold of the key holder's, as `CkksMatcher` does, and limit their
        number: at thresholds or on answers that others choose, about 60 decisions equal a score.
    """

    def __init__(self, dim: int, key_id: bytes, context: Any) -> None:
        self._dim, self._key_id, self._context = dim, key_id, context

    @classmethod
    def create(cls, dim: int) -> Self:
        """Create a new key from the operating system's randomness.

        Args:
            dim: D of the embeddings, 1..4096.

        Raises:
            RangeError: `dim` is out of range.
            MissingExtraError: `tenseal` is not installed.
        """
        if not 1 <= dim <= _MAX_DIM:
            raise RangeError(f"dim must be in 1..{_MAX_DIM}, got {dim}.")
        tenseal = load_tenseal()
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            poly_modulus_degree=DEGREE,
            coeff_mod_bit_sizes=list(MODULUS_BITS),
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        )
        context.global_scale = 2.0**SCALE_BITS
        context.auto_relin = context.auto_rescale = context.auto_mod_switch = False
        return cls(dim, secrets.token_bytes(KEY_ID_BYTES), context)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a key from its file.

        Raises:
            CorruptTemplateError: not a key, or a damaged one.
            OutdatedTemplateError: a version that this release does not read.
            InvalidInputError: the file cannot be read.
            StorageError: other users than its owner can access the file.
            MissingExtraError: `tenseal` is not installed.
        """
        path = Path(path)
        if path.is_file():
            check_private(path, "CKKS key")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"Cannot read the CKKS key {path}: {error.strerror or error}.") from error
        message = Message.from_bytes(data, kind="key")
        context = context_of(message)
        if not context.has_secret_key():
            raise CorruptTemplateError(f"{path} does not contain a secret key. Restore the file.")
        return cls(message.dim, message.key_id, context)

    def save(self, path: Path) -> None:
        """Write the key to a file that only its owner may read. Never copy it to the server.

        Raises:
            InvalidInputError: the file exists.
            StorageError: the file cannot be written.
        """
        create_private(Path(path), self._message("key", 0, [self._serialised(has_secret=True)]).to_bytes())

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    def context(self) -> bytes:
        """Parameters that the server needs to compute, without the key."""
        return self._message("context", 0, [self._serialised(has_secret=False)]).to_bytes()

    def encrypt_references(self, references_MD: ArrayLike) -> Iterator[bytes]:
        """Encrypt a gallery in blocks of up to 2,048 references; each block has D ciphertexts of 66 KB.

        Args:
            references_MD: (M, D) of L2 norm 1.

        Raises:
            ShapeError: not (M, D) with M >= 1.
            RangeError: not finite, or not of norm 1.
        """
        unit_MD = unit_rows(references_MD, self._dim, "references")
        return (self._encrypted_block(unit_MD[at : at + SLOTS]) for at in range(0, len(unit_MD), SLOTS))

    def encrypt_probe(self, probe_D: ArrayLike) -> bytes:
        """Encrypt a probe as D ciphertexts, each with one coordinate in all slots: 66 KB times D.

        Raises:
            ShapeError: not (D,).
            RangeError: not finite, or not of norm 1.
        """
        row_D = np.asarray(probe_D)
        if row_D.ndim != 1:
            raise ShapeError(f"Expected a probe of shape ({self._dim},), got {row_D.shape}.")
        unit_D = unit_rows(row_D[None], self._dim, "probes")[0]
        return self._message("probe", 0, [self._encrypted([value] * SLOTS) for value in unit_D.tolist()]).to_bytes()

    def decrypt_scores(self, answer: bytes, sizes: Iterable[int]) -> NDArray[np.float64]:
        """Decrypt the (M,) cosines of the requested blocks, in order; see `largest_error` and the warning of the class.

        Args:
            answer: from the server.
            sizes: number of references in each requested block.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not an answer under this key.
            InvalidInputError: the answer has another number of blocks.
        """
        message = Message.from_bytes(answer, kind="scores", key_id=self._key_id)
        sizes = list(sizes)
        if len(message.parts) != len(sizes):
            raise InvalidInputError(f"Expected scores of {len(sizes)} blocks, got {len(message.parts)}.")
        scores = [
            np.array(ciphertext(self._context, part).decrypt(), dtype=np.float64)[:size]
            for part, size in zip(message.parts, sizes, strict=True)
        ]
        return np.concatenate(scores) if scores else np.empty(0)

    def _encrypted_block(self, unit_MD: NDArray[np.float64]) -> bytes:
        padded_DS = np.zeros((self._dim, SLOTS))
        padded_DS[:, : len(unit_MD)] = unit_MD.T
        parts = [self._encrypted(row_S) for row_S in padded_DS.tolist()]
        return self._message("references", len(unit_MD), parts).to_bytes()

    def _encrypted(self, values_S: list[float]) -> bytes:
        return bytes(load_tenseal().ckks_vector(self._context, values_S).serialize())

    def _serialised(self, *, has_secret: bool) -> bytes:
        return bytes(
            self._context.serialize(
                save_public_key=False, save_secret_key=has_secret, save_galois_keys=False, save_relin_keys=False
            )
        )

    def _message(self, kind: Any, num: int, parts: list[bytes]) -> Message:
        return Message(kind=kind, dim=self._dim, num=num, key_id=self._key_id, parts=parts)

    def __repr__(self) -> str:
        return f"CkksKey(dim={self._dim}, key=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("A CKKS key cannot be pickled. Use save() and load().")


def context_of(message: Message) -> Any:
    """Read TenSEAL's context from a message of kind "context" or "key".

    Raises:
        CorruptTemplateError: it is unreadable, or its parameters are not those of this release.
    """
    try:
        (part,) = message.parts
        context = load_tenseal().context_from(part)
        is_ours = context.global_scale == 2.0**SCALE_BITS and not context.auto_rescale
    except (ValueError, RuntimeError) as error:
        raise CorruptTemplateError("Cannot read the CKKS context. Create it again with CkksKey.context().") from error
    if not is_ours or not 1 <= message.dim <= _MAX_DIM:
        raise CorruptTemplateError("The CKKS context has other parameters than this release. Create it again.")
    return context


def ciphertext(context: Any, part: bytes) -> Any:
    """Read one of TenSEAL's vectors.

    Raises:
        CorruptTemplateError: it is unreadable or has other parameters than the context.
    """
    try:
        vector = load_tenseal().ckks_vector_from(context, part)
        is_whole = vector.size() == SLOTS and len(vector.ciphertext()) == 1
    except (ValueError, RuntimeError) as error:
        raise CorruptTemplateError("Cannot read a ciphertext. Encrypt the data again.") from error
    if not is_whole:
        raise CorruptTemplateError("A ciphertext has other parameters than this release. Encrypt the data again.")
    return vector
