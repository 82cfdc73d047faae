"""The processes of a run: one, or those that `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from bgaug.errors import UsageError
from bgaug.model.parallel import choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        device: that it computes on.
        rank: its number, from 0; the first one writes.
        world: how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def any(self, here: bool) -> bool:
        """Whether it is so on any process. With several, waits for them."""
        if self.world == 1:
            return here
        flag = torch.tensor([float(here)], device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def average_statistics(self, model: nn.Module) -> None:
        """Running statistics of batch normalisation become their mean over the processes."""
        if self.world == 1:
            return
        for name, values in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                dist.all_reduce(values)
                values /= self.world


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """Joins the processes that `torchrun` started; without it there is one.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; by default CUDA where there is one, under torchrun that of the local rank.

    Raises:
        UsageError: a device that is not here, or more processes than CUDA devices.
    """
    where = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(where)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if where.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"process {local} has no device: there are {torch.cuda.device_count()} here")
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Processes(where, rank, world)
    finally:
        dist.destroy_process_group()
