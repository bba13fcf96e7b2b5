"""Adversaries: threat models and attacks on masked images. They see protections only through core's contracts."""

from ppfr.attacks._alignment import ChannelAlignment as ChannelAlignment
from ppfr.attacks._conditional_gan import ConditionalGan as ConditionalGan
from ppfr.attacks._fresh_secret import FreshSecret as FreshSecret
from ppfr.attacks._identity_linkage import IdentityLinkage as IdentityLinkage
from ppfr.attacks._threats import masked_images_threat as masked_images_threat
from ppfr.attacks._trained import TrainedAttack as TrainedAttack
from ppfr.attacks._unet_recovery import UNetRecovery as UNetRecovery
