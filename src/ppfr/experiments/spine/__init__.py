"""Experiments with one protection end to end, on LFW, CFP and synthetic faces."""

from ppfr.experiments.spine._experiments import cfp as cfp
from ppfr.experiments.spine._experiments import demo as demo
from ppfr.experiments.spine._experiments import lfw as lfw
