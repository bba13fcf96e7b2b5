"""Target subjects of attacks on masked images, and the plain images that outcomes are compared with.

Suffixes: C H W image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ppfr.core import ImageSet
from ppfr.evaluation._embedding import batches, read_images

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

_NUM_AVERAGED = 2048


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Target subjects: drawn from the people of one protocol who have two images or more.

    The adversary sees one image of each, masked. Another image, plain, is in the gallery.

    Attributes:
        num_subjects: number of people, which is also the size of the gallery.
        protocol: name of the protocol; "" for the first.
        num_pictured: number of people that the report shows.
    """

    num_subjects: int
    protocol: str = ""
    num_pictured: int = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTargets:
    """Drawn target subjects. Row by row: indices of the attacked image and of the image in the gallery."""

    seen: tuple[int, ...]
    gallery: tuple[int, ...]
    subjects: tuple[str, ...]


def eligible(protocol: PairProtocol) -> dict[str, list[int]]:
    """Image indices by subject, for people of a protocol who have two images or more."""
    by_subject: dict[str, list[int]] = {}
    for index in protocol.used().tolist():
        by_subject.setdefault(protocol.images.subject_ids[index], []).append(index)
    return {subject: indices for subject, indices in sorted(by_subject.items()) if len(indices) >= 2}


def target_protocol(protocols: Sequence[PairProtocol], targets: Targets) -> PairProtocol:
    """The protocol that target subjects are drawn from."""
    return next(p for p in protocols if not targets.protocol or p.name == targets.protocol)


def target_problems(protocols: Sequence[PairProtocol], targets: Targets) -> Iterator[str]:
    """Target subjects that the protocols do not have."""
    wanted, names = targets.protocol, [p.name for p in protocols]
    if not names:
        yield "there are attacks, but no protocol to draw target subjects from"
        return
    if wanted and wanted not in names:
        yield f"target subjects come from protocol {wanted!r}, which is not in the measure"
        return
    num, found = targets.num_subjects, len(eligible(target_protocol(protocols, targets)))
    if not 2 <= num <= found:
        yield f"{num} target subjects; {found} people have two images or more: allowed is 2 to {found}"
    elif num < 5:
        yield f"{num} target subjects; rank-5 needs a gallery of at least 5"


def choose_targets(protocol: PairProtocol, num_subjects: int, *, rng: np.random.Generator) -> ChosenTargets:
    """Draw people, and for each an image to attack and another one for the gallery."""
    found = eligible(protocol)
    people = sorted(found)
    drawn = rng.permutation(len(people))[:num_subjects]
    seen, gallery, subjects = [], [], []
    for place in drawn.tolist():
        first, second = rng.permutation(found[people[place]])[:2].tolist()
        seen.append(first)
        gallery.append(second)
        subjects.append(people[place])
    return ChosenTargets(seen=tuple(seen), gallery=tuple(gallery), subjects=tuple(subjects))


def average_face(public: ImageSet) -> np.ndarray:
    """(3, H, W) mean of up to 2,048 public faces, in [0, 1]."""
    spread = np.unique(np.linspace(0, len(public) - 1, min(_NUM_AVERAGED, len(public))).astype(int)).tolist()
    total = sum(
        read_images(public, batch, device=torch.device("cpu")).double().sum(dim=0) for batch in batches(spread, 64)
    )
    assert isinstance(total, torch.Tensor)
    return (total / len(spread)).float().numpy()
