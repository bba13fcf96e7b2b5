"""Other libraries as secure matchers, each in processes of its own."""

from ppfr.matching._backends._libraries import Mpyc as Mpyc
from ppfr.matching._backends._libraries import Spu as Spu
from ppfr.matching._backends._process_matcher import LinkTraffic as LinkTraffic
from ppfr.matching._backends._process_matcher import ProcessMatcher as ProcessMatcher
