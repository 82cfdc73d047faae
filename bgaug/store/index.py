"""index/ and failures.jsonl, which are derived from the shards' commits; and the content hash of a store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.errors import StoreDamageError, StoreError
from bgaug.files import replace_durably, sync_folder
from bgaug.store.array_file import ArrayFile, check_unpacked, read_array_document
from bgaug.store.arrays import ArrayWriter, begin_group, sync_tree
from bgaug.store.format.columns import (
    COLUMN_SPECS,
    OPTIONAL_COLUMNS,
    Columns,
    Names,
    check_columns,
    columns_left_out,
    columns_of,
    implied_columns,
)
from bgaug.store.format.documents import (
    MAX_LIST_BYTES,
    MAX_NODE_BYTES,
    MAX_RECORD_BYTES,
    CommitDocument,
    IndexDocument,
    check_document,
    parse_json,
)
from bgaug.store.format.inside import discard, exists_inside, read_inside
from bgaug.store.format.layout import (
    COMMIT,
    FAILURES,
    INDEX,
    SHARDS,
    TEMPORARY,
    Header,
    canonical_json,
    committed_shards,
    crc32c,
    num_shards,
    parse_header,
    read_commit,
    read_header,
    seal,
    shard_name,
    unseal,
)
from bgaug.store.format.records import Failure, VideoRow
from bgaug.store.places import Folder, Held, Place
from bgaug.text import json_bytes

_NUMBER = re.compile("[0-9]{5,10}")
_OF_SEVERAL = {"background_frame_offsets", "background_frame"}


def parse_rows(commit: dict[str, Any]) -> list[VideoRow]:
    """The videos of a commit record. Raises StoreFormatError: they do not match the format."""
    name = f"shard {commit['shard']}"
    return [check_document(name, VideoRow, row) for row in commit["videos"]]


def parse_failures(commit: dict[str, Any]) -> list[Failure]:
    """The failures of a commit record; raises as `parse_rows` does."""
    return [check_document(f"shard {commit['shard']}", Failure, row) for row in commit["failures"]]


def _read_commits(place: Place, num_shards: int) -> list[tuple[int, dict[str, Any]]]:
    """Commit records of all visible shards, with their numbers."""
    found = []
    for shard in present_shards(place, num_shards):
        with suppress(FileNotFoundError):  # being built
            key = f"{SHARDS}/{shard_name(shard)}/{COMMIT}"
            found.append((shard, unseal(f"{place.name}/{key}", place.read(key, MAX_RECORD_BYTES), CommitDocument)))
    return found


def present_shards(place: Place, num_shards: int) -> Iterable[int]:
    """Numbers of shards that may exist, in order: from the names in the folder, not from the header."""
    names = place.names(SHARDS)
    if names is None:
        return range(num_shards)
    numbers = (int(name) for name in names if _NUMBER.fullmatch(name))
    return sorted(number for number in numbers if number < num_shards)


def rebuild_index(root: Path, header: Header) -> None:
    """Write index/ and failures.jsonl from the commits; nothing changes if they are up to date."""
    commits = _read_commits(Folder(root), num_shards(header))
    expected = failure_lines(failure for _, commit in commits for failure in parse_failures(commit))
    if not has_failures(root, expected):
        discard(root / FAILURES)
        replace_durably(root / FAILURES, expected)
    if not index_is_fresh(root):
        _write_index(root, header, expected, *_columns(str(root), header, commits))


def has_failures(root: Path, expected: bytes) -> bool:
    """Whether failures.jsonl contains these lines."""
    try:
        return read_inside(root, FAILURES, len(expected)) == expected
    except (FileNotFoundError, StoreError):
        return False


def _columns(name: str, header: Header, commits: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Columns, Names]:
    return columns_of(name, header, ((row, shard) for shard, commit in commits for row in parse_rows(commit)))


def failure_lines(failures: Iterable[Failure]) -> bytes:
    """failures.jsonl: a line each, in order of id."""
    ordered = sorted(failures, key=lambda failure: failure.id)
    # People read this file, too: characters that act on a terminal are escaped, and restored by parsing.
    options: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return b"".join(json_bytes(failure.to_json(), **options) + b"\n" for failure in ordered)


def _write_index(root: Path, header: Header, failures: bytes, columns: Columns, names: Names) -> None:
    """Replace index/ by these columns, with a copy of the header and the checksum of failures.jsonl."""
    folder = root / f"{TEMPORARY}{INDEX}"
    discard(folder)
    begin_group(folder)
    known: dict[str, list[int]] = {}
    left_out = columns_left_out(columns)
    for field in fields(Columns):
        if field.name in left_out:
            continue
        array = ArrayWriter(folder, field.name, COLUMN_SPECS[field.name])
        array.append(getattr(columns, field.name))
        array.finish()
        known |= array.files
    record = {
        "header": header.to_attributes(),
        "failures": [len(failures), crc32c(failures)],
        "shards": _shard_stamps(root),
        "groups": list(names.groups),
        "splits": list(names.splits),
        "files": sync_tree(folder, known),
    }
    replace_durably(folder / COMMIT, seal(record))
    # In between there is no index: readers then use the commits, which contain the same.
    discard(root / INDEX)
    folder.rename(root / INDEX)
    sync_folder(root)


def _shard_stamps(root: Path) -> dict[str, int]:
    """Checksum of each shard's commit record, which covers all other files of the shard."""
    stamps = {}
    for folder in committed_shards(root):
        with suppress(FileNotFoundError):
            stamps[folder.name] = crc32c(read_inside(root, f"{SHARDS}/{folder.name}/{COMMIT}", MAX_RECORD_BYTES))
    return stamps


