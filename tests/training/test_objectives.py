"""The three ways to a masked recogniser: they learn, they keep at rest what must rest, they say what went in."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from toy_training import SIZE, ToyBackbone, ToyImages, ToyMasker, weights

from ppfr.core import BatchMixer, CheckpointError, InvalidInputError, MixedBatch, ShapeError
from ppfr.models import ArcFace, ModelCard, Restemmed, conv_stem
from ppfr.training import (
    AdaptationObjective,
    Batch,
    DistillationObjective,
    MarginObjective,
    OptimiserSettings,
    Plan,
    fit,
)
from ppfr.training._masked_input import feature_error, mask_images

MASKED = (5, SIZE, SIZE)
CARD = ModelCard(
    name="toy-teacher",
    architecture="ToyBackbone",
    config={},
    dim=16,
    in_shape=(3, SIZE, SIZE),
    training_data="patterns",
    may_have_seen=("everybody",),
    licence="MIT",
    source="the tests",
)
ADAM = OptimiserSettings(optimiser="adam", lr=1e-2, weight_decay=0.0)


def _teacher():
    """A network whose running statistics fit the images, as a pretrained one's would."""
    teacher = ToyBackbone(seed=7)
    with torch.no_grad():
        for _ in range(30):
            teacher.train()(torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255)
    return teacher.eval()


def _adaptation(teacher, **options):
    network = Restemmed(conv_stem(MASKED, teacher.tap_shapes["low"], width=8, depth=1, seed=1), teacher, "low")
    return AdaptationObjective(
        ToyMasker(), network, teacher, teacher_card=CARD, optimiser=ADAM, **{"body_unfrozen_from": 0.5, **options}
    )


def _fit(objective, *, run_dir=None, passes=10, seed=1, **options):
    plan = Plan(passes=passes, batch_size=16, checkpoint_every_steps=4)
    return fit(objective, ToyImages(), plan=plan, seed=seed, run_dir=run_dir, device="cpu", progress=False, **options)


