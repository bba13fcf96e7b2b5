"""Directories of real data and weights: an option or an environment variable; there is no default path."""

from __future__ import annotations

import os
from pathlib import Path

from ppfr.core import MissingAssetError

DATA_VARIABLE = "PPFR_DATA"
WEIGHTS_VARIABLE = "PPFR_WEIGHTS"


def data_root(option: Path | None = None) -> Path:
    """Directory that contains lfw112/ and cfp112/: `option`, otherwise the variable PPFR_DATA.

    Raises:
        MissingAssetError: neither is set, or the directory does not exist; the message names both.
    """
    return _root(option, variable=DATA_VARIABLE, flag="--data", what="data directory", get="ppfr data fetch lfw")


def weights_root(option: Path | None = None) -> Path:
    """Directory of pretrained networks: `option`, otherwise the variable PPFR_WEIGHTS.

    Raises:
        MissingAssetError: neither is set, or the directory does not exist; the message names both.
    """
    return _root(option, variable=WEIGHTS_VARIABLE, flag="--weights", what="weights directory", get="ppfr models fetch")


def _root(option: Path | None, *, variable: str, flag: str, what: str, get: str) -> Path:
    from_environment = os.environ.get(variable, "")
    given = str(option) if option is not None else from_environment
    remedy = f"Give {flag} DIR or set {variable} to an existing directory. `{get} {flag} DIR` fills one."
    if not given:
        raise MissingAssetError(what, looked_in=[f"{flag} (not given)", f"{variable} (not set)"], remedy=remedy)
    root = Path(given).expanduser()
    if not root.is_dir():
        source = flag if option is not None else variable
        raise MissingAssetError(what, looked_in=[f"{root} (from {source}; no such directory)"], remedy=remedy)
    return root
