"""The error classes. Every message says what was given, what is allowed, and what to do.

Messages and logs never contain an image, an embedding, a key, a subject id or a score.
"""

from __future__ import annotations

from collections.abc import Sequence


class PpfrError(Exception):
    """Base of all errors that the package raises on purpose. The command line prints them and exits non-zero."""


class InvalidInputError(PpfrError, ValueError):
    """An invalid argument or input; the message names the remedy."""


class ShapeError(InvalidInputError):
    """An array or tensor does not have the documented shape."""


class RangeError(InvalidInputError):
    """A value is outside the documented range, or not finite."""


class InputCheckError(InvalidInputError):
    """Shares that a client sent are not those of a valid input, as the parties found without reconstructing it."""


class AlignmentError(InvalidInputError):
    """No face, or more than one face, where exactly one is required."""


class ImageReadError(InvalidInputError):
    """A file is not a usable image: corrupt, truncated, too large, or of an unknown format."""


class DatasetError(InvalidInputError):
    """A data set on disk is missing, incomplete or not in the documented layout."""


class OverlapError(DatasetError):
    """Two sets share subjects, but must not."""


class ThreatModelError(PpfrError):
    """An attack was given something else than its threat model grants."""


class CheckpointError(PpfrError):
    """A checkpoint is damaged, or belongs to another model, run or configuration."""


class TemplateError(PpfrError):
    """A protected template or a subject's key cannot be used. No message contains a score, a key or a subject."""


class UnknownSchemeError(TemplateError):
    """A record belongs to another scheme, or to the same scheme with other parameters."""


class OutdatedTemplateError(TemplateError):
    """This release does not read the record's version. Enrol again, or use the release that the message names."""


class CorruptTemplateError(TemplateError):
    """A record is damaged, truncated, altered after it was created, or of another format."""


class WrongKeyError(TemplateError):
    """The key is not the key of the template; nothing was compared."""


class UnsupportableError(PpfrError):
    """The operation can never work; the message says why."""


class NotYetSupportedError(PpfrError):
    """The operation is not implemented; the message says what works instead."""


class DeviceError(PpfrError):
    """The requested device is not available. There is no silent fallback."""


class StorageError(PpfrError):
    """Writing failed (disk full, no permission); no incomplete file remains."""


class PartyError(PpfrError):
    """A party of a secure protocol is unreachable, late, or at another query.

    The message names the party, and never contains its data.

    Attributes:
        party: its index, or None if it is not known: a late party may itself be waiting for another one.
    """

    def __init__(self, message: str, *, party: int | None = None) -> None:
        super().__init__(message)
        self.party = party


class MissingExtraError(PpfrError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(f"{needed_for} needs the extra '{extra}': pip install 'ppfr[{extra}]'")


class MissingEnvironmentError(PpfrError, ImportError):
    """A library that needs its own environment is missing; the message says how to create it."""

    def __init__(self, library: str, why: str) -> None:
        super().__init__(f"{library} cannot be run: {why}")


class MissingAssetError(PpfrError, FileNotFoundError):
    """Data or weights were not found.

    Attributes:
        name: file or folder name of the asset.
        looked_in: the locations that were searched, in order.
        remedy: the command or option that provides it.
    """

    def __init__(self, name: str, *, looked_in: Sequence[str], remedy: str, sha256: str = "") -> None:
        self.name, self.looked_in, self.remedy, self.sha256 = name, tuple(looked_in), remedy, sha256
        places = ", ".join(self.looked_in) or "nowhere (no directory was given)"
        checksum = f" (sha256 {sha256})" if sha256 else ""
        super().__init__(f"{name}{checksum} was not found; looked in {places}. {remedy}")


class MissingWeightsError(MissingAssetError):
    """The weights of a network are missing."""


class ChecksumError(PpfrError):
    """A file does not match its checksum."""


class ProblemsError(InvalidInputError):
    """Several inputs are invalid; the message lists all of them.

    Attributes:
        problems: one line per invalid input.
    """

    def __init__(self, what: str, problems: Sequence[str], *, shown: int = 20) -> None:
        self.problems = tuple(problems)
        lines = [f"  - {problem}" for problem in self.problems[:shown]]
        if len(self.problems) > shown:
            lines.append(f"  ... and {len(self.problems) - shown} more")
        super().__init__("\n".join([f"{what}: {len(self.problems)} problem(s)", *lines]))
