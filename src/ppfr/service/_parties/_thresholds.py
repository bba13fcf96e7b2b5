"""Hidden thresholds: shared once by a person whom all operators trust, and named by queries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic
from pydantic import Field

from ppfr.assets import check_private, create_private
from ppfr.core import ID_BYTES, InvalidInputError, ProblemsError, StorageError
from ppfr.secure import NUM_PARTIES, FixedPoint, SharedThreshold, share_threshold
from ppfr.service._parties._credentials import party_name
from ppfr.service._parties._settings import PartySettings

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_Word = Annotated[int, Field(ge=0, lt=1 << 32)]
_NUMBERS = ("nan", "inf", "infinity")  # `--threshold` takes a number or a name


class _ThresholdFile(pydantic.BaseModel):
    """One party's share of a hidden threshold, as JSON."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    format: Literal["ppfr hidden threshold"] = "ppfr hidden threshold"
    version: Literal[1] = 1
    name: str
    party: Annotated[int, Field(ge=0, lt=NUM_PARTIES)]
    dim: Annotated[int, Field(ge=1, le=4096)]
    values: Literal["int8", "int16"]
    sharing: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * ID_BYTES}}}$")]
    words: tuple[_Word, _Word]
    checksum: str = ""

    def digest(self) -> str:
        """SHA-256 of all other fields."""
        return hashlib.sha256(self.model_dump_json(exclude={"checksum"}).encode()).hexdigest()


def write_threshold_files(directory: Path, *, name: str, threshold: float, fixed_point: FixedPoint) -> list[Path]:
    """Share a threshold among the parties, in one file for each: party-0.NAME.threshold and so on.

    Args:
        directory: where the files are written.
        name: by which configurations and queries refer to the threshold.
        threshold: in [-1, 1].
        fixed_point: parameters of the gallery.

    Returns:
        The three files, of parties 0, 1 and 2; only their owner may read them.

    Raises:
        InvalidInputError: a name that is not allowed, or a file exists; nothing is written.
        RangeError: a threshold outside [-1, 1].
        StorageError: a file cannot be written.

    Privacy:
        One file reveals nothing about the threshold; two files together reveal it. The caller knows it.
    """
    if _NAME.fullmatch(name) is None or name in _NUMBERS:
        raise InvalidInputError(
            f"{name!r} is not allowed as the name of a threshold. Use 1 to 63 lower-case letters, digits and hyphens, "
            f"a letter first, and not {', '.join(_NUMBERS)}."
        )
    parts = share_threshold(threshold, fixed_point)
    paths = [directory / f"{party_name(party)}.{name}.threshold" for party in range(NUM_PARTIES)]
    written: list[Path] = []
    try:
        for path, part in zip(paths, parts, strict=True):
            create_private(path, _content(part, name))
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return paths


def read_thresholds(settings: PartySettings) -> dict[str, SharedThreshold]:
    """Read the party's shares of the hidden thresholds that its configuration lists, by name.

    Raises:
        ProblemsError: a file is missing or damaged, is of another party or of other parameters, or two files have one
            name; all are listed.
        StorageError: other users can access a file, or it cannot be read.
    """
    found: dict[str, SharedThreshold] = {}
    problems = []
    for path in settings.thresholds:
        try:
            name, threshold = _read(path, settings)
        except InvalidInputError as error:
            problems.append(str(error))
            continue
        if name in found:
            problems.append(f"{path}: another file has the same name, {name!r}. List one of them.")
        found[name] = threshold
    if problems:
        raise ProblemsError("hidden thresholds cannot be used", problems)
    return found


def named_threshold(thresholds: Mapping[str, SharedThreshold], name: str) -> SharedThreshold:
    """The party's share of the threshold with this name.

    Raises:
        InvalidInputError: there is none; the message lists the known names.
    """
    if name not in thresholds:
        known = ", ".join(sorted(thresholds)) or "none"
        raise InvalidInputError(
            f"The party has no hidden threshold {name[:63]!r}. Known names: {known}. The operators create one with "
            "`ppfr party thresholds` and list it under `thresholds` in their configurations."
        )
    return thresholds[name]


def _content(part: SharedThreshold, name: str) -> bytes:
    first, second = part.words_2.tolist()
    point = part.fixed_point
    file = _ThresholdFile(
        name=name,
        party=part.party,
        dim=point.dim,
        values=point.values,
        sharing=part.sharing.hex(),
        words=(first, second),
    )
    return (file.model_copy(update={"checksum": file.digest()}).model_dump_json(indent=1) + "\n").encode()


def _read(path: Path, settings: PartySettings) -> tuple[str, SharedThreshold]:
    if not path.is_file():
        raise InvalidInputError(f"{path} does not exist. `ppfr party thresholds` creates it.")
    check_private(path, "file of a hidden threshold")
    point = settings.parameters.fixed_point
    file = _parsed(path)
    if file is None or file.checksum != file.digest():
        raise InvalidInputError(
            f"{path} is damaged, or was not written by `ppfr party thresholds` of this release. Copy it again, or have "
            "the threshold created again."
        )
    if file.party != settings.party:
        raise InvalidInputError(f"{path} is the file of party {file.party}, but this is party {settings.party}.")
    if (file.dim, file.values) != (point.dim, point.values):
        raise InvalidInputError(
            f"{path} has dim = {file.dim} and values = {file.values!r}, but the configuration has "
            f"dim = {point.dim} and values = {point.values!r}. Create the threshold again for these."
        )
    shared = SharedThreshold(
        party=file.party,
        fixed_point=point,
        sharing=bytes.fromhex(file.sharing),
        words_2=np.array(file.words, dtype=point.dtype),
    )
    return file.name, shared


def _parsed(path: Path) -> _ThresholdFile | None:
    try:
        return _ThresholdFile.model_validate_json(path.read_bytes())
    except pydantic.ValidationError:  # its text contains the values, so it must not be a cause that a log shows
        return None
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
