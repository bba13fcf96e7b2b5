"""Records with made-up figures, and shortcuts to the output of sections."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ppfr.core import Record
from ppfr.report import Entry, Finding, RecordView, Section
from support import made_records


@pytest.fixture
def made_record() -> Record:
    """See `support.made_records`."""
    return made_records.made_record()


@pytest.fixture
def mixing_record() -> Record:
    """See `support.made_records`."""
    return made_records.mixing_record()


@dataclasses.dataclass(frozen=True)
class Read:
    """Shortcuts to a made-up record and to the output of sections."""

    def row(self, record: Record, kind: str, **where: Any) -> Any:
        found = RecordView(record).row(kind, **where)
        assert found is not None
        return found

    def headline(self, record: Record, *sections: Section) -> str:
        return " ".join(words for s in sections for words in s.headline(RecordView(record))).replace("\u00a0", " ")

    def findings(self, record: Record, *sections: Section) -> list[Finding]:
        view = RecordView(record)
        return [finding for s in sections if s.is_shown(view) for finding in s.findings(view)]

    def system(self, record: Record, name: str) -> Entry:
        return RecordView(record).system(name)


@pytest.fixture
def read() -> Read:
    return Read()
