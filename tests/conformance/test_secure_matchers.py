"""One suite over all secure matchers. A new one is one entry in MATCHERS."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ppfr.core import InvalidInputError, RangeError, SecureMatcher, ShapeError
from ppfr.secure import CkksMatcher, Mpyc, ProcessMatcher, Spu, ThreePartyMatcher
from ppfr.service import PartyServer, PartySettings, SecureGalleryClient, write_trial
from support.embeddings import unit_rows

DIM, THRESHOLD = 16, 0.8
SUBJECTS = ("ada", "bea", "ada", "cyd", "dot", "eve", "bea")
SPU_PYTHON = os.environ.get("PPFR_SPU_PYTHON")


REFERENCES = unit_rows(len(SUBJECTS), DIM)
Opened = contextlib.AbstractContextManager[SecureMatcher]


@contextlib.contextmanager
def three_parties(directory: Path) -> Iterator[SecureMatcher]:
    """The service's client with three servers on loopback."""
    host = ".".join(["127", *(str(random.SystemRandom().randint(1, 250)) for _ in range(3))])
    write_trial(directory, dim=DIM, addresses=[f"{host}:{port}" for port in (7300, 7301, 7302)], timeout_s=20.0)
    with contextlib.ExitStack() as stack:
        for party in range(3):
            server = PartyServer(PartySettings.read(directory / f"party-{party}.toml"))
            stack.enter_context(server).start()
        client = stack.enter_context(SecureGalleryClient.open(directory / "client.toml"))
        deadline = time.monotonic() + 30
        while any(status["problem"] for status in client.status()):
            assert time.monotonic() < deadline, client.status()
            time.sleep(0.05)
        client.enrol(REFERENCES, SUBJECTS)
        yield client


def made(make: Callable[[Sequence[str]], SecureMatcher], *extras: str) -> Callable[[Path], Opened]:
    def opened(_: Path) -> Opened:
        for module in extras:
            pytest.importorskip(module)
        return make(SUBJECTS)

    return opened


def spu(protocol: str) -> Callable[[Path], Opened]:
    return made(lambda names: ProcessMatcher(REFERENCES, Spu(protocol=protocol), subjects=names, timeout_s=300))


NEEDS_SPU = [
    pytest.mark.slow,
    pytest.mark.skipif(not SPU_PYTHON, reason="PPFR_SPU_PYTHON is not set; see requirements/spu.txt"),
]
MATCHERS = {
    "three-party": made(lambda names: ThreePartyMatcher(REFERENCES, subjects=names, timeout_s=600), "cryptography"),
    "three-party-int8": made(
        lambda names: ThreePartyMatcher(REFERENCES, subjects=names, values="int8", timeout_s=600), "cryptography"
    ),
    "mpyc": made(
        lambda names: ProcessMatcher(REFERENCES, Mpyc(num_parties=1), subjects=names, timeout_s=300),
        "cryptography",
        "mpyc",
    ),
    "ckks": made(lambda names: CkksMatcher(REFERENCES, threshold=THRESHOLD, subjects=names), "tenseal"),
    "ckks-plain-probe": made(
        lambda names: CkksMatcher(REFERENCES, threshold=THRESHOLD, subjects=names, probe="plain"), "tenseal"
    ),
    "service": three_parties,
}
SPU_MATCHERS = {f"spu-{protocol}": spu(protocol) for protocol in ("aby3", "cheetah", "semi2k")}


@pytest.fixture(
    scope="module",
    params=[*MATCHERS.values(), *(pytest.param(opened, marks=NEEDS_SPU) for opened in SPU_MATCHERS.values())],
    ids=[*MATCHERS, *SPU_MATCHERS],
)
def matcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMatcher]:
    with request.param(tmp_path_factory.mktemp("parties")) as opened:
        yield opened


@pytest.fixture(scope="module")
def probes() -> np.ndarray:
    """Close to the first three references, then far from all."""
    near = REFERENCES[:3] + 0.05 * unit_rows(3, DIM, seed=1)
    return np.concatenate([near / np.linalg.norm(near, axis=1, keepdims=True), -REFERENCES[3:4]])


def test_it_satisfies_the_contract(matcher):
    assert isinstance(matcher, SecureMatcher)
    assert matcher.dim == DIM
    assert sorted(matcher.subjects) == sorted(SUBJECTS)


