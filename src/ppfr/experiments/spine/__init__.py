"""Experiments with one protection end to end, on LFW, CFP and synthetic faces."""

from ppfr.experiments.spine._experiments import REAL_BUDGETS as REAL_BUDGETS
from ppfr.experiments.spine._experiments import RECOGNISER as RECOGNISER
from ppfr.experiments.spine._experiments import TEACHER as TEACHER
from ppfr.experiments.spine._experiments import cfp as cfp
from ppfr.experiments.spine._experiments import demo as demo
from ppfr.experiments.spine._experiments import lfw as lfw
