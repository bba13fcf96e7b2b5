"""Verification, 1:1: accuracy, ROC curves, gaps to baselines, and the comparisons of the experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import final

from ppfr.report import _charts as charts
from ppfr.report._blocks import Block, Charts, Drawing, Finding, Row, Table
from ppfr.report._figures import MISSING, Figure, gap_words, share_figure
from ppfr.report._published import accuracy_measure, published_words
from ppfr.report._record_view import MAX_SENTENCES, Entry, RecordView, protocol_words
from ppfr.report._section import Section
from ppfr.report._wording import count, listed, percent, percent_interval, points

RECOGNISES_FROM = 0.55
"""Accuracy (lower end of the interval) from which a system recognises people; the chance level is 0.5."""

KEEPS_WITHIN = 0.01
"""Accuracy counts as kept if the interval rules out a larger loss."""

_MAX_LINES = 6


@final
class Verification(Section):
    """Accuracy of systems compared with their baselines, and of the evaluation recognisers."""

    kinds = ("verification", "accuracy_gap", "recogniser_threshold")
    title, anchor = "Verification, 1:1", "verification"
    terms = {  # noqa: RUF012 (a constant of the class)
        "Accuracy": "Share of comparisons decided correctly; the threshold of each fold is chosen on the others.",
        "Mated (genuine), non-mated (impostor)": "A comparison of two images of one person, or of two people.",
        "TAR at FAR": "True accept rate, the share of mated comparisons accepted, at the threshold where the false "
        "accept rate, the share of non-mated comparisons accepted, has the stated value.",
        "Equal error rate": "The error rate at the threshold where mated comparisons are rejected as often as "
        "non-mated ones are accepted.",
        "Gap to baseline": "Difference in accuracy to the same recogniser without protection, in percentage points, on "
        "the same comparisons and resamples.",
        "Evaluation recogniser": "A recogniser that neither the system nor the attacker was trained with, used to "
        "measure what an attack has recovered. Its accuracy on plain images is listed, since a weak recogniser "
        "underestimates leakage.",
        "Stolen-token scenario": "All comparisons, also of impostors, use the key of the claimed subject. It shows the "
        "accuracy after keys have leaked, and that of a server that holds all keys.",
        "Genuine-token scenario": "An impostor has only their own key. The gain over the stolen-token scenario is due "
        "to the key as a second factor, not to the face.",
    }
    rules = (
        "An accuracy up to 1 point below the baseline is marked as holding, up to 5 points below with caution. "
        f"Accuracy is kept if the paired interval rules out a loss above {100 * KEEPS_WITHIN:g} point. A system does "
        f"not recognise people if the lower end of its accuracy is below {percent(RECOGNISES_FROM)}."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """A sentence per protected system; if there are many, the range of accuracies."""
        if not view.protected:
            yield "This record has only baselines: no protection was measured."
        elif len(view.protected) > MAX_SENTENCES:
            yield from _summarised(view)
        else:
            for system in view.protected:
                yield from _cost_in_words(view, system)

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Findings on the comparisons of the experiment, then on each protected system."""
        yield from _comparisons(view)
        for system in view.protected:
            for row in _rows(view, system):
                if row["accuracy"] is not None:
                    yield _finding(view, system, row)

    def facts(self, view: RecordView) -> Iterable[tuple[str, str]]:
        """Numbers of comparisons."""
        rows = view.rows("verification", source="system")
        tests = {(row["protocol"], row["num_genuine"] + row["num_impostor"]) for row in rows}
        how = f", {view.embedded}" if view.embedded else ""
        return [("Test", f"{name}: {count(num)} comparisons{how}") for name, num in sorted(tests)]

    def columns(self, view: RecordView) -> Sequence[str]:
        """One per protocol and scenario. The test-time protocol is part of it, as accuracies under two differ."""
        how = f", {view.embedded}" if view.embedded else ""
        return [f"Accuracy on {protocol_words(*pair)}{how}" for pair in view.protocols()]

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """Accuracy with the gap to the baseline."""
        cells = []
        for protocol, scenario in view.protocols():
            row = view.verification(system["name"], protocol, scenario)
            figure = _accuracy(view, system, protocol, row)
            cells.append(figure.with_note(gap_words(view.gap(system["name"], protocol, scenario))))
        return cells

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """ROC curves, all figures, and thresholds of the recognisers."""
        yield Charts(drawings=[drawing for pair in view.protocols() for drawing in rocs(view, *pair)])
        rows = view.rows("verification")
        if rows:
            fars = list(dict.fromkeys(far for row in rows for far in row["tar_at_far"]))
            yield Table(
                title="All verification figures",
                first="System",
                columns=["Protocol", "Accuracy", "Equal error rate", *(f"TAR at FAR {far}" for far in fars)],
                rows=list(_table(view, fars)),
                caption="TAR at FAR x is the share of mated comparisons accepted at the threshold where a share x of "
                "non-mated ones is accepted. An asterisk marks a rate with too few non-mated comparisons. "
                f"{view.embedded_in_words()}",
            )
        thresholds = view.rows("recogniser_threshold")
        if thresholds:
            yield Table(
                title="Thresholds of the recognisers",
                first="Recogniser",
                columns=["False match rate", "Threshold", "Non-mated comparisons"],
                rows=[
                    Row(
                        label=view.recogniser_label(row["recogniser"]),
                        cells=[
                            Figure(main=f"{row['fmr']:g}"),
                            Figure(main=f"{row['threshold']:.4f}", caveat=row["caveat"]),
                            Figure(main=count(row["num_impostor"])),
                        ],
                    )
                    for row in thresholds
                ],
                caption="On plain embeddings.",
            )


