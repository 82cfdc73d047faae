"""Labels of the videos of a build, and their distribution over shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bgaug.errors import BgaugError, StoreError, UsageError, VideoError
from bgaug.labels import Labels, labels_from_folders, read_labels
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import LabelOptions, WorkerOptions
from bgaug.pipelines.build.workers import Begins, WorkerLost, run_tasks
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import Header, Plan, PlannedVideo, plan_shards
from bgaug.store.format.layout import read_header
from bgaug.store.format.plan import read_plan
from bgaug.video import declared_length, open_video


def find_labels(options: LabelOptions, sources: Sequence[Source], progress: Progress) -> Labels:
    """Labels from a list or from class folders; names without a match are reported, and are no error.

    Raises:
        LabelsError: the list cannot be read, or matches none of these videos.
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
class _Declared:
    """Unverified facts that a container declares.

    Attributes:
        frames: 0 if it declares none, or cannot be opened.
        size: of the frames, if requested and known.
    """

    frames: int = 0
    size: Size | None = None


@dataclass(frozen=True)
class _ReadDeclared:
    """Reads the facts of many files in a worker, because even opening a file may hang or crash; a `Task`.

    Attributes:
        paths: of the files.
        sizes: whether sizes are requested, which takes one decoded frame per file.
        lost: positions of files that a worker was lost to.
    """

    paths: tuple[Path, ...]
    sizes: bool = False
    lost: frozenset[int] = frozenset()

    def __call__(self, begins: Begins) -> list[_Declared]:
        """The facts of each file, in order."""
        found = []
        for place, path in enumerate(self.paths):
            if place in self.lost:
                found.append(_Declared())
                continue
            begins(place)
            found.append(self._read(path))
        begins(None)
        return found

    def _read(self, path: Path) -> _Declared:
        if not self.sizes:
            return _Declared(declared_length(path))
        try:
            with open_video(path) as reader:
                return _Declared(reader.info.declared_frames or 0, reader.info.display_size)
        except VideoError:
            return _Declared()  # the error is reported when the video is processed

    def without(self, lost: WorkerLost) -> _ReadDeclared:
        """The same task without the file that a worker was lost to.

        Raises:
            BgaugError: no file caused the loss.
        """
        if lost.place is None:
            raise BgaugError(f"the videos cannot be opened: {lost.message}")
        return replace(self, lost=self.lost | {lost.place})


def _read_declared(sources: Sequence[Source], options: WorkerOptions, *, sizes: bool = False) -> list[_Declared]:
    """The declared facts of every source, read in a worker process unless the options ask for this process."""
    task = _ReadDeclared(tuple(source.path for source in sources), sizes)
    if options.in_process:
        return task(lambda place: None)
    found: list[_Declared] = []
    run_tasks(
        [task],
        jobs=1,
        timeout_seconds=options.timeout_seconds,
        begins=lambda number, place: None,
        done=lambda number, result: found.extend(result),
    )
    return found


def native_size(sources: Sequence[Source], options: WorkerOptions) -> Size:
    """The one size that all videos have.

    Raises:
        UsageError: they have several; the most frequent are listed.
    """
    declared = _read_declared(sources, options, sizes=True)
    sizes = Counter(video.size for video in declared if video.size is not None)
    if len(sizes) != 1:
        listed = ", ".join(f"{h}x{w} ({count})" for (h, w), count in sizes.most_common(8))
        raise UsageError(
            f"--size native needs videos of one size, these have {len(sizes)}: {listed}; give --size HEIGHTxWIDTH"
        )
    return next(iter(sizes))


def plan_videos(sources: Sequence[Source], header: Header, options: WorkerOptions, begun: Path | None = None) -> Plan:
    """Shards for these videos, by the lengths that their containers declare.

    If an earlier run has begun the store `begun` with the same videos, its estimates are used, and no file is opened.
    """
    pixels = header.size[0] * header.size[1]
    per_frame = {"jpeg": 0.25, "raw": 3.0, "none": 0.0}[header.frames] * pixels
    per_video = 5 * pixels  # a background: three bytes of colour, one of noise, one of where it was seen
    if not per_frame:
        return plan_shards([PlannedVideo(source.id, source.bytes, per_video) for source in sources])
    known = _known_estimates(begun) if begun is not None else {}
    if all((source.id, source.bytes) in known for source in sources):
        return plan_shards([PlannedVideo(s.id, s.bytes, known[s.id, s.bytes]) for s in sources])
    declared = _read_declared(sources, options)
    estimates = [per_video + int(per_frame * video.frames) for video in declared]
    return plan_shards([PlannedVideo(s.id, s.bytes, e) for s, e in zip(sources, estimates, strict=True)])


def _known_estimates(root: Path) -> dict[tuple[str, int], int]:
    try:
        plan = read_plan(root, read_header(root).plan["sha256"])
    except StoreError:
        return {}  # errors of the store are reported where it is opened
    return {(video.id, video.bytes): video.estimate for shard in plan.shards for video in shard}
