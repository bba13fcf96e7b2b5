"""Named sizes of trained attacks, so that all protections are attacked with equal compute budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

PresetName = Literal["fast-test", "demo", "laptop", "paper", "paper-long", "paper-synthetic"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttackPreset:
    """One named size of a trained attack.

    Attributes:
        epochs: number of epochs of its training.
        options: constructor arguments that differ from the defaults: widths and depths of its networks.
    """

    epochs: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def presets(
    *,
    small: Mapping[str, Any],
    wide: Mapping[str, Any],
    epochs: Mapping[PresetName, int],
    demo: Mapping[str, Any] | None = None,
    laptop: Mapping[str, Any] | None = None,
) -> Mapping[str, AttackPreset]:
    """The presets of one attack.

    Args:
        small: options of "fast-test", whose results are meaningless.
        wide: options of the presets at the papers' size.
        epochs: number of epochs by preset.
        demo: options of "demo".
        laptop: options of "laptop".
    """
    options = {"fast-test": small, "demo": demo or {}, "laptop": laptop or {}}
    return {name: AttackPreset(epochs=epochs[name], options=options.get(name, wide)) for name in PRESET_NAMES}
