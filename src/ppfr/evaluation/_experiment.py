"""The description of an experiment: systems, measures and settings. Creating one runs nothing."""

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
    MixingMasker,
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
"""(number, rng) -> that many keys of simulated subjects."""

Held = Literal["float32", "int8"]
"""Number format in which a matcher stores templates."""

MakeMatcher = Callable[[np.ndarray, Sequence[SubjectKey], Held], Matcher]
"""((M, D) references, M keys, number format) -> a matcher that maps each probe under the key of every subject."""

ChooseKey = Callable[[np.ndarray, float, np.random.Generator], tuple[SubjectKey, int, bool]]
"""((D,) embedding, inversion threshold, rng) -> (key, number of keys tried, whether the key is below the threshold)."""


def provenance_of(card: ModelCard, *, used_as: str) -> Provenance:
    """The provenance that a network's model card states."""
    shared = {field.name for field in dataclasses.fields(Provenance)} - {"used_as"}
    return Provenance(used_as=used_as, **{name: getattr(card, name) for name in shared})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedSystem:
    """Result of training a system.

    Attributes:
        embedder: masked image -> embedding, on the device that it runs on.
        fits: one entry per run of the training loop, as returned by `FitRecord.as_dict`; may be empty.
        exposed: masks and mixes images as in the training, for adversaries who see mixed images; None without mixing.
    """

    embedder: Embedder
    fits: Sequence[Mapping[str, Any]] = ()
    exposed: MixingMasker | None = None


class SystemTraining(Protocol):
    """How the recogniser of a system is trained."""

    @property
    def provenance(self) -> Sequence[Provenance]:
        """Provenance of the pretrained networks that are used, available before training."""
        ...

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed with each other. If so, `TrainedSystem.exposed` is not None."""
        ...

    def public_config(self) -> Mapping[str, Any]:
        """Everything that the result depends on, ready for JSON."""
        ...

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        """Train on `images`, masked by `masker`. With `options.resumes`, a finished training is loaded."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeySelection:
    """Choice of keys at enrolment such that a solver fails on the template.

    Attributes:
        choose: chooses the key of one subject.
        fmr: the inversion threshold is the threshold of the recogniser at this false match rate.
        in_words: the rule, for the report.
    """

    choose: ChooseKey
    in_words: str
    fmr: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateProtection:
    """The template protection of a system.

    Attributes:
        scheme: creates templates.
        draw_keys: draws keys of simulated subjects from the seed of the run. Real keys come from the operating system.
        is_keyed: whether templates depend on the key; False for the controls.
        selection: how keys are chosen, or None for keys as drawn. Choosing costs one solve per candidate, so it is done
            only for the target subjects, and attacks are the only measures of such a system.
        matcher: creates the 1:N matcher of the system; None for a loop over subjects, which is slow.
    """

    scheme: TemplateScheme
    draw_keys: DrawKeys
    is_keyed: bool = True
    selection: KeySelection | None = None
    matcher: MakeMatcher | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """One system under evaluation.

    It is a masker with a recogniser that is trained for it, or a template protection of the embeddings of an evaluation
    recogniser or of another system that is trained. Several template protections can share one training in this way.

    Attributes:
        name: short and unique, for example "ppfr-fd".
        label: for tables, for example "PPFR-FD".
        role: "baseline" (unprotected), "protected", or "control" (attacked, but useless for recognition, for example
            the constant masker).
        masker: runs on the client, with the secret of the deployment; None for a system that protects only templates.
        training: how the recogniser is trained; None for controls, for templates, and in experiments without training
            images, which attack systems but do not measure their accuracy.
        recogniser: name of the evaluation recogniser, or of the trained system listed before, whose embeddings are
            protected; "" if `training` provides one.
        templates: the template protection, or None.
        baseline: name of the system that accuracy is compared with, or None.
        published: figures published by the authors of the method.
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
        """Whether the protection has a secret, which an adversary may or may not know."""
        if self.templates is not None:
            return self.templates.is_keyed
        return self.masker is not None and self.masker.spec.is_keyed

    @property
    def recognises(self) -> bool:
        """Whether the system can verify, so that it has an accuracy."""
        if self.templates is not None:
            return self.templates.selection is None
        return self.training is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationRecogniser:
    """A recogniser of plain faces that decides whether two images show one person.

    Attributes:
        name: short and unique.
        label: for tables.
        embedder: plain image in [0, 1] -> embedding.
        provenance: pretraining provenance.
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
        text: the question that it answers, for example "What do the colour channels give under noise?".
        system: name of the system with the part.
        against: name of the same system without the part.
    """

    name: str
    text: str
    system: str
    against: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experiment:
    """Everything that a run needs. Use `dataclasses.replace` to create a variant.

    Attributes:
        name: for example "spine:lfw".
        title: heading of the report.
        summary: one or two sentences for the head of the report.
        preset: name of the preset, or "".
        command: the command line that runs the experiment.
        seed: seeds every random draw.
        people: "real" or "synthetic".
        systems: systems under evaluation. List a baseline before the systems that are compared with it.
        measures: in the order in which they run.
        recognisers: evaluation recognisers that systems and attacks refer to by name.
        comparisons: paired comparisons of systems, in addition to those with their baselines.
        training_images: recognisers train on them; they share no subject with any protocol. None if nothing is trained.
        num_resamples: bootstrap resamples per interval.
        batch_size: images masked and embedded at a time. Random numbers are drawn per batch, so figures of stochastic
            maskers depend on it.
        mirrors_input: also embed each mirrored input and add the embeddings. A mirrored masked image is computed from
            the one masked image (`ImageMasker.mirrored`); an experiment whose maskers do not support it is refused.
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
    mirrors_input: bool = False

    def system(self, name: str) -> System:
        """The system of that name."""
        return next(system for system in self.systems if system.name == name)

    def recogniser(self, name: str) -> EvaluationRecogniser:
        """The evaluation recogniser of that name."""
        return next(recogniser for recogniser in self.recognisers if recogniser.name == name)

    def embedded_by(self, system: System) -> EvaluationRecogniser | System:
        """The source of the embeddings that a system compares or protects.

        It is the system itself, or the trained system or evaluation recogniser that its template protection names.
        """
        if system.templates is None:
            return system
        named = [each for each in self.recognisers if each.name == system.recogniser]
        return named[0] if named else self.system(system.recogniser)
