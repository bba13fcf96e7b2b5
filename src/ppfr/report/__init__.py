"""Result record -> one self-contained HTML page."""

from ppfr.report._report import render_report as render_report
from ppfr.report._report import write_report as write_report
