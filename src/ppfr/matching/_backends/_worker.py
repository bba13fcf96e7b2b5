"""One process of a secure back end: a party, or the asker's half that makes shares and opens answers.

This file alone runs in the back end's own environment: it needs the standard library, NumPy and the back end (SPU or
MPyC), and nothing of ppfr. It is told what it is by its first message and answers one message after another, on
standard input and output: 8 bytes of length, a JSON header, then the arrays the header counts, each as 8 bytes of
length and an .npy without pickled objects.

Suffixes: B probes, N pairs, M references, D embedding.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

_LENGTH = struct.Struct(">Q")
Arrays = dict[str, Any]


def packed(header: dict[str, Any], arrays: Arrays) -> bytes:
    """A message as bytes."""
    names = sorted(arrays)
    parts = [json.dumps({**header, "arrays": names}).encode()]
    for name in names:
        buffer = io.BytesIO()
        np.save(buffer, arrays[name], allow_pickle=False)
        parts.append(buffer.getvalue())
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def unpacked(read: Callable[[int], bytes]) -> tuple[dict[str, Any], Arrays]:
    """The next message of a stream; `read` gives exactly as many bytes as it is asked for."""

    def part() -> bytes:
        return read(_LENGTH.unpack(read(_LENGTH.size))[0])

    header = json.loads(part())
    return header, {name: np.load(io.BytesIO(part()), allow_pickle=False) for name in header.pop("arrays")}


def link_bytes(dealer_port: int) -> dict[str, list[int]]:
    """Bytes sent and received so far on this process's TCP connections, as the kernel counts them (Linux)."""
    counted = {"parties": [0, 0], "dealer": [0, 0]}
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                port = connection.getpeername()[1]
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (OSError, IndexError):
            continue  # not a connected TCP socket
        counter = counted["dealer" if port == dealer_port else "parties"]
        counter[0] += struct.unpack_from("Q", told, 200)[0]  # tcpi_bytes_sent
        counter[1] += struct.unpack_from("Q", told, 128)[0]  # tcpi_bytes_received
    return counted


class SpuAsker:
    """Makes SPU's shares of integers and puts shares of an answer together."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import spu

        self._spu = spu
        self._io = spu.Io(setup["num_parties"], _spu_config(setup))

    def share(self, values: Any) -> tuple[list[str], list[Any]]:
        """(N, D) integers -> each party's meta data and (N, bytes) rows."""
        shares = self._io.make_shares(np.ascontiguousarray(values, np.int32), self._spu.libspu.VIS_SECRET)
        told = [_share_rows(share, len(values)) for share in shares]
        return [meta for meta, _ in told], [rows for _, rows in told]

    def open(self, metas: list[str], parts: list[Any]) -> Any:
        """Values of one share of each party."""
        return np.asarray(self._io.reconstruct([_spu_share(*pair) for pair in zip(metas, parts, strict=True)]))


