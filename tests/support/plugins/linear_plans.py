from ppfr.attacks import masked_images_threat
from ppfr.core import AttackRole
from ppfr.evaluation import ImageAttackPlan

from .linear_recovery import LinearRecovery


def linear_plan(system: str, *, recogniser: str, role: AttackRole = "attack") -> ImageAttackPlan:
    """Linear recovery of one system's masked images by an adversary who knows the secret, if there is one."""
    return ImageAttackPlan(
        name=f"linear-{system}",
        label="Linear recovery",
        system=system,
        make=lambda options: LinearRecovery(knows_secret=True),
        granted=masked_images_threat(knows_secret=True),
        recogniser=recogniser,
        role=role,
    )
