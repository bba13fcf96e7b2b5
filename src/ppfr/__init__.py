"""Privacy-preserving face recognition: mask, train, recognise, attack, report.

`ppfr.mask` and `ppfr.evaluate` are the shortest way in; everything else is in the packages below. Importing `ppfr`
loads none of them.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppfr._facade import Evaluation, MaskedFace, evaluate, mask

__version__ = _version("ppfr")
__all__ = ["Evaluation", "MaskedFace", "__version__", "evaluate", "mask"]


def __getattr__(name: str) -> Any:
    """Import the functions for newcomers on first use."""
    if name in ("Evaluation", "MaskedFace", "evaluate", "mask"):
        from ppfr import _facade

        return getattr(_facade, name)
    raise AttributeError(f"module 'ppfr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