def recognises(row: Entry) -> bool:
    """Whether an accuracy is above the chance level."""
    return bool(row["accuracy"] is None or row["accuracy"]["low"] >= RECOGNISES_FROM)


def sees_plain_faces(view: RecordView, system: Entry) -> bool:
    """Whether the server sees plain faces: the system masks as an unprotected baseline does."""
    plain = [baseline["masker"] for baseline in view.of_role("baseline")]
    return system["masker"] is not None and system["masker"] in plain


def _rows(view: RecordView, system: Entry) -> list[Entry]:
    return view.rows("verification", source="system", name=system["name"])


def _gap(view: RecordView, row: Entry) -> Entry | None:
    return view.gap(row["name"], row["protocol"], row["scenario"])


def _accuracy(view: RecordView, system: Entry, protocol: str, row: Entry | None) -> Figure:
    figure = MISSING if row is None else share_figure(row["accuracy"], 2)
    return dataclasses.replace(figure, published=published_words(view, system, accuracy_measure(protocol)))


def _cost_in_words(view: RecordView, system: Entry) -> Iterator[str]:
    rows = _rows(view, system)
    if not rows:
        if view["status"] != "complete":
            yield f"{system['label']} is not measured yet."
    elif not all(map(recognises, rows)):
        yield f"{system['label']} does not recognise people above the chance level."
    else:
        gaps = [(gap["value"], row["scenario"], gap) for row in rows if (gap := _gap(view, row)) is not None]
        if not gaps:
            yield f"{system['label']} is measured without a baseline."
            return
        _, scenario, gap = min(gaps, key=lambda found: found[0])
        yield f"{system['label']} {_gap_in_words(gap)}{f' ({scenario})' if scenario else ''}."


def _gap_in_words(gap: Entry) -> str:
    lost = -gap["value"]
    if gap["low"] <= 0 <= gap["high"] and gap["low"] < -KEEPS_WITHIN:
        interval = f"{points(gap['low'])} to {points(gap['high'])}"
        return (
            f"was tested on too few comparisons to measure its accuracy gap ({points(gap['value'])} points, {interval})"
        )
    if gap["low"] <= 0 <= gap["high"]:
        return f"has no measurable difference in accuracy to its baseline ({points(gap['value'])} points)"
    return f"{'costs' if lost > 0 else 'gains'} {100 * abs(lost):.2f} points of accuracy"


def _summarised(view: RecordView) -> Iterator[str]:
    for protocol, scenario in view.protocols():
        found = [(row["accuracy"]["value"], system["label"]) for system, row in _measured(view, protocol, scenario)]
        if not found:
            continue
        (lowest, worst), (highest, best) = min(found), max(found)
        plain = [row["accuracy"]["value"] for _, row in _measured(view, protocol, scenario, role="baseline")]
        without = f"; without protection {percent(max(plain), 2)}" if plain else ""
        yield (
            f"The accuracy of {len(found)} protected systems on {protocol_words(protocol, scenario)} is "
            f"{percent(lowest, 2)} ({worst}) to {percent(highest, 2)} ({best}){without}."
        )
    lost = [s["label"] for s in view.protected if not all(map(recognises, _rows(view, s)))]
    if lost:
        who = f"All {len(lost)}" if len(lost) == len(view.protected) else listed(lost)
        yield f"{who} {'do' if len(lost) > 1 else 'does'} not recognise people above the chance level."


def _measured(
    view: RecordView, protocol: str, scenario: str, *, role: str = "protected"
) -> Iterator[tuple[Entry, Entry]]:
    for system in view.of_role(role):
        row = view.verification(system["name"], protocol, scenario)
        if row is not None and row["accuracy"] is not None:
            yield system, row


def _comparisons(view: RecordView) -> Iterator[Finding]:
    for comparison in view["comparisons"]:
        rows = view.rows("accuracy_gap", comparison=comparison["name"])
        if rows:
            yield Finding(
                tone="note",
                title=comparison["text"],
                text=" ".join(
                    f"On {protocol_words(row['protocol'], row['scenario'])}, {view.label(row['system'])} "
                    f"{_set_apart(row['gap'])} {view.label(row['against'])}: {points(row['gap']['value'])} points of "
                    f"accuracy (paired interval {points(row['gap']['low'])} to {points(row['gap']['high'])})."
                    for row in rows
                ),
            )


