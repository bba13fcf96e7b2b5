"""A dealer for SPU's SEMI2K: provides correlated randomness to SPU's servers, in a process of its own.

SPU's wheel contains only the client of this service (libspu/mpc/semi2k/beaver, TrustedThirdParty); this file implements
the server for the operations that matching needs. Each SPU server expands random words from its own seed and sends the
seed to the dealer, encrypted with the dealer's key. The dealer expands all seeds and returns the correction words that
make the third sharing of a triple the product of the other two. It sees seeds and sizes, but nothing that depends on
shared values; together with the traffic of a server it could read everything.

Runs standalone: python _dealer.py, with the paths of a certificate, its key and the authority for TLS. Writes one
message in the format of `_worker`, then serves until its input ends. SM2 is GB/T 32918 (ISO/IEC 14888-3), its hash SM3.
The arithmetic is here because `cryptography` has SM3 but not SM2.

Requests may contain anything. Points that are not on the curve of SM2 are refused: a product would give the key modulo
their order. All failures have one answer, so that the cause of none is disclosed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import ssl
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

_P = 2**256 - 2**224 - 2**96 + 2**64 - 1
_A = _P - 3
_B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_BASE = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
# SubjectPublicKeyInfo header of an uncompressed point on SM2's curve.
_KEY_HEADER = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004")
_SEED_BYTES = 16
_DIGEST_BYTES = 32
_MAX_CIPHERTEXT_BYTES = 127  # of a seed: at most 2 + 2 * 35 + 34 + 18 = 124; DER lengths then have one byte
_MAX_REQUEST_BYTES = 1 << 16  # a request of two servers has about 1.2 KB
_MAX_BUFFER_BYTES = 1 << 32  # the mask of a gallery of 1,000,000 x 512 words of 64 bits
_MAX_COUNT = 1 << 62
_MAX_SEEDS = 64  # kept decrypted; two servers have two
_REFUSED = "The dealer refused the request."
Point = tuple[int, int]


def _sum(one: Point, other: Point) -> Point:
    """Sum of two points that are not each other's inverse."""
    if one == other:
        slope = (3 * one[0] * one[0] + _A) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def is_on_curve(point: Point) -> bool:
    """Whether coordinates in 0.._P - 1 are a point of SM2's curve, which has prime order."""
    x, y = point
    return 0 <= x < _P and 0 <= y < _P and (y * y - (x * x + _A) * x - _B) % _P == 0


def times(factor: int, point: Point) -> Point:
    """Multiply a point of the curve by `factor`, 1 to _ORDER - 1.

    Not in constant time, since keys live for one session.
    """
    found = point
    for bit in bin(factor)[3:]:
        found = _sum(found, found)
        if bit == "1":
            found = _sum(found, point)
    return found


def public_key_pem(secret: int) -> str:
    """The dealer's public key in the PEM format that SPU expects."""
    x, y = times(secret, _BASE)
    data = _KEY_HEADER + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    body = base64.encodebytes(data).decode().replace("\n", "")
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"


def sm2_decrypt(secret: int, data: bytes) -> bytes:
    """Decrypt SEQUENCE { x, y, hash, ciphertext }.

    Raises:
        ValueError: it was not encrypted with the key; the text is the same for every cause.
    """
    point, digest, masked = _parsed(data)
    if not is_on_curve(point):
        raise ValueError(_REFUSED)
    shared_x, shared_y = times(secret, point)
    half, other_half = shared_x.to_bytes(32, "big"), shared_y.to_bytes(32, "big")
    stream, count = b"", 1
    while len(stream) < len(masked):
        stream += hashlib.new("sm3", half + other_half + count.to_bytes(4, "big")).digest()
        count += 1
    plain = bytes(a ^ b for a, b in zip(masked, stream, strict=False))
    if not hmac.compare_digest(hashlib.new("sm3", half + plain + other_half).digest(), digest):
        raise ValueError(_REFUSED)
    return plain


def _parsed(data: bytes) -> tuple[Point, bytes, bytes]:
    """The point, hash and ciphertext of a DER SEQUENCE of two INTEGERs and two OCTET STRINGs, without anything else."""
    if len(data) > _MAX_CIPHERTEXT_BYTES:
        raise ValueError(_REFUSED)
    body, rest = _element(0x30, data)
    x, body = _element(0x02, body)
    y, body = _element(0x02, body)
    digest, body = _element(0x04, body)
    masked, body = _element(0x04, body)
    if rest or body or not masked or len(digest) != _DIGEST_BYTES:
        raise ValueError(_REFUSED)
    return (int.from_bytes(x, "big", signed=True), int.from_bytes(y, "big", signed=True)), digest, masked


