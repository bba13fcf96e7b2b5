"""What an experiment is: systems, and measures that answer questions about them; nothing has run yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ppfr.core import (
    Embedder,
    ImageMasker,
    ImageSet,
    Matcher,
    Provenance,
    PublishedFigure,
    RunOptions,
    SubjectKey,
    SystemRole,
    TemplateScheme,
)

if TYPE_CHECKING:
    from ppfr.evaluation._measure import Measure
    from ppfr.models import ModelCard

SYSTEM_ROLES = ("baseline", "protected", "control")

DrawKeys = Callable[[int, np.random.Generator], Sequence[SubjectKey]]
"""(number, rng) -> so many keys of simulated subjects."""

Held = Literal["float32", "int8"]
"""How a matcher holds templates."""

MakeMatcher = Callable[[np.ndarray, Sequence[SubjectKey], Held], Matcher]
"""((M, D) references, M keys, how templates are held) -> a matcher that maps a probe under every subject's own key."""

ChooseKey = Callable[[np.ndarray, float, np.random.Generator], tuple[SubjectKey, int, bool]]
"""((D,) embedding, inversion threshold, rng) -> a key, how many were tried, whether it lies below the threshold."""


def provenance_of(card: ModelCard, *, used_as: str) -> Provenance:
    """The provenance that a network's model card states."""
    shared = {field.name for field in dataclasses.fields(Provenance)} - {"used_as"}
    return Provenance(used_as=used_as, **{name: getattr(card, name) for name in shared})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedSystem:
    """Outcome of training a system.

    Attributes:
        embedder: masked image -> embedding, on the device that it runs on.
        fits: one entry per run of the training loop, as `FitRecord.as_dict` gives it; may be empty.
        exposed: the training set as it was trained on, masked and mixed, for adversaries who see mixed images; None
            where nothing was mixed.
    """

    embedder: Embedder
    fits: Sequence[Mapping[str, Any]] = ()
    exposed: ImageMasker | None = None


class SystemTraining(Protocol):
    """How the recogniser of a system comes about."""

    @property
    def provenance(self) -> Sequence[Provenance]:
        """The pretrained networks that go in, known before anything is trained."""
        ...

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other, so that `TrainedSystem.exposed` will be there."""
        ...

    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready: everything that the result depends on."""
        ...

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        """Train on `images` as seen through `masker`; with `options.resumes`, return at once if that was done."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeySelection:
    """Keys are chosen at enrolment so that a solver fails on the template.

    Attributes:
        choose: chooses the key of one subject.
        fmr: the inversion threshold is the recogniser's at this false match rate.
        in_words: the rule, for the report.
    """

    choose: ChooseKey
    in_words: str
    fmr: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateProtection:
    """The template protection of a system.

    Attributes:
        scheme: makes templates.
        draw_keys: keys of simulated subjects from the run's seed; real keys come from the operating system.
        is_keyed: templates depend on the key; False for the controls.
        selection: how keys are chosen, or None for keys as drawn. Choosing costs one solve per candidate, so it is done
            for the target subjects alone, and such a system is attacked and nothing else.
        matcher: makes the system's own 1:N matcher; None for a plain loop over subjects, which is slow.
    """

    scheme: TemplateScheme
    draw_keys: DrawKeys
    is_keyed: bool = True
    selection: KeySelection | None = None
    matcher: MakeMatcher | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """One system under evaluation.

    It is a masker with a recogniser that is trained for it, or templates of an evaluation recogniser's embeddings.

    Attributes:
        name: short and unique, as in "ppfr-fd".
        label: for tables, as in "PPFR-FD".
        role: "baseline", "protected", or "control" (attacked, but of no use, as the constant masker).
        masker: the client's side, with the deployment's secret; None for a system that protects templates alone.
        training: how the recogniser comes about; None for controls and for templates.
        recogniser: name of the evaluation recogniser whose embeddings are protected; "" if `training` gives one.
        templates: the template protection, or None.
        baseline: name of the system that accuracy is compared with, or None.
        published: figures of the method's authors.
    """

    name: str
    label: str
    role: SystemRole
    masker: ImageMasker | None = None
    training: SystemTraining | None = None
    recogniser: str = ""
    templates: TemplateProtection | None = None
    baseline: str | None = None
    published: Sequence[PublishedFigure] = ()

    @property
    def is_keyed(self) -> bool:
        """Whether the protection has a secret, so that an adversary may or may not know it."""
        if self.templates is not None:
            return self.templates.is_keyed
        return self.masker is not None and self.masker.spec.is_keyed

    @property
    def recognises(self) -> bool:
        """Whether the system compares people, so that it has an accuracy."""
        if self.templates is not None:
            return self.templates.selection is None
        return self.training is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationRecogniser:
    """A recogniser of plain faces that says whether two pictures show one person.

    Attributes:
        name: short and unique.
        label: for tables.
        embedder: plain image in [0, 1] -> embedding.
        provenance: what it was trained on.
    """

    name: str
    label: str
    embedder: Embedder
    provenance: Sequence[Provenance] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A paired comparison of two systems that differ in one part of a method (an ablation).

    Attributes:
        name: short and unique.
        text: the question that it answers, as in "What do the colour channels give under noise?".
        system: name of the system that has the part.
        against: name of the system that has it not, and is the same otherwise.
    """

    name: str
    text: str
    system: str
    against: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experiment:
    """Everything that a run needs; a variant is `dataclasses.replace`.

    Attributes:
        name: as in "spine:lfw".
        title: heading of the report.
        summary: one or two sentences for its head.
        preset: name of the preset, or "".
        command: the command line that runs this.
        seed: root of every draw.
        people: "real" or "synthetic".
        systems: what is evaluated; baselines before the systems that are compared with them.
        measures: the questions, in the order in which they run.
        recognisers: evaluation recognisers that systems and attacks name.
        comparisons: paired comparisons of systems beside those with their baselines.
        training_images: what recognisers train on; shares no subject with any protocol. None if nothing is trained.
        num_resamples: bootstrap resamples behind each interval.
        batch_size: images masked and embedded at a time; fresh randomness is drawn per batch, so figures of stochastic
            maskers depend on it.
        adds_mirrored: embed each image and its mirror image, masked apart, and add the embeddings.
    """

    name: str
    title: str
    summary: str = ""
    preset: str = ""
    command: str
    seed: int
    people: str
    systems: Sequence[System]
    measures: Sequence[Measure]
    recognisers: Sequence[EvaluationRecogniser] = ()
    comparisons: Sequence[Comparison] = ()
    training_images: ImageSet | None = None
    num_resamples: int = 1000
    batch_size: int = 64
    adds_mirrored: bool = False

    def system(self, name: str) -> System:
        """The system of that name."""
        return next(system for system in self.systems if system.name == name)

    def recogniser(self, name: str) -> EvaluationRecogniser:
        """The evaluation recogniser of that name."""
        return next(recogniser for recogniser in self.recognisers if recogniser.name == name)
