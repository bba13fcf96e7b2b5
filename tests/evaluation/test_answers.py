"""What the report answers to an experiment's questions."""

from __future__ import annotations

from typing import Any

import pytest

from ppfr.report._findings import findings

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.02, -0.01, "stands below"), (0.01, 0.02, "stands above"), (-0.01, 0.02, "is not told apart from")],
)
def test_answers_say_what_the_paired_interval_says(made_record: Json, low: float, high: float, words: str) -> None:
    gap = {**made_record["arms"][1]["protocols"][0]["gap_to_baseline"], "low": low, "high": high, "value": high}
    made_record["questions"] = [
        {"name": "q", "text": "Is it worth it?", "arm": "ppfr-fd", "against": "unprotected", "gaps": {"made": gap}}
    ]
    (found,) = [finding for finding in findings(made_record) if finding.title == "Is it worth it?"]
    assert f"PPFR-FD {words} " in found.text and found.tone == "note"
    made_record["questions"][0]["gaps"] = {}
    assert all(finding.title != "Is it worth it?" for finding in findings(made_record))
