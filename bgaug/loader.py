"""`ClipLoader`: batches of clips read by threads into reused buffers, in an order known ahead.

The order is a function of (seed, epoch): the same for any number of threads, and a resumed run goes on with exactly
the next batch. Reading releases Python's lock, so threads do what worker processes do without copying batches between
processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from bgaug.batch import Batch
from bgaug.compose import Pairs, SemiNegativePairs
from bgaug.dataset import ClipDataset
from bgaug.errors import UsageError
from bgaug.store import Store


class ClipLoader:
    """Host batches of a `ClipDataset`, epoch after epoch.

    Iterating yields the batches of the current epoch, then the epoch advances: each ``for`` loop is one epoch. No video
    comes twice in an epoch, so none comes twice in a batch. The clips left over when the videos do not fill the last
    batch are dropped; the next epoch has another order.

    A batch lies in a buffer that is used again: it holds until the next one is drawn. Copy it, or move it to its device,
    before.

    Args:
        dataset: what to load.
        batch_size: clips (videos) a batch, on each rank.
        seed: of the order; clips are drawn by the dataset's own seed.
        threads: that read; 0 reads in the calling thread.
        prefetch: batches read ahead.
        shuffle: whether the order is random; else by index.
        rank: of this process among `world`, each of which gets an equal, disjoint part of one order.
        world: number of processes.

    Raises:
        UsageError: fewer videos than make one batch.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        seed: int = 0,
        threads: int = 2,
        prefetch: int = 2,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or threads < 0 or prefetch < 1 or not 0 <= rank < world:
            raise UsageError(f"cannot load with {batch_size = }, {threads = }, {prefetch = }, {rank = }, {world = }")
        if len(dataset) < batch_size * world:
            raise UsageError(
                f"{len(dataset)} videos do not fill one batch of {batch_size}"
                + (f" on each of {world} processes" if world > 1 else "")
                + "; give a smaller --batch-size"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.threads = threads
        self.prefetch = prefetch
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.step = 0
        self._buffers: list[Batch] = []

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.dataset) // (self.batch_size * self.world)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Dataset indices of an epoch's batches on this rank: int64 (batches, batch_size)."""
        count = len(self.dataset)
        places = np.arange(count)
        if self.shuffle:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, 1], counter=[0, 0, 0, epoch]))
            places = rng.permutation(count)
        used = places[: len(self) * self.batch_size * self.world]
        return used.reshape(len(self), self.world, self.batch_size)[:, self.rank]

    def __iter__(self) -> Iterator[Batch]:
        order = self.order(self.epoch)
        if not self._buffers:
            pin = torch.cuda.is_available()
            self._buffers = [self.dataset.allocate(self.batch_size, pin=pin) for _ in range(self.prefetch + 1)]
        with ThreadPoolExecutor(max(1, self.threads), "bgaug-clips") as pool:
            yield from self._epoch(pool, order)
        self.epoch, self.step = self.epoch + 1, 0

    def _epoch(self, pool: ThreadPoolExecutor, order: NDArray[np.int64]) -> Iterator[Batch]:
        ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
        submitted = first = self.step
        try:
            for step in range(first, len(order)):
                while submitted < min(step + (self.prefetch if self.threads else 1), len(order)):
                    batch = self._buffers[submitted % len(self._buffers)]
                    ahead.append((batch, self._submit(pool, batch, order[submitted])))
                    submitted += 1
                batch, parts = ahead.popleft()
                for part in parts:
                    part.result()
                # Counted before it is handed out: a checkpoint taken while it is in use goes on behind it.
                self.step = step + 1
                yield batch
        finally:
            for _, parts in ahead:
                for part in parts:
                    part.cancel()

    def _submit(self, pool: ThreadPoolExecutor, batch: Batch, indices: NDArray[np.int64]) -> list[Future[None]]:
        def fill(slot: int, index: int, epoch: int = self.epoch) -> None:
            self.dataset.fill(batch, slot, index, epoch)

        if self.threads:
            return [pool.submit(fill, slot, index) for slot, index in enumerate(indices.tolist())]
        for slot, index in enumerate(indices.tolist()):
            fill(slot, index)
        return []

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands; plain numbers."""
        return {"epoch": self.epoch, "step": self.step, "seed": self.seed, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the batch after the last one that was drawn when the state was taken.

        Raises:
            UsageError: the state is of a loader with another seed or batch size.
        """
        for name in ("seed", "batch_size"):
            if state[name] != getattr(self, name):
                raise UsageError(
                    f"the state is of a loader with {name} {state[name]}, this one has {getattr(self, name)}"
                )
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        if self.step >= len(self):
            self.epoch, self.step = self.epoch + 1, 0


class SemiNegativeDataset(IterableDataset[Pairs]):
    """Ready training pairs on a device: ``DataLoader(dataset, batch_size=None)`` iterates over one epoch.

    Args:
        store: an open store, or the path of one.
        batch_size: pairs a batch.
        pairs: what composes them; moved to the device.
        dataset: clips to draw from; by default a `ClipDataset` of the store.
        device: where pairs are composed.
        seed: of order and clips.
        threads: that read.
    """

    def __init__(
        self,
        store: Store | str | Path,
        batch_size: int,
        pairs: SemiNegativePairs,
        *,
        dataset: ClipDataset | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        threads: int = 2,
    ) -> None:
        self.pairs = pairs.to(device)
        self.device = torch.device(device)
        self.loader = ClipLoader(dataset or ClipDataset(store, seed=seed), batch_size, seed=seed, threads=threads)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pairs]:
        if torch.utils.data.get_worker_info() is not None:
            raise UsageError("SemiNegativeDataset reads by threads of its own: use DataLoader(..., num_workers=0)")
        for batch in self.loader:
            yield self.pairs(batch.to(self.device, non_blocking=True))
