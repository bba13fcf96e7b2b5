"""Channel analysis: dropped channels, and the formulas of gates, penalty and energies."""

from __future__ import annotations

import json

import pytest
import torch

from ppfr.core import ImageMasker, InvalidInputError, MaskSpec, ShapeError
from ppfr.models import ArcFace, CosFace, ModelCard
from ppfr.training import Batch, ChannelAnalysisTask, OptimizerSettings, Plan
from support.toy_training import SIZE, ToyBackbone, ToyImages, run_fit, weights

SHAPE = (3, SIZE, SIZE)
ADAM = OptimizerSettings(optimizer="adam", lr=1e-2, weight_decay=0.0)
CARD = ModelCard(
    name="toy-teacher",
    architecture="ToyBackbone",
    config={},
    dim=16,
    in_shape=SHAPE,
    training_data="patterns",
    may_have_seen=("everybody",),
    licence="MIT",
    source="the tests",
)


class PlantedChannels(ImageMasker):
    """Channel 0 has nearly all energy and no identity, channel 1 the pattern of the subject, channel 2 weak noise."""

    name = "planted"

    def __init__(self, *, is_trainable: bool = False) -> None:
        self._is_trainable = is_trainable

    @property
    def spec(self) -> MaskSpec:
        infinity = float("inf")
        return MaskSpec(
            in_shape=SHAPE,
            out_shape=SHAPE,
            value_range=(-infinity, infinity),
            is_stochastic=True,
            is_keyed=False,
            is_trainable=self._is_trainable,
            is_differentiable=True,
            bytes_per_face=2 * 3 * SIZE * SIZE,
        )

    def mask(self, image_BCHW, *, rng):
        pattern = image_BCHW.mean(1) - 0.5
        loud = 20 + torch.randn(pattern.shape, generator=rng)
        return torch.stack([loud, pattern, 0.01 * torch.randn(pattern.shape, generator=rng)], dim=1)

    def public_config(self):
        return {}


def _teacher():
    """A network whose embeddings separate the toy subjects: matching running statistics, zero-mean embeddings."""
    teacher = ToyBackbone(seed=7)
    pixels = torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for _ in range(30):
            teacher.train()(pixels)
        linear = teacher.head[-1]
        linear.bias -= teacher.eval()(pixels).mean(0)
    return teacher


def _analysis(*, task="labels", penalty_weight=1.0, masker=None, **options):
    masker = masker or PlantedChannels()
    network = ToyBackbone(SHAPE, seed=1)
    if task == "labels":
        options = {"head": CosFace(4, 16, scale=16.0, margin=0.2, seed=1), **options}
    else:
        options = {"teacher": _teacher(), "teacher_card": CARD, **options}
    options = {"optimizer": ADAM, "gate_lr_scale": 20.0, **options}
    return ChannelAnalysisTask(masker, network, penalty_weight=penalty_weight, **options)


def _fit(analysis, *, run_dir=None, epochs=25, seed=1, **options):
    plan = Plan(epochs=epochs, batch_size=16, checkpoint_every_steps=4, flip=0.0)
    return run_fit(analysis, run_dir, plan=plan, seed=seed, **options)


