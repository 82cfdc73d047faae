"""Columns over all videos of a store: made from the rows of the shards, and checked.

Letters: N videos, M parts of all videos, S shots of all videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError
from bgaug.store.arrays import ArraySpec
from bgaug.store.format.documents import brief
from bgaug.store.format.layout import Header
from bgaug.store.format.records import CAMERAS, GRADES, MASKS_FROM, STATUSES, VideoRow

_MAX_FRAMES = 2**31 - 1


@dataclass(frozen=True)
class Columns:
    """All videos, one row each, in order of id; text as codes or as one run of bytes, without Python objects."""

    num_frames: NDArray[np.int32]  # (N,)
    label: NDArray[np.int32]  # (N,), class index, -1 if unknown
    group: NDArray[np.int32]  # (N,), index into `Names.groups`, -1 if unknown
    split: NDArray[np.int32]  # (N,), index into `Names.splits`, -1 if unknown
    fps: NDArray[np.float32]  # (N,)
    height: NDArray[np.int32]  # (N,), of the source
    width: NDArray[np.int32]  # (N,), of the source
    status: NDArray[np.uint8]  # (N,), index into `STATUSES`
    part_offsets: NDArray[np.int64]  # (N + 1,), first part of each video; a video in one shard has one part
    part_shard: NDArray[np.int32]  # (M,), shard of the part
    part_start: NDArray[np.int64]  # (M,), its first frame in the shard
    part_first: NDArray[np.int32]  # (M,), its first frame in the video
    shot_offsets: NDArray[np.int64]  # (N + 1,), first shot of each video
    shot_start: NDArray[np.int32]  # (S,), first frame in the video
    shot_stop: NDArray[np.int32]  # (S,), one past the last frame
    shot_background: NDArray[np.int32]  # (S,), number of the background in the shard of its part, -1 for none
    shot_camera: NDArray[np.uint8]  # (S,), index into `CAMERAS`
    shot_grade: NDArray[np.uint8]  # (S,), index into `GRADES`
    id_bytes: NDArray[np.uint8]  # all ids end to end, UTF-8
    id_offsets: NDArray[np.int64]  # (N + 1,)
    background_frame_offsets: NDArray[np.int64]  # (S + 1,), first entry of each shot in the next column
    # frame, counted in the video, of each background of the shots that have several; none for all other shots
    background_frame: NDArray[np.int32]
    shot_masks_from: NDArray[np.uint8]  # (S,), index into `MASKS_FROM`


class VideoIds(Sequence[str]):
    """Ids of all videos, decoded on demand."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns.num_frames)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{len(self)} videos, no video {index}")
        left, right = self._columns.id_offsets[index % len(self) :][:2].tolist()
        return self._columns.id_bytes[left:right].tobytes().decode()


@dataclass(frozen=True)
class Names:
    """Names of the codes of group and split."""

    groups: tuple[str, ...]
    splits: tuple[str, ...]


_TYPES = {
    "video": {"label": "<i4", "group": "<i4", "split": "<i4", "num_frames": "<i4", "fps": "<f4", "status": "|u1"}
    | {"height": "<i4", "width": "<i4"},
    "video_edge": {"part_offsets": "<i8", "shot_offsets": "<i8", "id_offsets": "<i8"},
    "part": {"part_shard": "<i4", "part_start": "<i8", "part_first": "<i4"},
    "shot": {"shot_start": "<i4", "shot_stop": "<i4", "shot_background": "<i4"}
    | {"shot_camera": "|u1", "shot_grade": "|u1", "shot_masks_from": "|u1"},
    "byte": {"id_bytes": "|u1"},
    "shot_edge": {"background_frame_offsets": "<i8"},
    "background_frame": {"background_frame": "<i4"},
}
COLUMN_SPECS = {
    name: ArraySpec(dtype, compress=True, dimensions=(dimension,))
    for dimension, types in _TYPES.items()
    for name, dtype in types.items()
}
"""Layout of each column on the disk."""
OPTIONAL_COLUMNS = ("background_frame_offsets", "background_frame", "shot_masks_from")
"""Columns that are not on the disk where the others imply them; see `implied_columns`."""


