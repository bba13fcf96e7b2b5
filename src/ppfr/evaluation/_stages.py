"""The stages of judges and arms: what each measures, what it rests on, and what it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ppfr.core import Embedder, ImageMasker, UnsupportableError, derive_seed
from ppfr.data import PairProtocol
from ppfr.evaluation._cost import measure_cost
from ppfr.evaluation._embedding import Embedding, comparisons_of, pair_comparisons, verification_figures
from ppfr.evaluation._experiment import Arm, AttackPlan, Experiment, Judge, Question, RunOptions, TrainedArm
from ppfr.evaluation._identity import as_json
from ppfr.evaluation._workspace import Json, Workspace
from ppfr.metrics import paired_accuracy_gap


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: unique; names the part's file.
        title: for people.
        weight: rough share of the work, for the time to go.
        after: stages that must be done before.
        measure: does it and returns the JSON that it leaves.
    """

    name: str
    title: str
    weight: float
    after: Sequence[str]
    measure: Callable[[], Json]


class Session:
    """One sitting of a run: the experiment, its folder, and what was already loaded or trained in this process."""

    def __init__(
        self,
        experiment: Experiment,
        workspace: Workspace,
        *,
        device: torch.device,
        num_devices: int,
        resumes: bool,
        progress: bool,
    ) -> None:
        self.experiment, self.workspace, self.device = experiment, workspace, device
        self._num_devices = num_devices
        self._resumes, self._progress = resumes, progress
        self.embedding = Embedding(experiment, device=device)
        self._arms: dict[str, TrainedArm] = {}
        self._plain: dict[tuple[str, str], np.ndarray] = {}

    def recognition_stages(self) -> list[Stage]:
        """The stages of judges and arms, in the order in which they run."""
        found = [self._judge_stage(judge) for judge in self.experiment.judges]
        for arm in self.experiment.arms:
            found += self._arm_stages(arm)
        return found + [self._question_stage(question) for question in self.experiment.questions]

    # Judges

    def _judge_stage(self, judge: Judge) -> Stage:
        return Stage(
            name=f"judge/{judge.name}",
            title=f"Measure the judge {judge.label} on plain images",
            weight=2,
            after=(),
            measure=lambda: {"protocols": [self._judge_on(judge, protocol) for protocol in self.experiment.protocols]},
        )

    def _judge_on(self, judge: Judge, protocol: PairProtocol) -> Json:
        comparisons = pair_comparisons(protocol, self.plain_embeddings(judge, protocol))
        return verification_figures(self.experiment, protocol, comparisons)

    def plain_embeddings(self, judge: Judge, protocol: PairProtocol) -> np.ndarray:
        """(N, D) the judge's embeddings of the images that a protocol uses, computed once in a sitting."""
        key = (judge.name, protocol.name)
        if key not in self._plain:
            self._plain[key] = self.embedding.plain(judge.embedder, protocol.images, protocol.used().tolist())
        return self._plain[key]

    # Arms

    def _arm_stages(self, arm: Arm) -> list[Stage]:
        train, evaluate = f"train/{arm.name}", f"evaluate/{arm.name}"
        cost = Stage(
            name=f"cost/{arm.name}",
            title=f"Time {arm.label}",
            weight=0.2,
            after=(train,) if arm.training is not None else (),
            measure=lambda: self._cost(arm),
        )
        if arm.training is None:
            return [cost]
        stages = [
            Stage(name=train, title=f"Train {arm.label}", weight=10, after=(), measure=lambda: self._train(arm)),
            Stage(
                name=evaluate,
                title=f"Evaluate {arm.label}",
                weight=2,
                after=(train,),
                measure=lambda: {"protocols": [self._evaluate(arm, p) for p in self.experiment.protocols]},
            ),
            cost,
        ]
        if arm.baseline is not None:
            stages.append(
                Stage(
                    name=f"compare/{arm.name}",
                    title=f"Compare {arm.label} with its baseline",
                    weight=0.5,
                    after=(evaluate, f"evaluate/{arm.baseline}"),
                    measure=lambda: self._gaps(arm.name, str(arm.baseline)),
                )
            )
        return stages

    def _question_stage(self, question: Question) -> Stage:
        return Stage(
            name=f"question/{question.name}",
            title=f"Answer: {question.text}",
            weight=0.5,
            after=(f"evaluate/{question.arm}", f"evaluate/{question.against}"),
            measure=lambda: self._gaps(question.arm, question.against),
        )

    def _train(self, arm: Arm) -> Json:
        fits = [as_json(fit) for fit in self._trained(arm, again=False).fits]
        return {"fits": fits, "guarantee": as_json(arm.masker.guarantee())}

    def _trained(self, arm: Arm, *, again: bool = True) -> TrainedArm:
        """The trained arm; `again`: it was trained before, so only its end is to be loaded."""
        if arm.name not in self._arms:
            assert arm.training is not None
            options = self.options("arm", arm.name, resumes=again or self._resumes)
            seed = derive_seed(self.experiment.seed, "train")
            images = self.experiment.training_images
            self._arms[arm.name] = arm.training.train(arm.masker, images, seed=seed, options=options)
        return self._arms[arm.name]

    def seen_through(self, plan: AttackPlan) -> ImageMasker:
        """What turns a victim's image into what the adversary of a plan sees of it."""
        arm = self.experiment.arm(plan.arm)
        if plan.granted.sees != "mixed_images":
            if arm.training is not None and arm.masker.spec.is_trainable:
                self._trained(arm)  # what it learned is loaded into the masker, where an earlier sitting trained it
            return arm.masker
        exposed = self._trained(arm).exposed
        if exposed is None:
            raise UnsupportableError(f"arm {arm.name!r} left no mixed images to attack; its training must mix")
        return exposed

    def options(self, kind: str, name: str, *, resumes: bool) -> RunOptions:
        """Where and how the training of an arm or an attack runs."""
        return RunOptions(
            run_dir=self.workspace.training_dir(kind, name),
            # Several devices are of one kind; a single one is named exactly.
            device=str(self.device) if self._num_devices == 1 else self.device.type,
            num_devices=self._num_devices if kind == "arm" else 1,
            resumes=resumes,
            shows_progress=self._progress,
        )

    def _evaluate(self, arm: Arm, protocol: PairProtocol) -> Json:
        embedder = self._trained(arm).embedder
        rows_ND = self.embedding.masked(
            arm.masker, embedder, protocol.images, protocol.used().tolist(), purpose=f"evaluate/{protocol.name}"
        )
        comparisons = pair_comparisons(protocol, rows_ND)
        self.workspace.write_scores(arm.name, protocol.name, np.asarray(comparisons.scores))
        return verification_figures(self.experiment, protocol, comparisons)

    def _gaps(self, arm: str, against: str) -> Json:
        return {"gaps": {protocol.name: self._gap(arm, against, protocol) for protocol in self.experiment.protocols}}

    def _gap(self, arm: str, against: str, protocol: PairProtocol) -> Json:
        system, baseline = (
            comparisons_of(protocol, self.workspace.read_scores(name, protocol.name)) for name in (arm, against)
        )
        gap = paired_accuracy_gap(
            system,
            baseline,
            seed=derive_seed(self.experiment.seed, "bootstrap"),
            num_resamples=self.experiment.num_resamples,
        )
        return gap.to_dict()

    def _cost(self, arm: Arm) -> Json:
        embedder: Embedder | None = self._trained(arm).embedder if arm.training is not None else None
        return measure_cost(
            arm.masker,
            embedder,
            self.experiment.training_images,
            embedding=self.embedding,
            batch_size=self.experiment.batch_size,
        )
