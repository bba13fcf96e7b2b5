"""The three recogniser tasks: convergence, frozen parts, provenance in the record, and rejected input."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ppfr.core import BatchMixer, CheckpointError, InvalidInputError, MixedBatch, ShapeError
from ppfr.models import ArcFace, ModelCard, StemAdapter, conv_stem
from ppfr.training import (
    Batch,
    DistillationTask,
    FineTuningTask,
    MarginTask,
    OptimizerSettings,
    Plan,
)
from ppfr.training._masked_input import feature_error, mask_images
from support.toy_training import SIZE, ToyBackbone, ToyImages, ToyMasker, run_fit, weights

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
ADAM = OptimizerSettings(optimizer="adam", lr=1e-2, weight_decay=0.0)


def _teacher():
    """A network whose running statistics match the images, like those of a pretrained network."""
    teacher = ToyBackbone(seed=7)
    with torch.no_grad():
        for _ in range(30):
            teacher.train()(torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255)
    return teacher.eval()


def _fine_tuning(teacher, **options):
    network = StemAdapter(conv_stem(MASKED, teacher.tap_shapes["low"], width=8, depth=1, seed=1), teacher, "low")
    return FineTuningTask(
        ToyMasker(), network, teacher, teacher_card=CARD, optimizer=ADAM, **{"body_unfrozen_from": 0.5, **options}
    )


def _fit(task, *, run_dir=None, epochs=10, seed=1, **options):
    plan = Plan(epochs=epochs, batch_size=16, checkpoint_every_steps=4)
    return run_fit(task, run_dir, plan=plan, seed=seed, **options)


def _mean_cosine(network, teacher, masker):
    images = torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255
    masked = masker.mask(images, rng=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return nn.functional.cosine_similarity(network(masked), teacher(images)).mean().item()


def test_margin_task_separates_the_subjects():
    network, head = ToyBackbone(MASKED), ArcFace(4, 16, scale=16.0, margin=0.2, seed=1)
    task = MarginTask(ToyMasker(), network, head, optimizer=ADAM)
    record = _fit(task, epochs=12)
    images = ToyImages()
    masked = ToyMasker().mask(
        torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255, rng=torch.Generator().manual_seed(5)
    )
    predicted = head.cosines(network(masked)).argmax(dim=1)
    truth = torch.arange(4).repeat_interleave(8)
    assert (predicted == truth).float().mean() == 1
    assert record.curve[-1][1] < 0.2 * record.curve[0][1]
    assert record.task["provenance"] == []


def test_mixer_receives_masked_batch_and_head_receives_its_labels():
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
    task = MarginTask(ToyMasker(), ToyBackbone(MASKED), ArcFace(4, 16, scale=16.0, seed=1), mixer=mixer, optimizer=ADAM)
    record = _fit(task, epochs=12)
    assert mixer.seen == record.steps == 24
    # Two subjects per mixture at equal weight: the loss cannot fall below ln 2.
    assert 0.69 < record.losses["recogniser/loss"] < record.curve[0][1]
    assert record.task["mixer"] == {"name": "halves", "config": {}}


@pytest.mark.parametrize("taps", [{}, {"low": "low", "high": "high"}, {"low": "high", "high": "low"}])
def test_distillation_brings_the_student_close_to_the_teacher(taps):
    teacher = _teacher()
    before_training = weights(teacher)
    # The widths and grids differ, so mapping layers and interpolation are needed.
    student = ToyBackbone(MASKED, width=12, seed=2)
    task = DistillationTask(ToyMasker(), student, teacher, teacher_card=CARD, taps=taps, optimizer=ADAM, seed=3)
    before = _mean_cosine(student, teacher, task.masker)
    record = _fit(task, epochs=40)
    after = _mean_cosine(student, teacher, task.masker)
    assert after > max(0.9, before + 0.1)
    assert torch.equal(weights(teacher), before_training)
    assert not teacher.training
    if taps:
        assert record.losses["student/features"] < 1
    assert not [name for name in task.learned_state() if name.startswith("teacher")]


def test_distillation_maps_embeddings_of_another_length_and_learns_from_labels():
    teacher, student = _teacher(), ToyBackbone(MASKED, dim=6)
    task = DistillationTask(
        ToyMasker(), student, teacher, teacher_card=CARD, head=ArcFace(4, 6, seed=1), optimizer=ADAM, seed=3
    )
    before = _first_terms(task)
    record = _fit(task, epochs=40)
    after = _first_terms(task)
    assert set(record.losses) == {"student/loss", "student/embedding", "student/head"}
    assert after["embedding"] < 0.7 * before["embedding"]
    assert after["head"] < 0.9 * before["head"]


def _first_terms(task):
    images = torch.from_numpy(ToyImages().pixels[::2]).permute(0, 3, 1, 2) / 255
    batch = Batch(images_BCHW=images, labels_B=torch.arange(4).repeat_interleave(4), indices_B=torch.arange(16))
    (group,) = task.optimizer_groups()
    with torch.no_grad():
        return task.loss(group.name, batch, rng=torch.Generator().manual_seed(0), progress=0.0)


def test_fine_tuning_keeps_the_body_unchanged_until_it_is_unfrozen():
    teacher = _teacher()
    body = [p.detach().clone() for p in teacher.parts["high"].parameters()]
    for share, is_changed in ((1.0, False), (0.5, True)):
        task = _fine_tuning(teacher, body_unfrozen_from=share)
        network = task.network
        before, stem = weights(network.parts["high"]), weights(network.stem)
        cosine = _mean_cosine(network.eval(), teacher, task.masker)
        _fit(task, epochs=40)
        assert not torch.equal(weights(network.stem), stem)
        assert torch.equal(weights(network.parts["high"]), before) != is_changed
        assert _mean_cosine(network, teacher, task.masker) > cosine + 0.5
        assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(body, teacher.parts["high"].parameters(), strict=True))


def test_body_statistics_change_only_with_updates_body_statistics():
    teacher = _teacher()
    for updates in (False, True):
        task = _fine_tuning(teacher, updates_body_statistics=updates)
        norm = task.network.parts["high"][1]
        before = norm.running_mean.clone()
        _fit(task, epochs=4)
        assert torch.equal(norm.running_mean, before) != updates


@pytest.mark.parametrize("step", [7, 10, 13])
def test_fine_tuning_interrupted_in_either_phase_resumes_bit_exactly(tmp_path, step):
    class Interrupted(FineTuningTask):
        def begin_step(self, now, progress):
            super().begin_step(now, progress)
            if now == step:
                raise KeyboardInterrupt

    teacher = _teacher()
    whole, broken, resumed = _fine_tuning(teacher), _fine_tuning(teacher), _fine_tuning(teacher)
    broken.__class__ = Interrupted
    _fit(whole)
    with pytest.raises(KeyboardInterrupt):
        _fit(broken, run_dir=tmp_path)
    _fit(resumed, run_dir=tmp_path, resumes=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_record_names_the_provenance_and_no_secret():
    teacher = _teacher()
    task = _fine_tuning(teacher, head=ArcFace(4, 16, seed=1))
    record = _fit(task, epochs=1)
    described = json.loads(json.dumps(record.as_dict()))["task"]
    assert described["kind"] == "fine-tuning"
    (entry,) = described["provenance"]
    assert (entry["role"], entry["name"]) == ("teacher and body", "toy-teacher")
    assert entry["may_have_seen"] == ["everybody"]
    assert described["masker"] == {"name": "toy", "config": {"noise": 0.1}}
    assert described["network"]["kind"] == "StemAdapter"
    assert described["head"]["config"]["num_classes"] == 4
    assert "matrix" not in json.dumps(described)


def test_tasks_reject_mismatched_parts():
    masker, plain, masked, teacher = ToyMasker(), ToyBackbone(), ToyBackbone(MASKED), _teacher()
    with pytest.raises(ShapeError, match=r"\(3, 16, 16\), but the output of masker toy is \(5, 16, 16\)"):
        MarginTask(masker, plain, ArcFace(4, 16, seed=1))
    with pytest.raises(ShapeError, match="length 8, but the network outputs length 16"):
        MarginTask(masker, masked, ArcFace(4, 8, seed=1))
    with pytest.raises(InvalidInputError, match="9 classes, but the training set has 4 subjects"):
        _fit(MarginTask(masker, masked, ArcFace(9, 16, seed=1)))
    with pytest.raises(ShapeError, match="the teacher takes"):
        DistillationTask(masker, masked, ToyBackbone(MASKED), teacher_card=CARD, seed=1)
    with pytest.raises(InvalidInputError, match="student has no tap 'middle', the teacher has no tap 'top'"):
        DistillationTask(masker, masked, teacher, teacher_card=CARD, taps={"middle": "top"}, seed=1)
    with pytest.raises(InvalidInputError, match="at least one must be positive"):
        DistillationTask(masker, masked, teacher, teacher_card=CARD, embedding_weight=0.0, seed=1)
    with pytest.raises(InvalidInputError, match=r"body_unfrozen_from=1\.5"):
        _fine_tuning(teacher, body_unfrozen_from=1.5)
    with pytest.raises(ShapeError, match="Use the network that the body was taken from"):
        _fine_tuning_of_another_body(teacher)


def _fine_tuning_of_another_body(teacher):
    other = ToyBackbone(width=4)
    network = StemAdapter(conv_stem(MASKED, other.tap_shapes["low"], width=8, depth=1, seed=1), other, "low")
    return FineTuningTask(ToyMasker(), network, teacher, teacher_card=CARD)


def test_mask_images_draws_anew_without_gradient_in_full_precision():
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    rng = torch.Generator().manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = (mask_images(ToyMasker(), images, rng=rng) for _ in range(2))
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert not torch.equal(first, second)


def test_feature_error_is_one_for_channel_means_and_scale_invariant():
    target = torch.randn(4, 6, 5, 5) * torch.arange(1.0, 7.0)[:, None, None] + 3
    means = target.mean(dim=(0, 2, 3), keepdim=True).expand_as(target)
    assert feature_error(means, target).item() == pytest.approx(1, abs=1e-5)
    noisy = target + torch.randn_like(target)
    assert feature_error(10 * noisy, 10 * target).item() == pytest.approx(feature_error(noisy, target).item(), rel=1e-4)


def test_resuming_rejects_another_secret(tmp_path):
    def task(secret):
        head = ArcFace(4, 16, scale=16.0, seed=1)
        return MarginTask(ToyMasker(secret=secret), ToyBackbone(MASKED), head, optimizer=ADAM)

    _fit(task(1), run_dir=tmp_path, epochs=2)
    assert _fit(task(1), run_dir=tmp_path, epochs=2, resumes=True).steps == 4
    with pytest.raises(CheckpointError, match="another secret"):
        _fit(task(2), run_dir=tmp_path, epochs=2, resumes=True)
