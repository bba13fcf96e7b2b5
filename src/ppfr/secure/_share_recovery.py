"""Recovery of share stores while the service is stopped: rebuild a lost one, or make diverged ones equal again."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.secure._changes import State, settle
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_exports import ChangeRecord, StoreExport
from ppfr.secure._share_file import StoreHeader, create_file
from ppfr.secure._share_slots import slot_contents
from ppfr.secure._share_store import ShareStore
from ppfr.secure._sharing import SharedRows


def rebuild_store(
    path: Path, *, party: int, fixed_point: FixedPoint, gallery_id: bytes, exports: Sequence[StoreExport]
) -> ShareStore:
    """Create the store of a party from what the two others export for it.

    The rebuilt store has the same references, shares and epoch as the lost one, and refuses the same changes.

    Args:
        path: of the new store.
        party: 0..2.
        fixed_point: as in `ShareStore.create`.
        gallery_id: as in `ShareStore.create`.
        exports: of the two other parties, for this one, in any order.

    Raises:
        ProblemsError: the exports are of other parties, galleries, epochs or parameters, or do not agree; all problems
            are listed.
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """
    before, after = (party - 1) % NUM_PARTIES, (party + 1) % NUM_PARTIES
    by_party = {export.header.party: export for export in exports}
    if len(exports) != NUM_PARTIES - 1 or set(by_party) != {before, after}:
        given = ", ".join(str(export.header.party) for export in exports) or "none"
        raise InvalidInputError(f"Expected an export of each of the parties {before} and {after}, got {given}.")
    one, other = by_party[before], by_party[after]
    wanted = StoreHeader(party=party, fixed_point=fixed_point, gallery_id=gallery_id, epoch=one.header.epoch)
    problems = []
    for export in (one, other):
        source, header = f"the export of party {export.header.party}", export.header
        if export.recipient != party:
            kind = "an inventory" if export.recipient is None else f"for party {export.recipient}"
            problems.append(f"{source} is {kind}, and not for party {party}. Export it again for party {party}")
        if (header.fixed_point, header.gallery_id) != (fixed_point, gallery_id):
            problems.append(f"{source} is of another gallery, or has other parameters than {fixed_point}")
    if one.header.epoch != other.header.epoch:
        problems.append(f"the exports are of epochs {one.header.epoch} and {other.header.epoch}")
    if not np.array_equal(one.ids_M16, other.ids_M16) or one.subjects != other.subjects:
        problems.append("the exports have other references or subjects. Repair the two stores, then export them again")
    changes, num_contrary = _merged(one.changes, other.changes)
    if num_contrary:
        problems.append(
            f"{num_contrary} change(s) are committed in one export only. Repair the two stores, then export them again"
        )
    if problems or one.component_MD is None or other.component_MD is None:
        raise ProblemsError("nothing was rebuilt", problems)
    rows = SharedRows(
        party=party,
        fixed_point=fixed_point,
        ids_N16=one.ids_M16,
        words_NW=np.concatenate([one.component_MD, other.component_MD], axis=1),
    )

    def insert(connection: sqlite3.Connection) -> None:
        places = range(1, len(rows) + 1)
        ids = map(np.ndarray.tobytes, rows.ids_N16)
        connection.executemany(
            "INSERT INTO slots VALUES (?, ?)", zip(places, slot_contents(rows, one.subjects), strict=True)
        )
        connection.executemany("INSERT INTO listed VALUES (?, ?)", zip(ids, places, strict=True))
        connection.executemany(
            "INSERT INTO changes (change_id, kind, state) VALUES (?, ?, ?)",
            [(change.change_id, change.kind, change.state) for change in changes],
        )

    create_file(Path(path), wanted, insert)
    return ShareStore.open(path)


def _merged(one: Sequence[ChangeRecord], other: Sequence[ChangeRecord]) -> tuple[list[ChangeRecord], int]:
    """Changes of either store, and how many of them are committed in one of the two only."""
    merged = {change.change_id: change for change in one}
    num_contrary = sum(change.state == "committed" for change in one)
    for change in other:
        known = merged.setdefault(change.change_id, change)
        if known.kind == "none":
            merged[change.change_id] = change
        if change.state == "committed":
            num_contrary += -1 if known is not change and known.state == "committed" else 1
    return list(merged.values()), num_contrary


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair changes in a store.

    Attributes:
        num_kept: references that all parties list alike.
        num_erased: the store's other references.
        num_committed: changes that become committed.
        num_aborted: changes that become aborted.
    """

    num_kept: int
    num_erased: int
    num_committed: int
    num_aborted: int


