"""How a system comes about: training strategies, the catalogue of methods, saving and loading."""

from ppfr.systems._catalogue import IMAGE_SETS as IMAGE_SETS
from ppfr.systems._catalogue import MASKERS as MASKERS
from ppfr.systems._catalogue import PROTOCOLS as PROTOCOLS
from ppfr.systems._catalogue import make_masker as make_masker
from ppfr.systems._catalogue import needs_secret as needs_secret
from ppfr.systems._catalogue import read_images as read_images
from ppfr.systems._catalogue import read_protocol as read_protocol
from ppfr.systems._mixing import AdaptiveMixing as AdaptiveMixing
from ppfr.systems._mixing import FixedMixing as FixedMixing
from ppfr.systems._strategies import HEADS as HEADS
from ppfr.systems._strategies import NETWORKS as NETWORKS
from ppfr.systems._strategies import Distillation as Distillation
from ppfr.systems._strategies import FineTuning as FineTuning
from ppfr.systems._strategies import FromScratch as FromScratch
from ppfr.systems._strategies import TrainingStrategy as TrainingStrategy
from ppfr.systems._system import MaskedSystem as MaskedSystem
from ppfr.systems._system import load_system as load_system
from ppfr.systems._system import read_recogniser as read_recogniser
from ppfr.systems._system import save_system as save_system
