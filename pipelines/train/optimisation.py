"""Optimisers, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bgaug.pipelines.train.options import OptimiserName, Precision, Schedule


@dataclass(frozen=True)
class Optimisation:
    """Optimiser, learning rate and precision of a training.

    Attributes:
        total_steps: steps of the whole run, where the schedule ends.
        optimiser: "sgd" (momentum .9), "adamw" or "lars".
        lr: highest learning rate, after the warm-up.
        weight_decay: weight decay of all weights except biases and normalisations.
        warmup_steps: steps in which the rate rises linearly from 0.
        amp: "off", or autocast to "bf16" or "fp16", which also scales the loss.
        schedule: after the warm-up "cosine", half a cosine down to 0, or "step", times `drop` at each of `drop_at`.
        drop_at: shares of the run, in (0, 1), ascending.
        drop: factor, in (0, 1).
        accumulate: batches whose gradients are averaged into one step; each is contrasted within itself.
        clip_norm: largest norm of the gradient; None for no limit.
        ema: share of the averaged encoder that stays at each step, in (0, 1); None for no averaged encoder.

    Raises:
        ValueError: a value out of its range.
    """

    total_steps: int
    optimiser: OptimiserName = "sgd"
    lr: float = 0.01
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    amp: Precision = "off"
    schedule: Schedule = "cosine"
    drop_at: tuple[float, ...] = (0.6, 0.8)
    drop: float = 0.1
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("optimiser", OptimiserName), ("schedule", Schedule), ("amp", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.total_steps < 1 or self.accumulate < 1:
            raise ValueError(
                f"total_steps and accumulate must be at least 1, got {self.total_steps}, {self.accumulate}"
            )
        if self.lr <= 0 or self.weight_decay < 0 or (self.clip_norm is not None and self.clip_norm <= 0):
            raise ValueError(f"rates must be positive, got {self.lr = }, {self.weight_decay = }, {self.clip_norm = }")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be in (0, 1), got {self.ema}")
        if not all(0 < share < 1 for share in (*self.drop_at, self.drop)) or list(self.drop_at) != sorted(self.drop_at):
            raise ValueError(
                f"drop_at must be ascending shares in (0, 1), drop a share, got {self.drop_at}, {self.drop}"
            )
        object.__setattr__(self, "drop_at", tuple(self.drop_at))  # JSON has no tuples

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "step":
            return self.lr * self.drop ** sum(step >= share * self.total_steps for share in self.drop_at)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled for each weight by the ratio of its norm to its gradient's norm.

    Weights of one dimension and groups without weight decay are updated as by SGD.

    Args:
        params: weights, or groups of weights.
        lr: learning rate, before the ratio.
        momentum: momentum, in [0, 1).
        weight_decay: weight decay, added to the gradient before the ratio.
        trust: factor of the ratio.

    Reference: Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017, arXiv 1708.03888.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        step = weight.grad.add(weight, alpha=group["weight_decay"]) if weight.grad is not None else weight
        if weight.ndim > 1 and group["weight_decay"]:
            size, slope = weight.norm(), step.norm()
            ratio = group["trust"] * size / slope
            # A condition on tensors, because one on numbers would wait for the device.
            step = step * torch.where((size > 0) & (slope > 0), ratio, torch.ones_like(ratio))
        speed = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
        speed.mul_(group["momentum"]).add_(step)
        weight.add_(speed, alpha=-group["lr"])


def default_optimiser(backbone: str, sgd_lr: float) -> tuple[Literal["sgd", "adamw"], float]:
    """Default optimiser and learning rate of a backbone: AdamW for `tiny`, else SGD with the given rate."""
    return ("adamw", 2e-3) if backbone == "tiny" else ("sgd", sgd_lr)


def make_optimiser(model: nn.Module, optimisation: Optimisation) -> torch.optim.Optimizer:
    """The optimiser, without weight decay on biases and normalisations."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [w for w in trained if w.ndim > 1], "weight_decay": optimisation.weight_decay},
        {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    match optimisation.optimiser:
        case "adamw":
            return torch.optim.AdamW(groups, lr=optimisation.lr)
        case "lars":
            return _LARS(groups, lr=optimisation.lr)
    return torch.optim.SGD(groups, lr=optimisation.lr, momentum=0.9)


def gradient_norm(weights: Iterable[Tensor], limit: float) -> Tensor:
    """Scale all gradients down to the norm `limit`; returns the norm before, a scalar on the device."""
    return nn.utils.clip_grad_norm_(weights, limit)
