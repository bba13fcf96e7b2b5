"""The methods in the tables of the AdaMixUp paper, with their published results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

PAPER = "arXiv 2403.10558, table"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method of the tables.

    Attributes:
        name: name of the system.
        label: for tables.
        masks: masker of each image: "none", "ppfr-fd", "frequency" (all channels, including DC) or "peep".
        mixing: None, a method and a number of images such as ("mixup", 2), or the candidate set of AdaMixUp.
        learns_from: "labels", "teacher" or "both": what a fine-tuned recogniser learns from after its stem is trained.
        published: measure -> published result; accuracies as shares.
    """

    name: str
    label: str
    masks: str
    mixing: tuple[str, int] | tuple[int, ...] | None = None
    learns_from: str = "both"
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def flips_signs(self) -> bool:
        """Whether outputs have random signs, as with InstaHide."""
        return self.mixing is not None and self.mixing[0] == "instahide"


def _table2(scores: tuple[float, float, float] | None, *accuracies: float) -> dict[str, float]:
    names = ("lfw", "cfp-fp", "agedb-30", "calfw")
    found = {f"accuracy on {name}": value / 100 for name, value in zip(names, accuracies, strict=True)}
    if scores is not None:
        found |= dict(zip(("total score", "privacy score", "accuracy score"), scores, strict=True))
    return found


def _shares(*shares: float) -> dict[str, float]:
    return {f"share of mixup-{k}": share for k, share in enumerate(shares, 2)}


BASELINE = Row(
    name="arcface", label="No mask", masks="none", published=_table2(None, 99.23, 96.26, 95.53, 94.92)
)  # fmt: skip
ADAPTIVE: tuple[Row, ...] = (
    Row(
        name="adamixup-2-6",
        label="Masking + AdaMixUp 2-6",
        masks="ppfr-fd",
        mixing=(2, 3, 4, 5, 6),
        published=_table2((0.968, 0.979, 0.957), 96.15, 93.63, 94.73, 91.20) | _shares(0.17, 0.25, 0.13, 0.26, 0.19),
    ),
    Row(
        name="adamixup-2-5",
        label="Masking + AdaMixUp 2-5",
        masks="ppfr-fd",
        mixing=(2, 3, 4, 5),
        published=_table2((0.981, 0.975, 0.987), 98.20, 95.29, 95.11, 93.25) | _shares(0.21, 0.28, 0.16, 0.35),
    ),
    Row(
        name="adamixup-2-4",
        label="Masking + AdaMixUp 2-4",
        masks="ppfr-fd",
        mixing=(2, 3, 4),
        published=_table2((0.959, 0.925, 0.992), 98.43, 95.33, 95.18, 93.71) | _shares(0.31, 0.44, 0.25),
    ),
)
_FIXED_PUBLISHED: Mapping[int, tuple[tuple[float, float, float], tuple[float, float, float, float]]] = MappingProxyType(
    {
        2: ((0.912, 0.825, 0.999), (98.92, 95.29, 95.66, 94.03)),
        3: ((0.940, 0.892, 0.989), (98.20, 94.81, 95.03, 93.38)),
        4: ((0.877, 0.975, 0.779), (84.62, 80.07, 80.62, 77.90)),
        5: ((0.796, 0.988, 0.605), (73.31, 69.51, 68.55, 66.49)),
        6: ((0.750, 1.000, 0.500), (66.53, 63.35, 65.83, 63.07)),
    }
)
FIXED: tuple[Row, ...] = tuple(
    Row(
        name=f"mixup-{k}",
        label=f"Masking + MixUp {k}",
        masks="ppfr-fd",
        mixing=("mixup", k),
        published=_table2(scores, *accuracies),
    )
    for k, (scores, accuracies) in _FIXED_PUBLISHED.items()
)
OTHERS: tuple[Row, ...] = (
    Row(
        name="mixup-fd",
        label="MixUp-FD 2",
        masks="frequency",
        mixing=("mixup", 2),
        published=_table2((0.749, 0.500, 0.997), 98.76, 95.22, 94.92, 93.88),
    ),
    Row(
        name="ppfr-fd",
        label="PPFR-FD",
        masks="ppfr-fd",
        published=_table2((0.806, 0.613, 1.000), 98.93, 95.54, 95.08, 93.65),
    ),
    Row(
        name="dp",
        label="DP (PEEP), eps 3",
        masks="peep",
        published=_table2((0.753, 0.917, 0.590), 72.36, 69.71, 68.54, 66.80),
    ),
    Row(
        name="instahide-fd",
        label="InstaHide-FD 2",
        masks="frequency",
        mixing=("instahide", 2),
        published=_table2((0.733, 0.713, 0.753), 82.93, 77.01, 76.76, 73.13),
    ),
)
TABLE1: tuple[Row, ...] = (
    Row(
        name="mixup-rgb",
        label="MixUp 2, RGB",
        masks="none",
        mixing=("mixup", 2),
        published={"accuracy on lfw": 0.8638},
    ),
    Row(
        name="mixup-fd",
        label="MixUp 2, frequency",
        masks="frequency",
        mixing=("mixup", 2),
        published={"accuracy on lfw": 0.9876},
    ),
    Row(
        name="instahide-rgb",
        label="InstaHide 2, RGB",
        masks="none",
        mixing=("instahide", 2),
        published={"accuracy on lfw": 0.6175},
    ),
    Row(
        name="instahide-fd",
        label="InstaHide 2, frequency",
        masks="frequency",
        mixing=("instahide", 2),
        published={"accuracy on lfw": 0.8293},
    ),
)
SUPERVISION: tuple[Row, ...] = (
    Row(
        name="adamixup-2-5-labels",
        label="Masking + AdaMixUp 2-5, from mixed labels alone",
        masks="ppfr-fd",
        mixing=(2, 3, 4, 5),
        learns_from="labels",
    ),
    Row(
        name="adamixup-2-5-teacher",
        label="Masking + AdaMixUp 2-5, from mixed embeddings alone",
        masks="ppfr-fd",
        mixing=(2, 3, 4, 5),
        learns_from="teacher",
    ),
)
