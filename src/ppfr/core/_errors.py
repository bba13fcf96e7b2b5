"""The error tree. Every message says what was given, what is allowed and what to do next.

Messages and logs never carry an image, an embedding, a key, a subject id or a score.
"""

from __future__ import annotations

from collections.abc import Sequence


class PpfrError(Exception):
    """Base of every error the package raises on purpose; the command line prints it and exits non-zero."""


class InvalidInputError(PpfrError, ValueError):
    """What was given cannot be used as it is; the message names the remedy."""


class ShapeError(InvalidInputError):
    """An array or tensor has another shape than the function states."""


class RangeError(InvalidInputError):
    """A value lies outside the stated range, or is not finite."""


class AlignmentError(InvalidInputError):
    """No face, or more than one face, where exactly one was asked for."""


class ImageReadError(InvalidInputError):
    """A file is not an image that can be used: corrupt, truncated, too large, of an unknown kind."""


class DatasetError(InvalidInputError):
    """A data set on disk is absent, incomplete or not in the stated layout."""


class OverlapError(DatasetError):
    """Two sets that must share no subject share some."""


class ThreatModelError(PpfrError):
    """An attack was asked to see more than its threat model grants."""


class CheckpointError(PpfrError):
    """A checkpoint belongs to another model, run or configuration, or is damaged."""


class TemplateError(PpfrError):
    """A protected template or a subject's key cannot be used. No message tells a score, a key or a subject."""


class UnknownSchemeError(TemplateError):
    """A record belongs to another scheme, or to this one under other parameters, than the one that was to read it."""


class OutdatedTemplateError(TemplateError):
    """A record's version is one that this release does not read: enrol anew, or read it with the release it names."""


class CorruptTemplateError(TemplateError):
    """A record is damaged, truncated, foreign, or was altered after it was made."""


class WrongKeyError(TemplateError):
    """The key is not the one that the template was made under; nothing was compared."""


class UnsupportableError(PpfrError):
    """Can never work; the message says why."""


class NotYetSupportedError(PpfrError):
    """Could work, is not built; the message says what works instead."""


class DeviceError(PpfrError):
    """The device that was asked for is not there. Nothing falls back to another one silently."""


class StorageError(PpfrError):
    """Writing failed (disk full, no permission); nothing half-written was left behind."""


class PartyError(PpfrError):
    """A party of a secure protocol is gone, late, or not on the same query; names the party, never what it shares.

    Attributes:
        party: its index, where it is known: a party that was waited for may itself have waited for another.
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
    """A library that needs an environment of its own is not there; the message says how to make it."""

    def __init__(self, library: str, why: str) -> None:
        super().__init__(f"{library} cannot be run: {why}")


class MissingAssetError(PpfrError, FileNotFoundError):
    """Data or weights are not where they were looked for.

    Attributes:
        name: the asset's file or folder name.
        looked_in: the places that were searched, in order.
        remedy: the command or option that gets it.
    """

    def __init__(self, name: str, *, looked_in: Sequence[str], remedy: str, sha256: str = "") -> None:
        self.name, self.looked_in, self.remedy, self.sha256 = name, tuple(looked_in), remedy, sha256
        places = ", ".join(self.looked_in) or "nowhere (no directory was given)"
        checksum = f" (sha256 {sha256})" if sha256 else ""
        super().__init__(f"{name}{checksum} was not found; looked in {places}. {remedy}")


class MissingWeightsError(MissingAssetError):
    """A network's weights are absent."""


class ChecksumError(PpfrError):
    """A file's bytes are not the ones its checksum names."""


class ProblemsError(InvalidInputError):
    """Several inputs are bad; all of them are listed at once.

    Attributes:
        problems: one line for each bad input.
    """

    def __init__(self, what: str, problems: Sequence[str], *, shown: int = 20) -> None:
        self.problems = tuple(problems)
        lines = [f"  - {problem}" for problem in self.problems[:shown]]
        if len(self.problems) > shown:
            lines.append(f"  ... and {len(self.problems) - shown} more")
        super().__init__("\n".join([f"{what}: {len(self.problems)} problem(s)", *lines]))