def _batch(num=16):
    images = ToyImages()
    pixels = torch.from_numpy(images.pixels[:num].copy()).permute(0, 3, 1, 2).float() / 255
    return Batch(images_BCHW=pixels, labels_B=torch.arange(num) // 8, indices_B=torch.arange(num))


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", ["labels", "teacher"])
def test_analysis_drops_energy_without_identity_and_keeps_identity(task):
    analysis = _analysis(task=task)
    record = _fit(analysis, epochs=60)
    assert 1 in analysis.channels_kept() and 0 not in analysis.channels_kept()
    assert analysis.gates()[0] < 0.1 and analysis.gates()[1] > 0.8
    assert analysis.energy_share(analysis.channels_kept()) < 0.02
    assert record.losses["analyst/penalty"] < 0.2
    with_it, without = (analysis.task_losses_with(kept, _batch(), rng=_rng()) for kept in ((1,), (0, 2)))
    assert with_it.shape == (16,) and with_it.mean() < 0.5 * without.mean()


def test_identity_channel_stays_open_without_penalty_and_closes_with_a_huge_one():
    free, penalised = _analysis(penalty_weight=0.0), _analysis(penalty_weight=1e4)
    for analysis in (free, penalised):
        _fit(analysis)
    assert 1 in free.channels_kept()
    # 1e4 times the energy share of the pattern outweighs any gain in the task loss.
    assert 0 not in penalised.channels_kept() and 1 not in penalised.channels_kept()


def test_penalty_and_its_gradient_match_the_formula():
    analysis = _analysis(temperature=0.7, penalty_weight=3.0)
    alpha = torch.tensor([-0.4, 0.3, 1.1])
    energy = torch.tensor([5.0, 2.0, 1.0])
    with torch.no_grad():
        analysis.alpha_K.copy_(alpha)
        analysis.energy_K.copy_(energy)
    gate = 1 / (1 + torch.exp(-alpha / 0.7))
    penalty = analysis.penalty()
    penalty.backward()
    assert penalty.item() == pytest.approx(((gate * energy).sum() / 8).item(), rel=1e-6)
    torch.testing.assert_close(analysis.alpha_K.grad, energy / 8 * gate * (1 - gate) / 0.7)
    assert analysis.gates() == pytest.approx(gate.tolist())
    assert analysis.channels_kept() == (1, 2) and analysis.channels_kept(threshold=0.7) == (2,)
    assert analysis.energy_share((2, 0, 2)) == pytest.approx(6 / 8)


def test_loss_gradient_opens_identity_channel_and_closes_energy_channel():
    analysis = _analysis()
    _fit(analysis, epochs=8)
    analysis.train()
    with torch.no_grad():
        analysis.alpha_K.fill_(0.2)
    terms = analysis.loss("analyst", _batch(32), rng=_rng(), progress=0.0)
    terms["loss"].backward()
    expected = terms["task"] + analysis.penalty_weight * terms["penalty"]
    torch.testing.assert_close(terms["loss"], expected)
    # A step goes against the gradient.
    assert analysis.alpha_K.grad[0] > 0 > analysis.alpha_K.grad[1]


def test_energies_and_means_average_all_training_images():
    class Plain(PlantedChannels):
        def mask(self, image_BCHW, *, rng):
            return image_BCHW - torch.tensor([0.0, 0.5, 0.9])[:, None, None]

    analysis = _analysis(masker=Plain())
    batch = _batch(32)
    masked = Plain().mask(batch.images_BCHW, rng=_rng())
    analysis.train()
    for part in (slice(0, 5), slice(5, 21), slice(21, 32)):
        piece = Batch(
            images_BCHW=batch.images_BCHW[part], labels_B=batch.labels_B[part], indices_B=batch.indices_B[part]
        )
        analysis.loss("analyst", piece, rng=_rng(), progress=0.0)
    torch.testing.assert_close(analysis.energy_K, masked.abs().mean((0, 2, 3)))
    torch.testing.assert_close(analysis.mean_K, masked.mean((0, 2, 3)))
    before = analysis.energies()
    analysis.eval().loss("analyst", _batch(4), rng=_rng(), progress=0.0)
    analysis.task_losses_with((0, 1), _batch(4), rng=_rng())
    assert analysis.energies() == before and int(analysis.num_measured) == 32


def test_closed_channel_does_not_depend_on_the_image():
    """Channel 0 is random. It changes the loss if it is open, and does not if it is closed."""
    analysis = _analysis()
    _fit(analysis, epochs=2)
    closed = analysis.task_losses_with((1,), _batch(), rng=_rng(7)).mean().item()
    with torch.no_grad():
        masked = PlantedChannels().mask(_batch().images_BCHW, rng=_rng(7))
        masked[:, [0, 2]] = analysis.mean_K[[0, 2], None, None]
        embedding = analysis.network(masked)
        direct = analysis.head.loss(embedding, _batch().labels_B).item()
    assert closed == pytest.approx(direct, rel=1e-5)
    assert len({analysis.task_losses_with((0, 1), _batch(), rng=_rng(seed)).mean().item() for seed in range(3)}) == 3


def test_gate_draws_come_from_rng_with_stated_probability_and_only_in_training():
    analysis = _analysis(temperature=0.1)
    with torch.no_grad():
        analysis.alpha_K.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    drawn = analysis._drawn_gates(20_000, _rng(1))
    assert torch.equal(drawn, analysis._drawn_gates(20_000, _rng(1)))
    assert not torch.equal(drawn, analysis._drawn_gates(20_000, _rng(2)))
    torch.testing.assert_close(
        (drawn > 0.5).float().mean(0), torch.sigmoid(analysis.alpha_K.detach()), rtol=0, atol=0.015
    )
    assert drawn.isfinite().all() and drawn.min() >= 0 and drawn.max() <= 1
    analysis.eval()
    state = torch.get_rng_state()
    quiet = [analysis.loss("analyst", _batch(), rng=_rng(3), progress=0.0)["loss"].item() for _ in range(2)]
    assert quiet[0] == quiet[1]
    assert torch.equal(torch.get_rng_state(), state)


class _Interrupted(ChannelAnalysisTask):
    def begin_step(self, step, progress):
        if step == 6:
            raise KeyboardInterrupt


def test_interrupted_analysis_resumes_bit_exactly(tmp_path):
    whole = _analysis()
    expected = _fit(whole, epochs=5)
    broken = _analysis()
    broken.__class__ = _Interrupted
    with pytest.raises(KeyboardInterrupt):
        _fit(broken, epochs=5, run_dir=tmp_path)
    resumed = _analysis()
    with torch.no_grad():
        resumed.alpha_K.fill_(9.0)
        resumed.energy_K.fill_(9.0)
    record = _fit(resumed, epochs=5, run_dir=tmp_path, resumes=True)
    assert record.resumed_at_steps == [4]
    assert torch.equal(weights(resumed), weights(whole))
    assert record.losses == expected.losses
    other = _analysis()
    _fit(other, epochs=5, seed=2)
    assert not torch.equal(weights(other), weights(whole))


def test_record_has_gates_and_provenance():
    analysis = _analysis(task="teacher", provenance=[CARD])
    record = _fit(analysis, epochs=1)
    recorded = record.as_dict()
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["outcome"]["channels_kept"] == list(analysis.channels_kept())
    assert [k["role"] for k in recorded["task"]["provenance"]] == ["teacher", "initial weights"]
    assert recorded["task"]["head"] is None and recorded["task"]["penalty_weight"] == 1.0
    assert not any(name.startswith("teacher.") for name in analysis.learned_state())


def test_penalty_of_all_zero_channels_is_zero():
    class Empty(PlantedChannels):
        def mask(self, image_BCHW, *, rng):
            return torch.zeros_like(image_BCHW)

    analysis = _analysis(masker=Empty())
    terms = analysis.train().loss("analyst", _batch(), rng=_rng(), progress=0.0)
    assert terms["penalty"].item() == 0 and terms["loss"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": None}, "neither of head and teacher"),
        ({"teacher": ToyBackbone(SHAPE), "teacher_card": CARD}, "both of head and teacher"),
        ({"head": None, "teacher": ToyBackbone(SHAPE)}, "only one of teacher and teacher_card"),
        ({"teacher_card": CARD}, "only one of teacher and teacher_card"),
        ({"masker": PlantedChannels(is_trainable=True)}, "planted is trainable"),
        ({"penalty_weight": -1.0}, "penalty_weight=-1"),
        ({"penalty_weight": float("nan")}, "penalty_weight=nan"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"initial_gate": 0.5}, r"initial_gate=0\.5"),
        ({"gate_lr_scale": 0.0}, r"gate_lr_scale=0\.0"),
        ({"head": None, "teacher": ToyBackbone(SHAPE, dim=8), "teacher_card": CARD}, "dim=8"),
    ],
)
def test_analysis_rejects_invalid_arguments(options, message):
    with pytest.raises(InvalidInputError, match=message):
        _analysis(**options)


def test_analysis_rejects_mismatched_parts():
    with pytest.raises(ShapeError, match="masker planted"):
        ChannelAnalysisTask(
            PlantedChannels(), ToyBackbone((5, SIZE, SIZE)), head=ArcFace(4, 16, seed=1), penalty_weight=1.0
        )
    with pytest.raises(InvalidInputError, match="num_classes=4"):
        _fit(_analysis(head=ArcFace(5, 16, seed=1)), epochs=1)
