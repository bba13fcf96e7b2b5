"""Three parties against plain integers; validation, and errors that name the party at fault."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, PartyError, RangeError, ShapeError
from ppfr.secure import (
    FixedPoint,
    InMemoryChannel,
    Party,
    SharedRows,
    ThreePartyMatcher,
    TorchProducts,
    open_answers,
    share_query,
    share_rows,
    share_threshold,
)
from reference import secure_matching
from support.documents import run_python

CHALLENGE = bytes(32)


def unit(num, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(deadline=None, max_examples=12)
@given(
    num=st.sampled_from([1, 2, 63, 64, 65, 150]),
    dim=st.integers(1, 20),
    num_probes=st.integers(1, 5),
    values=st.sampled_from(["int8", "int16"]),
    threshold=st.sampled_from([-1.0, -0.1, 0.0, 0.4, 1.0]),
    hides=st.booleans(),
    seed=st.integers(0, 999),
)
def test_decisions_equal_those_of_plain_integers(num, dim, num_probes, values, threshold, hides, seed):
    references, probes = unit(num, dim, seed), unit(num_probes, dim, seed + 1)
    references[-1] = references[0]  # a tie
    probes[0] = references[0]
    with ThreePartyMatcher(references, values=values, timeout_s=600) as matcher:
        scale = matcher.fixed_point.scale
        scores = secure_matching.integer_scores(
            secure_matching.quantised(probes, scale), secure_matching.quantised(references, scale)
        )
        given_ = share_threshold(threshold, matcher.fixed_point) if hides else threshold
        accepted = secure_matching.accepted(scores, threshold, scale)
        assert matcher.match_all(probes, threshold=given_) == secure_matching.subjects(accepted)
        assert matcher.match_any(probes, threshold=given_).tolist() == [any(row) for row in accepted]
        assert matcher.identify(probes, threshold=given_) == secure_matching.best(scores, threshold, scale)
        pairs = np.random.default_rng(seed).integers(0, num, size=num_probes)
        expected = [accepted[n][m] for n, m in enumerate(pairs)]
        claims = [str(m) for m in pairs]
        assert matcher.verify(probes, claims, threshold=given_).tolist() == expected


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_a_score_equal_to_the_threshold_is_accepted(values):
    references, probe = unit(40, 64), unit(1, 64, seed=1)
    with ThreePartyMatcher(references, values=values) as matcher:
        point = matcher.fixed_point
        scores = point.signed(point.quantise(probe)) @ point.signed(point.quantise(references)).T / point.scale**2
        for threshold in (scores[0, 7], np.nextafter(scores[0, 7], 2)):
            found = matcher.match_all(probe, threshold=float(threshold))
            assert found == secure_matching.subjects(scores >= threshold)


def test_pytorch_products_give_equal_decisions():
    references, probes = unit(100, 32), unit(3, 32, seed=1)
    answers = []
    for products in (None, TorchProducts):
        with ThreePartyMatcher(references, products=products) as matcher:
            answers.append(matcher.match_all(probes, threshold=0.1))
            verified = matcher.verify(probes, ["0", "1", "2"], threshold=0.1).tolist()
            assert verified == [str(n) in found for n, found in enumerate(answers[-1])]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["verify", "any", "set", "best"])
def test_traffic_follows_from_sizes_alone(kind):
    """Opposite decisions, equal traffic; for "set" also the documented counts of bytes and rounds."""
    row = unit(1, 16)
    references = np.repeat(row, 130, axis=0)
    method = {"verify": "verify", "any": "match_any", "set": "match_all", "best": "identify"}[kind]
    with ThreePartyMatcher(references, values="int8") as matcher:
        seen = []
        for probe in (row, -row):
            claims = {"subjects": ["0"]} if kind == "verify" else {}
            getattr(matcher, method)(probe, threshold=0.5, **claims)
            seen.append(matcher.traffic)
    assert seen[0] == seen[1]
    if kind == "set":
        # statement, hash of a component, 130 sums of 2 bytes, 39 gates of 3 words, 6 random sums, their hash; party 0
        # also 16 planes of 3 words and 16 upper parts
        every = 32 + 32 + 260 + 39 * 24 + 6 * 4 + 32
        assert [t.bytes_sent for t in seen[0]] == [every + (16 * 24 + 16 * 4) * (i == 0) for i in range(3)]
        assert {t.num_rounds for t in seen[0]} == {7}


def test_bad_input_is_rejected():
    row = unit(2, 8)
    with pytest.raises(InvalidInputError, match="empty"):
        ThreePartyMatcher(np.empty((0, 8)))
    with pytest.raises(ShapeError, match=r"\(M, D\)"):
        ThreePartyMatcher(row[0])
    with pytest.raises(RangeError, match="norm 1"):
        ThreePartyMatcher(2 * row)
    with ThreePartyMatcher(row, timeout_s=5) as matcher:
        with pytest.raises(RangeError, match="finite"):
            matcher.match_any(np.full((1, 8), np.nan), threshold=0.5)
        with pytest.raises(ShapeError):
            matcher.match_any(unit(1, 9), threshold=0.5)
        with pytest.raises(RangeError, match="threshold"):
            matcher.match_any(row, threshold=2.0)
        with pytest.raises(InvalidInputError, match="three"):
            matcher.match_any(row, threshold=share_threshold(0.5, matcher.fixed_point)[:2])
        with pytest.raises(InvalidInputError, match="fixed-point"):
            matcher.match_any(row, threshold=share_threshold(0.5, FixedPoint(dim=9)))
        with pytest.raises(InvalidInputError, match="its own"):
            matcher.match_any(row, threshold=share_threshold(0.5, matcher.fixed_point)[::-1])
        assert matcher.verify(row, ["0", "1"], threshold=0.9).all()  # and it continues to answer


@pytest.fixture
def made():
    """(parameters, galleries, queries) of a small example."""
    point = FixedPoint(dim=8, values="int8")
    galleries = share_rows(unit(4, 8), point)
    queries = share_query("set", unit(1, 8, seed=1), fixed_point=point, threshold=0.2)
    return point, galleries, queries


def answers_of(three_parties, galleries, queries, *, timeout_s=5.0):
    def work(party, channel, keys):
        try:
            return Party(galleries[party], keys, channel).answer(queries[party], number=0, challenge=CHALLENGE)
        except Exception as error:
            channel.close()
            return error

    return three_parties(work, channels=InMemoryChannel.ring(timeout_s=timeout_s))


def test_parties_with_different_inputs_name_each_other(three_parties, made):
    """Shares of different sharings, another threshold, another gallery: detected before any decision."""
    point, galleries, queries = made
    other_rows = share_rows(unit(4, 8), point)
    other_threshold = share_query("set", unit(1, 8, seed=1), fixed_point=point, threshold=0.3)
    for shares, given_ in (
        ((galleries[0], other_rows[1], galleries[2]), queries),
        (galleries, (queries[0], queries[1], other_threshold[2])),
        (tuple(SharedRows.concatenate([g, g]) if g.party == 1 else g for g in galleries), queries),
    ):
        errors = answers_of(three_parties, shares, given_)
        assert all(isinstance(error, PartyError) for error in errors)
        assert any("another query, gallery, threshold or version" in str(error) for error in errors)


def test_a_silent_or_malfunctioning_party_is_reported_by_name(three_parties, made):
    _, galleries, queries = made

    def work(party, channel, keys, data):
        if party == 1:
            return channel.send(data) if data else None
        try:
            return Party(galleries[party], keys, channel).answer(queries[party], number=0, challenge=CHALLENGE)
        except PartyError as error:
            channel.close()
            return error

    for data, problem in ((b"", "Party 1 sent nothing"), (b"?" * 64, "Party 1 has another")):
        results = three_parties(functools.partial(work, data=data), channels=InMemoryChannel.ring(timeout_s=0.3))
        assert problem in str(results[0])
    channels = InMemoryChannel.ring(timeout_s=0.3)
    channels[1].send(b"short")
    with pytest.raises(PartyError, match="Party 1 sent 5 bytes, expected 6"):
        channels[0].receive(6)


def test_a_party_rejects_queries_that_do_not_fit_its_gallery(three_parties, made):
    point, galleries, queries = made

    def check(queries, match, gallery=None, error=InvalidInputError):
        def work(party, channel, keys):
            with pytest.raises(error, match=match):
                Party((gallery or galleries)[party], keys, channel).answer(
                    queries[party], number=0, challenge=CHALLENGE
                )

        three_parties(work)

    check(queries[1:] + queries[:1], "its own")
    check(share_query("set", unit(1, 8), fixed_point=FixedPoint(dim=8), threshold=0), "gallery uses")
    pair = functools.partial(share_query, "verify", unit(1, 8), fixed_point=point, threshold=0)
    check(pair(references_NR=[[4]]), r"0\.\.3", error=RangeError)
    check(pair(references_NR=[[-1]]), r"0\.\.3", error=RangeError)
    for references in ([0, 1], [[0], [1]], [[]]):
        with pytest.raises(ShapeError, match=r"Expected references of shape \(1, R\), got"):
            pair(references_NR=references)
    empty = [
        SharedRows(party=i, fixed_point=point, ids_N16=g.ids_N16[:0], words_NW=g.words_NW[:0])
        for i, g in enumerate(galleries)
    ]
    check(queries, "empty", empty)


def test_a_query_number_is_used_once(three_parties, made):
    """Masks with a reused number would reveal the difference of two transcripts."""
    _, galleries, queries = made

    def work(party, channel, keys):
        server = Party(galleries[party], keys, channel)
        server.answer(queries[party], number=5, challenge=CHALLENGE)
        with pytest.raises(InvalidInputError, match="only once"):
            server.answer(queries[party], number=5, challenge=CHALLENGE)

    three_parties(work)


def test_opening_requires_answers_of_all_parties_to_one_query(three_parties, made):
    point, galleries, queries = made
    answers = answers_of(three_parties, galleries, queries)
    later = answers_of(three_parties, galleries, share_query("any", unit(1, 8), fixed_point=point, threshold=0.2))
    with pytest.raises(InvalidInputError, match="all three"):
        open_answers(answers[:2])
    with pytest.raises(InvalidInputError, match="different queries"):
        open_answers([*answers[:2], later[2]])


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("kind", ["verify", "any", "set", "best"])
def test_a_party_that_flips_what_it_returns_is_noticed(three_parties, made, kind, party):
    point, galleries, _ = made
    claims = [[0]] if kind == "verify" else None
    queries = share_query(kind, unit(1, 8), fixed_point=point, threshold=0.2, references_NR=claims)
    answers = answers_of(three_parties, galleries, queries)
    open_answers(answers)
    for component in range(2):
        flipped = answers[party].words.copy()
        flipped[component] ^= np.uint64(1)
        deviating = [*answers]
        deviating[party] = dataclasses.replace(answers[party], words=flipped)
        with pytest.raises(PartyError, match="different copies"):
            open_answers(deviating)


def test_verify_opens_one_bit_for_all_references_of_a_subject(three_parties, made):
    """A subject with three references is accepted by any of them; the answer has one bit per claim."""
    point, galleries, _ = made
    rows = unit(4, 8)
    claims = [[0, 1, 2], [3, 3, 3]]
    for wanted, probes in (([True, True], rows[[2, 3]]), ([False, False], rows[[3, 0]])):
        queries = share_query("verify", probes, fixed_point=point, threshold=0.95, references_NR=claims)
        answers = answers_of(three_parties, galleries, queries)
        assert open_answers(answers).tolist() == wanted
        opened = answers[0].words[0] ^ answers[1].words[0] ^ answers[2].words[0]
        assert [int(word) for word in opened.flat] == [0b11 * wanted[0]]  # two lanes of one word


def test_texts_show_no_shares(made):
    point, galleries, queries = made
    words = [str(int(word)) for word in galleries[0].words_NW[0] if word > 9999]
    for text in (repr(galleries[0]), repr(queries[0]), repr(share_threshold(0.5, point)[0])):
        assert not any(word in text for word in words) and "array" not in text


def test_the_example_of_the_documentation_runs(capsys):
    run_python("docs/methods/secure-matching.md")
    assert "bytes_sent" in capsys.readouterr().out