def repair_store(
    store: ShareStore, inventories: Sequence[StoreExport], *, lost: int | None = None, is_dry_run: bool = False
) -> Repair:
    """Make a store equal to those of the other parties again: keep what all list alike, erase everything else.

    Run it at each party with the inventories of the others; the stores must not change in between, except by this
    function. First, prepared changes are committed or aborted by the rule of `settle`. Then the references that not all
    parties list, or list with different subjects, are erased. A store that agrees with the others is not changed.

    Args:
        store: of this party.
        inventories: of the two other parties, in any order; with `lost`, of the one that remains.
        lost: a party whose store no longer exists and will be rebuilt. Never name a party whose store exists: a change
            that is committed there would be aborted here.
        is_dry_run: count only.

    Raises:
        InvalidInputError: inventories of other parties, galleries or parameters, or of another epoch: the store whose
            epoch differs must be rebuilt from the two others.
        CorruptTemplateError, StorageError: the store cannot be read or written.
    """
    own = store.exported()
    by_party = {export.header.party: export for export in (own, *inventories)}
    expected = set(range(NUM_PARTIES)) - {lost}
    if set(by_party) != expected or len(inventories) + 1 != len(by_party) or lost == store.party:
        given = ", ".join(str(export.header.party) for export in inventories) or "none"
        wanted = ", ".join(map(str, sorted(expected - {store.party})))
        raise InvalidInputError(f"Expected one inventory of each of the parties {wanted}, got those of {given}.")
    if any(
        (export.header.fixed_point, export.header.gallery_id) != (store.fixed_point, store.gallery_id)
        for export in inventories
    ):
        raise InvalidInputError(
            f"An inventory is of another gallery, or has other parameters than {store.fixed_point}."
        )
    ends = _ends(by_party)
    epochs = {party: _epoch(export, ends) for party, export in by_party.items()}
    if len(set(epochs.values())) > 1:
        listed = ", ".join(f"party {party}: {epoch}" for party, epoch in sorted(epochs.items()))
        raise InvalidInputError(
            f"The stores are of different epochs ({listed}), so their shares do not fit together. Move the store whose "
            "epoch differs away and rebuild it from exports of the two others."
        )
    own_references = own.references(ends)
    common = set(own_references.items())
    for export in inventories:
        common &= export.references(ends).items()
    known = {change.change_id: change.state for change in own.changes}
    changed = {change_id: end for change_id, end in ends.items() if known.get(change_id) != end}
    erased = [one for one, subject in own_references.items() if (one, subject) not in common]
    if not is_dry_run and (changed or erased):
        store.reconcile(changed, erased)
    num_committed = sum(end == "committed" for end in changed.values())
    return Repair(
        num_kept=len(common),
        num_erased=len(erased),
        num_committed=num_committed,
        num_aborted=len(changed) - num_committed,
    )


def _ends(by_party: Mapping[int, StoreExport]) -> dict[bytes, State]:
    """How each change ends that any party knows. A lost party knows none."""
    states: dict[bytes, list[State]] = {}
    for party, export in by_party.items():
        for change in export.changes:
            states.setdefault(change.change_id, ["unknown"] * NUM_PARTIES)[party] = change.state
    return {change_id: "committed" if settle(found) == "commit" else "aborted" for change_id, found in states.items()}


def _epoch(export: StoreExport, ends: Mapping[bytes, State]) -> int:
    """Epoch of a store after its prepared refresh, if any, has ended."""
    prepared = (one.change_id for one in export.changes if one.kind == "refresh" and one.state == "prepared")
    return export.header.epoch + sum(ends[change_id] == "committed" for change_id in prepared)
