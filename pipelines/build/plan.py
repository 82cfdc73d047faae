"""The videos of a run: labelled, looked at from outside, planned into shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bgaug.errors import BgaugError, StoreError, UsageError, VideoError
from bgaug.labels import Labels, labels_from_folders, read_labels
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import LabelOptions
from bgaug.pipelines.build.workers import Begins, WorkerLost, run_tasks
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import FrameKind, Plan, PlannedVideo, plan_shards
from bgaug.store.format.layout import read_header
from bgaug.store.format.plan import read_plan
from bgaug.video import declared_length, open_video


def find_labels(options: LabelOptions, sources: Sequence[Source], progress: Progress) -> Labels:
    """Labels from a list or from class folders; what does not match is counted and named, and is no error.

    Args:
        options: which list, and how it is read.
        sources: the videos.
        progress: receives what was guessed, rows that were left out, rows without a video, and videos without a row.

    Raises:
        LabelsError: the list cannot be understood, or has nothing to do with these videos.
    """
    file = options.labels
    if file is None:
        labels = labels_from_folders((source.id for source in sources), options.layout)
    else:
        paths = {source.id: source.path for source in sources}
        labels = read_labels(
            file,
            paths,
            options.labels_format,
            options.labels_split,
            options.class_names,
            options.first_class,
            options.columns,
        )
    for note in labels.notes:
        progress.warn(note)
    for names, what, separator in (
        (labels.dropped, "rows are left out", "; "),
        (labels.rows_without_file, "rows have no video", ", "),
        (labels.files_without_row, "videos have no row", ", "),
    ):
        if names and file is not None:
            rest = f"{separator}..." if len(names) > 5 else ""
            progress.warn(f"{file.name}: {len(names)} {what}: {separator.join(names[:5])}{rest}")
    return labels


@dataclass(frozen=True)
class Glance:
    """What a container claims, without trust.

    Attributes:
        frames: 0 where it says nothing, or cannot be opened.
        size: of the pictures, where it was asked for and known.
    """

    frames: int = 0
    size: Size | None = None


@dataclass(frozen=True)
class GlanceTask:
    """A look at many files: see `bgaug.pipelines.build.workers.Task`. Even opening one may hang or crash.

    Attributes:
        paths: of the files.
        sizes: whether sizes are asked for, which takes a decoded picture each.
        lost: places of files that took a worker with them; nothing is known of those.
    """

    paths: tuple[Path, ...]
    sizes: bool = False
    lost: frozenset[int] = frozenset()

    def __call__(self, begins: Begins) -> list[Glance]:
        """One glance a file, in order."""
        found = []
        for place, path in enumerate(self.paths):
            if place in self.lost:
                found.append(Glance())
                continue
            begins(place)
            found.append(self._look(path))
        begins(None)
        return found

    def _look(self, path: Path) -> Glance:
        if not self.sizes:
            return Glance(declared_length(path))
        try:
            with open_video(path) as reader:
                return Glance(reader.info.declared_frames or 0, reader.info.display_size)
        except VideoError:
            return Glance()  # it will be reported when its turn comes

    def without(self, lost: WorkerLost) -> GlanceTask:
        """The same without the file that a worker was lost to.

        Raises:
            BgaugError: it was lost to no file.
        """
        if lost.place is None:
            raise BgaugError(f"the videos cannot be looked at: {lost.message}")
        return replace(self, lost=self.lost | {lost.place})


def glances(
    sources: Sequence[Source], *, sizes: bool = False, timeout_seconds: float = 600, in_process: bool = False
) -> list[Glance]:
    """A look at every source, in a worker process unless told otherwise."""
    task = GlanceTask(tuple(source.path for source in sources), sizes)
    if in_process:
        return task(lambda place: None)
    found: list[Glance] = []
    run_tasks(
        [task],
        jobs=1,
        timeout_seconds=timeout_seconds,
        begins=lambda number, place: None,
        done=lambda number, result: found.extend(result),
    )
    return found


def native_size(sources: Sequence[Source], *, timeout_seconds: float = 600, in_process: bool = False) -> Size:
    """The one size that all videos have.

    Raises:
        UsageError: they have several; the most frequent are listed.
    """
    seen = glances(sources, sizes=True, timeout_seconds=timeout_seconds, in_process=in_process)
    sizes = Counter(glance.size for glance in seen if glance.size is not None)
    if len(sizes) != 1:
        listed = ", ".join(f"{h}x{w} ({count})" for (h, w), count in sizes.most_common(8))
        raise UsageError(
            f"--size native needs videos of one size, these have {len(sizes)}: {listed}; give --size HEIGHTxWIDTH"
        )
    return next(iter(sizes))


def plan_videos(
    sources: Sequence[Source],
    frames: FrameKind,
    size: Size,
    *,
    begun: Path | None = None,
    timeout_seconds: float = 600,
    in_process: bool = False,
) -> Plan:
    """Shards for these videos, from what their containers claim.

    Args:
        sources: the videos.
        frames: how frames are kept.
        size: of the store.
        begun: a store that may have been begun with the same videos: its estimates are taken over then, and no file
            is opened.
        timeout_seconds: that one file may take.
        in_process: open the files in this very process.
    """
    per_frame = {"jpeg": 0.25, "raw": 3.0, "none": 0.0}[frames] * size[0] * size[1]
    per_video = 5 * size[0] * size[1]
    if not per_frame:
        return plan_shards([PlannedVideo(source.id, source.bytes, per_video) for source in sources])
    known = _known_estimates(begun) if begun is not None else {}
    if all((source.id, source.bytes) in known for source in sources):
        return plan_shards([PlannedVideo(s.id, s.bytes, known[s.id, s.bytes]) for s in sources])
    seen = glances(sources, timeout_seconds=timeout_seconds, in_process=in_process)
    estimates = [per_video + int(per_frame * glance.frames) for glance in seen]
    return plan_shards([PlannedVideo(s.id, s.bytes, e) for s, e in zip(sources, estimates, strict=True)])


def _known_estimates(root: Path) -> dict[tuple[str, int], int]:
    try:
        plan = read_plan(root, read_header(root).plan["sha256"])
    except StoreError:
        return {}  # whatever is wrong with it will be told where it is opened
    return {(video.id, video.bytes): video.estimate for shard in plan.shards for video in shard}
