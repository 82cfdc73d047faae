"""Every video of a set, into the shards of a store: spread over processes, watched, resumed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.labels import Labels
from bgaug.pipelines.build.find_videos import FoundVideos, Source, find_videos
from bgaug.pipelines.build.plan import check_label_options, find_labels, plan_videos
from bgaug.pipelines.build.shard import EachVideo, ShardTask
from bgaug.pipelines.build.workers import run_tasks
from bgaug.progress import Progress
from bgaug.sizing import Fit, Size
from bgaug.store import (
    Failure,
    FrameKind,
    Header,
    Plan,
    building,
    finish_store,
    pending_shards,
)
from bgaug.store.format.layout import SHARDS, bytes_by_array, read_commit, shard_name


@dataclass(frozen=True)
class Setup:
    """What every offline command is told beside its own options.

    Attributes:
        inputs: folders, walked recursively, and files.
        out: the store.
        labels: a list of labels or the folder that a data set ships, or None for class folders.
        jobs: processes; 0 for one a processor.
        overwrite: begin the store anew.
        retry_failed: build shards again that hold failures.
        timeout_seconds: that one video may take; 0 for no limit. It does not decide what is stored.
        in_process: work in this very process, one shard after another. What hangs or crashes then costs the run;
            `jobs` and `timeout_seconds` mean nothing.
        labels_format: one of `bgaug.labels.FORMATS`, or "auto" for what lies there.
        labels_split: number of the split, where a data set has several; None for the one of a single file, else 1.
        class_names: file with the names of numbered classes.
        first_class: number that the list has for the first of these, 0 or 1; None to find out.
        columns: what stands on each line of a list without header, such as "path,frames,label"; None to find out.
        layout: which level of folders means what, where no list is given; see `bgaug.labels.labels_from_folders`.
        follow_links: also follow links that lead out of `inputs`.
    """

    inputs: Sequence[Path]
    out: Path
    labels: Path | None = None
    jobs: int = 0
    overwrite: bool = False
    retry_failed: bool = False
    timeout_seconds: float = 600
    in_process: bool = False
    labels_format: str = "auto"
    labels_split: int | None = None
    class_names: Path | None = None
    first_class: int | None = None
    columns: str | None = None
    layout: str = "auto"
    follow_links: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.timeout_seconds < math.inf:
            raise UsageError(f"timeout_seconds must be 0 (no limit) or more, got {self.timeout_seconds}")
        about_a_list = (self.labels_split, self.class_names, self.first_class, self.columns)
        if self.labels is None and (self.labels_format != "auto" or any(one is not None for one in about_a_list)):
            raise UsageError(
                "a format, a split or class names, a first class and columns say how a list of labels is read: give its path too"
            )
        if self.labels is not None and self.layout != "auto":
            raise UsageError("a layout is about folders, and labels are taken from a list: leave out one of the two")
        check_label_options(self.columns, self.layout)

    def find_videos(self, progress: Progress) -> FoundVideos:
        """The videos; see `bgaug.pipelines.build.find_videos.find_videos`."""
        return find_videos(self.inputs, progress, follow_links=self.follow_links)

    def find_labels(self, sources: Sequence[Source], progress: Progress) -> Labels:
        """Labels of the videos; see `bgaug.pipelines.build.plan.find_labels`."""
        return find_labels(
            self.labels,
            sources,
            progress,
            format=self.labels_format,
            split=self.labels_split,
            class_names=self.class_names,
            first_class=self.first_class,
            columns=self.columns,
            layout=self.layout,
        )


@dataclass(frozen=True)
class Outcome:
    """How a store came out, all of it: also what earlier runs had built.

    Attributes:
        statuses: number of videos by status ("ok", "partial", "no_static_background").
        grades: number of shots by grade, A to F; those too short to be judged have none.
        short_shots: shots of less than a second beside others: too short to be judged, they have no background.
        failures: the videos that could not be used.
        frames: decoded frames accounted for.
        bytes_by_array: bytes of the files in the shards, by array.
        shards: in the store.
        built: shards built by this run; the others were there.
        seconds: that this run took.
        labels: what the videos are labelled by; see `bgaug.labels.Labels.summary`.
        left_out: numbers of what lies in the folders and was not taken, by why; see `bgaug.pipelines.build.find_videos.LeftOut`.
    """

    statuses: Mapping[str, int]
    grades: Mapping[str, int]
    short_shots: int
    failures: tuple[Failure, ...]
    frames: int
    bytes_by_array: Mapping[str, int]
    shards: int
    built: int
    seconds: float
    labels: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Any] = field(default_factory=dict)

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
            "short_shots": self.short_shots,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shards": self.shards,
            "built": self.built,
            "bytes": self.bytes,
            "bytes_per_video": {name: round(size / stored) for name, size in self.bytes_by_array.items()},
            "labels": dict(self.labels),
            "left_out": dict(self.left_out),
        }


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
    labels = setup.find_labels(sources, progress)
    plan = plan_videos(
        sources,
        recipe.frames,
        recipe.size,
        begun=None if setup.overwrite else setup.out,
        timeout_seconds=setup.timeout_seconds,
        in_process=setup.in_process,
    )
    with building(setup.out, new_header(recipe, labels), plan, overwrite=setup.overwrite) as header:
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
        outcome = _outcome(setup.out, len(plan.shards), len(pending), time.monotonic() - begun, progress)
        left_out = sources.left_out.to_json() if isinstance(sources, FoundVideos) else {}
        return replace(outcome, labels=labels.summary(list(by_id)), left_out=left_out)


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


def _outcome(root: Path, shards: int, built: int, seconds: float, progress: Progress) -> Outcome:
    statuses: Counter[str] = Counter()
    grades: Counter[str] = Counter()
    failures: list[Failure] = []
    frames = short_shots = 0
    sizes: Counter[str] = Counter()
    first_with: dict[str, str] = {}
    for shard in range(shards):
        commit = read_commit(root / SHARDS / shard_name(shard))
        failures += [Failure.model_validate(failure) for failure in commit["failures"]]
        sizes.update(bytes_by_array(commit))
        for row in commit["videos"]:
            statuses[row["status"]] += row["first"] == 0
            grades.update(shot["grade"] for shot in row["shots"] if shot["grade"])
            short_shots += sum(shot["grade"] is None for shot in row["shots"])
            frames += row["num_frames"]
            twin = first_with.setdefault(row["identity"]["sha256"], row["id"])
            if twin != row["id"]:
                progress.warn(f"{row['id']} has the same content as {twin}")
    return Outcome(
        statuses=dict(statuses),
        grades=dict(sorted(grades.items())),
        short_shots=short_shots,
        failures=tuple(failures),
        frames=frames,
        bytes_by_array=dict(sorted(sizes.items())),
        shards=shards,
        built=built,
        seconds=seconds,
    )
