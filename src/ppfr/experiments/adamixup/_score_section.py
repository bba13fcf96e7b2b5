"""The composite scores of the AdaMixUp paper on the page, with an explanation of each figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import final

from ppfr.experiments.adamixup._renderings import DEFAULT_RENDERING, WITHOUT, RenderedScores, rendered_scores
from ppfr.experiments.adamixup._scores import (
    ACCURACY_SCORE,
    LINKAGE,
    MASKED_WEIGHT,
    PRIVACY_SCORE,
    RECOVERED_WEIGHT,
    TOTAL_SCORE,
    Measured,
    ScoredSystem,
    chosen_attack,
    scored_systems,
)
from ppfr.report import (
    MISSING,
    Block,
    Entry,
    Figure,
    Prose,
    RecordView,
    Row,
    Section,
    Table,
    count,
    listed,
    number,
    protocol_words,
    published_words,
    share_figure,
)

_COLUMNS = (
    *("S1", "S2", "S3", "S4", "S5", "Score_pp", "Score_cls", "Total, mean", "Total, product"),
    "Re-identification rate of identity linkage, rank-1",
)

_RENDERING_WORDS: Mapping[str, str] = MappingProxyType(
    {
        DEFAULT_RENDERING: "mean of the channels",
        "channel-magnitude": "mean of the channels' magnitudes",
        WITHOUT: "none: S3 and S4 alone",
    }
)


@final
class ScoreSection(Section):
    """S1 to S5 and the scores of protected systems."""

    kinds = ("image_recovery", "masked_picture")
    title, anchor = "AdaMixUp's scores", "adamixup-scores"
    terms = {  # noqa: RUF012
        "S1 to S5": "Measures of the AdaMixUp paper: distance of the masked image from the face by LPIPS (S1) and by "
        "identity (S2), the same distances of the recovered face (S3, S4), and accuracy divided by that of the "
        "baseline (S5).",
        "Score_pp, Score_cls, total": "Privacy (from S1 to S4) and accuracy (from S5), scaled from 0.5 for the worst "
        "to 1 for the best of the compared methods, and the mean or product of the two. They are comparable only "
        "within that set.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If at least two protected systems have all measures."""
        return bool(scored_systems(view))

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """An explanation of the figures, then the table."""
        scored = scored_systems(view)
        yield Prose(text=_words(view, scored), style="small")
        yield Table(
            first="System",
            columns=_COLUMNS,
            rows=[
                Row(
                    label=view.named(row.system["name"]),
                    key=view.key(row.system["name"]),
                    note="mixed training images" if row.is_mixed else "",
                    cells=[*map(_measure, row.measures), *_scores(view, row), _linkage(view, row.system)],
                )
                for row in scored
            ],
            caption="Higher is more private (S1 to S4) or more accurate (S5). A lower re-identification rate is more "
            "private.",
        )
        yield from _renderings(view, scored)


def _renderings(view: RecordView, scored: Sequence[ScoredSystem]) -> Iterable[Block]:
    """How Score_pp and its order change with the rendering of masked images."""
    found = rendered_scores(view, scored)
    default, others = found[0], found[1:]
    agreement = "; ".join(
        f"{_rendering(other)}: {number(other.tau, 2)}" for other in others if math.isfinite(other.tau)
    )
    yield Prose(
        title="Score_pp under other renderings of the masked image",
        text=[
            f"{MASKED_WEIGHT:.0%} of Score_pp depend on how a masked image becomes a picture, which the paper does not "
            f"define. Here it is the {_rendering(default)}. Kendall's tau of the order under this rendering with the "
            f"order under another: {agreement or 'not defined'}."
        ],
        style="small",
    )
    yield Table(
        first="System",
        columns=[_rendering(each) for each in found],
        rows=[
            Row(
                label=view.named(row.system["name"]),
                key=view.key(row.system["name"]),
                cells=[
                    Figure(
                        main=number(each.scores[row.system["name"]], 3), small=f"rank {each.place(row.system['name'])}"
                    )
                    for each in found
                ],
            )
            for row in scored
        ],
        caption="Score_pp, and the rank of the system by it: rank 1 is the most private.",
    )


def _rendering(scores: RenderedScores) -> str:
    return _RENDERING_WORDS.get(scores.rendering, scores.rendering)


def _measure(measured: Measured) -> Figure:
    ends = (measured.low, measured.high)
    interval = "" if None in ends else " to ".join(number(end, 3) for end in ends if end is not None)
    return Figure(main=number(measured.value, 3), small=interval, sample=f"n\u00a0=\u00a0{count(measured.n)}")


def _scores(view: RecordView, row: ScoredSystem) -> list[Figure]:
    score = row.score
    return [
        Figure(main=number(value, 3), published=published_words(view, row.system, measure))
        for value, measure in (
            (score.pp, PRIVACY_SCORE),
            (score.cls, ACCURACY_SCORE),
            (score.total_mean, TOTAL_SCORE),
            (score.total_product, ""),
        )
    ]


def _linkage(view: RecordView, system: Entry) -> Figure:
    chosen = chosen_attack(view, "re_identification", system, LINKAGE)
    return MISSING if chosen is None else share_figure(chosen[1]["rank_1"])


def _words(view: RecordView, scored: Sequence[ScoredSystem]) -> list[str]:
    num, num_all = len(scored), len(view.protected)
    recognisers = listed(list(dict.fromkeys(view.recogniser_label(row.recogniser) for row in scored)))
    normalised = f"over the {num} protected systems of this record"
    if num < num_all:
        normalised = f"over the {num} of {num_all} protected systems of this record that have all five measures"
    is_mixed = any(row.is_mixed for row in scored)
    mixed = " Where training images are mixed, S1 to S4 are of the mixed images." if is_mixed else ""
    return [
        "S1 is LPIPS between a face and the picture of its masked image. S2 is 1 minus their identity cosine. S3 and "
        "S4 are the same for the face that the conditional GAN recovers. S5 is the accuracy on "
        f"{protocol_words(*view.protocols()[0])} divided by that of the baseline. Its interval is that of the paired "
        "gap, with the accuracy of the baseline as measured.",
        f"Score_pp is {MASKED_WEIGHT:g} (S1 + S2) + {RECOVERED_WEIGHT:g} (S3 + S4), Score_cls is S5. Each is min-max "
        f"normalised to 0.5 to 1 {normalised}; another set gives other scores. The table of the paper prints the mean "
        "of the two as the total, its text defines the product (arXiv 2403.10558, equations 9 to 11).",
        "The picture of a masked image is the image itself if it has one or three channels in [0, 1], otherwise the "
        "mean of its channels as a grey picture (rendering channel-mean). The mean does not depend on the order of the "
        "channels, and therefore not on a secret permutation, and whoever holds the masked image can compute it."
        f"{mixed} Identity is measured with {recognisers}, in place of the "
        "recogniser of the authors that was trained on plain faces (f_orig).",
        "The scores do not include re-identification. They measure how pictures look, not whether an adversary can "
        "learn to re-identify people from masked images.",
    ]
