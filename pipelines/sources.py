"""The videos of a run: found, labelled, looked at from outside, planned into shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bgaug.annotations import Labels, labels_from_folders, read_labels
from bgaug.errors import BgaugError, StoreError, UsageError, VideoError
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.worker import Begins, WorkerLost, run_tasks
from bgaug.sizing import Size
from bgaug.store import FrameKind, Plan, PlannedVideo, plan_shards
from bgaug.store.layout import read_header
from bgaug.store.plan import read_plan
from bgaug.video import EXTENSIONS, declared_length, open_video


@dataclass(frozen=True)
class Source:
    """A video to work on."""

    id: str
    path: Path
    bytes: int


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
        yield Source(_text(Path(item.name)), item, item.stat().st_size)
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
            if not path.is_file() or (path.is_symlink() and not path.resolve().is_relative_to(root)):
                continue
            yield Source(_text(path.relative_to(item)), path, path.stat().st_size)


def _text(path: Path) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 as their numbers."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_labels(
    file: Path | None,
    sources: Sequence[Source],
    progress: Progress,
    *,
    format: str = "auto",
    split: int | None = None,
    class_names: Path | None = None,
) -> Labels:
    """Labels from a list or from class folders; what does not match is counted and named, and is no error.

    Args:
        file: the list, or the folder that a data set ships; None for class folders.
        sources: the videos.
        progress: is told of rows without a video, and of videos without a row.
        format: one of `bgaug.annotations.FORMATS`, or "auto".
        split: number of the split; None for the one of a single file, else 1.
        class_names: file with the names of numbered classes.

    Raises:
        LabelsError: the list cannot be understood, or has nothing to do with these videos.
    """
    if file is None:
        return labels_from_folders(source.id for source in sources)
    labels = read_labels(file, {source.id: source.path for source in sources}, format, split, class_names)
    for names, what in (
        (labels.rows_without_file, "rows have no video"),
        (labels.files_without_row, "videos have no row"),
    ):
        if names:
            progress.warn(
                f"{file.name}: {len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            )
    return labels


# --- looking at them from outside -----------------------------------------------------------------------------------


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
    """A look at many files: see `bgaug.pipelines.worker.Task`. Even opening one may hang or crash.

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
