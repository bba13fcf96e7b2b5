"""The dealer for SPU's SEMI2K: its key, its correction words, and the requests that it rejects."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import http.server
import json
import shutil
import ssl
import subprocess
import sys
import threading

import numpy as np
import pytest

from ppfr.secure._backends import _dealer
from ppfr.secure._backends._worker import unpacked

SECRET = 0x3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8


def test_the_public_key_equals_the_example_of_the_standard():
    """GB/T 32918.5, annex C: the key pair of its encryption example."""
    x, y = _dealer.times(SECRET, _dealer._BASE)
    assert x == 0x09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020
    assert y == 0xCCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13


@functools.cache
def encrypted(plain, *, random=0x59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21):
    """Slow reference of the standard's encryption, in the DER layout that OpenSSL writes; lengths below 128 bytes."""
    public = _dealer.times(SECRET, _dealer._BASE)
    return sealed(plain, _dealer.times(random, _dealer._BASE), _dealer.times(random, public))


def sealed(plain, point, shared):
    """A ciphertext that holds `point` and is masked and authenticated by the point `shared`."""
    half, other = (value.to_bytes(32, "big") for value in shared)
    stream = b"".join(hashlib.new("sm3", half + other + bytes([0, 0, 0, i])).digest() for i in (1, 2))
    masked = bytes(a ^ b for a, b in zip(plain, stream, strict=False))
    digest = hashlib.new("sm3", half + plain + other).digest()
    numbers = [value.to_bytes(34, "big").lstrip(b"\0") or b"\0" for value in point]
    parts = [b"\x02" + bytes([len(n) + (n[0] >> 7)]) + b"\0" * (n[0] >> 7) + n for n in numbers]
    body = b"".join([*parts, b"\x04\x20" + digest, b"\x04" + bytes([len(masked)]) + masked])
    return b"\x30" + bytes([len(body)]) + body


def test_decryption_of_the_example_of_the_standard():
    """Annex C: "encryption standard" gives C2 = 21886CA9 ... and C3 = 59983C18 ..."""
    data = encrypted(b"encryption standard")
    assert bytes.fromhex("21886CA989CA9C7D58087307CA93092D651EFA") in data
    assert bytes.fromhex("59983C18F809E262923C53AEC295D30383B54E39D609D160AFCB1908D0BD8766") in data
    assert _dealer.sm2_decrypt(SECRET, data) == b"encryption standard"
    with pytest.raises(ValueError, match="refused"):
        _dealer.sm2_decrypt(SECRET + 1, data)


