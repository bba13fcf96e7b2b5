"""Templates of the people of one pair protocol: embeddings, simulated subjects' keys, thresholds, target subjects.

All measures of template protections share one study per protocol and process. Suffixes: N rows, D embedding,
K template values, S subjects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np

from ppfr.core import ImageSet, SubjectKey, TemplateMapping
from ppfr.evaluation._experiment import EvaluationRecogniser, System, TemplateProtection
from ppfr.evaluation._session import Session
from ppfr.metrics import far_caveat, threshold_at_far

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

OWN_FAR = 1e-3
"""FAR of the protected system's own threshold, at which old templates are compared after renewal."""
_MAX_CROSS_COMPARED = 2000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class People:
    """The people of a pair protocol. Images are given by their position in `PairProtocol.used()`.

    Attributes:
        subjects: their ids, sorted.
        enrolled_S: the first image of each, which is enrolled.
        another_S: their second image, or -1.
        third_S: their third image, or -1.
        is_claimed_S: whether they are claimed in a comparison, and therefore have a template.
    """

    subjects: Sequence[str]
    enrolled_S: np.ndarray
    another_S: np.ndarray
    third_S: np.ndarray
    is_claimed_S: np.ndarray

    def with_two(self) -> np.ndarray:
        """Indices of people with a second image."""
        return np.flatnonzero(self.another_S >= 0)

    def attackable(self) -> np.ndarray:
        """Indices of people who have a second image and are claimed in a comparison."""
        return np.flatnonzero((self.another_S >= 0) & self.is_claimed_S)


def people_of(pairs: PairProtocol) -> People:
    """The people of a pair protocol."""
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
    """Number of impostor comparisons behind a recogniser's threshold: each pair of people once."""
    num = min(num_people, _MAX_CROSS_COMPARED)
    return num * (num - 1) // 2


def num_targets_problem(num: int, num_people: int) -> str:
    """The problem of a number of target subjects that the protocol does not have."""
    return f"{num} target subjects; {num_people} claimed people have two images or more: allowed is 2 to {num_people}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecogniserThreshold:
    """A recogniser's threshold on plain embeddings at a false match rate, and the comparisons behind it."""

    fmr: float
    threshold: float
    num_impostor: int
    caveat: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SelectedKeys:
    """Keys of all subjects; those of target subjects were selected, the others are as drawn."""

    keys: Sequence[SubjectKey]
    threshold: float
    num_people: int
    mean_tried: float
    share_below: float


