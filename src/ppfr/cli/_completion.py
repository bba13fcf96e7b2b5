"""What the tab key offers. Registries are asked when the key is pressed, so that a new method is offered unasked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def offering(get_names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """A completion that offers the names that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in get_names() if name.startswith(incomplete)]

    return complete


def methods() -> tuple[str, ...]:
    """Protections and controls."""
    from ppfr.systems import MASKERS

    return tuple(MASKERS)


def recipes() -> tuple[str, ...]:
    """Recipes, and the word that lists them."""
    from ppfr.experiments import RECIPES

    return (*RECIPES, "list")


def presets() -> tuple[str, ...]:
    """Presets that every recipe has."""
    from ppfr.experiments import PRESETS

    return PRESETS


def analysis_presets() -> tuple[str, ...]:
    """Presets of the channel analysis."""
    from ppfr.experiments.ppfr_fd import ANALYSIS_PRESETS

    return ANALYSIS_PRESETS


def attacks() -> tuple[str, ...]:
    """Attacks."""
    from ppfr.experiments import ATTACK_LABELS

    return tuple(ATTACK_LABELS)


def protocols() -> tuple[str, ...]:
    """Verification protocols."""
    from ppfr.systems import PROTOCOLS

    return PROTOCOLS


def image_sets() -> tuple[str, ...]:
    """Image sets that have a name."""
    from ppfr.systems import IMAGE_SETS

    return IMAGE_SETS


def public_networks() -> tuple[str, ...]:
    """Pretrained networks."""
    from ppfr.models import PRETRAINED

    return tuple(PRETRAINED)


def ways() -> tuple[str, ...]:
    """Ways of training."""
    from ppfr.workflows import WAYS

    return WAYS


def networks() -> tuple[str, ...]:
    """Networks to train from nothing."""
    from ppfr.systems import NETWORKS

    return tuple(NETWORKS)


def heads() -> tuple[str, ...]:
    """Margin heads."""
    from ppfr.systems import HEADS

    return tuple(HEADS)
