"""Checking a store: every commit, size and checksum; deep: also the content of every array."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.errors import StoreDamageError, StoreError
from bgaug.store.array_file import ArrayFile, check_numbers, content_of, read_array_document
from bgaug.store.arrays import ArraySpec, array_specs
from bgaug.store.banks import BANK_ARRAY, bank_names, bank_spec, read_bank_commit
from bgaug.store.format.columns import COLUMN_SPECS, columns_of
from bgaug.store.format.documents import MAX_NODE_BYTES, MAX_RECORD_BYTES, ShardNode, brief, check_document, parse_json
from bgaug.store.format.inside import files_inside, kind_of, open_inside, read_inside
from bgaug.store.format.layout import (
    BANKS,
    COMMIT,
    FAILURES,
    INDEX,
    PLAN,
    SHARDS,
    VERSION,
    Header,
    committed_shards,
    crc32c,
    extend_crc32c,
    num_shards,
    read_commit,
    read_header,
    shard_name,
)
from bgaug.store.format.payload import decode_jpeg
from bgaug.store.format.plan import read_plan
from bgaug.store.format.records import Failure, ShotTotals, VideoRow
from bgaug.store.index import (
    failure_lines,
    has_failures,
    hash_of_rows,
    index_is_fresh,
    parse_failures,
    parse_rows,
    present_shards,
    read_index,
    read_index_record,
)
from bgaug.store.places import Folder

_BLOCK_BYTES = 1 << 20
_REBUILT = "run the build again to derive it again"


@dataclass(frozen=True)
class Problem:
    """A fault of a store."""

    path: Path  # the affected path
    message: str  # the fault
    videos: tuple[str, ...] = ()  # ids of the videos that are affected
    foreign: bool = False  # whether it is something that does not belong to the store and affects nothing


@dataclass(frozen=True)
class Report:
    """The result of `verify_store`."""

    problems: tuple[Problem, ...]  # empty for an intact store
    num_shards: int  # shards of the plan
    num_videos: int  # videos in them
    num_frames: int  # frames in them
    num_bytes: int  # bytes of all files in the commits
    # sha256 of ids, content and options: the same for the same videos and options, independently of builder and time;
    # None if a commit could not be read
    content_hash: str | None
    deep: bool = field(default=False, compare=False)  # whether everything was decoded


def verify_store(root: str | Path, *, deep: bool = False, on_shard: Callable[[], None] | None = None) -> Report:
    """Check every commit, size and checksum of a store.

    Args:
        root: its folder.
        deep: also decode every frame, mask and background.
        on_shard: called after each shard.

    Raises:
        StoreFormatError: there is no store.
        StoreDamageError: its header is damaged, so that nothing else can be checked.
    """
    root = Path(root)
    header = read_header(root)
    problems: list[Problem] = []
    # A later minor version may have further fields.
    if header.version == VERSION and read_inside(root, "zarr.json", MAX_RECORD_BYTES) != header.to_bytes():
        problems.append(Problem(root / "zarr.json", "its bytes differ from those that were written"))
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
            path = error.path if error.path.is_relative_to(folder) else folder
            problems.append(Problem(path, error.message, ids))
            readable = False
        else:
            problems += _check_commit(folder, commit, shard, ids)
            problems += _check_shard(root, shard, commit, header, deep=deep)
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
    problems += _check_banks(root, header, deep=deep)
    problems += _check_derived(root, header, rows, failures if readable else None)
    return Report(
        problems=tuple(problems),
        num_shards=num_shards(header),
        num_videos=sum(row.first == 0 for row, _ in rows),
        num_frames=sum(row.num_frames for row, _ in rows),
        num_bytes=num_bytes,
        content_hash=hash_of_rows(header, [row for row, _ in rows]) if readable else None,
        deep=deep,
    )


def _planned_ids(root: Path, header: Header, problems: list[Problem]) -> list[tuple[str, ...]]:
    try:
        plan = read_plan(root, header.plan["sha256"])
    except StoreError as error:
        problems.append(Problem(root / PLAN, error.message))
        return []
    found = plan.num_videos, len(plan.shards)
    if found != (header.plan["videos"], header.plan["shards"]):
        message = f"has {found[0]} videos in {found[1]} shards, the header declares other numbers"
        problems.append(Problem(root / PLAN, message))
    return [tuple(video.id for video in shard) for shard in plan.shards]


def _check_commit(folder: Path, commit: dict[str, Any], shard: int, planned: tuple[str, ...]) -> list[Problem]:
    """Whether the record is that of this shard, and agrees with the plan."""
    found = {row["id"] for row in (*commit["videos"], *commit["failures"])}
    messages = []
    if commit["shard"] != shard:
        messages.append(f"is the record of shard {commit['shard']}")
    if planned and not found <= set(planned):
        messages.append(f"contains videos that belong to other shards, {min(found - set(planned))!r} among them")
    return [Problem(folder / COMMIT, message, tuple(sorted(found))) for message in messages]


def _check_together(root: Path, header: Header, rows: list[tuple[VideoRow, int]]) -> list[Problem]:
    """Whether the rows of all shards agree: no frame of a video twice, no label without a class."""
    problems = []
    stop: dict[str, int] = {}
    for row, shard in sorted(rows, key=lambda pair: (pair[0].id, pair[0].first, pair[1])):
        folder = root / SHARDS / shard_name(shard)
        if row.first < stop.get(row.id, 0) or (row.first == 0 and row.id in stop):
            problems.append(Problem(folder, f"has frames of {brief(row.id)} that are in another shard", (row.id,)))
        if row.label and row.label not in header.classes:
            problems.append(Problem(folder, f"has the label {brief(row.label)}, which is not a class", (row.id,)))
        stop[row.id] = row.first + row.num_frames
    return problems


def _check_derived(
    root: Path, header: Header, rows: list[tuple[VideoRow, int]], failures: list[Failure] | None
) -> list[Problem]:
    problems = [
        Problem(folder, "is not a shard of the plan", foreign=True)
        for folder in committed_shards(root)
        if int(folder.name) >= num_shards(header) or folder.name != shard_name(int(folder.name))
    ]
    if failures is None:
        return problems  # index and list are derived from the commits, which are incomplete
    problems += _check_index(root, header, rows)
    if not has_failures(root, failure_lines(failures)):
        problems.append(Problem(root / FAILURES, f"is missing or differs from the commits; {_REBUILT}"))
    return problems


def _check_index(root: Path, header: Header, rows: list[tuple[VideoRow, int]]) -> list[Problem]:
    if not index_is_fresh(root):
        return [Problem(root / INDEX, f"is missing, damaged or older than the shards; {_REBUILT}")]
    record = read_index_record(Folder(root))
    problems = _check_files(root, INDEX, record["files"], ())
    if record["header"] != header.to_attributes() and header.version == VERSION:
        problems.append(Problem(root / INDEX / COMMIT, "has another header than zarr.json"))
    try:
        found, names = read_index(Folder(root), header)
        expected, expected_names = columns_of(str(root), header, rows)
    except (FileNotFoundError, StoreError) as error:
        return problems or [Problem(root / INDEX, f"cannot be used: {error}; {_REBUILT}")]
    other = [name for name in COLUMN_SPECS if not np.array_equal(getattr(found, name), getattr(expected, name))]
    if other or names != expected_names:
        which = ", ".join(other) or "groups or splits"
        problems.append(Problem(root / INDEX, f"differs from the commits: {which}; {_REBUILT}"))
    return problems


# --- one shard --------------------------------------------------------------------------------------------------------


def _check_shard(root: Path, shard: int, commit: dict[str, Any], header: Header, *, deep: bool) -> list[Problem]:
    """Whether a shard has the files of its record in the layout of the header; deep: also their content."""
    key = f"{SHARDS}/{shard_name(shard)}"
    ids = tuple(row["id"] for row in commit["videos"])
    problems = _check_files(root, key, commit["files"], ids)
    if all(problem.foreign for problem in problems):
        problems += [
            Problem(root / key / where, message, ids) for where, message in _check_arrays(root, key, commit, header)
        ]
    if deep and all(problem.foreign for problem in problems):
        try:
            _decode_everything(root, key, commit, header)
        except StoreError as error:
            problems.append(Problem(root / key, f"cannot be decoded: {error}", ids))
    return problems


def _check_files(root: Path, key: str, files: Mapping[str, list[int]], ids: tuple[str, ...]) -> list[Problem]:
    """Whether a folder of the store has exactly these files, by [bytes, crc32c]."""
    problems = []
    try:
        found = files_inside(root, key)
    except (FileNotFoundError, NotADirectoryError) as error:
        return [Problem(root / key, f"cannot be read ({error.strerror})", ids)]
    except StoreError as error:
        return [Problem(error.path, error.message, ids)]
    for name, (size, checksum) in files.items():
        if name not in found:
            problems.append(Problem(root / key / name, "is missing", ids))
        elif not stat.S_ISREG(found[name].st_mode):
            problems.append(Problem(root / key / name, f"is {kind_of(found[name])}", ids))
        elif found[name].st_size != size:
            problems.append(Problem(root / key / name, f"has {found[name].st_size} bytes instead of {size}", ids))
        elif _checksum(root, f"{key}/{name}") != checksum:
            message = "its bytes differ from those that were committed (checksum differs)"
            problems.append(Problem(root / key / name, message, ids))
    for name in sorted(found.keys() - files.keys() - {COMMIT}):
        problems.append(Problem(root / key / name, "does not belong to the store", foreign=True))
    return problems


def _checksum(root: Path, key: str) -> int | None:
    """crc32c of a file; None if it cannot be read."""
    checksum = 0
    try:
        with os.fdopen(open_inside(root, key), "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                checksum = extend_crc32c(checksum, block)
    except (OSError, StoreError):
        return None
    return checksum


def _check_arrays(root: Path, key: str, commit: dict[str, Any], header: Header) -> Iterator[tuple[str, str]]:
    """(place, message) of each fault in the arrays that a shard declares."""
    specs, files = array_specs(header), commit["files"]
    found = {name.split("/")[0] for name in files if "/" in name}
    optional = ShotTotals.of(parse_rows(commit)).rows_by_array
    possible = specs.keys() - {name for name, count in optional.items() if not count}
    required = possible - {"masks"}
    if not required <= found <= possible:
        which = ", ".join(sorted(required - found)) or ", ".join(sorted(found - possible))
        yield ".", f"is of another kind than the store: see {which}"
    try:
        text = read_inside(root, f"{key}/zarr.json", MAX_NODE_BYTES)
        declared = check_document(f"{key}/zarr.json", ShardNode, parse_json(f"{key}/zarr.json", text))
        if set(declared.attributes.bgaug.arrays) != found:
            yield "zarr.json", "declares other arrays than there are"
    except (FileNotFoundError, StoreError) as error:
        yield "zarr.json", f"cannot be used: {error}"
    rows = dict.fromkeys(("backgrounds", "valid", "noise", "background_crc"), commit["K"])
    rows["frame_offsets"] = commit["F"] + 1
    rows |= optional
    for name in sorted(found & specs.keys()):
        count = None if name == "frames" and header.frames == "jpeg" else rows.get(name, commit["F"])
        message = _check_array(root, f"{key}/{name}", specs[name], count, files)
        if message:
            yield name, message


def _check_array(root: Path, key: str, spec: ArraySpec, num_rows: int | None, files: Mapping[str, Any]) -> str | None:
    """The fault in the layout of an array, or None."""
    try:
        count = read_array_document(Folder(root), key, spec).shape[0]
        node = json.loads(read_inside(root, f"{key}/zarr.json", MAX_NODE_BYTES))
    except (FileNotFoundError, StoreError) as error:
        return f"cannot be used: {error}"
    expected = json.loads(spec.metadata(count))
    node.setdefault("dimension_names", expected["dimension_names"])  # stores of bgaug 0.1 have none
    if node != expected or count != (count if num_rows is None else num_rows):
        return "has another layout than the store requires"
    name = key.rsplit("/", 1)[1]
    data = "/".join([name, "c", "0", *("0" for _ in spec.row)])
    if (data in files) != bool(count):
        return f"has {count} rows, and {'a' if data in files else 'no'} file of data"
    return None


# --- deep -------------------------------------------------------------------------------------------------------------


def _decode_everything(root: Path, key: str, commit: dict[str, Any], header: Header) -> None:
    """Decode every array of a shard. Raises StoreError: one cannot be decoded, or contradicts the records."""
    place, files = Folder(root), commit["files"]
    arrays = {
        name: ArrayFile(place, f"{key}/{name}", spec, whole=spec.rows_per_chunk is None)
        for name, spec in array_specs(header).items()
        if f"{name}/zarr.json" in files
    }
    for name, array in arrays.items():
        check_numbers(name, array, arrays.get("frames"))
        if name != "frames":
            for _ in array.blocks(0, array.shape[0]):
                pass
    _check_images(root / key, arrays, "backgrounds", "background_crc")
    if header.frames == "jpeg":
        _decode_jpegs(root / key, arrays, header)
    else:
        _check_images(root / key, arrays, "frames", "frame_crc")
    for row in parse_rows(commit):
        if content_of(row, arrays) != row.content:
            raise StoreDamageError(root / key, f"{row.id} has other content than its record declares")


def _check_images(folder: Path, arrays: Mapping[str, ArrayFile], images: str, checksums: str) -> None:
    """Compare raw images with their checksums, if the store has these."""
    if checksums not in arrays:
        return
    for number, checksum in enumerate(arrays[checksums].read_all().tolist()):
        if crc32c(arrays[images].read(number, number + 1)) != checksum:
            raise StoreDamageError(folder, f"row {number} of {images} differs from the stored one (checksum differs)")


def _decode_jpegs(folder: Path, arrays: Mapping[str, ArrayFile], header: Header) -> None:
    image = np.empty((*header.size, 3), np.uint8)
    places = arrays["frame_offsets"].read_all().tolist()
    for row, checksum in enumerate(arrays["frame_crc"].read_all().tolist()):
        data = arrays["frames"].read(places[row], places[row + 1])
        if crc32c(data) != checksum:
            raise StoreDamageError(folder, f"frame {row} differs from the stored one (checksum differs)")
        decode_jpeg(data, image, f"{folder}: frame {row}")


# --- banks ------------------------------------------------------------------------------------------------------------


def _check_banks(root: Path, header: Header, *, deep: bool) -> list[Problem]:
    """Whether banks have the files of their records in the layout of the header; deep: also their content."""
    problems = []
    for name in bank_names(root):
        folder, key = root / BANKS / name, f"{BANKS}/{name}"
        try:
            record = read_bank_commit(Folder(root), name)
        except StoreError as error:
            problems.append(Problem(folder / COMMIT, error.message))
            continue
        found = _check_files(root, key, record["files"], ())
        spec = bank_spec(header.size)
        if not found:
            message = _check_array(root, f"{key}/{BANK_ARRAY}", spec, len(record["names"]), record["files"])
            found += [Problem(folder / BANK_ARRAY, message)] if message else []
        if not found and deep:
            try:
                array = ArrayFile(Folder(root), f"{key}/{BANK_ARRAY}", spec)
                for _ in array.blocks(0, array.shape[0]):
                    pass
            except StoreError as error:
                found.append(Problem(folder, f"cannot be decoded: {error}"))
        problems += found
    return problems
