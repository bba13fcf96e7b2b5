"""Sections of the report that belong to one paper each."""

from __future__ import annotations

from ppfr.experiments import adamixup
from ppfr.report import Section

SECTIONS: tuple[Section, ...] = (*adamixup.SECTIONS,)
"""All of them; each is shown only where a record has what it needs."""
