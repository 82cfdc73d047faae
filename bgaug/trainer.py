"""The training loop: batches in, steps, a log line each, checkpoints. It receives model, pairs and loader ready made.

A run is a folder: `config.json` (everything that decides the run), `log.jsonl` (one line a step) and `checkpoints/`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bgaug.compose import SemiNegativePairs
from bgaug.errors import BgaugError, CheckpointError
from bgaug.loader import ClipLoader
from bgaug.model import ContrastiveLearner

FORMAT = "bgaug-checkpoint"
VERSION = 1
CHECKPOINTS = "checkpoints"
LOG = "log.jsonl"
CONFIG = "config.json"


@dataclass(frozen=True)
class Optimisation:
    """How the weights are moved.

    Attributes:
        total_steps: of the whole run; the schedule ends there.
        optimiser: "sgd" (momentum .9) or "adamw".
        lr: highest learning rate, after the warm-up.
        weight_decay: on all weights but biases and normalisations.
        warmup_steps: linear, from 0.
        amp: "off", or "bf16" autocast.
    """

    total_steps: int
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    amp: Literal["off", "bf16"] = "off"

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        if self.optimiser not in ("sgd", "adamw"):
            raise ValueError(f"optimiser must be sgd or adamw, got {self.optimiser!r}")

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Trained:
    """How a run stands.

    Attributes:
        steps: taken in all, earlier runs included.
        loss: mean of this run's last steps (at most 50).
        clips_per_second: clips encoded (two views a video) over the wall-clock of this run's steps.
        checkpoint: the last one.
        finished: whether `total_steps` are done.
    """

    steps: int
    loss: float
    clips_per_second: float
    checkpoint: Path
    finished: bool


class Trainer:
    """Trains a learner on the pairs that a loader's batches make.

    Args:
        learner: on its device.
        pairs: composes the pairs on the batch's device.
        loader: endless, epoch after epoch.
        optimisation: how the weights are moved.
        out: folder of the run.
        config: kept with every checkpoint; plain JSON values.
        on_step: called after each step with its log line.
    """

    def __init__(
        self,
        learner: ContrastiveLearner,
        pairs: SemiNegativePairs,
        loader: ClipLoader,
        optimisation: Optimisation,
        out: Path,
        config: Mapping[str, Any],
        on_step: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.learner = learner
        self.pairs = pairs
        self.loader = loader
        self.optimisation = optimisation
        self.out = out
        self.config = dict(config)
        self.on_step = on_step or (lambda line: None)
        self.device = next(learner.parameters()).device
        self.optimiser = make_optimiser(learner, optimisation)
        self.step = 0
        self._recent: list[float] = []

    def run(self, stop_after: int | None = None) -> Trained:
        """Train to the end, or for `stop_after` steps; the schedule is that of the whole run either way.

        Raises:
            BgaugError: the loss is not finite.
        """
        self.learner.train()
        last = self.optimisation.total_steps
        if stop_after is not None:
            last = min(last, self.step + stop_after)
        self._fill_queue()
        self.out.mkdir(parents=True, exist_ok=True)
        begun, first = time.monotonic(), self.step
        with open(self.out / LOG, "a", encoding="utf-8") as log:
            for batch in self._batches(last):
                line = self._train_step(batch)
                log.write(json.dumps(line) + "\n")
                log.flush()
                self.on_step(line)
                if self.loader.step == len(self.loader) and self.step < last:
                    self.save()
        seconds = max(time.monotonic() - begun, 1e-9)
        clips = (self.step - first) * self.loader.batch_size * 2
        return Trained(
            steps=self.step,
            loss=sum(self._recent) / len(self._recent) if self._recent else math.nan,
            clips_per_second=clips / seconds,
            checkpoint=self.save(),
            finished=self.step >= self.optimisation.total_steps,
        )

    def _batches(self, last: int) -> Iterator[Any]:
        while self.step < last:
            for batch in self.loader:
                yield batch
                if self.step >= last:
                    break

    def _train_step(self, batch: Any) -> dict[str, float]:
        begun = time.monotonic()
        lr = self.optimisation.lr_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        pairs = self.pairs(batch.to(self.device, non_blocking=True))
        with self._precision():
            terms: dict[str, Tensor] = self.learner(pairs)
        self.optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        values = {name: round(float(term.detach()), 6) for name, term in terms.items()}  # waits for the device
        if not math.isfinite(values["loss"]):
            raise BgaugError(
                f"the loss of step {self.step} is {values['loss']}; lower --lr, or train without --amp. The last "
                f"checkpoint in {self.out / CHECKPOINTS} is from before"
            )
        self._recent = [*self._recent[-49:], values["loss"]]
        return {
            "step": self.step,
            "epoch": self.loader.epoch,
            "lr": round(lr, 8),
            **values,
            "without_donor": int((pairs.weight == 0).sum()),
            "seconds": round(time.monotonic() - begun, 4),
        }

    def _precision(self) -> Any:
        if self.optimisation.amp == "off":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _fill_queue(self) -> None:
        """Fill the queues with real keys before the first step, from an order of their own."""
        if self.step or not self.learner.method.momentum:
            return
        loader = ClipLoader(
            self.loader.dataset, self.loader.batch_size, seed=self.loader.seed + 1, threads=self.loader.threads
        )
        while not self.learner.queue_full:
            for batch in loader:
                self.learner.fill_queue(self.pairs(batch.to(self.device)))
                if self.learner.queue_full:
                    break

    # --- checkpoints ---

    def save(self) -> Path:
        """Write a checkpoint in one step, and clear away all but the last two."""
        folder = self.out / CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{self.step:08d}.pt"
        state = {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config,
            "optimisation": asdict(self.optimisation),
            "step": self.step,
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "loader": self.loader.state_dict(),
            "recent": self._recent,
            "rng": torch.get_rng_state(),
        }
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for old in sorted(folder.glob("step-*.pt"))[:-2]:
            old.unlink()
        return path.resolve()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same run; log lines behind it are dropped.

        Raises:
            CheckpointError: it cannot be read, or is of a run with another configuration.
        """
        state = load_checkpoint(path)
        differing = [k for k, v in self.config.items() if k in state["config"] and state["config"][k] != v]
        if differing:
            said = "; ".join(f"{k}: {state['config'][k]!r} there, {self.config[k]!r} now" for k in differing)
            raise CheckpointError(f"{path} is of a run with another configuration: {said}")
        self.learner.load_state_dict(state["learner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["rng"])
        self.step = int(state["step"])
        self._recent = list(state["recent"])
        log = self.out / LOG
        if log.exists():
            lines = log.read_text("utf-8").splitlines()
            kept = [line for line in lines if line and json.loads(line)["step"] <= self.step]
            log.write_text("".join(f"{line}\n" for line in kept), "utf-8")


def make_optimiser(learner: nn.Module, optimisation: Optimisation) -> torch.optim.Optimizer:
    """The optimiser, without weight decay on biases and normalisations."""
    trained = [weight for weight in learner.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [w for w in trained if w.ndim > 1], "weight_decay": optimisation.weight_decay},
        {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    if optimisation.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=optimisation.lr)
    return torch.optim.SGD(groups, lr=optimisation.lr, momentum=0.9)


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is none.
    """
    found = sorted((run / CHECKPOINTS).glob("step-*.pt"))
    if not found:
        raise CheckpointError(f"{run} holds no checkpoint; is it a folder that `bgaug train --out` made?")
    return found[-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: it is missing, not whole, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; is it whole? ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a bgaug checkpoint")
    if state["version"] != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {state['version']}; this bgaug reads {VERSION}: update bgaug"
        )
    return state
