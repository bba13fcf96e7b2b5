"""Decisions under secret sharing compared with decisions by float scores, and the traffic of a query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from ppfr.report._blocks import Block, Details, Finding, Prose, Row, Table
from ppfr.report._figures import MISSING, Figure, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, number, points

_KIND = "secure_decisions"


@final
class SecureDecisions(Section):
    """Accuracy of fixed-point formats, decisions that rounding changed, bytes and rounds."""

    kinds = (_KIND,)
    title, anchor = "Decisions under secret sharing", "secure-decisions"
    terms = {  # noqa: RUF012
        "Under secret sharing": "Computed by several parties on shares of templates and probes. The shares of one "
        "party look random, and the parties reconstruct only the decision.",
    }
    rules = (
        "Decisions under secret sharing must equal those by the same integers in the clear. They may differ from those "
        "by float scores."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """Number of decisions that differ from those by float scores."""
        rows = view.rows(_KIND)
        most: dict[str, int] = {}
        clear = 0
        for _, found in _formats(view):
            num = sum(len(at["differ_from_float"]) for at in found["decisions"])
            most[found["values"]] = max(num, most.get(found["values"], 0))
            clear += sum(at["num_differ_from_integers_in_the_clear"] for at in found["decisions"])
        if most:
            num_decided = rows[0]["num_pairs"] * len(rows[0]["formats"][0]["decisions"])
            differ = " and ".join(f"{num or 'none'} with {values}" for values, num in most.items())
            yield (
                f"Of {count(num_decided)} decisions under secret sharing, at most {differ} differ from those by float "
                f"scores, and {clear or 'none'} from those by the same integers in the clear."
            )

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per system."""
        return [_finding(view, row) for row in view.rows(_KIND)]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Accuracy, changed decisions, traffic."""
        yield Prose(
            text=[
                "The parties decide each pair on shares. Only clients have the keys of mapped templates. The "
                "thresholds are those of the float scores."
            ]
        )
        fars = list(dict.fromkeys(at["far"] for _, found in _formats(view) for at in found["decisions"]))
        yield Table(
            first="System",
            columns=[
                "Accuracy",
                "Gap to float, points",
                "Equal error rate",
                "Score error, root mean square",
                "Largest",
                "Bound",
                *(f"Differ at FAR {far:g}" for far in fars),
            ],
            rows=[
                _row(view, row, f"{found['values']}, ring of {found['ring_bits']} bits", _cells(found, fars))
                for row, found in _formats(view)
            ],
            caption="The gap is paired, on the same pairs and resamples. “From integers” counts decisions that differ "
            "from those by the same integers in the clear; there should be none.",
        )
        changed = list(_changed(view))
        if changed:
            table = Table(
                first="System",
                columns=[
                    "Pair",
                    "Truth",
                    "Under sharing",
                    "Float score minus threshold",
                    "Integer score minus threshold",
                ],
                rows=changed,
                caption="Decisions under secret sharing that differ from those by float scores.",
            )
            yield Details(summary=f"Decisions changed by rounding: {len(changed)}", blocks=[table])
        yield _traffic(view)


def _formats(view: RecordView) -> Iterator[tuple[Entry, Entry]]:
    for row in view.rows(_KIND):
        for found in row["formats"]:
            yield row, found


def _row(view: RecordView, row: Entry, note: str, cells: list[Figure]) -> Row:
    return Row(label=view.named(row["system"]), key=view.key(row["system"]), note=note, cells=cells)


def _finding(view: RecordView, row: Entry) -> Finding:
    decisions = [at for found in row["formats"] for at in found["decisions"]]
    agrees = all(at["num_differ_from_integers_in_the_clear"] == 0 for at in decisions)
    parts = []
    for found in row["formats"]:
        gap = found["accuracy_gap_to_float"]
        changed = ", ".join(f"{len(at['differ_from_float'])} at FAR {at['far']:g}" for at in found["decisions"])
        parts.append(
            f"{found['values']}: accuracy {points(gap['value'])} points compared with float scores "
            f"({points(gap['low'])} to {points(gap['high'])}), decisions changed: {changed}"
        )
    words = "equal those by integers in the clear" if agrees else "differ from those by integers in the clear"
    return Finding(
        tone="good" if agrees else "bad",
        title=f"{view.label(row['system'])}: decisions under secret sharing {words}",
        text=f"{count(row['num_pairs'])} pairs. {'; '.join(parts)}.",
        system=row["system"],
    )


def _cells(found: Entry, fars: list[float]) -> list[Figure]:
    gap = found["accuracy_gap_to_float"]
    cells = [
        share_figure(found["accuracy"], 2),
        Figure(main=points(gap["value"]), small=f"{points(gap['low'])} to {points(gap['high'])}"),
        share_figure(found["eer"], 2),
        *(Figure(main=f"{found[name]:.2g}") for name in ("rms_error", "largest_error", "error_bound")),
    ]
    at_far = {at["far"]: at for at in found["decisions"]}
    for far in fars:
        at = at_far.get(far)
        cells.append(
            MISSING
            if at is None
            else Figure(
                main=f"{len(at['differ_from_float'])} from float",
                small=f"{at['num_differ_from_integers_in_the_clear']} from integers",
            )
        )
    return cells


def _changed(view: RecordView) -> Iterator[Row]:
    for row, found in _formats(view):
        for at in found["decisions"]:
            for each in at["differ_from_float"]:
                cells = [
                    Figure(main=str(each["pair"])),
                    Figure(main="mated" if each["is_genuine"] else "non-mated"),
                    Figure(main="accepted" if each["accepted"] else "rejected"),
                    Figure(main=number(each["float_score_less_threshold"], 5)),
                    Figure(main=number(each["score_less_threshold"], 5)),
                ]
                yield _row(view, row, f"{found['values']}, FAR {at['far']:g}", cells)


def _traffic(view: RecordView) -> Table:
    columns = list(dict.fromkeys(_query_words(query) for _, found in _formats(view) for query in found["queries"]))
    rows = []
    for row, found in _formats(view):
        queries = {_query_words(query): query for query in found["queries"]}
        cells = [_query_figure(queries[column]) if column in queries else MISSING for column in columns]
        rows.append(_row(view, row, found["values"], cells))
    return Table(
        title="Traffic of a query",
        first="System",
        columns=columns,
        rows=rows,
        caption="Bytes sent for one probe by the party that sends most, and rounds. The probe itself and the results "
        "sent to the client are not counted.",
    )


def _query_words(query: Entry) -> str:
    num = query["num_references"]
    return f"{query['kind']}, {count(num)} reference{'s' * (num > 1)}"


def _query_figure(query: Entry) -> Figure:
    return Figure(
        main=f"{count(max(query['bytes_sent']))} bytes",
        small=f"least of any party: {count(min(query['bytes_sent']))}",
        sample=f"{query['num_rounds']} rounds",
    )
