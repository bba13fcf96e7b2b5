"""A read-only view of a record for sections: rows by kind, and look-ups across kinds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ppfr.core import Record
from ppfr.report import _charts as charts
from ppfr.report._blocks import Faces
from ppfr.report._pictures import NO_PICTURES
from ppfr.report._wording import KEY_WORDS, ROLE_WORDS, SECRET_WORDS

MAX_SENTENCES = 4
"""With more protected systems than this, a headline summarises instead of listing them."""

_MAX_UNNUMBERED = 6

Entry = Mapping[str, Any]
"""A row of results, or a system, attack, recogniser or comparison of the record."""


IMAGE_ALONE, MIRRORED_TOO = "image alone", "image also mirrored by the recogniser"
TWO_MASKS = "two masked images"
_EMBEDDED: Mapping[str, str] = {
    IMAGE_ALONE: "Test-time protocol: one embedding per image, without its mirror image.",
    MIRRORED_TOO: (
        "Test-time protocol: the recogniser embeds its input and the mirrored input, and the embeddings are added. One "
        "masked image is sent."
    ),
    TWO_MASKS: (
        "Test-time protocol: embeddings of an image and of its mirror image, masked separately, are added: two masked "
        "images for each image. Privacy guarantees, bytes and attacks are those of one masked image, so accuracies are "
        "overstated against them."
    ),
    "": "The record does not state whether mirror images were embedded too.",
}


class RecordView:
    """Look-ups in a record.

    Args:
        record: a checked record.
        pictures: strips of faces of the same run.
    """

    def __init__(self, record: Record, *, pictures: Faces | None = None) -> None:
        self.record = record
        self.pictures = pictures or Faces(rows=(), note=NO_PICTURES)

    def __getitem__(self, name: str) -> Any:
        """A top-level entry of the record, such as "experiment"."""
        return self.record[name]

    def rows(self, kind: str, **where: Any) -> list[Entry]:
        """Result rows of a kind whose fields have the given values, in order."""
        return _where(self.record["results"].get(kind, ()), where)

    def row(self, kind: str, **where: Any) -> Entry | None:
        """The first of `rows`, or None."""
        return next(iter(self.rows(kind, **where)), None)

    # Test-time protocol

    @property
    def embedded(self) -> str:
        """What an embedding was computed from, as in "image alone"; "" if it is not recorded."""
        config = self.record["experiment"]["config"]
        # Earlier records have "adds_mirrored": the mirror image was then masked separately, if the system has a masker.
        if config.get("adds_mirrored") and any(system["masker"] is not None for system in self.systems):
            return TWO_MASKS
        mirrors_input = config.get("mirrors_input", config.get("adds_mirrored"))
        return {True: MIRRORED_TOO, False: IMAGE_ALONE}.get(mirrors_input, "")

    def embedded_in_words(self) -> str:
        """The same as a sentence."""
        return _EMBEDDED[self.embedded]

    # Systems

    @property
    def systems(self) -> Sequence[Entry]:
        """All systems."""
        return list(self.record["systems"])

    def system(self, name: str) -> Entry:
        """The system of that name."""
        return next(system for system in self.systems if system["name"] == name)

    def of_role(self, role: str) -> list[Entry]:
        """Systems of a role: "baseline", "protected" or "control"."""
        return _where(self.systems, {"role": role})

    @property
    def protected(self) -> list[Entry]:
        """Systems under evaluation that are neither baselines nor controls."""
        return self.of_role("protected")

    def label(self, system: str) -> str:
        """Label of a system."""
        return str(self.system(system)["label"])

    def recogniser_label(self, name: str) -> str:
        """Label of an evaluation recogniser."""
        return str(next(each["label"] for each in self.record["recognisers"] if each["name"] == name))

    # Legend keys and numbers of systems

    def series(self, system: str) -> int:
        """Colour and marker of a system, the same in all charts of a record."""
        return [each["name"] for each in self.systems].index(system)

    def key(self, system: str) -> str:
        """Markup of the legend key of the system."""
        return charts.key(self.series(system), is_line=False)

    def number(self, system: str) -> str:
        """Number of the system if there are too many systems for legend keys alone; else ""."""
        return str(self.series(system) + 1) if len(self.systems) > _MAX_UNNUMBERED else ""

    def named(self, system: str) -> str:
        """Label of the system with its number, for example "7. PPFR-FD"; only the label if systems have no numbers."""
        number, label = self.number(system), self.label(system)
        return f"{number}. {label}" if number else label

    # Verification

    def protocols(self) -> list[tuple[str, str]]:
        """(protocol, scenario) of the systems' verification rows, in order."""
        rows = self.rows("verification", source="system")
        return list(dict.fromkeys((row["protocol"], row["scenario"]) for row in rows))

    def verification(self, system: str, protocol: str, scenario: str = "") -> Entry | None:
        """Verification row of a system."""
        return self.row("verification", source="system", name=system, protocol=protocol, scenario=scenario)

    def gap(self, system: str, protocol: str, scenario: str = "") -> Entry | None:
        """Paired gap in accuracy of a system to its baseline, as an estimate."""
        where = {"system": system, "comparison": None, "protocol": protocol, "scenario": scenario}
        row = self.row("accuracy_gap", **where)
        return None if row is None else row["gap"]

    def published(self, system: Entry, measure: str) -> Entry | None:
        """Published result of a system. If there are several sources, the first."""
        return next((figure for figure in system.get("published", ()) if figure["measure"] == measure), None)

    # Attacks

    def attacks(self, **where: Any) -> list[Entry]:
        """Attacks and controls whose fields have the given values."""
        return _where(self.record["attacks"], where)

    def attacks_that_see(self, *observations: str) -> list[Entry]:
        """Attacks and controls by what their adversary sees."""
        return [attack for attack in self.attacks() if attack["threat_model"]["sees"] in observations]

    def outcomes(self, kind: str, system: str | None = None) -> list[tuple[Entry, Entry]]:
        """(attack, row) of the attacks that have a row of that kind, in the order of the attacks."""
        rows = {row["attack"]: row for row in self.rows(kind)}
        attacks = self.attacks() if system is None else self.attacks(system=system)
        return [(attack, rows[attack["name"]]) for attack in attacks if attack["name"] in rows]

    def worst_attack(
        self, kind: str, system: str, value: Callable[[Entry], float], *, secrets: Collection[str] | None = None
    ) -> tuple[Entry, Entry] | None:
        """(attack, row) of the strongest attack or control on a system.

        Args:
            kind: kind of the rows.
            system: name of the system.
            value: strength of an attack, from its row.
            secrets: values of "secret" to consider; None considers all attacks.
        """
        found = [
            (attack, row)
            for attack, row in self.outcomes(kind, system)
            if secrets is None or attack["secret"] in secrets
        ]
        return max(found, key=lambda pair: value(pair[1]), default=None)

    def is_control_met(self, attack: Entry) -> bool | None:
        """Whether a control passed; None for other attacks, and before the control has run."""
        row = self.row("attack_run", attack=attack["name"])
        return None if row is None else row["is_control_met"]

    def failed_controls(self, attacks: Sequence[Entry] | None = None) -> list[Entry]:
        """Controls that have run and did not pass."""
        found = self.attacks() if attacks is None else attacks
        return [attack for attack in found if self.is_control_met(attack) is False]

    def knowledge_words(self, attack: Entry) -> str:
        """Whether the adversary knows the secret, or the keys of a template scheme."""
        words = SECRET_WORDS if self.system(attack["system"])["templates"] is None else KEY_WORDS
        return words[attack["secret"]]

    def role_words(self, attack: Entry) -> str:
        """The role of a control; for an attack, whether the adversary knows the secret."""
        return self.knowledge_words(attack) if attack["role"] == "attack" else ROLE_WORDS[attack["role"]]


def protocol_words(protocol: str, scenario: str) -> str:
    """For example "lfw" or "lfw, stolen-token"."""
    return f"{protocol}, {scenario}" if scenario else protocol


def sees_mixed(attack: Entry) -> bool:
    """Whether the adversary sees the mixed training set instead of the images that devices send for recognition."""
    return bool(attack["threat_model"]["sees"] == "mixed_images")


def _where(entries: Sequence[Entry], where: Mapping[str, Any]) -> list[Entry]:
    return [entry for entry in entries if all(entry[name] == value for name, value in where.items())]