class SpuParty:
    """One of SPU's parties: keeps shares of a gallery; runs the programs below, and no others."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import spu

        description = spu.libspu.link.Desc()
        description.recv_timeout_ms = int(1000 * setup["timeout_s"])
        description.connect_retry_times, description.connect_retry_interval_ms = 100, 100
        for rank, address in enumerate(setup["addresses"]):
            description.add_party(f"party {rank}", address)
        if setup["tls"] is not None:
            description.enable_ssl = True
            for options in (description.client_ssl_opts, description.server_ssl_opts):
                options.cert.certificate_path = setup["tls"]["certificate"]
                options.cert.private_key_path = setup["tls"]["key"]
                options.verify.ca_file_path = setup["tls"]["authority"]
                options.verify.verify_depth = 1
        self._spu = spu
        self._link = spu.libspu.link.create_brpc(description, setup["rank"])
        self._runtime = spu.Runtime(self._link, _spu_config(setup))
        self._keeps_masks = setup["dealer"] is not None
        self._programs: dict[Any, Any] = {}
        self._rows: list[Any] = []
        self._meta = ""
        self._is_loaded = False

    def enrol(self, meta: str, rows: Any) -> int:
        """Keep rows of shares; how many there are now."""
        self._meta, self._is_loaded = meta, False
        self._rows = [np.concatenate([*self._rows, rows])]
        return len(self._rows[0])

    def answer(self, kind: str, threshold: int, meta: str, rows: Any, references: Any) -> tuple[str, Any]:
        """A share of the answer to a query."""
        chosen = self._rows[0]
        if kind == "verify":
            chosen = chosen[references]
            self._runtime.set_var("chosen", _spu_share(self._meta, chosen, len(chosen)))
            kind = "set" if len(chosen) == 1 else kind  # one pair: one inner product instead of D products
            gallery = "chosen"
        else:
            if not self._is_loaded:
                self._runtime.set_var("gallery", _spu_share(self._meta, chosen, len(chosen)))
                if self._keeps_masks:
                    self._runtime.run(self._kept(chosen.shape[0], _num_columns(meta)))
                self._is_loaded = True
            gallery = "kept gallery" if self._keeps_masks else "gallery"
        self._runtime.set_var("probes", _spu_share(meta, rows))
        self._runtime.set_var("threshold", self._public(threshold))
        self._runtime.run(self._program(kind, len(rows), len(chosen), _num_columns(meta), gallery))
        share = self._runtime.get_var("answer")
        return _share_rows(share, 1)

    def _public(self, threshold: int) -> Any:
        spu = self._spu
        io = spu.Io(self._link.world_size, spu.RuntimeConfig(spu.libspu.SEMI2K, spu.libspu.FM32, 0))
        return io.make_shares(np.array(threshold, np.int32), spu.libspu.VIS_PUBLIC)[self._link.rank]

    def _kept(self, num_references: int, dim: int) -> Any:
        from spu.experimental import make_cached_var
        from spu.utils import frontend

        secret = self._spu.libspu.VIS_SECRET
        gallery = np.zeros((num_references, dim), np.int32)
        told = (frontend.Kind.JAX, make_cached_var, [gallery], {}, ["gallery"], [secret], lambda _: ["kept gallery"])
        return frontend.compile(*told)[0]

    def _program(self, kind: str, num_probes: int, num_references: int, dim: int, gallery: str) -> Any:
        key = (kind, num_probes, num_references, dim, gallery)
        if key not in self._programs:
            from spu.utils import frontend

            secret, public = self._spu.libspu.VIS_SECRET, self._spu.libspu.VIS_PUBLIC
            self._programs[key] = frontend.compile(
                frontend.Kind.JAX,
                _PROGRAMS[kind],
                [np.zeros((num_probes, dim), np.int32), np.zeros((num_references, dim), np.int32), np.int32(0)],
                {},
                ["probes", gallery, "threshold"],
                [secret, secret, public],
                lambda _: ["answer"],
            )[0]
        return self._programs[key]


def _spu_config(setup: dict[str, Any]) -> Any:
    import spu

    config = spu.RuntimeConfig(spu.parse_protocol_kind(setup["protocol"]), spu.libspu.FM32, 0)
    if setup["dealer"] is None:
        return config
    dealer = {
        "server_host": setup["dealer"]["address"],
        "asym_crypto_schema": "SM2",
        "server_public_key": setup["dealer"]["public_key"],
        "transport_protocol": "http",
    }
    if setup["tls"] is not None:
        names = {"certificate": "certificate", "private_key": "key", "ca_file_path": "authority"}
        dealer["ssl_config"] = {name: setup["tls"][key] for name, key in names.items()} | {"verify_depth": 1}
    # SPU 0.9.5 cannot be given a dealer by attribute ("custom holder type"): as text, merged with the rest as bytes.
    told, merged = spu.RuntimeConfig(), spu.RuntimeConfig()
    told.ParseFromJsonString(json.dumps({"beaver_type": "TrustedThirdParty", "ttp_beaver_config": dealer}))
    merged.ParseFromString(config.SerializeToString() + told.SerializeToString())
    return merged


def _share_rows(share: Any, num_rows: int) -> tuple[str, Any]:
    """An SPU share -> its meta data and its bytes, a row each: elements lie row by row."""
    from spu.libspu import ValueChunk

    chunks = []
    for data in share.share_chunks:
        chunk = ValueChunk()
        chunk.ParseFromString(data)
        chunks.append((chunk.chunk_offset, chunk.content))
    content = b"".join(content for _, content in sorted(chunks))
    return share.meta.hex(), np.frombuffer(content, np.uint8).reshape(num_rows, -1)


def _spu_share(meta: str, rows: Any, num_rows: int | None = None) -> Any:
    """The inverse; `num_rows` where rows were chosen from others or joined, so that the meta data are another array's."""
    from spu.libspu import Share, ValueChunk, ValueMeta

    told, share, chunk = ValueMeta(), Share(), ValueChunk()
    told.ParseFromString(bytes.fromhex(meta))
    if num_rows is not None:
        told.shape = [num_rows, told.shape.dims[1]]
    chunk.total_bytes, chunk.chunk_offset, chunk.content = rows.nbytes, 0, np.ascontiguousarray(rows).tobytes()
    share.meta, share.share_chunks = told.SerializeToString(), [chunk.SerializeToString()]
    return share


