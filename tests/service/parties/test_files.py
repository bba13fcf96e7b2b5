"""Messages, configuration files and certificates, without processes."""

from __future__ import annotations

import datetime
import json
import re
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, PartyError, ProblemsError
from ppfr.secure import Enrolment, FixedPoint, Removal, ShareStore, seeded_inputs
from ppfr.secure import share_rows as share_rows_whole
from ppfr.service import ClientSettings, PartySettings, make_certificates, write_trial
from ppfr.service._parties._exchange import _root_cause
from ppfr.service._parties._messages import (
    LENGTH,
    MalformedError,
    Message,
    array_of,
    buffer_of,
    inputs_from,
    inputs_to_buffers,
    parsed_head,
    threshold_from,
)
from ppfr.service._parties._node import Gallery
from ppfr.service._parties._settings import gallery_id_of


def unit(num, dim=8):
    rows = np.random.default_rng(num).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_shares_are_sent_as_seeds_and_add_up(values):
    point, rows = FixedPoint(dim=8, values=values), unit(5)
    seeded = seeded_inputs(rows, point)
    sizes = []
    held = []
    for party, share in enumerate(seeded):
        sent = Message(fields={"num": 5}, buffers=inputs_to_buffers(share))
        sizes.append(sum(memoryview(buffer).nbytes for buffer in sent.buffers))
        held.append(inputs_from(sent, party, point))
        assert "redacted" in repr(share)
    total = sum(part.words_2NX[0, :, :8] for part in held)
    np.testing.assert_array_equal(total.astype(point.dtype), point.quantise(rows))
    for party in range(3):  # the second component equals the first component of the next party
        np.testing.assert_array_equal(held[party].words_2NX[1], held[(party + 1) % 3].words_2NX[0])
    component_bytes = 5 * (8 + len(point.slack_weights)) * point.wide_dtype.itemsize
    assert sizes == [5 * 16 + 32, 5 * 16 + 16 + component_bytes, 5 * 16 + 16 + component_bytes]


def test_inconsistent_rows_are_refused():
    point = FixedPoint(dim=8)
    buffers = inputs_to_buffers(seeded_inputs(unit(3), point)[1])
    good = Message(fields={"num": 3}, buffers=buffers)
    assert len(inputs_from(good, 1, point)) == 3
    with pytest.raises(MalformedError):
        inputs_from(Message(fields={"num": 4}, buffers=buffers), 1, point)
    with pytest.raises(MalformedError):
        inputs_from(Message(fields={"num": 3}, buffers=buffers[:2]), 1, point)
    with pytest.raises(MalformedError):
        inputs_from(Message(fields={"num": -3}, buffers=buffers), 1, point)
    with pytest.raises(InvalidInputError):  # the share of party 1, sent to party 0
        inputs_from(good, 0, point)
    with pytest.raises(InvalidInputError, match="seeds"):
        inputs_from(Message(fields={"num": 3}, buffers=[buffers[0], b"x" * 32, buffers[2]]), 1, point)
    # A string was the id of a sharing that the client had made.
    for threshold in (None, True, 1.5, point.scale**2 + 1, "00" * 16, {}, {"name": 1}, {"name": "door", "words": []}):
        with pytest.raises(MalformedError):
            threshold_from(Message(fields={"threshold": threshold}), point)
    assert threshold_from(Message(fields={"threshold": {"name": "door"}}), point) == "door"


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_parser_accepts_or_refuses_any_bytes(data):
    try:
        fields, sizes = parsed_head(data, 1000)
    except (MalformedError, InvalidInputError):
        return
    assert isinstance(fields, dict) and sum(sizes) <= 1000


@settings(deadline=None, max_examples=50)
@given(
    fields=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.none(), max_size=4),
    buffers=st.lists(st.binary(max_size=50), max_size=4),
)
def test_messages_round_trip(fields, buffers):
    fields.pop("sizes", None)
    head = Message(fields=fields, buffers=buffers).head()
    assert LENGTH.unpack(head[:4])[0] == len(head) - 4
    assert parsed_head(head[4:], 1000) == (fields, [len(buffer) for buffer in buffers])


def test_message_above_the_limit_is_refused_before_it_is_read():
    head = Message(fields={}, buffers=[bytes(100)]).head()
    with pytest.raises(InvalidInputError, match=r"100 bytes.* 99"):
        parsed_head(head[4:], 99)
    for sizes in ('{"sizes":[-1]}', '{"sizes":[true]}', '{"sizes":"x"}', "[]", "{}", json.dumps({"sizes": [1] * 17})):
        with pytest.raises(MalformedError):
            parsed_head(sizes.encode(), 1000)


