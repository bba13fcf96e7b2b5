"""Unlinkability and renewability (ISO/IEC 24745): templates of one person under two keys, and re-enrolment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ppfr.report._blocks import Block, Finding, Prose, Row, Table
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, number, percent, percent_interval
from ppfr.report.sections.re_identification import IS_BROKEN_AT

LINKS_FROM = 0.1
"""D_sys this far above its chance level (lower end of the interval) counts as linkable."""

_CAPTURES = {"same": "one image under two keys", "another": "two images under two keys"}


@final
class Unlinkability(Section):
    """D_sys with its chance level, and the effect of re-enrolment."""

    kinds = ("unlinkability", "renewal")
    title, anchor = "Unlinkability and renewability", "unlinkability"
    terms = {  # noqa: RUF012
        "D_sys": "How well two templates of one person under two keys can be distinguished from templates of two "
        "people: 0 not at all, 1 always. It depends on the bins, so its chance level with the same bins is shown.",
        "Renewal": "Re-enrolment of a subject under a new key, for example after a theft.",
    }
    rules = (
        f"Templates can be linked if the lower end of D_sys is more than {LINKS_FROM:g} above the chance level with "
        "the same bins."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """The number of systems whose templates can be linked."""
        first = [row for system in view.protected if (row := _first(view, system)) is not None]
        if first:
            values = [row["figures"]["d_sys"]["value"] for row in first]
            yield (
                f"Two templates of one image under two keys can be linked in {sum(map(_is_linkable, first))} of "
                f"{len(first)} systems (D_sys {number(min(values), 2)} to {number(max(values), 2)})."
            )

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per protected system."""
        for system in view.protected:
            row, renewal = _first(view, system), view.row("renewal", system=system["name"])
            if row is not None and renewal is not None:
                yield _finding(system, row, renewal)

    def columns(self, view: RecordView) -> Sequence[str]:
        """D_sys of one image under two keys."""
        return ["D_sys, same image"] if view.rows("unlinkability") else []

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """D_sys with its interval."""
        if not view.rows("unlinkability"):
            return []
        row = _first(view, system)
        return [MISSING if row is None else plain_figure(row["figures"]["d_sys"], 2)]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """A table of D_sys, a table of renewals."""
        yield Prose(
            text=[
                "Can two templates of one person under two keys be distinguished from templates of two people? Is a "
                "re-enrolled subject recognised as well as before, and is the old template rejected?"
            ]
        )
        rows = [row for system in view.systems for row in view.rows("unlinkability", system=system["name"])]
        if rows:
            yield Table(
                first="System",
                columns=["D_sys", "Chance level", "Bins", "Non-mated comparisons"],
                rows=[_link_row(view, row) for row in rows],
                caption="The adversary holds two templates and no key, and compares their values.",
            )
        renewals = view.rows("renewal")
        if renewals:
            yield Table(
                first="System",
                columns=[
                    "Equal error rate, lowest to highest",
                    f"TAR at FAR {renewals[0]['far']:g}, lowest to highest",
                    "Old templates accepted",
                ],
                rows=[_renewal_row(view, row) for row in renewals],
                caption="All subjects are re-enrolled under new keys, stolen-token scenario. An old template is "
                "presented in place of the new template of the same image, at the threshold of the system.",
            )


def _first(view: RecordView, system: Entry) -> Entry | None:
    return view.row("unlinkability", system=system["name"])


def _is_linkable(row: Entry) -> bool:
    return bool(row["figures"]["d_sys"]["low"] > row["figures"]["chance"] + LINKS_FROM)


def _finding(system: Entry, row: Entry, renewal: Entry) -> Finding:
    figures, old = row["figures"], renewal["old_template_accepted"]
    d_sys = figures["d_sys"]
    tone = "bad" if d_sys["low"] >= IS_BROKEN_AT else "caution" if _is_linkable(row) else "good"
    text = (
        f"D_sys of two templates of one image under two keys is {number(d_sys['value'], 2)} (interval "
        f"{number(d_sys['low'], 2)} to {number(d_sys['high'], 2)}; chance level with {figures['num_bins']} bins "
        f"{number(figures['chance'], 2)}). After each of {renewal['num_renewals']} renewals the equal error rate is "
        f"{percent(min(renewal['eer']), 2)} to {percent(max(renewal['eer']), 2)}; {percent(old['value'])} of old "
        f"templates would be accepted in place of the new one ({percent_interval(old)})."
    )
    words = "can be linked across keys" if tone != "good" else "cannot be linked across keys by its scores"
    return Finding(tone=tone, title=f"{system['label']} {words}", text=text, system=system["name"])


def _link_row(view: RecordView, row: Entry) -> Row:
    figures = row["figures"]
    return Row(
        label=view.named(row["system"]),
        key=view.key(row["system"]),
        note=_CAPTURES[row["capture"]],
        cells=[
            plain_figure(figures["d_sys"], 3),
            Figure(main=number(figures["chance"], 3)),
            Figure(main=f"{figures['num_bins']} over {figures['range'][0]:g} to {figures['range'][1]:g}"),
            Figure(main=count(figures["num_non_mated"])),
        ],
    )


def _renewal_row(view: RecordView, row: Entry) -> Row:
    sample = f"{row['num_renewals']} renewals of {count(row['num_comparisons'])} comparisons"
    spans = [
        Figure(main=f"{percent(min(values), 2)} to {percent(max(values), 2)}", small=sample)
        for values in (row["eer"], row["tar_at_far"])
    ]
    return Row(
        label=view.named(row["system"]),
        key=view.key(row["system"]),
        cells=[*spans, share_figure(row["old_template_accepted"])],
    )
