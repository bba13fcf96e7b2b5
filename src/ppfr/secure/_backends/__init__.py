"""Secure matchers by other libraries, each party in a process of its own."""

from ppfr.secure._backends._libraries import Mpyc as Mpyc
from ppfr.secure._backends._libraries import Spu as Spu
from ppfr.secure._backends._process_matcher import LinkTraffic as LinkTraffic
from ppfr.secure._backends._process_matcher import ProcessMatcher as ProcessMatcher
