"""Checking a store: every commit, size and checksum, and a hash of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.errors import StoreError
from bgaug.store.check import Problem, check_banks, check_files, check_shard
from bgaug.store.format.columns import COLUMN_SPECS, columns_of
from bgaug.store.format.documents import MAX_RECORD_BYTES, brief
from bgaug.store.format.inside import read_inside
from bgaug.store.format.layout import (
    COMMIT,
    FAILURES,
    INDEX,
    PLAN,
    SHARDS,
    VERSION,
    Header,
    canonical_json,
    committed_shards,
    num_shards,
    read_commit,
    read_header,
    shard_name,
)
from bgaug.store.format.plan import read_plan
from bgaug.store.format.records import Failure, VideoRow
from bgaug.store.index import (
    failure_lines,
    has_failures,
    index_is_fresh,
    parse_failures,
    parse_rows,
    present_shards,
    read_index,
    read_index_record,
)
from bgaug.store.places import Folder


@dataclass(frozen=True)
class Report:
    """What `verify_store` found.

    Attributes:
        problems: empty for a whole store.
        num_shards: shards looked at.
        num_videos: videos in them.
        num_frames: frames in them.
        num_bytes: bytes of all files named by commits.
        content_hash: sha256 of ids, content and options: the same for the same videos and options, whoever built it
            and when; None where a commit could not be read.
        deep: whether everything was decoded.
    """

    problems: tuple[Problem, ...]
    num_shards: int
    num_videos: int
    num_frames: int
    num_bytes: int
    content_hash: str | None
    deep: bool = field(default=False, compare=False)


def verify_store(root: str | Path, *, deep: bool = False, on_shard: Callable[[], None] | None = None) -> Report:
    """Check every commit, size and checksum of a store.

    Args:
        root: its folder.
        deep: also decode every frame, mask and background.
        on_shard: called after each shard.

    Raises:
        StoreFormatError: there is no store.
        StoreDamageError: its header is damaged: nothing else can be judged.
    """
    root = Path(root)
    header = read_header(root)
    problems: list[Problem] = []
    # What a later minor version has beside is not known here.
    if header.version == VERSION and read_inside(root, "zarr.json", MAX_RECORD_BYTES) != header.to_bytes():
        problems.append(Problem(root / "zarr.json", "its bytes are not those that were written"))
    plan_ids = _planned_ids(root, header, problems)
    rows: list[tuple[VideoRow, int]] = []
    failures: list[Failure] = []
    num_bytes, readable = 0, True
    there = set(present_shards(Folder(root), num_shards(header)))
    shards = sorted(there | set(range(min(len(plan_ids), num_shards(header)))))
    for shard in shards:
        folder = root / SHARDS / shard_name(shard)
        ids = plan_ids[shard] if shard < len(plan_ids) else ()
        try:
            commit = read_commit(folder)
        except StoreError as error:
            problems.append(Problem(_within(error.path, folder), error.message, ids))
            readable = False
        else:
            problems += _check_commit(folder, commit, shard, ids)
            problems += check_shard(root, shard, commit, header, deep=deep)
            rows += [(row, shard) for row in parse_rows(commit)]
            failures += parse_failures(commit)
            num_bytes += sum(size for size, _ in commit["files"].values())
        if on_shard is not None:
            on_shard()
    if len(shards) < num_shards(header):
        missing = num_shards(header) - len(shards)
        problems.append(Problem(root / SHARDS, f"{missing} of {num_shards(header)} shards are not there"))
        readable = False
    problems += _check_together(root, header, rows)
    problems += check_banks(root, header, deep=deep)
    problems += _check_derived(root, header, rows, failures if readable else None)
    return Report(
        problems=tuple(problems),
        num_shards=num_shards(header),
        num_videos=sum(row.first == 0 for row, _ in rows),
        num_frames=sum(row.num_frames for row, _ in rows),
        num_bytes=num_bytes,
        content_hash=_content_hash(header, [row for row, _ in rows]) if readable else None,
        deep=deep,
    )


def _within(path: Path, folder: Path) -> Path:
    """Where a shard's record cannot be read: the path that is meant, if it belongs to the shard."""
    return path if path.is_relative_to(folder) else folder


def _planned_ids(root: Path, header: Header, problems: list[Problem]) -> list[tuple[str, ...]]:
    try:
        plan = read_plan(root, header.plan["sha256"])
    except StoreError as error:
        problems.append(Problem(root / PLAN, error.message))
        return []
    found = plan.num_videos, len(plan.shards)
    if found != (header.plan["videos"], header.plan["shards"]):
        said = f"has {found[0]} videos in {found[1]} shards, the header tells of others"
        problems.append(Problem(root / PLAN, said))
    return [tuple(video.id for video in shard) for shard in plan.shards]


