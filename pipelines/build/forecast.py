"""Size and time of a store, extrapolated from a pilot: a hundredth of the videos, built in a temporary folder."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.errors import UsageError
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import BuildOptions
from bgaug.pipelines.build.plan import find_labels, plan_videos
from bgaug.pipelines.build.run import labelled, processors, run_shards
from bgaug.pipelines.build.shard import EachVideo, ShardTask
from bgaug.progress import Progress
from bgaug.store import Header, Plan, PlannedVideo, create_store, plan_shards
from bgaug.store.format.layout import SHARDS, bytes_by_array, read_commit, shard_name

_PILOT_SHARE, _MIN_PILOT = 0.01, 4


@dataclass(frozen=True)
class Forecast:
    """Expected size and time of a build.

    Attributes:
        videos: number of videos in the whole set.
        pilot: number of videos that were built.
        failed: number of those that failed.
        bytes_by_array: expected bytes, by array.
        seconds: expected time with `jobs` processes.
        jobs: number of processes.
        spread: relative standard error of bytes and seconds, estimated from the pilot; None for a pilot of one video.
    """

    videos: int
    pilot: int
    failed: int
    bytes_by_array: dict[str, int]
    seconds: float
    jobs: int
    spread: float | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "videos": self.videos,
            "pilot": self.pilot,
            "pilot_failed": self.failed,
            "bytes": sum(self.bytes_by_array.values()),
            "bytes_by_array": self.bytes_by_array,
            "seconds": round(self.seconds, 1),
            "jobs": self.jobs,
            "spread": None if self.spread is None else round(self.spread, 3),
        }


def forecast(
    options: BuildOptions, sources: Sequence[Source], each_video: EachVideo, header: Header, progress: Progress
) -> Forecast:
    """Build a hundredth of the videos, at least four, in a temporary folder, and extrapolate.

    Videos are weighted by the number of frames that their containers declare. The place of the store stays untouched.
    Arguments are those of `bgaug.pipelines.build.run.build_store`.

    Raises:
        UsageError: no video of the pilot could be used.
    """
    labels = find_labels(options, sources, progress)
    plan = plan_videos(sources, header, options)
    videos = [video for shard in plan.shards for video in shard if video.part == 0]
    chosen = _spread_out(videos)
    by_id = {source.id: source for source in sources}
    jobs = min(options.jobs or processors(), len(plan.shards))
    with tempfile.TemporaryDirectory(prefix="bgaug-pilot-") as folder:
        root = Path(folder) / "store"
        # One shard per video measures time and size of each.
        pilot = Plan(tuple(shard for video in chosen for shard in plan_shards([video]).shards))
        header = create_store(root, labelled(header, labels), pilot)
        tasks = [
            ShardTask(root, header, shards, ((by_id[video.id], labels.of(video.id)),), each_video)
            for video, shards in zip(chosen, _shards_of(pilot), strict=True)
        ]
        progress.start("pilot", len(chosen))
        seconds = run_shards(tasks, replace(options, jobs=jobs), progress)
        sizes, failed = [], 0
        for task in tasks:
            commits = [read_commit(root / SHARDS / shard_name(shard)) for shard in task.shards]
            failed += sum(len(commit["failures"]) for commit in commits)
            sizes.append(sum((Counter(bytes_by_array(commit)) for commit in commits), Counter[str]()))
    if failed == len(chosen):
        raise UsageError(f"none of the {failed} videos of the pilot could be used; the first is {chosen[0].id}")
    weights = np.array([video.estimate for video in chosen], np.float64)
    scale = sum(video.estimate for video in videos) / weights.sum()
    total: Counter[str] = sum(sizes, Counter())
    return Forecast(
        videos=len(videos),
        pilot=len(chosen),
        failed=failed,
        bytes_by_array={name: round(count * scale) for name, count in sorted(total.items())},
        seconds=float(sum(seconds) * scale / jobs),
        jobs=jobs,
        spread=_spread(np.array([size.total() for size in sizes]), weights, len(videos)),
    )


def _spread_out(videos: Sequence[PlannedVideo]) -> list[PlannedVideo]:
    """A hundredth of the videos, from short ones to long ones."""
    count = min(len(videos), max(_MIN_PILOT, math.ceil(len(videos) * _PILOT_SHARE)))
    ordered = sorted(videos, key=lambda video: (video.estimate, video.id))
    return [ordered[int((place + 0.5) * len(ordered) / count)] for place in range(count)]


def _shards_of(pilot: Plan) -> list[tuple[int, ...]]:
    firsts = [shard for shard, videos in enumerate(pilot.shards) if videos[0].part == 0]
    return [tuple(range(first, first + pilot.shards[first][0].parts)) for first in firsts]


def _spread(sizes: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], videos: int) -> float | None:
    """Relative standard error of a ratio estimate."""
    count = len(sizes)
    if count < 2:
        return None
    rest = sizes - sizes.sum() / weights.sum() * weights
    error = math.sqrt((rest**2).sum() / (count - 1) / count * max(0.0, 1 - count / videos))
    return float(error / sizes.mean())