def _mean_cosine(network, teacher, masker):
    images = torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255
    masked = masker.mask(images, rng=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return nn.functional.cosine_similarity(network(masked), teacher(images)).mean().item()


def test_from_scratch_with_a_margin_head_the_subjects_are_told_apart():
    network, head = ToyBackbone(MASKED), ArcFace(4, 16, scale=16.0, margin=0.2, seed=1)
    objective = MarginObjective(ToyMasker(), network, head, optimiser=ADAM)
    record = _fit(objective, passes=12)
    images = ToyImages()
    masked = ToyMasker().mask(
        torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255, rng=torch.Generator().manual_seed(5)
    )
    guessed = head.cosines(network(masked)).argmax(dim=1)
    truth = torch.arange(4).repeat_interleave(8)
    assert (guessed == truth).float().mean() == 1
    assert record.curve[-1][1] < 0.2 * record.curve[0][1]
    assert record.objective["knowledge"] == []


def test_a_mixer_sees_the_masked_batch_and_its_labels_reach_the_head():
    class Halves(BatchMixer):
        name, num_images = "halves", 2
        seen = 0

        def public_config(self):
            return {}

        def mixed_range(self, low, high):
            return low, high

        def mix(self, masked_BKPQ, labels_B, *, rng):
            assert masked_BKPQ.shape[1:] == MASKED
            self.seen += 1
            order = torch.randperm(len(labels_B), generator=rng)
            labels = torch.stack([labels_B, labels_B[order]], dim=1)
            return MixedBatch(
                values_BKPQ=(masked_BKPQ + masked_BKPQ[order]) / 2,
                labels_Bk=labels,
                weights_Bk=torch.full(labels.shape, 0.5),
                partners_Bk=torch.stack([torch.arange(len(order)), order], dim=1),
            )

    mixer = Halves()
    objective = MarginObjective(
        ToyMasker(), ToyBackbone(MASKED), ArcFace(4, 16, scale=16.0, seed=1), mixer=mixer, optimiser=ADAM
    )
    record = _fit(objective, passes=12)
    assert mixer.seen == record.steps == 24
    # Two subjects a row at even weight: the loss cannot fall below ln 2.
    assert 0.69 < record.losses["recogniser/loss"] < record.curve[0][1]
    assert record.objective["mixer"] == {"name": "halves", "config": {}}


@pytest.mark.parametrize("taps", [{}, {"low": "low", "high": "high"}, {"low": "high", "high": "low"}])
def test_distillation_brings_the_student_to_its_teacher(taps):
    teacher = _teacher()
    rest = weights(teacher)
    # Other widths and lengths: channels, grids and embeddings have to be translated.
    student = ToyBackbone(MASKED, width=12, seed=2)
    objective = DistillationObjective(
        ToyMasker(), student, teacher, teacher_card=CARD, taps=taps, optimiser=ADAM, seed=3
    )
    before = _mean_cosine(student, teacher, objective.masker)
    record = _fit(objective, passes=40)
    after = _mean_cosine(student, teacher, objective.masker)
    assert after > max(0.9, before + 0.1)
    assert torch.equal(weights(teacher), rest)
    assert not teacher.training
    if taps:
        assert record.losses["student/features"] < 1
    assert not [name for name in objective.learned_state() if name.startswith("teacher")]


def test_distillation_translates_embeddings_of_another_length_and_learns_labels_too():
    teacher, student = _teacher(), ToyBackbone(MASKED, dim=6)
    objective = DistillationObjective(
        ToyMasker(), student, teacher, teacher_card=CARD, head=ArcFace(4, 6, seed=1), optimiser=ADAM, seed=3
    )
    before = _first_terms(objective)
    record = _fit(objective, passes=40)
    after = _first_terms(objective)
    assert set(record.losses) == {"student/loss", "student/embedding", "student/head"}
    assert after["embedding"] < 0.7 * before["embedding"]
    assert after["head"] < 0.9 * before["head"]


def _first_terms(objective):
    images = torch.from_numpy(ToyImages().pixels[::2]).permute(0, 3, 1, 2) / 255
    batch = Batch(images_BCHW=images, labels_B=torch.arange(4).repeat_interleave(4), indices_B=torch.arange(16))
    (player,) = objective.players()
    with torch.no_grad():
        return objective.loss(player.name, batch, rng=torch.Generator().manual_seed(0), progress=0.0)


def test_adaptation_keeps_the_body_to_the_bit_until_its_time_then_moves_it():
    teacher = _teacher()
    body = [p.detach().clone() for p in teacher.parts["high"].parameters()]
    for share, is_moved in ((1.0, False), (0.5, True)):
        objective = _adaptation(teacher, body_unfrozen_from=share)
        network = objective.network
        before, stem = weights(network.parts["high"]), weights(network.stem)
        cosine = _mean_cosine(network.eval(), teacher, objective.masker)
        _fit(objective, passes=40)
        assert not torch.equal(weights(network.stem), stem)
        assert torch.equal(weights(network.parts["high"]), before) != is_moved
        assert _mean_cosine(network, teacher, objective.masker) > cosine + 0.5
        assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(body, teacher.parts["high"].parameters(), strict=True))


def test_the_bodys_statistics_move_only_if_asked_for():
    teacher = _teacher()
    for updates in (False, True):
        objective = _adaptation(teacher, updates_body_statistics=updates)
        norm = objective.network.parts["high"][1]
        before = norm.running_mean.clone()
        _fit(objective, passes=4)
        assert torch.equal(norm.running_mean, before) != updates