def test_arrays_are_sent_little_endian():
    array = np.array([[1, 2], [3, 1 << 20]], dtype=np.uint32)
    assert bytes(buffer_of(array))[:4] == b"\x01\x00\x00\x00"
    np.testing.assert_array_equal(array_of(buffer_of(array), (2, 2), array.dtype), array)
    np.testing.assert_array_equal(array_of(buffer_of(array.astype(">u4")), (2, 2), array.dtype), array)


def test_root_cause_of_several_errors():
    """Party 2 waited for 0, and 0 for 1, which is silent: the error of 0 is the root cause."""
    zero, two = PartyError("party 1 is gone", party=1), PartyError("party 0 is gone", party=0)
    assert _root_cause({2: two, 0: zero}) is zero
    assert _root_cause({2: two}) is two
    assert _root_cause({}) is None
    cycle = {0: PartyError("a", party=1), 1: PartyError("b", party=0)}
    assert _root_cause(cycle) in cycle.values()
    refusal = InvalidInputError("the budget is spent")
    assert _root_cause({0: PartyError("party 1 refused", party=1), 1: refusal}) is refusal


def test_trial_files_are_readable_and_private(tmp_path):
    written = write_trial(tmp_path, dim=64, values="int8", addresses=["[::1]:1", "b.example:2", "c:3"], client="desk")
    for path in [*written, *tmp_path.glob("*.key"), *tmp_path.glob("*.shares")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    settings_ = [PartySettings.read(tmp_path / f"party-{party}.toml") for party in range(3)]
    assert [one.party for one in settings_] == [0, 1, 2] and len({one.parameters for one in settings_}) == 1
    assert settings_[1].listen == ("b.example", 2) and settings_[0].addresses[0] == ("::1", 1)
    assert (
        settings_[0].clients["desk"].permissions == {"enrol", "query", "maintain"}
        and settings_[0].clients["desk"].budget_bits is None
    )
    assert settings_[0].subject_budget_bits is None is settings_[0].search_budget_bits and not settings_[0].thresholds
    commented = (tmp_path / "party-2.toml").read_text()
    for key in ("subject_budget_bits", "search_budget_bits", "thresholds"):  # each line becomes valid without the sign
        commented = commented.replace(f"# {key}", key)
    (tmp_path / "more.toml").write_text(commented)
    more = PartySettings.read(tmp_path / "more.toml")
    assert more.subject_budget_bits == 100 and more.search_budget_bits == 100_000
    assert more.thresholds == (tmp_path / "party-2.door.threshold",)
    assert ClientSettings.read(tmp_path / "client.toml").addresses == settings_[0].addresses
    with pytest.raises(InvalidInputError, match="exists"):
        write_trial(tmp_path, dim=64)


def test_configuration_errors_are_reported_together(tmp_path):
    path = tmp_path / "party.toml"
    path.write_text(
        'party = 3\nlisten = "nowhere"\nparties = ["a:1", "b:2"]\ndim = 0\nvalues = "float"\ntimeout = 5\n'
        'timeout_s = "5"\nmax_connections = true\nsubject_budget_bits = -2\nsearch_budget_bits = "1"\n'
        "thresholds = [3]\n"
        '[clients.a]\npermissions = ["read"]\n[clients.b]\npermissions = ["query"]\nbudget_bits = -1\n'
        '[clients.c]\npermissions = ["query"]\nmin_threshold = 2\n[clients.d]\npermissions = ["query"]\nbudget = 1\n'
    )
    with pytest.raises(ProblemsError) as raised:
        PartySettings.read(path)
    text = "\n".join(raised.value.problems)
    assert str(path) in str(raised.value)
    for name in ("gallery", "store", "certificate", "key", "authority", "parties.2"):
        assert f"{name} is missing" in text, name
    for key, value, allowed in (
        ("party", "3", "0, 1 or 2"),
        ("listen", "'nowhere'", '"HOST:PORT"'),
        ("dim", "0", "1..4096"),
        ("values", "'float'", "'int8' or 'int16'"),
        ("timeout_s", "'5'", "number"),
        ("max_connections", "True", "integer"),
        ("subject_budget_bits", "-2", "0"),
        ("search_budget_bits", "'1'", "integer"),
        ("thresholds.0", "3", "string"),
        ("clients.a.permissions.0", "'read'", "'query' or 'maintain'"),
        ("clients.b.budget_bits", "-1", "0"),
        ("clients.c.min_threshold", "2", "1"),
    ):
        (line,) = [line for line in raised.value.problems if line.startswith(f"{key} = ")]
        assert value in line and allowed in line, line
    assert "timeout is not a known key" in text and "clients.d.budget is not a known key" in text
    with pytest.raises(InvalidInputError, match=r"absent\.toml does not exist"):
        PartySettings.read(tmp_path / "absent.toml")
    path.write_text("party = ")
    with pytest.raises(InvalidInputError, match="TOML"):
        ClientSettings.read(path)


def test_environment_variables_override_configuration_files(tmp_path, monkeypatch):
    write_trial(tmp_path, dim=8)
    path = tmp_path / "party-0.toml"
    for name, value in {
        "TIMEOUT_S": "7",
        "LISTEN": "0.0.0.0:9",
        "GALLERY": "17",
        "PARTIES": '["a:1", "b:2", "c:3"]',
        "CLIENTS": '{"desk": {"permissions": ["query"]}}',
    }.items():
        monkeypatch.setenv(f"PPFR_PARTY_{name}", value)
    monkeypatch.setenv("PPFR_CLIENT_TIMEOUT_S", "9")
    found = PartySettings.read(path)
    assert (found.timeout_s, found.listen, found.addresses[1]) == (7.0, ("0.0.0.0", 9), ("b", 2))
    assert found.parameters.gallery_id == gallery_id_of("17") and found.clients["desk"].permissions == {"query"}
    assert ClientSettings.read(tmp_path / "client.toml").timeout_s == 9
    monkeypatch.setenv("PPFR_PARTY_TIMEOUT", "5")
    monkeypatch.setenv("PPFR_PARTY_MAX_CONNECTIONS", "1")
    with pytest.raises(ProblemsError) as raised:
        PartySettings.read(path)
    assert len(raised.value.problems) == 2
    assert "PPFR_PARTY_TIMEOUT " in str(raised.value) and "max_connections = 1" in str(raised.value)
    for name, value in {"DIM": "many", "PARTIES": "a:1"}.items():
        with monkeypatch.context() as patch:
            patch.delenv("PPFR_PARTY_TIMEOUT")
            patch.setenv(f"PPFR_PARTY_{name}", value)
            with pytest.raises(InvalidInputError, match=name.lower()):
                PartySettings.read(path)


def test_certificates_are_created_once_and_names_are_checked(tmp_path):
    x509 = pytest.importorskip("cryptography.x509")
    made_and_kept = make_certificates(tmp_path, clients=["desk"])
    assert len(made_and_kept["made"]) == 4 and not made_and_kept["kept"]
    before = (tmp_path / "party-0.crt").read_bytes()
    made_and_kept = make_certificates(tmp_path, clients=["desk", "registry"])
    assert [path.name for path in made_and_kept["made"]] == ["registry.crt"] and len(made_and_kept["kept"]) == 4
    assert (tmp_path / "party-0.crt").read_bytes() == before
    for name in ("party-0", "ca", "Desk", "a b", "", "x" * 64, "über"):
        with pytest.raises(InvalidInputError, match=re.escape(repr(name))):
            make_certificates(tmp_path, clients=[name])
    for name, is_server in (("party-0", True), ("desk", False)):
        certificate = x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes())
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in uses) == is_server
        validity = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        assert 824 <= validity.days <= 825
    (tmp_path / "ca.key").unlink()
    with pytest.raises(InvalidInputError, match=r"ca\.key is missing"):
        make_certificates(tmp_path, clients=[])


