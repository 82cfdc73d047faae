"""Every video of a set, into the shards of a store: found, planned, spread over processes, resumed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import joblib

from bgaug import __version__
from bgaug.annotations import Label, Labels, labels_from_folders, read_labels
from bgaug.errors import BgaugError, UsageError, VideoError
from bgaug.pipelines.progress import Progress
from bgaug.sizing import Fit, Size
from bgaug.store import (
    Failure,
    FrameKind,
    Header,
    Plan,
    PlannedVideo,
    ShardWriter,
    VideoPayload,
    VideoRow,
    create_store,
    finish_store,
    pending_shards,
    plan_shards,
)
from bgaug.store.layout import SHARDS, read_commit, shard_name
from bgaug.video import EXTENSIONS, declared_length, open_video


@dataclass(frozen=True)
class Source:
    """A video to work on."""

    id: str
    path: Path
    bytes: int


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
    """

    inputs: Sequence[Path]
    out: Path
    labels: Path | None = None
    jobs: int = 0
    overwrite: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a store came out, all of it: also what earlier runs had built.

    Attributes:
        statuses: number of videos by status ("ok", "partial", "no_static_background").
        failures: the videos that could not be used.
        frames: decoded frames accounted for.
        bytes: of the files in the shards.
        shards: in the store.
        built: shards built by this run; the others were there.
        seconds: that this run took.
    """

    statuses: Mapping[str, int]
    failures: tuple[Failure, ...]
    frames: int
    bytes: int
    shards: int
    built: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Counts, for `--json`; `videos` is the sum of the four that follow it."""
        counts = {name: self.statuses.get(name, 0) for name in ("ok", "partial", "no_static_background")}
        return {
            "videos": sum(counts.values()) + len(self.failures),
            **counts,
            "failed": len(self.failures),
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shards": self.shards,
            "built": self.built,
            "bytes": self.bytes,
        }


class EachVideo(Protocol):
    """What is done with one video. It travels to the worker processes, so it holds values alone."""

    def __call__(self, source: Source, label: Label, header: Header) -> tuple[VideoRow, VideoPayload]:
        """The video's row and what is stored for it.

        Raises:
            VideoError: the video cannot be used.
        """
        ...


# --- finding --------------------------------------------------------------------------------------------------------


def find_videos(inputs: Sequence[Path]) -> list[Source]:
    """Videos of folders and files, in order of id.

    A video's id is its path relative to the folder it was named by, with forward slashes; that of a named file is its
    name. Hidden files and links that lead out of the folder are left out; a named file is taken whatever its name.

    Raises:
        UsageError: an input is missing, nothing is found, or two videos have the same id.
    """
    found: dict[str, Source] = {}
    for source in (source for item in inputs for source in _walk(item)):
        other = found.setdefault(source.id, source)
        if other.path.resolve() != source.path.resolve():
            raise UsageError(
                f"two videos have the id {source.id!r}: {other.path} and {source.path}; name their parent instead"
            )
    if not found:
        raise UsageError(
            f"no video in {', '.join(map(str, inputs))} (looked for {', '.join(sorted(EXTENSIONS)[:6])}, ...)"
        )
    return [found[name] for name in sorted(found)]


def _walk(item: Path) -> Iterator[Source]:
    if item.is_file():
        yield Source(item.name, item, item.stat().st_size)
        return
    if not item.is_dir():
        raise UsageError(f"{item}: no such file or folder")
    root = item.resolve()
    for parent, folders, names in os.walk(item):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
                continue
            if path.is_symlink() and (not path.exists() or not path.resolve().is_relative_to(root)):
                continue
            yield Source(path.relative_to(item).as_posix(), path, path.stat().st_size)


