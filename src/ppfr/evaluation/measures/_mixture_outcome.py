"""Re-identification from mixed images. Any of the people in a mixture may be found, not only the first.

Suffixes: N mixtures, as many target subjects and gallery images, D embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ppfr.core import result_row
from ppfr.metrics import Estimate, mean_with_interval, mixture_hits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRate:
    """A rate beside its chance level and its upper bound, the rate of somebody who has the plain images of a mixture.

    The interval resamples mixtures. People who are in several mixtures make these dependent, which it leaves out.
    """

    rate: Estimate
    chance: float
    plain: Estimate


@result_row("mixture_re_identification")
class MixtureReIdentificationRow:
    """Re-identification of the people in mixed images, in a gallery of plain images of all target subjects.

    Target subjects are mixed with each other, so everybody in a mixture is in the gallery.

    Attributes:
        attack: its name.
        gallery_size: people in the gallery.
        num_epochs: mixtures of each target subject that the adversary averaged.
        mean_people: mean number of different people in what the adversary saw of a target subject.
        anybody: the person at rank 1 is any of those in the mixture.
        heaviest: it is the person with the largest weight.
        found: with k people in a mixture, share of them among the k best of the gallery.
    """

    attack: str
    gallery_size: int
    num_epochs: int
    mean_people: float
    anybody: MixtureRate
    heaviest: MixtureRate
    found: MixtureRate


def mixture_row(
    attack: str,
    score_NN: np.ndarray,
    plain_NN: np.ndarray,
    share_NN: np.ndarray,
    *,
    subjects: Sequence[str],
    num_epochs: int,
    seed: int,
    num_resamples: int,
) -> MixtureReIdentificationRow:
    """The row of one attack.

    Args:
        attack: its name.
        score_NN: similarity of the attack's estimate for each mixture to each subject of the gallery.
        plain_NN: similarity of the plain attacked image of each subject to each subject of the gallery.
        share_NN: share of each subject in each mixture.
        subjects: of the rows.
        num_epochs: for the row.
        seed: of the bootstrap.
        num_resamples: of the bootstrap.
    """
    hits = mixture_hits(score_NN, share_NN)
    # Who has the plain images of a mixture scores everybody by the likest of them.
    members_NN = np.stack([plain_NN[share_N > 0].max(axis=0) for share_N in share_NN])
    bound = mixture_hits(members_NN, share_NN)
    heaviest = mixture_hits(plain_NN[share_NN.argmax(axis=1)], share_NN)

    def rate(values_N: np.ndarray, chance: float, plain_N: np.ndarray) -> MixtureRate:
        found, plain = (
            mean_with_interval(each_N, subjects, seed=seed, num_resamples=num_resamples, is_share=True)
            for each_N in (values_N, plain_N)
        )
        return MixtureRate(rate=found, chance=chance, plain=plain)

    return MixtureReIdentificationRow(
        attack=attack,
        gallery_size=score_NN.shape[1],
        num_epochs=num_epochs,
        mean_people=float((share_NN > 0).sum(axis=1).mean()),
        anybody=rate(hits.anybody_N, hits.chance_anybody, bound.anybody_N),
        heaviest=rate(hits.heaviest_N, hits.chance_heaviest, heaviest.heaviest_N),
        found=rate(hits.found_N, hits.chance_found, bound.found_N),
    )
