"""One sitting of a run on templates: embeddings, the simulated subjects' keys, and templates under them.

Suffixes: N rows, D embedding, K template values, S subjects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ppfr.core import KEY_KEPT, KEY_STOLEN, ImageSet, SubjectKey, derive_seed
from ppfr.evaluation._embedding import Embedding
from ppfr.evaluation._experiment import Judge
from ppfr.evaluation._templates._experiment import TemplateArm, TemplateExperiment
from ppfr.evaluation._workspace import Workspace
from ppfr.metrics import far_caveat, threshold_at_far

STOLEN, KEPT = KEY_STOLEN, KEY_KEPT
SCENARIOS = (STOLEN, KEPT)
_MOST_IN_CROSS_COMPARISONS = 2000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class People:
    """The people of a 1:1 protocol; images are positions in `PairProtocol.used()`.

    Attributes:
        subjects: their ids, sorted.
        enrolled_S: the image that each is enrolled with, the first.
        another_S: their second image, or -1.
        third_S: their third image, or -1.
        is_claimed_S: they are claimed in a comparison, so that they have a template.
    """

    subjects: Sequence[str]
    enrolled_S: np.ndarray
    another_S: np.ndarray
    third_S: np.ndarray
    is_claimed_S: np.ndarray

    def with_two(self) -> np.ndarray:
        """Indices of those who have another image."""
        return np.flatnonzero(self.another_S >= 0)


def people_of(experiment: TemplateExperiment) -> People:
    """The people of the experiment's pairs."""
    pairs = experiment.pairs
    assert pairs is not None  # callers ask only where there are pairs
    ids = pairs.images.subject_ids
    images: dict[str, list[int]] = {}
    for position, index in enumerate(pairs.used().tolist()):
        images.setdefault(ids[index], []).append(position)
    subjects = sorted(images)
    claimed = {ids[index] for index in pairs.first.tolist()}
    return People(
        subjects=subjects,
        enrolled_S=np.array([images[s][0] for s in subjects]),
        another_S=np.array([images[s][1] if len(images[s]) > 1 else -1 for s in subjects]),
        third_S=np.array([images[s][2] if len(images[s]) > 2 else -1 for s in subjects]),
        is_claimed_S=np.array([s in claimed for s in subjects]),
    )


def num_cross_comparisons(num_people: int) -> int:
    """How many impostor comparisons the recogniser's thresholds rest on: of everybody with everybody, once."""
    num = min(num_people, _MOST_IN_CROSS_COMPARISONS)
    return num * (num - 1) // 2


