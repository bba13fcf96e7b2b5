"""What the summary row takes from several attacks."""

from __future__ import annotations

from typing import Any

from ppfr.report._view import _leakage_cells


def test_summary_shows_the_likest_picture_of_any_attack(made_record: dict[str, Any]) -> None:
    arm = next(arm for arm in made_record["arms"] if arm["role"] == "protected")
    recovered = [
        attack["outcome"]["recovery"]["recovered"]
        for attack in made_record["attacks"]
        if attack["arm"] == arm["name"] and attack["outcome"] and attack["outcome"]["recovery"]
    ]
    assert len(recovered) > 1
    least_accepted = min(recovered, key=lambda found: found["at_far"]["other_image"]["value"])
    least_accepted["ssim"].update(low=0.93, value=0.94, high=0.95)
    assert _leakage_cells(made_record, arm)["ssim"].main == "0.94"
