"""InsightFace `.bin` pair sets, read without executing pickle.

The format is a pickle of `(list of encoded images, list of bool)`, images 2i and 2i+1 being pair i. A pickle is a
program, and unpickling a file from the internet runs it. This reader interprets the opcodes itself. It supports only
those that build bytes, numbers, lists and tuples, and the few calls that writers of this format use, which it
recognises by name and computes itself. It imports and calls nothing by name, so a malicious file is rejected without
being run.
"""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppfr.assets import write_atomically
from ppfr.core import DatasetError, MissingAssetError
from ppfr.data._image_sets import CROP_SIZE, EncodedImageSet
from ppfr.data._pairs import PairProtocol

NUM_FOLDS = 10
_MAX_FILE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that the pickle refers to; it is never resolved."""

    path: str


@dataclass(slots=True, eq=False)
class _Built:
    """The result of a recognised call; `state` is set by BUILD."""

    kind: str
    state: Any = None


_ARRAY_MAKERS = frozenset({"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"})
_BUFFER_MAKERS = frozenset({"numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"})
_SCALAR_MAKERS = frozenset({"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"})
_DTYPES = frozenset({"b1", "?", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8))})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPCODE_OF = {opcode.code: opcode for opcode in pickletools.opcodes}
_MARK = object()


class _Walker:
    """A stack machine for the safe subset of pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Interpret one opcode."""
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLE_SIZES:
            size = _TUPLE_SIZES[opcode]
            items = self._take(size)
            self.stack.append(tuple(items))
        elif opcode in ("PROTO", "FRAME"):
            pass
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in ("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"):
            self._symbolic(opcode, argument)
        else:
            self._container(opcode)

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise IndexError("mark")
        items = self.stack[position + 1 :]
        del self.stack[position:]
        return items

    def _container(self, opcode: str) -> None:
        if opcode == "MARK":
            self.stack.append(_MARK)
        elif opcode == "EMPTY_LIST":
            self.stack.append([])
        elif opcode in ("LIST", "TUPLE"):
            items = self._to_mark()
            self.stack.append(items if opcode == "LIST" else tuple(items))
        elif opcode in ("APPEND", "APPENDS"):
            items = self._to_mark() if opcode == "APPENDS" else self._take(1)
            if not isinstance(self.stack[-1], list):
                raise TypeError("append")
            self.stack[-1].extend(items)
        elif opcode in ("POP", "POP_MARK"):
            self._to_mark() if opcode == "POP_MARK" else self._take(1)
        else:
            raise DatasetError(f"the pickle uses the operation {opcode}, which is not allowed in a pair set")

    def _symbolic(self, opcode: str, argument: Any) -> None:
        if opcode == "GLOBAL":
            self.stack.append(_Name(str(argument)))
        elif opcode == "STACK_GLOBAL":
            module, name = self._take(2)
            self.stack.append(_Name(f"{module} {name}"))
        elif opcode == "REDUCE":
            callee, arguments = self._take(2)
            self.stack.append(_recognised_call(callee, arguments))
        else:
            (state,) = self._take(1)
            if not isinstance(self.stack[-1], _Built):
                raise DatasetError("the pickle sets the state of something that is not an array")
            self.stack[-1].state = state


def _recognised_call(callee: Any, arguments: Any) -> Any:
    """The result of a known call; other calls are rejected by name."""
    path = callee.path if isinstance(callee, _Name) else "something that is not a name"
    if path == "_codecs encode" and len(arguments) == 2 and arguments[1] == "latin1":
        return arguments[0].encode("latin1")  # how protocols 0-2 write bytes
    if path in ("__builtin__ bytes", "builtins bytes") and arguments == ():
        return b""
    if path == "numpy dtype" and arguments and arguments[0] in _DTYPES:
        return _Built(f"dtype {arguments[0]}")
    if path in _ARRAY_MAKERS:
        return _Built("array")
    if path in _BUFFER_MAKERS and len(arguments) == 4:  # protocol 5
        return _Built("array", arguments)
    if path in _SCALAR_MAKERS and len(arguments) == 2 and isinstance(arguments[0], _Built):
        return _numbers(arguments[0], _as_bytes(arguments[1]))[0].item()
    raise DatasetError(f"the pickle calls {path!r}, which is not allowed in a pair set")


def _walk(data: bytes) -> Any:
    walker = _Walker()
    for name, argument in _operations(data):
        if name == "STOP":
            return walker.stack.pop()
        walker.step(name, argument)
    raise DatasetError("the pickle has no STOP operation")


def _operations(data: bytes) -> Iterator[tuple[str, Any]]:
    """Operations and arguments of a pickle, also with byte strings as text, which `pickletools.genops` cannot read."""
    file = io.BytesIO(data)
    while code := file.read(1):
        opcode = _OPCODE_OF[code.decode("latin-1")]
        if opcode.name == "STRING":  # a quoted line with escapes
            line = file.readline().strip()
            if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
                raise ValueError("a string without quotes")
            yield opcode.name, codecs.escape_decode(line[1:-1])[0].decode("latin-1")
        else:
            yield opcode.name, opcode.arg.reader(file) if opcode.arg is not None else None


def _array_content(array: _Built) -> Any:
    """The bytes in an array's state (version, shape, type, order, bytes), or in (bytes, type, shape, order)."""
    return array.state[0] if isinstance(array.state[0], bytes | bytearray) else array.state[-1]


