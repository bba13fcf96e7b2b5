"""Recovery by a conditional GAN (pix2pix): the black-box attack of the frequency-domain papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional

from ppfr.attacks._networks import PatchDiscriminator, RecoveryUNet, num_parameters
from ppfr.attacks._presets import presets
from ppfr.attacks._trained import AttackTask, TrainedAttack
from ppfr.core import AttackResult, ImageMasker, InvalidInputError, derive_seed
from ppfr.models import weights_drawn_from
from ppfr.training import Batch, OptimizerGroup

if TYPE_CHECKING:
    from torch import Tensor

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


@final
class ConditionalGan(TrainedAttack):
    """pix2pix: a U-Net with noise generates a face from the masked image; a patch discriminator rates the pair.

    Args:
        width: generator channels at 112x112 (64 in the papers), doubled at each halving up to `max_width`.
        max_width: maximum number of channels.
        num_blocks: residual blocks per generator level from 28x28 down.
        discriminator_width: channels after the discriminator's first convolution (64 in pix2pix).
        l1_weight: weight of the mean absolute error, relative to the adversarial loss (100 in pix2pix).
        lr: learning rate of both groups' Adam (2e-4 in pix2pix), with betas (0.5, 0.999).
        num_noise_channels: channels of Gaussian noise that are concatenated to the masked image.
        dropout: rate in the generator's decoder during training, the source of noise in pix2pix.
        options: `plan`, `knows_secret`, `aligns_channels`, `run_dir`, `device`, `chunk_size`, `progress`: see
            `TrainedAttack`.

    Threat model:
        Sees masked images; knows the method; trains on faces of other people; with or without the secret.

    References:
        Isola et al. 2017 (pix2pix); PPFR-FD (AAAI 2022) and AdaMixUp attack with "masked data + noise, target
        original". Deviations are listed in docs/methods/conditional-gan.md.
    """

    slug, title = "cgan", "Conditional GAN"
    sizes = presets(
        small={"width": 8, "max_width": 32, "discriminator_width": 8, "num_deployments": 1},
        wide={"width": 64, "max_width": 512, "discriminator_width": 64},
        epochs={"fast-test": 1, "demo": 1, "laptop": 2, "paper": 20, "paper-long": 50, "paper-synthetic": 40},
    )

    def __init__(
        self,
        *,
        width: int = 16,
        max_width: int = 256,
        num_blocks: int = 1,
        discriminator_width: int = 16,
        l1_weight: float = 100.0,
        lr: float = 2e-4,
        num_noise_channels: int = 1,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if discriminator_width < 1 or l1_weight < 0 or lr <= 0 or num_noise_channels < 0 or not 0 <= dropout < 1:
            raise InvalidInputError(
                f"discriminator_width={discriminator_width}, l1_weight={l1_weight}, lr={lr}, "
                f"num_noise_channels={num_noise_channels}, dropout={dropout}; use a width of 1 or more, an l1_weight "
                "of 0 or more, a positive lr, 0 or more noise channels and a dropout rate in [0, 1)"
            )
        self.network = {
            "width": width,
            "max_width": max_width,
            "num_blocks": num_blocks,
            "num_noise_channels": num_noise_channels,
        }
        self.dropout, self.discriminator_width = dropout, discriminator_width
        self.l1_weight, self.lr = l1_weight, lr

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "conditional-gan"

    def public_config(self) -> Mapping[str, Any]:
        """Architecture, losses, optimizer, plan and threat model."""
        return {
            **self._shared_config(),
            "network": {**self.network, "dropout": self.dropout, "discriminator_width": self.discriminator_width},
            "loss": f"GAN (cross-entropy on patches) + {self.l1_weight:g} * L1",
            "optimizer": "adam, betas (0.5, 0.999)",
            "lr": self.lr,
        }

    def _make_task(self, masker: ImageMasker, sample: tuple[Tensor, Tensor], *, seed: int) -> AttackTask:
        shape = masker.spec.out_shape
        with weights_drawn_from(derive_seed(seed, self.name, "weights")):
            generator = RecoveryUNet(shape, **self.network, dropout=self.dropout)
            discriminator = PatchDiscriminator(shape, width=self.discriminator_width)
        generator.set_statistics(*sample)
        discriminator.standardise.set_from(sample[0])
        return GanTask(masker, generator, discriminator, l1_weight=self.l1_weight, lr=self.lr)

    def _act(self, trained: AttackTask, masked_BKPQ: Tensor, *, rng: torch.Generator) -> Tensor:
        assert isinstance(trained, GanTask)
        return trained.generate(masked_BKPQ, rng=rng).clamp(0.0, 1.0)

    def _result(self, rows: Tensor) -> AttackResult:
        return AttackResult(recovered_NCHW=rows, notes=dict(self._facts))


class GanTask(AttackTask):
    """Trains the discriminator to tell real pairs from generated ones, and the generator to fool it."""

    def __init__(
        self,
        masker: ImageMasker,
        generator: RecoveryUNet,
        discriminator: PatchDiscriminator,
        *,
        l1_weight: float,
        lr: float,
    ) -> None:
        super().__init__(masker)
        self.generator, self.discriminator = generator, discriminator
        self.l1_weight, self.lr = l1_weight, lr
        self._masked: Tensor | None = None

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """Discriminator first, generator second, as in pix2pix."""
        return tuple(
            OptimizerGroup(
                name=name,
                parameters=list(network.parameters()),
                optimizer="adam",
                lr=self.lr,
                weight_decay=0.0,
                betas=(0.5, 0.999),
            )
            for name, network in ((DISCRIMINATOR, self.discriminator), (GENERATOR, self.generator))
        )

    def begin_step(self, step: int, progress: float) -> None:
        """Forget the last masked batch. Each batch is masked once, so both groups see the same secret and noise."""
        self._masked = None

    def end_step(self, step: int, progress: float) -> None:
        """Release the masked batch."""
        self._masked = None

    def generate(self, masked_BKPQ: Tensor, *, rng: torch.Generator) -> Tensor:
        """One face per masked image, with noise from `rng`."""
        shape = (len(masked_BKPQ), self.generator.num_noise_channels, *masked_BKPQ.shape[2:])
        noise = torch.randn(shape, generator=rng).to(masked_BKPQ.device) if shape[1] else None
        result: Tensor = self.generator(masked_BKPQ, noise)
        return result

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Cross-entropy on patches for each group, and L1 for the generator."""
        if self._masked is None:
            self._masked = self.masked(batch, rng=rng)
        masked, real = self._masked, batch.images_BCHW
        if group == DISCRIMINATOR:
            with torch.no_grad():
                made = self.generate(masked, rng=rng)
            on_real = _cross_entropy(self.discriminator(masked, real), is_real=True)
            on_made = _cross_entropy(self.discriminator(masked, made), is_real=False)
            return {"loss": 0.5 * (on_real + on_made)}
        made = self.generate(masked, rng=rng)
        l1 = (made - real).abs().mean()
        fooled = _cross_entropy(self.discriminator(masked, made), is_real=True)
        return {"loss": fooled + self.l1_weight * l1, "l1": l1, "fooled": fooled}

    def describe(self) -> dict[str, Any]:
        """The masker's public configuration and the networks' sizes."""
        return {
            "task": "conditional-gan",
            "masker": {"name": self.masker.name, "config": dict(self.masker.public_config())},
            "network": self.generator.sizes,
            "num_parameters": {
                GENERATOR: num_parameters(self.generator),
                DISCRIMINATOR: num_parameters(self.discriminator),
            },
            "l1_weight": self.l1_weight,
            "lr": self.lr,
        }


def _cross_entropy(logits: Tensor, *, is_real: bool) -> Tensor:
    wanted = torch.ones_like(logits) if is_real else torch.zeros_like(logits)
    return functional.binary_cross_entropy_with_logits(logits, wanted)
