"""MPyC's roles for `_worker`: the client, which shares and opens values, and a party.

Runs without ppfr. Suffixes: B probes, N pairs, M references, D embedding.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np


def _runtime(setup: dict[str, Any], *arguments: str) -> Any:
    """Import MPyC, which reads its options from the command line, and create its secure integers."""
    sys.argv = [sys.argv[0], "--no-log", *arguments]
    from mpyc.runtime import mpc

    return mpc, mpc.SecInt(setup["ring_bits"])


class Client:
    """Creates Shamir shares of integers and reconstructs answers."""

    def __init__(self, setup: dict[str, Any]) -> None:
        _, secure = _runtime(setup)
        self._num_parties = setup["num_parties"]
        self._field = secure.field

    def share(self, values: Any) -> tuple[list[str], list[Any]]:
        """(N, D) integers -> (N, D, bytes of a field element) for each party."""
        from mpyc import thresha

        flat = self._field.array(np.asarray(values).reshape(-1).astype(object))
        parts = thresha.np_random_split(self._field, flat, (self._num_parties - 1) // 2, self._num_parties)
        return [""] * len(parts), [_field_bytes(self._field, part).reshape(*values.shape, -1) for part in parts]

    def open(self, metas: list[str], parts: list[Any]) -> Any:
        """Reconstruct values from one share of each party."""
        from mpyc import thresha

        del metas
        shape = parts[0].shape[:-1]
        points = [(i + 1, _field_elements(part).reshape(-1)) for i, part in enumerate(parts)]
        opened = thresha.np_recombine(self._field, points)
        return np.array([int(value) for value in opened], np.int64).reshape(shape)


class Party:
    """One of MPyC's parties."""

    def __init__(self, setup: dict[str, Any]) -> None:
        addresses = [argument for address in setup["addresses"] for argument in ("-P", address)]
        if setup["tls"] is not None:
            os.chdir(setup["tls"]["directory"])  # MPyC reads its keys from .config in the working directory
        tls = [] if setup["tls"] is None else ["--ssl"]
        self._mpc, self._secure = _runtime(setup, *addresses, "-I", str(setup["rank"]), *tls)
        self._rows: list[Any] = []
        self._mpc.run(self._mpc.start())

    def enrol(self, meta: str, rows: Any) -> int:
        """Append rows of shares; return the number of rows."""
        del meta
        self._rows = [np.concatenate([*self._rows, _field_elements(rows)])]
        return len(self._rows[0])

    def answer(self, kind: str, threshold: int, meta: str, rows: Any, references: Any) -> tuple[str, Any]:
        """Compute the party's share of the answer to a query."""
        del meta
        probes = self._secure.array(_field_elements(rows))
        programs = {"verify": self._verify, "set": self._set, "any": self._any, "best": self._best}
        decided = programs[kind](probes, threshold, references)
        share = self._mpc.run(self._mpc.gather(decided))
        return "", _field_bytes(self._secure.field, share.value)

    def _scores(self, probes: Any) -> Any:
        return probes @ self._secure.array(self._rows[0].T.copy())  # copied because MPyC reduces its argument in place

    def _verify(self, probes: Any, threshold: int, references: Any) -> Any:
        rows = self._secure.array(self._rows[0][references][:, :, None].copy())
        return (probes.reshape((len(references), 1, -1)) @ rows).reshape((len(references),)) >= threshold

    def _set(self, probes: Any, threshold: int, _: Any) -> Any:
        return self._scores(probes) >= threshold

    def _any(self, probes: Any, threshold: int, _: Any) -> Any:
        return 1 - self._mpc.np_prod(self._scores(probes) < threshold, axis=1)

    def _best(self, probes: Any, threshold: int, _: Any) -> Any:
        """A tournament as in `_spu_roles`."""
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
    """Field elements -> the same shape with a trailing axis of bytes."""
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