def _array_numbers(array: _Built) -> np.ndarray:
    """The numbers of a flat or shaped array, from its state."""
    position = 1 if isinstance(array.state[0], bytes | bytearray) else 2
    return _numbers(array.state[position], _as_bytes(_array_content(array)))


def _numbers(dtype: Any, content: bytes) -> np.ndarray:
    """Numbers of a recognised type, whose byte order is in the state that was set on it."""
    if not isinstance(dtype, _Built) or not dtype.kind.startswith("dtype "):
        raise DatasetError("numbers are stored without a type")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    kind = dtype.kind.removeprefix("dtype ")
    return np.frombuffer(content, np.dtype(kind).newbyteorder(">" if order == ">" else "<"))


def _as_bytes(value: Any) -> bytes:
    """One encoded image: bytes, a Python 2 string, or an array of bytes."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, _Built) and value.kind == "array" and isinstance(value.state, tuple):
        return _as_bytes(_array_content(value))
    raise DatasetError(f"an image is stored as {type(value).__name__}, not as bytes")


def _as_flags(value: Any) -> Iterator[bool]:
    if isinstance(value, _Built) and value.kind == "array" and isinstance(value.state, tuple):
        value = _array_numbers(value).tolist()
    if not isinstance(value, list | tuple):
        raise DatasetError(f"the genuine flags are stored as {type(value).__name__}, not as a list")
    for flag in value:
        if not isinstance(flag, bool | int) or flag not in (0, 1):
            raise DatasetError("a genuine flag is neither true nor false")
        yield bool(flag)


class _BytesImageSet(EncodedImageSet):
    """Encoded images in memory."""

    def __init__(self, encoded: list[bytes], subject_ids: list[str], *, name: str, crop_size: tuple[int, int]) -> None:
        super().__init__(name=name, subject_ids=subject_ids, crop_size=crop_size)
        self._encoded = encoded

    def _source(self, index: int) -> bytes:
        return self._encoded[index]

    def signature(self, index: int) -> str:
        return f"{index}\0{len(self._encoded[index])}"


def read_insightface_bin(
    path: Path, *, name: str | None = None, crop_size: tuple[int, int] = CROP_SIZE
) -> PairProtocol:
    """A pair set such as `lfw.bin`, `cfp_fp.bin` or `agedb_30.bin`.

    The ten folds are consecutive blocks of pairs, as in the format's own evaluation. The format contains no names.
    Subject ids join images that provably show one person (genuine pairs, and identical bytes), so one person may have
    several ids. They can be used for confidence intervals, but not to exclude an overlap with a training set.

    Args:
        path: the file.
        name: short name for records; default: the file's name without `.bin`.
        crop_size: (H, W) of its images.

    Raises:
        MissingAssetError: the file does not exist.
        DatasetError: the file is not a pair set, is damaged, or is a pickle with other operations (it is not run).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAssetError(
            path.name,
            looked_in=[str(path.parent)],
            remedy="It is part of the training sets in the InsightFace data zoo; pass the path of the .bin file.",
        )
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise DatasetError(f"{path} has more than {_MAX_FILE_BYTES} bytes, the maximum for a pair set; check the file")
    try:
        content = _walk(path.read_bytes())
        if not isinstance(content, tuple | list) or len(content) != 2 or not isinstance(content[0], list | tuple):
            raise DatasetError("it does not contain (images, genuine flags)")
        encoded = [_as_bytes(image) for image in content[0]]
        is_genuine = np.fromiter(_as_flags(content[1]), np.bool_)
    except DatasetError as error:
        raise DatasetError(
            f"{path} is rejected: {error}. Nothing in it was run; download it from its original source"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{path} is damaged or not a pair set ({error}); download it again from its source"
        ) from error
    if len(is_genuine) < NUM_FOLDS or len(encoded) != 2 * len(is_genuine):
        raise DatasetError(
            f"{path} contains {len(encoded)} images for {len(is_genuine)} pairs; it must have two per pair and at least"
            f" {NUM_FOLDS} pairs. Download it again from its source"
        )
    name = name or path.stem
    images = _BytesImageSet(encoded, _joined_subjects(encoded, is_genuine, name), name=name, crop_size=crop_size)
    folds = np.array_split(np.arange(len(is_genuine)), NUM_FOLDS)
    return PairProtocol(
        name=name,
        images=images,
        first=np.arange(0, len(encoded), 2, dtype=np.int64),
        second=np.arange(1, len(encoded), 2, dtype=np.int64),
        is_genuine=is_genuine,
        fold=np.repeat(np.arange(NUM_FOLDS, dtype=np.int64), [len(fold) for fold in folds]),
    )


