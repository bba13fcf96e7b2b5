"""The sections of the report, one file each."""

from __future__ import annotations

from ppfr.report._section import Section
from ppfr.report.sections.adversaries import Adversaries
from ppfr.report.sections.controls import Controls
from ppfr.report.sections.cost import Cost
from ppfr.report.sections.identification import Identification
from ppfr.report.sections.image_recovery import ImageRecovery
from ppfr.report.sections.oracle_attacks import OracleAttacks
from ppfr.report.sections.provenance import ProvenanceAndData
from ppfr.report.sections.published import Published
from ppfr.report.sections.re_identification import ReIdentification
from ppfr.report.sections.secure_decisions import SecureDecisions
from ppfr.report.sections.secure_searches import SecureSearches
from ppfr.report.sections.template_inversion import TemplateInversion
from ppfr.report.sections.training import Training
from ppfr.report.sections.unlinkability import Unlinkability
from ppfr.report.sections.verification import Verification

SECTIONS: tuple[Section, ...] = (
    Verification(),
    Identification(),
    SecureDecisions(),
    SecureSearches(),
    ReIdentification(),
    ImageRecovery(),
    TemplateInversion(),
    Unlinkability(),
    OracleAttacks(),
    Published(),
    Adversaries(),
    Controls(),
    Cost(),
    Training(),
    ProvenanceAndData(),
)
"""The default sections of a page. Background sections always come last."""
