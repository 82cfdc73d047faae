from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from bgaug.data.batch import FIELDS, Batch
from bgaug.data.dataset import ClipDataset, ClipOptions, _below, _random_words, _Short
from bgaug.errors import UsageError
from bgaug.names import MasksFrom
from bgaug.pairs.masks import unpack_masks
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import Store, open_store
from bgaug.store.format.records import GRADES, MASKS_FROM


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(a[name], b[name]) for name in FIELDS)


@pytest.fixture
def dataset(small_store: Path) -> ClipDataset:
    return ClipDataset(small_store, ClipOptions(num_frames=8, stride=2), seed=3)


def tiled(store: Store, times: int) -> Store:
    """The store with all its videos several times over: an index as large as one likes."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(store.columns):
        column = getattr(store.columns, field.name)
        if field.name.endswith("_offsets"):
            counts = np.concatenate([np.diff(column)] * times)
            values[field.name] = np.concatenate([[0], np.cumsum(counts)]).astype(column.dtype)
        else:
            values[field.name] = np.concatenate([column] * times)
    large = copy.copy(store)
    large.columns = dataclasses.replace(store.columns, **values)
    return large


def cut(store: Store, video: int, *cuts: int, without_background: int | None = None) -> Store:
    """The store as if one of its videos had been cut at these frames; its shots share their background."""
    c = store.columns
    place = int(c.shot_offsets[video])
    assert c.shot_offsets[video + 1] == place + 1
    values: dict[str, Any] = {"shot_offsets": c.shot_offsets + len(cuts) * (np.arange(len(store) + 1) > video)}
    for field in dataclasses.fields(c):
        if field.name.startswith("shot_") and field.name != "shot_offsets":
            column = getattr(c, field.name)
            values[field.name] = np.insert(column, [place] * len(cuts), column[place])
    shots = slice(place, place + len(cuts) + 1)
    values["shot_start"][shots] = [0, *cuts]
    values["shot_stop"][shots] = [*cuts, store.num_frames(video)]
    if without_background is not None:
        values["shot_background"][place + without_background] = -1
    changed = copy.copy(store)
    changed.columns = dataclasses.replace(c, **values)
    return changed


def timed(store: Store, monkeypatch: pytest.MonkeyPatch, times: NDArray[np.float64]) -> Store:
    """The store as if the frames of each video had these times."""
    changed = copy.copy(store)
    monkeypatch.setattr(changed, "pts_at", lambda video, frames: times[frames])
    return changed


def frames_of(sample: Batch, times: NDArray[np.float64]) -> list[list[int]]:
    """Which frames the views of a sample show, identified by their times."""
    found: list[list[int]] = np.searchsorted(times, sample.pts_seconds.numpy()).tolist()
    return found


def drawn(dataset: ClipDataset, index: int, epochs: int) -> Counter[tuple[int, int]]:
    """How often each (shot, first frame) is drawn."""
    batch, counts = dataset.allocate(1), Counter[tuple[int, int]]()
    for epoch in range(epochs):
        dataset.fill(batch, 0, index, epoch)
        counts.update((int(batch.shot[0]), start) for start in batch.start[0].tolist())
    return counts


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
        shot = int(store.columns.shot_offsets[video]) + int(sample.shot)
        assert int(sample.grade) == int(store.columns.shot_grade[shot]) > 0
        assert int(sample.label) == store.columns.label[video] and sample.box.tolist() == [0, 0, 48, 64]


def test_a_sample_depends_on_only_seed_epoch_and_index(small_store: Path, dataset: ClipDataset) -> None:
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
def test_short_shots_follow_their_policy(small_store: Path, short: _Short, expected: list[int]) -> None:
    store = open_store(small_store)
    stride = 12  # the longest video has 34 frames: three fit
    video = int(np.argmax(store.columns.num_frames))
    dataset = ClipDataset(store, ClipOptions(num_frames=5, stride=stride, short=short))
    sample = dataset[int(np.flatnonzero(dataset.videos == video)[0])]
    assert int(sample.start[0]) == 0
    times = store.pts_seconds(video, 0, 3, stride)
    assert np.array_equal(sample.pts_seconds[0].numpy(), times[expected])
    assert np.array_equal(sample.frames[0].numpy(), store.clip(video, 0, 3, stride)[expected])


@pytest.mark.parametrize("options", [ClipOptions(5, 3), ClipOptions(5, 3, sampling="uniform"), ClipOptions(5, 12)])
def test_at_an_even_rate_seconds_are_frames(small_store: Path, options: ClipOptions) -> None:
    frames = ClipDataset(small_store, options, seed=2)
    seconds = ClipDataset(
        small_store, dataclasses.replace(options, stride=1, stride_seconds=options.stride / 25), seed=2
    )
    for index in range(6):
        assert equal(frames[index], seconds[index])


def test_seconds_are_kept_where_the_rate_varies(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.random.default_rng(0).choice([0.01, 0.02, 0.04, 0.2, 0.5], 34)
    times = 3.0 + np.cumsum(steps)
    dataset = ClipDataset(
        timed(open_store(small_store), monkeypatch, times), ClipOptions(num_frames=6, stride_seconds=0.3)
    )
    for index in range(6):
        video = int(dataset.videos[index])
        last = times[dataset.store.num_frames(video) - 1]
        fits = {first for first, begin in enumerate(times) if begin + 5 * 0.3 <= last}
        assert {start for _, start in drawn(dataset, index, 200)} == fits
        for epoch in range(10):
            dataset.set_epoch(epoch)
            sample = dataset[index]
            for view, frames in enumerate(frames_of(sample, times)):
                assert frames[0] == sample.start[view]
                target = times[frames[0]] + 0.3 * np.arange(6)
                distance = np.abs(times[: dataset.store.num_frames(video), None] - target)
                assert np.allclose(np.abs(times[frames] - target), distance.min(axis=0))
                stored = dataset.store.frames_at(video, np.array(frames))
                assert np.array_equal(sample.frames[view].numpy(), stored)
                packed = dataset.store.packed_masks_at(video, np.array(frames))
                assert np.array_equal(sample.masks[view].numpy(), packed)


@pytest.mark.parametrize(("short", "expected"), [("loop", [0, 3, 5, 0, 3]), ("pad", [0, 3, 5, 5, 5])])
def test_shots_short_in_time_follow_their_policy(
    small_store: Path, monkeypatch: pytest.MonkeyPatch, short: _Short, expected: list[int]
) -> None:
    times = np.concatenate([[0.0, 0.1, 0.2, 0.5, 0.85, 1.1], 1.2 + 0.01 * np.arange(40)])
    store = timed(cut(open_store(small_store), 0, 6), monkeypatch, times)
    options = ClipOptions(num_frames=5, stride_seconds=0.5, short=short, min_shot_seconds=0)
    dataset = ClipDataset(store, options)
    seen = 0
    for epoch in range(60):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        if int(sample.shot) == 0:
            seen += 1
            assert frames_of(sample, times) == [expected, expected]
    assert seen


def test_shots_short_in_time_can_be_left_out(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.concatenate([0.5 * np.arange(10), 5 + 0.01 * np.arange(30)])
    store = timed(cut(open_store(small_store), 0, 10), monkeypatch, times)
    options = ClipOptions(num_frames=5, stride_seconds=1.0, short="skip")
    assert {shot for shot, _ in drawn(ClipDataset(store, options), 0, 50)} == {0}
    # 4.5 s to the last of ten frames; videos without a cut have 24 to 34 frames, and 5.13 to 5.23 s.
    for seconds, kept in ((1.1, [0, 1, 2, 3, 4, 5]), (1.2, [1, 2, 3, 4, 5]), (1.3, [2, 5])):
        longer = dataclasses.replace(options, stride_seconds=seconds)
        assert ClipDataset(store, longer).videos.tolist() == kept
    with pytest.raises(UsageError, match="none of 6 videos is left"):
        ClipDataset(store, dataclasses.replace(options, stride_seconds=2.0))


def test_times_of_shots_that_are_long_by_far_are_not_read(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = open_store(small_store), list[int]()
    read = store.pts_at

    def pts_at(video: int, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.append(store.num_frames(video))
        return read(video, frames)

    monkeypatch.setattr(store, "pts_at", pts_at)
    # At 25 a second the last of n frames comes n - 1 frames behind the first, and four clips span 28.
    dataset = ClipDataset(store, ClipOptions(num_frames=8, stride_seconds=1 / 25, short="skip"))
    assert len(dataset) == 6 and sorted(asked) == [24, 26, 28]


def test_a_clip_lies_in_one_shot_and_shots_are_drawn_by_length(small_store: Path) -> None:
    dataset = ClipDataset(cut(open_store(small_store), 3, 8), ClipOptions(4, 2, min_shot_seconds=0))
    counts = drawn(dataset, 3, 3000)  # shots of 8 and 16 frames
    assert set(counts) == {(0, 0), (0, 1), *((1, start) for start in range(8, 18))}
    short = sum(count for (shot, _), count in counts.items() if shot == 0)
    assert short == pytest.approx(2000, abs=2 * 5 * math.sqrt(3000 * 2 / 9))  # two views a draw
    for start in range(8, 18):
        assert counts[1, start] == pytest.approx(400, abs=5 * math.sqrt(400))


def test_fragments_are_not_drawn_where_there_is_a_longer_shot(small_store: Path) -> None:
    def shots(store: Store, seconds: float) -> set[int]:
        return {shot for shot, _ in drawn(ClipDataset(store, ClipOptions(3, 1, min_shot_seconds=seconds)), 3, 200)}

    store = cut(open_store(small_store), 3, 4, 10)  # shots of 4, 6 and 14 frames, at 25 a second
    assert shots(store, 0) == {0, 1, 2}
    assert shots(store, 4 / 25) == {0, 1, 2}
    assert shots(store, 5 / 25) == {1, 2}
    assert shots(store, 14 / 25) == {2}
    assert shots(store, 1) == {0, 1, 2}  # all are fragments, and so is the whole video: it stays
    assert len(ClipDataset(store, ClipOptions(3, 1))) == 6
    # A longer shot counts only where clips can be drawn from it.
    bare = cut(open_store(small_store), 3, 4, 10, without_background=2)
    assert shots(bare, 14 / 25) == {0, 1}
    assert shots(bare, 6 / 25) == {1}


def test_uniform_clips_lie_in_the_longest_shot_that_can_be_used(small_store: Path) -> None:
    options = ClipOptions(4, 1, views=3, sampling="uniform")
    store = cut(open_store(small_store), 0, 4, 10, without_background=2)
    assert set(drawn(ClipDataset(store, options), 0, 2)) == {(1, 4), (1, 5), (1, 6)}
    assert {shot for shot, _ in drawn(ClipDataset(store, options, backgrounds=False), 0, 2)} == {2}


def test_a_skipped_video_may_have_a_long_shot_without_background(small_store: Path) -> None:
    store = cut(open_store(small_store), 0, 4, without_background=1)
    options = ClipOptions(5, 1, short="skip")
    assert ClipDataset(store, options).videos.tolist() == [1, 2, 3, 4, 5]
    assert len(ClipDataset(store, options, backgrounds=False)) == 6


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
    for wrong_grade in ("", "G", "b"):
        with pytest.raises(UsageError, match="min_grade must be one of A, B, C, D, E, F, or None, got"):
            ClipDataset(small_store, min_grade=wrong_grade)
    for wrong in (6, -1):
        with pytest.raises(IndexError, match="6 samples"):
            dataset.fill(dataset.allocate(1), 0, wrong)


def graded(store: Store, video: int, grades: str, origins: tuple[MasksFrom, ...] = ()) -> Store:
    """The store as if the shots of a video had these grades ("-" for none) and masks from there."""
    c = copy.copy(store)
    place = int(store.columns.shot_offsets[video])
    grade, origin = store.columns.shot_grade.copy(), store.columns.shot_masks_from.copy()
    grade[place : place + len(grades)] = [GRADES.index(letter.strip("-")) for letter in grades]
    origin[place : place + len(origins)] = [MASKS_FROM.index(name) for name in origins]
    c.columns = dataclasses.replace(store.columns, shot_grade=grade, shot_masks_from=origin)
    return c


def test_shots_with_a_worse_grade_are_left_out(small_store: Path) -> None:
    store = graded(cut(open_store(small_store), 3, 8, 16), 3, "FBE")
    others = [video for video in range(6) if video != 3]
    for video in others:
        store = graded(store, video, "A")
    options = ClipOptions(4, 1, min_shot_seconds=0)
    for least, kept in ((None, {0, 1, 2}), ("F", {0, 1, 2}), ("E", {1, 2}), ("D", {1}), ("B", {1})):
        dataset = ClipDataset(store, options, min_grade=least)
        assert {shot for shot, _ in drawn(dataset, 3, 60)} == kept and len(dataset) == 6
        assert dataset.left_out.shots == ({"grade": 3 - len(kept)} if len(kept) < 3 else {})
        assert not dataset.left_out.videos and dataset.left_out.to_json()["of_shots"] == 8
    strict = ClipDataset(store, options, min_grade="A")
    assert strict.videos.tolist() == others
    assert strict.left_out.to_json() == {
        "videos": 1,
        "of_videos": 6,
        "shots": 3,
        "of_shots": 8,
        "videos_by_reason": {"grade": 1},
        "shots_by_reason": {"grade": 3},
    }


def test_no_clip_changes_where_nothing_is_left_out(small_store: Path) -> None:
    store = open_store(small_store)
    for video in range(6):
        store = graded(store, video, "E")
    one, other = ClipDataset(store, seed=5), ClipDataset(store, seed=5, min_grade="E")
    assert other.left_out.shots == {} and all(equal(one[index], other[index]) for index in range(6))


def test_a_grade_does_not_judge_masks_from_elsewhere(small_store: Path) -> None:
    """Nor shots without a grade."""
    store = cut(open_store(small_store), 0, 6, 12, 18)
    options = ClipOptions(4, 1, min_shot_seconds=0)
    for video in range(1, 6):
        store = graded(store, video, "A")
    store = graded(store, 0, "FFF-", ("imported", "segmenter", "motion", "background"))
    dataset = ClipDataset(store, options, labels=["run"], min_grade="E")
    assert {shot for shot, _ in drawn(dataset, 0, 80)} == {0, 1, 3} and dataset.left_out.shots["grade"] == 1


def test_a_fragment_does_not_replace_a_shot_with_a_bad_grade(small_store: Path) -> None:
    store = graded(cut(open_store(small_store), 3, 4), 3, "AF")
    options = ClipOptions(3, 1, min_shot_seconds=10 / 25)
    dataset = ClipDataset(store, options, min_grade="E")
    assert 3 not in dataset.videos
    assert dataset.left_out.videos["grade"] >= 1 and dataset.left_out.shots["fragments"] == 1


def test_what_is_left_out_is_counted_by_reason(small_store: Path) -> None:
    """A fragment without a background is left out as a fragment; a graded shot without one because of that."""
    store = graded(cut(open_store(small_store), 3, 3, without_background=0), 3, "-A")
    store = graded(cut(store, 4, 20, without_background=1), 4, "AF")
    store = graded(cut(store, 5, 30, without_background=0), 5, "FA")
    found = ClipDataset(store, ClipOptions(4, 1, short="skip"), min_grade="F").left_out
    assert found.shots == {"fragments": 1, "no_background": 2, "too_short": 1} and found.num_shots == 9
    assert found.videos == {"too_short": 1}


def test_a_grade_that_no_video_has_is_refused_with_the_fix(small_store: Path) -> None:
    store = open_store(small_store)
    for video in range(6):
        store = graded(store, video, "F")
    with pytest.raises(UsageError, match=r"none of 6 videos is left.*min_grade=None \(--min-grade none\) keeps all"):
        ClipDataset(store, min_grade="E")


def test_the_box_of_a_padded_picture_is_given(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(small_store)
    store.header = dataclasses.replace(store.header, fit="pad")
    monkeypatch.setattr(store, "content_box", lambda video: (video, 2, 30, 40))
    assert ClipDataset(store)[5].box.tolist() == [5, 2, 30, 40]


def test_classes_and_statuses_are_kept_by_name(small_store: Path) -> None:
    store = open_store(small_store)
    for name in ("run", "walk"):
        kept = ClipDataset(store, labels=[name])
        assert [
            identity.split("/")[0]
            for identity in kept.video_ids(ClipDataset.collate([*map(kept.__getitem__, (0, 1, 2))]))
        ] == [name] * 3
        assert kept.video_ids(kept[0]) == [store.video_id(int(kept.videos[0]))]
    assert len(ClipDataset(store, labels=["run", "walk"])) == 6
    with pytest.raises(UsageError, match="has no class 'swim'; it has: run, walk"):
        ClipDataset(store, labels=["run", "swim"])
    status = store.columns.status.copy()
    status[[1, 4]] = 1
    store.columns = dataclasses.replace(store.columns, status=status)
    assert ClipDataset(store, statuses=["partial"]).videos.tolist() == [1, 4]
    assert ClipDataset(store, statuses=["partial"], labels="run", backgrounds=False).videos.tolist() == [1]
    assert len(ClipDataset(store, statuses=["ok", "partial"])) == 6
    with pytest.raises(UsageError, match="'broken'; it has: ok, partial, no_static_background"):
        ClipDataset(store, statuses=["broken"])
    with pytest.raises(UsageError, match="statuses = .'no_static_background'"):
        ClipDataset(store, statuses=["no_static_background"])


def test_random_words_are_spread_and_scaled_evenly() -> None:
    words = [word for video in range(2000) for word in _random_words(-1, 3, video, 5)]
    assert len(set(words)) == len(words) and all(0 <= word < 2**64 for word in words)
    counts = Counter(_below(10, word) for word in words)
    assert set(counts) == set(range(10))
    assert all(count == pytest.approx(1000, abs=5 * math.sqrt(900)) for count in counts.values())
    assert (_below(7, 0), _below(7, 2**64 - 1), _below(1, 2**64 - 1)) == (0, 6, 0)
    assert _random_words(0, 0, 1, 2) == _random_words(0, 0, 1, 4)[:2]


class _Reader(Dataset[float]):
    """Reads so many samples in a worker and returns how many megabytes belong only to the worker."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset
        self.batch = dataset.allocate(4)

    def __getitem__(self, count: int) -> float:
        for index in np.random.default_rng(count).integers(len(self.dataset), size=count).tolist():
            self.dataset.fill(self.batch, index % 4, index)
        lines = Path("/proc/self/smaps_rollup").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Private_Dirty"))


