from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bgaug.batch import FIELDS, Batch, unpack_masks
from bgaug.dataset import ClipDataset, ClipOptions, Short
from bgaug.errors import UsageError
from bgaug.pipelines.build_shards import build_shards
from bgaug.pipelines.each_video import Setup
from bgaug.pipelines.progress import Silent
from bgaug.store import open_store


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(a[name], b[name]) for name in FIELDS)


@pytest.fixture
def dataset(small_store: Path) -> ClipDataset:
    return ClipDataset(small_store, ClipOptions(num_frames=8, stride=2), seed=3)


def test_samples_are_what_the_store_holds(dataset: ClipDataset) -> None:
    store = dataset.store
    assert len(dataset) == 6
    for index in range(len(dataset)):
        sample = dataset[index]
        video = int(sample.video)
        assert sample.frames.shape == (2, 8, 48, 64, 3) and sample.frames.dtype == torch.uint8
        for view in range(2):
            start = int(sample.start[view])
            assert np.array_equal(sample.frames[view].numpy(), store.clip(video, start, 8, 2))
            bits = unpack_masks(sample.masks[view], 48, 64).numpy().astype(bool)
            assert np.array_equal(bits, store.masks(video, start, 8, 2))
            assert np.array_equal(sample.pts_seconds[view].numpy(), store.pts_seconds(video, start, 8, 2))
        assert np.array_equal(sample.backgrounds.numpy(), store.background(video).image)
        assert int(sample.label) == store.columns.label[video] and sample.box.tolist() == [0, 0, 48, 64]


def test_a_sample_depends_on_seed_epoch_and_index_alone(small_store: Path, dataset: ClipDataset) -> None:
    first = dataset[4]
    for index in (0, 2, 5):
        _ = dataset[index]
    assert equal(first, dataset[4])
    assert equal(first, ClipDataset(small_store, dataset.options, seed=3)[4])
    assert equal(first, pickle.loads(pickle.dumps(dataset))[4])
    dataset.set_epoch(1)
    assert dataset[4].key != first.key
    assert ClipDataset(small_store, dataset.options, seed=4)[4].key != first.key


def test_views_cover_the_shot(small_store: Path) -> None:
    dataset = ClipDataset(small_store, ClipOptions(num_frames=4, stride=1, views=3))
    starts = set()
    for epoch in range(200):
        dataset.set_epoch(epoch)
        starts |= set(dataset[0].start.tolist())
    length = dataset.store.num_frames(int(dataset[0].video))
    assert starts == set(range(length - 3))


def test_uniform_clips_are_evenly_spaced(small_store: Path) -> None:
    dataset = ClipDataset(small_store, ClipOptions(4, 1, views=5, sampling="uniform"), backgrounds=False)
    starts = dataset[0].start
    assert torch.equal(starts, starts.sort().values)
    assert len(set(torch.diff(starts).tolist())) <= 2
    assert int(starts[-1]) + 4 <= dataset.store.num_frames(0)


@pytest.mark.parametrize(("short", "expected"), [("loop", [0, 1, 2, 0, 1]), ("pad", [0, 1, 2, 2, 2])])
def test_short_shots_follow_their_policy(small_store: Path, short: Short, expected: list[int]) -> None:
    store = open_store(small_store)
    stride = 12  # the longest video has 34 frames: three fit
    video = int(np.argmax(store.columns.num_frames))
    dataset = ClipDataset(store, ClipOptions(num_frames=5, stride=stride, short=short))
    sample = dataset[int(np.flatnonzero(dataset.videos == video)[0])]
    assert int(sample.start[0]) == 0
    times = store.pts_seconds(video, 0, 3, stride)
    assert np.array_equal(sample.pts_seconds[0].numpy(), times[expected])
    assert np.array_equal(sample.frames[0].numpy(), store.clip(video, 0, 3, stride)[expected])


def test_short_videos_can_be_left_out(small_store: Path) -> None:
    assert len(ClipDataset(small_store, ClipOptions(15, 2, short="skip"))) == 3  # those of 30, 32 and 34 frames
    with pytest.raises(UsageError, match="none of 6 videos is left"):
        ClipDataset(small_store, ClipOptions(64, 4, short="skip"))


@pytest.mark.parametrize("collate", [None, ClipDataset.collate])
def test_plain_dataloader(dataset: ClipDataset, collate: object) -> None:
    options = {} if collate is None else {"collate_fn": collate}
    batches = list(DataLoader(dataset, batch_size=3, **options))  # type: ignore[arg-type]
    assert len(batches) == 2 and all(isinstance(batch, Batch) for batch in batches)
    for number, batch in enumerate(batches):
        for slot in range(3):
            assert equal(Batch(**{name: batch[name][slot] for name in FIELDS}), dataset[number * 3 + slot])


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_dataloader_workers_give_the_same(dataset: ClipDataset, start: str) -> None:
    _ = dataset[0]  # files are open before the workers start
    loader = DataLoader(
        dataset, batch_size=2, num_workers=1, multiprocessing_context=start, collate_fn=ClipDataset.collate
    )
    for number, batch in enumerate(loader):
        assert equal(batch, ClipDataset.collate(dataset.__getitems__([2 * number, 2 * number + 1])))


def test_collating_together_copies_nothing(dataset: ClipDataset) -> None:
    samples = dataset.__getitems__([1, 2])
    assert ClipDataset.collate(samples).frames.data_ptr() == samples[0].frames.data_ptr()
    apart = ClipDataset.collate([samples[0], dataset[2]])
    assert equal(apart, ClipDataset.collate(samples))


def test_filters_name_what_they_lack(small_store: Path, dataset: ClipDataset) -> None:
    with pytest.raises(UsageError, match="has no split 'train'; it has: none"):
        ClipDataset(small_store, splits=["train"])
    grades = [dataset.store.row(video).shots[0].grade for video in range(6)]
    for least in "ABCDE":
        good = sum(grade is not None and grade <= least for grade in grades)
        if good:
            assert len(ClipDataset(small_store, min_grade=least)) == good
        else:
            with pytest.raises(UsageError, match="none of 6 videos"):
                ClipDataset(small_store, min_grade=least)
    assert len(ClipDataset(small_store, labelled=True)) == 6
    for wrong in (6, -1):
        with pytest.raises(IndexError, match="6 samples"):
            dataset.fill(dataset.allocate(1), 0, wrong)


@pytest.mark.parametrize(("name", "value"), [("num_frames", 0), ("sampling", "best"), ("short", "stretch")])
def test_wrong_options_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        ClipOptions(**{name: value})  # type: ignore[arg-type]


def test_a_store_without_frames_is_refused(video_folder: Path, tmp_path: Path) -> None:
    build_shards(Setup([video_folder], tmp_path / "s", jobs=1), Silent(), size=None, frames="none")
    with pytest.raises(UsageError, match="build-shards"):
        ClipDataset(tmp_path / "s")


def test_reading_reuses_memory(dataset: ClipDataset) -> None:
    batch = dataset.allocate(4)
    for index in range(4):
        dataset.fill(batch, index, index)
    tracemalloc.start()
    for _ in range(20):
        for index in range(4):
            dataset.fill(batch, index, index)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000


def test_batches_are_mappings_with_fixed_names(dataset: ClipDataset) -> None:
    sample = dataset[0]
    assert dict(sample).keys() == set(FIELDS)
    with pytest.raises(KeyError, match="no field 'x'"):
        sample["x"] = torch.zeros(1)
    with pytest.raises(TypeError):
        del sample["frames"]
    assert sample.to("cpu").frames is sample.frames
