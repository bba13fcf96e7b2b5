"""Secure matching: decisions on embeddings that no single server can read."""

from ppfr.matching._secure._answers import Answer as Answer
from ppfr.matching._secure._answers import Query as Query
from ppfr.matching._secure._answers import ask as ask
from ppfr.matching._secure._answers import open_answers as open_answers
from ppfr.matching._secure._changes import Change as Change
from ppfr.matching._secure._changes import Enrolment as Enrolment
from ppfr.matching._secure._changes import Removal as Removal
from ppfr.matching._secure._changes import State as State
from ppfr.matching._secure._changes import settle as settle
from ppfr.matching._secure._channel import Channel as Channel
from ppfr.matching._secure._channel import InMemoryChannel as InMemoryChannel
from ppfr.matching._secure._fixed_point import FixedPoint as FixedPoint
from ppfr.matching._secure._keystream import PairwiseKeys as PairwiseKeys
from ppfr.matching._secure._party import Party as Party
from ppfr.matching._secure._party import Traffic as Traffic
from ppfr.matching._secure._products import NumbaProducts as NumbaProducts
from ppfr.matching._secure._products import RingProducts as RingProducts
from ppfr.matching._secure._products import TorchProducts as TorchProducts
from ppfr.matching._secure._share_store import ShareStore as ShareStore
from ppfr.matching._secure._sharing import SharedRows as SharedRows
from ppfr.matching._secure._sharing import SharedThreshold as SharedThreshold
from ppfr.matching._secure._sharing import reconstruct_rows as reconstruct_rows
from ppfr.matching._secure._sharing import share_rows as share_rows
from ppfr.matching._secure._sharing import share_threshold as share_threshold
from ppfr.matching._secure._three_parties import ThreePartyMatcher as ThreePartyMatcher
