from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bgaug.augment import Augmentation
from bgaug.batch import FIELDS, Batch
from bgaug.compose import SemiNegativePairs
from bgaug.dataset import ClipDataset, ClipOptions
from bgaug.errors import StoreDamageError, UsageError
from bgaug.loader import ClipLoader, SemiNegativeDataset


@pytest.fixture
def dataset(small_store: Path) -> ClipDataset:
    return ClipDataset(small_store, ClipOptions(num_frames=4, stride=2), seed=1)


def keys(loader: ClipLoader, epochs: int = 1) -> list[list[int]]:
    """What identifies every sample of every batch: video and randomness."""
    return [batch.key.tolist() + batch.video.tolist() for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_order_and_content_do_not_depend_on_threads(dataset: ClipDataset, threads: int) -> None:
    alone, many = ClipLoader(dataset, 2, seed=5, threads=0), ClipLoader(dataset, 2, seed=5, threads=threads)
    for _ in range(2):
        for one, other in zip(alone, many, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in FIELDS)


def test_every_video_once_an_epoch_in_another_order(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 2, seed=0)
    orders = [loader.order(epoch).ravel().tolist() for epoch in range(6)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert ClipLoader(dataset, 2, shuffle=False).order(3).ravel().tolist() == list(range(6))


def test_clips_left_over_are_dropped(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 4)
    assert len(loader) == 1 == len(list(loader))


def test_a_plain_dataloader_gives_the_same_samples(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 3, seed=2)
    plain = DataLoader(dataset, batch_sampler=loader.order(0).tolist(), collate_fn=ClipDataset.collate)
    for mine, theirs in zip(loader, plain, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in FIELDS)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resumed_loader_goes_on_with_the_next_batch(dataset: ClipDataset, stop: int) -> None:
    whole = keys(ClipLoader(dataset, 2, seed=7), epochs=3)
    first = ClipLoader(dataset, 2, seed=7, threads=3)
    seen: list[list[int]] = []
    while len(seen) < stop:
        for batch in first:
            seen.append(batch.key.tolist() + batch.video.tolist())
            if len(seen) == stop:
                break
    state = first.state_dict()
    second = ClipLoader(dataset, 2, seed=7, threads=1)
    second.load_state_dict(state)
    while len(seen) < len(whole):
        seen += keys(second)
    assert seen == whole


def test_a_state_of_another_loader_is_refused(dataset: ClipDataset) -> None:
    state = ClipLoader(dataset, 2, seed=7).state_dict()
    with pytest.raises(UsageError, match="seed 7, this one has 8"):
        ClipLoader(dataset, 2, seed=8).load_state_dict(state)
    with pytest.raises(UsageError, match="batch_size 2, this one has 3"):
        ClipLoader(dataset, 3, seed=7).load_state_dict(state)


def test_ranks_share_one_order(dataset: ClipDataset) -> None:
    whole = ClipLoader(dataset, 2, seed=3).order(1)
    parts = [ClipLoader(dataset, 1, seed=3, rank=rank, world=2).order(1) for rank in range(2)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_buffers_are_used_again(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, 1, prefetch=2)
    places = {batch.frames.data_ptr() for _ in range(3) for batch in loader}
    assert len(places) == 3


def test_a_batch_holds_until_the_next_is_drawn(dataset: ClipDataset) -> None:
    for batch in ClipLoader(dataset, 1, threads=4, prefetch=3):
        slot = int(np.flatnonzero(dataset.videos == int(batch.video[0]))[0])
        assert torch.equal(batch.frames[0], dataset[slot].frames) or dataset.epoch != 0


def test_errors_of_reading_reach_the_caller(dataset: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: Batch, slot: int, index: int, epoch: int | None = None) -> None:
        raise StoreDamageError("x", "gone")

    monkeypatch.setattr(dataset, "fill", broken)
    for threads in (0, 2):
        with pytest.raises(StoreDamageError, match="gone"):
            list(ClipLoader(dataset, 2, threads=threads))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bgaug-clips")]


def test_too_few_videos_are_told(dataset: ClipDataset) -> None:
    with pytest.raises(UsageError, match="6 videos do not fill one batch of 7; give a smaller --batch-size"):
        ClipLoader(dataset, 7)
    with pytest.raises(UsageError, match="on each of 2 processes"):
        ClipLoader(dataset, 4, world=2)
    with pytest.raises(UsageError, match="rank = 2"):
        ClipLoader(dataset, 1, rank=2, world=2)


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
