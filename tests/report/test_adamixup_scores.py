"""AdaMixUp scores of a record: the figures that they are computed from, and records without scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ppfr.experiments.adamixup._renderings import WITHOUT, rendered_scores
from ppfr.experiments.adamixup._score_section import ScoreSection
from ppfr.experiments.adamixup._scores import chosen_attack, scored_systems
from ppfr.report import Prose, RecordView, Row, Table

Json = dict[str, Any]


def _scored(record: Json) -> Any:
    return scored_systems(RecordView(record))


def _row(record: Json, kind: str, attack: str) -> Any:
    return next(row for row in record["results"][kind] if row["attack"] == attack)


def _drop(record: Json, kind: str, **where: Any) -> None:
    rows = record["results"][kind]
    record["results"][kind] = [row for row in rows if any(row[name] != value for name, value in where.items())]


def _table(record: Json) -> Table:
    blocks = ScoreSection().blocks(RecordView(record))
    return next(block for block in blocks if isinstance(block, Table))


def _cells(rows: Sequence[Row]) -> list[Any]:
    return [list(row.cells) for row in rows]


def test_scores_follow_the_equations(mixing_record: Json, read: Any) -> None:
    rows = _scored(mixing_record)
    protected = [system["name"] for system in mixing_record["systems"] if system["role"] == "protected"]
    assert [row.system["name"] for row in rows] == protected
    accuracy = lambda name: read.row(mixing_record, "verification", name=name)["accuracy"]["value"]  # noqa: E731
    fused, utility = [], []
    for name in protected:
        recovery = _row(mixing_record, "image_recovery", f"gan-{name}")
        shown, recovered = recovery["masked"], recovery["recovered"]
        s1, s3 = (part["lpips"]["value"] for part in (shown, recovered))
        s2, s4 = (1 - part["identity_cosine"]["value"] for part in (shown, recovered))
        fused.append(0.4 * (s1 + s2) + 0.6 * (s3 + s4))
        utility.append(accuracy(name) / accuracy("unprotected"))
    pp, cls = ((np.array(v) - min(v)) / (max(v) - min(v)) / 2 + 0.5 for v in (fused, utility))
    for row, privacy, kept in zip(rows, pp, cls, strict=True):
        assert row.score.total_mean == pytest.approx((privacy + kept) / 2)
        assert row.score.total_product == pytest.approx(privacy * kept)
        low, high = row.total_ends
        assert low < row.score.total_mean < high


def test_intervals_of_inverted_measures_are_ordered(mixing_record: Json, read: Any) -> None:
    row = _scored(mixing_record)[0]
    cosine = _row(mixing_record, "image_recovery", f"gan-{row.system['name']}")["recovered"]["identity_cosine"]
    gap = read.row(mixing_record, "accuracy_gap", system=row.system["name"])["gap"]
    s4, s5 = row.measures[3], row.measures[4]
    assert (s4.low, s4.value, s4.high) == (1 - cosine["high"], 1 - cosine["value"], 1 - cosine["low"])
    assert s5.low == pytest.approx(1 + gap["low"] / 0.9882)
    assert s5.low < s5.value < s5.high


def test_attack_with_the_secret_is_chosen_and_ambiguous_attacks_are_not(mixing_record: Json) -> None:
    known = next(attack for attack in mixing_record["attacks"] if attack["name"] == "gan-masking")
    without = {**known, "name": "gan-masking-unknown", "secret": "unknown"}
    mixing_record["attacks"].insert(0, without)
    rows = mixing_record["results"]["image_recovery"]
    rows.append({**_row(mixing_record, "image_recovery", "gan-masking"), "attack": "gan-masking-unknown"})

    def chosen(method: str = "conditional-gan") -> Any:
        view = RecordView(mixing_record)
        found = chosen_attack(view, "image_recovery", view.system("masking"), method)
        return None if found is None else found[0]

    assert chosen() is known
    known["secret"] = "none"
    assert chosen() is None
    mixing_record["attacks"].remove(known)
    assert chosen() is without
    assert chosen("another") is None


def test_system_without_all_measures_is_excluded_and_the_page_states_it(mixing_record: Json) -> None:
    lost = ["adaptive-2-6", "mixup-2", "noise"]
    _row(mixing_record, "image_recovery", f"gan-{lost[0]}")["masked"]["lpips"] = None
    _row(mixing_record, "image_recovery", f"gan-{lost[1]}")["masked"] = None
    _drop(mixing_record, "verification", source="system", name=lost[2])
    rows = _scored(mixing_record)
    assert len(rows) == 9
    names = [row.system["name"] for row in rows]
    assert not set(lost) & set(names)
    assert rows[0].score.compared == tuple(names)
    prose = next(block for block in ScoreSection().blocks(RecordView(mixing_record)) if isinstance(block, Prose))
    assert "over the 9 of 12 protected systems" in " ".join(prose.text)


def _add_rendering(record: Json, *, without: str = "") -> None:
    """S1 and S2 of the masked images in reverse order under another rendering."""
    rows = [row for row in record["results"]["image_recovery"] if row["attack"].startswith("gan-") and row["masked"]]
    record["results"]["masked_picture"] = [
        {
            "attack": row["attack"],
            "rendering": "channel-magnitude",
            "lpips": {**row["masked"]["lpips"], "value": 50 * (1 - row["recovered"]["lpips"]["value"])},
            "identity_cosine": row["masked"]["identity_cosine"],
        }
        for row in rows
        if row["attack"] != f"gan-{without}"
    ]


def test_score_is_shown_under_other_renderings_with_the_agreement_of_the_orders(mixing_record: Json) -> None:
    view = RecordView(mixing_record)
    default, alone = rendered_scores(view, scored_systems(view))
    assert (default.rendering, alone.rendering) == ("channel-mean", WITHOUT) and default.tau == pytest.approx(1)
    assert default.scores == {row.system["name"]: row.score.pp for row in scored_systems(view)}
    recovered = {
        row.system["name"]: row.measures[2].value + row.measures[3].value for row in scored_systems(view)
    }  # fmt: skip
    assert sorted(alone.scores, key=alone.scores.__getitem__) == sorted(recovered, key=recovered.__getitem__)
    _add_rendering(mixing_record)
    other = rendered_scores(view, scored_systems(view))[1]
    assert other.rendering == "channel-magnitude" and other.tau < -0.5
    best = max(other.scores, key=other.scores.__getitem__)
    assert other.place(best) == 1 and other.scores[best] == 1
    *_, words, table = ScoreSection().blocks(view)
    assert isinstance(table, Table) and table.columns[1] == "mean of the channels' magnitudes"
    assert isinstance(words, Prose) and "40%" in words.text[0] and "mean of the channels" in words.text[0]


def test_rendering_that_a_system_lacks_is_left_out(mixing_record: Json) -> None:
    _add_rendering(mixing_record, without="masking")
    view = RecordView(mixing_record)
    assert [each.rendering for each in rendered_scores(view, scored_systems(view))] == ["channel-mean", WITHOUT]


def test_one_system_has_no_scores(mixing_record: Json) -> None:
    rows = mixing_record["results"]["image_recovery"]
    mixing_record["results"]["image_recovery"] = [row for row in rows if row["attack"] in ("gan-plain", "gan-masking")]
    assert _scored(mixing_record) == []
    assert not ScoreSection().is_shown(RecordView(mixing_record))


def test_re_identification_rate_is_shown_but_does_not_affect_scores(mixing_record: Json) -> None:
    before = _table(mixing_record)
    _row(mixing_record, "re_identification", "link-masking")["rank_1"].update(value=0.01, low=0.0, high=0.02)
    after = _table(mixing_record)
    assert after.columns[-1].startswith("Re-identification rate")
    for old, new in zip(_cells(before.rows), _cells(after.rows), strict=True):
        assert old[:-1] == new[:-1]
    assert _cells(before.rows)[9][-1].main != _cells(after.rows)[9][-1].main
