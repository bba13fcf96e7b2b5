"""Data of experiments: training images, pair protocols and an evaluation recogniser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ppfr.assets import data_root
from ppfr.core import ImageSet, MissingAssetError
from ppfr.data import (
    PairProtocol,
    StoredImageSet,
    read_cfp,
    read_insightface_bin,
    read_lfw,
    read_rec,
    training_split_for_cfp,
    training_split_for_lfw,
)
from ppfr.experiments._context import Budget, ExperimentContext
from ppfr.experiments.spine._experiments import (
    ATTACKERS_FROM,
    RECOGNISER,
    RECOGNISER_FROM,
    synthetic_people,
    synthetic_recogniser,
)
from ppfr.models import Backbone, Lpips, ModelCard, load_pretrained
from ppfr.systems import FromScratch, TrainingStrategy, synthetic_protocol
from ppfr.training import OptimizerSettings

_PACKAGE_SETS = {"lfw": "lfw", "cfp_fp": "cfp-fp", "agedb_30": "agedb-30", "calfw": "calfw"}
_FAST_PEOPLE, _FAST_IMAGES, _FAST_PAIRS = 20, 4, 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Testbed:
    """Faces and an evaluation recogniser. Training and public images share no subject with a protocol.

    Attributes:
        people: "real" or "synthetic".
        protocols: pair protocols; target subjects come from the first.
        images: images that recognisers train on.
        public: images that attacks train on.
        recogniser: evaluation recogniser of plain faces, and its card.
        lpips: distance of two batches of images, or None.
    """

    people: str
    protocols: Sequence[PairProtocol]
    images: ImageSet
    public: ImageSet
    recogniser: tuple[Backbone, ModelCard]
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None


def lfw_testbed(context: ExperimentContext) -> Testbed:
    """The 6,000 pairs of LFW. Everything is trained on people who are in none of these pairs.

    Raises:
        MissingAssetError: LFW, CFP or a public network is not available.
    """
    root = data_root(context.data)
    return _real_testbed(context, protocols=[read_lfw(root)], images=training_split_for_lfw(root))


def cfp_testbed(context: ExperimentContext) -> Testbed:
    """CFP frontal-frontal and frontal-profile. Everything is trained on LFW without the people of CFP.

    Raises:
        MissingAssetError: LFW, CFP or a public network is not available.
    """
    root = data_root(context.data)
    protocols = [read_cfp(root, "FF"), read_cfp(root, "FP")]
    return _real_testbed(context, protocols=protocols, images=training_split_for_cfp(root))


def _real_testbed(context: ExperimentContext, *, protocols: Sequence[PairProtocol], images: StoredImageSet) -> Testbed:
    return Testbed(
        people="real",
        protocols=protocols,
        images=images,
        public=images,
        recogniser=load_pretrained(RECOGNISER, weights_dir=context.weights),
        lpips=Lpips.from_weights(weights_dir=context.weights).distance,
    )


def fast_testbed(context: ExperimentContext, strategy: TrainingStrategy) -> Testbed:
    """A few synthetic people, and a recogniser trained by `strategy`. It runs in seconds; figures are meaningless."""
    return Testbed(
        people="synthetic",
        protocols=[synthetic_protocol(num_pairs=_FAST_PAIRS)],
        images=synthetic_people(_FAST_PEOPLE, _FAST_IMAGES, first=0),
        public=synthetic_people(_FAST_PEOPLE, _FAST_IMAGES, first=ATTACKERS_FROM),
        recogniser=synthetic_recogniser(
            context, strategy, synthetic_people(_FAST_PEOPLE, _FAST_IMAGES, first=RECOGNISER_FROM)
        ),
        lpips=None,
    )


def small_strategy(budget: Budget) -> FromScratch:
    """A small network from scratch, for synthetic people."""
    return FromScratch(
        plan=budget.plan(budget.epochs, log_every_steps=1),
        network="mobilefacenet-small",
        head="cosface",
        scale=32.0,
        margin=0.2,
        optimizer=OptimizerSettings(optimizer="adamw", lr=4e-3, weight_decay=1e-2),
    )


def package_testbed(context: ExperimentContext, folder: str, *, title: str) -> Testbed:
    """A training set and the pair sets of its InsightFace package, which the user must provide.

    Args:
        context: arguments of the experiment.
        folder: folder of the package in the data directory.
        title: name of the data set, for the error message.

    Raises:
        MissingAssetError: lists all missing files.
    """
    where = data_root(context.data) / folder
    wanted = ["train.rec", "train.idx", *(f"{name}.bin" for name in _PACKAGE_SETS)]
    missing = [name for name in wanted if not (where / name).is_file()]
    if missing:
        raise MissingAssetError(
            ", ".join(missing),
            looked_in=[str(where)],
            remedy=f"Put the InsightFace package of {title} into {folder}/ of the data directory.",
        )
    images = read_rec(where / "train.rec", where / "train.idx")
    return Testbed(
        people="real",
        protocols=[
            dataclasses.replace(read_insightface_bin(where / f"{file}.bin"), name=name)
            for file, name in _PACKAGE_SETS.items()
        ],
        images=images,
        public=images,
        recogniser=load_pretrained(RECOGNISER, weights_dir=context.weights),
        lpips=Lpips.from_weights(weights_dir=context.weights).distance,
    )
