"""Checking a store: every commit, size and checksum, and a hash of what it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgaug.errors import StoreDamageError, StoreError
from bgaug.store.banks import bank_names, read_bank_commit
from bgaug.store.files import ArrayFile
from bgaug.store.index import failure_lines, index_is_fresh, parse_failures, parse_rows
from bgaug.store.jpeg import decode_jpeg
from bgaug.store.layout import (
    BANKS,
    COMMIT,
    FAILURES,
    FRAMES_PER_CHUNK,
    INDEX,
    SHARDS,
    VERSION,
    Header,
    canonical_json,
    committed_shards,
    crc32c,
    num_shards,
    read_commit,
    read_header,
    shard_name,
    unseal,
)
from bgaug.store.places import Folder
from bgaug.store.plan import read_plan
from bgaug.store.records import Failure, VideoRow
from bgaug.store.write import array_specs


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a store.

    Attributes:
        path: where.
        message: what.
        videos: ids of those that it costs.
        foreign: whether it is something that does not belong there, and costs nothing.
    """

    path: Path
    message: str
    videos: tuple[str, ...] = ()
    foreign: bool = False


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
    if header.version == VERSION and (root / "zarr.json").read_bytes() != header.to_bytes():
        problems.append(Problem(root / "zarr.json", "its bytes are not those that were written"))
    rows: list[VideoRow] = []
    failures: list[Failure] = []
    plan_ids = _planned_ids(root, header, problems)
    num_bytes, readable = 0, True
    for shard in range(num_shards(header)):
        folder = root / SHARDS / shard_name(shard)
        ids = plan_ids[shard] if shard < len(plan_ids) else ()
        try:
            commit = read_commit(folder)
        except StoreDamageError as error:
            problems.append(Problem(error.path, error.message, ids))
            readable = False
        else:
            problems += _check_commit(folder, commit, shard, ids)
            problems += _check_arrays(folder, commit, header)
            problems += _check_shard(folder, commit, header, deep)
            rows += parse_rows(commit)
            failures += parse_failures(commit)
            num_bytes += sum(size for size, _ in commit["files"].values())
        if on_shard is not None:
            on_shard()
    problems += _check_banks(root)
    problems += _check_derived(root, header, failures if readable else None)
    return Report(
        problems=tuple(problems),
        num_shards=num_shards(header),
        num_videos=sum(row.first == 0 for row in rows),
        num_frames=sum(row.num_frames for row in rows),
        num_bytes=num_bytes,
        content_hash=_content_hash(header, rows) if readable else None,
        deep=deep,
    )


def _planned_ids(root: Path, header: Header, problems: list[Problem]) -> list[tuple[str, ...]]:
    try:
        plan = read_plan(root, header.plan["sha256"])
    except StoreDamageError as error:
        problems.append(Problem(error.path, error.message))
        return []
    return [tuple(video.id for video in shard) for shard in plan.shards]


def _check_commit(folder: Path, commit: dict[str, Any], shard: int, planned: tuple[str, ...]) -> list[Problem]:
    """Whether the record is of this shard, and agrees with itself and with the plan."""
    rows = parse_rows(commit)
    found = {row.id for row in rows} | {failure.id for failure in parse_failures(commit)}
    said = []
    if commit["shard"] != shard:
        said.append(f"is the record of shard {commit['shard']}")
    if planned and not found <= set(planned):
        said.append(f"tells of videos that the plan has elsewhere, {min(found - set(planned))!r} among them")
    if commit["F"] != sum(row.num_frames for row in rows):
        said.append(f"tells of {commit['F']} frames, its videos of {sum(row.num_frames for row in rows)}")
    if commit["K"] != sum(shot.background >= 0 for row in rows for shot in row.shots):
        said.append(f"tells of {commit['K']} backgrounds, its videos of another number")
    return [Problem(folder / COMMIT, message, tuple(sorted(found))) for message in said]


def _check_arrays(folder: Path, commit: dict[str, Any], header: Header) -> list[Problem]:
    """Whether the shard has the arrays that the header calls for, laid out as it says."""
    ids = tuple(row["id"] for row in commit["videos"])
    specs = array_specs(header)
    rows = dict.fromkeys(("backgrounds", "valid", "noise", "background_crc"), commit["K"])
    rows["frame_offsets"] = commit["F"] + 1
    found = {name.split("/")[0] for name in commit["files"] if "/" in name}
    problems = []
    missing = sorted(specs.keys() - found - {"masks"})
    if missing or not found <= specs.keys():
        which = ", ".join(missing) or ", ".join(sorted(found - specs.keys()))
        problems.append(Problem(folder, f"is of another kind than the store: look at {which}", ids))
    for name in sorted(found & specs.keys()):
        try:
            node = json.loads((folder / name / "zarr.json").read_bytes())
            count = node["shape"][0] if name == "frames" and header.frames == "jpeg" else rows.get(name, commit["F"])
            if node != json.loads(specs[name].metadata(count)):
                problems.append(Problem(folder / name, "is laid out otherwise than the store says", ids))
        except (OSError, ValueError, LookupError, TypeError):
            pass  # damage, which the checksums tell
    return problems


