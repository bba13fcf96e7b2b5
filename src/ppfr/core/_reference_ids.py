"""Ids of references: random bytes that identify references in galleries and share stores."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ID_BYTES = 16


def new_reference_ids(num: int) -> NDArray[np.uint8]:
    """(num, 16) random ids. The caller keeps track of the subject that each belongs to."""
    import numpy as np

    return np.frombuffer(secrets.token_bytes(ID_BYTES * num), dtype=np.uint8).reshape(num, ID_BYTES)
