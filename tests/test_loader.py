from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from bgaug.data.batch import FIELDS, Batch
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader, SemiNegativeDataset, _Shuffle
from bgaug.errors import StoreDamageError, UsageError
from bgaug.pairs import Augmentation, SemiNegativePairs


@pytest.fixture
def dataset(small_store: Path) -> ClipDataset:
    return ClipDataset(small_store, ClipOptions(num_frames=4, stride=2), seed=1)


@pytest.fixture
def many(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> ClipDataset:
    """A dataset of 603 samples in 21 shards, for orders; its clips cannot be read."""
    large = copy.copy(dataset)
    large.videos = np.arange(603)
    monkeypatch.setattr(large.store, "shard_of", lambda videos: (videos % 21).astype(np.int32))
    return large


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(one[name], other[name]) for name in FIELDS)


def reference(dataset: ClipDataset, indices: list[int], epoch: int = 0) -> Batch:
    """The batch of these samples, read one by one into memory of its own."""
    batch = dataset.allocate(len(indices))
    for slot, index in enumerate(indices):
        dataset.fill(batch, slot, index, epoch)
    return batch


def key(batch: Batch) -> list[int]:
    """What identifies every sample of a batch: video and randomness."""
    return [*batch.key.tolist(), *batch.video.tolist()]


def keys(loader: ClipLoader, epochs: int = 1) -> list[list[int]]:
    return [key(batch) for _ in range(epochs) for batch in loader]


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bgaug-clips")]


