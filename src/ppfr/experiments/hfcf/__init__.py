"""HFCF's ablation, its identity mapping, 1:N and secure matching."""

from ppfr.experiments.hfcf._ablation import ablation as ablation
from ppfr.experiments.hfcf._secure_decisions import secure_decisions as secure_decisions
from ppfr.experiments.hfcf._smpc import smpc as smpc
from ppfr.experiments.hfcf._templates import mapping as mapping
from ppfr.experiments.hfcf._templates import one_to_n as one_to_n