def test_an_index_of_240_000_videos_stays_small(small_store: Path, report: list[str]) -> None:
    store = tiled(open_store(small_store), 40_000)
    begun = time.process_time()
    dataset = ClipDataset(store, ClipOptions(num_frames=2), min_grade="F", statuses=["ok"], labels=["run", "walk"])
    seconds = time.process_time() - begun
    assert len(dataset) == 240_000
    ids = store.columns.id_bytes.nbytes
    each = (len(pickle.dumps(dataset)) - ids) / len(dataset)
    report.append(f"240,000 videos: {seconds * 1000:.0f} ms to make a dataset, {each:.0f} bytes a video")
    assert seconds < 0.5 and each < 120


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not report private memory")
def test_a_workers_memory_does_not_grow_with_the_index(small_store: Path, report: list[str]) -> None:
    dataset = ClipDataset(tiled(open_store(small_store), 40_000), ClipOptions(num_frames=2))
    loader = DataLoader(
        _Reader(dataset), batch_size=None, sampler=[100, 3000], num_workers=1, multiprocessing_context="fork"
    )
    early, late = loader
    report.append(f"240,000 videos: a worker's own memory grows by {late - early:.1f} MB over 3,000 samples")
    assert late - early < 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 0),
        ("sampling", "best"),
        ("short", "stretch"),
        ("stride_seconds", 0.0),
        ("stride_seconds", math.nan),
        ("stride_seconds", math.inf),
        ("min_shot_seconds", -1.0),
        ("min_shot_seconds", math.inf),
    ],
)
def test_wrong_options_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        ClipOptions(**{name: value})  # type: ignore[arg-type]


def test_a_store_without_frames_is_refused(video_folder: Path, tmp_path: Path) -> None:
    build_shards(ShardOptions(inputs=[video_folder], out=tmp_path / "s", jobs=1, size=None, frames="none"), Silent())
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
