"""All videos of a set into the shards of a store, in several processes; what an earlier run finished is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bgaug import __version__
from bgaug.labels import Labels
from bgaug.pipelines.build.find_videos import FoundVideos, Source
from bgaug.pipelines.build.options import BuildOptions
from bgaug.pipelines.build.plan import find_labels, plan_videos
from bgaug.pipelines.build.shard import EachVideo, ShardTask
from bgaug.pipelines.build.workers import run_tasks
from bgaug.progress import Progress
from bgaug.store import (
    Failure,
    Header,
    Plan,
    StoreCounts,
    building,
    finish_store,
    pending_shards,
)
from bgaug.store.format.layout import SHARDS, read_commit, shard_name


@dataclass(frozen=True)
class Outcome:
    """The content of a store after a build, including what earlier runs had built.

    Attributes:
        statuses: number of videos by status ("ok", "partial", "no_static_background").
        grades: number of shots by grade, A to F; shots too short to be graded have none.
        masks_from: number of shots by where their masks come from; see `bgaug.store.VideoRow.masks_from`.
        short_shots: shots of less than a second next to others: too short to be graded, they have no background.
        transitions: dissolves and fades between shots; each is a shot of its own, without a background or a grade.
        failures: videos that could not be used.
        frames: number of frames in the store.
        bytes_by_array: bytes of the files in the shards, by array.
        shards: number of shards in the store.
        built: shards built by this run; the others existed.
        seconds: duration of this run.
        labels: source of the labels; see `bgaug.labels.Labels.summary`.
        left_out: number of files that are no input, by reason; see `bgaug.pipelines.build.find_videos.LeftOut`.
    """

    statuses: Mapping[str, int]
    grades: Mapping[str, int]
    masks_from: Mapping[str, int]
    short_shots: int
    transitions: int
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
        """Bytes of all files in the shards."""
        return sum(self.bytes_by_array.values())

    def to_json(self) -> dict[str, Any]:
        """Counts, for `--json`; `videos` is the sum of the four counts after it."""
        counts = {name: self.statuses.get(name, 0) for name in ("ok", "partial", "no_static_background")}
        stored = max(1, sum(counts.values()))
        return {
            "videos": sum(counts.values()) + len(self.failures),
            **counts,
            "failed": len(self.failures),
            "grades": dict(self.grades),
            "masks_from": dict(self.masks_from),
            "short_shots": self.short_shots,
            "transitions": self.transitions,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shards": self.shards,
            "built": self.built,
            "bytes": self.bytes,
            "bytes_per_video": {name: round(size / stored) for name, size in self.bytes_by_array.items()},
            "labels": dict(self.labels),
            "left_out": dict(self.left_out),
        }


def build_store(
    options: BuildOptions, sources: Sequence[Source], each_video: EachVideo, header: Header, progress: Progress
) -> Outcome:
    """Build the missing shards of a store and finish it.

    Args:
        options: inputs, store, labels and processes.
        sources: the videos.
        each_video: the work on one video.
        header: of the store, still without labels.
        progress: receives what happens.

    Raises:
        StoreOptionsError: the store was begun with other options.
        StoreError: it cannot be written.
    """
    begun = time.monotonic()
    labels = find_labels(options, sources, progress)
    plan = plan_videos(sources, header, options, None if options.overwrite else options.out)
    with building(options.out, labelled(header, labels), plan, overwrite=options.overwrite) as stored:
        pending = pending_shards(options.out, plan, retry_failed=options.retry_failed)
        waiting = {video.id for shard in pending for video in plan.shards[shard]}
        done = plan.num_videos - len(waiting)
        progress.start("videos", plan.num_videos)
        if done:
            progress.advance(done, "already there")
        by_id = {source.id: source for source in sources}
        tasks = [
            ShardTask(
                options.out,
                stored,
                shards,
                tuple((by_id[video.id], labels.of(video.id)) for video in plan.shards[shards[0]]),
                each_video,
                replace=options.retry_failed,
            )
            for shards in _together(plan, pending)
        ]
        run_shards(tasks, options, progress)
        finish_store(options.out)
        outcome = _outcome(options.out, len(plan.shards), len(pending), time.monotonic() - begun, progress)
        left_out = sources.left_out.to_json() if isinstance(sources, FoundVideos) else {}
        return replace(outcome, labels=labels.summary(list(by_id)), left_out=left_out)


def _together(plan: Plan, pending: Sequence[int]) -> list[tuple[int, ...]]:
    """Shards that are built together: each by itself, except for those that one long video shares."""
    groups = {shard - plan.shards[shard][0].part: plan.shards[shard][0].parts for shard in pending}
    return [tuple(range(first, first + parts)) for first, parts in groups.items()]


def labelled(header: Header, labels: Labels) -> Header:
    """The header of a store with these labels."""
    options = {**header.options, "labels": labels.digest()}
    return replace(header, classes=labels.classes, options=options, created_with=__version__)


def run_shards(tasks: Sequence[ShardTask], options: BuildOptions, progress: Progress) -> list[float]:
    """Build shards, in worker processes unless the options say otherwise, and report progress.

    Returns:
        Seconds that each task took, from its first video on.
    """
    counted = [0] * len(tasks)
    begun = [0.0] * len(tasks)
    seconds = [0.0] * len(tasks)

    def begins(number: int, place: int | None) -> None:
        begun[number] = begun[number] or time.monotonic()
        # A shard may be begun again, but no video is counted twice.
        if place is not None and place > counted[number]:
            progress.advance(place - counted[number])
            counted[number] = place

    def done(number: int, failures: Sequence[Failure]) -> None:
        for failure in failures:
            progress.warn(f"{failure.id}: {failure.message} [{failure.reason}]")
        progress.advance(len(tasks[number].videos) - counted[number])
        seconds[number] = time.monotonic() - (begun[number] or time.monotonic())

    if options.in_process:
        for number, task in enumerate(tasks):
            done(number, task(partial(begins, number)))
    else:
        jobs = options.jobs or processors()
        run_tasks(tasks, jobs=jobs, timeout_seconds=options.timeout_seconds, begins=begins, done=done)
    return seconds


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcome(root: Path, shards: int, built: int, seconds: float, progress: Progress) -> Outcome:
    counts = StoreCounts()
    first_with: dict[str, str] = {}
    for shard in range(shards):
        for row in counts.add(read_commit(root / SHARDS / shard_name(shard))):
            twin = first_with.setdefault(row.identity.sha256, row.id)
            if twin != row.id:
                progress.warn(f"{row.id} has the same content as {twin}")
    return Outcome(
        statuses=dict(counts.statuses),
        grades=dict(sorted(counts.grades.items())),
        masks_from=dict(sorted(counts.masks_from.items())),
        short_shots=counts.short_shots,
        transitions=counts.transitions,
        failures=tuple(counts.failures),
        frames=counts.frames,
        bytes_by_array=dict(sorted(counts.sizes.items())),
        shards=shards,
        built=built,
        seconds=seconds,
    )
