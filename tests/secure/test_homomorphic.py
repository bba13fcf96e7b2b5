"""CKKS matching: decisions equal those of plain scores outside the error bound; the server sees only noise."""

from __future__ import annotations

import functools
import pickle
import stat
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    MissingExtraError,
    OutdatedTemplateError,
    RangeError,
    ShapeError,
    StorageError,
    UnsupportableError,
    WrongKeyError,
)
from ppfr.secure import CkksKey, CkksMatcher, CkksServer
from support.documents import run_python

DIM = 8
needs_tenseal = functools.partial(pytest.importorskip, "tenseal", reason="needs the extra 'he': pip install 'ppfr[he]'")


def unit(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def key():
    needs_tenseal()
    return CkksKey.create(DIM)


@pytest.fixture(scope="module")
def blocks(key):
    return list(key.encrypt_references(unit(2300)))


@pytest.fixture
def server(key, blocks):
    server = CkksServer(key.context())
    for block in blocks:
        server.add(block)
    return server


@pytest.mark.parametrize("probe", ["encrypted", "plain"])
@settings(deadline=None, max_examples=8)
@given(
    num=st.sampled_from([1, 2, 30]),
    dim=st.integers(1, 12),
    num_probes=st.integers(1, 3),
    threshold=st.sampled_from([-1.0, -0.1, 0.0, 0.4, 1.0]),
    seed=st.integers(0, 999),
)
def test_decisions_equal_those_of_exact_scores_outside_the_error_bound(probe, num, dim, num_probes, threshold, seed):
    needs_tenseal()
    references, probes = unit(num, dim, seed), unit(num_probes, dim, seed + 1)
    probes[0] = references[0]
    scores = probes @ references.T
    matcher = CkksMatcher(references, threshold=threshold, probe=probe)
    surely, perhaps = scores >= threshold + matcher.largest_error, scores >= threshold - matcher.largest_error
    found = np.array(
        [[str(m) in names for m in range(num)] for names in matcher.match_all(probes, threshold=threshold)]
    )
    assert (surely <= found).all() and (found <= perhaps).all()
    any_found = matcher.match_any(probes, threshold=threshold)
    assert (surely.any(axis=1) <= any_found).all() and (any_found <= perhaps.any(axis=1)).all()
    pairs = np.random.default_rng(seed).integers(0, num, num_probes)
    verified, rows = matcher.verify(probes, [str(m) for m in pairs], threshold=threshold), np.arange(num_probes)
    assert (surely[rows, pairs] <= verified).all() and (verified <= perhaps[rows, pairs]).all()
    for best, of_probe in zip(matcher.identify(probes, threshold=threshold), scores, strict=True):
        if best is None:
            assert of_probe.max() < threshold + matcher.largest_error
        else:
            assert of_probe[int(best)] >= max(threshold, of_probe.max() - matcher.largest_error) - matcher.largest_error


def test_score_errors_have_the_stated_deviation_and_blocks_can_be_selected(key, server):
    """2,300 references in two blocks; the bound is eight standard deviations, 7.76e-7 each for an encrypted probe."""
    references, probe = unit(2300), unit(1, seed=1)[0]
    for sent, deviation in ((key.encrypt_probe(probe), 7.76e-7), (probe, 5.49e-7)):
        error = key.decrypt_scores(server.answer(sent), server.sizes) - references @ probe
        assert np.abs(error).max() < CkksMatcher.largest_error
        assert 0.9 < error.std() / deviation < 1.1
    assert server.sizes == (2048, 252)
    alone = key.decrypt_scores(server.answer(probe, [1]), [252])
    np.testing.assert_allclose(alone, references[2048:] @ probe, atol=1e-5)


def bisected(accepts, low, high):
    """The largest accepted number, which lies in [low, high], to the last bit; and the number of decisions it took."""
    num_decisions = 0
    while low < (middle := low + (high - low) / 2) < high:
        num_decisions += 1
        low, high = (middle, high) if accepts(middle) else (low, middle)
    return low, num_decisions


def test_a_score_cannot_be_bisected_by_choosing_the_threshold_of_each_question(key, server):
    """With a threshold per question, 61 decisions or fewer equal the decrypted score, noise included."""
    (probe,) = unit(1, seed=1)
    scores = key.decrypt_scores(server.answer(probe, [0]), [2048])[:20]
    for m, score in enumerate(scores):  # the attack succeeds where nothing pins the threshold
        found, num_decisions = bisected(lambda threshold, m=m: scores[m] >= threshold, -1.0, 1.0)
        assert found == score and num_decisions <= 61
    matcher = CkksMatcher(unit(20), threshold=0.4, probe="plain")
    asked = []

    def accepts(ask, threshold):
        asked.append(threshold)
        return ask(threshold)

    for ask in (
        lambda threshold: matcher.verify(probe[None], ["0"], threshold=threshold)[0],
        lambda threshold: matcher.match_any(probe[None], threshold=threshold)[0],
        lambda threshold: "0" in matcher.match_all(probe[None], threshold=threshold)[0],
        lambda threshold: matcher.identify(probe[None], threshold=threshold)[0] is not None,
    ):
        asked.clear()
        with pytest.raises(InvalidInputError, match=r"pinned to 0\.4, got 0\.0.*create another CkksMatcher"):
            bisected(functools.partial(accepts, ask), -1.0, 1.0)
        assert asked == [0.0] and matcher.num_bytes == (0, 0)  # refused before anything is computed
    with pytest.raises(InvalidInputError, match="pinned"):
        matcher.match_any(probe[None], threshold=np.nextafter(0.4, 1))
    assert matcher.match_any(unit(20)[:1], threshold=0.4).all()  # and it continues to answer


def test_at_one_threshold_chosen_probes_still_find_its_boundary_with_the_noise():
    """What remains, as the page states: 54 decisions along a great circle give a probe that scores the threshold."""
    needs_tenseal()
    references, (other,) = unit(3), unit(1, seed=5)
    matcher = CkksMatcher(references, threshold=0.4, probe="plain")
    across = other - (other @ references[0]) * references[0]
    across /= np.linalg.norm(across)

    def at(angle):
        return np.cos(angle) * references[0] + np.sin(angle) * across

    found, num_decisions = bisected(lambda angle: matcher.verify(at(angle)[None], ["0"], threshold=0.4)[0], 0.0, np.pi)
    (decrypted,) = matcher._scores(at(found)[None], 0.4)
    assert num_decisions < 60 and abs(decrypted[0] - 0.4) < 2e-8  # rounding of a plain probe to the scale's grid
    assert abs(at(found) @ references[0] - 0.4) < matcher.largest_error


@pytest.mark.parametrize("probe", ["encrypted", "plain"])
def test_a_server_that_shifts_its_answers_and_sees_decisions_reads_a_score(probe, monkeypatch):
    """What remains, as the page states: without a key it adds a constant to a score, which moves the threshold."""
    from ppfr.secure._homomorphic._messages import Message

    needs_tenseal()
    prime = 2**60 - 2**14 + 1  # the first prime of the modulus; public
    num_before = 1 if probe == "encrypted" else 0  # three polynomials, of which `words_of` finds the last two
    references, (embedding,) = unit(3), unit(1, seed=1)
    matcher = CkksMatcher(references, threshold=0.4, probe=probe)
    sent = matcher._key.encrypt_probe(embedding) if probe == "encrypted" else embedding
    honest = Message.from_bytes(matcher._server.answer(sent), kind="scores")

    def answer_plus(constant):
        part = bytearray(honest.parts[0])
        start = part.index(words_of(part)[0].tobytes()) - num_before * 8 * 4096
        words = np.frombuffer(part, dtype="<u8", count=4096, offset=start).astype(object)
        part[start : start + 8 * 4096] = ((words + round(constant * 2**56)) % prime).astype("<u8").tobytes()
        return Message(kind="scores", dim=DIM, num=1, key_id=honest.key_id, parts=[bytes(part)]).to_bytes()

    def accepts(score):
        monkeypatch.setattr(CkksServer, "answer", lambda *_: answer_plus(0.4 - score))
        return matcher.verify(embedding[None], ["0"], threshold=0.4)[0]

    found, num_decisions = bisected(accepts, -1.0, 1.0)
    assert num_decisions <= 61
    assert abs(found - matcher._key.decrypt_scores(honest.to_bytes(), [3])[0]) < 1e-15  # its noise is 1e-6


def test_a_probe_with_one_nonzero_coordinate_is_scored(key, server):
    probe = np.eye(DIM)[3]
    for sent in (probe, key.encrypt_probe(probe)):
        found = key.decrypt_scores(server.answer(sent), server.sizes)
        np.testing.assert_allclose(found, unit(2300)[:, 3], atol=1e-5)


def words_of(part):
    """(2, 4096) words of 64 bits of a ciphertext, below a prime of 60 bits; located by the top byte of each word."""
    held = np.frombuffer(part, dtype=np.uint8)
    (size, num_words) = (len(held), 2 * 4096)
    fits = [at for at in range(size - 8 * num_words, -1, -1) if (held[at + 7 : at + 8 * num_words : 8] < 16).all()]
    return held[fits[0] : fits[0] + 8 * num_words].view("<u8").reshape(2, 4096)


def largest_chi_square(parts):
    """Largest statistic of the seven low bytes of words below a prime just under 2^60; 255 degrees of freedom each."""
    words = np.stack([words_of(part) for part in parts])
    statistics = []
    for half in range(2):
        for position in range(7):
            low = (words[:, half] >> np.uint64(8 * position) & np.uint64(255)).astype(np.int64).ravel()
            counts = np.bincount(low, minlength=256)
            statistics.append(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    return max(statistics)


def test_messages_to_the_server_have_one_length_and_are_uniform_for_all_contents(key):
    """Two very different inputs, equal in every slot. The statistic exceeds 390 by chance once in ten million."""
    from ppfr.secure._homomorphic._messages import Message

    lengths = set()
    for embedding in (np.eye(DIM)[0], np.full(DIM, -1 / np.sqrt(DIM))):
        (block,) = key.encrypt_references(np.repeat(embedding[None], 2048, axis=0))
        probe = key.encrypt_probe(embedding)
        messages = [Message.from_bytes(block, kind="references"), Message.from_bytes(probe, kind="probe")]
        lengths |= {len(block), len(probe), *(len(part) for message in messages for part in message.parts)}
        for message in messages:
            assert largest_chi_square(message.parts) < 390
            masks = np.stack([words_of(part)[1] for part in message.parts])
            assert len(np.unique(masks)) == masks.size  # fresh for each ciphertext; otherwise words would repeat
    assert len(lengths) == 2  # of a message, and of a ciphertext


def test_the_statistic_detects_a_ciphertext_without_a_mask(key):
    """Positive control: words without the uniform part, as in an encryption with a mask of zeros."""
    from ppfr.secure._homomorphic._messages import Message

    parts = Message.from_bytes(key.encrypt_probe(np.eye(DIM)[0]), kind="probe").parts
    small = np.random.default_rng(0).normal(0, 3.2, (2, 4096)).round().astype(np.int64) + 2**28
    assert largest_chi_square([small.astype("<u8").tobytes()] * 4) > 1e5
    assert largest_chi_square([parts[0]] * 40) > 1e3  # and one ciphertext, repeated, is not accepted as noise


def test_the_server_has_no_key_and_cannot_decrypt(key, server):
    tenseal = needs_tenseal()
    from ppfr.secure._homomorphic._messages import Message

    assert not server._context.has_secret_key()
    answer = server.answer(key.encrypt_probe(unit(1)[0]), [0])
    for part in (
        *Message.from_bytes(answer, kind="scores").parts,
        *(vector.serialize() for vector in server._blocks[0]),
    ):
        with pytest.raises(ValueError, match="doesn't hold a secret_key"):
            tenseal.ckks_vector_from(server._context, part).decrypt()
    assert len(key.context()) < 500  # parameters only; the key has 60 KB
    with pytest.raises(ValueError, match="Secret key"):
        tenseal.context_from(Message.from_bytes(key.context(), kind="context").parts[0]).secret_key()


def test_another_key_is_rejected_before_any_computation(key, server, blocks):
    other = CkksKey.create(DIM)
    for action in (
        lambda: server.answer(other.encrypt_probe(unit(1)[0])),
        lambda: CkksServer(other.context()).add(blocks[0]),
        lambda: other.decrypt_scores(server.answer(unit(1)[0]), server.sizes),
    ):
        with pytest.raises(WrongKeyError, match="another key"):
            action()


def test_a_saved_key_can_be_loaded_and_only_its_owner_may_read_it(key, server, tmp_path):
    path = tmp_path / "ckks.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded, probe = CkksKey.load(path), unit(1, seed=3)[0]
    found = loaded.decrypt_scores(server.answer(loaded.encrypt_probe(probe)), server.sizes)
    np.testing.assert_allclose(found, unit(2300) @ probe, atol=1e-5)
    with pytest.raises(InvalidInputError, match="already exists"):
        key.save(path)
    with pytest.raises(InvalidInputError, match="Cannot read"):
        CkksKey.load(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        key.save(tmp_path / "file" / "key")
    path.write_bytes(key.context())
    with pytest.raises(CorruptTemplateError, match="kind 'context'"):
        CkksKey.load(path)
    with pytest.raises(InvalidInputError, match="Cannot read"):
        CkksKey.load(tmp_path)


def test_foreign_damaged_and_newer_messages_are_rejected(key, server):
    whole = key.encrypt_probe(unit(1)[0])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for bad in (b"", b"x" * 500, whole[:50], whole[:-1], whole + b"x", bytes(damaged), key.context()):
        with pytest.raises(CorruptTemplateError, match="'probe' message"):
            server.answer(bad)
    newer = whole[:8] + (2).to_bytes(2, "little") + whole[10:]
    with pytest.raises(OutdatedTemplateError, match="version 2, but this release reads 1"):
        server.answer(newer)


def test_ciphertexts_of_other_parameters_are_rejected(key, server):
    from ppfr.secure._homomorphic._messages import Message

    tenseal = needs_tenseal()
    message = Message.from_bytes(key.encrypt_probe(unit(1)[0]), kind="probe")
    other = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[40, 21, 40])
    other.global_scale = 2.0**21
    for part in (b"", b"words", message.parts[0][:9000], tenseal.ckks_vector(other, [1.0] * 4096).serialize()):
        parts = [part, *message.parts[1:]]
        bad = Message(kind="probe", dim=DIM, num=0, key_id=message.key_id, parts=parts).to_bytes()
        with pytest.raises(CorruptTemplateError, match=r"(?i)a ciphertext"):
            server.answer(bad)
    short = Message(kind="probe", dim=DIM, num=0, key_id=message.key_id, parts=message.parts[1:]).to_bytes()
    with pytest.raises(CorruptTemplateError, match="Expected 8 ciphertexts, got 7"):
        server.answer(short)
    for context in (other.serialize(save_secret_key=False), b"words"):
        bad = Message(kind="context", dim=DIM, num=0, key_id=message.key_id, parts=[context]).to_bytes()
        with pytest.raises(CorruptTemplateError, match="context"):
            CkksServer(bad)


def test_bad_input_is_rejected(key, server):
    for action, error, message in (
        (lambda: CkksKey.create(0), RangeError, "1..4096, got 0"),
        (lambda: CkksServer(key.context()).answer(unit(1)[0]), InvalidInputError, "gallery is empty"),
        (lambda: server.answer(unit(1)[0], [2]), InvalidInputError, "in 0..1"),
        (lambda: server.answer(unit(1)), ShapeError, r"shape \(8,\)"),
        (lambda: server.answer(unit(1, 9)[0]), ShapeError, "probes have shape"),
        (lambda: server.answer(np.full(DIM, np.nan)), RangeError, "not finite"),
        (lambda: key.encrypt_probe(unit(2)), ShapeError, r"shape \(8,\)"),
        (lambda: key.encrypt_probe(2 * unit(1)[0]), RangeError, "not of L2 norm 1"),
        (lambda: key.encrypt_references(np.full((3, DIM), np.inf)), RangeError, "not finite"),
        (lambda: key.encrypt_references(unit(3, 9)), ShapeError, "references have shape"),
        (lambda: key.decrypt_scores(server.answer(unit(1)[0]), [4]), InvalidInputError, "of 1 blocks, got 2"),
        (lambda: CkksMatcher(unit(0), threshold=0.4), InvalidInputError, "gallery is empty"),
        (lambda: CkksMatcher(unit(1)[0], threshold=0.4), ShapeError, r"shape \(M, D\)"),
        (lambda: CkksMatcher(unit(1), threshold=0.4, probe="hidden"), InvalidInputError, "'plain', got 'hidden'"),
        (lambda: CkksMatcher(unit(1), threshold=1.1), RangeError, r"in \[-1, 1\], got 1.1"),
        (lambda: CkksMatcher(unit(1), threshold=float("nan")), RangeError, r"in \[-1, 1\], got nan"),
    ):
        with pytest.raises(error, match=message):
            action()
    matcher = CkksMatcher(unit(3), threshold=0.4)
    for threshold in (1.1, float("nan")):
        with pytest.raises(RangeError, match=r"in \[-1, 1\]"):
            matcher.match_any(unit(1), threshold=threshold)


def test_the_modulus_is_the_maximum_for_128_bits_of_security():
    tenseal = needs_tenseal()
    from ppfr.secure._homomorphic._key import DEGREE, MODULUS_BITS

    assert (DEGREE, sum(MODULUS_BITS)) == (4096, 109)  # the Homomorphic Encryption Standard, enforced by SEAL
    with pytest.raises(ValueError, match="parameters are not set correctly"):
        tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=[60, 50])


def test_messages_have_the_documented_sizes():
    needs_tenseal()
    for probe, sent, received in (("encrypted", 65_680 * DIM, 98_450), ("plain", 8 * DIM, 65_680)):
        matcher = CkksMatcher(unit(3), threshold=0.5, probe=probe)
        matcher.match_any(unit(1), threshold=0.5)
        assert abs(matcher.num_bytes[0] - sent) < 100 and abs(matcher.num_bytes[1] - received) < 100


def test_texts_show_no_contents_and_secrets_cannot_be_pickled(key, server):
    from ppfr.secure._homomorphic._messages import Message

    message = Message.from_bytes(key.context(), kind="context")
    assert repr(key) == "CkksKey(dim=8, key=<redacted>)"
    assert "parts=<redacted>" in repr(message) and key.context()[30:40].hex() not in repr(message)
    assert "contents=<redacted>" in repr(server)
    for one in (key, server):
        with pytest.raises(UnsupportableError, match="cannot be pickled"):
            pickle.dumps(one)


def test_without_tenseal_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    for action in (lambda: CkksKey.create(DIM), lambda: CkksMatcher(unit(2), threshold=0.4)):
        with pytest.raises(MissingExtraError, match=r"homomorphic matching needs the extra 'he'"):
            action()


def test_the_example_of_the_documentation_runs():
    needs_tenseal()
    run_python("docs/methods/homomorphic-matching.md")