def _check_commit(folder: Path, commit: dict[str, Any], shard: int, planned: tuple[str, ...]) -> list[Problem]:
    """Whether the record is of this shard, and agrees with the plan."""
    found = {row["id"] for row in (*commit["videos"], *commit["failures"])}
    said = []
    if commit["shard"] != shard:
        said.append(f"is the record of shard {commit['shard']}")
    if planned and not found <= set(planned):
        said.append(f"tells of videos that the plan has elsewhere, {min(found - set(planned))!r} among them")
    return [Problem(folder / COMMIT, message, tuple(sorted(found))) for message in said]


def _check_together(root: Path, header: Header, rows: list[tuple[VideoRow, int]]) -> list[Problem]:
    """Whether the rows of all shards go together: no frame of a video twice, no label that is no class."""
    problems = []
    stop: dict[str, int] = {}
    for row, shard in sorted(rows, key=lambda pair: (pair[0].id, pair[0].first, pair[1])):
        folder = root / SHARDS / shard_name(shard)
        if row.first < stop.get(row.id, 0) or (row.first == 0 and row.id in stop):
            problems.append(Problem(folder, f"has frames of {brief(row.id)} that another shard has", (row.id,)))
        if row.label and row.label not in header.classes:
            problems.append(Problem(folder, f"has the label {brief(row.label)}, which is no class", (row.id,)))
        stop[row.id] = row.first + row.num_frames
    return problems


def _check_derived(
    root: Path, header: Header, rows: list[tuple[VideoRow, int]], failures: list[Failure] | None
) -> list[Problem]:
    problems = [
        Problem(folder, "is no shard of the plan", foreign=True)
        for folder in committed_shards(root)
        if int(folder.name) >= num_shards(header) or folder.name != shard_name(int(folder.name))
    ]
    if failures is None:
        return problems  # index and list are derived from the commits: judged again once those are whole
    problems += _check_index(root, header, rows)
    if not has_failures(root, failure_lines(failures)):
        said = "is missing or not what the commits say; a rerun of build derives it anew"
        problems.append(Problem(root / FAILURES, said))
    return problems


def _check_index(root: Path, header: Header, rows: list[tuple[VideoRow, int]]) -> list[Problem]:
    if not index_is_fresh(root):
        said = "is missing, damaged or older than the shards; a rerun of build derives it anew"
        return [Problem(root / INDEX, said)]
    record = read_index_record(Folder(root))
    problems = check_files(root, INDEX, record["files"], ())
    if record["header"] != header.to_attributes() and header.version == VERSION:
        problems.append(Problem(root / INDEX / COMMIT, "has another header than zarr.json"))
    try:
        found, names = read_index(Folder(root), header)
        due, due_names = columns_of(str(root), header, rows)
    except (FileNotFoundError, StoreError) as error:
        return problems or [Problem(root / INDEX, f"cannot be used: {error}; a rerun of build derives it anew")]
    other = [name for name in COLUMN_SPECS if not np.array_equal(getattr(found, name), getattr(due, name))]
    if other or names != due_names:
        said = f"says otherwise than the commits: {', '.join(other) or 'groups or splits'}; a rerun of build derives it anew"
        problems.append(Problem(root / INDEX, said))
    return problems


def content_hash(root: Path) -> str:
    """Content hash of a store, by its commits alone; see `Report`.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    header = read_header(root)
    shards = (root / SHARDS / shard_name(shard) for shard in range(num_shards(header)))
    return _content_hash(header, [row for folder in shards for row in parse_rows(read_commit(folder))])


def _content_hash(header: Header, rows: list[VideoRow]) -> str:
    videos = [
        {**row.to_json(), "start": 0, "identity": None, "shots": [[shot.start, shot.stop] for shot in row.shots]}
        for row in sorted(rows, key=lambda row: row.id)
    ]
    record = {
        "size": list(header.size),
        "fit": header.fit,
        "frames": header.frames,
        "classes": list(header.classes),
        "options": header.options,
        "videos": videos,
    }
    return hashlib.sha256(canonical_json(_rounded(record))).hexdigest()


def _rounded(value: Any) -> Any:
    """Floats to six digits: times may differ in the last bit between builds of a decoder."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
