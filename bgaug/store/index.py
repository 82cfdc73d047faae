"""Columns over all videos of a store, derived from the shards' commits.

Letters: N videos, M parts of all videos, S shots of all videos.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.arrays import ArraySpec, ArrayWriter, begin_group, sync_tree
from bgaug.store.files import ArrayFile
from bgaug.store.layout import (
    COMMIT,
    FAILURES,
    INDEX,
    SHARDS,
    TEMPORARY,
    Header,
    committed_shards,
    crc32c,
    num_shards,
    parse_header,
    seal,
    shard_name,
    sync_folder,
    unseal,
    write_durably,
)
from bgaug.store.places import Folder, Held, Place
from bgaug.store.records import Failure, VideoRow
from bgaug.text import json_bytes

STATUSES = ("ok", "partial", "no_static_background")
CAMERAS = ("unknown", "static", "jitter", "moving")
GRADES = ("", "A", "B", "C", "D", "E", "F")


@dataclass(frozen=True)
class Columns:
    """All videos, one row each, in order of id; strings as codes or as one run of bytes, so nothing is an object.

    Attributes:
        num_frames: int32 (N,).
        label: int32 (N,), class index, -1 where unknown.
        group: int32 (N,), index into `Names.groups`, -1 where unknown.
        split: int32 (N,), index into `Names.splits`, -1 where unknown.
        fps: float32 (N,).
        height: int32 (N,), of the source.
        width: int32 (N,), of the source.
        status: uint8 (N,), index into `STATUSES`.
        part_offsets: int64 (N + 1,), where each video's parts begin among all; a video that one shard holds has one.
        part_shard: int32 (M,), the shard in which a part lies.
        part_start: int64 (M,), its first frame in the shard.
        part_first: int32 (M,), which frame of the video that is.
        shot_offsets: int64 (N + 1,), where each video's shots begin among all.
        shot_start: int32 (S,), first frame in the video.
        shot_stop: int32 (S,), one past the last.
        shot_background: int32 (S,), number of the background in the shard of its part, -1 for none.
        shot_camera: uint8 (S,), index into `CAMERAS`.
        shot_grade: uint8 (S,), index into `GRADES`.
        id_bytes: uint8, all ids end to end, UTF-8.
        id_offsets: int64 (N + 1,).
    """

    num_frames: NDArray[np.int32]
    label: NDArray[np.int32]
    group: NDArray[np.int32]
    split: NDArray[np.int32]
    fps: NDArray[np.float32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    status: NDArray[np.uint8]
    part_offsets: NDArray[np.int64]
    part_shard: NDArray[np.int32]
    part_start: NDArray[np.int64]
    part_first: NDArray[np.int32]
    shot_offsets: NDArray[np.int64]
    shot_start: NDArray[np.int32]
    shot_stop: NDArray[np.int32]
    shot_background: NDArray[np.int32]
    shot_camera: NDArray[np.uint8]
    shot_grade: NDArray[np.uint8]
    id_bytes: NDArray[np.uint8]
    id_offsets: NDArray[np.int64]


class VideoIds(Sequence[str]):
    """Ids of all videos, made when asked for."""

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
    """What the codes of group and split mean."""

    groups: tuple[str, ...]
    splits: tuple[str, ...]


def parse_rows(commit: dict[str, Any]) -> list[VideoRow]:
    """The videos of a commit record.

    Raises:
        StoreFormatError: they are not what this bgaug knows.
    """
    try:
        return [VideoRow.model_validate(row) for row in commit["videos"]]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreFormatError(f"shard {commit['shard']}", f"has a row with {where}: {first['msg']}") from error


def parse_failures(commit: dict[str, Any]) -> list[Failure]:
    """The failures of a commit record."""
    return [Failure.model_validate(row) for row in commit["failures"]]


def columns_of(header: Header, commits: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Columns, Names]:
    """Columns over the videos of (shard number, commit record) pairs.

    A video of which parts are missing is left out.

    Raises:
        StoreDamageError: two videos have the same id.
    """
    rows = [(row, shard) for shard, commit in commits for row in parse_rows(commit)]
    rows.sort(key=lambda pair: (pair[0].id, pair[0].first))
    videos = [list(parts) for _, parts in groupby(rows, key=lambda pair: pair[0].id)]
    videos = [parts for parts in videos if _is_complete([row for row, _ in parts])]
    rows = [part for parts in videos for part in parts]
    leads = [parts[0][0] for parts in videos]
    shots = [[shot for row, _ in parts for shot in row.shots] for parts in videos]
    every = [shot for one in shots for shot in one]
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
        label=np.array([classes.get(row.label or "", -1) for row in leads], np.int32),
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
    )
    return columns, names


def _is_complete(rows: Sequence[VideoRow]) -> bool:
    """Whether the rows of one id, in order, are one whole video."""
    expected = 0
    for row in rows:
        if row.first < expected or (row.first == 0 and row is not rows[0]):
            raise StoreDamageError(row.id, "is there twice: run `bgaug verify`")
        if row.first > expected:
            return False
        expected += row.num_frames
    return rows[0].total_frames in (None, expected)


def read_commits(place: Place, num_shards: int) -> list[tuple[int, dict[str, Any]]]:
    """Commit records of all visible shards, with their numbers."""
    found = []
    for shard in range(num_shards):
        with suppress(FileNotFoundError):
            key = f"{SHARDS}/{shard_name(shard)}/{COMMIT}"
            found.append((shard, unseal(f"{place.name}/{key}", place.read(key))))
    return found


def rebuild_index(root: Path, header: Header) -> None:
    """Write index/ and failures.jsonl anew from the commits; nothing is touched where they are up to date."""
    commits = read_commits(Folder(root), num_shards(header))
    expected = failure_lines(failure for _, commit in commits for failure in parse_failures(commit))
    file = root / FAILURES
    if not file.exists() or file.read_bytes() != expected:
        write_durably(file, expected)
    if not index_is_fresh(root):
        write_index(root, header, expected, *columns_of(header, commits))


def failure_lines(failures: Iterable[Failure]) -> bytes:
    """failures.jsonl: a line each, in order of id."""
    ordered = sorted(failures, key=lambda failure: failure.id)
    # For people to look at, too: what acts on a terminal is escaped, and comes back as it was where it is parsed.
    options: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return b"".join(json_bytes(failure.to_json(), **options) + b"\n" for failure in ordered)


def write_index(root: Path, header: Header, failures: bytes, columns: Columns, names: Names) -> None:
    """Put these columns in the place of index/, with a second copy of the header and what failures.jsonl holds."""
    folder = root / f"{TEMPORARY}{INDEX}"
    shutil.rmtree(folder, ignore_errors=True)
    begin_group(folder)
    known: dict[str, list[int]] = {}
    for field in fields(Columns):
        values: NDArray[Any] = getattr(columns, field.name)
        array = ArrayWriter(folder, field.name, ArraySpec(values.dtype.str, compress=True))
        array.append(values)
        array.finish()
        known |= array.files
    record = {
        "header": header.to_attributes(),
        "failures": [len(failures), crc32c(failures)],
        "shards": shard_stamps(root),
        "groups": list(names.groups),
        "splits": list(names.splits),
        "files": sync_tree(folder, known),
    }
    write_durably(folder / COMMIT, seal(record))
    shutil.rmtree(root / INDEX, ignore_errors=True)
    folder.rename(root / INDEX)
    sync_folder(root)


def shard_stamps(root: Path) -> dict[str, int]:
    """Checksum of each shard's commit record, which names all else that is in the shard."""
    return {
        folder.name: crc32c((folder / COMMIT).read_bytes())
        for folder in committed_shards(root)
        if (folder / COMMIT).exists()
    }


