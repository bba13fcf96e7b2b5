"""Query budgets: how many bits of answers each client has received.

Without a limit, a client could compute references from decisions alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import final

from ppfr.assets import write_atomically
from ppfr.core import CorruptTemplateError, InvalidInputError
from ppfr.secure import Kind


def answer_bits(kind: Kind, num_probes: int, num_references: int) -> int:
    """Bits that an answer reveals.

    One per probe for "verify" and "any", one per comparison for "set", 1 + log2(references), rounded up, per probe for
    "best".
    """
    index_bits = max(num_references - 1, 0).bit_length()
    return num_probes * {"verify": 1, "any": 1, "set": num_references, "best": 1 + index_bits}[kind]


@final
class QueryBudgets:
    """Spent bits by client, stored on disk.

    The file is not written for every query. Bits are reserved in blocks of a hundredth of the budget, and each block is
    on disk before its first bit is spent. After a crash the unused part of a block counts as spent, so a restart never
    returns spent bits.

    Args:
        path: file of the spent bits; created when needed.
        limits: budget in bits by client; None for no limit.

    Raises:
        CorruptTemplateError: the file is damaged.
    """

    def __init__(self, path: Path, limits: Mapping[str, int | None]) -> None:
        self._path, self._limits = path, limits
        self._lock = threading.Lock()
        self._reserved: dict[str, int] = {}
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                self._reserved = {str(name): int(bits) for name, bits in stored.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise CorruptTemplateError(
                    f"{path} does not contain query budgets. Restore it from a backup, or delete it to reset the "
                    "budgets of all clients."
                ) from error
        self._spent = dict(self._reserved)

    def left(self, client: str) -> int | None:
        """Bits that a client has left; None for no limit."""
        limit = self._limits.get(client)
        return None if limit is None else max(0, limit - self._spent.get(client, 0))

    def spend(self, client: str, bits: int) -> None:
        """Count bits before they are revealed. They stay spent if the query fails later.

        Raises:
            InvalidInputError: the client has fewer bits left; none are counted.
            StorageError: the file cannot be written.
        """
        limit = self._limits.get(client)
        if limit is None:
            return
        with self._lock:
            spent = self._spent.get(client, 0) + bits
            if spent > limit:
                raise InvalidInputError(
                    f"The answer has {bits} bits, but the query budget of this client has {self.left(client)} of "
                    f"{limit} bits left. Send fewer probes, or have the operator of the party raise budget_bits."
                )
            if spent > self._reserved.get(client, 0):
                self._reserved[client] = min(limit, spent + max(1, limit // 100))
                with write_atomically(self._path) as temporary:
                    temporary.write_text(json.dumps(self._reserved, indent=1) + "\n", encoding="utf-8")
            self._spent[client] = spent
