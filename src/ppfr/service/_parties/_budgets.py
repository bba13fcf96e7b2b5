"""How many bits of answers each client has had: whoever may ask without end learns references from decisions alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import final

from ppfr.assets import write_atomically
from ppfr.core import CorruptTemplateError, InvalidInputError
from ppfr.secure._answers import Kind


def answer_bits(kind: Kind, num_probes: int, num_references: int) -> int:
    """Bits that an answer tells: one a probe, one a probe and reference, or whether and which."""
    index_bits = max(num_references - 1, 0).bit_length()
    return num_probes * {"verify": 1, "any": 1, "set": num_references, "best": 1 + index_bits}[kind]


@final
class Budgets:
    """Spent bits by client, on disk.

    Not every query is written: bits are set aside in blocks of a hundredth of the budget, each on disk before the first
    of it is spent. After a crash what was left of a block counts as spent, so that a restart never gives any back.

    Args:
        path: where they are kept.
        limits: bits by client; None for no limit.

    Raises:
        CorruptTemplateError: the file is none.
    """

    def __init__(self, path: Path, limits: Mapping[str, int | None]) -> None:
        self._path, self._limits = path, limits
        self._lock = threading.Lock()
        self._set_aside: dict[str, int] = {}
        if path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                self._set_aside = {str(name): int(bits) for name, bits in kept.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise CorruptTemplateError(
                    f"{path} holds no budgets; restore it, or remove it to let every client begin anew"
                ) from error
        self._spent = dict(self._set_aside)

    def left(self, client: str) -> int | None:
        """Bits that a client may still have; None for no limit."""
        limit = self._limits.get(client)
        return None if limit is None else max(0, limit - self._spent.get(client, 0))

    def spend(self, client: str, bits: int) -> None:
        """Count bits before they are told; a query that fails later has spent them all the same.

        Raises:
            InvalidInputError: the client has not so many left; nothing is counted.
            StorageError: it cannot be written.
        """
        limit = self._limits.get(client)
        if limit is None:
            return
        with self._lock:
            spent = self._spent.get(client, 0) + bits
            if spent > limit:
                raise InvalidInputError(
                    f"the answer has {bits} bits and this client has {self.left(client)} of {limit} left; ask less, or "
                    "let the party's operator raise budget_bits"
                )
            if spent > self._set_aside.get(client, 0):
                self._set_aside[client] = min(limit, spent + max(1, limit // 100))
                with write_atomically(self._path) as temporary:
                    temporary.write_text(json.dumps(self._set_aside, indent=1) + "\n", encoding="utf-8")
            self._spent[client] = spent
