"""Controls: each kind of attack where it must win, and where it must stay at the chance level."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from ppfr.report._blocks import Block, Finding, Prose, Row, Table
from ppfr.report._figures import text_figure
from ppfr.report._record_view import RecordView
from ppfr.report._section import Section
from ppfr.report._wording import listed

_VERDICTS = {True: ("good", "passed"), False: ("bad", "failed"), None: ("note", "has not run")}
_EXPECTED = {"win": "must win", "chance": "must stay at chance"}


@final
class Controls(Section):
    """What each control had to show, and whether it did."""

    kinds = ("attack_run",)
    title, anchor = "Controls", "controls"
    is_background = True
    rules = "A failed control voids the good verdicts that rest on such an attack."

    def is_shown(self, view: RecordView) -> bool:
        """Always: that there are none is said too."""
        return True

    def headline(self, view: RecordView) -> Iterable[str]:
        """That nothing was attacked."""
        if not view.attacks():
            yield "Nothing was attacked in this record."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Controls that failed."""
        failed = view.failed_controls()
        for expects, should in (
            ("win", "win against an unprotected system"),
            ("chance", "stay at chance where nothing is seen"),
        ):
            labels = list(dict.fromkeys(a["label"] for a in failed if a["control"]["expects"] == expects))
            if labels:
                yield Finding(
                    tone="bad",
                    title="A control failed: figures of such an attack are no evidence of protection",
                    text=f"{listed(labels)} should {should} and did not; see the controls below.",
                )

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The table, or what its absence means."""
        controls = [attack for attack in view.attacks() if attack["control"] is not None]
        if not view.attacks():
            yield Prose(text=["Nothing was attacked in this record, so there is nothing to control."])
        elif not controls:
            text = "This record has no controls: its figures on leakage are lower bounds without support."
            yield Prose(text=[text], style="warning")
        if not controls:
            return
        yield Prose(
            text=[
                "An attack that cannot win against an unprotected system proves nothing about a protected one; an "
                "attack that beats chance where nothing is to be seen is measured wrongly. So each kind of attack is "
                "tried on both."
            ]
        )
        yield Table(
            first="Attack",
            columns=["Against", "Expected", "Rule", "Verdict"],
            rows=[
                Row(
                    label=attack["label"],
                    cells=[
                        text_figure(view.label(attack["system"])),
                        text_figure(_EXPECTED[attack["control"]["expects"]]),
                        text_figure(attack["control"]["rule"]),
                        text_figure(verdict, tone=tone),
                    ],
                )
                for attack in controls
                for tone, verdict in [_VERDICTS[view.is_control_met(attack)]]
            ],
        )
