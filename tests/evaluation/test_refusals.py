"""What is refused before anything is trained: folders of other runs, shared people, threat models, loose ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

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
from ppfr.evaluation import Comparison, EvaluationRecogniser, Targets, Verification
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


def test_the_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    start(toy_experiment(plans=()), tmp_path)
    with pytest.raises(CheckpointError, match="earlier run; resume it"):
        start(toy_experiment(plans=()), tmp_path)
    with pytest.raises(CheckpointError, match="another configuration: seed"):
        start(toy_experiment(seed=4, plans=()), tmp_path, resumes=True)
    with pytest.raises(CheckpointError, match=r"another configuration: data\.training/train"):
        start(toy_experiment(training_images=people(20, 3, seed=99, name="train"), plans=()), tmp_path, resumes=True)
    systems = toy_systems()
    systems[1] = dataclasses.replace(systems[1], masker=PpfrFd(secret=bytes(32), in_shape=(3, SIDE, SIDE)))
    with pytest.raises(CheckpointError, match="another secret of system 'fd'"):
        start(toy_experiment(systems=systems, plans=()), tmp_path, resumes=True)
    (tmp_path / "parts" / "train--plain.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"train--plain\.json is damaged"):
        start(toy_experiment(plans=()), tmp_path, resumes=True)


def test_shared_people_are_refused_before_anything_runs(tmp_path: Path) -> None:
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
        (reader(knows_secret=True), reader(), "needs the deployment's secret"),
        (reader(), reader(knows_secret=True), "does not use it"),
        (reader(sees=Embeddings), reader(), "needs to see Embeddings"),
        (dataclasses.replace(reader(), knows_recogniser=True), reader(), "needs the recogniser's weights"),
    ],
)
def test_a_threat_model_mismatch_is_refused(
    tmp_path: Path, needs: ThreatModel, granted: ThreatModel, words: str
) -> None:
    plan = toy_plan("recover-fd", "fd", granted=granted, make=lambda options: ToyRecovery(options, needs=needs))
    with pytest.raises(ThreatModelError, match=words):
        start(toy_experiment(plans=[plan]), tmp_path / "run")
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
    text = str(caught.value)
    for words in (
        "system name 'a/b'",
        "baseline 'plain' is not a system before it",
        "a control has no training",
        "comparison 'why': compares 'fd' with itself",
        "comparison 'what': 'nothing' is not a system that recognises",
        "there is no evaluation recogniser 'nobody'",
        "a positive control does not belong on a system of role 'protected'",
        "evaluate with another network",
        "attack 'unmixed': sees mixed images",
        "attack 'no-images': sees Embeddings",
        "500 target subjects; 60 people have two images",
        "people='some'",
        "each must lie in (0, 1]",
    ):
        assert words in text, words
