"""Experiments of the AdaMixUp paper: its tables."""

from ppfr.experiments.adamixup._sections import SECTIONS as SECTIONS
from ppfr.experiments.adamixup._tables import supervision as supervision
from ppfr.experiments.adamixup._tables import table1 as table1
from ppfr.experiments.adamixup._tables import table2 as table2
from ppfr.experiments.adamixup._tables import table3 as table3