class TemplateSession:
    """One sitting: the experiment, its folder, and what was already embedded or drawn in this process."""

    def __init__(self, experiment: TemplateExperiment, workspace: Workspace, *, device: torch.device) -> None:
        self.experiment, self.workspace = experiment, workspace
        self._embedding = Embedding(experiment, device=device)
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._keys: dict[tuple[str, int], Sequence[SubjectKey]] = {}
        self._selected: dict[str, tuple[Sequence[SubjectKey], dict[str, Any]]] = {}
        self._thresholds: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._people: People | None = None

    @property
    def people(self) -> People:
        """The people of the 1:1 protocol."""
        if self._people is None:
            self._people = people_of(self.experiment)
        return self._people

    def seed(self, *labels: str | int) -> int:
        """Root of the draws of one purpose."""
        return derive_seed(self.experiment.seed, *labels)

    # Embeddings

    def rows(self, judge: Judge, images: ImageSet, indices: Sequence[int]) -> np.ndarray:
        """(N, D) a recogniser's embeddings of plain images, computed once in a sitting."""
        key = (judge.name, images.name)
        if key not in self._rows:
            self._rows[key] = self._embedding.plain(judge.embedder, images, indices)
        return self._rows[key]

    def pair_rows(self, judge: Judge | None = None) -> np.ndarray:
        """(N, D) embeddings of the images of the 1:1 protocol, by position in `PairProtocol.used()`."""
        pairs = self.experiment.pairs
        assert pairs is not None
        return self.rows(judge or self.experiment.recogniser, pairs.images, pairs.used().tolist())

    def thresholds(self, judge: Judge) -> Sequence[Mapping[str, Any]]:
        """The recogniser's thresholds on plain embeddings, at each of `fmrs` and at those of key selections.

        Impostor comparisons are everybody's first image with everybody else's, of up to 2,000 people.
        """
        if judge.name not in self._thresholds:
            people, rows_ND = self.people, self.pair_rows(judge)
            few = np.unique(np.linspace(0, len(people.subjects) - 1, _MOST_IN_CROSS_COMPARISONS).astype(int))
            first_SD = rows_ND[people.enrolled_S[few]]
            impostor = (first_SD @ first_SD.T)[np.triu_indices(len(few), 1)]
            two = people.with_two()
            genuine = np.einsum("nd,nd->n", rows_ND[people.enrolled_S[two]], rows_ND[people.another_S[two]])
            self._thresholds[judge.name] = [
                {
                    "fmr": fmr,
                    "threshold": threshold_at_far(genuine, impostor, fmr),
                    "num_impostor": len(impostor),
                    "caveat": far_caveat(fmr, len(impostor), name="FMR"),
                }
                for fmr in self.asked_fmrs()
            ]
        return self._thresholds[judge.name]

    def threshold(self, judge: Judge, fmr: float) -> float:
        """One of `thresholds`."""
        return float(next(row["threshold"] for row in self.thresholds(judge) if row["fmr"] == fmr))

    def asked_fmrs(self) -> list[float]:
        """False match rates that a threshold is needed at."""
        chosen = [arm.selection.fmr for arm in self.experiment.arms if arm.selection is not None]
        return list(dict.fromkeys([*self.experiment.fmrs, *chosen]))

    # Keys and templates

    def keys(self, arm: TemplateArm, *, issue: int = 0) -> Sequence[SubjectKey]:
        """One key for each of `people.subjects`; `issue` counts how often they were enrolled anew.

        All arms draw from the same stream, so that schemes of one kind differ in nothing but what is compared.
        """
        if (arm.name, issue) not in self._keys:
            self._keys = {key: keys for key, keys in self._keys.items() if key[0] == arm.name}  # one arm at a time
            chooses = arm.selection is not None and issue == 0
            self._keys[arm.name, issue] = self.selected(arm)[0] if chooses else self._drawn(arm, issue)
        return self._keys[arm.name, issue]

    def selected(self, arm: TemplateArm) -> tuple[Sequence[SubjectKey], dict[str, Any]]:
        """Chosen keys for the victims, with the facts of the choice; the others keep theirs as drawn."""
        selection = arm.selection
        assert selection is not None
        if arm.name not in self._selected:
            threshold = self.threshold(self.experiment.recogniser, selection.fmr)
            keys, tried, below = list(self._drawn(arm, 0)), [], []
            for index in self.victims():
                row_D = self.pair_rows()[self.people.enrolled_S[index]].astype(np.float32)
                keys[index], num, is_below = selection.choose(row_D, threshold, self._stream("selection", int(index)))
                tried.append(num)
                below.append(is_below)
            facts = {
                "in_words": selection.in_words,
                "fmr": selection.fmr,
                "threshold": threshold,
                "num_people": len(tried),
                "mean_tried": float(np.mean(tried)),
                "share_below": float(np.mean(below)),
            }
            self._selected = {arm.name: (keys, facts)}
        return self._selected[arm.name]

    def _drawn(self, arm: TemplateArm, issue: int) -> Sequence[SubjectKey]:
        return arm.draw_keys(len(self.people.subjects), self._stream("keys", issue))

    def victims(self) -> np.ndarray:
        """Indices of the people who are attacked: drawn from those with two images who are claimed in a comparison."""
        found = np.flatnonzero((self.people.another_S >= 0) & self.people.is_claimed_S)
        return np.sort(self._stream("victims").choice(found, size=self.experiment.num_victims, replace=False))

    def _stream(self, *labels: str | int) -> np.random.Generator:
        return np.random.default_rng(self.seed("templates", *labels))

    def other_keys(self, arm: TemplateArm, num: int, purpose: str) -> Sequence[SubjectKey]:
        """Keys of people other than the 1:1 protocol's, or those that an adversary draws."""
        return arm.draw_keys(num, self._stream("other keys", purpose))


def templates_of(arm: TemplateArm, rows_ND: np.ndarray, keys: Sequence[SubjectKey]) -> np.ndarray:
    """(N, K) templates of norm 1 in double precision: what enrolling row i under key i gives, before it is rounded."""
    return unit(arm.scheme.mapping(keys).apply(np.asarray(rows_ND, dtype=np.float64)))


def unit(values_NK: np.ndarray) -> np.ndarray:
    """Rows of norm 1."""
    return np.asarray(values_NK / np.linalg.norm(values_NK, axis=1, keepdims=True))


def cosines(a_NK: np.ndarray, b_NK: np.ndarray) -> np.ndarray:
    """(N,) cosines of unit rows, within [-1, 1]."""
    return np.clip(np.einsum("nk,nk->n", a_NK, b_NK), -1.0, 1.0)
