"""Columns over all videos of a store, derived from the shards' commits.

Letters: N videos, S shots of all videos.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from bgaug.errors import StoreDamageError
from bgaug.store.layout import (
    COMMIT,
    FAILURES,
    INDEX,
    TEMPORARY,
    Header,
    canonical_json,
    committed_shards,
    crc32c,
    read_commit,
    seal,
    unseal,
    write_durably,
)
from bgaug.store.records import Failure, VideoRow

STATUSES = ("ok", "partial", "no_static_background")
CAMERAS = ("unknown", "static", "jitter", "moving")
GRADES = ("", "A", "B", "C", "D", "E", "F")


@dataclass(frozen=True)
class Columns:
    """All videos, one row each, in order of id; strings as codes or as one run of bytes, so nothing is an object.

    Attributes:
        shard: int32 (N,).
        start: int64 (N,), first frame in the shard.
        num_frames: int32 (N,).
        label: int32 (N,), class index, -1 where unknown.
        group: int32 (N,), index into `Names.groups`, -1 where unknown.
        split: int32 (N,), index into `Names.splits`, -1 where unknown.
        fps: float32 (N,).
        height: int32 (N,), of the source.
        width: int32 (N,), of the source.
        status: uint8 (N,), index into `STATUSES`.
        shot_offsets: int64 (N + 1,), where each video's shots begin among all.
        shot_start: int32 (S,), first frame in the video.
        shot_stop: int32 (S,), one past the last.
        shot_background: int32 (S,), number of the background in the shard, -1 for none.
        shot_camera: uint8 (S,), index into `CAMERAS`.
        shot_grade: uint8 (S,), index into `GRADES`.
        id_bytes: uint8, all ids end to end, UTF-8.
        id_offsets: int64 (N + 1,).
    """

    shard: NDArray[np.int32]
    start: NDArray[np.int64]
    num_frames: NDArray[np.int32]
    label: NDArray[np.int32]
    group: NDArray[np.int32]
    split: NDArray[np.int32]
    fps: NDArray[np.float32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    status: NDArray[np.uint8]
    shot_offsets: NDArray[np.int64]
    shot_start: NDArray[np.int32]
    shot_stop: NDArray[np.int32]
    shot_background: NDArray[np.int32]
    shot_camera: NDArray[np.uint8]
    shot_grade: NDArray[np.uint8]
    id_bytes: NDArray[np.uint8]
    id_offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Names:
    """What the codes of group and split mean."""

    groups: tuple[str, ...]
    splits: tuple[str, ...]


def parse_rows(commit: dict[str, Any]) -> list[VideoRow]:
    """The videos of a commit record."""
    return [VideoRow.model_validate(row) for row in commit["videos"]]


def parse_failures(commit: dict[str, Any]) -> list[Failure]:
    """The failures of a commit record."""
    return [Failure.model_validate(row) for row in commit["failures"]]


def columns_of(header: Header, commits: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Columns, Names]:
    """Columns over the videos of (shard number, commit record) pairs."""
    rows = [(shard, row) for shard, commit in commits for row in parse_rows(commit)]
    rows.sort(key=lambda pair: pair[1].id)
    videos = [row for _, row in rows]
    shots = [shot for row in videos for shot in row.shots]
    names = Names(
        groups=tuple(sorted({row.group for row in videos if row.group is not None})),
        splits=tuple(sorted({row.split for row in videos if row.split is not None})),
    )
    classes = {name: i for i, name in enumerate(header.classes)}
    groups = {name: i for i, name in enumerate(names.groups)}
    splits = {name: i for i, name in enumerate(names.splits)}
    ids = [row.id.encode() for row in videos]
    columns = Columns(
        shard=np.array([shard for shard, _ in rows], np.int32),
        start=np.array([row.start for row in videos], np.int64),
        num_frames=np.array([row.num_frames for row in videos], np.int32),
        label=np.array([classes.get(row.label or "", -1) for row in videos], np.int32),
        group=np.array([-1 if row.group is None else groups[row.group] for row in videos], np.int32),
        split=np.array([-1 if row.split is None else splits[row.split] for row in videos], np.int32),
        fps=np.array([row.fps for row in videos], np.float32),
        height=np.array([row.height for row in videos], np.int32),
        width=np.array([row.width for row in videos], np.int32),
        status=np.array([STATUSES.index(row.status) for row in videos], np.uint8),
        shot_offsets=np.cumsum([0, *(len(row.shots) for row in videos)], dtype=np.int64),
        shot_start=np.array([shot.start for shot in shots], np.int32),
        shot_stop=np.array([shot.stop for shot in shots], np.int32),
        shot_background=np.array([shot.background for shot in shots], np.int32),
        shot_camera=np.array([CAMERAS.index(shot.camera) for shot in shots], np.uint8),
        shot_grade=np.array([GRADES.index(shot.grade or "") for shot in shots], np.uint8),
        id_bytes=np.frombuffer(b"".join(ids), np.uint8),
        id_offsets=np.cumsum([0, *(len(name) for name in ids)], dtype=np.int64),
    )
    return columns, names


def read_commits(root: Path) -> list[tuple[int, dict[str, Any]]]:
    """Commit records of all visible shards, with their numbers."""
    return [(int(folder.name), read_commit(folder)) for folder in committed_shards(root)]


def rebuild_index(root: Path, header: Header) -> None:
    """Write index/ and failures.jsonl anew from the commits; nothing is touched where they are up to date."""
    commits = read_commits(root)
    failures = [failure for _, commit in commits for failure in parse_failures(commit)]
    failures.sort(key=lambda failure: failure.id)
    write_durably(root / FAILURES, b"".join(canonical_json(failure.to_json()) + b"\n" for failure in failures))
    if index_is_fresh(root):
        return
    columns, names = columns_of(header, commits)
    folder = root / f"{TEMPORARY}{INDEX}"
    shutil.rmtree(folder, ignore_errors=True)
    group = zarr.create_group(folder)
    for field in fields(Columns):
        values: NDArray[Any] = getattr(columns, field.name)
        array = group.create_array(
            field.name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(max(1, len(values)),),
            compressors=(ZstdCodec(level=1, checksum=True),),
            config={"write_empty_chunks": True},
        )
        if len(values):
            array[...] = values
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            files[path.relative_to(folder).as_posix()] = [len(data), crc32c(data)]
    record = {
        "shards": _shard_stamps(root),
        "groups": list(names.groups),
        "splits": list(names.splits),
        "files": files,
    }
    write_durably(folder / COMMIT, seal(record))
    shutil.rmtree(root / INDEX, ignore_errors=True)
    folder.rename(root / INDEX)


def _shard_stamps(root: Path) -> dict[str, int]:
    """Checksum of each shard's commit record, which names all else that is in the shard."""
    return {folder.name: crc32c((folder / COMMIT).read_bytes()) for folder in committed_shards(root)}


