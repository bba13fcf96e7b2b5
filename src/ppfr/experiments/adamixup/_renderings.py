"""How the privacy score ranks protections when masked images are rendered in another way, or not at all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ppfr.experiments.adamixup._hybrid_scores import min_max_scores
from ppfr.experiments.adamixup._scores import GAN, MASKED_WEIGHT, RECOVERED_WEIGHT, ScoredSystem, chosen_attack
from ppfr.report import Entry, RecordView

DEFAULT_RENDERING, WITHOUT = "channel-mean", "recovered faces alone"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RenderedScores:
    """Privacy scores under one rendering of masked images.

    Attributes:
        rendering: its name, or `WITHOUT` for S3 and S4 alone, which no rendering affects.
        scores: Score_pp of each system, min-max normalised over the same systems as the scores of the record.
        tau: Kendall's tau with the order of the default rendering; NaN if all scores are equal.
    """

    rendering: str
    scores: Mapping[str, float]
    tau: float

    def place(self, name: str) -> int:
        """Rank of a system, 1 for the most private. Equal scores share the better rank."""
        return 1 + sum(score > self.scores[name] for score in self.scores.values())


def rendered_scores(view: RecordView, scored: Sequence[ScoredSystem]) -> list[RenderedScores]:
    """The default rendering, every other one that all systems were measured under, and recovered faces alone."""
    if not scored:
        return []
    shown = {row.system["name"]: [m.value for m in row.measures[:2]] for row in scored}
    recovered = {row.system["name"]: [m.value for m in row.measures[2:4]] for row in scored}
    by_rendering: dict[str, Mapping[str, Sequence[float]]] = {DEFAULT_RENDERING: shown}
    for name in dict.fromkeys(row["rendering"] for row in view.rows("masked_picture")):
        found = {row.system["name"]: _shown(view, row.system, name) for row in scored}
        complete = {system: values for system, values in found.items() if values is not None}
        if len(complete) == len(scored):
            by_rendering[name] = complete
    fused = {
        rendering: {
            name: MASKED_WEIGHT * sum(values) + RECOVERED_WEIGHT * sum(recovered[name])
            for name, values in measured.items()
        }
        for rendering, measured in by_rendering.items()
    }
    fused[WITHOUT] = {name: sum(values) for name, values in recovered.items()}
    return [
        RenderedScores(rendering=rendering, scores=_normalised(values), tau=_tau(fused[DEFAULT_RENDERING], values))
        for rendering, values in fused.items()
    ]


def _shown(view: RecordView, system: Entry, rendering: str) -> tuple[float, float] | None:
    """S1 and S2 of a system under a rendering."""
    chosen = chosen_attack(view, "image_recovery", system, GAN)
    row = None if chosen is None else view.row("masked_picture", attack=chosen[0]["name"], rendering=rendering)
    if row is None or row["lpips"] is None:
        return None
    return row["lpips"]["value"], 1 - row["identity_cosine"]["value"]


def _normalised(values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(values, map(float, min_max_scores(list(values.values()))), strict=True))


def _tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    from scipy import stats

    found = float(stats.kendalltau(list(one.values()), [other[name] for name in one]).statistic)
    return found if math.isfinite(found) else math.nan
