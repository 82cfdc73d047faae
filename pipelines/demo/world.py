"""Whole splits of the synthetic world, made by several processes, in memory or as video files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.files import clear_unfinished, make_folder, write_bytes
from bgaug.pipelines.build.run import processors
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

_RECORD = "world.json"
_LABELS = "labels.csv"
_FPS = 12
_PER_TASK = 64


# --- in memory ----------------------------------------------------------------------------------------------------


def world_splits(
    names: Sequence[str],
    draw: int,
    counts: Mapping[str, int],
    jobs: int,
    progress: Progress,
    *,
    truth: bool = False,
    world: World = "plain",
    size: int = REFERENCE_SIZE,
) -> dict[str, SyntheticSplit]:
    """Whole splits, made by several processes; the result does not depend on their number.

    Args:
        names: keys of `SPLITS`.
        draw: number of the draw, see `make_split`.
        counts: videos of a split; a split that is missing here has its default number.
        jobs: number of processes; 0 for one per processor.
        progress: receives reports.
        truth: also return all that is known of the videos, which more than doubles the memory.
        world: "plain" or "micro", see `bgaug.testing.synthetic`.
        size: side of the frames, pixels.

    Raises:
        ValueError: unknown name, or a count, draw, world or size out of range.
    """
    make = partial(make_split, draw=draw, truth=truth, world=world, size=size)
    requested = {name: _count(name, counts.get(name)) for name in names}
    progress.start("generating splits", sum(requested.values()))
    tasks = [
        joblib.delayed(make)(name, count=count, start=first, stop=stop)
        for name, count in requested.items()
        for first, stop in _ranges(count)
    ]
    parts: dict[str, list[SyntheticSplit]] = {name: [] for name in names}
    for part in _in_order(tasks, jobs):
        progress.advance(len(part))
        parts[part.name].append(part)
    return {name: _join(parts[name]) for name in names}


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


def _join(parts: Sequence[SyntheticSplit]) -> SyntheticSplit:
    """One split of its consecutive parts."""
    joined: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(SyntheticSplit)
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }
    return replace(parts[0], **joined)


# --- as videos ----------------------------------------------------------------------------------------------------


def write_world(
    folder: Path,
    split: str,
    count: int | None,
    draw: int,
    progress: Progress,
    jobs: int = 0,
    *,
    world: World = "plain",
    size: int = REFERENCE_SIZE,
) -> Path:
    """A split as small mp4 files in class folders.

    Videos are `folder`/ACTION/NNNNN.mp4, H.264 with whole colour resolution at crf 12: with less, stripes and props
    lose their hue. `folder`/labels.csv has the scene as the group, so that evaluation by groups has unseen scenes;
    `split` is "train" or "test".

    A second run continues where the first was interrupted; a file is written whole or not at all. Another world in the
    folder is removed.

    Args:
        folder: folder of the videos.
        split: key of `SPLITS`.
        count: number of videos; None for the split's default number.
        draw: number of the draw, see `make_split`.
        progress: receives reports.
        jobs: number of processes; 0 for one per processor.
        world: "plain" or "micro", see `bgaug.testing.synthetic`.
        size: side of the frames, pixels.

    Returns:
        The folder.

    Raises:
        ValueError: unknown split, or a count, draw, world or size out of range.
        UsageError: the folder has other files.
    """
    count = _count(split, count)
    kind = {"world": world, "size": size} if (world, size) != ("plain", REFERENCE_SIZE) else {}
    record = _Record(folder, {"split": split, "count": count, "draw": draw, "bgaug": __version__, **kind})
    progress.start("generating videos", count)
    if record.is_complete():
        progress.advance(count, "already there")
        return folder
    record.begin()
    for action in ACTIONS:
        clear_unfinished(make_folder(folder / action))
    make = partial(make_split, split, count=count, draw=draw, world=world, size=size)
    tasks = [joblib.delayed(_write_part)(folder, make, *range_) for range_ in _ranges(count)]
    rows: list[list[object]] = []
    for part in _in_order(tasks, jobs):
        progress.advance(len(part))
        rows += part
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class_name", "group", "split", "scene", "prop", "kind"])
    writer.writerows(rows)
    write_bytes(folder / _LABELS, text.getvalue().encode())
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
        """Prepare the folder for this world; videos of the same world stay."""
        begun = self._read()
        if begun is None and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty and has no record of a world; name another folder")
        if begun is not None and {**begun, "complete": False} != {**self.world, "complete": False}:
            _clear_world(self.folder)
        make_folder(self.folder)
        self._write(complete=False)

    def complete(self) -> None:
        self._write(complete=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / _RECORD).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.folder / _RECORD} is damaged; remove {self.folder}") from error

    def _write(self, complete: bool) -> None:
        write_bytes(self.folder / _RECORD, json.dumps({**self.world, "complete": complete}).encode())


def _clear_world(folder: Path) -> None:
    """Remove the files of `write_world`, the record last, so that an interrupted removal is continued."""
    for action in ACTIONS:
        shutil.rmtree(folder / action, ignore_errors=True)
    for path in (folder / _LABELS, folder / _RECORD):
        path.unlink(missing_ok=True)


def _write_part(folder: Path, make: Callable[..., SyntheticSplit], start: int, stop: int) -> list[list[object]]:
    """Write some of the videos; returns their rows of the list of labels."""
    split = make(start=start, stop=stop)
    purpose = "train" if "train" in split.name else "test"
    factors = (split.labels.tolist(), split.scene.tolist(), split.prop.tolist(), split.kind.tolist())
    rows: list[list[object]] = []
    for number, (frames, label, scene, prop, kind) in enumerate(zip(split.frames, *factors, strict=True), start):
        video_id = f"{ACTIONS[label]}/{number:05d}.mp4"
        if not (folder / video_id).exists():
            write_video(folder / video_id, frames, fps=_FPS)
        place = f"photo {PHOTOS[scene - FIRST_PHOTO]}" if scene >= FIRST_PHOTO else f"scene {scene}"
        rows.append([video_id, ACTIONS[label], place, purpose, scene, prop, KINDS[kind]])
    return rows
