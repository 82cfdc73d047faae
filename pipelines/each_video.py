"""Every video of a set, into the shards of a store: spread over processes, watched, resumed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bgaug import __version__
from bgaug.annotations import Label, Labels
from bgaug.errors import BgaugError, StoreError, UsageError, VideoError
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.sources import Source, find_labels, plan_videos
from bgaug.pipelines.worker import Begins, WorkerLost, run_tasks
from bgaug.sizing import Fit, Size
from bgaug.store import (
    Failure,
    FrameKind,
    Header,
    Identity,
    Plan,
    ShardWriter,
    VideoPayload,
    VideoRow,
    create_store,
    finish_store,
    identify,
    pending_shards,
)
from bgaug.store.index import parse_failures
from bgaug.store.layout import SHARDS, bytes_by_array, read_commit, shard_name
from bgaug.store.write import Placed


@dataclass(frozen=True)
class Setup:
    """What every offline command is told beside its own options.

    Attributes:
        inputs: folders, walked recursively, and files.
        out: the store.
        labels: a CSV, or None for class folders.
        jobs: processes; 0 for one a processor.
        overwrite: begin the store anew.
        retry_failed: build shards again that hold failures.
        timeout_seconds: that one video may take; 0 for no limit. It does not decide what is stored.
        in_process: work in this very process, one shard after another. What hangs or crashes then costs the run;
            `jobs` and `timeout_seconds` mean nothing.
    """

    inputs: Sequence[Path]
    out: Path
    labels: Path | None = None
    jobs: int = 0
    overwrite: bool = False
    retry_failed: bool = False
    timeout_seconds: float = 600
    in_process: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.timeout_seconds < math.inf:
            raise UsageError(f"timeout_seconds must be 0 (no limit) or more, got {self.timeout_seconds}")


@dataclass(frozen=True)
class Outcome:
    """How a store came out, all of it: also what earlier runs had built.

    Attributes:
        statuses: number of videos by status ("ok", "partial", "no_static_background").
        grades: number of shots by grade, A to F; those too short to be judged have none.
        failures: the videos that could not be used.
        frames: decoded frames accounted for.
        bytes_by_array: bytes of the files in the shards, by array.
        shards: in the store.
        built: shards built by this run; the others were there.
        seconds: that this run took.
    """

    statuses: Mapping[str, int]
    grades: Mapping[str, int]
    failures: tuple[Failure, ...]
    frames: int
    bytes_by_array: Mapping[str, int]
    shards: int
    built: int
    seconds: float

    @property
    def bytes(self) -> int:
        """Of all files in the shards."""
        return sum(self.bytes_by_array.values())

    def to_json(self) -> dict[str, Any]:
        """Counts, for `--json`; `videos` is the sum of the four that follow it."""
        counts = {name: self.statuses.get(name, 0) for name in ("ok", "partial", "no_static_background")}
        stored = max(1, sum(counts.values()))
        return {
            "videos": sum(counts.values()) + len(self.failures),
            **counts,
            "failed": len(self.failures),
            "grades": dict(self.grades),
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shards": self.shards,
            "built": self.built,
            "bytes": self.bytes,
            "bytes_per_video": {name: round(size / stored) for name, size in self.bytes_by_array.items()},
        }


Put = Callable[[VideoPayload], None]
"""Takes what is to be stored of a video, part by part."""


class EachVideo(Protocol):
    """What is done with one video. It travels to the worker processes, so it holds values alone."""

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """Give what is stored of the video to `put`: in one payload, or, of a long one, in up to `parts`.

        Returns:
            A row for each payload, in order.

        Raises:
            VideoError: the video cannot be used; what was put counts for nothing.
        """
        ...


# --- building -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What a command makes of each video.

    Attributes:
        each_video: the work on one.
        size: of the store.
        fit: of the store.
        frames: how the store keeps frames.
        options: all that decides what is stored, by the names of the command line.
    """

    each_video: EachVideo
    size: Size
    fit: Fit
    frames: FrameKind
    options: dict[str, Any] = field(default_factory=dict)


