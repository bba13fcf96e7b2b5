"""Other libraries behind the SecureMatcher contract: decisions equal the engine's, and failures are reported."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from ppfr.core import (
    InvalidInputError,
    MissingEnvironmentError,
    MissingExtraError,
    PartyError,
    RangeError,
    ShapeError,
)
from ppfr.secure import Mpyc, ProcessMatcher, Spu, ThreePartyMatcher
from ppfr.secure._backends._worker import packed, unpacked
from reference import secure_matching
from support.documents import run_python


def unit(num, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def decisions_agree(library, *, values, num=13, num_thresholds=4):
    """All methods at thresholds on, just above and far from a score, with tied and nearly tied references."""
    references, probes = unit(num, 16), unit(3, 16, seed=1)
    references[-1] = references[0]  # a tie for the best score
    references[4] = references[5] = probes[1]
    near = references[0] + 1e-4 * unit(1, 16, seed=2)[0]
    references[7] = near / np.linalg.norm(near)  # a near tie: equal as int8, not as int16
    probes[0] = references[0]
    with (
        ThreePartyMatcher(references, values=values, timeout_s=600) as engine,
        ProcessMatcher(references, library, values=values, timeout_s=300) as other,
    ):
        point = engine.fixed_point
        scores = secure_matching.integer_scores(
            secure_matching.quantised(probes, point.scale), secure_matching.quantised(references, point.scale)
        )
        on_score = scores[0][3] / point.scale**2
        for threshold in (on_score, float(np.nextafter(on_score, 2)), 0.999, -1.0)[:num_thresholds]:
            accepted = secure_matching.accepted(scores, threshold, point.scale)
            for matcher in (engine, other):
                assert matcher.match_all(probes, threshold=threshold) == secure_matching.subjects(accepted)
                assert matcher.match_any(probes, threshold=threshold).tolist() == [any(row) for row in accepted]
                best = secure_matching.best(scores, threshold, point.scale)
                assert matcher.identify(probes, threshold=threshold) == best
                verified = matcher.verify(probes, ["0", "5", "7"], threshold=threshold)
                assert verified.tolist() == [accepted[0][0], accepted[1][5], accepted[2][7]]
                assert matcher.verify(probes[:1], ["3"], threshold=threshold).tolist() == [accepted[0][3]]


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_mpyc_in_one_process_decides_like_the_engine(values):
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    decisions_agree(Mpyc(num_parties=1), values=values)


def test_mpyc_with_three_processes_decides_like_the_engine():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    decisions_agree(Mpyc(num_parties=3), values="int16", num=8, num_thresholds=2)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k"])
def test_spu_decides_like_the_engine(protocol, spu_python):
    for values in ("int8", "int16"):
        decisions_agree(Spu(protocol=protocol, python=spu_python), values=values)


def test_a_gallery_enrolled_in_blocks_decides_like_one_gallery(monkeypatch):
    """Includes the selection of rows from concatenated blocks."""
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    from ppfr.secure._backends import _process_matcher

    monkeypatch.setattr(_process_matcher, "_BLOCK_BYTES", 8 * 16 * 4)
    decisions_agree(Mpyc(num_parties=1), values="int8")


def test_without_spu_the_error_states_how_to_install_it(monkeypatch):
    monkeypatch.delenv("PPFR_SPU_PYTHON", raising=False)
    for given, problem in ((None, "no interpreter"), ("/nowhere/python", "/nowhere/python")):
        with pytest.raises(MissingEnvironmentError, match=f"{problem}.*pip install -r requirements/spu.txt"):
            ProcessMatcher(unit(2, 8), Spu(python=given))
    monkeypatch.setenv("PPFR_SPU_PYTHON", sys.executable)  # an interpreter without SPU
    with pytest.raises(MissingEnvironmentError, match=r"no module spu.*PPFR_SPU_PYTHON"):
        ProcessMatcher(unit(2, 8), Spu(tls=False))


def test_a_relative_interpreter_path_is_made_absolute(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert Spu(python="./python").interpreter() == str(tmp_path / "python")


def test_the_requirements_file_named_by_the_error_exists():
    text = (Path(__file__).parents[2] / "requirements" / "spu.txt").read_text(encoding="utf-8")
    assert "spu==0.9.5" in text and "numpy==1." in text


def test_without_mpyc_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"ppfr\[mpyc\]"):
        ProcessMatcher(unit(2, 8), Mpyc())


def test_bad_input_is_rejected():
    with pytest.raises(InvalidInputError, match="aby3, cheetah, semi2k"):
        Spu(protocol="securenn")
    with pytest.raises(RangeError, match="odd"):
        Mpyc(num_parties=2)
    with pytest.raises(InvalidInputError, match="empty"):
        ProcessMatcher(np.empty((0, 8)), Mpyc())
    with pytest.raises(ShapeError, match=r"\(M, D\)"):
        ProcessMatcher(unit(1, 8)[0], Mpyc())
    with pytest.raises(RangeError, match="finite"):
        ProcessMatcher(np.full((1, 8), np.nan), Mpyc())


def test_queries_are_validated_before_sharing():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    row = unit(2, 8)
    with ProcessMatcher(row, Mpyc(num_parties=1)) as matcher:
        with pytest.raises(RangeError, match="finite"):
            matcher.match_any(np.full((1, 8), np.nan), threshold=0.5)
        with pytest.raises(ShapeError):
            matcher.match_all(unit(1, 9), threshold=0.5)
        with pytest.raises(RangeError, match="threshold"):
            matcher.identify(row, threshold=2.0)
        assert (matcher.dim, matcher.num_references) == (8, 2)
        assert matcher.verify(row, ["0", "1"], threshold=0.9).all()  # and it continues to answer
        assert "<redacted>" in repr(matcher) and "array" not in repr(matcher)


def test_the_end_of_a_party_is_reported_by_name_and_ends_all():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    row = unit(2, 8)
    matcher = ProcessMatcher(row, Mpyc(tls=False), timeout_s=60)
    directory, processes = matcher._workers.directory, matcher.process_ids
    os.kill(processes[1], signal.SIGKILL)
    with pytest.raises(PartyError, match=r"^party 1 (ended|has ended)"):
        matcher.match_any(row, threshold=0.5)
    assert not directory.exists()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    with pytest.raises(PartyError, match="Create a new matcher"):
        matcher.match_any(row, threshold=0.5)


def test_a_stalled_party_is_reported_by_name_within_the_time_limit():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    row = unit(2, 8)
    matcher = ProcessMatcher(row, Mpyc(num_parties=1), timeout_s=60)
    matcher._timeout_s = 0.5
    os.kill(matcher.process_ids[0], signal.SIGSTOP)
    with pytest.raises(PartyError, match=r"party 0 .* within 0\.5 s"):
        matcher.match_any(row, threshold=0.5)


def test_messages_round_trip_and_pickles_are_rejected():
    arrays = {"b": np.arange(6, dtype=np.int64).reshape(2, 3), "a": np.zeros((0, 4), np.uint8)}
    header, found = unpacked(io.BytesIO(packed({"do": "share", "n": 3}, arrays)).read)
    assert header == {"do": "share", "n": 3} and list(found) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"x": 1}], dtype=object), allow_pickle=True)
    pickled = buffer.getvalue()
    message = packed({}, {"a": np.zeros(1)})
    head = message[: 8 + int.from_bytes(message[:8], "big")]
    with pytest.raises(ValueError, match="allow_pickle"):
        unpacked(io.BytesIO(head + len(pickled).to_bytes(8, "big") + pickled).read)
    with pytest.raises(ValueError, match="Object arrays"):
        packed({}, {"a": np.array([{"x": 1}], dtype=object)})


def test_the_example_of_the_documentation_runs(capsys):
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    run_python("docs/methods/secure-backends.md")
    assert "bytes_sent" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "mpyc"])
def test_a_party_with_a_certificate_of_another_authority_is_not_admitted(monkeypatch, protocol, spu_python):
    """It cannot connect, while the other parties can."""
    from ppfr.secure._backends._certificates import write_certificates

    library = Mpyc() if protocol == "mpyc" else Spu(protocol=protocol, python=spu_python)
    original = ProcessMatcher._certificates

    def with_a_foreign_party(self):
        files = original(self)
        elsewhere = self._workers.directory / "elsewhere"
        elsewhere.mkdir()
        write_certificates(elsewhere, [library.tls_name(0), library.tls_name(1)])
        for part, name in (("certificate", "1.crt"), ("key", "1.key")):
            Path(files[1][part]).write_bytes((elsewhere / name).read_bytes())
        return files

    with ProcessMatcher(unit(1, 4), library, timeout_s=25):
        pass
    monkeypatch.setattr(ProcessMatcher, "_certificates", with_a_foreign_party)
    with pytest.raises(PartyError, match=r"within 25 s|failed"):
        ProcessMatcher(unit(1, 4), library, timeout_s=25)