def slowly(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.02) -> list[int]:
    """Make every read of the dataset slow; returns a list to which each adds its video."""
    read, seen = dataset.store.frames_at, list[int]()

    def slow(video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        time.sleep(seconds)
        seen.append(video)
        return read(video, frames, out)

    monkeypatch.setattr(dataset.store, "frames_at", slow)
    return seen


# --- the order ---


def test_every_video_once_an_epoch_in_another_order(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 2, seed=0)
    orders = [loader.order(epoch).ravel().tolist() for epoch in range(6)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert ClipLoader(dataset, 2, shuffle=False).order(3).ravel().tolist() == list(range(6))


def test_clips_left_over_are_dropped(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 4)
    assert len(loader) == 1 == len(list(loader))


@pytest.mark.parametrize("shuffle", [True, False, "blocks"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_one_order(many: ClipDataset, shuffle: _Shuffle, world: int) -> None:
    whole = ClipLoader(many, 12, seed=3, shuffle=shuffle)
    parts = [
        ClipLoader(many, 12 // world, seed=3, shuffle=shuffle, rank=rank, world=world).order(1) for rank in range(world)
    ]
    assert {part.shape for part in parts} == {(50, 12 // world)}
    assert np.array_equal(np.concatenate(parts, axis=1), whole.order(1))
    assert len(set(whole.order(1).ravel().tolist())) == 600


def test_blocks_open_few_shards_at_a_time(many: ClipDataset) -> None:
    loader = ClipLoader(many, 9, seed=4, shuffle="blocks", block_shards=4)
    order = loader.order(2)
    assert order.shape == (67, 9) and sorted(order.ravel().tolist()) == list(range(603))
    assert np.array_equal(order, ClipLoader(many, 9, seed=4, shuffle="blocks", block_shards=4).order(2))
    assert not np.array_equal(order, loader.order(3))
    shards = many.store.shard_of(order.ravel())
    sizes = {shard: int((many.store.shard_of(many.videos) == shard).sum()) for shard in range(21)}
    blocks, begin = [], 0
    while begin < len(shards):  # a block ends where all videos of its four shards have been drawn
        members = set[int]()
        end = begin
        while end < len(shards) and (len(members) < 4 or end - begin < sum(sizes[shard] for shard in members)):
            members.add(int(shards[end]))
            end += 1
        blocks.append(members)
        assert len(members) <= 4 and end - begin == sum(sizes[shard] for shard in members)
        begin = end
    assert [len(block) for block in blocks] == [4, 4, 4, 4, 4, 1]
    assert sorted(shard for block in blocks for shard in block) == list(range(21))
    # No batch draws from more than the two blocks that it touches, and most from one.
    per_batch = [set(many.store.shard_of(batch).tolist()) for batch in order]
    touched = [sum(bool(batch & block) for block in blocks) for batch in per_batch]
    assert max(touched) <= 2 and sum(count == 2 for count in touched) <= len(blocks) - 1


def test_blocks_are_mixed_evenly(many: ClipDataset) -> None:
    loader = ClipLoader(many, 9, shuffle="blocks", block_shards=4)
    firsts, pairs = [], set()
    for epoch in range(300):
        order = loader.order(epoch).ravel()[:116]  # the first block: some 4 * 29 videos
        shards = many.store.shard_of(order)
        pairs.add(frozenset(shards.tolist()))
        firsts.append(np.flatnonzero(shards == shards[0])[1:].mean())
    assert len(pairs) > 250  # other shards stand together in each epoch
    assert np.mean(firsts) == pytest.approx(58, abs=2)  # each is spread over all of its block


# --- the same batches everywhere ---


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_order_and_content_do_not_depend_on_threads(dataset: ClipDataset, threads: int) -> None:
    alone, several = ClipLoader(dataset, 2, seed=5, threads=0), ClipLoader(dataset, 2, seed=5, threads=threads)
    for epoch in range(2):
        order = alone.order(epoch).tolist()
        for one, other, indices in zip(alone, several, order, strict=True):
            assert same(one, other) and same(one, reference(dataset, indices, epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader_gives_the_same_samples(dataset: ClipDataset, workers: int) -> None:
    order = ClipLoader(dataset, 3, seed=2).order(0).tolist()
    plain = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=ClipDataset.collate,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
    )
    theirs = list(plain)
    assert len(theirs) == 2
    for threads in (0, 1, 2, 4):
        for mine, batch in zip(ClipLoader(dataset, 3, seed=2, threads=threads), theirs, strict=True):
            assert same(mine, batch)


def test_buffers_are_used_again(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 1, prefetch=2)
    places = {batch.frames.data_ptr() for _ in range(3) for batch in loader}
    assert len(places) == 3


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 1), (1, 1), (4, 1), (4, 3), (4, 8)])
def test_a_batch_holds_until_the_next_is_drawn(dataset: ClipDataset, threads: int, prefetch: int) -> None:
    loader = ClipLoader(dataset, 2, seed=3, threads=threads, prefetch=prefetch)
    for epoch in range(8):
        for batch, indices in zip(loader, loader.order(epoch).tolist(), strict=True):
            time.sleep(0.005)  # the threads read ahead meanwhile
            assert same(batch, reference(dataset, indices, epoch))


def test_copies_to_a_device_are_waited_for(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a buffer is written again, the device has finished all work queued before the next batch was drawn."""
    events: list[str] = []

    class Event:
        def record(self) -> None:
            self.number = sum(line.startswith("record") for line in events)
            events.append(f"record {self.number}")

        def synchronize(self) -> None:
            events.append(f"wait {self.number}")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    loader = ClipLoader(dataset, 1, threads=0, prefetch=1)
    iterator = iter(loader)
    next(iterator)
    assert not events  # nothing is pinned here
    loader._pinned = True
    fill = dataset.fill_slots

    def fill_slots(batch: Batch, slots: Iterator[tuple[int, int]], epoch: int) -> None:
        events.append(f"write {[place.frames.data_ptr() for place in buffers].index(batch.frames.data_ptr())}")
        fill(batch, slots, epoch)

    buffers = list(loader._buffers)
    monkeypatch.setattr(dataset, "fill_slots", fill_slots)
    list(iterator)
    assert events[:8] == ["record 0", "write 0", "wait 0", "record 1", "write 1", "wait 1", "record 2", "write 0"]


# --- going on ---


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resumed_loader_goes_on_with_the_next_batch(dataset: ClipDataset, stop: int) -> None:
    whole = keys(ClipLoader(dataset, 2, seed=7), epochs=3)
    first = ClipLoader(dataset, 2, seed=7, threads=3)
    seen: list[list[int]] = []
    while len(seen) < stop:
        for batch in first:
            seen.append(key(batch))
            if len(seen) == stop:
                break
    state = first.state_dict()
    second = ClipLoader(dataset, 2, seed=7, threads=1)
    second.load_state_dict(state)
    while len(seen) < len(whole):
        seen += keys(second)
    assert seen == whole


_CONTINUE = """
import json, sys
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
store, state, count = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3])
loader = ClipLoader(ClipDataset(store, ClipOptions(num_frames=4, stride=2), seed=1), 2, seed=7, threads=3)
loader.load_state_dict(state)
seen = []
while len(seen) < count:
    for batch in loader:
        seen.append([*batch.key.tolist(), *batch.video.tolist(), int(batch.frames.sum()), int(batch.masks.sum())])
        if len(seen) == count:
            break
print(json.dumps(seen))
"""


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.full)])
def test_another_process_goes_on_with_the_next_batch(
    small_store: Path, dataset: ClipDataset, tmp_path: Path, count: int
) -> None:
    def go(loader: ClipLoader, number: int) -> list[list[int]]:
        seen: list[list[int]] = []
        while len(seen) < number:
            for batch in loader:
                seen.append([*key(batch), int(batch.frames.sum()), int(batch.masks.sum())])
                if len(seen) == number:
                    break
        return seen

    undisturbed = go(ClipLoader(dataset, 2, seed=7, threads=1), 2 * count)
    loader = ClipLoader(dataset, 2, seed=7)
    seen = go(loader, count)
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    command = [sys.executable, "-c", _CONTINUE, str(small_store), str(tmp_path / "state.json"), str(count)]
    seen += json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout)
    assert seen == undisturbed


def test_other_ranks_go_on_where_the_batch_is_the_same(dataset: ClipDataset) -> None:
    whole = [batch.key.clone() for batch in ClipLoader(dataset, 2, seed=7)]
    one = ClipLoader(dataset, 2, seed=7)
    next(iter(one))
    halves = []
    for rank in range(2):
        half = ClipLoader(dataset, 1, seed=7, rank=rank, world=2)
        half.load_state_dict(one.state_dict())
        halves.append([batch.key.clone() for batch in half])
    assert [torch.cat(parts).tolist() for parts in zip(*halves, strict=True)] == [k.tolist() for k in whole[1:]]


def test_a_state_is_plain(dataset: ClipDataset) -> None:
    for shuffle in (True, False, "blocks"):
        loader = ClipLoader(dataset, 2, shuffle=shuffle)
        state = loader.state_dict()
        assert {type(value) for value in state.values()} <= {int, str, bool}
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        for copied in (json.loads(json.dumps(state)), torch.load(file, weights_only=True)):
            assert copied == state
            loader.load_state_dict(copied)


def test_a_state_of_another_loader_is_refused(small_store: Path, dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 2, seed=7)
    state = loader.state_dict()

    def refused(message: str, other: ClipDataset = dataset, batch_size: int = 2, **options: Any) -> None:
        with pytest.raises(UsageError, match=message):
            ClipLoader(other, batch_size, **{"seed": 7, **options}).load_state_dict(state)

    refused("to a loader with seed 7, this one has 8$", seed=8)
    refused("global_batch 2, this one has 3$", batch_size=3)
    refused("global_batch 2, this one has 4$", world=2)
    refused("shuffle True, this one has False$", shuffle=False)
    refused("shuffle True, this one has 'blocks'$", shuffle="blocks")
    options = ClipOptions(num_frames=4, stride=2)
    refused("dataset_seed 1, this one has 0$", ClipDataset(small_store, options))
    fewer = ClipDataset(small_store, options, seed=1, labels=["run"])
    refused("samples 6, this one has 3$", fewer)
    others = copy.copy(dataset)
    others.videos = dataset.videos[::-1].copy()
    refused("to a loader with crc32_of_videos", others)
    with pytest.raises(UsageError, match="block_shards 8, this one has 4"):
        ClipLoader(dataset, 2, shuffle="blocks", block_shards=4).load_state_dict(
            ClipLoader(dataset, 2, shuffle="blocks").state_dict()
        )
    with pytest.raises(UsageError, match="the state has no crc32_of_videos, global_batch"):
        loader.load_state_dict({k: v for k, v in state.items() if k not in ("global_batch", "crc32_of_videos")})


# --- loops that end early ---


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_loop_that_was_left_goes_on(dataset: ClipDataset, threads: int) -> None:
    whole = keys(ClipLoader(dataset, 1, seed=2), epochs=3)
    loader, seen = ClipLoader(dataset, 1, seed=2, threads=threads, prefetch=4), list[list[int]]()
    while len(seen) < len(whole):
        for number, batch in enumerate(loader):
            seen.append(key(batch))
            if number == 3:
                break
        assert not reading_threads()
    assert seen == whole


def test_nothing_is_written_after_a_loop_was_left(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = slowly(dataset, monkeypatch)
    loader = ClipLoader(dataset, 2, threads=2, prefetch=2)
    for batch in loader:
        held, frames = batch, batch.frames.clone()
        break
    assert not reading_threads()
    read, contents = len(seen), [buffer.frames.clone() for buffer in loader._buffers]
    time.sleep(0.2)
    assert len(seen) == read and torch.equal(held.frames, frames)
    assert all(torch.equal(buffer.frames, kept) for buffer, kept in zip(loader._buffers, contents, strict=True))


def test_leaving_a_loop_does_not_wait_for_what_is_read_ahead(
    dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = ClipLoader(dataset, 3, threads=1, prefetch=2)
    iterator = iter(loader)
    next(iterator)
    seen = slowly(dataset, monkeypatch)
    next(iterator)
    loader.load_state_dict(loader.state_dict())
    seen.clear()
    next(iter(loader))  # the iterator is dropped here, while one thread reads the next batch
    assert len(seen) < 2 * 3 * 2 and not reading_threads()


def test_a_second_loop_ends_the_first(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 1, seed=6)
    whole = keys(ClipLoader(dataset, 1, seed=6))
    first, second = iter(loader), iter(loader)
    seen = [key(next(first)), key(next(first)), key(next(second))]
    with pytest.raises(UsageError, match="two loops at a time make two loaders"):
        next(first)
    seen += [key(batch) for batch in second]
    assert seen == whole and not reading_threads()
    with pytest.raises(UsageError, match="two loops at a time"):
        list(zip(loader, loader, strict=True))
    third = iter(loader)
    next(third)
    loader.load_state_dict(loader.state_dict())
    assert not reading_threads()
    with pytest.raises(UsageError, match="load_state_dict"):
        next(third)


def test_two_loaders_of_one_dataset_do_not_disturb_each_other(dataset: ClipDataset) -> None:
    one, other = ClipLoader(dataset, 2, seed=1, threads=3), ClipLoader(dataset, 2, seed=1, threads=2)
    for a, b in zip(one, other, strict=True):
        assert same(a, b) and a.frames.data_ptr() != b.frames.data_ptr()


def test_errors_of_reading_reach_the_caller(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keys(ClipLoader(dataset, 2, seed=9))
    bad = int(dataset.videos[ClipLoader(dataset, 2, seed=9).order(0)[1, 1]])

    def broken(video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> None:
        if video == bad:
            raise StoreDamageError("x", "gone")

    for threads in (0, 1, 2, 4):
        loader, seen = ClipLoader(dataset, 2, seed=9, threads=threads), list[list[int]]()
        with monkeypatch.context() as patch:
            patch.setattr(dataset.store, "frames_at", broken)
            with pytest.raises(StoreDamageError, match="gone"):
                seen += [key(batch) for batch in loader]
            assert not reading_threads() and loader.step == 1
        assert keys(loader) == whole[1:]  # repaired, it continues with the batch that could not be read


_FORK = """
import os, signal, sys
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
def key(batch):
    return [*batch.key.tolist(), *batch.video.tolist(), int(batch.frames.numpy().sum())]
dataset = ClipDataset(sys.argv[1], ClipOptions(num_frames=4, stride=2), seed=1)
whole = [key(batch) for loader in [ClipLoader(dataset, 2, seed=7)] for _ in range(5) for batch in loader]
loader, seen = ClipLoader(dataset, 2, seed=7, threads=4, prefetch=3), []
for _ in range(5):
    iterator = iter(loader)
    for batch in iterator:
        seen.append(key(batch))
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)  # ends a child that hangs
            if len(seen) % 2:
                seen += [key(batch) for batch in iterator]  # goes on with the loop
            while len(seen) < len(whole):
                seen += [key(batch) for batch in loader]  # begins loops of its own
            os._exit(0 if seen == whole else 3)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
assert seen == whole
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_goes_on_by_itself(small_store: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORK, str(small_store)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_loader_is_pickled_without_its_threads_and_buffers(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 2, seed=3)
    iterator = iter(loader)
    next(iterator)
    data = pickle.dumps(loader)
    assert len(data) < 20_000
    assert keys(pickle.loads(data)) == [key(batch) for batch in iterator]


def test_loaders_that_cannot_be_are_reported(dataset: ClipDataset) -> None:
    with pytest.raises(UsageError, match="6 videos do not fill one batch of 7; give a smaller --batch-size"):
        ClipLoader(dataset, 7)
    with pytest.raises(UsageError, match="on each of 2 processes"):
        ClipLoader(dataset, 4, world=2)
    with pytest.raises(UsageError, match="rank = 2"):
        ClipLoader(dataset, 1, rank=2, world=2)
    with pytest.raises(UsageError, match="block_shards = 0"):
        ClipLoader(dataset, 1, block_shards=0)
    with pytest.raises(UsageError, match="True, False or 'blocks', got 'shards'"):
        ClipLoader(dataset, 1, shuffle="shards")  # type: ignore[arg-type]


# --- ready pairs ---


def test_ready_pairs(small_store: Path, dataset: ClipDataset) -> None:
    pairs = SemiNegativePairs(Augmentation.tiny(24))
    ready = SemiNegativeDataset(small_store, 3, pairs, dataset=dataset, seed=1)
    got = list(DataLoader(ready, batch_size=None))
    assert len(got) == len(ready) == 2
    for pair in got:
        assert pair.anchor.shape == (3, 3, 4, 24, 24) and pair.anchor.dtype == torch.float32
        assert (pair.donor != torch.arange(3)).all() and pair.weight.tolist() == [1, 1, 1]
    with pytest.raises(UsageError, match="num_workers=0"):
        list(DataLoader(ready, batch_size=None, num_workers=1, multiprocessing_context="forkserver"))


def test_ready_pairs_go_on_where_they_stood(small_store: Path, dataset: ClipDataset) -> None:
    def make(shuffle: _Shuffle = True) -> SemiNegativeDataset:
        pairs = SemiNegativePairs(Augmentation.tiny(24))
        return SemiNegativeDataset(small_store, 2, pairs, dataset=dataset, seed=1, shuffle=shuffle)

    whole = [pair.semi for pair in make()]
    first, second = make(), make()
    next(iter(first))
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(pair.semi, semi) for pair, semi in zip(second, whole[1:], strict=True))
    assert make("blocks").loader.shuffle == "blocks"
    assert [pair.video.tolist() for pair in make(False)] == [[0, 1], [2, 3], [4, 5]]
