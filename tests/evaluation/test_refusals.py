"""Experiments that are rejected before anything is trained: other runs, shared subjects, threat models, problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ppfr.core import (
    CheckpointError,
    Embeddings,
    MixedImages,
    OverlapError,
    ProblemsError,
    Provenance,
    ThreatModel,
    ThreatModelError,
)
from ppfr.evaluation import Comparison, EvaluationRecogniser, Measure, Session, Stage, Targets, Verification
from ppfr.masking import PpfrFd
from support.toy_experiment import (
    SIDE,
    ToyLinkage,
    ToyRecovery,
    ToyTraining,
    people,
    reader,
    start,
    toy_experiment,
    toy_measures,
    toy_plan,
    toy_protocol,
    toy_systems,
)


def test_run_rejects_the_folder_of_another_run(tmp_path: Path) -> None:
    start(toy_experiment(plans=()), tmp_path)
    with pytest.raises(CheckpointError, match=r"resume it, or choose another folder"):
        start(toy_experiment(plans=()), tmp_path)
    with pytest.raises(CheckpointError, match=r" seed; .*choose another folder"):
        start(toy_experiment(seed=4, plans=()), tmp_path, resumes=True)
    with pytest.raises(CheckpointError, match=r" data\.training/train; .*choose another folder"):
        start(toy_experiment(training_images=people(20, 3, seed=99, name="train"), plans=()), tmp_path, resumes=True)
    systems = toy_systems()
    systems[1] = dataclasses.replace(systems[1], masker=PpfrFd(secret=bytes(32), in_shape=(3, SIDE, SIDE)))
    with pytest.raises(CheckpointError, match=r"'fd'; resume with that secret"):
        start(toy_experiment(systems=systems, plans=()), tmp_path, resumes=True)
    (tmp_path / "parts" / "train--plain.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"train--plain\.json .*delete it"):
        start(toy_experiment(plans=()), tmp_path, resumes=True)


def test_run_rejects_shared_subjects_before_anything_runs(tmp_path: Path) -> None:
    overlapping = people(20, 3, seed=2, name="tested", first=55)
    for experiment in (
        toy_experiment(training_images=overlapping),
        toy_experiment(measures=toy_measures(public_images=overlapping)),
    ):
        with pytest.raises(OverlapError, match="share 5"):
            start(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("needs", "granted", "words"),
    [
        (reader(knows_secret=True), reader(), "'recover-fd' .*the deployment's secret.* Grant it"),
        (reader(), reader(knows_secret=True), "'recover-fd' .*Configure the attack with the secret"),
        (reader(sees=Embeddings), reader(), "'recover-fd' .*Embeddings.* Grant what it needs"),
        (dataclasses.replace(reader(), knows_recogniser=True), reader(), "'recover-fd' .*weights.* Grant it"),
    ],
)
def test_run_rejects_an_attack_that_does_not_fit_its_threat_model(
    tmp_path: Path, needs: ThreatModel, granted: ThreatModel, words: str
) -> None:
    plan = toy_plan("recover-fd", "fd", granted=granted, make=lambda options: ToyRecovery(options, needs=needs))
    with pytest.raises(ThreatModelError, match=words):
        start(toy_experiment(plans=[plan]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mirrored_evaluation_that_needs_a_second_mask_is_refused(tmp_path: Path) -> None:
    """Guarantees, bytes and attacks are those of one masked image."""
    systems = toy_systems()
    per_image = PpfrFd(secret=None, permutation="per_image", in_shape=(3, SIDE, SIDE))
    systems.insert(2, dataclasses.replace(systems[1], name="stochastic", masker=per_image))
    with pytest.raises(ProblemsError) as caught:
        start(toy_experiment(systems=systems, plans=(), mirrors_input=True), tmp_path / "run")
    found = [problem for problem in caught.value.problems if "mirrors_input=False" in problem]
    assert ["'fd'" in found[0], "'stochastic'" in found[1], len(found)] == [True, True, 2]
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagesOnly(Measure):
    """Stages of which only names and dependencies matter."""

    after: Mapping[str, Sequence[str]]
    results = ()

    def config(self) -> Mapping[str, Any]:
        return {}

    def stages(self, session: Session) -> Iterable[Stage]:
        return [
            Stage(name=name, title=name, weight=1, after=after, measure=lambda: [])
            for name, after in self.after.items()
        ]


def test_stage_that_depends_on_an_unknown_stage_is_reported_before_anything_runs(tmp_path: Path) -> None:
    measures = [StagesOnly(after={"a": (), "b": ("a", "unknown-1"), "c": ("unknown-2",)})]
    with pytest.raises(ProblemsError) as caught:
        start(toy_experiment(measures=measures), tmp_path / "run")
    first, second = caught.value.problems
    assert "'b'" in first and "'unknown-1'" in first and "Stage.after" in first
    assert "'c'" in second and "'unknown-2'" in second
    assert not (tmp_path / "run").exists()


def test_stages_that_depend_on_each_other_are_reported_before_anything_runs(tmp_path: Path) -> None:
    measures = [StagesOnly(after={"a": ("b",), "b": ("a",)})]
    with pytest.raises(ProblemsError) as caught:
        start(toy_experiment(measures=measures), tmp_path / "run")
    (problem,) = caught.value.problems
    assert "'a'" in problem and "'b'" in problem and "Stage.after" in problem
    assert not (tmp_path / "run").exists()


def test_all_problems_of_an_experiment_are_listed_at_once(tmp_path: Path) -> None:
    plain, fd, constant = toy_systems()
    systems = [
        dataclasses.replace(plain, name="a/b"),
        dataclasses.replace(fd, training=ToyTraining(network="net-b")),
        dataclasses.replace(constant, training=ToyTraining()),
    ]
    plans = [
        toy_plan("recover-fd", "fd", recogniser="nobody"),
        toy_plan("wrong-place", "fd", role="positive control"),
        toy_plan("link-fd-known", "fd", kind=ToyLinkage, granted=reader(knows_secret=True)),
        toy_plan("unmixed", "fd", granted=reader(sees=MixedImages)),
        toy_plan("no-images", "fd", granted=reader(sees=Embeddings)),
    ]
    recogniser = toy_experiment().recognisers[0]
    provenance = [Provenance(name="net-b", used_as="all of it", training_data="toys")]
    measures = toy_measures(plans=plans, targets=Targets(num_subjects=500))
    measures[1] = Verification(protocols=[toy_protocol()], fars=(2.0,))
    bad = toy_experiment(
        systems=systems,
        measures=measures,
        recognisers=[
            EvaluationRecogniser(
                name="recogniser", label="Recogniser", embedder=recogniser.embedder, provenance=provenance
            )
        ],
        comparisons=[
            Comparison(name="why", text="Why?", system="fd", against="fd"),
            Comparison(name="what", text="What?", system="nothing", against="fd"),
        ],
        people="some",
    )
    with pytest.raises(ProblemsError) as caught:
        start(bad, tmp_path / "run")
    for value, remedy in (
        ("system name 'a/b'", "use up to 80"),
        ("baseline 'plain'", "list baselines first"),
        ("system 'constant'", "must have no training"),
        ("comparison 'why'", "name two systems"),
        ("comparison 'what'", "available: a/b"),
        ("recogniser 'nobody'", "attack 'recover-fd'"),
        ("attack 'wrong-place'", "role 'baseline'"),
        ("net-b", "another network"),
        ("attack 'unmixed'", "mix"),
        ("attack 'no-images'", "Embeddings"),
        ("500", "60"),
        ("people='some'", "'synthetic'"),
        ("fars=(2.0,)", "(0, 1]"),
    ):
        assert any(value in problem and remedy in problem for problem in caught.value.problems), value
