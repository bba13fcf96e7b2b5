"""Sections of the report that belong to the experiments of one paper."""

from __future__ import annotations

from ppfr.experiments import adamixup, hfcf
from ppfr.report import Section

SECTIONS: tuple[Section, ...] = (*adamixup.SECTIONS, *hfcf.SECTIONS)
"""All such sections. Each is shown only for records with the results that it needs."""
