"""Sections of the report for the AdaMixUp paper."""

from __future__ import annotations

from ppfr.experiments.adamixup._agreement_section import AgreementSection
from ppfr.experiments.adamixup._score_section import ScoreSection
from ppfr.experiments.adamixup._shares_section import SharesSection
from ppfr.report import Section

SECTIONS: tuple[Section, ...] = (ScoreSection(), SharesSection(), AgreementSection())
"""Composite scores, shares of the strategy network, and agreement with the published order."""
