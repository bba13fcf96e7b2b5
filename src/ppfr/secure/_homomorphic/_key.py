"""The key holder's side of CKKS matching: it encrypts references and probes, and decrypts scores.

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

from ppfr.assets import write_atomically
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

# 109 bits of modulus at degree 4096 is what the Homomorphic Encryption Standard (2018) allows for 128 bits of security
# with a ternary secret; SEAL refuses more. Scores need one prime, of 60 bits: nothing is rescaled, relinearised or
# rotated. The second is for key switching, which is not used; TenSEAL makes no context without it.
DEGREE = 4096
MODULUS_BITS = (60, 49)
SCALE_BITS = 28
SLOTS = DEGREE // 2
_NOISE_VARIANCE = 21 / 2 + 1 / 12  # of a coefficient: SEAL's centred binomial error; rounding of an encoded plaintext
_DEVIATIONS = 8
_MAX_DIM = 4096


def load_tenseal() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import tenseal
    except ImportError as error:
        raise MissingExtraError("he", "homomorphic matching") from error
    return tenseal


def largest_error() -> float:
    """6.3e-6: how far a decrypted score may lie from the exact one, but for one score in 10^15.

    A slot of a fresh ciphertext has the real part of a sum of DEGREE independent coefficient errors times roots of
    unity: variance DEGREE / 2 times theirs, over the scale. A score sums D such errors times the other side's
    coordinates, which have norm 1, for references and for probes: standard deviation sqrt(2) times that, 7.8e-7. The
    bound is eight of them, and the rounding of a plain probe to the scale's grid.
    """
    slot = math.sqrt(DEGREE / 2 * _NOISE_VARIANCE) / 2**SCALE_BITS
    return float(_DEVIATIONS * math.sqrt(2) * slot + math.sqrt(_MAX_DIM) / 2 ** (SCALE_BITS + 1))


@final
class CkksKey:
    """A secret key of CKKS, and what its holder does with it; make one with `create` or `load`.

    Symmetric encryption: whoever enrols and whoever asks holds the key. The server gets `context()` and ciphertexts.
    Ciphertext d of a block holds coordinate d of up to 2,048 references, one a slot, so that a score is a sum of D
    products slot by slot, without a rotation.

    Privacy:
        Whoever has the key reads references, probes and scores. Decrypted scores must not go to the server or to
        anybody who sees ciphertexts, decisions excepted: CKKS noise is in them, and from it the key can be computed (Li
        and Micciancio, Eurocrypt 2021). `CkksMatcher` gives decisions.
    """

    def __init__(self, dim: int, key_id: bytes, context: Any) -> None:
        self._dim, self._key_id, self._context = dim, key_id, context

    @classmethod
    def create(cls, dim: int) -> Self:
        """A new key, from the operating system's randomness.

        Args:
            dim: D of the embeddings, 1..4096.

        Raises:
            RangeError: another dim.
            MissingExtraError: `tenseal` is not installed.
        """
        if not 1 <= dim <= _MAX_DIM:
            raise RangeError(f"dim={dim} is outside 1..{_MAX_DIM}")
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
        """A key from its file.

        Raises:
            CorruptTemplateError: no key, or a damaged one.
            OutdatedTemplateError: a version that this release does not read.
            InvalidInputError: the file cannot be read.
            MissingExtraError: `tenseal` is not installed.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{path}, a CKKS key, cannot be read: {error.strerror or error}") from error
        message = Message.from_bytes(data, kind="key")
        context = context_of(message)
        if not context.has_secret_key():
            raise CorruptTemplateError(f"{path} holds no secret key; restore it")
        return cls(message.dim, message.key_id, context)

    def save(self, path: Path) -> None:
        """Write the key to a file that only its owner may read; keep it away from the server.

        Raises:
            InvalidInputError: the file exists.
            StorageError: it cannot be written.
        """
        path = Path(path)
        if path.exists():
            raise InvalidInputError(f"{path} exists; a key is not written over: choose another name")
        with write_atomically(path) as temporary:
            temporary.write_bytes(self._message("key", 0, [self._serialised(has_secret=True)]).to_bytes())

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    def context(self) -> bytes:
        """What the server needs to compute: parameters, no key."""
        return self._message("context", 0, [self._serialised(has_secret=False)]).to_bytes()

    def encrypt_references(self, references_MD: ArrayLike) -> Iterator[bytes]:
        """Blocks of the encrypted gallery, each of up to 2,048 references; D ciphertexts of 66 KB whatever it holds.

        Args:
            references_MD: (M, D) of L2 norm 1.

        Raises:
            ShapeError: not (M, D) with M >= 1.
            RangeError: not finite, or not of norm 1.
        """
        unit_MD = unit_rows(references_MD, self._dim, "references")
        return (self._encrypted_block(unit_MD[at : at + SLOTS]) for at in range(0, len(unit_MD), SLOTS))

    def encrypt_probe(self, probe_D: ArrayLike) -> bytes:
        """A probe as D ciphertexts, each with one coordinate in all slots: 66 KB times D.

        Raises:
            ShapeError: not (D,).
            RangeError: not finite, or not of norm 1.
        """
        row_D = np.asarray(probe_D)
        if row_D.ndim != 1:
            raise ShapeError(f"a probe has shape {row_D.shape}; give ({self._dim},)")
        unit_D = unit_rows(row_D[None], self._dim, "probes")[0]
        return self._message("probe", 0, [self._encrypted([value] * SLOTS) for value in unit_D.tolist()]).to_bytes()

    def decrypt_scores(self, answer: bytes, sizes: Iterable[int]) -> NDArray[np.float64]:
        """(M,) cosines of the blocks that were asked for, in order; see `largest_error` and the class's warning.

        Args:
            answer: the server's.
            sizes: how many references each of these blocks holds.

        Raises:
            CorruptTemplateError, OutdatedTemplateError, WrongKeyError: not an answer to this key.
            InvalidInputError: it is of another number of blocks.
        """
        message = Message.from_bytes(answer, kind="scores", key_id=self._key_id)
        sizes = list(sizes)
        if len(message.parts) != len(sizes):
            raise InvalidInputError(f"the answer is of {len(message.parts)} blocks, {len(sizes)} were asked for")
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
        raise UnsupportableError("a CKKS key cannot be pickled; keep it in its file")


def context_of(message: Message) -> Any:
    """TenSEAL's context from a message of kind "context" or "key".

    Raises:
        CorruptTemplateError: it has none of this release's parameters.
    """
    try:
        (part,) = message.parts
        context = load_tenseal().context_from(part)
        is_ours = context.global_scale == 2.0**SCALE_BITS and not context.auto_rescale
    except (ValueError, RuntimeError) as error:
        raise CorruptTemplateError("the context of homomorphic matching cannot be read; have it made again") from error
    if not is_ours or not 1 <= message.dim <= _MAX_DIM:
        raise CorruptTemplateError("the context has other parameters than this release; have it made again")
    return context


def ciphertext(context: Any, part: bytes) -> Any:
    """One of TenSEAL's vectors.

    Raises:
        CorruptTemplateError: it is none under these parameters.
    """
    try:
        vector = load_tenseal().ckks_vector_from(context, part)
        is_whole = vector.size() == SLOTS and len(vector.ciphertext()) == 1
    except (ValueError, RuntimeError) as error:
        raise CorruptTemplateError("a ciphertext cannot be read; have it made again") from error
    if not is_whole:
        raise CorruptTemplateError("a ciphertext has other slots than this release; have it made again")
    return vector