def test_verify_accepts_any_reference_of_the_claimed_subject(matcher, probes):
    claims = ["ada", "bea", "ada", "cyd"]
    accepted = matcher.verify(probes, claims, threshold=THRESHOLD)
    assert accepted.dtype == bool and accepted.tolist() == [True, True, True, False]
    assert not matcher.verify(probes[:3], ["dot", "cyd", "eve"], threshold=THRESHOLD).any()


def test_match_any_says_whether_anybody_is_accepted(matcher, probes):
    accepted = matcher.match_any(probes, threshold=THRESHOLD)
    assert accepted.dtype == bool and accepted.tolist() == [True, True, True, False]


def test_match_all_names_each_accepted_subject_once(matcher, probes):
    assert matcher.match_all(probes, threshold=THRESHOLD) == (("ada",), ("bea",), ("ada",), ())


def test_a_question_with_another_threshold_is_answered_or_refused(matcher, probes):
    if isinstance(matcher, CkksMatcher):  # it pins the threshold
        for ask in (matcher.match_any, matcher.match_all, matcher.identify):
            with pytest.raises(InvalidInputError, match="pinned"):
                ask(probes, threshold=-1.0)
        with pytest.raises(InvalidInputError, match="pinned"):
            matcher.verify(probes[:1], ["ada"], threshold=-1.0)
        return
    everybody = tuple(sorted(set(SUBJECTS)))
    assert matcher.match_all(probes[:2], threshold=-1.0) == (everybody, everybody)


def test_identify_names_the_best_accepted_subject(matcher, probes):
    assert matcher.identify(probes, threshold=THRESHOLD) == ("ada", "bea", "ada", None)


def test_probes_are_not_changed_and_answers_are_repeatable(matcher, probes):
    before = probes.copy()
    first = matcher.match_all(probes, threshold=THRESHOLD)
    assert matcher.match_all(probes, threshold=THRESHOLD) == first
    np.testing.assert_array_equal(probes, before)


def test_bad_probes_are_rejected(matcher):
    row = REFERENCES[:2]
    rejected = ((row[0], ShapeError), (row[:, :-1], ShapeError), (2 * row, RangeError), (row * np.nan, RangeError))
    for bad, error in rejected:
        for ask in (matcher.match_any, matcher.match_all, matcher.identify):
            with pytest.raises(error):
                ask(bad, threshold=THRESHOLD)
        with pytest.raises(error):
            matcher.verify(bad, ["ada"] * len(bad), threshold=THRESHOLD)


@pytest.mark.parametrize("threshold", [1.5, -1.5, float("nan")])
def test_thresholds_outside_the_range_of_cosines_are_rejected(matcher, threshold):
    for ask in (matcher.match_any, matcher.match_all, matcher.identify):
        with pytest.raises(RangeError, match="threshold"):
            ask(REFERENCES[:1], threshold=threshold)
    with pytest.raises(RangeError, match="threshold"):
        matcher.verify(REFERENCES[:1], ["ada"], threshold=threshold)


def test_claims_that_do_not_fit_are_rejected_without_naming_the_subject(matcher):
    with pytest.raises(ShapeError, match="subjects"):
        matcher.verify(REFERENCES[:2], ["ada"], threshold=THRESHOLD)
    with pytest.raises(InvalidInputError, match="not enrolled") as raised:
        matcher.verify(REFERENCES[:1], ["nobody-here"], threshold=THRESHOLD)
    assert "nobody-here" not in str(raised.value)
    assert matcher.verify(REFERENCES[:1], ["ada"], threshold=THRESHOLD).all()  # and it continues to answer


def test_texts_show_no_contents(matcher):
    assert not any(subject in repr(matcher) for subject in SUBJECTS)
    assert "array" not in repr(matcher)


@pytest.mark.parametrize("make", [ThreePartyMatcher, functools.partial(CkksMatcher, threshold=THRESHOLD)])
def test_subjects_default_to_row_numbers_and_must_fit_the_references(make):
    for module in ("cryptography", "tenseal"):
        pytest.importorskip(module)
    with make(REFERENCES) as matcher:
        assert matcher.subjects == tuple("0123456")
        assert matcher.identify(REFERENCES[5:6], threshold=THRESHOLD) == ("5",)
    for bad, error in ((["a"], ShapeError), ([""] * 7, InvalidInputError), ([0] * 7, InvalidInputError)):
        with pytest.raises(error):
            make(REFERENCES, subjects=bad)
