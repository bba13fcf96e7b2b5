"""Adversaries against masked images, templates and matchers, and their threat models."""

from ppfr.attacks._alignment import ChannelAlignment as ChannelAlignment
from ppfr.attacks._conditional_gan import ConditionalGan as ConditionalGan
from ppfr.attacks._decision_recovery import DecisionRecovery as DecisionRecovery
from ppfr.attacks._enrolment_attack import EnrolmentAttack as EnrolmentAttack
from ppfr.attacks._fresh_secret import FreshSecret as FreshSecret
from ppfr.attacks._gallery_attack import GalleryAttack as GalleryAttack
from ppfr.attacks._gallery_attack import Knowledge as Knowledge
from ppfr.attacks._identity_linkage import IdentityLinkage as IdentityLinkage
from ppfr.attacks._identity_regression import IdentityRegression as IdentityRegression
from ppfr.attacks._known_plaintext import KnownPlaintextRecovery as KnownPlaintextRecovery
from ppfr.attacks._known_plaintext import known_pair_threat as known_pair_threat
from ppfr.attacks._mapping_inversion import MappingInversion as MappingInversion
from ppfr.attacks._mapping_inversion import templates_threat as templates_threat
from ppfr.attacks._matched_filter import MatchedFilter as MatchedFilter
from ppfr.attacks._oracle_threats import oracle_threat as oracle_threat
from ppfr.attacks._presets import AttackPreset as AttackPreset
from ppfr.attacks._score_recovery import ScoreRecovery as ScoreRecovery
from ppfr.attacks._score_recovery import cosine_scores as cosine_scores
from ppfr.attacks._threats import masked_images_threat as masked_images_threat
from ppfr.attacks._trained import TrainedAttack as TrainedAttack
from ppfr.attacks._unet_recovery import UNetRecovery as UNetRecovery