def _check_shard(folder: Path, commit: dict[str, Any], header: Header, deep: bool) -> list[Problem]:
    ids = tuple(row["id"] for row in commit["videos"])
    problems = _check_files(folder, commit["files"], ids)
    if not problems and deep:
        try:
            _decode_everything(folder, header)
        except (StoreDamageError, ValueError, cv2.error) as error:
            problems.append(Problem(folder, f"cannot be decoded: {error}", ids))
    return problems


def _check_files(folder: Path, files: dict[str, list[int]], ids: tuple[str, ...]) -> list[Problem]:
    problems = []
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name, (size, checksum) in files.items():
        if name not in found:
            problems.append(Problem(folder / name, "is missing", ids))
            continue
        data = (folder / name).read_bytes()
        if len(data) != size:
            problems.append(Problem(folder / name, f"has {len(data)} bytes instead of {size}", ids))
        elif crc32c(data) != checksum:
            problems.append(
                Problem(folder / name, "its bytes are not those that were committed (checksum differs)", ids)
            )
    for name in sorted(found - files.keys() - {COMMIT}):
        problems.append(Problem(folder / name, "does not belong to the store", foreign=True))
    return problems


def _decode_everything(folder: Path, header: Header) -> None:
    place = Folder(folder)
    for name in ("masks", "backgrounds", "valid", "noise", "pts_seconds"):
        if (folder / name).exists():
            array = ArrayFile(place, name)
            for first in range(0, array.shape[0], FRAMES_PER_CHUNK):
                array.read(first, min(first + FRAMES_PER_CHUNK, array.shape[0]))
    if header.frames == "none":
        return
    frames, checksums = ArrayFile(place, "frames"), ArrayFile(place, "frame_crc", whole=True)
    image = np.empty((*header.size, 3), np.uint8)
    places: list[int] = []
    if header.frames == "jpeg":
        offsets = ArrayFile(place, "frame_offsets", whole=True)
        places = offsets.read(0, offsets.shape[0]).tolist()
    for row, checksum in enumerate(checksums.read(0, checksums.shape[0]).tolist()):
        data = frames.read(places[row], places[row + 1]) if places else frames.read(row, row + 1)
        if crc32c(data) != checksum:
            raise StoreDamageError(folder, f"frame {row} is not the one that was stored (checksum differs)")
        if places:
            decode_jpeg(data, image)


def _check_banks(root: Path) -> list[Problem]:
    problems = []
    for name in bank_names(root):
        folder = root / BANKS / name
        try:
            files = read_bank_commit(Folder(root), name)["files"]
        except StoreError as error:
            problems.append(Problem(folder / COMMIT, error.message))
        else:
            problems += _check_files(folder, files, ())
    return problems


def _check_derived(root: Path, header: Header, failures: list[Failure] | None) -> list[Problem]:
    problems = []
    extra = {path.name for path in committed_shards(root)} - {shard_name(i) for i in range(num_shards(header))}
    problems += [Problem(root / SHARDS / name, "is no shard of the plan", foreign=True) for name in sorted(extra)]
    if failures is None:
        return problems  # index and list are derived from the commits: judged again once those are whole
    if not index_is_fresh(root):
        problems.append(
            Problem(root / INDEX, "is missing, damaged or older than the shards; a rerun of build derives it anew")
        )
    else:
        record = unseal(root / INDEX / COMMIT, (root / INDEX / COMMIT).read_bytes())
        problems += _check_files(root / INDEX, record["files"], ())
        if record["header"] != header.to_attributes() and header.version == VERSION:
            problems.append(Problem(root / INDEX / COMMIT, "has another header than zarr.json"))
    file = root / FAILURES
    if not file.exists() or file.read_bytes() != failure_lines(failures):
        problems.append(Problem(file, "is missing or not what the commits say; a rerun of build derives it anew"))
    return problems


def content_hash(root: Path) -> str:
    """Content hash of a store, by its commits alone; see `Report`.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    header = read_header(root)
    shards = [root / SHARDS / shard_name(shard) for shard in range(num_shards(header))]
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
