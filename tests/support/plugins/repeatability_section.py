from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, final

from ppfr.report import Block, Figure, Finding, RecordView, Row, Section, Table, number, plain_figure

STABLE_FROM = 0.9


@final
class RepeatabilitySection(Section):
    """Cosine of two embeddings of one image, per system."""

    kinds = ("repeatability",)
    title, anchor = "Repeatability", "repeatability"
    terms: ClassVar[Mapping[str, str]] = {
        "Repeatability": "Mean cosine of two embeddings of one image that is masked twice; 1 without randomness."
    }
    rules = f"A system is repeatable if the lower end of its repeatability is at least {STABLE_FROM:g}."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        for system in view.protected:
            row = view.row("repeatability", system=system["name"])
            if row is not None and row["cosine"]["low"] < STABLE_FROM:
                yield Finding(
                    tone="caution",
                    title=f"{system['label']} gives another embedding each time",
                    text=f"Mean cosine of two draws: {number(row['cosine']['value'])}.",
                    system=system["name"],
                )

    def columns(self, view: RecordView) -> Sequence[str]:
        return ["Cosine of two draws"]

    def cells(self, view: RecordView, system: Mapping[str, Any]) -> Sequence[Figure]:
        row = view.row("repeatability", system=system["name"])
        return [plain_figure(None if row is None else row["cosine"])]  # a dash where nothing was measured

    def blocks(self, view: RecordView) -> Iterable[Block]:
        yield Table(
            first="System",
            columns=["Cosine of two draws", "Protocol"],
            rows=[
                Row(
                    label=view.named(row["system"]),
                    key=view.key(row["system"]),
                    cells=[plain_figure(row["cosine"]), Figure(main=row["protocol"])],
                )
                for row in view.rows("repeatability")
            ],
            caption="Each image is masked twice with independent randomness.",
        )
