"""Pure tensor functions on images and frequency channels: colour, block DCT and inverse, channel sets, FFT filters."""

from ppfr.frequency._block import block_dct as block_dct
from ppfr.frequency._block import inverse_block_dct as inverse_block_dct
from ppfr.frequency._checks import check_unit_range as check_unit_range
from ppfr.frequency._colour import luma as luma
from ppfr.frequency._colour import rgb_to_ycbcr as rgb_to_ycbcr
from ppfr.frequency._colour import ycbcr_to_rgb as ycbcr_to_rgb
from ppfr.frequency._dct import dct_matrix as dct_matrix
from ppfr.frequency._dct import lowest_channels as lowest_channels
from ppfr.frequency._dct import zigzag as zigzag
from ppfr.frequency._fft import fft_filter as fft_filter
from ppfr.frequency._memory import empty_large as empty_large
from ppfr.frequency._strongest import bdct_upsampled_strongest as bdct_upsampled_strongest
from ppfr.frequency._strongest import strongest_colour as strongest_colour
from ppfr.frequency._upsampled import bdct_upsampled as bdct_upsampled
from ppfr.frequency._upsampled import inverse_bdct_upsampled as inverse_bdct_upsampled
