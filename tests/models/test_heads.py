from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, PpfrError, RangeError, ShapeError
from ppfr.models import AdaFace, ArcFace, CosFace
from reference import margin_heads

HEADS = [ArcFace, CosFace, AdaFace]


def _batch(seed, num=6, classes=5, dim=4, k=1):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (num, k), generator=rng)
    weights = torch.rand(num, k, generator=rng) + 0.1
    return 3 * torch.randn(num, dim, generator=rng), labels, weights / weights.sum(dim=1, keepdim=True)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.sampled_from(HEADS), st.sampled_from([4.0, 64.0]))
def test_loss_equals_the_slow_reference(seed, k, make, scale):
    embedding, labels, weights = _batch(seed, k=k)
    head = make(5, 4, scale=scale, seed=seed).eval()
    if make is AdaFace:
        head.norm_mean.fill_(6.0)
        head.norm_std.fill_(2.0)

    def handicap(row, cosine):
        if make is ArcFace:
            return margin_heads.arcface(cosine, head.margin)
        if make is CosFace:
            return margin_heads.cosface(cosine, head.margin)
        z = (float(embedding[row].norm()) - 6.0) / 2.001 * head.spread
        return margin_heads.adaface(cosine, head.margin, min(max(z, -1.0), 1.0))

    expected = margin_heads.mixed_loss(
        embedding.tolist(), head.weight_CD.tolist(), labels.tolist(), weights.tolist(), scale=scale, handicap=handicap
    )
    found = head.loss(embedding, labels, weights).detach()
    assert found.dtype is torch.float32
    assert float(found) == pytest.approx(expected, rel=2e-5, abs=1e-4)


@pytest.mark.parametrize("make", HEADS)
def test_single_labels_need_no_weights_and_repeated_labels_add_up(make):
    embedding, labels, _ = _batch(0)
    head = make(5, 4, seed=0).eval()
    plain = head(embedding, labels[:, 0])
    assert torch.equal(plain, head.loss(embedding, labels))
    torch.testing.assert_close(head.loss(embedding, labels, torch.ones(6, 1)), plain)
    twice = head.loss(embedding, labels.repeat(1, 2), torch.tensor([[0.3, 0.7]]).repeat(6, 1))
    torch.testing.assert_close(twice, plain)


def test_arcface_decreases_up_to_the_opposite_pole():
    head = ArcFace(2, 2, seed=0)
    cosine = torch.linspace(-1, 1, 20001, dtype=torch.float64).view(-1, 1)
    with_margin = head.apply_margin(cosine, torch.ones_like(cosine))
    assert (with_margin.diff(dim=0) > 0).all(), "a larger angle must have a smaller logit"
    assert (with_margin < cosine).all()


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_poles(make, sign):
    head = make(3, 2, seed=0)
    with torch.no_grad():
        head.weight_CD.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    embedding = torch.tensor([[5.0 * sign, 0.0], [5.0 * sign, 1e-8]]).requires_grad_()
    loss = head.loss(embedding, torch.tensor([0, 0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(head.weight_CD.grad).all()


@pytest.mark.parametrize("make", HEADS)
def test_zero_embedding_has_finite_gradients(make):
    head = make(3, 2, seed=0)
    embedding = torch.zeros(2, 2, requires_grad=True)
    head.loss(embedding, torch.tensor([0, 1])).backward()
    assert torch.isfinite(embedding.grad).all()


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_of_half_precision_embeddings_is_computed_in_float32(make, dtype):
    embedding, labels, _ = _batch(1)
    head = make(5, 4, seed=0).eval()
    half = embedding.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(half, labels)
    assert loss.dtype is torch.float32
    assert torch.equal(loss, head.loss(half.detach().float(), labels))
    loss.backward()
    assert torch.isfinite(half.grad).all()


def test_adaface_statistics_change_only_in_training_and_are_saved():
    embedding, labels, _ = _batch(2)
    head = AdaFace(5, 4, momentum=0.25, seed=0)
    head.eval().loss(embedding, labels)
    assert float(head.norm_mean) == 20.0
    head.train().loss(embedding, labels)
    norms = embedding.norm(dim=1)
    assert float(head.norm_mean) == pytest.approx(0.75 * 20 + 0.25 * float(norms.mean()), rel=1e-5)
    assert float(head.norm_std) == pytest.approx(0.75 * 100 + 0.25 * float(norms.std()), rel=1e-5)
    assert {"norm_mean", "norm_std"} <= set(head.state_dict())


@pytest.mark.parametrize("make", HEADS)
def test_margin_increases_loss_and_training_decreases_it(make):
    embedding, labels, _ = _batch(3, num=32, dim=8)
    assert make(5, 8, margin=0.3, seed=0).loss(embedding, labels) > make(5, 8, margin=0.0, seed=0).loss(
        embedding, labels
    )
    head = make(5, 8, seed=0)
    free = torch.nn.Parameter(embedding.clone())
    optimizer = torch.optim.Adam([free, *head.parameters()], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(free, labels)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5
    assert torch.equal(head.cosines(free.detach()).argmax(dim=1), labels[:, 0])


def test_class_centres_depend_only_on_the_seed():
    before = torch.get_rng_state()
    assert torch.equal(ArcFace(7, 3, seed=1).weight_CD, CosFace(7, 3, seed=1).weight_CD)
    assert not torch.equal(ArcFace(7, 3, seed=1).weight_CD, ArcFace(7, 3, seed=2).weight_CD)
    assert torch.equal(torch.get_rng_state(), before)


EMBEDDING = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda h: h.loss(EMBEDDING, torch.tensor([0, 5])), RangeError, r"1 of 2 labels are outside 0\.\.4"),
        (lambda h: h.loss(EMBEDDING, torch.tensor([-1, 0])), RangeError, "one class per training subject"),
        (lambda h: h.loss(EMBEDDING, torch.tensor([0, 1, 2])), ShapeError, "B = 2"),
        (lambda h: h.loss(EMBEDDING, torch.tensor([0.0, 1.0])), ShapeError, "integer class indices"),
        (lambda h: h.loss(torch.ones(2, 3), torch.tensor([0, 1])), ShapeError, r"expected \(B, 4\)"),
        (lambda h: h.loss(EMBEDDING, torch.zeros(2, 2, dtype=torch.int64)), ShapeError, "require weights_Bk"),
        (
            lambda h: h.loss(EMBEDDING, torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 0.6)),
            RangeError,
            "sum to 1",
        ),
        (
            lambda h: h.loss(EMBEDDING, torch.zeros(2, 2, dtype=torch.int64), torch.tensor([[1.5, -0.5]] * 2)),
            RangeError,
            "at least 0",
        ),
        (lambda h: h.loss(EMBEDDING, torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 1)), ShapeError, "be equal"),
        (lambda h: ArcFace(0, 4, seed=0), InvalidInputError, "num_classes=0"),
        (lambda h: ArcFace(5, 4, margin=math.pi / 2, seed=0), RangeError, r"\[0, 1.571\)"),
        (lambda h: AdaFace(5, 4, momentum=0.0, seed=0), RangeError, "momentum"),
    ],
)
def test_heads_reject_invalid_arguments(call, error, message):
    assert issubclass(error, PpfrError)
    with pytest.raises(error, match=message):
        call(ArcFace(5, 4, seed=0))