def _set_apart(gap: Entry) -> str:
    if gap["low"] <= 0 <= gap["high"]:
        return "is not distinguishable from"
    return "is above" if gap["value"] > 0 else "is below"


def _finding(view: RecordView, system: Entry, row: Entry) -> Finding:
    accuracy, label = row["accuracy"], system["label"]
    sees = (
        "A matcher that sees only templates"
        if system["templates"] is not None
        else "A server that sees plain faces (only its training data were mixed)"
        if sees_plain_faces(view, system)
        else "A server that sees only masked faces"
    )
    text = (
        f"{sees} decides {percent(accuracy['value'], 2)} of the {count(row['num_genuine'] + row['num_impostor'])} "
        f"comparisons of {protocol_words(row['protocol'], row['scenario'])} correctly (interval "
        f"{percent_interval(accuracy, 2)})."
    )
    if not recognises(row):
        title = f"{label} does not recognise people"
        return Finding(tone="bad", title=title, text=f"{text} The chance level is one half.", system=system["name"])
    gap, tone = _gap(view, row), "note"
    if gap is not None:
        tone = "good" if gap["value"] >= -KEEPS_WITHIN else "caution" if gap["value"] >= -0.05 else "bad"
        same = ", which was trained with the same strategy" if system["training"] is not None else ""
        text += (
            f" The gap is {points(gap['value'])} points (paired interval {points(gap['low'])} to "
            f"{points(gap['high'])}) to {view.label(system['baseline'])}{same}."
        )
    return Finding(tone=tone, title=f"{label} recognises people", text=text, system=system["name"])


def _table(view: RecordView, fars: Sequence[str]) -> Iterator[Row]:
    holders = [("system", "", system) for system in view.systems]
    holders += [("recogniser", "evaluation recogniser, on plain images", each) for each in view["recognisers"]]
    for source, note, holder in holders:
        for row in view.rows("verification", source=source, name=holder["name"]):
            std = row["accuracy_std_over_folds"]
            gap = gap_words(_gap(view, row)) if source == "system" else ""
            spread = "" if std is None else f"± {100 * std:.2f} over {row['num_folds']} folds"
            yield Row(
                label=holder["label"],
                note=note,
                key=view.key(holder["name"]) if source == "system" else "",
                cells=[
                    Figure(main=protocol_words(row["protocol"], row["scenario"]), is_text=True),
                    _accuracy(view, holder, row["protocol"], row).with_note(spread, gap),
                    share_figure(row["eer"], 2),
                    *(share_figure(row["tar_at_far"].get(far)) for far in fars),
                ],
            )


def rocs(view: RecordView, protocol: str, scenario: str) -> Iterator[Drawing]:
    """ROC charts of one protocol. Many systems are split over several charts, each with the baseline and equal axes."""
    rows = view.rows("verification", source="system", protocol=protocol, scenario=scenario)
    num_impostor = min(row["num_impostor"] for row in rows)
    lines = [_roc_line(view, row, num_impostor) for row in rows]
    parts, words = _parts(view, rows), protocol_words(protocol, scenario)
    for index, places in enumerate(parts, start=1):
        title = f"ROC on {words}" if len(parts) == 1 else f"ROC on {words}, {index} of {len(parts)}"
        svg = charts.roc_chart(
            [lines[place] for place in places],
            low=min(0.1, 1 / num_impostor),
            min_tar=min([0.9, *(min(line.y) for line in lines if line.y)]) if len(parts) > 1 else 0.9,
            title=title,
            description="; ".join(
                f"{view.label(rows[place]['name'])}: equal error rate {percent(rows[place]['eer']['value'], 2)}"
                for place in places
            ),
        )
        yield Drawing(
            title=title,
            caption=f"{count(num_impostor)} non-mated comparisons; rates below {1 / num_impostor:.1g} cannot be "
            "measured with them.",
            svg=svg,
            legend=[(charts.key(lines[place].series, is_line=True), lines[place].label) for place in places],
        )


def _parts(view: RecordView, rows: Sequence[Entry]) -> list[list[int]]:
    """Row numbers of each chart, at most six curves per chart. The first baseline is in each chart."""
    places = list(range(len(rows)))
    if len(places) <= _MAX_LINES:
        return [places]
    first = [place for place in places if view.system(rows[place]["name"])["role"] == "baseline"][:1]
    others = [place for place in places if place not in first]
    size = _MAX_LINES - len(first)
    return [[*first, *others[start : start + size]] for start in range(0, len(others), size)]


def _roc_line(view: RecordView, row: Entry, num_impostor: int) -> charts.Line:
    """The curve at rates that the number of non-mated comparisons can resolve."""
    curve = zip(row["roc"]["far"], row["roc"]["tar"], strict=True)
    pairs = [(far, tar) for far, tar in curve if far * num_impostor >= 1 - 1e-9]
    return charts.Line(
        x=[far for far, _ in pairs],
        y=[tar for _, tar in pairs],
        series=view.series(row["name"]),
        label=view.named(row["name"]),
    )
