"""Renders result records as one self-contained HTML page, which consists of sections.

Callers can add sections: `write_report(paths, page, sections=(*SECTIONS, MySection()))`.
"""

from ppfr.report import _charts as charts
from ppfr.report._blocks import Bar as Bar
from ppfr.report._blocks import Bars as Bars
from ppfr.report._blocks import Block as Block
from ppfr.report._blocks import Card as Card
from ppfr.report._blocks import Cards as Cards
from ppfr.report._blocks import Charts as Charts
from ppfr.report._blocks import Code as Code
from ppfr.report._blocks import Details as Details
from ppfr.report._blocks import Drawing as Drawing
from ppfr.report._blocks import Faces as Faces
from ppfr.report._blocks import Facts as Facts
from ppfr.report._blocks import Finding as Finding
from ppfr.report._blocks import Mark as Mark
from ppfr.report._blocks import Picture as Picture
from ppfr.report._blocks import Prose as Prose
from ppfr.report._blocks import Row as Row
from ppfr.report._blocks import Table as Table
from ppfr.report._figures import MISSING as MISSING
from ppfr.report._figures import Figure as Figure
from ppfr.report._figures import plain_figure as plain_figure
from ppfr.report._figures import share_figure as share_figure
from ppfr.report._figures import text_figure as text_figure
from ppfr.report._published import accuracy_measure as accuracy_measure
from ppfr.report._published import published_words as published_words
from ppfr.report._published import value_words as value_words
from ppfr.report._record_view import Entry as Entry
from ppfr.report._record_view import RecordView as RecordView
from ppfr.report._record_view import protocol_words as protocol_words
from ppfr.report._record_view import sees_mixed as sees_mixed
from ppfr.report._report import render_report as render_report
from ppfr.report._report import write_report as write_report
from ppfr.report._section import Section as Section
from ppfr.report._wording import count as count
from ppfr.report._wording import listed as listed
from ppfr.report._wording import number as number
from ppfr.report._wording import percent as percent
from ppfr.report._wording import points as points
from ppfr.report.sections import SECTIONS as SECTIONS

__all__ = ["charts"]
