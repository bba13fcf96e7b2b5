"""Channel analysis of the PPFR-FD paper."""

from ppfr.experiments.ppfr_fd._channel_analysis import ANALYSIS_PRESETS as ANALYSIS_PRESETS
from ppfr.experiments.ppfr_fd._channel_analysis import analyse_channels as analyse_channels
