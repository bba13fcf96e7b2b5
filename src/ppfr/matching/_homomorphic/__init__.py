"""Homomorphic matching: one server computes scores that only the key's holder can read."""

from ppfr.matching._homomorphic._key import CkksKey as CkksKey
from ppfr.matching._homomorphic._matcher import CkksMatcher as CkksMatcher
from ppfr.matching._homomorphic._server import CkksServer as CkksServer
