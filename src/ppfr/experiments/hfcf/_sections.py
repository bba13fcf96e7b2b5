"""Sections of the report for the HFCF paper."""

from __future__ import annotations

from ppfr.experiments.hfcf._stage_costs import StageCosts
from ppfr.report import Section

SECTIONS: tuple[Section, ...] = (StageCosts(),)
"""The cost of each stage."""