def index_is_fresh(root: Path) -> bool:
    """Whether index/ was derived from the shards as they stand."""
    file = root / INDEX / COMMIT
    try:
        return bool(unseal(file, file.read_bytes())["shards"] == shard_stamps(root))
    except (OSError, StoreDamageError, KeyError):
        return False


def load_columns(place: Place, header: Header) -> tuple[Columns, Names]:
    """Columns of the store: from index/ where it is up to date and whole, else from the commits.

    A store that is not at hand is not looked through for newer commits: it is read there, and written elsewhere.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    if not place.near or index_is_fresh(Path(place.name)):
        with suppress(StoreDamageError, StoreFormatError, FileNotFoundError):
            return _read_index(place)
    return columns_of(header, read_commits(place, num_shards(header)))


def _read_index(place: Place) -> tuple[Columns, Names]:
    key = f"{INDEX}/{COMMIT}"
    record = unseal(f"{place.name}/{key}", place.read(key))
    files = {f"{INDEX}/{name}": (int(size), int(checksum)) for name, (size, checksum) in record["files"].items()}
    with ThreadPoolExecutor(1 if place.near else 16) as pool:
        held = dict(zip(files, pool.map(place.read, files), strict=True))
    for name, (size, checksum) in files.items():
        if len(held[name]) != size or crc32c(held[name]) != checksum:
            raise StoreDamageError(f"{place.name}/{name}", "its bytes are not those that were committed")
    whole = Held(place.name, held)
    arrays: dict[str, Any] = {}
    for field in fields(Columns):
        array = ArrayFile(whole, f"{INDEX}/{field.name}")
        arrays[field.name] = array.read(0, array.shape[0])
    return Columns(**arrays), Names(tuple(record["groups"]), tuple(record["splits"]))


def stamped_shards(place: Place) -> set[int]:
    """The shards that index/ was derived from; of a store without one, those that have a commit."""
    key = f"{INDEX}/{COMMIT}"
    try:
        return {int(name) for name in unseal(f"{place.name}/{key}", place.read(key))["shards"] if name.isdigit()}
    except (FileNotFoundError, StoreDamageError):
        header = parse_header(place.name, place.read("zarr.json"))
        return {shard for shard, _ in read_commits(place, num_shards(header))}


def read_failures(place: Place, header: Header) -> list[Failure]:
    """The videos that could not be used: from the store's list where it is whole, else from the commits.

    Raises:
        StoreDamageError: a commit is damaged.
    """
    key = f"{INDEX}/{COMMIT}"
    with suppress(FileNotFoundError, StoreDamageError, KeyError):
        lines = place.read(FAILURES)
        if unseal(f"{place.name}/{key}", place.read(key))["failures"] == [len(lines), crc32c(lines)]:
            return [Failure.model_validate(json.loads(line)) for line in lines.split(b"\n") if line]
    commits = read_commits(place, num_shards(header))
    return sorted((f for _, commit in commits for f in parse_failures(commit)), key=lambda failure: failure.id)