def write_insightface_bin(protocol: PairProtocol, path: Path) -> None:
    """Write the pairs of a protocol as an InsightFace pair set, which other programs read.

    Images are written without loss, as PNG. The format has neither names nor folds: its readers take ten consecutive
    blocks of pairs as folds. Pairs are therefore written in the order of their folds.

    Args:
        protocol: the pairs.
        path: the file, `.bin`; it is written atomically.

    Raises:
        ImageReadError: an image cannot be read.
        StorageError: the file cannot be written.
    """
    order = np.argsort(protocol.fold, kind="stable")
    indices = np.stack([protocol.first[order], protocol.second[order]], axis=1).ravel().tolist()
    encoded = []
    for index in indices:
        buffer = io.BytesIO()
        Image.fromarray(protocol.images.read([index])[0]).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    content = pickle.dumps((encoded, protocol.is_genuine[order].tolist()), protocol=4)
    with write_atomically(Path(path)) as temporary:
        temporary.write_bytes(content)


def _joined_subjects(encoded: list[bytes], is_genuine: np.ndarray, name: str) -> list[str]:
    """Subject ids from genuine pairs and equal bytes (union-find); from the pairs alone if these disagree."""
    parent = list(range(len(encoded)))

    def root_of(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[bytes, int] = {}
    for index, image in enumerate(encoded):
        parent[root_of(index)] = root_of(first_with.setdefault(image, index))
    for pair in np.flatnonzero(is_genuine).tolist():
        parent[root_of(2 * pair)] = root_of(2 * pair + 1)
    if any(root_of(2 * pair) == root_of(2 * pair + 1) for pair in np.flatnonzero(~is_genuine).tolist()):
        # Label noise: a chain of genuine pairs joins the two sides of an impostor pair. The flags take precedence.
        alone = [2 * pair + side * (not flag) for pair, flag in enumerate(is_genuine.tolist()) for side in (0, 1)]
        return [f"{name}/{number}" for number in alone]
    return [f"{name}/{root_of(index)}" for index in range(len(encoded))]
