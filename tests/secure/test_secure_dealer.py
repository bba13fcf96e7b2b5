"""The dealer for SPU's SEMI2K: its key, its correction words, and the requests that it rejects."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import json
import shutil
import ssl
import subprocess
import sys

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
    x, y = _dealer.times(random, _dealer._BASE)
    half, other = (value.to_bytes(32, "big") for value in _dealer.times(random, public))
    stream = b"".join(hashlib.new("sm3", half + other + bytes([0, 0, 0, i])).digest() for i in (1, 2))
    masked = bytes(a ^ b for a, b in zip(plain, stream, strict=False))
    digest = hashlib.new("sm3", half + plain + other).digest()
    numbers = [value.to_bytes(33, "big").lstrip(b"\0") for value in (x, y)]
    parts = [b"\x02" + bytes([len(n) + (n[0] >> 7)]) + b"\0" * (n[0] >> 7) + n for n in numbers]
    body = b"".join([*parts, b"\x04\x20" + digest, b"\x04" + bytes([len(masked)]) + masked])
    return b"\x30" + bytes([len(body)]) + body


def test_decryption_of_the_example_of_the_standard():
    """Annex C: "encryption standard" gives C2 = 21886CA9 ... and C3 = 59983C18 ..."""
    data = encrypted(b"encryption standard")
    assert bytes.fromhex("21886CA989CA9C7D58087307CA93092D651EFA") in data
    assert bytes.fromhex("59983C18F809E262923C53AEC295D30383B54E39D609D160AFCB1908D0BD8766") in data
    assert _dealer.sm2_decrypt(SECRET, data) == b"encryption standard"
    with pytest.raises(ValueError, match="this dealer's key"):
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


def test_unsupported_methods_are_rejected():
    request, _ = request_for([40] * 3, field_size=4)
    with pytest.raises(ValueError, match="'AdjustTrunc' is not supported"):
        _dealer.Dealer(SECRET).answer("AdjustTrunc", request)
    with pytest.raises(ValueError, match="this dealer's key"):
        _dealer.Dealer(SECRET + 1).answer("AdjustMul", request)