def columns_of(name: str, header: Header, rows: Iterable[tuple[VideoRow, int]]) -> tuple[Columns, Names]:
    """Columns over the videos of (row, shard number) pairs of the store `name`; one with missing parts is left out.

    Raises:
        StoreDamageError: two videos have the same id, or a label is not in the header.
    """
    rows = sorted(rows, key=lambda pair: (pair[0].id, pair[0].first))
    videos = [list(parts) for _, parts in groupby(rows, key=lambda pair: pair[0].id)]
    videos = [parts for parts in videos if _is_complete(name, [row for row, _ in parts])]
    rows = [part for parts in videos for part in parts]
    leads = [parts[0][0] for parts in videos]
    shots = [[shot for row, _ in parts for shot in row.shots] for parts in videos]
    every = [shot for one in shots for shot in one]
    masks_from = [row.masks_from(shot) for row, _ in rows for shot in row.shots]
    names = Names(
        groups=tuple(sorted({row.group for row in leads if row.group is not None})),
        splits=tuple(sorted({row.split for row in leads if row.split is not None})),
    )
    classes = {name: i for i, name in enumerate(header.classes)}
    groups = {name: i for i, name in enumerate(names.groups)}
    splits = {name: i for i, name in enumerate(names.splits)}
    ids = [row.id.encode() for row in leads]
    columns = Columns(
        num_frames=np.array([sum(row.num_frames for row, _ in parts) for parts in videos], np.int32),
        label=np.array([_class_of(name, row, classes) for row in leads], np.int32),
        group=np.array([-1 if row.group is None else groups[row.group] for row in leads], np.int32),
        split=np.array([-1 if row.split is None else splits[row.split] for row in leads], np.int32),
        fps=np.array([row.fps for row in leads], np.float32),
        height=np.array([row.height for row in leads], np.int32),
        width=np.array([row.width for row in leads], np.int32),
        status=np.array([STATUSES.index(row.status) for row in leads], np.uint8),
        part_offsets=np.cumsum([0, *(len(parts) for parts in videos)], dtype=np.int64),
        part_shard=np.array([shard for _, shard in rows], np.int32),
        part_start=np.array([row.start for row, _ in rows], np.int64),
        part_first=np.array([row.first for row, _ in rows], np.int32),
        shot_offsets=np.cumsum([0, *(len(one) for one in shots)], dtype=np.int64),
        shot_start=np.array([shot.start for shot in every], np.int32),
        shot_stop=np.array([shot.stop for shot in every], np.int32),
        shot_background=np.array([shot.background for shot in every], np.int32),
        shot_camera=np.array([CAMERAS.index(shot.camera) for shot in every], np.uint8),
        shot_grade=np.array([GRADES.index(shot.grade or "") for shot in every], np.uint8),
        id_bytes=np.frombuffer(b"".join(ids), np.uint8),
        id_offsets=np.cumsum([0, *(len(name) for name in ids)], dtype=np.int64),
        background_frame_offsets=np.cumsum([0, *(len(shot.background_frames) for shot in every)], dtype=np.int64),
        background_frame=np.array([frame for shot in every for frame in shot.background_frames], np.int32),
        shot_masks_from=np.array([MASKS_FROM.index(origin) for origin in masks_from], np.uint8),
    )
    return columns, names


def implied_columns(shot_background: NDArray[np.int32], frame_offsets: NDArray[np.int64] | None) -> dict[str, Any]:
    """The optional columns as the others imply them: no shot has several backgrounds, and their masks are the build's.

    Args:
        shot_background: (S,), the column.
        frame_offsets: (S + 1,), the column `background_frame_offsets`; None if no shot has several backgrounds.
    """
    found: dict[str, Any] = {}
    if frame_offsets is None:
        frame_offsets = np.zeros(len(shot_background) + 1, np.int64)
        found = {"background_frame_offsets": frame_offsets, "background_frame": np.zeros(0, np.int32)}
    missing, background, motion = (MASKS_FROM.index(name) for name in ("missing", "background", "motion"))
    # Lengths of hostile columns may differ; `check_columns` reports that.
    several = np.diff(frame_offsets[: len(shot_background) + 1]) > 0
    several = np.concatenate([several, np.zeros(len(shot_background) - len(several), np.bool_)])
    origin = np.where(several, motion, np.where(shot_background >= 0, background, missing))
    return {**found, "shot_masks_from": origin.astype(np.uint8)}


def columns_left_out(columns: Columns) -> set[str]:
    """Names of the optional columns that the others imply."""
    found = set() if len(columns.background_frame) else {"background_frame_offsets", "background_frame"}
    implied = implied_columns(columns.shot_background, columns.background_frame_offsets)["shot_masks_from"]
    return found | ({"shot_masks_from"} if np.array_equal(columns.shot_masks_from, implied) else set())


def _class_of(name: str, row: VideoRow, classes: dict[str, int]) -> int:
    if row.label and row.label not in classes:
        raise StoreDamageError(
            name, f"the video {brief(row.id)} has the label {brief(row.label)}, which is not a class"
        )
    return classes.get(row.label or "", -1)


def _is_complete(name: str, rows: Sequence[VideoRow]) -> bool:
    """Whether the rows of one id, in order, form a complete video."""
    expected = 0
    for row in rows:
        if row.first < expected or (row.first == 0 and row is not rows[0]):
            raise StoreDamageError(name, f"the video {brief(row.id)} occurs twice: run `bgaug verify`")
        if row.first > expected:
            return False
        expected += row.num_frames
    if expected > _MAX_FRAMES:
        raise StoreDamageError(name, f"the video {brief(rows[0].id)} has {expected} frames: run `bgaug verify`")
    return rows[0].total_frames in (None, expected)


