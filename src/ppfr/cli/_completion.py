"""Shell completion of option values that are open-ended or that a registry defines.

Registries are read when the tab key is pressed, so a new method appears without an edit here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

DEVICES = ("auto", "cpu", "cuda", "mps")


def offering(get_names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """A completion function that returns the names with the typed prefix."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in get_names() if name.startswith(incomplete)]

    return complete


def methods() -> tuple[str, ...]:
    """Protections and controls."""
    from ppfr.systems import MASKERS

    return tuple(MASKERS)


def experiments() -> tuple[str, ...]:
    """Experiments, and "list", which lists them."""
    from ppfr.experiments import EXPERIMENTS

    return (*EXPERIMENTS, "list")


def presets() -> tuple[str, ...]:
    """Presets of every experiment."""
    from ppfr.experiments import PRESETS

    return PRESETS


def attacks() -> tuple[str, ...]:
    """Attacks."""
    from ppfr.experiments import IMAGE_ATTACKS

    return tuple(IMAGE_ATTACKS)


def protocols() -> tuple[str, ...]:
    """Verification protocols."""
    from ppfr.systems import PROTOCOLS

    return PROTOCOLS


def image_sets() -> tuple[str, ...]:
    """Named image sets."""
    from ppfr.systems import IMAGE_SETS

    return IMAGE_SETS


def public_networks() -> tuple[str, ...]:
    """Pretrained networks."""
    from ppfr.models import PRETRAINED

    return tuple(PRETRAINED)
