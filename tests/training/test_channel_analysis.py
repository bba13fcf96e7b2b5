"""Channel analysis: what shows much and identifies nobody is dropped; gates, penalty and energies are the formulas."""

from __future__ import annotations

import json

import pytest
import torch
from toy_training import SIZE, ToyBackbone, ToyImages, weights

from ppfr.core import ImageMasker, InvalidInputError, MaskSpec, ShapeError
from ppfr.models import ArcFace, CosFace, ModelCard
from ppfr.training import Batch, ChannelAnalysisObjective, OptimiserSettings, Plan, fit

SHAPE = (3, SIZE, SIZE)
ADAM = OptimiserSettings(optimiser="adam", lr=1e-2, weight_decay=0.0)
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
    """0: nearly all energy, alike for everybody; 1: the pattern that tells people apart; 2: faint noise."""

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
    """A network whose embeddings tell the toy people apart: statistics that fit the images, embeddings around zero."""
    teacher = ToyBackbone(seed=7)
    pixels = torch.from_numpy(ToyImages().pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for _ in range(30):
            teacher.train()(pixels)
        linear = teacher.head[-1]
        linear.bias -= teacher.eval()(pixels).mean(0)
    return teacher


def _objective(*, task="labels", penalty_weight=1.0, masker=None, **options):
    masker = masker or PlantedChannels()
    network = ToyBackbone(SHAPE, seed=1)
    if task == "labels":
        options = {"head": CosFace(4, 16, scale=16.0, margin=0.2, seed=1), **options}
    else:
        options = {"teacher": _teacher(), "teacher_card": CARD, **options}
    options = {"optimiser": ADAM, "gate_lr_scale": 20.0, **options}
    return ChannelAnalysisObjective(masker, network, penalty_weight=penalty_weight, **options)


def _fit(objective, *, run_dir=None, passes=25, seed=1, **options):
    plan = Plan(passes=passes, batch_size=16, checkpoint_every_steps=4, flip=0.0)
    return fit(objective, ToyImages(), plan=plan, seed=seed, run_dir=run_dir, device="cpu", progress=False, **options)


def _batch(num=16):
    images = ToyImages()
    pixels = torch.from_numpy(images.pixels[:num].copy()).permute(0, 3, 1, 2).float() / 255
    return Batch(images_BCHW=pixels, labels_B=torch.arange(num) // 8, indices_B=torch.arange(num))


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", ["labels", "teacher"])
def test_the_channel_of_all_energy_and_no_identity_goes_and_the_one_that_identifies_stays(task):
    objective = _objective(task=task)
    record = _fit(objective, passes=60)
    assert 1 in objective.channels_kept() and 0 not in objective.channels_kept()
    assert objective.gates()[0] < 0.1 and objective.gates()[1] > 0.8
    assert objective.energy_share(objective.channels_kept()) < 0.02
    assert record.losses["analyst/penalty"] < 0.2
    with_it, without = (objective.task_losses_with(kept, _batch(), rng=_rng()) for kept in ((1,), (0, 2)))
    assert with_it.shape == (16,) and with_it.mean() < 0.5 * without.mean()


def test_without_a_penalty_what_identifies_stays_open_and_with_a_huge_one_nothing_that_shows_does():
    free, dear = _objective(penalty_weight=0.0), _objective(penalty_weight=1e4)
    for objective in (free, dear):
        _fit(objective)
    assert 1 in free.channels_kept()
    # 1e4 times the pattern's share of the energy is more than any identity is worth.
    assert 0 not in dear.channels_kept() and 1 not in dear.channels_kept()


def test_the_penalty_and_its_gradient_are_the_formula():
    objective = _objective(temperature=0.7, penalty_weight=3.0)
    alpha = torch.tensor([-0.4, 0.3, 1.1])
    energy = torch.tensor([5.0, 2.0, 1.0])
    with torch.no_grad():
        objective.alpha_K.copy_(alpha)
        objective.energy_K.copy_(energy)
    gate = 1 / (1 + torch.exp(-alpha / 0.7))
    penalty = objective.penalty()
    penalty.backward()
    assert penalty.item() == pytest.approx(((gate * energy).sum() / 8).item(), rel=1e-6)
    torch.testing.assert_close(objective.alpha_K.grad, energy / 8 * gate * (1 - gate) / 0.7)
    assert objective.gates() == pytest.approx(gate.tolist())
    assert objective.channels_kept() == (1, 2) and objective.channels_kept(threshold=0.7) == (2,)
    assert objective.energy_share((2, 0, 2)) == pytest.approx(6 / 8)


def test_the_loss_is_the_sum_and_its_gradient_opens_what_identifies_and_closes_what_only_shows():
    objective = _objective()
    _fit(objective, passes=8)
    objective.train()
    with torch.no_grad():
        objective.alpha_K.fill_(0.2)
    terms = objective.loss("analyst", _batch(32), rng=_rng(), progress=0.0)
    terms["loss"].backward()
    expected = terms["task"] + objective.penalty_weight * terms["penalty"]
    torch.testing.assert_close(terms["loss"], expected)
    # A step goes against the gradient.
    assert objective.alpha_K.grad[0] > 0 > objective.alpha_K.grad[1]


def test_energies_and_means_are_those_of_all_images_and_only_training_measures():
    class Plain(PlantedChannels):
        def mask(self, image_BCHW, *, rng):
            return image_BCHW - torch.tensor([0.0, 0.5, 0.9])[:, None, None]

    objective = _objective(masker=Plain())
    batch = _batch(32)
    masked = Plain().mask(batch.images_BCHW, rng=_rng())
    objective.train()
    for part in (slice(0, 5), slice(5, 21), slice(21, 32)):
        piece = Batch(
            images_BCHW=batch.images_BCHW[part], labels_B=batch.labels_B[part], indices_B=batch.indices_B[part]
        )
        objective.loss("analyst", piece, rng=_rng(), progress=0.0)
    torch.testing.assert_close(objective.energy_K, masked.abs().mean((0, 2, 3)))
    torch.testing.assert_close(objective.mean_K, masked.mean((0, 2, 3)))
    before = objective.energies()
    objective.eval().loss("analyst", _batch(4), rng=_rng(), progress=0.0)
    objective.task_losses_with((0, 1), _batch(4), rng=_rng())
    assert objective.energies() == before and int(objective.num_measured) == 32


def test_a_closed_channel_says_nothing_of_the_image():
    """What channel 0 holds is another draw each time; let through it moves the loss, closed it does not."""
    objective = _objective()
    _fit(objective, passes=2)
    closed = objective.task_losses_with((1,), _batch(), rng=_rng(7)).mean().item()
    with torch.no_grad():
        masked = PlantedChannels().mask(_batch().images_BCHW, rng=_rng(7))
        masked[:, [0, 2]] = objective.mean_K[[0, 2], None, None]
        embedding = objective.network(masked)
        direct = objective.head.loss(embedding, _batch().labels_B).item()
    assert closed == pytest.approx(direct, rel=1e-5)
    assert len({objective.task_losses_with((0, 1), _batch(), rng=_rng(seed)).mean().item() for seed in range(3)}) == 3


def test_draws_come_from_rng_alone_are_open_as_often_as_promised_and_absent_in_evaluation():
    objective = _objective(temperature=0.1)
    with torch.no_grad():
        objective.alpha_K.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    drawn = objective._drawn_gates(20_000, _rng(1))
    assert torch.equal(drawn, objective._drawn_gates(20_000, _rng(1)))
    assert not torch.equal(drawn, objective._drawn_gates(20_000, _rng(2)))
    torch.testing.assert_close(
        (drawn > 0.5).float().mean(0), torch.sigmoid(objective.alpha_K.detach()), rtol=0, atol=0.015
    )
    assert drawn.isfinite().all() and drawn.min() >= 0 and drawn.max() <= 1
    objective.eval()
    state = torch.get_rng_state()
    quiet = [objective.loss("analyst", _batch(), rng=_rng(3), progress=0.0)["loss"].item() for _ in range(2)]
    assert quiet[0] == quiet[1]
    assert torch.equal(torch.get_rng_state(), state)


class _Interrupted(ChannelAnalysisObjective):
    def begin_step(self, step, progress):
        if step == 6:
            raise KeyboardInterrupt


def test_an_interrupted_analysis_resumes_to_the_same_bits(tmp_path):
    whole = _objective()
    expected = _fit(whole, passes=5)
    broken = _objective()
    broken.__class__ = _Interrupted
    with pytest.raises(KeyboardInterrupt):
        _fit(broken, passes=5, run_dir=tmp_path)
    resumed = _objective()
    with torch.no_grad():
        resumed.alpha_K.fill_(9.0)
        resumed.energy_K.fill_(9.0)
    record = _fit(resumed, passes=5, run_dir=tmp_path, resume=True)
    assert record.resumed_at_steps == [4]
    assert torch.equal(weights(resumed), weights(whole))
    assert record.losses == expected.losses
    other = _objective()
    _fit(other, passes=5, seed=2)
    assert not torch.equal(weights(other), weights(whole))


def test_the_record_tells_what_the_gates_decided_and_whose_knowledge_went_in():
    objective = _objective(task="teacher", knowledge=[CARD])
    record = _fit(objective, passes=1)
    told = record.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["outcome"]["channels_kept"] == list(objective.channels_kept())
    assert [k["role"] for k in told["objective"]["knowledge"]] == ["teacher", "initial weights"]
    assert told["objective"]["head"] is None and told["objective"]["penalty_weight"] == 1.0
    assert not any(name.startswith("teacher.") for name in objective.learned_state())


def test_a_channel_masker_that_gives_nothing_costs_nothing():
    class Empty(PlantedChannels):
        def mask(self, image_BCHW, *, rng):
            return torch.zeros_like(image_BCHW)

    objective = _objective(masker=Empty())
    terms = objective.train().loss("analyst", _batch(), rng=_rng(), progress=0.0)
    assert terms["penalty"].item() == 0 and terms["loss"].isfinite()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": None}, "neither of head and teacher"),
        ({"teacher": ToyBackbone(SHAPE), "teacher_card": CARD}, "both of head and teacher"),
        ({"head": None, "teacher": ToyBackbone(SHAPE)}, "teacher_card go together"),
        ({"teacher_card": CARD}, "teacher_card go together"),
        ({"masker": PlantedChannels(is_trainable=True)}, "analyse a fixed one"),
        ({"penalty_weight": -1.0}, "penalty_weight=-1"),
        ({"penalty_weight": float("nan")}, "penalty_weight=nan"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"initial_gate": 0.5}, r"initial_gate=0\.5"),
        ({"gate_lr_scale": 0.0}, r"gate_lr_scale=0\.0"),
        ({"head": None, "teacher": ToyBackbone(SHAPE, dim=8), "teacher_card": CARD}, r"dim=teacher\.dim"),
    ],
)
def test_bad_arguments_are_refused_in_words(options, words):
    with pytest.raises(InvalidInputError, match=words):
        _objective(**options)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="the masker planted gives"):
        ChannelAnalysisObjective(
            PlantedChannels(), ToyBackbone((5, SIZE, SIZE)), head=ArcFace(4, 16, seed=1), penalty_weight=1.0
        )
    with pytest.raises(InvalidInputError, match="num_classes=4"):
        _fit(_objective(head=ArcFace(5, 16, seed=1)), passes=1)