def build_store(setup: Setup, sources: Sequence[Source], recipe: Recipe, progress: Progress) -> Outcome:
    """Build what is missing of a store and finish it.

    Raises:
        StoreOptionsError: the store was begun with other options.
        StoreError: it cannot be written.
    """
    begun = time.monotonic()
    labels = find_labels(setup.labels, sources, progress)
    plan = plan_videos(
        sources,
        recipe.frames,
        recipe.size,
        begun=None if setup.overwrite else setup.out,
        timeout_seconds=setup.timeout_seconds,
        in_process=setup.in_process,
    )
    header = create_store(
        setup.out,
        new_header(recipe, labels),
        plan,
        overwrite=setup.overwrite,
    )
    pending = pending_shards(setup.out, plan, retry_failed=setup.retry_failed)
    waiting = {video.id for shard in pending for video in plan.shards[shard]}
    done = plan.num_videos - len(waiting)
    progress.start("videos", plan.num_videos)
    if done:
        progress.advance(done, "already there")
    by_id = {source.id: source for source in sources}
    tasks = [
        ShardTask(
            setup.out,
            header,
            shards,
            tuple((by_id[video.id], labels.of(video.id)) for video in plan.shards[shards[0]]),
            recipe.each_video,
            replace=setup.retry_failed,
        )
        for shards in _together(plan, pending)
    ]
    run_shards(tasks, setup, progress)
    finish_store(setup.out)
    return _outcome(setup.out, len(plan.shards), len(pending), time.monotonic() - begun, progress)


def _together(plan: Plan, pending: Sequence[int]) -> list[tuple[int, ...]]:
    """Shards that are built in one go: each by itself, but for those that one long video takes up."""
    groups = {shard - plan.shards[shard][0].part: plan.shards[shard][0].parts for shard in pending}
    return [tuple(range(first, first + parts)) for first, parts in groups.items()]


def new_header(recipe: Recipe, labels: Labels) -> Header:
    """Header of a store by this recipe, without its plan."""
    return Header(
        size=recipe.size,
        fit=recipe.fit,
        frames=recipe.frames,
        classes=labels.classes,
        options={**recipe.options, "labels": labels.digest()},
        created_with=__version__,
    )


