"""What an experiment is: systems under test, adversaries, people to test and to attack, judges; nothing has run yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from ppfr.core import Attack, Embedder, ImageMasker, ImageSet, ThreatModel

if TYPE_CHECKING:
    import numpy as np

    from ppfr.data import PairProtocol
    from ppfr.models import ModelCard

ARM_ROLES = ("baseline", "protected", "control")
ATTACK_ROLES = ("attack", "positive control", "negative control")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """A pretrained network that goes in, and what it may have seen; every field is printed in the report.

    Attributes:
        name: the network's short name; a judge must bear another name than every network of every arm.
        used_as: what for, as in "start of the body".
        training_data: data sets it was trained on.
        may_have_seen: known overlaps with test data.
        licence: terms of the weights.
        source: where they come from.
        sha256: checksum of the weights' file, or "".
        notes: anything else.
    """

    name: str
    used_as: str
    training_data: str
    may_have_seen: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    sha256: str = ""
    notes: str = ""

    @classmethod
    def of_card(cls, card: ModelCard, *, used_as: str) -> Self:
        """What a network's model card says."""
        shared = {f.name for f in dataclasses.fields(cls)} - {"used_as"}
        return cls(used_as=used_as, **{name: getattr(card, name) for name in shared})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A figure that somebody else published, to stand beside ours; never mixed with them.

    Attributes:
        measure: what was measured, as in "accuracy on lfw" (accuracies are matched to protocols by that name).
        value: as a share or a score, not in per cent.
        source: where it stands, as in "arXiv 2403.10558, table 2".
    """

    measure: str
    value: float
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedArm:
    """What training an arm leaves.

    Attributes:
        embedder: masked image -> embedding, on the device that it is to be run on.
        fits: one entry for each run of the training loop, as `FitRecord.as_dict` gives it; may be empty.
        exposed: the training set as it was trained on, masked and mixed, for adversaries who see "mixed_images"; None
            where nothing was mixed.
    """

    embedder: Embedder
    fits: Sequence[Mapping[str, Any]] = ()
    exposed: ImageMasker | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where and on what one training runs; no figure depends on these.

    Attributes:
        run_dir: for checkpoints and logs, kept between sessions.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side that train a recogniser.
        resumes: take up what lies in `run_dir`, be it complete or cut short.
        shows_progress: print progress.
    """

    run_dir: Path
    device: str = "auto"
    num_devices: int = 1
    resumes: bool = False
    shows_progress: bool = True


