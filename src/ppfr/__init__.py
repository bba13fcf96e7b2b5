"""Privacy-preserving face recognition: mask, train, recognise, attack, report."""

from importlib.metadata import version as _version

__version__ = _version("ppfr")
