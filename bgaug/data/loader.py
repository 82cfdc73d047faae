"""`ClipLoader`: batches of clips read by threads into reused buffers, in an order known in advance.

The order is a function of (seed, epoch): it is the same for any number of threads, and a resumed run continues with
exactly the next batch. Reading releases Python's lock, so threads replace worker processes, and no batch is copied
between processes.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from bgaug.data.batch import Batch
from bgaug.data.dataset import ClipDataset
from bgaug.errors import UsageError
from bgaug.pairs import Pairs, SemiNegativePairs
from bgaug.store import Store

_Shuffle = bool | Literal["blocks"]


class ClipLoader:
    """Host batches of a `ClipDataset`, epoch after epoch.

    Each ``for`` loop yields the batches of the current epoch, then the epoch advances. No video occurs twice in an
    epoch, so none occurs twice in a batch. Videos that do not fill the last batch are dropped; the next epoch has
    another order.

    A batch is in a reused buffer and is valid until the next one is drawn. Copy it, or move it to its device, before
    that. With CUDA, buffers are pinned, and the loader waits for a copy with ``non_blocking=True`` on the current
    stream.

    A loop that ends by ``break`` or by an error stops the threads; the next loop continues after the last batch that
    was drawn. One loop runs at a time: a second one ends the first, which raises an error when it draws again. After a
    fork both processes may continue independently.

    Args:
        dataset: dataset to load.
        batch_size: clips (videos) per batch, on each rank.
        seed: seed of the order; clips are drawn by the dataset's own seed.
        threads: reading threads; 0 reads in the calling thread.
        prefetch: batches read in advance.
        shuffle: True for a random order; False for the order of the index; "blocks" for stores in which it is expensive
            to reach many shards at a time: shards in random order, and the videos of `block_shards` of them mixed,
            block
            after block. A batch at the border of two blocks draws from both.
        block_shards: shards per block.
        rank: rank of this process among `world`; each gets an equal, disjoint part of one order.
        world: number of processes.

    Attributes:
        epoch: current epoch.
        step: batches drawn in it.

    Raises:
        UsageError: fewer videos than make one batch, or a value out of its range.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        seed: int = 0,
        threads: int = 2,
        prefetch: int = 2,
        shuffle: _Shuffle = True,
        block_shards: int = 8,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or threads < 0 or prefetch < 1 or block_shards < 1 or not 0 <= rank < world:
            raise UsageError(
                f"cannot load with {batch_size = }, {threads = }, {prefetch = }, {block_shards = }, {rank = }, "
                f"{world = }"
            )
        if shuffle not in (True, False, "blocks"):
            raise UsageError(f"shuffle must be True, False or 'blocks', got {shuffle!r}")
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
        self.shuffle: _Shuffle = shuffle
        self.block_shards = block_shards
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.step = 0
        self._buffers: deque[Batch] = deque()  # the next buffer to be returned is first
        self._reading: _Reading | None = None
        self._pinned = False
        self._copied: torch.cuda.Event | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.dataset) // (self.batch_size * self.world)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Dataset indices of an epoch's batches on this rank: int64 (batches, batch_size)."""
        used = self._global_order(epoch)[: len(self) * self.batch_size * self.world]
        return used.reshape(len(self), self.world, self.batch_size)[:, self.rank]

    def _global_order(self, epoch: int) -> NDArray[np.int64]:
        """Dataset indices of all ranks, int64 (samples,)."""
        count = len(self.dataset)
        if self.shuffle is False:
            return np.arange(count)
        rng = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, 1], counter=[0, 0, 0, epoch]))
        if self.shuffle is True:
            return rng.permutation(count)
        known, shard = np.unique(self.dataset.store.shard_of(self.dataset.videos), return_inverse=True)
        block = rng.permutation(len(known))[shard] // self.block_shards
        return np.lexsort([rng.random(count), block])

    def __iter__(self) -> Iterator[Batch]:
        if self.step >= len(self):  # the last loop ended at the last batch of an epoch
            self.epoch, self.step = self.epoch + 1, 0
        reading = self._begin()
        try:
            while self.step < len(self):
                if reading.pid != os.getpid():
                    reading = self._begin()  # threads do not cross a fork
                self._wait_for_copies()
                batch = reading.next()
                self._buffers.rotate(-1)
                # Counted before it is yielded: a checkpoint taken while it is in use continues after it.
                self.step += 1
                yield batch
                if self._reading is not reading:
                    raise UsageError(
                        "this loop over a ClipLoader was ended by another one, or by load_state_dict; "
                        "for two loops at a time make two loaders"
                    )
        finally:
            reading.close()
            if self._reading is reading:
                self._reading = None
        self.epoch, self.step = self.epoch + 1, 0

    def __getstate__(self) -> dict[str, Any]:
        # Buffers and threads belong to this process.
        return {**self.__dict__, "_buffers": deque(), "_reading": None, "_copied": None}

    def _begin(self) -> _Reading:
        """Start to read the rest of the epoch; an earlier reading is stopped."""
        self._end()
        if not self._buffers:
            self._pinned = torch.cuda.is_available()
            for _ in range(self.prefetch + 1):
                self._buffers.append(self.dataset.allocate(self.batch_size, pin=self._pinned))
        left = self.order(self.epoch)[self.step :]
        self._reading = _Reading(self.dataset, list(self._buffers), left, self.epoch, self.threads, self.prefetch)
        return self._reading

    def _end(self) -> None:
        if self._reading is not None:
            self._reading.close()
        self._reading = None

    def _wait_for_copies(self) -> None:
        """Wait until the device has copied the batch before the last one, whose buffer is written next."""
        if not self._pinned:
            return
        if self._copied is not None:
            self._copied.synchronize()
        # The last batch may still be copied meanwhile: there is one buffer more than batches are read in advance.
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    def state_dict(self) -> dict[str, Any]:
        """Position of the loader and what its order depends on: plain numbers, strings and booleans."""
        return {"epoch": self.epoch, "step": self.step, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        store, videos = self.dataset.store, self.dataset.videos
        parts = [videos, store.columns.shot_offsets, store.columns.shot_start, store.columns.shot_stop]
        if self.shuffle == "blocks":
            parts.append(store.shard_of(videos))
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(np.ascontiguousarray(part, "<i8").data, checksum)
        return {
            "seed": self.seed,
            "global_batch": self.batch_size * self.world,
            "shuffle": self.shuffle,
            "block_shards": self.block_shards if self.shuffle == "blocks" else 0,
            "samples": len(videos),
            "dataset_seed": self.dataset.seed,
            "crc32_of_videos": checksum,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the batch after the last one that was drawn when the state was taken.

        The number of threads may differ, and the number of processes if the global batch has the same size.

        Raises:
            UsageError: the state belongs to a loader with another seed, batch size, shuffling, or other videos.
        """
        ours = self._identity()
        missing = sorted({"epoch", "step", *ours} - state.keys())
        if missing:
            raise UsageError(f"the state has no {', '.join(missing)}; expected the state of a ClipLoader")
        for name, value in ours.items():
            if state[name] != value:
                raise UsageError(f"the state belongs to a loader with {name} {state[name]!r}, this one has {value!r}")
        self._end()
        self.epoch, self.step = int(state["epoch"]), int(state["step"])


@dataclass
class _Filling:
    """A batch that is being filled.

    Attributes:
        batch: the buffer.
        slots: (slot, index) pairs that no thread has taken yet.
        parts: one future per thread.
    """

    batch: Batch
    slots: Iterator[tuple[int, int]]
    parts: list[Future[None]]


class _Reading:
    """Reads batches in advance, in order, with its own threads, until it is closed.

    There is one task per thread and batch, because one per sample would cost as much as small clips do. The threads
    take the slots of a batch from one iterator, so they end at the same time even if clips take different times.

    Attributes:
        pid: process in which the threads run.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        buffers: list[Batch],
        order: NDArray[np.int64],
        epoch: int,
        threads: int,
        prefetch: int,
    ) -> None:
        self.pid = os.getpid()
        self._dataset = dataset
        self._buffers = buffers
        self._order = order
        self._epoch = epoch
        self._threads = threads
        self._prefetch = prefetch if threads else 1
        self._pool = ThreadPoolExecutor(threads, "bgaug-clips") if threads else None
        self._begun = 0
        self._ahead: deque[_Filling] = deque()

    def next(self) -> Batch:
        """The next batch, filled."""
        while len(self._ahead) < self._prefetch and self._begun < len(self._order):
            self._ahead.append(self._fill(self._begun))
            self._begun += 1
        for part in self._ahead[0].parts:
            part.result()
        return self._ahead.popleft().batch

    def _fill(self, number: int) -> _Filling:
        batch = self._buffers[number % len(self._buffers)]
        slots = iter(list(enumerate(self._order[number].tolist())))
        if self._pool is None:
            self._dataset.fill_slots(batch, slots, self._epoch)
            return _Filling(batch, slots, [])
        fill = self._dataset.fill_slots
        parts = [self._pool.submit(fill, batch, slots, self._epoch) for _ in range(self._threads)]
        return _Filling(batch, slots, parts)

    def close(self) -> None:
        """Stop the threads, each after the clip that it reads, and wait for them."""
        if self._pool is None or self.pid != os.getpid():
            return  # a forked process has no threads, and their locks may be held forever
        for filling in self._ahead:
            deque(filling.slots, maxlen=0)  # take the slots that are left
        self._pool.shutdown(cancel_futures=True)


class SemiNegativeDataset(IterableDataset[Pairs]):
    """Ready training pairs on a device: ``DataLoader(dataset, batch_size=None)`` iterates over one epoch.

    Args:
        store: an open store, or the path or URL of one.
        batch_size: pairs per batch.
        pairs: composes the pairs; it is moved to the device.
        dataset: clips to draw from; by default a `ClipDataset` of the store.
        device: device on which pairs are composed.
        seed: seed of order and clips.
        threads: reading threads.
        shuffle: True, False or "blocks"; see `ClipLoader`.
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
        shuffle: _Shuffle = True,
    ) -> None:
        self.pairs = pairs.to(device)
        self.device = torch.device(device)
        clips = dataset or ClipDataset(store, seed=seed)
        self.loader = ClipLoader(clips, batch_size, seed=seed, threads=threads, shuffle=shuffle)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pairs]:
        if torch.utils.data.get_worker_info() is not None:
            raise UsageError("SemiNegativeDataset reads with its own threads; use DataLoader(..., num_workers=0)")
        for batch in self.loader:
            yield self.pairs(batch.to(self.device, non_blocking=True))

    def state_dict(self) -> dict[str, Any]:
        """The state of the loader."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the next pairs; see `ClipLoader.load_state_dict`."""
        self.loader.load_state_dict(state)
