"""Memory that runs out at each call inside the writer of a shard: a video is added whole or not at all.

`MemoryError` is raised before each call of a function, of bgaug or native, from the code of the store, one call after
another. Everything that needs memory is behind such a call.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import pytest
from stores import NUM_FRAMES, SIZE, grey, header_of, payload_of, plan_of, row_of
from worlds import moving_square

import bgaug
from bgaug.errors import StoreError
from bgaug.labels import Label
from bgaug.names import FrameKind
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shard import Put, ShardTask
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import Header, ShardWriter, VideoRow, create_store, finish_store, open_store, verify_store
from bgaug.video import write_video

PACKAGE = Path(bgaug.__file__).parent
GIVES_BACK = ("__exit__", "close", "give_back")


class OutOfMemory:
    """Counts calls made from some of our files; the one of a number finds no memory. Use it in a `with`.

    Args:
        folders: below the package, whose code is meant.
        at: number of the call that fails, from 0; None only counts.
    """

    def __init__(self, folders: Sequence[str], at: int | None = None) -> None:
        self._folders = tuple(str(PACKAGE / folder) for folder in folders)
        self._at = at
        self.calls = 0
        self.where = ""

    def __enter__(self) -> Self:
        sys.setprofile(self._see)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        caller = frame if event == "c_call" else frame.f_back if event == "call" else None
        if caller is None or not _real(caller.f_code.co_filename).startswith(self._folders):
            return
        if getattr(argument, "__name__", "") == "close" or frame.f_code.co_name in GIVES_BACK:
            return  # needs no memory, and nothing could give back for it
        self.calls += 1
        if self._at == self.calls - 1:
            self.where = f"{caller.f_code.co_name}:{caller.f_lineno} {getattr(argument, '__name__', event)}"
            raise MemoryError(self.where)


@cache
def _real(path: str) -> str:
    return os.path.realpath(path)


OUT_OF_REACH = OutOfMemory([])
"""Fails nothing."""


@dataclass(frozen=True)
class Videos:
    """Gives what is stored of the videos `0.mp4`, `1.mp4`, ...; memory runs out while the second one is put."""

    memory: OutOfMemory

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        number = int(source.path.stem)
        backgrounds = 1 + number
        payload = payload_of(header, number, num_backgrounds=backgrounds)
        with self.memory if number == 1 else OUT_OF_REACH:
            put(payload)
        return [row_of(number, num_backgrounds=backgrounds)]


def task_of(root: Path, header: Header, memory: OutOfMemory) -> ShardTask:
    sources = [(Source(f"{number}.mp4", root / f"{number}.mp4", 1), Label(None)) for number in range(3)]
    return ShardTask(root, header, (0,), tuple(sources), Videos(memory))


def check_each_has_its_own(root: Path) -> list[str]:
    """Frames, masks and backgrounds of every video that is there are its own; which those are."""
    report = verify_store(root, deep=True)
    assert report.problems == ()
    store = open_store(root)
    for video, name in enumerate(store.videos):
        number = int(name.removesuffix(".mp4"))
        clip, masks = store.clip(video, 0, NUM_FRAMES), store.masks(video, 0, NUM_FRAMES)
        assert abs(clip.astype(int) - grey(number)).max() <= 3
        assert (masks == (number % 2 == 0)).all()
        for shot in range(number + 1):
            assert (store.background(video, shot).image == grey(number)).all(), "another video's background"
    return list(store.videos)


# Memory may run out between a file's opening and the `with` that closes it: then the last reference closes it.
CLOSED_LATER = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def chosen(count: int, most: int | None) -> list[int]:
    return list(range(count)) if most is None else sorted(random.Random(0).sample(range(count), min(most, count)))


def fail_puts(folder: Path, frames: FrameKind, most: int | None, report: list[str]) -> None:
    counted = OutOfMemory(["store", "mask", "background"])
    header = create_store(folder / "all", header_of(frames), plan_of(3))
    task_of(folder / "all", header, counted)(lambda place: None)
    finish_store(folder / "all")
    assert check_each_has_its_own(folder / "all") == ["0.mp4", "1.mp4", "2.mp4"] and counted.calls > 50
    steps = chosen(counted.calls, most)
    for step in steps:
        root, memory = folder / f"{step}", OutOfMemory(["store", "mask", "background"], step)
        header = create_store(root, header_of(frames), plan_of(3))
        failures = task_of(root, header, memory)(lambda place: None)
        assert [(failure.id, failure.reason) for failure in failures] == [("1.mp4", "crashed")], memory.where
        assert "out of memory" in failures[0].message
        finish_store(root)
        assert check_each_has_its_own(root) == ["0.mp4", "2.mp4"], memory.where
    report.append(f"memory ran out at {len(steps)} of {counted.calls} calls of put ({frames}): all held")


@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_a_video_is_put_whole_or_not_at_all(tmp_path: Path, frames: FrameKind, report: list[str]) -> None:
    fail_puts(tmp_path, frames, 8, report)


@pytest.mark.full
@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_a_video_is_put_whole_or_not_at_all_at_every_call(tmp_path: Path, frames: FrameKind, report: list[str]) -> None:
    fail_puts(tmp_path, frames, None, report)


def fail_shards(folder: Path, most: int | None, report: list[str]) -> None:
    """Anywhere in the work on a shard, with its first lock and its commit."""
    folders = ["store", "mask", "background", "pipelines"]
    counted = OutOfMemory(folders)
    header = create_store(folder / "all", header_of(), plan_of(3))
    with counted:
        task_of(folder / "all", header, OUT_OF_REACH)(lambda place: None)
    finish_store(folder / "all")
    whole, steps, ended = verify_store(folder / "all").content_hash, chosen(counted.calls, most), 0
    for step in steps:
        root = folder / f"{step}"
        header = create_store(root, header_of(), plan_of(3))
        try:
            with OutOfMemory(folders, step) as memory:
                task_of(root, header, OUT_OF_REACH)(lambda place: None)
        except StoreError as error:
            ended += 1
            assert "out of memory" in str(error) and str(root) in str(error)
        if (root / "shards" / "00000").exists():
            finish_store(root)
            seen = check_each_has_its_own(root)
            assert len(seen) == 3 or len(open_store(root).failures) == 3 - len(seen), memory.where
        task = task_of(root, header, OUT_OF_REACH)
        ShardTask(root, header, (0,), task.videos, task.each_video, replace=True)(lambda place: None)
        finish_store(root)
        assert verify_store(root).content_hash == whole, memory.where
        assert {path.name for path in (root / "shards").iterdir()} == {"00000"}
    report.append(
        f"memory ran out at {len(steps)} of {counted.calls} calls of a shard ({ended} ended the run): all held"
    )


def test_a_shard_is_made_whole_or_not_at_all(tmp_path: Path, report: list[str]) -> None:
    fail_shards(tmp_path, 8, report)


@pytest.mark.full
def test_a_shard_is_made_whole_or_not_at_all_at_every_call(tmp_path: Path, report: list[str]) -> None:
    fail_shards(tmp_path, None, report)


def fail_builds(folder: Path, most: int, report: list[str]) -> None:
    """Anywhere in the work on real files: decoding, cuts, backgrounds, masks."""
    folders = ["video", "shots", "estimate", "quality", "background", "mask", "sizing", "pipelines", "store"]
    (folder / "v").mkdir()
    for number in range(2):
        write_video(folder / "v" / f"{number}.mp4", moving_square(number, 30, 24, 32, side=6)[0])
    options = VideoOptions(method="median", num_samples=9)

    def build(out: Path, *, retry: bool = False) -> Any:
        setup = ShardOptions(inputs=[folder / "v"], out=out, in_process=True, retry_failed=retry)
        return build_shards(replace(setup, video=options, size=(24, 32)), Silent())

    build(folder / "all")
    whole = open_store(folder / "all")
    counted = OutOfMemory(folders)
    with counted:
        build(folder / "counted")
    steps, failed = chosen(counted.calls, most), 0
    for step in steps:
        out = folder / f"{step}"
        run: Callable[[], Any] = lambda: build(out)  # noqa: B023
        try:
            with OutOfMemory(folders, step) as memory:
                run()
        except (StoreError, MemoryError):
            failed += 1
        if (out / "zarr.json").exists() and verify_store(out).problems == ():
            store = open_store(out)
            for video, name in enumerate(store.videos):
                other = whole.find(name)
                assert store.row(video).content == whole.row(other).content, memory.where
                assert np.array_equal(store.background(video, 0).image, whole.background(other, 0).image)
        build(out, retry=True)
        assert verify_store(out, deep=True).content_hash == verify_store(folder / "all").content_hash, memory.where
    report.append(f"memory ran out at {len(steps)} of {counted.calls} calls of a build ({failed} ended it): all held")


@CLOSED_LATER
def test_a_build_is_right_or_reports_what_is_missing(tmp_path: Path, report: list[str]) -> None:
    fail_builds(tmp_path, 4, report)


@CLOSED_LATER
@pytest.mark.full
def test_a_build_is_right_or_reports_what_is_missing_at_hundreds_of_calls(tmp_path: Path, report: list[str]) -> None:
    fail_builds(tmp_path, 400, report)


# --- what is handed in wrongly ----------------------------------------------------------------------------------------


def test_what_was_put_of_a_video_that_fails_afterwards_is_taken_back(tmp_path: Path) -> None:
    class Fails(Videos):
        def __call__(self, source: Source, *args: Any, **more: Any) -> list[VideoRow]:
            rows = super().__call__(source, *args, **more)
            if source.path.stem == "1":
                raise RuntimeError("afterwards")
            return rows

    header = create_store(tmp_path / "s", header_of(), plan_of(3))
    task = task_of(tmp_path / "s", header, OUT_OF_REACH)
    failures = ShardTask(tmp_path / "s", header, (0,), task.videos, Fails(OUT_OF_REACH))(lambda place: None)
    assert [failure.message for failure in failures] == ["RuntimeError: afterwards"]
    finish_store(tmp_path / "s")
    assert check_each_has_its_own(tmp_path / "s") == ["0.mp4", "2.mp4"]


@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_a_commit_whose_rows_and_arrays_do_not_agree_is_refused(tmp_path: Path, frames: FrameKind) -> None:
    header = create_store(tmp_path / "s", header_of(frames), plan_of(2))
    with ShardWriter(tmp_path / "s", header, 0) as writer:
        writer.put(payload_of(header, 0))  # and no row of it
        writer.add(row_of(1), payload_of(header, 1))
        with pytest.raises(StoreError, match="rows and arrays do not agree"):
            writer.commit()
    assert not (tmp_path / "s" / "shards" / "00000").exists()


def test_a_row_must_name_every_background_that_was_put(tmp_path: Path) -> None:
    header = create_store(tmp_path / "s", header_of(), plan_of(2))
    with ShardWriter(tmp_path / "s", header, 0) as writer:
        writer.add(row_of(0, num_backgrounds=1), payload_of(header, 0, num_backgrounds=2))
        writer.add(row_of(1), payload_of(header, 1))
        with pytest.raises(StoreError, match="rows and arrays do not agree"):
            writer.commit()


def test_nothing_is_left_of_a_first_video_that_was_taken_back(tmp_path: Path) -> None:
    header = create_store(tmp_path / "s", header_of(), plan_of(1, 1))
    bad = payload_of(header, 0)
    bad.checksums.pop()
    with ShardWriter(tmp_path / "s", header, 0) as writer:
        with pytest.raises(ValueError, match="an image for each of 20 frames, got 19"):
            writer.add(row_of(0), bad)
        writer.commit()
    with ShardWriter(tmp_path / "s", header, 1) as writer:
        writer.commit()
    first, second = (tmp_path / "s" / "shards" / name for name in ("00000", "00001"))
    assert {path.relative_to(first) for path in first.rglob("*")} == {p.relative_to(second) for p in second.rglob("*")}
    assert np.prod(SIZE) > 0
