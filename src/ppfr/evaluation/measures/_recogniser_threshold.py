"""Thresholds of recognisers at false match rates, which several measures of templates need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ppfr.core import result_row
from ppfr.evaluation._measure import Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import num_cross_comparisons, people_of, study_of

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


@result_row("recogniser_threshold")
class RecogniserThresholdRow:
    """A recogniser's threshold on plain embeddings.

    Attributes:
        recogniser: its name.
        fmr: false match rate.
        threshold: the score.
        num_impostor: number of non-mated comparisons behind it.
        caveat: why it is unreliable, or "".
    """

    recogniser: str
    fmr: float
    threshold: float
    num_impostor: int
    caveat: str


def threshold_stage_name(recogniser: str, fmr: float) -> str:
    """Name of the stage that determines a recogniser's threshold."""
    return f"threshold/{recogniser}/{fmr:g}"


def threshold_stages(session: Session, pairs: PairProtocol, recogniser: str, fmrs: Sequence[float]) -> Iterable[Stage]:
    """One stage per false match rate; the first embeds all images of the protocol."""
    for number, fmr in enumerate(dict.fromkeys(fmrs)):
        yield Stage(
            name=threshold_stage_name(recogniser, fmr),
            title=f"Set the threshold of {recogniser} at FMR {fmr:g}",
            weight=0.1 if number else 40,
            after=(),
            measure=functools.partial(_threshold, session, pairs, recogniser, fmr),
        )


def _threshold(session: Session, pairs: PairProtocol, recogniser: str, fmr: float) -> list[RecogniserThresholdRow]:
    found = study_of(session, pairs).threshold(session.experiment.recogniser(recogniser), fmr)
    return [RecogniserThresholdRow(recogniser=recogniser, **dataclasses.asdict(found))]


def fmr_problems(fmrs: Sequence[float], pairs: PairProtocol) -> Iterable[str]:
    """False match rates outside (0, 1], or too low for the number of people in the protocol."""
    if not fmrs or any(not 0 < fmr <= 1 for fmr in fmrs):
        yield f"FMRs {tuple(fmrs)}; each must lie in (0, 1]"
        return
    num = num_cross_comparisons(len(people_of(pairs).subjects))
    if num * min(fmrs) < 1:
        yield (
            f"FMR {min(fmrs):g} cannot be measured with {num} impostor comparisons of the recogniser; test on more "
            "people, or use a higher FMR"
        )