class TemplateStudy:
    """What measures of templates share; `study_of` creates it."""

    def __init__(self, session: Session, pairs: PairProtocol) -> None:
        self._session, self.pairs = session, pairs
        self.people = people_of(pairs)
        self._keys: dict[tuple[str, int], Sequence[SubjectKey]] = {}
        self._selected: dict[str, SelectedKeys] = {}
        self._thresholds: dict[tuple[str, float], RecogniserThreshold] = {}

    # Embeddings

    def recogniser_of(self, system: System) -> EvaluationRecogniser:
        """The evaluation recogniser whose embeddings a system protects."""
        return self._session.experiment.recogniser(system.recogniser)

    def rows(self, recogniser: EvaluationRecogniser) -> np.ndarray:
        """(N, D) embeddings of the protocol's images, by position in `PairProtocol.used()`."""
        used = self.pairs.used().tolist()
        return self._session.plain_embeddings(recogniser, self.pairs.images, used, name=f"protocol/{self.pairs.name}")

    def rows_of(self, system: System) -> np.ndarray:
        """(N, D) embeddings that a system compares or protects."""
        return self._session.embeddings(system, self.pairs)

    def all_rows(self, recogniser: EvaluationRecogniser, images: ImageSet, indices: Sequence[int]) -> np.ndarray:
        """(N, D) embeddings of other images."""
        return self._session.plain_embeddings(recogniser, images, indices)

    def threshold(self, recogniser: EvaluationRecogniser, fmr: float) -> RecogniserThreshold:
        """The recogniser's threshold on plain embeddings.

        Impostor comparisons pair the first images of all people, or of 2,000 of them.
        """
        key = (recogniser.name, fmr)
        if key not in self._thresholds:
            people, rows_ND = self.people, self.rows(recogniser)
            chosen = np.unique(np.linspace(0, len(people.subjects) - 1, _MAX_CROSS_COMPARED).astype(int))
            first_SD = rows_ND[people.enrolled_S[chosen]]
            impostor = (first_SD @ first_SD.T)[np.triu_indices(len(chosen), 1)]
            two = people.with_two()
            genuine = np.einsum("nd,nd->n", rows_ND[people.enrolled_S[two]], rows_ND[people.another_S[two]])
            self._thresholds[key] = RecogniserThreshold(
                fmr=fmr,
                threshold=float(threshold_at_far(genuine, impostor, fmr)),
                num_impostor=len(impostor),
                caveat=far_caveat(fmr, len(impostor), name="FMR"),
            )
        return self._thresholds[key]

    # Keys and templates

    def keys(self, system: System, *, renewal: int = 0, num_targets: int = 0) -> Sequence[SubjectKey]:
        """One key per subject.

        All systems draw from the same stream, so schemes of one kind differ only in the compared parameter.

        Args:
            system: a system with template protection.
            renewal: how often the subjects were re-enrolled.
            num_targets: number of target subjects, for a system whose keys are selected.
        """
        if (system.name, renewal) not in self._keys:
            kept = {key: keys for key, keys in self._keys.items() if key[0] == system.name}  # one system at a time
            self._keys = kept
            is_selected = protection_of(system).selection is not None and renewal == 0
            drawn = self.selected(system, num_targets).keys if is_selected else self._drawn(system, renewal)
            self._keys[system.name, renewal] = drawn
        return self._keys[system.name, renewal]

    def selected(self, system: System, num_targets: int) -> SelectedKeys:
        """Select keys for the target subjects; the others keep theirs as drawn."""
        selection = protection_of(system).selection
        assert selection is not None
        if system.name not in self._selected:
            threshold = self.threshold(self.recogniser_of(system), selection.fmr).threshold
            keys, tried, below = list(self._drawn(system, 0)), [], []
            for index in self.targets(num_targets):
                row_D = self.rows_of(system)[self.people.enrolled_S[index]].astype(np.float32)
                keys[index], num, is_below = selection.choose(row_D, threshold, self._stream("selection", int(index)))
                tried.append(num)
                below.append(is_below)
            self._selected = {
                system.name: SelectedKeys(
                    keys=keys,
                    threshold=threshold,
                    num_people=len(tried),
                    mean_tried=float(np.mean(tried)),
                    share_below=float(np.mean(below)),
                )
            }
        return self._selected[system.name]

    def other_keys(self, system: System, num: int, purpose: str) -> Sequence[SubjectKey]:
        """Keys of people other than the protocol's, or those that an adversary draws."""
        return other_keys(self._session, system, num, purpose)

    def targets(self, num: int) -> np.ndarray:
        """Indices of target subjects, drawn from `People.attackable`."""
        return np.sort(self._stream("victims").choice(self.people.attackable(), size=num, replace=False))

    def _drawn(self, system: System, renewal: int) -> Sequence[SubjectKey]:
        return protection_of(system).draw_keys(len(self.people.subjects), self._stream("keys", renewal))

    def _stream(self, *labels: str | int) -> np.random.Generator:
        return np.random.default_rng(self._session.seed("templates", *labels))

    # Comparisons

    def compared(self, system: System, *, is_stolen: bool, renewal: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) enrolled templates of the protocol's pairs, and (N, K) the probes that they are compared with.

        The first image is enrolled under its subject's key. The second is mapped under the claimed subject's key
        (`is_stolen`) or under its own subject's. A system without template protection compares embeddings.
        """
        rows_ND, used = self.rows_of(system), self.pairs.used()
        a_N, b_N = np.searchsorted(used, self.pairs.first), np.searchsorted(used, self.pairs.second)
        if system.templates is None:
            return rows_ND[a_N], rows_ND[b_N]
        keys = self.keys(system, renewal=renewal)
        ids, place = self.pairs.images.subject_ids, {s: i for i, s in enumerate(self.people.subjects)}
        claimed = [place[ids[index]] for index in self.pairs.first.tolist()]
        own = [place[ids[index]] for index in self.pairs.second.tolist()]
        template_NK = templates_of(system, rows_ND[a_N], [keys[i] for i in claimed])
        used_keys = claimed if is_stolen else own
        return template_NK, templates_of(system, rows_ND[b_N], [keys[i] for i in used_keys])

    def scores(self, system: System, *, is_stolen: bool, renewal: int = 0) -> np.ndarray:
        """(N,) cosines of `compared`."""
        return cosines(*self.compared(system, is_stolen=is_stolen, renewal=renewal))

    def own_threshold(self, scores_N: np.ndarray) -> float:
        """Threshold of the protected system at `OWN_FAR`, from the protocol's impostors."""
        is_genuine_N = self.pairs.is_genuine
        return float(threshold_at_far(scores_N[is_genuine_N], scores_N[~is_genuine_N], OWN_FAR))


