"""The contract of a section: everything that the page shows for some kinds of results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ppfr.report._blocks import Block, Drawing, Finding
from ppfr.report._figures import Figure
from ppfr.report._record_view import RecordView


class Section(ABC):
    """Renders some kinds of result rows. Several sections may read the same kind.

    A section may raise KeyError, TypeError and similar errors for damaged rows. They are converted into an error that
    names the record and the kinds.

    Attributes:
        kinds: kinds of result rows that it renders.
        title: heading; also used above its columns of the summary and in the contents.
        anchor: id of its heading, lower case with hyphens.
        terms: glossary: term -> explanation.
        rules: how it turns figures into words.
        is_background: whether it explains how the figures were made. Background sections come last.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str]
    anchor: ClassVar[str]
    terms: ClassVar[Mapping[str, str]] = {}
    rules: ClassVar[str] = ""
    is_background: ClassVar[bool] = False

    def is_shown(self, view: RecordView) -> bool:
        """Whether the section is on the page: the record has rows of its kinds, or it needs none."""
        return not self.kinds or any(view.rows(kind) for kind in self.kinds)

    def headline(self, view: RecordView) -> Iterable[str]:
        """Sentences for the head of the page."""
        return ()

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Statements for the head of the page."""
        return ()

    def facts(self, view: RecordView) -> Iterable[tuple[str, str]]:
        """Pairs of name and text for the head of the page."""
        return ()

    def columns(self, view: RecordView) -> Sequence[str]:
        """Its columns of the summary table."""
        return ()

    def cells(self, view: RecordView, system: Mapping[str, Any]) -> Sequence[Figure]:
        """The cells of a system in the summary table, one per column."""
        return ()

    def charts(self, view: RecordView) -> Iterable[Drawing]:
        """Charts below the summary table."""
        return ()

    @abstractmethod
    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The body of the section. If there are no blocks, its heading is omitted."""
