"""Comparators: probes against a gallery, higher is more alike."""

from ppfr.matching._exact import ExactMatcher as ExactMatcher
from ppfr.matching._gallery import KeyedGallery as KeyedGallery
from ppfr.matching._gallery import new_reference_ids as new_reference_ids
from ppfr.matching._keyed import KeyedMatcher as KeyedMatcher
from ppfr.matching._secure import Answer as Answer
from ppfr.matching._secure import Channel as Channel
from ppfr.matching._secure import FixedPoint as FixedPoint
from ppfr.matching._secure import InMemoryChannel as InMemoryChannel
from ppfr.matching._secure import NumbaProducts as NumbaProducts
from ppfr.matching._secure import PairwiseKeys as PairwiseKeys
from ppfr.matching._secure import Party as Party
from ppfr.matching._secure import Query as Query
from ppfr.matching._secure import RingProducts as RingProducts
from ppfr.matching._secure import SharedRows as SharedRows
from ppfr.matching._secure import SharedThreshold as SharedThreshold
from ppfr.matching._secure import ThreePartyMatcher as ThreePartyMatcher
from ppfr.matching._secure import TorchProducts as TorchProducts
from ppfr.matching._secure import Traffic as Traffic
from ppfr.matching._secure import ask as ask
from ppfr.matching._secure import open_answers as open_answers
from ppfr.matching._secure import reconstruct_rows as reconstruct_rows
from ppfr.matching._secure import share_rows as share_rows
from ppfr.matching._secure import share_threshold as share_threshold
