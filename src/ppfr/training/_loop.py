"""The training loop: one batch per step, then loss, gradients and optimizer step of each optimizer group.

Resuming is exact. Every random draw of step t comes from (seed, t, rank), every learning rate is a closed-form function
of t, and the checkpoint holds the rest. A run that is killed at any step and resumed therefore ends with the same
weights as an uninterrupted run, bit for bit, on the same kind of device with the same number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ppfr.core import CheckpointError, ImageSet, InvalidInputError, RunOptions, as_json, derive_seed
from ppfr.training._batches import BatchSource, DecodedBatch, to_device
from ppfr.training._checkpoint import (
    check_configuration,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from ppfr.training._devices import deterministic_kernels, device_name, ignored_fabric_warnings, peak_memory_bytes
from ppfr.training._history import LossHistory
from ppfr.training._optimizer_state import optimizer_tensors, restore_optimizer
from ppfr.training._plan import Plan
from ppfr.training._progress import LossLog, ProgressReport
from ppfr.training._ranks import average_buffers, average_gradients
from ppfr.training._record import FitRecord
from ppfr.training._task import Batch, OptimizerGroup, TrainingTask, check_optimizer_groups

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_READ_LOSSES_EVERY = {"cuda": 20}


@dataclasses.dataclass(slots=True, kw_only=True)
class Job:
    """The inputs of a run, except the task.

    Attributes:
        configuration: the configuration that a checkpoint must match.
        data: name, counts and checksums of the training set.
    """

    images: ImageSet
    plan: Plan
    seed: int
    options: RunOptions
    with_tensorboard: bool
    configuration: dict[str, Any]
    data: dict[str, Any]

    @property
    def checkpoints(self) -> Path | None:
        """Directory of the checkpoints, or None without a run directory."""
        return None if self.options.run_dir is None else self.options.run_dir / "checkpoints"


class Loop:
    """The part of a run that one process computes."""

    def __init__(self, fabric: Fabric, task: TrainingTask, job: Job) -> None:
        self._fabric, self._task, self._job, self._plan = fabric, task, job, job.plan
        self._device = fabric.device
        self._prepare_task()
        self._groups = task.optimizer_groups()
        check_optimizer_groups(task, self._groups)
        self._enable_gradients()
        self._optimizers: dict[str, Any] = {
            group.name: fabric.setup_optimizers(group.make_optimizer()) for group in self._groups
        }
        self._source = BatchSource(
            job.images, plan=job.plan, seed=job.seed, rank=fabric.global_rank, num_ranks=fabric.world_size
        )
        self._history = LossHistory(
            plan=job.plan,
            num_steps=self._source.num_steps,
            read_every=_READ_LOSSES_EVERY.get(self._device.type, 1),
            rates={group.name: group.lr for group in self._groups},
            charted=[group.name for group in self._groups if group.is_charted],
        )
        self._first_step, self._earlier_s = 0, 0.0
        self._resumed_at: list[int] = []

    def _prepare_task(self) -> None:
        task = self._task
        if self._plan.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(task)
        task.to(self._device)
        if self._plan.channels_last:
            nn.Module.to(task, memory_format=torch.channels_last)  # type: ignore[call-overload]
        task.freeze()
        task.train()

    def run(self) -> FitRecord:
        """Train to the end, from the beginning or from the last checkpoint."""
        if self._job.options.resumes:
            self._restore()
        is_first = self._fabric.is_global_zero
        log = self._open_log() if is_first else None
        report = ProgressReport(
            is_shown=self._job.options.shows_progress and is_first,
            num_steps=self._source.num_steps,
            done=self._first_step,
            batch_size=self._plan.batch_size,
            label=f"training on {self._job.images.name}",
        )
        self._began = time.perf_counter()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        stream = self._source.stream(self._first_step)
        try:
            with report, contextlib.closing(stream):
                for decoded in stream:
                    self._step(decoded)
                    self._after_step(decoded.step, log, report)
        finally:
            if log is not None:
                log.close()
        self._task.zero_grad(set_to_none=True)
        self._enable_gradients()
        return self._record()

    def _enable_gradients(self) -> None:
        """Make every parameter of every group require gradients; `begin_step` may freeze some during the run."""
        for group in self._groups:
            for parameter in group.all_parameters():
                parameter.requires_grad_(True)

    def _open_log(self) -> LossLog | None:
        if self._job.options.run_dir is None:
            return None
        return LossLog(
            self._job.options.run_dir,
            first_step=self._first_step,
            every_steps=self._plan.log_every_steps,
            with_tensorboard=self._job.with_tensorboard,
        )

    def _step(self, decoded: DecodedBatch) -> None:
        step = decoded.step
        progress = step / self._source.num_steps
        seed = derive_seed(self._job.seed, "step", step, self._fabric.global_rank)
        rng = torch.Generator().manual_seed(seed)
        factor = self._plan.rate_factor(step, num_images=len(self._job.images))
        losses: dict[str, Tensor] = {}
        with _global_draws(derive_seed(seed, "global"), self._device):
            batch = to_device(decoded, device=self._device, plan=self._plan, rng=rng)
            self._task.begin_step(step, progress)
            for group in self._groups:
                if step % group.every_steps:
                    continue
                terms = self._update(group, batch, rng=rng, progress=progress, factor=factor)
                losses |= {f"{group.name}/{term}": value for term, value in terms.items()}
            average_buffers(self._fabric, self._task)
            self._task.end_step(step, progress)
        self._history.add(step, losses)

    def _update(
        self, group: OptimizerGroup, batch: Batch, *, rng: torch.Generator, progress: float, factor: float
    ) -> dict[str, Tensor]:
        """Loss, gradients and optimizer step of one group. The other groups receive no gradients."""
        optimizer = self._optimizers[group.name]
        for torch_group in optimizer.param_groups:
            torch_group["lr"] = torch_group["full_lr"] * factor
        with self._without_gradients_of_others(group):
            with self._fabric.autocast():
                terms = self._task.loss(group.name, batch, rng=rng, progress=progress)
            if "loss" not in terms:
                raise InvalidInputError(
                    f"the task returned {', '.join(terms) or 'nothing'} as the losses of optimizer group "
                    f"{group.name!r}; return a dict with the key 'loss'"
                )
            optimizer.zero_grad(set_to_none=True)
            self._fabric.backward(terms["loss"])
        members = [p for p in group.all_parameters() if p.grad is not None]
        if members:
            average_gradients(self._fabric, members)
            if self._plan.clip_norm is not None:
                self._fabric.clip_gradients(
                    self._task, optimizer, max_norm=self._plan.clip_norm, error_if_nonfinite=False
                )
            optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    @contextlib.contextmanager
    def _without_gradients_of_others(self, group: OptimizerGroup) -> Iterator[None]:
        """Within the block, the parameters of the other groups do not require gradients."""
        others = [p for o in self._groups if o is not group for p in o.all_parameters() if p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def _after_step(self, step: int, log: LossLog | None, report: ProgressReport) -> None:
        done = step + 1
        is_last = done == self._source.num_steps
        every = self._plan.checkpoint_every_steps
        is_checkpoint = self._job.checkpoints is not None and (is_last or (every > 0 and done % every == 0))
        if not (is_last or is_checkpoint or self._history.is_due()):
            return
        rows = self._history.read()
        for number, row in rows:
            if log is not None:
                factor = self._plan.rate_factor(number, num_images=len(self._job.images))
                log.write(number, row, rates={p.name: p.lr * factor for p in self._groups})
        report.update(done, rows[-1][1])
        if is_checkpoint and self._fabric.is_global_zero:
            self._save(done)

    def _save(self, done: int) -> None:
        assert self._job.checkpoints is not None
        tensors = {f"model/{name}": value for name, value in self._task.learned_state().items()}
        for name, optimizer in self._optimizers.items():
            tensors |= {f"optimiser/{name}/{key}": value for key, value in optimizer_tensors(optimizer).items()}
        facts = {
            "step": done,
            "configuration": self._job.configuration,
            "scaler": self._fabric.strategy.precision.state_dict(),
            "history": self._history.state(),
            "wall_s": self._elapsed_s(),
            "resumed_at_steps": self._resumed_at,
        }
        save_checkpoint(self._job.checkpoints, step=done, tensors=tensors, facts=facts)

    def _restore(self) -> None:
        assert self._job.checkpoints is not None
        found = find_checkpoints(self._job.checkpoints)
        if not found:
            return
        path = found[-1]
        tensors, facts = load_checkpoint(path)
        check_configuration(self._job.configuration, facts["configuration"], path=path)
        load_learned_state(self._task, tensors, path=path)
        self._task.check_restored()
        for name, optimizer in self._optimizers.items():
            restore_optimizer(optimizer, tensors, prefix=f"optimiser/{name}/", path=path)
        self._fabric.strategy.precision.load_state_dict(facts["scaler"])
        self._history.load(facts["history"])
        self._first_step, self._earlier_s = int(facts["step"]), float(facts["wall_s"])
        self._resumed_at = list(facts["resumed_at_steps"])
        if self._first_step < self._source.num_steps:
            self._resumed_at.append(self._first_step)

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.perf_counter() - self._began

    def _record(self) -> FitRecord:
        wall_s = self._elapsed_s() if self._first_step < self._source.num_steps else self._earlier_s
        seen = self._source.num_steps * self._plan.batch_size
        return FitRecord(
            task=self._job.configuration["task"],
            plan=self._plan.as_dict(),
            data=self._job.data,
            seed=self._job.seed,
            steps=self._source.num_steps,
            images_seen=seen,
            wall_s=wall_s,
            images_per_s=seen / max(wall_s, 1e-9),
            losses=self._history.final(),
            curve=self._history.curve(),
            outcome=as_json(self._task.outcome()),
            device=str(self._device),
            device_name=device_name(self._device),
            num_devices=self._fabric.world_size,
            precision=self._plan.precision,
            peak_memory_bytes=peak_memory_bytes(self._device),
            num_parameters={p.name: sum(q.numel() for q in p.all_parameters()) for p in self._groups},
            resumed_at_steps=list(self._resumed_at),
        )


def run_loop(fabric: Fabric, task: TrainingTask, job: Job) -> FitRecord:
    """Train in this process."""
    with ignored_fabric_warnings(), deterministic_kernels(job.plan.is_deterministic):
        return Loop(fabric, task, job).run()


def load_learned_state(task: TrainingTask, tensors: dict[str, Tensor], *, path: Path) -> None:
    """Copy the weights of a checkpoint into the task.

    Raises:
        CheckpointError: names or shapes differ, so the checkpoint belongs to another model.
    """
    held = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    wanted = task.learned_state()
    odd = sorted(held.keys() ^ wanted.keys())
    odd += [name for name in sorted(held.keys() & wanted.keys()) if held[name].shape != wanted[name].shape]
    if odd:
        shown = ", ".join(odd[:5])
        raise CheckpointError(
            f"{path} belongs to another model: {len(odd)} tensors differ in name or shape ({shown}...). "
            "Choose another run directory"
        )
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(held[name])


@contextlib.contextmanager
def _global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators within the block (for dropout), and restore their state afterwards."""
    on_cuda = [device.index or 0] if device.type == "cuda" else []
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=on_cuda):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.default_generators[on_cuda[0]].manual_seed(seed)
        if on_mps is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if on_mps is not None:
                torch.mps.set_rng_state(on_mps)