@pytest.mark.parametrize("step", [7, 10, 13])
def test_an_adaptation_killed_in_either_phase_resumes_to_the_same_bits(tmp_path, step):
    class Dying(AdaptationObjective):
        def begin_step(self, now, progress):
            super().begin_step(now, progress)
            if now == step:
                raise KeyboardInterrupt

    teacher = _teacher()
    whole, dying, resumed = _adaptation(teacher), _adaptation(teacher), _adaptation(teacher)
    dying.__class__ = Dying
    _fit(whole)
    with pytest.raises(KeyboardInterrupt):
        _fit(dying, run_dir=tmp_path)
    _fit(resumed, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_the_record_names_the_knowledge_and_no_secret():
    teacher = _teacher()
    objective = _adaptation(teacher, head=ArcFace(4, 16, seed=1))
    record = _fit(objective, passes=1)
    told = json.loads(json.dumps(record.as_dict()))["objective"]
    assert told["kind"] == "adaptation"
    (knowledge,) = told["knowledge"]
    assert (knowledge["role"], knowledge["name"]) == ("teacher and body", "toy-teacher")
    assert knowledge["may_have_seen"] == ["everybody"]
    assert told["masker"] == {"name": "toy", "config": {"noise": 0.1}}
    assert told["network"]["kind"] == "Restemmed"
    assert told["head"]["config"]["num_classes"] == 4
    assert "matrix" not in json.dumps(told)


def test_parts_that_do_not_fit_are_refused():
    masker, plain, masked, teacher = ToyMasker(), ToyBackbone(), ToyBackbone(MASKED), _teacher()
    with pytest.raises(ShapeError, match=r"takes \(3, 16, 16\) and the masker toy gives \(5, 16, 16\)"):
        MarginObjective(masker, plain, ArcFace(4, 16, seed=1))
    with pytest.raises(ShapeError, match="the head takes embeddings of 8, the network gives 16"):
        MarginObjective(masker, masked, ArcFace(4, 8, seed=1))
    with pytest.raises(InvalidInputError, match="the head has 9 classes and the training set 4 subjects"):
        _fit(MarginObjective(masker, masked, ArcFace(9, 16, seed=1)))
    with pytest.raises(ShapeError, match="the teacher takes"):
        DistillationObjective(masker, masked, ToyBackbone(MASKED), teacher_card=CARD, seed=1)
    with pytest.raises(InvalidInputError, match="student has no middle, teacher has no top"):
        DistillationObjective(masker, masked, teacher, teacher_card=CARD, taps={"middle": "top"}, seed=1)
    with pytest.raises(InvalidInputError, match="one of them positive"):
        DistillationObjective(masker, masked, teacher, teacher_card=CARD, embedding_weight=0.0, seed=1)
    with pytest.raises(InvalidInputError, match=r"body_unfrozen_from=1\.5"):
        _adaptation(teacher, body_unfrozen_from=1.5)
    with pytest.raises(ShapeError, match="use the network that the body came from"):
        _adaptation_of_another(teacher)


def _adaptation_of_another(teacher):
    other = ToyBackbone(width=4)
    network = Restemmed(conv_stem(MASKED, other.tap_shapes["low"], width=8, depth=1, seed=1), other, "low")
    return AdaptationObjective(ToyMasker(), network, teacher, teacher_card=CARD)


def test_masking_is_fresh_for_every_step_without_gradient_and_in_full_precision():
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    rng = torch.Generator().manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = (mask_images(ToyMasker(), images, rng=rng) for _ in range(2))
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert not torch.equal(first, second)


def test_the_feature_error_is_one_for_the_channel_means_and_free_of_scale():
    wanted = torch.randn(4, 6, 5, 5) * torch.arange(1.0, 7.0)[:, None, None] + 3
    means = wanted.mean(dim=(0, 2, 3), keepdim=True).expand_as(wanted)
    assert feature_error(means, wanted).item() == pytest.approx(1, abs=1e-5)
    guess = wanted + torch.randn_like(wanted)
    assert feature_error(10 * guess, 10 * wanted).item() == pytest.approx(feature_error(guess, wanted).item(), rel=1e-4)


def test_a_training_is_not_taken_up_under_another_secret(tmp_path):
    def objective(secret):
        head = ArcFace(4, 16, scale=16.0, seed=1)
        return MarginObjective(ToyMasker(secret=secret), ToyBackbone(MASKED), head, optimiser=ADAM)

    _fit(objective(1), run_dir=tmp_path, passes=2)
    assert _fit(objective(1), run_dir=tmp_path, passes=2, resume=True).steps == 4
    with pytest.raises(CheckpointError, match="another secret"):
        _fit(objective(2), run_dir=tmp_path, passes=2, resume=True)
