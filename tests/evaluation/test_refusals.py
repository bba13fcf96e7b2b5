"""What is refused before anything is trained: folders of other runs, shared people, threat models, loose ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from toy_experiment import (
    SIDE,
    ToyRecovery,
    ToyTraining,
    people,
    reader,
    start,
    toy_experiment,
)

from ppfr.core import (
    CheckpointError,
    OverlapError,
    ProblemsError,
    ThreatModel,
    ThreatModelError,
)
from ppfr.evaluation import Experiment, Question, Victims
from ppfr.masking import PpfrFd

_ASKS_A_CONTROL = Question(name="what", text="What?", arm="nothing", against="fd")


@pytest.fixture
def experiment() -> Experiment:
    return toy_experiment()


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    slim: dict[str, Any] = {"attacks": (), "victims": None}
    start(toy_experiment(**slim), tmp_path)
    with pytest.raises(CheckpointError, match="earlier run; resume it"):
        start(toy_experiment(**slim), tmp_path)
    with pytest.raises(CheckpointError, match="another configuration: seed"):
        start(toy_experiment(seed=4, **slim), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"another configuration: data\.training/train"):
        start(toy_experiment(training_images=people(20, 3, seed=99, name="train"), **slim), tmp_path, resume=True)
    other = toy_experiment(**slim)
    arms = list(other.arms)
    masker = PpfrFd(secret=bytes(32), in_shape=(3, SIDE, SIDE))
    arms[1] = dataclasses.replace(arms[1], masker=masker)
    with pytest.raises(CheckpointError, match="another secret of arm 'fd'"):
        start(dataclasses.replace(other, arms=arms), tmp_path, resume=True)
    (tmp_path / "parts" / "train--plain.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"train--plain\.json is damaged"):
        start(toy_experiment(**slim), tmp_path, resume=True)


def test_shared_people_are_refused_before_anything_runs(experiment: Experiment, tmp_path: Path) -> None:
    overlapping = people(20, 3, seed=2, name="tested", first=55)
    for change in ({"training_images": overlapping}, {"public_images": overlapping}):
        with pytest.raises(OverlapError, match="share 5"):
            start(dataclasses.replace(experiment, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("needs", "granted", "words"),
    [
        (reader(knows_secret=True), reader(), "needs the deployment's secret"),
        (reader(), reader(knows_secret=True), "does not use it"),
        (reader(sees="embeddings"), reader(), "needs to see 'embeddings'"),
        (dataclasses.replace(reader(), knows_recogniser=True), reader(), "needs the recogniser's weights"),
    ],
)
def test_threat_model_mismatch_is_refused(
    experiment: Experiment, tmp_path: Path, needs: ThreatModel, granted: ThreatModel, words: str
) -> None:
    plan = dataclasses.replace(
        experiment.attacks[1], granted=granted, make=lambda options: ToyRecovery(options, needs=needs)
    )
    with pytest.raises(ThreatModelError, match=words):
        start(dataclasses.replace(experiment, attacks=(plan,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_problems_of_an_experiment_are_told_at_once(experiment: Experiment, tmp_path: Path) -> None:
    arms = [
        dataclasses.replace(experiment.arms[0], name="a/b"),
        dataclasses.replace(experiment.arms[1], training=ToyTraining(network="judge")),
        dataclasses.replace(experiment.arms[2], role="control", training=ToyTraining()),
    ]
    attacks = [
        dataclasses.replace(experiment.attacks[1], judge="nobody"),
        dataclasses.replace(experiment.attacks[1], role="positive control", name="wrong-place"),
        dataclasses.replace(experiment.attacks[2]),
        dataclasses.replace(experiment.attacks[2], name="unmixed", granted=reader(sees="mixed_images")),
    ]
    bad = dataclasses.replace(
        experiment,
        arms=arms,
        attacks=attacks,
        questions=[Question(name="why", text="Why?", arm="fd", against="fd"), _ASKS_A_CONTROL],
        victims=Victims(num_subjects=500),
        people="some",
        fars=(2.0,),
    )
    with pytest.raises(ProblemsError) as caught:
        start(bad, tmp_path / "run")
    text = str(caught.value)
    for words in (
        "arm name 'a/b'",
        "baseline 'plain' is no arm before it",
        "a control has no training",
        "question 'why': compares 'fd' with itself",
        "question 'what': 'nothing' is no arm that recognises",
        "there is no judge 'nobody'",
        "a positive control does not belong on an arm of role 'protected'",
        "was made from; judge with another network",
        "attack 'unmixed': sees mixed images",
        "500 victims; 60 people have two images",
        "people='some'",
        "each must lie in (0, 1]",
    ):
        assert words in text, words