def find_labels(file: Path | None, sources: Sequence[Source], progress: Progress) -> Labels:
    """Labels from a CSV or from class folders; what does not match is counted and named, and is no error."""
    if file is None:
        return labels_from_folders(source.id for source in sources)
    labels = read_labels(file, {source.id: source.path for source in sources})
    for names, what in (
        (labels.rows_without_file, "rows have no video"),
        (labels.files_without_row, "videos have no row"),
    ):
        if names:
            progress.warn(
                f"{file.name}: {len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            )
    return labels


def native_size(sources: Sequence[Source]) -> Size:
    """The one size that all videos have.

    Raises:
        UsageError: they have several; the most frequent are listed.
    """
    sizes: Counter[Size] = Counter()
    for source in sources:
        try:
            with open_video(source.path) as reader:
                sizes[reader.info.height, reader.info.width] += 1
        except VideoError:
            continue  # it will be reported when its turn comes
    if len(sizes) != 1:
        listed = ", ".join(f"{h}x{w} ({count})" for (h, w), count in sizes.most_common(8))
        raise UsageError(
            f"--size native needs videos of one size, these have {len(sizes)}: {listed}; give --size HEIGHTxWIDTH"
        )
    return next(iter(sizes))


def plan_videos(sources: Sequence[Source], frames: FrameKind, size: Size) -> Plan:
    """Shards for these videos, from what their containers claim."""
    per_frame = {"jpeg": 0.25, "raw": 3.0, "none": 0.0}[frames] * size[0] * size[1]
    per_video = 5 * size[0] * size[1]
    return plan_shards(
        [
            PlannedVideo(
                source.id, source.bytes, per_video + int(per_frame * (declared_length(source.path) if per_frame else 0))
            )
            for source in sources
        ]
    )


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
    plan = plan_videos(sources, recipe.frames, recipe.size)
    header = create_store(
        setup.out,
        Header(
            size=recipe.size,
            fit=recipe.fit,
            frames=recipe.frames,
            classes=labels.classes,
            options={**recipe.options, "labels": labels.digest()},
            created_with=__version__,
        ),
        plan,
        overwrite=setup.overwrite,
    )
    pending = pending_shards(setup.out, plan, retry_failed=setup.retry_failed)
    done = plan.num_videos - sum(len(plan.shards[shard]) for shard in pending)
    progress.start("videos", plan.num_videos)
    if done:
        progress.advance(done, "already there")
    by_id = {source.id: source for source in sources}
    tasks = [
        joblib.delayed(build_shard)(
            setup.out,
            header,
            shard,
            [(by_id[video.id], labels.of(video.id)) for video in plan.shards[shard]],
            recipe.each_video,
        )
        for shard in pending
    ]
    for commit in _run(tasks, setup.jobs):
        for failure in commit["failures"]:
            progress.warn(f"{failure['id']}: {failure['message']} [{failure['reason']}]")
        progress.advance(len(commit["videos"]) + len(commit["failures"]))
    finish_store(setup.out)
    return _outcome(setup.out, len(plan.shards), len(pending), time.monotonic() - begun, progress)


def _run(tasks: list[Any], jobs: int) -> Iterator[dict[str, Any]]:
    """Commit records as the shards are finished. Processes, because only those can be stopped and do not share locks."""
    jobs = min(jobs or processors(), max(1, len(tasks)))
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(tasks)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_shard(
    root: Path, header: Header, shard: int, videos: Sequence[tuple[Source, Label]], each_video: EachVideo
) -> dict[str, Any]:
    """Build and commit one shard, in a worker process."""
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    with ShardWriter(root, header, shard) as writer:
        for source, label in videos:
            try:
                writer.add(*each_video(source, label, header))
            except VideoError as error:
                writer.fail(Failure(id=source.id, reason=error.reason, message=error.message))
            except (BgaugError, KeyboardInterrupt):
                raise
            except Exception as error:  # noqa: BLE001
                # One bad video never stops a thousand good ones, whatever it breaks.
                writer.fail(Failure(id=source.id, reason="crashed", message=f"{type(error).__name__}: {error}"))
        return writer.commit()


def _outcome(root: Path, shards: int, built: int, seconds: float, progress: Progress) -> Outcome:
    statuses: Counter[str] = Counter()
    failures: list[Failure] = []
    frames = size = 0
    first_with: dict[str, str] = {}
    for shard in range(shards):
        commit = read_commit(root / SHARDS / shard_name(shard))
        failures += [Failure.model_validate(failure) for failure in commit["failures"]]
        size += sum(file_bytes for file_bytes, _ in commit["files"].values())
        for row in commit["videos"]:
            statuses[row["status"]] += 1
            frames += row["num_frames"]
            twin = first_with.setdefault(row["identity"]["sha256"], row["id"])
            if twin != row["id"]:
                progress.warn(f"{row['id']} has the same content as {twin}")
    return Outcome(dict(statuses), tuple(failures), frames, size, shards, built, seconds)