# --- columns that were read -------------------------------------------------------------------------------------------


def check_columns(path: str, columns: Columns, names: Names, header: Header) -> None:
    """Check that columns are possible for a store with this header.

    Raises:
        StoreDamageError: they are not; the message names the column.
    """
    c = columns
    good = {
        "lengths": _lengths_fit(c),
        "label": _between(c.label, -1, len(header.classes)),
        "group": _between(c.group, -1, len(names.groups)),
        "split": _between(c.split, -1, len(names.splits)),
        "fps": bool(np.isfinite(c.fps).all() and (c.fps >= 0).all()),
        "height": _between(c.height, 1, None),
        "width": _between(c.width, 1, None),
        "status": _between(c.status, 0, len(STATUSES)),
        "part_shard": _between(c.part_shard, 0, header.plan["shards"]),
        "part_start": _between(c.part_start, 0, None),
        "shot_background": _between(c.shot_background, -1, None),
        "shot_camera": _between(c.shot_camera, 0, len(CAMERAS)),
        "shot_grade": _between(c.shot_grade, 0, len(GRADES)),
        "shot_masks_from": _between(c.shot_masks_from, 0, len(MASKS_FROM)),
    }
    good |= {name: good["lengths"] and check(c) for name, check in _RUNS.items()}
    for name, is_good in good.items():
        if not is_good:
            raise StoreDamageError(path, f"{name}: is not a valid column of the index")


def _between(values: NDArray[Any], low: int, above: int | None) -> bool:
    return bool((values >= low).all() and (above is None or (values < above).all()))


def _lengths_fit(c: Columns) -> bool:
    counts = {"video": len(c.num_frames), "video_edge": len(c.num_frames) + 1, "byte": len(c.id_bytes)}
    counts |= {"part": len(c.part_first), "shot": len(c.shot_start), "shot_edge": len(c.shot_start) + 1}
    counts |= {"background_frame": len(c.background_frame)}
    same = all(len(getattr(c, name)) == counts[spec.dimensions[0]] for name, spec in COLUMN_SPECS.items())
    runs = [(c.part_offsets, "part"), (c.shot_offsets, "shot"), (c.id_offsets, "byte")]
    runs += [(c.background_frame_offsets, "background_frame")]
    return same and all(
        int(offsets[0]) == 0 and int(offsets[-1]) == counts[what] and bool((np.diff(offsets) >= 0).all())
        for offsets, what in runs
    )


def _parts_fit(c: Columns) -> bool:
    """Whether each video has parts, the first from frame 0, each after the one before."""
    leads = c.part_offsets[:-1]
    if not (np.diff(c.part_offsets) > 0).all() or c.part_first[leads].any():
        return False
    ascends = np.diff(c.part_first, prepend=0) > 0
    ascends[leads] = True
    return bool(ascends.all() and (c.part_first <= np.repeat(c.num_frames, np.diff(c.part_offsets))).all())


def _shots_fit(c: Columns) -> bool:
    """Whether the shots of each video cover its frames in order."""
    some = np.diff(c.shot_offsets) > 0
    expected = np.zeros_like(c.shot_start)
    expected[1:] = c.shot_stop[:-1]
    expected[c.shot_offsets[:-1][some]] = 0
    ends = c.shot_stop[c.shot_offsets[1:][some] - 1]
    return bool(
        (c.shot_start == expected).all()
        and (c.shot_stop > c.shot_start).all()
        and (ends == c.num_frames[some]).all()
        and not c.num_frames[~some].any()
    )


def _background_frames_fit(c: Columns) -> bool:
    """Whether the frames of the backgrounds of each shot ascend, and belong to shots that have a background."""
    ascends = np.diff(c.background_frame, prepend=-1) > 0
    leads = c.background_frame_offsets[:-1][np.diff(c.background_frame_offsets) > 0]
    ascends[leads] = c.background_frame[leads] >= 0
    return bool(ascends.all() and (c.shot_background[np.diff(c.background_frame_offsets) > 0] >= 0).all())


def _ids_fit(c: Columns) -> bool:
    """Whether ids are text, unique and in order; the order of bytes is that of code points."""
    text = c.id_bytes.tobytes()
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    ids = [text[left:right] for left, right in pairwise(c.id_offsets.tolist())]
    begins_within = (c.id_bytes[c.id_offsets[:-1][np.diff(c.id_offsets) > 0]] & 0xC0) == 0x80
    return not begins_within.any() and all(one < other for one, other in pairwise(ids))


_RUNS = {"part_first": _parts_fit, "shot_start": _shots_fit, "id_bytes": _ids_fit}
_RUNS |= {"background_frame": _background_frames_fit}