def _element(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """The contents of the first DER element, which has one byte of length, and what follows it."""
    if len(data) < 2 or data[0] != tag or data[1] > len(data) - 2:
        raise ValueError(_REFUSED)
    end = 2 + data[1]
    return data[2:end], data[end:]


def _drawn(seed: bytes, count: int, num_bytes: int) -> Any:
    """Expand a seed as SPU does: AES-128 of consecutive numbers from `count`, 16 bytes each, little-endian."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    blocks = np.zeros((-(-num_bytes // 16), 2), "<u8")
    blocks[:, 0] = np.arange(count, count + len(blocks))
    stream = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()  # noqa: S305 - distinct blocks: counter mode by hand
    return np.frombuffer(stream.update(blocks.tobytes())[:num_bytes], np.uint8)


class Dealer:
    """Serves the requests of one session.

    Args:
        secret: private key that decrypts the seeds.
    """

    def __init__(self, secret: int) -> None:
        self._secret = secret
        self._seeds: dict[str, bytes] = {}

    def answer(self, method: str, request: bytes) -> bytes:
        """Compute the words to add to (for AND: to XOR into) the third sharing.

        Raises:
            ValueError: a method that matching does not use, or a malformed request.
        """
        parameters = json.loads(request)
        inputs = parameters["prg_inputs"]
        if method == "AdjustAnd":
            a, b, c = (self._joined(part, np.dtype(np.uint8), exclusive=True) for part in inputs)
            return bytes((a & b) ^ c)
        word = np.dtype(f"u{parameters['field_size']}")
        words = [self._joined(part, word, exclusive=False) for part in inputs]
        if method == "AdjustMul":
            return bytes(words[0] * words[1] - words[2])
        if method == "AdjustSquare":
            return bytes(words[0] * words[0] - words[1])
        if method == "AdjustRandBit":
            bits = np.frombuffer(secrets.token_bytes(len(words[0])), np.uint8) & 1
            return bytes(bits.astype(word) - words[0])
        if method == "AdjustDot" and not any(parameters.get("transpose_inputs", [])):
            rows, columns = words[0].reshape(parameters["M"], -1), words[1].reshape(-1, parameters["N"])
            return bytes((rows @ columns).reshape(-1) - words[2])
        raise ValueError(f"Method {method!r} is not supported: matching does not use it.")

    def _joined(self, part: dict[str, Any], word: np.dtype[Any], *, exclusive: bool) -> Any:
        """Sum (or XOR) of the words that the servers drew."""
        length, count = part["buffer_len"], part.get("prg_count", 0)
        if not 0 <= length <= _MAX_BUFFER_BYTES or not 0 <= count <= _MAX_COUNT:
            raise ValueError(_REFUSED)
        total = np.zeros(length // word.itemsize, word)
        for encrypted in part["encrypted_seeds"]:
            drawn = _drawn(self._seed(encrypted), count, length).view(word)
            total = total ^ drawn if exclusive else total + drawn
        return total

    def _seed(self, encrypted: str) -> bytes:
        """Decrypt a seed, or take it from those of earlier requests."""
        if (known := self._seeds.get(encrypted)) is not None:
            return known
        seed = sm2_decrypt(self._secret, base64.b64decode(encrypted, validate=True))
        if len(seed) != _SEED_BYTES:
            raise ValueError(_REFUSED)
        if len(self._seeds) >= _MAX_SEEDS:
            self._seeds.clear()
        self._seeds[encrypted] = seed
        return seed


def handler(dealer: Dealer) -> type[BaseHTTPRequestHandler]:
    """Create a handler of requests to BeaverService/<method>.

    It returns a status byte, the length, and the words; for every request that fails, status 1 and the same text.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            status, words = 0, b""
            try:
                words = dealer.answer(self.path.rsplit("/", 1)[-1], self._body())
            except Exception:  # the sender must not learn the cause
                status, words = 1, _REFUSED.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(words) + 9))
            self.end_headers()
            self.wfile.write(struct.pack("<Bq", status, len(words)) + words)

        def _body(self) -> bytes:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or len(length) > 9 or int(length) > _MAX_REQUEST_BYTES:
                self.close_connection = True  # what follows is unread
                raise ValueError(_REFUSED)
            return self.rfile.read(int(length))

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler


def main(certificate: str = "", key: str = "", authority: str = "") -> None:
    """Serve on a free loopback port, with mutual TLS if files are given, until the input ends."""
    secret = 1 + secrets.randbelow(_ORDER - 2)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Dealer(secret)))
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    message = json.dumps({"port": server.server_port, "public_key": public_key_pem(secret), "arrays": []}).encode()
    sys.stdout.buffer.write(struct.pack(">Q", len(message)) + message)
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