class ArmTraining(Protocol):
    """How an arm's recogniser comes about."""

    @property
    def knowledge(self) -> Sequence[Knowledge]:
        """The pretrained networks that go in, known before anything is trained."""
        ...

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other, so that `TrainedArm.exposed` will be there."""
        ...

    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready: everything that the result depends on."""
        ...

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedArm:
        """Train on `images` as seen through `masker`; with `options.resumes`, return at once if that was done."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """One recognition system under test.

    Attributes:
        name: short and unique, as in "ppfr-fd".
        label: for tables, as in "PPFR-FD".
        role: "baseline", "protected", or "control" (attacked, but recognising nothing: the constant masker).
        masker: what the client does, with the deployment's secret.
        training: how the recogniser comes about; None for a control.
        baseline: name of the arm that accuracy is compared with, or None.
        reported: what the method's authors published.
    """

    name: str
    label: str
    role: str
    masker: ImageMasker
    training: ArmTraining | None = None
    baseline: str | None = None
    reported: Sequence[Reported] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """A recogniser of plain faces that is part of no arm: it says whether two pictures show one person.

    Attributes:
        name: short and unique.
        label: for tables.
        embedder: plain image in [0, 1] -> embedding.
        knowledge: what it was trained on.
    """

    name: str
    label: str
    embedder: Embedder
    knowledge: Sequence[Knowledge] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ControlRule:
    """When a control counts as passed. Rates are the lower ends of intervals, so chance does not pass.

    Attributes:
        least_share_of_plain: a positive control names at least this share of the victims that plain images name.
        least_ssim: and, if it recovers pictures, exceeds this mean SSIM.
        most_pairs_accuracy: a negative control names no more than a guess, and its 1:1 accuracy is not above this. Not
            0.5: in LFW the people of genuine and of impostor pairs differ, so the plain image alone tells a little.
    """

    least_share_of_plain: float = 0.5
    least_ssim: float = 0.9
    most_pairs_accuracy: float = 0.55


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttackPlan:
    """One attack on one arm under one threat model.

    Attributes:
        name: short and unique, as in "unet-ppfr-fd-unknown".
        label: for tables; the same for all variants of one attack, as in "U-Net recovery".
        arm: name of the arm that is attacked.
        make: makes a fresh attack; called once for the checks, and again when its turn comes. The attack should keep
            its training in `options.run_dir` and take it up from there.
        granted: what this adversary knows and sees. With `knows_secret` it trains on the deployed masker, else on
            simulations under secrets of its own.
        judge: name of the judge whose embeddings identity is measured in. An attack that guesses embeddings must
            guess those of this judge.
        role: "attack", "positive control" (an unprotected arm: must win) or "negative control" (must sit at chance).
        rule: when a control counts as passed.
        measures_pairs: run the attack on the masked images of all protocol pairs too, for 1:1 accuracy.
    """

    name: str
    label: str
    arm: str
    make: Callable[[RunOptions], Attack]
    granted: ThreatModel
    judge: str
    role: str = "attack"
    rule: ControlRule = ControlRule()
    measures_pairs: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """Whom the attacks are judged on: drawn from the people of a protocol who have two images or more.

    One image of each is masked and seen by the adversary; another one, plain, stands in the gallery.

    Attributes:
        num_subjects: how many people; also the gallery's size.
        protocol: name of the protocol; "" for the experiment's first.
        num_pictured: how many of them the report shows.
    """

    num_subjects: int
    protocol: str = ""
    num_pictured: int = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a part of a method is worth: the paired gap in accuracy between an arm with it and one without.

    Attributes:
        name: short and unique.
        text: as the report asks it, as in "What do the colour channels give under noise?".
        arm: name of the arm that has the part.
        against: name of the arm that has not, and is the same otherwise.
    """

    name: str
    text: str
    arm: str
    against: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experiment:
    """All that a run needs; a variant is `dataclasses.replace`.

    Attributes:
        name: as in "spine:lfw".
        title: heading of the report.
        summary: one or two sentences for its head.
        preset: name of the preset, or "".
        command: the command line that runs this.
        seed: root of every draw.
        people: "real" or "synthetic".
        arms: the systems under test; baselines before those that are compared with them.
        training_images: what recognisers train on; shares nobody with any protocol.
        protocols: what recognition is tested on.
        judges: who says whether two pictures show one person.
        questions: answered from the arms' accuracies, beside their gaps to their baselines.
        attacks: in the order in which they run.
        public_images: what attackers train on; shares nobody with any protocol. None if there are no attacks.
        victims: whom the attacks are judged on. None if there are no attacks.
        lpips: maps two float32 batches in [0, 1] to one distance a pair, as `ppfr.models.Lpips.distance` does; or None.
        fars: false accept rates to report at.
        judge_far: the false accept rate of the judge's strict threshold.
        num_resamples: bootstrap resamples behind each interval.
        batch_size: images masked and embedded at a time; fresh randomness is drawn a batch, so figures of stochastic
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
    arms: Sequence[Arm]
    training_images: ImageSet
    protocols: Sequence[PairProtocol]
    judges: Sequence[Judge] = ()
    questions: Sequence[Question] = ()
    attacks: Sequence[AttackPlan] = ()
    public_images: ImageSet | None = None
    victims: Victims | None = None
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    judge_far: float = 1e-3
    num_resamples: int = 1000
    batch_size: int = 64
    adds_mirrored: bool = False

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def judge(self, name: str) -> Judge:
        """The judge of that name."""
        return next(judge for judge in self.judges if judge.name == name)

    def victim_protocol(self) -> PairProtocol:
        """The protocol that victims are drawn from."""
        wanted = self.victims.protocol if self.victims is not None else ""
        return next(p for p in self.protocols if not wanted or p.name == wanted)
