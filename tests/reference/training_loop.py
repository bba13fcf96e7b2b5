"""The loop without anything around it: what `fit` computes for one player in full precision."""

from __future__ import annotations

import math

import numpy as np
import torch

from ppfr.core import derive_seed
from ppfr.training import Batch


def train_plainly(objective, images, *, passes, batch_size, warmup_steps, clip_norm, flip, seed):
    subjects = sorted(set(images.subject_ids))
    labels = torch.tensor([subjects.index(s) for s in images.subject_ids])
    objective.train()
    (player,) = objective.players()
    decayed = [p for p in player.parameters if p.ndim >= 2]
    plain = [p for p in player.parameters if p.ndim < 2]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": player.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=player.lr,
        momentum=player.momentum,
    )
    steps_a_pass = len(images) // batch_size
    num_steps = passes * steps_a_pass
    for step in range(num_steps):
        if step < warmup_steps:
            rate = player.lr * (step + 1) / warmup_steps
        else:
            rate = player.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = torch.Generator().manual_seed(derive_seed(seed, "pass", step // steps_a_pass))
        place = step % steps_a_pass
        chosen = torch.randperm(len(images), generator=order)[place * batch_size : (place + 1) * batch_size]
        step_seed = derive_seed(seed, "step", step, 0)
        rng = torch.Generator().manual_seed(step_seed)
        torch.manual_seed(derive_seed(step_seed, "global"))
        mirrored = torch.rand(batch_size, generator=rng) < flip
        pixels = []
        for index, is_mirrored in zip(chosen.tolist(), mirrored.tolist(), strict=True):
            image = images.read([index])[0]
            pixels.append(image[:, ::-1] if is_mirrored else image)
        values = torch.from_numpy(np.stack(pixels).astype(np.float32)).permute(0, 3, 1, 2).contiguous() / 255
        batch = Batch(images_BCHW=values, labels_B=labels[chosen], indices_B=chosen)
        objective.begin_step(step, step / num_steps)
        optimiser.zero_grad()
        objective.loss(player.name, batch, rng=rng, progress=step / num_steps)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(decayed + plain, clip_norm)
        optimiser.step()
    objective.eval()
