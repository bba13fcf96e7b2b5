"""Irreversibility (ISO/IEC 24745): recovery of embeddings from stolen templates, and selection of keys against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

from ppfr.core import STOLEN_TOKEN
from ppfr.report._blocks import Bars, Block, Finding, Row, Table
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, listed, number, percent, percent_interval
from ppfr.report.sections.re_identification import IS_BROKEN_AT, attack_bar
from ppfr.report.sections.verification import KEEPS_WITHIN

_KIND = "template_inversion"


@final
class TemplateInversion(Section):
    """Embeddings recovered from templates, with and without the keys."""

    kinds = (_KIND, "key_selection")
    title, anchor = "Irreversibility", "irreversibility"
    terms = {  # noqa: RUF012
        "Subject key": "Secret value under which the template of one subject is made. It is drawn at each enrolment "
        "and stored separately from the template.",
        "Accepted at FMR": "An embedding recovered from a template is accepted against another image of the subject, "
        "at the threshold of the recogniser for that false match rate on plain embeddings.",
        "If solved": "The same rate, where templates that the solver did not fit count as failures, as is common in "
        "the literature. It can be far too low; compare it with “Accepted at FMR”.",
    }
    rules = (
        "Templates of a scheme “can be inverted” if the strongest solver with the keys impersonates at least "
        f"{percent(IS_BROKEN_AT)} of the target subjects, by the lower end of the interval. They “can be inverted in "
        "part” if the lower end is above the false match rate. Otherwise the scheme withstood these solvers, which "
        "does not show that it withstands others. A failed control voids a good verdict."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """The range of success rates, and the systems that keep accuracy and withstand the solvers."""
        found = [(s, worst) for s in view.protected if (worst := _worst(view, s, ("known",))) is not None]
        if found:
            rows = [(row["at_fmr"][0]["success"]["value"], system["label"]) for system, (_, row) in found]
            (low, worst), (high, best) = min(rows), max(rows)
            yield (
                "With templates and keys, a solver recovers an embedding that is accepted as the subject (FMR "
                f"{found[0][1][1]['at_fmr'][0]['fmr']:g}) for {percent(low, 2)} ({worst}) to {percent(high, 2)} "
                f"({best}) of the target subjects."
            )
        both = [
            (system, gap["low"] >= -KEEPS_WITHIN and _tone(view, *worst) == "good")
            for system, worst in found
            if (gap := _stolen_gap(view, system)) is not None
        ]
        good = [system["label"] for system, is_good in both if is_good]
        if good:
            verb = "keeps" if len(good) == 1 else "keep"
            yield f"{listed(good)} {verb} accuracy within 1 point of the baseline and withstood the solvers."
        elif both:
            yield (
                "No system both keeps accuracy within 1 point of the baseline in the stolen-token scenario and "
                "withstands the solvers."
            )

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per protected system."""
        for system in view.protected:
            worst = _worst(view, system, ("known",))
            if worst is not None:
                yield _finding(view, system, *worst)

    def columns(self, view: RecordView) -> Sequence[str]:
        """Success rate of the strongest solver with the keys."""
        return ["Impersonation success rate, keys known"] if view.rows(_KIND) else []

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """The rate with the name of the solver."""
        if not view.rows(_KIND):
            return []
        worst = _worst(view, system, ("known", "none"))
        return [
            MISSING if worst is None else share_figure(worst[1]["at_fmr"][0]["success"]).with_note(worst[0]["label"])
        ]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Bars, all figures, selected keys."""
        outcomes = [outcome for system in view.systems for outcome in view.outcomes(_KIND, system["name"])]
        if outcomes:
            yield Bars(
                title="Impersonation with recovered embeddings",
                text="The adversary presents the recovered embedding to the recogniser without protection, which "
                "compares it with another image of the subject.",
                bars=[
                    attack_bar(
                        view,
                        attack,
                        first["success"],
                        f"false match rate {first['fmr']:g}",
                        chance=first["fmr"],
                        bound=first["plain"]["value"],
                    )
                    for attack, row in outcomes
                    for first in row["at_fmr"][:1]
                ],
            )
            yield _table(view, outcomes)
        selected = view.rows("key_selection")
        if selected:
            yield Table(
                title="Selected keys",
                first="System",
                columns=["Keys tried, mean", "Below the inversion threshold", "Target subjects", "Threshold"],
                rows=[
                    Row(
                        label=view.named(row["system"]),
                        key=view.key(row["system"]),
                        note=row["in_words"],
                        cells=[
                            Figure(main=number(row["mean_tried"], 1)),
                            Figure(main=percent(row["share_below"])),
                            Figure(main=count(row["num_people"])),
                            Figure(main=number(row["threshold"], 3), small=f"at FMR {row['fmr']:g}"),
                        ],
                    )
                    for row in selected
                ],
                caption="Keys were selected only for the target subjects. The effect of selection on accuracy is not "
                "measured here.",
            )


def _worst(view: RecordView, system: Entry, secrets: Sequence[str]) -> tuple[Entry, Entry] | None:
    return view.worst_attack(
        _KIND, system["name"], lambda row: float(row["at_fmr"][0]["success"]["value"]), secrets=secrets
    )


def _stolen_gap(view: RecordView, system: Entry) -> Entry | None:
    row = view.row("accuracy_gap", system=system["name"], comparison=None, scenario=STOLEN_TOKEN)
    return None if row is None else row["gap"]


def _tone(view: RecordView, attack: Entry, row: Entry) -> str:
    """Tone of the success of an attack: "note" instead of "good" if a control of the same attack failed."""
    first = row["at_fmr"][0]
    if first["success"]["low"] >= IS_BROKEN_AT:
        return "bad"
    if first["success"]["low"] > first["fmr"]:
        return "caution"
    return "note" if attack["method"] in {a["method"] for a in view.failed_controls()} else "good"


def _finding(view: RecordView, system: Entry, attack: Entry, row: Entry) -> Finding:
    tone = _tone(view, attack, row)
    verdict = {
        "bad": "can be inverted",
        "caution": "can be inverted in part",
        "good": "withstood these solvers",
        "note": "was not tested validly: a control failed",
    }[tone]
    text = "; ".join(
        f"for {percent(each['success']['value'])} of the target subjects at FMR {each['fmr']:g} (interval "
        f"{percent_interval(each['success'])}; plain embeddings {percent(each['plain']['value'])})"
        for each in row["at_fmr"]
    )
    text = f"With templates and keys ({attack['label']}), the recovered embedding is accepted {text}."
    unknown = _worst(view, system, ("unknown",))
    if unknown is not None:
        success = unknown[1]["at_fmr"][0]["success"]
        text += f" Without the key it is {percent(success['value'])} ({percent_interval(success)})."
    return Finding(tone=tone, title=f"{system['label']} {verdict}", text=text, system=system["name"])


def _table(view: RecordView, outcomes: Sequence[tuple[Entry, Entry]]) -> Table:
    fmrs = [f"{each['fmr']:g}" for each in outcomes[0][1]["at_fmr"]]
    has_transfer = any(row["transfer"] is not None for _, row in outcomes)
    columns = [f"Accepted at FMR {fmr}" for fmr in fmrs] + [f"If solved, FMR {fmr}" for fmr in fmrs]
    columns += ["Accepted as other subjects", "Mean cosine", "Solved", "Accepted after renewal"]
    columns += ["D_sys to the renewed template"]
    columns += ["Accepted by another recogniser"] if has_transfer else []
    return Table(
        title="All figures of recovered embeddings",
        first="System",
        columns=columns,
        rows=[
            Row(
                label=view.named(attack["system"]),
                key=view.key(attack["system"]),
                note=f"{attack['label']}, {view.knowledge_words(attack)}",
                cells=list(_cells(row, has_transfer=has_transfer)),
            )
            for attack, row in outcomes
        ],
        caption="“If solved” counts templates that the solver did not fit as failures.",
    )


def _cells(row: Entry, *, has_transfer: bool) -> Iterator[Figure]:
    at_fmr, renewed, transfer = row["at_fmr"], row["after_renewal"], row["transfer"]
    yield from (share_figure(each["success"]) for each in at_fmr)
    yield from (share_figure(each["success_if_solved"]) for each in at_fmr)
    yield share_figure(at_fmr[0]["other_subject"], 2)
    yield plain_figure(row["cosine"], 2)
    yield MISSING if row["solved"] is None else Figure(main=percent(row["solved"]))
    yield MISSING if renewed is None else share_figure(renewed["accepted"])
    yield MISSING if renewed is None else plain_figure(renewed["linkability"]["d_sys"], 2)
    if has_transfer:
        yield MISSING if transfer is None else share_figure(transfer["at_fmr"][0]["success"])
