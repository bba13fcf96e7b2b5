"""Experiments of papers: one package per paper, with its tables as functions."""

from typing import TYPE_CHECKING

from ppfr.core import exports_on_use

if TYPE_CHECKING:
    from ppfr.experiments._attack_plans import IMAGE_ATTACKS as IMAGE_ATTACKS
    from ppfr.experiments._attack_plans import attack_matrix as attack_matrix
    from ppfr.experiments._attack_plans import gallery_attacks as gallery_attacks
    from ppfr.experiments._attack_plans import known_plaintext_plans as known_plaintext_plans
    from ppfr.experiments._catalogue import EXPERIMENTS as EXPERIMENTS
    from ppfr.experiments._context import PRESETS as PRESETS
    from ppfr.experiments._context import Budget as Budget
    from ppfr.experiments._context import ExperimentContext as ExperimentContext
    from ppfr.experiments._sections import SECTIONS as SECTIONS
else:
    __getattr__, __dir__ = exports_on_use(
        __name__,
        {
            "_attack_plans": ("IMAGE_ATTACKS", "attack_matrix", "gallery_attacks", "known_plaintext_plans"),
            "_catalogue": ("EXPERIMENTS",),
            "_context": ("PRESETS", "Budget", "ExperimentContext"),
            "_sections": ("SECTIONS",),
        },
    )
