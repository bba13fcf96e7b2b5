"""The workflow of `ppfr report`: renders the page of finished runs again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppfr.experiments import SECTIONS
from ppfr.report import SECTIONS as REPORT_SECTIONS
from ppfr.report import write_report

ALL_SECTIONS = (*REPORT_SECTIONS, *SECTIONS)
"""General sections, and sections that belong to one paper."""


def write_reports(records: Sequence[Path], out_path: Path, *, with_pictures: bool) -> dict[str, Any]:
    """Render the report of one or several records again; see `ppfr.report.write_report`."""
    return {
        "report": str(write_report(list(records), out_path, with_pictures=with_pictures, sections=ALL_SECTIONS)),
        "records": len(records),
    }
