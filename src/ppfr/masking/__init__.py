"""Image protections, one file per method: an aligned face goes in, and what leaves the device comes out."""

from ppfr.masking._controls import Constant as Constant
from ppfr.masking._controls import Unprotected as Unprotected
from ppfr.masking._dctdp import Dctdp as Dctdp
from ppfr.masking._dp_accountant import PrivacyStatement as PrivacyStatement
from ppfr.masking._dp_accountant import state_privacy as state_privacy
from ppfr.masking._eigenfaces import Eigenfaces as Eigenfaces
from ppfr.masking._files import MaskedFile as MaskedFile
from ppfr.masking._files import read_masked as read_masked
from ppfr.masking._files import write_masked as write_masked
from ppfr.masking._frequency_channels import FrequencyChannels as FrequencyChannels
from ppfr.masking._hfcf import Hfcf as Hfcf
from ppfr.masking._laplace_budget import LaplaceBudget as LaplaceBudget
from ppfr.masking._local_binary_patterns import ColourChannels as ColourChannels
from ppfr.masking._mixing import InstaHide as InstaHide
from ppfr.masking._mixing import MixedMasker as MixedMasker
from ppfr.masking._mixing import MixUp as MixUp
from ppfr.masking._mixing import draw_partners as draw_partners
from ppfr.masking._mixing import draw_weights as draw_weights
from ppfr.masking._peep import Peep as Peep
from ppfr.masking._picture import visualise as visualise
from ppfr.masking._ppfr_fd import SECRET_BYTES as SECRET_BYTES
from ppfr.masking._ppfr_fd import PpfrFd as PpfrFd
from ppfr.masking._ppfr_fd import draw_secret as draw_secret
from ppfr.masking._sensitivities import NoisyFrontEnd as NoisyFrontEnd
from ppfr.masking._sensitivities import Sensitivities as Sensitivities
from ppfr.masking._unmix import unmix as unmix