def index_is_fresh(root: Path) -> bool:
    """Whether index/ was derived from the shards as they stand."""
    file = root / INDEX / COMMIT
    try:
        return bool(unseal(file, file.read_bytes())["shards"] == _shard_stamps(root))
    except (FileNotFoundError, StoreDamageError):
        return False


def load_columns(root: Path, header: Header) -> tuple[Columns, Names]:
    """Columns of the store: from index/ where it is up to date and whole, else from the commits.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    if not index_is_fresh(root):
        return columns_of(header, read_commits(root))
    record = unseal(root / INDEX / COMMIT, (root / INDEX / COMMIT).read_bytes())
    for name, (size, checksum) in record["files"].items():
        file = root / INDEX / name
        data = file.read_bytes() if file.exists() else b""
        if len(data) != size or crc32c(data) != checksum:
            return columns_of(header, read_commits(root))
    group = zarr.open_group(root / INDEX, mode="r")
    arrays: dict[str, Any] = {field.name: np.asarray(group[field.name][...]) for field in fields(Columns)}  # type: ignore[index]
    return Columns(**arrays), Names(tuple(record["groups"]), tuple(record["splits"]))


def read_failures(root: Path) -> list[Failure]:
    """The videos that could not be used, from the store's list."""
    file = root / FAILURES
    if not file.exists():
        return []
    return [Failure.model_validate(json.loads(line)) for line in file.read_text("utf-8").splitlines() if line]
