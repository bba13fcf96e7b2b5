"""Recovery by a U-Net with an L1 loss, the strong setting in which recent papers compare protections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from ppfr.attacks._networks import RecoveryUNet, num_parameters
from ppfr.attacks._presets import presets
from ppfr.attacks._trained import AttackTask, TrainedAttack
from ppfr.core import AttackResult, ImageMasker, derive_seed
from ppfr.models import weights_drawn_from
from ppfr.training import Batch, OptimizerGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@final
class UNetRecovery(TrainedAttack):
    """Trains a U-Net to recover plain images from masked ones, with mean absolute error.

    Args:
        width: channels at 112x112, doubled at each halving of the grid. Two cores train 16 in minutes; the papers use
            64.
        max_width: maximum number of channels: 256 on a laptop, 512 or 1024 with `width=64`.
        num_blocks: residual blocks per level from 28x28 down.
        num_fine_blocks: residual blocks at 112x112 and 56x56.
        lr: learning rate of Adam.
        options: `plan`, `knows_secret`, `aligns_channels`, `run_dir`, `device`, `chunk_size`, `progress`: see
            `TrainedAttack`.

    Threat model:
        Sees masked images; knows the method; trains on faces of other people; with or without the secret.

    References:
        The comparison of MinusFace (CVPR 2024, fig. 6) and PartialFace (ICCV 2023, table 3): U-Net, L1, lr 1e-3,
        batch 64, trained to convergence on 1.3 million faces. Deviations are listed in docs/methods/unet-recovery.md.
    """

    slug, title = "unet", "U-Net recovery"
    sizes = presets(
        small={"width": 8, "max_width": 32, "num_deployments": 1},
        wide={"width": 64, "max_width": 1024, "num_blocks": 2, "num_fine_blocks": 1},
        epochs={"fast-test": 1, "demo": 1, "laptop": 2, "paper": 20, "paper-long": 50, "paper-synthetic": 40},
    )

    def __init__(
        self,
        *,
        width: int = 16,
        max_width: int = 256,
        num_blocks: int = 1,
        num_fine_blocks: int = 0,
        lr: float = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.network = {
            "width": width,
            "max_width": max_width,
            "num_blocks": num_blocks,
            "num_fine_blocks": num_fine_blocks,
        }
        self.lr = lr

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "unet-recovery"

    def public_config(self) -> Mapping[str, Any]:
        """Architecture, loss, optimizer, plan and threat model."""
        return {
            **self._shared_config(),
            "network": dict(self.network),
            "loss": "L1",
            "optimizer": "adam",
            "lr": self.lr,
        }

    def _make_task(self, masker: ImageMasker, sample: tuple[Tensor, Tensor], *, seed: int) -> AttackTask:
        with weights_drawn_from(derive_seed(seed, "unet-recovery", "weights")):
            network = RecoveryUNet(masker.spec.out_shape, **self.network)
        network.set_statistics(*sample)
        return RecoveryTask(masker, network, lr=self.lr)

    def _act(self, trained: AttackTask, masked_BKPQ: Tensor, *, rng: torch.Generator) -> Tensor:
        assert isinstance(trained, RecoveryTask)
        result: Tensor = trained.network(masked_BKPQ).clamp(0.0, 1.0)
        return result

    def _result(self, rows: Tensor) -> AttackResult:
        return AttackResult(recovered_NCHW=rows, notes=dict(self._facts))


class RecoveryTask(AttackTask):
    """Mean absolute error between recovered and plain faces."""

    def __init__(self, masker: ImageMasker, network: RecoveryUNet, *, lr: float) -> None:
        super().__init__(masker)
        self.network, self.lr = network, lr

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """One: the U-Net, under Adam."""
        parameters = list(self.network.parameters())
        return (OptimizerGroup(name="recovery", parameters=parameters, optimizer="adam", lr=self.lr, weight_decay=0.0),)

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """L1 between the recovered and the plain face."""
        recovered_BCHW = self.network(self.masked(batch, rng=rng))
        return {"loss": (recovered_BCHW - batch.images_BCHW).abs().mean()}

    def describe(self) -> dict[str, Any]:
        """The masker's public configuration and the network's size."""
        return {
            "task": "unet-recovery",
            "masker": {"name": self.masker.name, "config": dict(self.masker.public_config())},
            "network": self.network.sizes,
            "num_parameters": num_parameters(self.network),
            "lr": self.lr,
        }
