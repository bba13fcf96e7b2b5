"""The one training loop: for each step a batch, for each player a loss, its gradients and an optimiser step.

Every draw of step t comes from (seed, t, rank), every learning rate from t in closed form, and the checkpoint holds the
rest; so a run that is killed anywhere and resumed ends with the weights of an uninterrupted one, bit for bit, on the
same device kind with the same number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ppfr.core import CheckpointError, ImageSet, InvalidInputError, derive_seed
from ppfr.training._batches import BatchSource, DecodedBatch, to_device
from ppfr.training._checkpoint import (
    check_configuration,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from ppfr.training._devices import deterministic_kernels, device_name, fabric_notes_unheard, peak_memory_bytes
from ppfr.training._history import LossHistory
from ppfr.training._objective import Batch, Objective, Player, as_json, check_players
from ppfr.training._optimiser_state import optimiser_tensors, restore_optimiser
from ppfr.training._plan import Plan
from ppfr.training._progress import LossLog, ProgressReport
from ppfr.training._ranks import average_buffers, average_gradients
from ppfr.training._record import FitRecord

_READ_LOSSES_EVERY = {"cuda": 20}


@dataclasses.dataclass(slots=True, kw_only=True)
class Job:
    """Everything of a run but the objective and the device.

    Attributes:
        configuration: what a checkpoint must agree with.
        data: facts of the training set.
    """

    images: ImageSet
    plan: Plan
    seed: int
    run_dir: Path | None
    is_resumed: bool
    shows_progress: bool
    with_tensorboard: bool
    configuration: dict[str, Any]
    data: dict[str, Any]

    @property
    def checkpoints(self) -> Path | None:
        """Where the checkpoints are."""
        return None if self.run_dir is None else self.run_dir / "checkpoints"


class Loop:
    """One process's part of a run."""

    def __init__(self, fabric: Fabric, objective: Objective, job: Job) -> None:
        self._fabric, self._objective, self._job, self._plan = fabric, objective, job, job.plan
        self._device = fabric.device
        self._prepare_objective()
        self._players = objective.players()
        check_players(objective, self._players)
        self._wake_players()
        self._optimisers: dict[str, Any] = {
            player.name: fabric.setup_optimizers(player.make_optimiser()) for player in self._players
        }
        self._source = BatchSource(
            job.images, plan=job.plan, seed=job.seed, rank=fabric.global_rank, num_ranks=fabric.world_size
        )
        self._history = LossHistory(
            plan=job.plan,
            num_steps=self._source.num_steps,
            read_every=_READ_LOSSES_EVERY.get(self._device.type, 1),
            rates={player.name: player.lr for player in self._players},
            charted=[player.name for player in self._players if player.is_charted],
        )
        self._first_step, self._earlier_s = 0, 0.0
        self._resumed_at: list[int] = []

    def _prepare_objective(self) -> None:
        objective = self._objective
        if self._plan.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(objective)
        objective.to(self._device)
        if self._plan.channels_last:
            nn.Module.to(objective, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective.freeze()
        objective.train()

    def run(self) -> FitRecord:
        """Train from the beginning, or from the last checkpoint, to the end."""
        if self._job.is_resumed:
            self._restore()
        is_first = self._fabric.is_global_zero
        log = self._open_log() if is_first else None
        report = ProgressReport(
            is_shown=self._job.shows_progress and is_first,
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
        self._objective.zero_grad(set_to_none=True)
        self._wake_players()
        return self._record()

    def _wake_players(self) -> None:
        """Every player's parameters learn, unless `begin_step` puts some to rest; none is left so after the run."""
        for player in self._players:
            for parameter in player.all_parameters():
                parameter.requires_grad_(True)

    def _open_log(self) -> LossLog | None:
        if self._job.run_dir is None:
            return None
        return LossLog(
            self._job.run_dir,
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
            self._objective.begin_step(step, progress)
            for player in self._players:
                if step % player.every_steps:
                    continue
                terms = self._turn(player, batch, rng=rng, progress=progress, factor=factor)
                losses |= {f"{player.name}/{term}": value for term, value in terms.items()}
            average_buffers(self._fabric, self._objective)
            self._objective.end_step(step, progress)
        self._history.add(step, losses)

    def _turn(
        self, player: Player, batch: Batch, *, rng: torch.Generator, progress: float, factor: float
    ) -> dict[str, Tensor]:
        """One player's loss, gradients and step; nothing reaches the other players."""
        optimiser = self._optimisers[player.name]
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * factor
        with self._others_at_rest(player):
            with self._fabric.autocast():
                terms = self._objective.loss(player.name, batch, rng=rng, progress=progress)
            if "loss" not in terms:
                raise InvalidInputError(
                    f"the objective's loss for player {player.name!r} gives {', '.join(terms) or 'nothing'}; "
                    "'loss' must be among it"
                )
            optimiser.zero_grad(set_to_none=True)
            self._fabric.backward(terms["loss"])
        members = [p for p in player.all_parameters() if p.grad is not None]
        if members:
            average_gradients(self._fabric, members)
            if self._plan.clip_norm is not None:
                self._fabric.clip_gradients(
                    self._objective, optimiser, max_norm=self._plan.clip_norm, error_if_nonfinite=False
                )
            optimiser.step()
        return {name: value.detach() for name, value in terms.items()}

    @contextlib.contextmanager
    def _others_at_rest(self, player: Player) -> Iterator[None]:
        """Parameters of the other players need no gradient within."""
        others = [p for o in self._players if o is not player for p in o.all_parameters() if p.requires_grad]
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
                log.write(number, row, rates={p.name: p.lr * factor for p in self._players})
        report.update(done, rows[-1][1])
        if is_checkpoint and self._fabric.is_global_zero:
            self._save(done)

    def _save(self, done: int) -> None:
        assert self._job.checkpoints is not None
        tensors = {f"model/{name}": value for name, value in self._objective.learned_state().items()}
        for name, optimiser in self._optimisers.items():
            tensors |= {f"optimiser/{name}/{key}": value for key, value in optimiser_tensors(optimiser).items()}
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
        load_learned_state(self._objective, tensors, path=path)
        self._objective.check_restored()
        for name, optimiser in self._optimisers.items():
            restore_optimiser(optimiser, tensors, prefix=f"optimiser/{name}/", path=path)
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
            objective=self._job.configuration["objective"],
            plan=self._plan.as_dict(),
            data=self._job.data,
            seed=self._job.seed,
            steps=self._source.num_steps,
            images_seen=seen,
            wall_s=wall_s,
            images_per_s=seen / max(wall_s, 1e-9),
            losses=self._history.final(),
            curve=self._history.curve(),
            outcome=as_json(self._objective.outcome()),
            device=str(self._device),
            device_name=device_name(self._device),
            num_devices=self._fabric.world_size,
            precision=self._plan.precision,
            peak_memory_bytes=peak_memory_bytes(self._device),
            num_parameters={p.name: sum(q.numel() for q in p.all_parameters()) for p in self._players},
            resumed_at_steps=list(self._resumed_at),
        )


def run_loop(fabric: Fabric, objective: Objective, job: Job) -> FitRecord:
    """Train in this process."""
    with fabric_notes_unheard(), deterministic_kernels(job.plan.is_deterministic):
        return Loop(fabric, objective, job).run()


def load_learned_state(objective: Objective, tensors: dict[str, Tensor], *, path: Path) -> None:
    """Put a checkpoint's weights into the objective.

    Raises:
        CheckpointError: other names or shapes: it is another model's checkpoint.
    """
    held = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    wanted = objective.learned_state()
    odd = sorted(held.keys() ^ wanted.keys())
    odd += [name for name in sorted(held.keys() & wanted.keys()) if held[name].shape != wanted[name].shape]
    if odd:
        shown = ", ".join(odd[:5])
        raise CheckpointError(
            f"{path} holds another model: {len(odd)} tensors differ in name or shape ({shown}...); "
            "choose another run directory"
        )
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(held[name])


@contextlib.contextmanager
def _global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators within, for dropout and the like; the caller's are as before afterwards."""
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
