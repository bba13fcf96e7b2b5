"""SPU's roles for `_worker`: the client, which shares and opens values, and a party that runs the programs below.

Runs without ppfr. Suffixes: B probes, N pairs, M references, D embedding.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np


class Client:
    """Creates SPU's shares of integers and reconstructs answers."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import spu

        self._spu = spu
        self._io = spu.Io(setup["num_parties"], _config(setup))

    def share(self, values: Any) -> tuple[list[str], list[Any]]:
        """(N, D) integers -> metadata and (N, bytes) rows for each party."""
        shares = self._io.make_shares(np.ascontiguousarray(values, np.int32), self._spu.libspu.VIS_SECRET)
        parts = [_share_rows(share, len(values)) for share in shares]
        return [meta for meta, _ in parts], [rows for _, rows in parts]

    def open(self, metas: list[str], parts: list[Any]) -> Any:
        """Reconstruct values from one share of each party."""
        return np.asarray(self._io.reconstruct([_share(*pair) for pair in zip(metas, parts, strict=True)]))


class Party:
    """One of SPU's parties: stores shares of a gallery and runs only the programs below."""

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
        """Append rows of shares; return the number of rows."""
        self._meta, self._is_loaded = meta, False
        self._rows = [np.concatenate([*self._rows, rows])]
        return len(self._rows[0])

    def answer(self, kind: str, threshold: int, meta: str, rows: Any, references: Any) -> tuple[str, Any]:
        """Compute the party's share of the answer to a query."""
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
        arguments: Any = (
            frontend.Kind.JAX,
            make_cached_var,
            [gallery],
            {},
            ["gallery"],
            [secret],
            lambda _: ["kept gallery"],
        )
        return frontend.compile(*arguments)[0]

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
    # SPU 0.9.5 does not accept a dealer as an attribute ("custom holder type"): parse it from JSON, merge as bytes.
    with_dealer, merged = spu.RuntimeConfig(), spu.RuntimeConfig()
    with_dealer.ParseFromJsonString(json.dumps({"beaver_type": "TrustedThirdParty", "ttp_beaver_config": dealer}))
    merged.ParseFromString(config.SerializeToString() + with_dealer.SerializeToString())
    return merged


def _share_rows(share: Any, num_rows: int) -> tuple[str, Any]:
    """An SPU share -> its metadata and its bytes by row; elements are stored in row order."""
    from spu.libspu import ValueChunk

    chunks = []
    for data in share.share_chunks:
        chunk = ValueChunk()
        chunk.ParseFromString(data)
        chunks.append((chunk.chunk_offset, chunk.content))
    content = b"".join(content for _, content in sorted(chunks))
    return share.meta.hex(), np.frombuffer(content, np.uint8).reshape(num_rows, -1)


def _share(meta: str, rows: Any, num_rows: int | None = None) -> Any:
    """The inverse of `_share_rows`; `num_rows` if rows were selected or joined, since `meta` is of another array."""
    from spu.libspu import Share, ValueChunk, ValueMeta

    metadata, share, chunk = ValueMeta(), Share(), ValueChunk()
    metadata.ParseFromString(bytes.fromhex(meta))
    if num_rows is not None:
        metadata.shape = [num_rows, metadata.shape.dims[1]]
    chunk.total_bytes, chunk.chunk_offset, chunk.content = rows.nbytes, 0, np.ascontiguousarray(rows).tobytes()
    share.meta, share.share_chunks = metadata.SerializeToString(), [chunk.SerializeToString()]
    return share


def _num_columns(meta: str) -> int:
    from spu.libspu import ValueMeta

    metadata = ValueMeta()
    metadata.ParseFromString(bytes.fromhex(meta))
    return int(metadata.shape.dims[1])


def _verify(probes_ND: Any, rows_ND: Any, threshold: Any) -> Any:
    return (probes_ND * rows_ND).sum(axis=1) >= threshold


def _set(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return probes_BD @ gallery_MD.T >= threshold


def _any(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    return (probes_BD @ gallery_MD.T >= threshold).any(axis=1)


def _best(probes_BD: Any, gallery_MD: Any, threshold: Any) -> Any:
    """A tournament of neighbours: of equal scores the left one wins, so the lowest index wins."""
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
