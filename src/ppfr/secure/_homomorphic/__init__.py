"""Homomorphic matching: one server computes scores that only the key holder can read."""

from ppfr.secure._homomorphic._key import CkksKey as CkksKey
from ppfr.secure._homomorphic._matcher import CkksMatcher as CkksMatcher
from ppfr.secure._homomorphic._server import CkksServer as CkksServer
