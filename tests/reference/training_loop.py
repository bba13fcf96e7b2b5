"""A plain training loop: the computation of `fit` for one optimizer group in full precision."""

from __future__ import annotations

import math

import numpy as np
import torch

from ppfr.core import derive_seed
from ppfr.training import Batch


def train_plainly(task, images, *, epochs, batch_size, warmup_steps, clip_norm, flip, seed):
    subjects = sorted(set(images.subject_ids))
    labels = torch.tensor([subjects.index(s) for s in images.subject_ids])
    task.train()
    (settings,) = task.optimizer_groups()
    decayed = [p for p in settings.parameters if p.ndim >= 2]
    plain = [p for p in settings.parameters if p.ndim < 2]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.lr,
        momentum=settings.momentum,
    )
    steps_per_epoch = len(images) // batch_size
    num_steps = epochs * steps_per_epoch
    for step in range(num_steps):
        if step < warmup_steps:
            rate = settings.lr * (step + 1) / warmup_steps
        else:
            rate = settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        order = torch.Generator().manual_seed(derive_seed(seed, "pass", step // steps_per_epoch))
        place = step % steps_per_epoch
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
        task.begin_step(step, step / num_steps)
        optimizer.zero_grad()
        task.loss(settings.name, batch, rng=rng, progress=step / num_steps)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(decayed + plain, clip_norm)
        optimizer.step()
    task.eval()
