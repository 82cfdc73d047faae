"""The synthetic world by whole splits: made by several processes, kept in memory or on disk, or written as videos."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.files import clear_unfinished, make_folder, write_arrays, write_bytes
from bgaug.files.archives import UNREADABLE, read_npz
from bgaug.pipelines.build.run import processors
from bgaug.pipelines.demo.truth import (
    score_offline,
    truth_arrays,
    truth_file,
    write_degraded_masks,
)
from bgaug.progress import Progress
from bgaug.testing.synthetic import (
    ACTIONS,
    FIRST_PHOTO,
    KINDS,
    PHOTOS,
    REFERENCE_SIZE,
    SPLITS,
    SyntheticSplit,
    World,
    make_split,
)
from bgaug.video import write_video

__all__ = ["clear_world", "score_offline", "world_splits", "write_degraded_masks", "write_world"]

RECORD = "world.json"
LABELS = "labels.csv"
FPS = 12
_PER_TASK = 64
_PROOF = 8  # videos made again to check that a cache belongs to this world: one of each class
_FACTORS = ("labels", "scene", "prop", "kind")
_PLAIN = ("frames", *_FACTORS)
_MASKS = ("masks", "moving", "degraded")
_TRUTH = ("plates", "backgrounds", *_MASKS)


# --- in memory ----------------------------------------------------------------------------------------------------


def world_splits(
    names: Sequence[str],
    draw: int,
    counts: Mapping[str, int] | None,
    jobs: int,
    progress: Progress,
    *,
    cache: Path | None = None,
    truth: bool = False,
    world: World = "plain",
    size: int = REFERENCE_SIZE,
) -> dict[str, SyntheticSplit]:
    """Whole splits, made by several processes; the same whatever their number.

    Args:
        names: keys of `SPLITS`.
        draw: of all videos, see `make_split`.
        counts: videos of a split; those not named here have their own number.
        jobs: processes; 0 for one a processor.
        progress: receives what happens.
        cache: folder where splits are kept, one .npz each, and taken from when asked for again; a smaller split is cut
            from a larger. A file whose first videos are not those of this world, or that cannot be read, is replaced.
        truth: also all that is known of them, which more than doubles the memory.
        world: "plain" or "micro", see `bgaug.testing.synthetic`.
        size: side of the frames, pixels.

    Raises:
        ValueError: unknown name, or a count, draw, world or size that cannot be.
    """
    make = partial(make_split, draw=draw, truth=truth, world=world, size=size)
    place = _Cache(
        cache, f"-{world}" * (world != "plain") + f"-{size}" * (size != REFERENCE_SIZE) + "-truth" * truth, draw
    )
    requested = {name: _count(name, (counts or {}).get(name)) for name in names}
    progress.start("generating splits", sum(requested.values()))
    found: dict[str, SyntheticSplit] = {}
    for name, count in requested.items():
        kept = _read_cache(place.file(name), make, name, count, truth, progress)
        if kept is not None:
            found[name] = kept
            progress.advance(count, "already there")
    tasks = [
        joblib.delayed(make)(name, count=count, start=first, stop=stop)
        for name, count in requested.items()
        if name not in found
        for first, stop in _ranges(count)
    ]
    parts: list[SyntheticSplit] = []
    for part in _in_order(tasks, jobs):
        progress.advance(len(part))
        parts.append(part)
        if part.start + len(part) == requested[part.name]:
            found[part.name] = _join(parts)
            parts = []
            if (path := place.file(part.name)) is not None:
                write_arrays(path, _arrays(found[part.name], truth))
    return {name: found[name] for name in names}


@dataclass(frozen=True)
class _Cache:
    """Where splits are kept."""

    folder: Path | None
    suffix: str
    draw: int

    def file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-draw{self.draw}{self.suffix}.npz"


def _count(name: str, count: int | None) -> int:
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}; there are {', '.join(SPLITS)}")
    count = SPLITS[name].count if count is None else count
    if count < 1:
        raise ValueError(f"a split has at least 1 video, asked for {count} of {name}")
    return count


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, _PER_TASK):
        yield first, min(first + _PER_TASK, count)


def _in_order(tasks: Iterable[Any], jobs: int) -> Iterator[Any]:
    found: Iterator[Any] = joblib.Parallel(n_jobs=jobs or processors(), return_as="generator")(tasks)
    return found


def _arrays(split: SyntheticSplit, truth: bool) -> dict[str, NDArray[Any]]:
    return {name: getattr(split, name) for name in (*_PLAIN, *(_TRUTH if truth else ()))}


def _join(parts: Sequence[SyntheticSplit]) -> SyntheticSplit:
    """One split of its consecutive parts."""
    names = [name for name in (*_PLAIN, *_TRUTH) if getattr(parts[0], name) is not None]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return SyntheticSplit(parts[0].name, parts[0].start, **joined)


def _read_cache(
    path: Path | None,
    make: Callable[..., SyntheticSplit],
    name: str,
    count: int,
    truth: bool,
    progress: Progress,
) -> SyntheticSplit | None:
    """What the cache has of a split; None where that is nothing, or not enough."""
    if path is None or not path.exists():
        return None
    try:
        arrays = {name: array[:count] for name, array in read_npz(path, (*_PLAIN, *(_TRUTH if truth else ()))).items()}
    except UNREADABLE as error:
        progress.warn(f"{path} cannot be read and is made again: {error}")
        return None
    if len(arrays["labels"]) < count:
        return None
    split = SyntheticSplit(name, 0, **arrays)
    if not _same_beginning(split, make(name, count=min(count, _PROOF)), truth):
        progress.warn(f"{path} has videos of another world and is made again")
        return None
    return split


def _same_beginning(split: SyntheticSplit, proof: SyntheticSplit, truth: bool) -> bool:
    """Whether a split begins with these videos; on another kind of CPU a pixel may be off by one grey level."""
    for name, expected in _arrays(proof, truth).items():
        found = getattr(split, name)[: len(proof)]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return False
        if name in _MASKS:
            if (found != expected).mean() > 1e-3:
                return False
        elif np.abs(found.astype(np.int64) - expected).max() > (0 if name in _FACTORS else 1):
            return False
    return True


# --- as videos ----------------------------------------------------------------------------------------------------


def write_world(
    folder: Path,
    split: str,
    count: int | None,
    draw: int,
    progress: Progress,
    jobs: int = 0,
    *,
    truth: bool = False,
    world: World = "plain",
    size: int = REFERENCE_SIZE,
) -> Path:
    """A split as small mp4 files in class folders, for the offline pipeline to work on.

    Videos are `folder`/ACTION/NNNNN.mp4, H.264 with whole colour resolution at crf 12: with less, stripes and props
    lose their hue. Beside the class folders lies labels.csv: the scene is the group, so that evaluation by groups meets
    scenes it has not seen; `split` is "train" or "test" by what the split is for. The truth lies outside the folder, in
    the file that `truth_file` names.

    A second run goes on where the first was interrupted; each file is there whole or not at all. Another world that was
    written to the folder before is removed.

    Args:
        folder: where to.
        split: key of `SPLITS`.
        count: videos; None for the split's own number.
        draw: of all videos, see `make_split`.
        progress: receives what happens.
        jobs: processes; 0 for one a processor.
        truth: also write masks and backgrounds, for `score_offline` and `write_degraded_masks`.
        world: "plain" or "micro", see `bgaug.testing.synthetic`.
        size: side of the frames, pixels.

    Returns:
        The folder.

    Raises:
        ValueError: unknown split, or a count, draw, world or size that cannot be.
        UsageError: the folder holds something else.
    """
    count = _count(split, count)
    kind = {"world": world, "size": size} if (world, size) != ("plain", REFERENCE_SIZE) else {}
    record = _Record(folder, {"split": split, "count": count, "draw": draw, "bgaug": __version__, **kind})
    progress.start("generating videos", count)
    if record.is_complete() and (truth_file(folder).exists() or not truth):
        progress.advance(count, "already there")
        return folder
    record.begin()
    for action in ACTIONS:
        clear_unfinished(make_folder(folder / action))
    parts: list[_Written] = []
    make = partial(make_split, split, count=count, draw=draw, truth=truth, world=world, size=size)
    tasks = [joblib.delayed(_write_part)(folder, make, *range_) for range_ in _ranges(count)]
    for part in _in_order(tasks, jobs):
        progress.advance(len(part.labels))
        parts.append(part)
    _write_labels(folder, split, parts)
    if truth:
        arrays = {name: np.concatenate([part.truth[name] for part in parts]) for name in parts[0].truth}
        write_arrays(truth_file(folder), {"ids": np.array([i for part in parts for i in part.ids]), **arrays})
    record.complete()
    return folder


@dataclass(frozen=True)
class _Record:
    """The file that records the world in a folder, and whether it is complete."""

    folder: Path
    world: dict[str, Any]

    def is_complete(self) -> bool:
        return self._read() == {**self.world, "complete": True}

    def begin(self) -> None:
        """Make the folder one in which this world may be written, or written further."""
        begun = self._read()
        if begun is None and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty and has no record of a world; name another folder")
        if begun is not None and {**begun, "complete": False} != {**self.world, "complete": False}:
            clear_world(self.folder)
        make_folder(self.folder)
        self._write(complete=False)

    def complete(self) -> None:
        self._write(complete=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / RECORD).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.folder / RECORD} is damaged; remove {self.folder}") from error

    def _write(self, complete: bool) -> None:
        write_bytes(self.folder / RECORD, json.dumps({**self.world, "complete": complete}).encode())


def clear_world(folder: Path) -> None:
    """Remove what `write_world` wrote, the record last, so that an interrupted removal is gone on with."""
    for action in ACTIONS:
        shutil.rmtree(folder / action, ignore_errors=True)
    for path in (truth_file(folder), folder / LABELS, folder / RECORD):
        path.unlink(missing_ok=True)


class _Written(NamedTuple):
    """What is kept in memory of a range of videos that lies on disk."""

    ids: list[str]
    labels: NDArray[np.int64]  # (n,)
    scene: NDArray[np.int64]  # (n,)
    prop: NDArray[np.int64]  # (n,)
    kind: NDArray[np.int64]  # (n,)
    truth: dict[str, NDArray[np.uint8]]


def _write_part(folder: Path, make: Callable[..., SyntheticSplit], start: int, stop: int) -> _Written:
    split = make(start=start, stop=stop)
    ids = [f"{ACTIONS[label]}/{number:05d}.mp4" for number, label in enumerate(split.labels.tolist(), start)]
    for video_id, frames in zip(ids, split.frames, strict=True):
        path = folder / video_id
        if not path.exists():
            write_video(path, frames, fps=FPS)
    truth = truth_arrays(split) if split.masks is not None else {}
    return _Written(ids, split.labels, split.scene, split.prop, split.kind, truth)


def _write_labels(folder: Path, split: str, parts: Sequence[_Written]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class_name", "group", "split", "scene", "prop", "kind"])
    purpose = "train" if "train" in split else "test"
    for part in parts:
        factors = (part.scene.tolist(), part.prop.tolist(), part.kind.tolist())
        for video_id, scene, prop, kind in zip(part.ids, *factors, strict=True):
            place = f"photo {PHOTOS[scene - FIRST_PHOTO]}" if scene >= FIRST_PHOTO else f"scene {scene}"
            writer.writerow([video_id, video_id.split("/")[0], place, purpose, scene, prop, KINDS[kind]])
    write_bytes(folder / LABELS, text.getvalue().encode())
