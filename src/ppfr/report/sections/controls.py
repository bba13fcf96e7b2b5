"""Controls: each attack on a system where it must win, and on one where it must stay at the chance level."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from ppfr.report._blocks import Block, Finding, Prose, Row, Table
from ppfr.report._figures import text_figure
from ppfr.report._record_view import RecordView
from ppfr.report._section import Section
from ppfr.report._wording import listed

_VERDICTS = {True: ("good", "passed"), False: ("bad", "failed"), None: ("note", "has not run")}
_EXPECTED = {"win": "must win", "chance": "must stay at the chance level"}


@final
class Controls(Section):
    """The rule of each control, and whether the control passed."""

    kinds = ("attack_run",)
    title, anchor = "Controls", "controls"
    is_background = True
    rules = "A failed control voids the good verdicts that depend on the same attack."

    def is_shown(self, view: RecordView) -> bool:
        """Always, since a record without controls must be marked."""
        return True

    def headline(self, view: RecordView) -> Iterable[str]:
        """States if the record has no attacks."""
        if not view.attacks():
            yield "This record has no attacks."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Controls that failed."""
        failed = view.failed_controls()
        for expects, should in (
            ("win", "win against an unprotected system"),
            ("chance", "stay at the chance level on a constant output"),
        ):
            labels = list(dict.fromkeys(a["label"] for a in failed if a["control"]["expects"] == expects))
            if labels:
                yield Finding(
                    tone="bad",
                    title="A control failed: figures of the same attack are no evidence of protection",
                    text=f"{listed(labels)} should {should} but did not; see the controls below.",
                )

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The table of controls, or what their absence means."""
        controls = [attack for attack in view.attacks() if attack["control"] is not None]
        if not view.attacks():
            yield Prose(text=["This record has no attacks, and therefore no controls."])
        elif not controls:
            text = "This record has no controls. Its figures on leakage are lower bounds that nothing supports."
            yield Prose(text=[text], style="warning")
        if not controls:
            return
        yield Prose(
            text=[
                "An attack that does not win against an unprotected system proves nothing about a protected one. An "
                "attack that is above the chance level on a constant output is measured wrongly. Therefore each attack "
                "is run on both."
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
