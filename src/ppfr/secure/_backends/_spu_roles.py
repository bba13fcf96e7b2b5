"""What SPU's processes do for `_worker`: the asker's half, and a party that runs the four programs below.

Runs without ppfr. Suffixes: B probes, N pairs, M references, D embedding.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np


class Asker:
    """Makes SPU's shares of integers and puts shares of an answer together."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import spu

        self._spu = spu
        self._io = spu.Io(setup["num_parties"], _config(setup))

    def share(self, values: Any) -> tuple[list[str], list[Any]]:
        """(N, D) integers -> each party's meta data and (N, bytes) rows."""
        shares = self._io.make_shares(np.ascontiguousarray(values, np.int32), self._spu.libspu.VIS_SECRET)
        told = [_share_rows(share, len(values)) for share in shares]
        return [meta for meta, _ in told], [rows for _, rows in told]

    def open(self, metas: list[str], parts: list[Any]) -> Any:
        """Values of one share of each party."""
        return np.asarray(self._io.reconstruct([_share(*pair) for pair in zip(metas, parts, strict=True)]))


class Party:
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
        self._runtime = spu.Runtime(self._link, _config(setup))
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
            self._runtime.set_var("chosen", _share(self._meta, chosen, len(chosen)))
            kind = "set" if len(chosen) == 1 else kind  # one pair: one inner product instead of D products
            gallery = "chosen"
        else:
            if not self._is_loaded:
                self._runtime.set_var("gallery", _share(self._meta, chosen, len(chosen)))
                if self._keeps_masks:
                    self._runtime.run(self._kept(chosen.shape[0], _num_columns(meta)))
                self._is_loaded = True
            gallery = "kept gallery" if self._keeps_masks else "gallery"
        self._runtime.set_var("probes", _share(meta, rows))
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
        told: Any = (
            frontend.Kind.JAX,
            make_cached_var,
            [gallery],
            {},
            ["gallery"],
            [secret],
            lambda _: ["kept gallery"],
        )
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


def _config(setup: dict[str, Any]) -> Any:
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


def _share(meta: str, rows: Any, num_rows: int | None = None) -> Any:
    """The inverse; `num_rows` where rows were chosen or joined, so that the meta data are another array's."""
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


def _verify(probes_ND: Any, rows_ND: Any, threshold: Any) -> Any:
    return (probes_ND * rows_ND).sum(axis=1) >= threshold


def _set(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return probes_BD @ gallery_MD.T >= threshold


def _any(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return (probes_BD @ gallery_MD.T >= threshold).any(axis=1)


def _best(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
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


_PROGRAMS = {"verify": _verify, "set": _set, "any": _any, "best": _best}
