"""Result rows that every attack has, whatever it recovers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppfr.core import result_row


@result_row("attack_training")
class AttackTrainingRow:
    """How an attack was trained.

    Attributes:
        attack: name of the attack.
        facts: steps, images, losses; "curve", if present, is a list of [step, loss].
    """

    attack: str
    facts: Mapping[str, Any]


@result_row("attack_run")
class AttackRunRow:
    """One attack that was run on target subjects.

    Attributes:
        attack: name of the attack.
        num_targets: number of target subjects.
        num_images: number of their images or templates that the adversary saw.
        is_control_met: whether a control passed; None for attacks that are not controls.
        notes: facts of the run.
    """

    attack: str
    num_targets: int
    num_images: int
    is_control_met: bool | None
    notes: Mapping[str, Any]
