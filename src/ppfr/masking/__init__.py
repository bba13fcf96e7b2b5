"""Image protections, one file a paper: an aligned face goes in, what leaves the device comes out."""

from ppfr.masking._controls import Constant as Constant
from ppfr.masking._controls import Unprotected as Unprotected
from ppfr.masking._ppfr_fd import PpfrFd as PpfrFd
