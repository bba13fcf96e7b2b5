"""The measures of every experiment on masked images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ppfr.core import ImageSet
from ppfr.data import PairProtocol
from ppfr.evaluation import (
    AccuracyGaps,
    Cost,
    GalleryAttackPlan,
    GalleryAttacks,
    ImageAttackPlan,
    ImageAttacks,
    Measure,
    Rendering,
    Targets,
    Training,
    Verification,
)


def image_measures(
    protocols: Sequence[PairProtocol],
    *,
    plans: Sequence[ImageAttackPlan] = (),
    gallery_plans: Sequence[GalleryAttackPlan] = (),
    public: ImageSet | None = None,
    num_targets: int = 0,
    num_pictured: int = 8,
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    renderings: Sequence[Rendering] = (),
) -> list[Measure]:
    """Training, verification, gaps and cost; with `plans`, also attacks on masked images.

    Args:
        protocols: pair protocols; target subjects come from the first.
        plans: the trained attacks.
        gallery_plans: the attacks without training, which run first; with `plans` only.
        public: faces that attacks train on; required with `plans`.
        num_targets: number of target subjects.
        num_pictured: number of target subjects that the report shows.
        lpips: distance of two batches of images, or None.
        renderings: renderings of masked images beside the default one.
    """
    measures: list[Measure] = [
        Training(),
        Verification(protocols=protocols),
        Cost(),
        AccuracyGaps(protocols=protocols),
    ]
    if plans:
        assert public is not None  # required with plans
        targets = Targets(num_subjects=num_targets, num_pictured=num_pictured)
        if gallery_plans:
            measures.append(
                GalleryAttacks(plans=gallery_plans, protocols=protocols, targets=targets, public_images=public)
            )
        measures.append(
            ImageAttacks(
                plans=plans,
                protocols=protocols,
                targets=targets,
                public_images=public,
                lpips=lpips,
                renderings=renderings,
            )
        )
    return measures
