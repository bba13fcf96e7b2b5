"""AdaMixUp's scores as the report shows them: rows, and in words what each figure is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppfr.report import _charts as charts
from ppfr.report._drawings import named, series_of
from ppfr.report._figures import MISSING, Figure, share_figure
from ppfr.report._findings import Part, arms_of, protocol_names
from ppfr.report._reported import ACCURACY_SCORE, PRIVACY_SCORE, TOTAL_SCORE, reported_words
from ppfr.report._scores import LINKAGE, MASKED_WEIGHT, RECOVERED_WEIGHT, Measured, ScoredArm, chosen_attack
from ppfr.report._wording import count, listed, number

_COLUMNS = ("S1", "S2", "S3", "S4", "S5", "Score_pp", "Score_cls", "Total, mean", "Total, product")


def score_table(record: Part, scored: Sequence[ScoredArm]) -> Mapping[str, Any] | None:
    """`columns`, `rows` and `words`; None where fewer than two protections have all measures."""
    if not scored:
        return None
    return {
        "columns": [*_COLUMNS, "Identity linkage, top-1"],
        "rows": [
            {
                "label": named(record, row.arm),
                "key": charts.key(series_of(record, row.arm["name"]), is_line=False),
                "note": "mixed training images" if row.is_mixed else "",
                "cells": [*map(_measure, row.measures), *_scores(row), _linkage(record, row.arm)],
            }
            for row in scored
        ],
        "words": _words(record, scored),
    }


def _measure(measured: Measured) -> Figure:
    ends = (measured.low, measured.high)
    interval = "" if None in ends else " to ".join(number(end, 3) for end in ends if end is not None)
    return Figure(main=number(measured.value, 3), small=interval, sample=f"n\u00a0=\u00a0{count(measured.n)}")


def _scores(row: ScoredArm) -> list[Figure]:
    score = row.score
    return [
        Figure(main=number(value, 3), reported=reported_words(row.arm, measure))
        for value, measure in (
            (score.pp, PRIVACY_SCORE),
            (score.cls, ACCURACY_SCORE),
            (score.total_mean, TOTAL_SCORE),
            (score.total_product, ""),
        )
    ]


def _linkage(record: Part, arm: Part) -> Figure:
    attack = chosen_attack(record, arm, LINKAGE)
    return MISSING if attack is None else share_figure(attack["outcome"]["linkage"]["top1"])


def _words(record: Part, scored: Sequence[ScoredArm]) -> list[str]:
    num, num_all = len(scored), len(arms_of(record, "protected"))
    judges = {judge["name"]: judge["label"] for judge in record["judges"]}
    asked = listed(list(dict.fromkeys(judges[row.judge] for row in scored)))
    normalised = f"over the {num} protections of this record"
    if num < num_all:
        normalised = f"over the {num} of this record's {num_all} protections that have all five measures"
    mixed = (
        " Where training images are mixed, S1 to S4 are of the mixed images." if any(r.is_mixed for r in scored) else ""
    )
    return [
        "S1 is LPIPS between a face and the picture of its masked image, S2 is 1 less their identity cosine; S3 and S4 "
        "are the same two of what the conditional GAN recovers. S5 is the accuracy on "
        f"{protocol_names(record)[0]} over the baseline's; its interval is that of the paired gap, with the baseline's "
        "accuracy taken as measured.",
        f"Score_pp is {MASKED_WEIGHT:g} (S1 + S2) + {RECOVERED_WEIGHT:g} (S3 + S4), Score_cls is S5, each min-max "
        f"normalised to 0.5 to 1 {normalised}; another set gives other scores. The authors' table prints the mean of "
        "the two as the total, their text names the product (arXiv 2403.10558, equations 9 to 11).",
        "The picture of a masked image is the image itself where it has one or three channels in [0, 1], else the mean "
        f"of its channels as a grey picture.{mixed} Identity is judged by {asked}, which stands for the authors' "
        "recogniser trained on plain faces (f_orig).",
        "Identity linkage is no part of the scores: they ask how pictures look, and do not contain whether an "
        "adversary who learns to name people from masked images can.",
    ]
