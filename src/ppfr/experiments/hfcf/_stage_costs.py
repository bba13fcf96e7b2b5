"""Section on systems that protect images and templates: what each stage costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from ppfr.core import ALL_KEYS, STOLEN_TOKEN
from ppfr.report import MISSING, Block, Entry, Figure, Prose, RecordView, Row, Section, Table, points

_FORMATS = ("int8", "int16")
_COLUMNS = (
    "Image masking",
    "Identity mapping",
    "Masking and mapping",
    *(f"Three parties, {name}" for name in _FORMATS),
)


@final
class StageCosts(Section):
    """Paired differences between each stage and the stage before it, 1:1 and 1:N."""

    kinds = ("accuracy_gap", "identification", "identification_gap", "secure_decisions", "secure_searches")
    title, anchor = "Cost of each stage", "stage-costs"
    terms = {  # noqa: RUF012
        "Cost of a stage": "Difference in a figure between a system with the stage and the same system without it, on "
        "the same comparisons or searches, with a paired interval.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If templates of a system protect the embeddings of another one."""
        return any(_masked(view, system) is not None for system in view.systems)

    def headline(self, view: RecordView) -> Iterable[str]:
        """The largest and the smallest cost of masking and mapping in 1:1."""
        protocols = [name for name, scenario in view.protocols() if scenario == STOLEN_TOKEN]
        for protocol in protocols:
            found = [
                (gap["value"], system["label"])
                for system in view.systems
                if (masked := _masked(view, system)) is not None and masked["role"] != "baseline"
                if (gap := _accuracy_total(view, system, protocol, STOLEN_TOKEN)) is not None
            ]
            if found:
                (low, worst), (high, best) = min(found), max(found)
                yield (
                    f"Masking and mapping together change the accuracy on {protocol}, with stolen tokens, by "
                    f"{points(low)} points ({worst}) to {points(high)} points ({best})."
                )

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """A table for 1:1, and for 1:N one for rank-1 and one for each FNIR."""
        yield Prose(
            text=[
                "Each column is the paired difference to the stage before it, in percentage points. “Masking and "
                "mapping” is the difference to plain images without a mapping."
            ]
        )
        for protocol in dict.fromkeys(protocol for protocol, _ in view.protocols()):
            yield Table(
                title=f"1:1, accuracy on {protocol}",
                first="System",
                columns=_COLUMNS,
                rows=list(_accuracy_rows(view, protocol)),
                caption="Lower is worse. Decisions by three parties are measured in the stolen-token scenario.",
            )
        rows = view.rows("identification", values="float32")
        fpirs = dict.fromkeys(fpir for row in rows for fpir in row["fnir_at_fpir"])
        for words, worse, fpir in (("rank-1", "Lower", ""), *((f"FNIR at FPIR {f}", "Higher", f) for f in fpirs)):
            table_rows = list(_search_rows(view, rows, fpir))
            if table_rows:
                caption = f"{worse} is worse. “Masking and mapping” is measured where the matcher holds all keys."
                yield Table(title=f"1:N, {words}", first="System", columns=_COLUMNS, rows=table_rows, caption=caption)


def _masked(view: RecordView, system: Entry) -> Entry | None:
    """The system whose embeddings the templates of a system protect."""
    is_chain = system["templates"] is not None and system["recogniser"] in {each["name"] for each in view.systems}
    return view.system(system["recogniser"]) if is_chain else None


def _accuracy_total(view: RecordView, system: Entry, protocol: str, scenario: str) -> Entry | None:
    """Paired gap in accuracy to the baseline of the masked system, from a comparison of the experiment."""
    masked = _masked(view, system)
    assert masked is not None  # callers pass such systems
    where = {"system": system["name"], "against": masked["baseline"], "protocol": protocol, "scenario": scenario}
    row = view.row("accuracy_gap", **where)
    return None if row is None else row["gap"]


def _accuracy_rows(view: RecordView, protocol: str) -> Iterator[Row]:
    for row in view.rows("verification", source="system", protocol=protocol):
        system, scenario = view.system(row["name"]), row["scenario"]
        masked = _masked(view, system)
        gap = view.gap(system["name"], protocol, scenario)
        secure: dict[str, Any] = {}
        if scenario in ("", STOLEN_TOKEN):
            decided = view.row("secure_decisions", system=system["name"], protocol=protocol)
            secure = {each["values"]: each["accuracy_gap_to_float"] for each in (decided or {"formats": ()})["formats"]}
        if masked is None:
            yield _row(view, system, scenario, [gap, None, None], secure)
        else:
            total = _accuracy_total(view, system, protocol, scenario)
            yield _row(view, system, scenario, [view.gap(masked["name"], protocol), gap, total], secure)


def _search_rows(view: RecordView, rows: list[Entry], fpir: str) -> Iterator[Row]:
    """Rows on rank-1, or on FNIR at an FPIR."""

    def picked(gap: Entry | None) -> Any:
        if gap is None:
            return None
        return gap["fnir_at_fpir"].get(fpir) if fpir else gap["rank_1"]

    for row in rows:
        system, scenario = view.system(row["system"]), row["scenario"]
        masked = _masked(view, system)
        found = view.row("secure_searches", system=system["name"], scenario=scenario)
        secure = {each["values"]: picked(each["gap_to_float"]) for each in (found or {"formats": ()})["formats"]}
        if masked is None:
            yield _row(view, system, scenario, [picked(row["gap_to_baseline"]), None, None], secure)
            continue
        before = view.row("identification", system=masked["name"], scenario=ALL_KEYS, values="float32")
        total = view.row("identification_gap", system=system["name"], against=masked["baseline"])
        gaps = [
            None if before is None else picked(before["gap_to_baseline"]),
            picked(row["gap_to_baseline"]),
            picked(total["gap"]) if total is not None and scenario == ALL_KEYS else None,
        ]
        yield _row(view, system, scenario, gaps, secure)


def _row(
    view: RecordView, system: Entry, scenario: str, gaps: Sequence[Entry | None], secure: Mapping[str, Entry]
) -> Row:
    return Row(
        label=view.named(system["name"]),
        key=view.key(system["name"]),
        note=scenario,
        cells=[_figure(gap) for gap in (*gaps, *(secure.get(name) for name in _FORMATS))],
    )


def _figure(gap: Entry | None) -> Figure:
    if gap is None:
        return MISSING
    return Figure(
        main=points(gap["value"]), small=f"{points(gap['low'])} to {points(gap['high'])}", caveat=gap["caveat"]
    )