def index_is_fresh(root: Path) -> bool:
    """Whether index/ was derived from the current shards."""
    try:
        return bool(read_index_record(Folder(root))["shards"] == _shard_stamps(root))
    except (FileNotFoundError, NotADirectoryError, StoreError):
        return False


def load_columns(place: Place, header: Header) -> tuple[Columns, Names]:
    """Columns of the store: from index/ if it is up to date and intact, else from the commits.

    A remote store is not searched for newer commits: it is only read there, and written elsewhere.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    if not place.near or index_is_fresh(Path(place.name)):
        with suppress(StoreError, FileNotFoundError):
            return read_index(place, header)
    return _columns(place.name, header, _read_commits(place, num_shards(header)))


def read_index_record(place: Place) -> dict[str, Any]:
    """Commit record of index/; raises as `read_index` does."""
    key = f"{INDEX}/{COMMIT}"
    return unseal(f"{place.name}/{key}", place.read(key, MAX_LIST_BYTES), IndexDocument)


def read_index(place: Place, header: Header) -> tuple[Columns, Names]:
    """The content of index/, up to date or not.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is damaged, or that of a store with another header.
    """
    record = read_index_record(place)
    files = {f"{INDEX}/{name}": (int(size), int(checksum)) for name, (size, checksum) in record["files"].items()}

    def read(key: str) -> bytes:
        size, checksum = files[key]
        # A record may declare any size; only files of values may be large.
        data = place.read(key, size if key.endswith("/0") else min(size, MAX_NODE_BYTES))
        if len(data) != size or crc32c(data) != checksum:
            raise StoreDamageError(f"{place.name}/{key}", "its bytes differ from those that were committed")
        return data

    with ThreadPoolExecutor(1 if place.near else 16) as pool:  # 40 small files: remote ones take a round trip each
        whole = Held(place.name, dict(zip(files, pool.map(read, files), strict=True)))
    # The two columns about several backgrounds belong together: one without the other is damage.
    absent = {name for name in OPTIONAL_COLUMNS if f"{INDEX}/{name}/zarr.json" not in files}
    without = absent if _OF_SEVERAL <= absent else absent - _OF_SEVERAL
    specs = {name: spec for name, spec in COLUMN_SPECS.items() if name not in without}
    rows = {name: read_array_document(whole, f"{INDEX}/{name}", spec).shape[0] for name, spec in specs.items()}
    # Before anything is decompressed: columns are small, but a hostile file may declare terabytes of zeros.
    unpacked = sum(rows[name] * spec.row_bytes for name, spec in specs.items())
    check_unpacked(f"{place.name}/{INDEX}", unpacked, sum(size for size, _ in files.values()))
    arrays: dict[str, Any] = {
        name: ArrayFile(whole, f"{INDEX}/{name}", spec).read(0, rows[name]) for name, spec in specs.items()
    }
    if without:
        implied = implied_columns(arrays["shot_background"], arrays.get("background_frame_offsets"))
        arrays |= {name: implied[name] for name in without}
    columns, names = Columns(**arrays), Names(tuple(record["groups"]), tuple(record["splits"]))
    check_columns(f"{place.name}/{INDEX}", columns, names, header)
    return columns, names


def stamped_shards(place: Place) -> set[int]:
    """The shards that index/ was derived from; without an index, those that have a commit."""
    with suppress(FileNotFoundError, StoreError):
        return {int(name) for name in read_index_record(place)["shards"]}
    header = parse_header(place.name, place.read("zarr.json", MAX_RECORD_BYTES))
    return {shard for shard, _ in _read_commits(place, num_shards(header))}


def check_complete(place: Place, header: Header) -> None:
    """Check that every shard of the plan exists.

    Raises:
        StoreError: some are missing; the message names the first.
    """
    planned = num_shards(header)
    if isinstance(place, Folder):  # cheap to list; for a remote store the index is used
        there = {
            shard
            for shard in present_shards(place, planned)
            if exists_inside(Path(place.name), f"{SHARDS}/{shard_name(shard)}/{COMMIT}")
        }
    else:
        there = {shard for shard in stamped_shards(place) if shard < planned}
    if len(there) < planned:
        first = next(shard for shard in count() if shard not in there)
        raise StoreError(
            place.name,
            f"{planned - len(there)} of {planned} shards are missing (the first is {shard_name(first)}): run the "
            "command that built it again to finish it",
        )


def read_failures(place: Place, header: Header) -> list[Failure]:
    """The videos that could not be used: from the store's list if it is intact, else from the commits.

    Raises:
        StoreDamageError: a commit is damaged.
    """
    with suppress(FileNotFoundError, StoreError):
        size, checksum = read_index_record(place)["failures"]
        lines = place.read(FAILURES, min(size, MAX_LIST_BYTES))
        if len(lines) == size and crc32c(lines) == checksum:
            name = f"{place.name}/{FAILURES}"
            return [check_document(name, Failure, parse_json(name, line)) for line in lines.split(b"\n") if line]
    commits = _read_commits(place, num_shards(header))
    return sorted((f for _, commit in commits for f in parse_failures(commit)), key=lambda failure: failure.id)


# --- hash of the content --------------------------------------------------------------------------------------------


def content_hash(root: Path) -> str:
    """Content hash of a store from its commits; see `bgaug.store.verify.Report`.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    header = read_header(root)
    shards = (root / SHARDS / shard_name(shard) for shard in range(num_shards(header)))
    return hash_of_rows(header, [row for folder in shards for row in parse_rows(read_commit(folder))])


def hash_of_rows(header: Header, rows: list[VideoRow]) -> str:
    """Content hash of a store from its header and the rows of all shards."""
    videos = [
        # Neither the order in a shard nor the source file is content.
        {**row.to_json(), "start": 0, "identity": None, "shots": [shot.content for shot in row.shots]}
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
    """Floats rounded to six digits: times may differ in the last bit between versions of a decoder."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