def study_of(session: Session, pairs: PairProtocol) -> TemplateStudy:
    """The study of a protocol; one per process."""
    return session.once(("template study", pairs.name), lambda: TemplateStudy(session, pairs))


def other_keys(session: Session, system: System, num: int, purpose: str) -> Sequence[SubjectKey]:
    """Keys drawn for one purpose, other than the keys of a protocol's people."""
    rng = np.random.default_rng(session.seed("templates", "other keys", purpose))
    return protection_of(system).draw_keys(num, rng)


@final
class GuessedMapping:
    """A `TemplateMapping` under keys that the adversary drew, because it does not have the real ones."""

    def __init__(self, mapping: TemplateMapping) -> None:
        self._mapping = mapping

    @property
    def num_rows(self) -> int:
        """N."""
        return self._mapping.num_rows

    @property
    def in_dim(self) -> int:
        """D."""
        return self._mapping.in_dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._mapping.out_dim

    @property
    def is_deployed(self) -> bool:
        """Never."""
        return False

    def apply(self, embeddings_ND: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, K)."""
        return self._mapping.apply(embeddings_ND)

    def pullback(self, embeddings_ND: np.ndarray, gradient_NK: np.ndarray) -> np.ndarray:
        """(N, D): gradient with respect to the embeddings."""
        return self._mapping.pullback(embeddings_ND, gradient_NK)

    def rows(self, indices: Sequence[int]) -> TemplateMapping:
        """The same for some rows."""
        return GuessedMapping(self._mapping.rows(indices))


def protection_of(system: System) -> TemplateProtection:
    """The template protection of a system, which must have one."""
    assert system.templates is not None  # measures check this first
    return system.templates


def templates_of(system: System, rows_ND: np.ndarray, keys: Sequence[SubjectKey]) -> np.ndarray:
    """(N, K) templates of norm 1: row i enrolled under key i, in double precision, before rounding."""
    return unit(protection_of(system).scheme.mapping(keys).apply(np.asarray(rows_ND, dtype=np.float64)))


def unit(values_NK: np.ndarray) -> np.ndarray:
    """Rows divided by their norms."""
    return np.asarray(values_NK / np.linalg.norm(values_NK, axis=1, keepdims=True))


def cosines(a_NK: np.ndarray, b_NK: np.ndarray) -> np.ndarray:
    """(N,) cosines of unit rows, within [-1, 1]."""
    result: np.ndarray = np.clip(np.einsum("nk,nk->n", a_NK, b_NK), -1.0, 1.0)
    return result