def test_a_message_encrypted_by_openssl_can_be_decrypted(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program")
    path = tmp_path / "key.pem"
    path.write_text(_dealer.public_key_pem(SECRET), encoding="ascii")
    done = subprocess.run(
        ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", str(path)],
        input=b"a seed of 16 ...",
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("this openssl has no SM2")
    assert _dealer.sm2_decrypt(SECRET, done.stdout) == b"a seed of 16 ..."


SEEDS = [bytes(range(16)), bytes(range(16, 32))]


def words_of(seed, count, num_bytes):
    """Slow reference of SPU's generator: one block at a time."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    blocks = [stream.update((count + i).to_bytes(16, "little")) for i in range(-(-num_bytes // 16))]
    return np.frombuffer(b"".join(blocks)[:num_bytes], np.uint8)


def request_for(lengths, **more):
    """A request over consecutive draws of two servers, and the two servers' words of each draw."""
    inputs, draws, count = [], [], 0
    for length in lengths:
        sealed = [base64.b64encode(encrypted(seed, random=7 + i)).decode() for i, seed in enumerate(SEEDS)]
        inputs.append({"prg_count": count, "buffer_len": length, "encrypted_seeds": sealed})
        draws.append([words_of(seed, count, length) for seed in SEEDS])
        count += -(-length // 16)
    del inputs[0]["prg_count"]  # SPU omits zeros
    return json.dumps({"prg_inputs": inputs, **more}).encode(), draws


@pytest.mark.parametrize("word", [np.uint32, np.uint64])
def test_correction_words_complete_the_triples(word):
    size = np.dtype(word).itemsize
    dealer = _dealer.Dealer(SECRET)
    request, draws = request_for([5 * size] * 3, field_size=size)
    a, b, c = (one.view(word) + other.view(word) for one, other in draws)
    np.testing.assert_array_equal(np.frombuffer(dealer.answer("AdjustMul", request), word) + c, a * b)
    request, draws = request_for([6 * size, 12 * size, 8 * size], field_size=size, M=2, N=4, K=3)
    a, b, c = (one.view(word) + other.view(word) for one, other in draws)
    expected = [[sum(int(a[3 * i + k]) * int(b[4 * k + j]) for k in range(3)) for j in range(4)] for i in range(2)]
    found = np.frombuffer(dealer.answer("AdjustDot", request), word) + c
    assert found.reshape(2, 4).tolist() == [[value % 2 ** (8 * size) for value in row] for row in expected]
    request, draws = request_for([40], field_size=size)
    bits = (
        np.frombuffer(dealer.answer("AdjustRandBit", request), word) + draws[0][0].view(word) + draws[0][1].view(word)
    )
    assert set(bits.tolist()) <= {0, 1}
    request, draws = request_for([21] * 3)
    a, b, c = (one ^ other for one, other in draws)
    np.testing.assert_array_equal(np.frombuffer(dealer.answer("AdjustAnd", request), np.uint8) ^ c, a & b)


def test_the_dealer_answers_only_certified_servers(tmp_path):
    """Over TLS, a client without a certificate of its authority gets no answer; the dealer ends with its input."""
    from ppfr.secure._backends._certificates import write_certificates

    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        write_certificates(tmp_path / name, ["the dealer", "a server"])
    files = [str(tmp_path / "own" / name) for name in ("0.crt", "0.key", "authority.crt")]
    command = [sys.executable, "-I", _dealer.__file__, *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dealer:
        header, _ = unpacked(dealer.stdout.read)
        body = json.dumps({"prg_inputs": [{"buffer_len": 4, "encrypted_seeds": []}] * 3, "field_size": 4})

        def request_as(name):
            context = ssl.create_default_context(cafile=files[2])
            if name:
                context.load_cert_chain(tmp_path / name / "1.crt", tmp_path / name / "1.key")
            context.check_hostname = False
            connection = http.client.HTTPSConnection("127.0.0.1", header["port"], context=context, timeout=60)
            try:
                connection.request("POST", "/BeaverService/AdjustMul", body)
                return connection.getresponse().read()
            finally:
                connection.close()

        for foreign in ("other", ""):
            with pytest.raises(OSError, match=r"(?i)alert|reset|EOF|broken pipe|closed"):
                request_as(foreign)
        assert request_as("own") == bytes([0, 4, 0, 0, 0, 0, 0, 0, 0]) + bytes(4)
        dealer.stdin.close()
        assert dealer.wait(10) == 0


# A point of order 71 on y^2 = x^3 - 3x + 15. The formulas for sums of points do not use the last number.
ODD_ORDER, ODD_POINT = (
    71,
    (
        0xE4ECC8B0E4123AE51CB46B9C92F2E171F7ED7E5E0E5EF7CA3549554DEF877283,
        0x957D8AF8536A969AA9EAA610C82A88AC8DB0A8C502630B0929E2F6E134B3D770,
    ),
)


def answer_to(encrypted_seed, *, dealer):
    """The words of a request whose third sharing has the seed; the first two sharings have none."""
    part = {"buffer_len": 16, "encrypted_seeds": []}
    third = part | {"encrypted_seeds": [base64.b64encode(encrypted_seed).decode()]}
    return dealer("AdjustMul", json.dumps({"prg_inputs": [part, part, third], "field_size": 4}).encode())


def test_a_point_of_small_order_on_another_curve_does_not_reveal_the_key():
    """A step of the invalid-curve attack: one of 70 guesses would be accepted, and is the key modulo 71."""
    x, y = ODD_POINT
    assert (y * y - x**3 + 3 * x - 15) % _dealer._P == 0
    multiples = [ODD_POINT]
    while len(multiples) < ODD_ORDER - 1:
        multiples.append(_dealer._sum(multiples[-1], ODD_POINT))
    assert multiples[-1] == (x, _dealer._P - y)  # 70 Q = -Q
    leaked = _dealer.times(SECRET, ODD_POINT)  # what a dealer without the check would multiply and compare with
    assert multiples.index(leaked) + 1 == SECRET % ODD_ORDER
    accepted = []
    for residue, guess in enumerate(multiples, start=1):
        with contextlib.suppress(ValueError):
            _dealer.sm2_decrypt(SECRET, sealed(SEEDS[0], ODD_POINT, guess))
            accepted.append(residue)
    assert accepted == []


@pytest.fixture
def served():
    """Sends requests to a dealer over HTTP without TLS: (method, body, headers) -> status and words."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _dealer.handler(_dealer.Dealer(SECRET)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def ask(method, body, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        try:
            connection.putrequest("POST", f"/BeaverService/{method}")
            for name, value in (headers or {"Content-Length": str(len(body))}).items():
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse().read()
        finally:
            connection.close()
        assert int.from_bytes(reply[1:9], "little") == len(reply) - 9
        return reply[0], reply[9:]

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


REFUSED = (1, b"The dealer refused the request.")


def test_all_failures_to_decrypt_have_one_answer(served):
    good = encrypted(SEEDS[0])
    public = _dealer.times(SECRET, _dealer._BASE)
    (x, y), p = _dealer._BASE, _dealer._P
    wrong_mac, wrong_point = bytearray(good), bytearray(good)
    wrong_mac[-1] ^= 1
    wrong_point[10] ^= 1
    refused = [
        sealed(SEEDS[0], ODD_POINT, _dealer.times(SECRET, ODD_POINT)),  # correct but for the curve
        bytes(wrong_point),
        bytes(wrong_mac),
        sealed(SEEDS[0], (x + p, y), public),  # the same point, its coordinates out of range
        sealed(SEEDS[0], (x, y + p), public),
        sealed(SEEDS[0], (x, 0), public),
        sealed(SEEDS[0], (0, 0), public),
        encrypted(SEEDS[0] + b"x"),  # whole, but no seed
        encrypted(SEEDS[0][:-1]),
        encrypted(b""),
        encrypted(bytes(32)),
        good[:-1],
        good + b"x",
        b"\x31" + good[1:],
        b"\x30\x81" + good[1:],
        b"\x30\xff" + bytes(1000),
        b"\x30\x00",
        b"\x30",
        b"",
    ]
    assert answer_to(good, dealer=served)[0] == 0
    assert {answer_to(bad, dealer=served) for bad in refused} == {REFUSED}
    status, words = answer_to(good, dealer=served)  # and it continues to answer
    expected = -words_of(SEEDS[0], 0, 16).view(np.uint32)
    assert status == 0 and np.frombuffer(words, np.uint32).tolist() == expected.tolist()


def test_malformed_and_long_requests_have_the_same_answer_and_are_not_read(served):
    part = {"buffer_len": 4, "encrypted_seeds": []}

    def request(change, **more):
        return json.dumps({"prg_inputs": [part | change] * 3, "field_size": 4, **more}).encode()

    assert served("AdjustMul", request({})) == (0, bytes(4))
    for method, body in (
        ("AdjustTrunc", request({})),
        ("AdjustMul", b""),
        ("AdjustMul", b"[" * 5000),
        ("AdjustMul", b"[]"),
        ("AdjustMul", request({"buffer_len": -4})),
        ("AdjustMul", request({"buffer_len": 2**33})),
        ("AdjustMul", request({"buffer_len": "4"})),
        ("AdjustMul", request({"prg_count": -1})),
        ("AdjustMul", request({"prg_count": 2**63})),
        ("AdjustMul", request({"encrypted_seeds": ["?"]})),
        ("AdjustMul", request({"encrypted_seeds": [5]})),
        ("AdjustMul", request({}, field_size=3)),
        ("AdjustMul", request({}, padding="x" * 2**20)),
        ("AdjustDot", request({}, M=0, N=1)),
    ):
        assert served(method, body) == REFUSED
    for length in ("-1", "1e3", "", "9" * 30, str(2**30)):
        assert served("AdjustMul", b"", {"Content-Length": length}) == REFUSED  # at once, though nothing was sent
    assert served("AdjustMul", b"", {"Accept": "*/*"}) == REFUSED


def test_decrypted_seeds_are_kept_in_limited_number():
    dealer = _dealer.Dealer(SECRET)
    for i in range(3):
        answer_to(encrypted(SEEDS[0], random=2 + i), dealer=dealer.answer)
    assert len(dealer._seeds) == 3
    dealer._seeds.update((str(i), SEEDS[1]) for i in range(_dealer._MAX_SEEDS - 3))
    answer_to(encrypted(SEEDS[0], random=5), dealer=dealer.answer)
    assert len(dealer._seeds) == 1


def test_unsupported_methods_are_rejected():
    request, _ = request_for([40] * 3, field_size=4)
    with pytest.raises(ValueError, match="'AdjustTrunc' is not supported"):
        _dealer.Dealer(SECRET).answer("AdjustTrunc", request)
    with pytest.raises(ValueError, match="refused"):
        _dealer.Dealer(SECRET + 1).answer("AdjustMul", request)
