"""The training loop: steps, log lines and checkpoints. It receives model, pairs and loader ready to use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bgaug.data.batch import Batch
from bgaug.data.loader import ClipLoader
from bgaug.errors import BgaugError, CheckpointError, UsageError, WriteError
from bgaug.files import write_bytes
from bgaug.model import ContrastiveLearner
from bgaug.model.backbones.contract import check_finite
from bgaug.model.checkpoint import CHECKPOINTS, check_resumable, load_checkpoint, save_checkpoint, saved_config
from bgaug.pairs import SemiNegativePairs
from bgaug.pipelines.train.optimisation import Optimisation, gradient_norm, make_optimiser
from bgaug.pipelines.train.processes import Processes, StopSignal
from bgaug.pipelines.train.run_folder import LOG, Log, drop_lines_behind, memory_megabytes, plain
from bgaug.text import json_bytes

Line = dict[str, Any]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Keeping:
    """When checkpoints and log lines are written; it does not change the result of a run.

    Attributes:
        every: steps between checkpoints, besides those at the ends of epochs; None for only those.
        keep: number of newest checkpoints that are kept.
        best: also keep the best checkpoint by this number of the epochs; the highest, or after a minus the lowest.
        log_every: steps whose numbers are fetched together, because fetching waits for a GPU.
    """

    every: int | None = None
    keep: int = 2
    best: str | None = None
    log_every: int = 1

    def __post_init__(self) -> None:
        if self.keep < 1 or self.log_every < 1 or (self.every is not None and self.every < 1):
            raise ValueError(f"values must be at least 1, got {self.every = }, {self.keep = }, {self.log_every = }")


@dataclass(frozen=True)
class Trained:
    """State of a run when training stops.

    Attributes:
        steps: number of steps, including those before a resume.
        loss: mean over the last steps (at most 50).
        clips_per_second: clips encoded (all views of a video) per second of this call's steps, of all processes.
        waiting: share of that time spent waiting for data, in [0, 1].
        checkpoint: last checkpoint.
        finished: whether all `total_steps` are done.
        stopped: name of the signal that ended training, or None.
    """

    steps: int
    loss: float
    clips_per_second: float
    waiting: float
    checkpoint: Path
    finished: bool
    stopped: str | None = None


@dataclass
class _Step:
    """One step whose numbers may still be on the device."""

    line: Line
    terms: dict[str, Tensor]
    provenance: list[dict[str, Tensor]] = field(repr=False)


class Trainer:
    """Trains a learner on the pairs of a loader's batches.

    Args:
        learner: the learner, on its device.
        pairs: composes the pairs on the batch's device.
        loader: loads this process's part of each batch, epoch after epoch.
        optimisation: optimiser, learning rate and precision.
        out: folder of the run.
        config: plain JSON values that are stored with every checkpoint.
        keeping: when checkpoints and log lines are written.
        processes: this process and the number of processes; one by default.
        on_step: called for each step with its log line.
        on_epoch: called at the end of each epoch, on the first process; its numbers are logged.

    Attributes:
        step: number of steps done.
        averaged: the encoder's moving average, if there is one.
    """

    def __init__(
        self,
        learner: ContrastiveLearner,
        pairs: SemiNegativePairs,
        loader: ClipLoader,
        optimisation: Optimisation,
        out: Path,
        config: Mapping[str, Any],
        *,
        keeping: Keeping | None = None,
        processes: Processes | None = None,
        on_step: Callable[[Line], None] | None = None,
        on_epoch: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.learner, self.pairs, self.loader = learner, pairs, loader
        self.optimisation, self.out, self.config = optimisation, out, dict(config)
        self.keeping = keeping or Keeping()
        self.device = next(learner.parameters()).device
        self.processes = processes or Processes(self.device)
        self.on_step = on_step or (lambda line: None)
        self.on_epoch = on_epoch
        self.optimiser = make_optimiser(learner, optimisation)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=optimisation.amp == "fp16")
        self.averaged = _average_of(learner.encoder, optimisation.ema) if optimisation.ema else None
        self.model: nn.Module = learner
        if self.processes.world > 1:
            # Statistics are averaged when a checkpoint is written; queues and keys are equal on all processes anyway.
            self.model = DistributedDataParallel(learner, broadcast_buffers=False)
        self.step = 0
        self._best: float | None = None
        self._recent: list[float] = []
        self._pending: list[_Step] = []
        self._seconds = self._waiting = 0.0

    def run(self, stop_after: int | None = None) -> Trained:
        """Train to the end, or for `stop_after` steps; the schedule is that of the whole run in both cases.

        SIGTERM or Ctrl-C ends the run after the current step, with a checkpoint.

        Raises:
            BgaugError: the loss is not finite, or out of memory.
        """
        self.learner.train()
        first, last = self.step, self.optimisation.total_steps
        if stop_after is not None:
            last = min(last, self.step + stop_after)
        size = self.loader.batch_size * self.processes.world
        with StopSignal() as signal, Log(self.out / LOG, self.processes.first) as log, _enough_memory(size):
            self._fill_queue()
            batches = self._batches()
            while self.step < last and not self._stops(signal):
                self._train_step(batches)
                if len(self._pending) >= self.keeping.log_every:
                    self._fetch(log)
                if self._epoch_ended:
                    self._end_epoch(log, last)
                elif self.keeping.every and self.step % self.keeping.every == 0 and self.step < last:
                    self._fetch(log)
                    self.save()
            batches.close()
            self._fetch(log)
            checkpoint = self.save()
        clips = (self.step - first) * self.optimisation.accumulate * size * self.learner.method.views
        return Trained(
            steps=self.step,
            loss=sum(self._recent) / len(self._recent) if self._recent else math.nan,
            clips_per_second=clips / max(self._seconds, 1e-9),
            waiting=self._waiting / max(self._seconds, 1e-9),
            checkpoint=checkpoint,
            finished=self.step >= self.optimisation.total_steps,
            stopped=signal.name,
        )

    def _batches(self) -> Generator[Batch]:
        while True:
            yield from self.loader

    def _stops(self, signal: StopSignal) -> bool:
        """Whether to stop; all processes stop after the same step."""
        if self.processes.world == 1:
            return signal.name is not None
        if self.step % self.keeping.log_every:
            return False  # `any` waits for the device
        return self.processes.any(signal.name is not None)

    # --- one step ---

    def _train_step(self, batches: Iterator[Batch]) -> None:
        begun, waited = time.monotonic(), 0.0
        lr = self.optimisation.lr_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        parts: list[dict[str, Tensor]] = []
        provenance: list[dict[str, Tensor]] = []
        without = torch.zeros((), device=self.device)
        for number in range(self.optimisation.accumulate):
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            pairs = self.pairs(batch.to(self.device, non_blocking=True))
            parts.append(self._backward(pairs, number))
            without += (pairs.weight == 0).sum()
            # Copied, because on a CPU it is in the loader's buffers, which are written again.
            provenance.append({name: value.clone() for name, value in pairs.provenance.items()})
        terms = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        terms |= self._move_weights() | {"without_donor": without}
        self.step += 1
        line = {"step": self.step, "epoch": self._epoch, "lr": round(lr, 8)}
        self._pending.append(_Step(line, terms, provenance))
        seconds = time.monotonic() - begun
        self._seconds, self._waiting = self._seconds + seconds, self._waiting + waited
        line |= {"seconds": round(seconds, 4), "waiting": round(waited, 4)}

    def _backward(self, pairs: Any, number: int) -> dict[str, Tensor]:
        """Add the gradients of one batch; returns its terms."""
        accumulate = self.optimisation.accumulate
        self.learner.follows = number == 0
        synchronise = number == accumulate - 1
        with nullcontext() if synchronise else self._no_sync():
            with self._precision():
                terms: dict[str, Tensor] = self.model(pairs)
            # Gradients are averaged over processes, but each has only its share of them; see `bgaug.model.parallel`.
            loss = terms["loss"] * (self.processes.world / accumulate)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _move_weights(self) -> dict[str, Tensor]:
        norm: dict[str, Tensor] = {}
        if self.optimisation.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            norm = {"grad_norm": gradient_norm(self.learner.parameters(), self.optimisation.clip_norm)}
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.learner.encoder)
        return norm

    def _precision(self) -> AbstractContextManager[Any]:
        if self.optimisation.amp == "off":
            return nullcontext()
        return torch.autocast(self.device.type, _AUTOCAST[self.optimisation.amp])

    def _no_sync(self) -> AbstractContextManager[Any]:
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _fill_queue(self) -> None:
        """Fill the queues with real keys before the first step, in an order of their own."""
        if self.step or not self.learner.method.has_queue:
            return
        own = self.loader
        loader = ClipLoader(
            own.dataset, own.batch_size, seed=own.seed + 1, threads=own.threads, rank=own.rank, world=own.world
        )
        while not self.learner.queue_full:
            for batch in loader:
                self.learner.fill_queue(self.pairs(batch.to(self.device)))
                if self.learner.queue_full:
                    break

    # --- reports ---

    @property
    def _epoch(self) -> int:
        """Epoch of the batch that was drawn last, from 0."""
        return self.loader.epoch

    @property
    def _epoch_ended(self) -> bool:
        """Whether an epoch ended in the last step."""
        taken = self.step * self.optimisation.accumulate
        return taken // len(self.loader) > (taken - self.optimisation.accumulate) // len(self.loader)

    def _fetch(self, log: Log) -> None:
        """Log the steps whose numbers are still on the device, which waits for it.

        Raises:
            BgaugError: a loss is not finite.
        """
        for step in self._pending:
            values = {name: round(float(term), 6) for name, term in step.terms.items()}
            values["without_donor"] = int(values["without_donor"])
            if not math.isfinite(values["loss"]):
                self._diverged(step, values)
            self._recent = [*self._recent[-49:], values["loss"]]
            line = {**step.line, **values, "memory_mb": memory_megabytes(self.device)}
            log.write(line)
            self.on_step(line)
        self._pending = []

    def _diverged(self, step: _Step, values: dict[str, Any]) -> None:
        number = step.line["step"]
        own = f"-process-{self.processes.rank}" if self.processes.world > 1 else ""  # each has its own clips
        path = self.out / f"not-finite-step-{number:08d}{own}.json"
        store = self.loader.dataset.store
        videos = [store.video_id(video) for part in step.provenance for video in part["video"].tolist()]
        record = {**step.line, **values, "videos": videos, "provenance": step.provenance}
        try:
            where = f"the clips of its batch are recorded in {write_bytes(path, json_bytes(plain(record)))}"
        except WriteError as error:
            where = f"the clips of its batch are not recorded ({error})"
        raise BgaugError(
            f"the loss of step {number} is {values['loss']}; {where}. Lower --lr, or give "
            f"--clip-norm 1 or --amp off. Checkpoints in {self.out / CHECKPOINTS} are from earlier steps"
        )

    def _end_epoch(self, log: Log, last: int) -> None:
        self._fetch(log)
        numbers: dict[str, float] = {"loss": self._recent[-1]}
        if self.on_epoch is not None and self.processes.first:
            measured = dict(self.on_epoch())
            self.learner.train()
            if measured:
                log.write({"step": self.step, "epoch": self._epoch, "meters": measured})
            numbers |= measured
        self.processes.wait()
        if self.step < last or self.keeping.best:
            self.save(best=self._is_best(numbers))

    def _is_best(self, numbers: Mapping[str, float]) -> bool:
        best = self.keeping.best
        if best is None or not self.processes.first:
            return False
        value = numbers[best.removeprefix("-")] * (-1 if best.startswith("-") else 1)
        better = self._best is None or value > self._best
        self._best = value if better else self._best
        return better

    # --- checkpoints ---

    def save(self, best: bool = False) -> Path:
        """Write a checkpoint; only the newest and the best are kept. Returns its path."""
        self.processes.average_statistics(self.learner)
        folder = self.out / CHECKPOINTS
        if not self.processes.first:
            return (folder / f"step-{self.step:08d}.pt").resolve()
        state = {
            "config": self.config,
            "optimisation": asdict(self.optimisation),
            "learner": self.learner.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict(),
            "recent": self._recent,
            "best": self._best,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        return save_checkpoint(folder, self.step, state, keep=self.keeping.keep, best=best)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of the same run; later log lines are dropped.

        Raises:
            CheckpointError: it cannot be read, or belongs to a run with another configuration.
        """
        state = load_checkpoint(path)
        saved = saved_config(state, path)
        differing = [k for k, v in self.config.items() if k in saved and saved[k] != v]
        if differing:
            values = "; ".join(f"{k}: {repr(saved[k])[:200]} there, {self.config[k]!r} now" for k in differing)
            raise CheckpointError(f"{path} belongs to a run with another configuration: {values}")
        check_resumable(state, path, self.optimiser, self.optimisation.total_steps)
        try:
            check_finite(state["learner"])
            self.learner.load_state_dict(state["learner"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.averaged is not None and state.get("averaged") is not None:
                self.averaged.load_state_dict(state["averaged"])
            if state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self.loader.load_state_dict(state["loader"])
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda" and state.get("cuda_rng") is not None:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except UsageError:
            raise
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} does not fit this run's model: {str(error)[:300]}") from error
        self.step = int(state["step"])
        self._recent, self._best = list(state["recent"]), state.get("best")
        if self.processes.first:
            drop_lines_behind(self.out / LOG, self.step)


def _average_of(encoder: nn.Module, decay: float) -> AveragedModel:
    """A moving average of an encoder and its running statistics, without gradient."""
    averages = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(encoder, multi_avg_fn=averages, use_buffers=True)
    return averaged.requires_grad_(False)


@contextmanager
def _enough_memory(batch_size: int) -> Iterator[None]:
    """Turn an error of torch for lack of memory into a BgaugError that names the options to change.

    Args:
        batch_size: clips per step, for the message.

    Raises:
        BgaugError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        raise BgaugError(
            f"out of memory with {batch_size} clips per step. Give a smaller --batch-size (with --accumulate to "
            f"average as many gradients), --amp bf16, a smaller --crop or fewer --frames"
        ) from error