def run_shards(tasks: Sequence[ShardTask], setup: Setup, progress: Progress) -> list[float]:
    """Build shards, in worker processes unless told otherwise, and tell how far it is.

    Returns:
        Seconds that each task took, from its first video on.
    """
    told = [0] * len(tasks)
    begun = [0.0] * len(tasks)
    seconds = [0.0] * len(tasks)

    def begins(number: int, place: int | None) -> None:
        begun[number] = begun[number] or time.monotonic()
        # A shard may be begun again, but no video is counted twice.
        if place is not None and place > told[number]:
            progress.advance(place - told[number])
            told[number] = place

    def done(number: int, failures: Sequence[Failure]) -> None:
        for failure in failures:
            progress.warn(f"{failure.id}: {failure.message} [{failure.reason}]")
        progress.advance(len(tasks[number].videos) - told[number])
        seconds[number] = time.monotonic() - (begun[number] or time.monotonic())

    if setup.in_process:
        for number, task in enumerate(tasks):
            done(number, task(partial(begins, number)))
    else:
        jobs = setup.jobs or processors()
        run_tasks(tasks, jobs=jobs, timeout_seconds=setup.timeout_seconds, begins=begins, done=done)
    return seconds


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class ShardTask:
    """A shard to build, or the shards of one long video: see `bgaug.pipelines.worker.Task`.

    Attributes:
        root: of the store.
        header: of the store.
        shards: numbers; several for one video that they share.
        videos: of the shard, with their labels.
        each_video: the work on one.
        replace: whether the shard is there and is built again, because of its failures.
        quarantine: by id, videos that took a worker with them; they fail without being touched.
    """

    root: Path
    header: Header
    shards: tuple[int, ...]
    videos: tuple[tuple[Source, Label], ...]
    each_video: EachVideo
    replace: bool = False
    quarantine: Mapping[str, Failure] = field(default_factory=dict)

    def __call__(self, begins: Begins) -> list[Failure]:
        """Build and commit; returns the videos that failed."""
        if len(self.shards) > 1:
            return self._build_long(begins)
        with self._writer(self.shards[0]) as writer:
            if writer.committed is not None:  # another run was quicker
                return parse_failures(writer.committed)
            failures = []
            for place, (source, label) in enumerate(self.videos):
                failure = self.quarantine.get(source.id)
                if failure is None:
                    begins(place)
                    failure = self._add([writer], source, label, lambda: None)
                if failure is not None:
                    failures.append(failure)
                    writer.fail(failure)
            begins(None)
            writer.commit()
            return failures

    def _build_long(self, begins: Begins) -> list[Failure]:
        """The shards of one long video. They become visible together, once it is known to be good.

        Where an earlier run was stopped between them, what it left is kept, unless the file has changed since.
        """
        source, label = self.videos[0]
        failure = self.quarantine.get(source.id)
        if failure is None:
            with ExitStack() as held:
                writers = [held.enter_context(self._writer(shard)) for shard in self.shards]
                if self._has_changed(source, writers):
                    held.close()
                    return replace(self, replace=True)._build_long(begins)
                begins(0)
                # The time limit is for each part anew.
                failure = self._add(writers, source, label, lambda: begins(0))
                begins(None)
                if failure is None:
                    for writer in writers:
                        if writer.committed is None:
                            writer.commit()
                    return []
        for shard in self.shards:
            with ShardWriter(self.root, self.header, shard, replace=True) as writer:
                if shard == self.shards[0]:
                    writer.fail(failure)
                writer.commit()
        return [failure]

    def _has_changed(self, source: Source, writers: Sequence[ShardWriter]) -> bool:
        rows = [row for writer in writers for row in (writer.committed or {"videos": []})["videos"]]
        return any(Identity.model_validate(row["identity"]) != identify(source.path) for row in rows)

    def _writer(self, shard: int) -> ShardWriter:
        return ShardWriter(self.root, self.header, shard, replace=self.replace)

    def _add(
        self, writers: Sequence[ShardWriter], source: Source, label: Label, on_part: Callable[[], None]
    ) -> Failure | None:
        """One video into its shards; those that are there already are left as they are."""
        placed: list[Placed | None] = []

        def put(payload: VideoPayload) -> None:
            writer = writers[len(placed)]
            placed.append(writer.put(payload) if writer.committed is None else None)
            if len(writers) > 1:
                writer.finish()  # it gets no more; many may be open at a time
            on_part()

        try:
            rows = self.each_video(source, label, self.header, put, len(writers))
        except VideoError as error:
            return Failure(id=source.id, reason=error.reason, message=error.message)
        except FileNotFoundError:
            return Failure(id=source.id, reason="missing", message="was there, and is gone")
        except BgaugError:
            raise
        except Exception as error:  # noqa: BLE001
            # One bad video never stops a thousand good ones, whatever it breaks.
            return Failure(id=source.id, reason="crashed", message=f"{type(error).__name__}: {error}")
        for writer, row, place in zip(writers, rows, placed, strict=False):
            if place is not None:
                writer.note(row, place)
        return None

    def without(self, lost: WorkerLost) -> ShardTask:
        """The same shard with the video in quarantine that a worker was lost to.

        Raises:
            StoreError: it was lost to no video, so building the shard again would not help.
            BgaugError: bad videos are to end the run.
        """
        if lost.place is None:
            raise StoreError(self.root / SHARDS / shard_name(self.shards[0]), f"cannot be built: {lost.message}")
        name = self.videos[lost.place][0].id
        if self.header.options.get("on_error") == "fail":
            raise BgaugError(f"{name}: {lost.message} [{lost.reason}]; it ends the run because of --on-error fail")
        failure = Failure(id=name, reason=lost.reason, message=lost.message)
        return replace(self, quarantine={**self.quarantine, name: failure})


def _outcome(root: Path, shards: int, built: int, seconds: float, progress: Progress) -> Outcome:
    statuses: Counter[str] = Counter()
    grades: Counter[str] = Counter()
    failures: list[Failure] = []
    frames = 0
    sizes: Counter[str] = Counter()
    first_with: dict[str, str] = {}
    for shard in range(shards):
        commit = read_commit(root / SHARDS / shard_name(shard))
        failures += [Failure.model_validate(failure) for failure in commit["failures"]]
        sizes.update(bytes_by_array(commit))
        for row in commit["videos"]:
            statuses[row["status"]] += row["first"] == 0
            grades.update(shot["grade"] for shot in row["shots"] if shot["grade"])
            frames += row["num_frames"]
            twin = first_with.setdefault(row["identity"]["sha256"], row["id"])
            if twin != row["id"]:
                progress.warn(f"{row['id']} has the same content as {twin}")
    return Outcome(
        statuses=dict(statuses),
        grades=dict(sorted(grades.items())),
        failures=tuple(failures),
        frames=frames,
        bytes_by_array=dict(sorted(sizes.items())),
        shards=shards,
        built=built,
        seconds=seconds,
    )