@pytest.mark.parametrize("device", ["compiled", "cpu"])
def test_gallery_in_memory_equals_its_store(tmp_path, device):
    """After changes, the gallery in memory equals what the store loads, row by row."""
    point, rng = FixedPoint(dim=8), np.random.default_rng(0)
    with ShareStore.create(tmp_path / "s", party=1, fixed_point=point, gallery_id=bytes(16)) as store:
        before = gallery = Gallery.of(*store.load(), store.epoch, device)
        changes = []
        for turn in range(6):
            rows = share_rows_whole(unit(7 + turn), point)[1]
            subjects = tuple(f"{turn} {place}" for place in range(7 + turn))
            change = Enrolment(change_id=bytes([turn]) * 16, rows=rows, subjects=subjects)
            if turn in (2, 4):
                ids = tuple(row.tobytes() for row in gallery.rows.ids_N16[rng.permutation(len(gallery.rows))[:5]])
                change = Removal(change_id=bytes([turn]) * 16, reference_ids=ids)
            store.prepare(change)
            store.commit(change.change_id)
            changes.append(change)
            loaded = Gallery.of(*store.load(), store.epoch, device)
            gallery = gallery.changed([change], device)
            for one in (gallery, before.changed(changes, device)):
                assert one.digest == loaded.digest and one.subjects == loaded.subjects
                np.testing.assert_array_equal(one.rows.words_NW, loaded.rows.words_NW)
        assert len(gallery.rows) == 7 + 8 - 5 + 10 - 5 + 12
