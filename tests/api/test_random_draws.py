"""Every place that draws randomness is listed with its purpose, so that a new one cannot protect people with a seed."""

from __future__ import annotations

import pytest

from support.random_draws import LIST, draws_in, listed_draws, random_draws

PURPOSES = {"protective", "key", "identifier", "experiment", "synthetic faces"}
OF_SYSTEM = {
    "os.urandom",
    "secrets.token_bytes",
    "secrets.token_hex",
    "secrets.randbelow",
    "Keystream",
    "protective_stream",
    "protective_streams",
    "draws_from",
    "SystemNoise",
    "new_reference_ids",
    "permutation_from",  # from a secret
    "draw_secret",
}
TAKES_A_GENERATOR = {"masking/_dctdp.py::Dctdp.mask": "ImageNoise", "masking/_hfcf.py::Hfcf.mask": "ImageNoise"}


def test_every_place_that_draws_is_listed() -> None:
    found, listed = random_draws(), listed_draws()
    new, gone = sorted(found.keys() - listed.keys()), sorted(listed.keys() - found.keys())
    assert not new and not gone, f"list these in {LIST.name} with purpose and reason, or remove them: {new} {gone}"
    changed = {place: calls for place, calls in found.items() if calls != listed[place]["calls"]}
    assert not changed, f"check the purpose of these again: {changed}"


def test_what_protects_draws_from_the_operating_system() -> None:
    for place, entry in listed_draws().items():
        assert entry["purpose"] in PURPOSES and len(entry["reason"]) > 10, place
        if entry["purpose"] not in ("experiment", "synthetic faces"):
            assert set(entry["calls"]) - {TAKES_A_GENERATOR.get(place)} <= OF_SYSTEM, place


@pytest.mark.parametrize(
    "line",
    [
        "torch.Generator().manual_seed(1)",
        "rng = torch.Generator()",
        "x.exponential_(generator=rng)",
        "torch.empty(3).uniform_()",
        "torch.bernoulli(p)",
        "anything(generator=rng)",
        "np.random.default_rng(1)",
        "numpy.random.SFC64(3)",
        "default_rng(1).integers(9)",
        "random.random()",
        "os.urandom(32)",
        "secrets.token_bytes(7)",
        "core.Keystream(key, 0)",
    ],
)
def test_the_search_finds_a_draw(line: str) -> None:
    assert next(draws_in(f"class A:\n    def f(self):\n        {line}\n"))[0] == "A.f"


def test_the_search_ignores_annotations_and_other_calls() -> None:
    source = "def f(rng: np.random.Generator, generator=None) -> torch.Generator:\n    return g(rng=rng, seed=1)\n"
    assert list(draws_in(source)) == []
