"""The processes of a run, one or those that `torchrun` started, and the signals that stop it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import nn

from bgaug.errors import UsageError
from bgaug.model.parallel import choose_device


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes of the run.

    Attributes:
        device: device of this process.
        rank: number of this process, from 0; process 0 writes files.
        world: number of processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def any(self, here: bool) -> bool:
        """Whether the argument is true on any process; waits for all of them."""
        if self.world == 1:
            return here
        flag = torch.tensor([float(here)], device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def average_statistics(self, model: nn.Module) -> None:
        """Replace running statistics of batch normalisation by their mean over the processes."""
        if self.world == 1:
            return
        for name, values in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                dist.all_reduce(values)
                values /= self.world


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; without it there is one.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; by default CUDA if it is available, under torchrun the device of the local
            rank.

    Raises:
        UsageError: a device that is not available, or more processes than CUDA devices.
    """
    where = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(where)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if where.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"process {local} has no CUDA device: this machine has {torch.cuda.device_count()}")
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Processes(where, rank, world)
    finally:
        dist.destroy_process_group()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Records the first SIGTERM or Ctrl-C; a second one ends the process as usual. Use it in a `with` block.

    Signals cannot be caught outside the main thread, and stay unchanged there.

    Attributes:
        name: name of the signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