def _num_columns(meta: str) -> int:
    from spu.libspu import ValueMeta

    told = ValueMeta()
    told.ParseFromString(bytes.fromhex(meta))
    return int(told.shape.dims[1])


def _spu_verify(probes_ND: Any, rows_ND: Any, threshold: Any) -> Any:
    return (probes_ND * rows_ND).sum(axis=1) >= threshold


def _spu_set(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return probes_BD @ gallery_MD.T >= threshold


def _spu_any(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return (probes_BD @ gallery_MD.T >= threshold).any(axis=1)


def _spu_best(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    """A tournament of neighbours: of equal ones the left goes on, so that the lowest index wins."""
    from jax import lax

    score = probes_BD @ gallery_MD.T
    num_probes = len(score)
    index = lax.broadcasted_iota(np.int32, score.shape, 1)
    while (num := score.shape[1]) > 1:
        even = num // 2 * 2
        left, right, left_index, right_index = (
            lax.slice(array, (0, start), (num_probes, even - 1 + start), (1, 2))
            for array in (score, index)
            for start in (0, 1)
        )
        is_right = right > left
        rest, rest_index = (lax.slice(array, (0, even), (num_probes, num)) for array in (score, index))
        score = lax.concatenate([lax.select(is_right, right, left), rest], 1)
        index = lax.concatenate([lax.select(is_right, right_index, left_index), rest_index], 1)
    return lax.select(score[:, 0] >= threshold, index[:, 0], lax.full((num_probes,), np.int32(-1)))


_PROGRAMS = {"verify": _spu_verify, "set": _spu_set, "any": _spu_any, "best": _spu_best}


def _mpyc_runtime(setup: dict[str, Any], *arguments: str) -> Any:
    """MPyC reads its options from the command line as it is imported."""
    sys.argv = [sys.argv[0], "--no-log", *arguments]
    from mpyc.runtime import mpc

    return mpc, mpc.SecInt(setup["ring_bits"])


class MpycAsker:
    """Makes Shamir shares of integers and puts shares of an answer together."""

    def __init__(self, setup: dict[str, Any]) -> None:
        _, secure = _mpyc_runtime(setup)
        self._num_parties = setup["num_parties"]
        self._field = secure.field

    def share(self, values: Any) -> tuple[list[str], list[Any]]:
        """(N, D) integers -> (N, D, bytes of a field element) for each party."""
        from mpyc import thresha

        flat = self._field.array(np.asarray(values).reshape(-1).astype(object))
        parts = thresha.np_random_split(self._field, flat, (self._num_parties - 1) // 2, self._num_parties)
        return [""] * len(parts), [_field_bytes(self._field, part).reshape(*values.shape, -1) for part in parts]

    def open(self, metas: list[str], parts: list[Any]) -> Any:
        """Values of one share of each party."""
        from mpyc import thresha

        del metas
        shape = parts[0].shape[:-1]
        points = [(i + 1, _field_elements(part).reshape(-1)) for i, part in enumerate(parts)]
        opened = thresha.np_recombine(self._field, points)
        return np.array([int(value) for value in opened], np.int64).reshape(shape)


class MpycParty:
    """One of MPyC's parties."""

    def __init__(self, setup: dict[str, Any]) -> None:
        addresses = [argument for address in setup["addresses"] for argument in ("-P", address)]
        if setup["tls"] is not None:
            os.chdir(setup["tls"]["directory"])  # MPyC looks for its keys in .config there
        tls = [] if setup["tls"] is None else ["--ssl"]
        self._mpc, self._secure = _mpyc_runtime(setup, *addresses, "-I", str(setup["rank"]), *tls)
        self._rows: list[Any] = []
        self._mpc.run(self._mpc.start())

    def enrol(self, meta: str, rows: Any) -> int:
        """Keep rows of shares; how many there are now."""
        del meta
        self._rows = [np.concatenate([*self._rows, _field_elements(rows)])]
        return len(self._rows[0])

    def answer(self, kind: str, threshold: int, meta: str, rows: Any, references: Any) -> tuple[str, Any]:
        """A share of the answer to a query."""
        del meta
        probes = self._secure.array(_field_elements(rows))
        decided = getattr(self, f"_{kind}")(probes, threshold, references)
        share = self._mpc.run(self._mpc.gather(decided))
        return "", _field_bytes(self._secure.field, share.value)

    def _scores(self, probes: Any) -> Any:
        return probes @ self._secure.array(self._rows[0].T.copy())  # MPyC reduces what it is given in place

    def _verify(self, probes: Any, threshold: int, references: Any) -> Any:
        rows = self._secure.array(self._rows[0][references][:, :, None].copy())
        return (probes.reshape((len(references), 1, -1)) @ rows).reshape((len(references),)) >= threshold

    def _set(self, probes: Any, threshold: int, _: Any) -> Any:
        return self._scores(probes) >= threshold

    def _any(self, probes: Any, threshold: int, _: Any) -> Any:
        return 1 - self._mpc.np_prod(self._scores(probes) < threshold, axis=1)

    def _best(self, probes: Any, threshold: int, _: Any) -> Any:
        """A tournament as in SPU's program."""
        score = self._scores(probes)
        index = self._secure.array(np.arange(score.shape[1]) + np.zeros((score.shape[0], 1), int))
        while (num := score.shape[1]) > 1:
            even = num // 2 * 2
            is_right = score[:, 1:even:2] > score[:, :even:2]
            score, index = (
                self._mpc.np_concatenate(
                    (array[:, :even:2] + is_right * (array[:, 1:even:2] - array[:, :even:2]), array[:, even:]), axis=1
                )
                for array in (score, index)
            )
        return (score[:, 0] >= threshold) * (index[:, 0] + 1) - 1


def _field_bytes(field: Any, values: Any) -> Any:
    """Field elements -> the same shape with an axis of bytes behind."""
    length = (field.modulus.bit_length() + 7) // 8
    flat = np.asarray(values, object).reshape(-1)
    data = b"".join(int(value).to_bytes(length, "little") for value in flat)
    return np.frombuffer(data, np.uint8).reshape(*np.shape(values), length)


def _field_elements(data: Any) -> Any:
    flat = np.ascontiguousarray(data).reshape(-1, data.shape[-1])
    values = [int.from_bytes(row, "little") for row in map(bytes, flat)]
    elements = np.empty(len(values), object)
    elements[:] = values
    return elements.reshape(data.shape[:-1])


_ROLES = {"spu": (SpuAsker, SpuParty), "mpyc": (MpycAsker, MpycParty)}


def _answered(worker: Any, asked: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
    if asked["do"] == "share":
        metas, parts = worker.share(arrays["values"])
        return {"metas": metas}, {str(i): part for i, part in enumerate(parts)}
    if asked["do"] == "open":
        parts = [arrays[str(i)] for i in range(len(arrays))]
        return {}, {"values": worker.open(asked["metas"], parts)}
    if asked["do"] == "enrol":
        return {"num": worker.enrol(asked["meta"], arrays["share"])}, {}
    if asked["do"] == "count":
        return link_bytes(asked["dealer_port"]), {}
    meta, share = worker.answer(
        asked["kind"], asked["threshold"], asked["meta"], arrays["share"], arrays.get("references")
    )
    return {"meta": meta}, {"share": share}


def main() -> None:
    """Answer messages until the input ends."""
    source = sys.stdin.buffer
    target: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print; what they print must not get between the messages

    def read(num_bytes: int) -> bytes:
        data = source.read(num_bytes)
        if len(data) != num_bytes:
            raise EOFError
        return data

    worker: Any = None
    while True:
        try:
            asked, arrays = unpacked(read)
        except EOFError:
            os._exit(0)  # libraries' threads would hold the process up
        try:
            if worker is None:
                worker = _ROLES[asked["engine"]][asked["role"] == "party"](asked)
                reply: tuple[dict[str, Any], Arrays] = ({}, {})
            else:
                reply = _answered(worker, asked, arrays)
        except ModuleNotFoundError as error:
            reply = ({"missing": error.name}, {})
        except Exception as error:  # whatever the library raises is told to who asked
            reply = ({"error": f"{type(error).__name__}: {error}"[:400]}, {})
        target.write(packed(*reply))
        target.flush()


if __name__ == "__main__":
    main()
