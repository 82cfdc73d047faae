"""index/ and failures.jsonl: derived from the shards' commits, read in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError
from bgaug.store.arrays import ArrayWriter, begin_group, sync_tree
from bgaug.store.files import ArrayFile, check_unpacked, read_array_document
from bgaug.store.format.columns import COLUMN_SPECS, Columns, Names, check_columns, columns_of
from bgaug.store.format.documents import (
    MAX_LIST_BYTES,
    MAX_NODE_BYTES,
    MAX_RECORD_BYTES,
    CommitDocument,
    IndexDocument,
    check_document,
    parse_json,
)
from bgaug.store.format.inside import discard, read_inside
from bgaug.store.format.layout import (
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
from bgaug.store.format.records import CAMERAS, GRADES, STATUSES, Failure, VideoRow
from bgaug.store.places import Folder, Held, Place
from bgaug.text import json_bytes

__all__ = [
    "CAMERAS",
    "GRADES",
    "STATUSES",
    "failure_lines",
    "has_failures",
    "index_is_fresh",
    "load_columns",
    "parse_failures",
    "parse_rows",
    "present_shards",
    "read_commits",
    "read_failures",
    "read_index",
    "read_index_record",
    "rebuild_index",
    "stamped_shards",
]

_NUMBER = re.compile("[0-9]{5,10}")


def parse_rows(commit: dict[str, Any]) -> list[VideoRow]:
    """The videos of a commit record.

    Raises:
        StoreFormatError: they are not what this bgaug knows.
    """
    name = f"shard {commit['shard']}"
    return [check_document(name, VideoRow, row) for row in commit["videos"]]


def parse_failures(commit: dict[str, Any]) -> list[Failure]:
    """The failures of a commit record; raises as `parse_rows` does."""
    return [check_document(f"shard {commit['shard']}", Failure, row) for row in commit["failures"]]


def read_commits(place: Place, num_shards: int) -> list[tuple[int, dict[str, Any]]]:
    """Commit records of all visible shards, with their numbers."""
    found = []
    for shard in present_shards(place, num_shards):
        with suppress(FileNotFoundError):
            key = f"{SHARDS}/{shard_name(shard)}/{COMMIT}"
            found.append((shard, unseal(f"{place.name}/{key}", place.read(key, MAX_RECORD_BYTES), CommitDocument)))
    return found


def present_shards(place: Place, num_shards: int) -> Iterable[int]:
    """Numbers of shards that may be there, in order: by what lies there, not by what the header declares."""
    names = place.names(SHARDS)
    if names is None:
        return range(num_shards)
    numbers = (int(name) for name in names if _NUMBER.fullmatch(name))
    return sorted(number for number in numbers if number < num_shards)


def rebuild_index(root: Path, header: Header) -> None:
    """Write index/ and failures.jsonl anew from the commits; nothing is touched where they are up to date."""
    commits = read_commits(Folder(root), num_shards(header))
    expected = failure_lines(failure for _, commit in commits for failure in parse_failures(commit))
    if not has_failures(root, expected):
        discard(root / FAILURES)
        write_durably(root / FAILURES, expected)
    if not index_is_fresh(root):
        write_index(root, header, expected, *_columns(str(root), header, commits))


def has_failures(root: Path, expected: bytes) -> bool:
    """Whether failures.jsonl holds these lines."""
    try:
        return read_inside(root, FAILURES, len(expected)) == expected
    except (FileNotFoundError, StoreError):
        return False


def _columns(name: str, header: Header, commits: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Columns, Names]:
    return columns_of(name, header, ((row, shard) for shard, commit in commits for row in parse_rows(commit)))


def failure_lines(failures: Iterable[Failure]) -> bytes:
    """failures.jsonl: a line each, in order of id."""
    ordered = sorted(failures, key=lambda failure: failure.id)
    # For people to look at, too: what acts on a terminal is escaped, and comes back as it was where it is parsed.
    options: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return b"".join(json_bytes(failure.to_json(), **options) + b"\n" for failure in ordered)


def write_index(root: Path, header: Header, failures: bytes, columns: Columns, names: Names) -> None:
    """Put these columns in the place of index/, with a second copy of the header and what failures.jsonl holds."""
    folder = root / f"{TEMPORARY}{INDEX}"
    discard(folder)
    begin_group(folder)
    known: dict[str, list[int]] = {}
    for field in fields(Columns):
        array = ArrayWriter(folder, field.name, COLUMN_SPECS[field.name])
        array.append(getattr(columns, field.name))
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
    discard(root / INDEX)
    folder.rename(root / INDEX)
    sync_folder(root)


def shard_stamps(root: Path) -> dict[str, int]:
    """Checksum of each shard's commit record, which names all else that is in the shard."""
    stamps = {}
    for folder in committed_shards(root):
        with suppress(FileNotFoundError):
            stamps[folder.name] = crc32c(read_inside(root, f"{SHARDS}/{folder.name}/{COMMIT}", MAX_RECORD_BYTES))
    return stamps


def index_is_fresh(root: Path) -> bool:
    """Whether index/ was derived from the shards as they stand."""
    try:
        return bool(read_index_record(Folder(root))["shards"] == shard_stamps(root))
    except (FileNotFoundError, NotADirectoryError, StoreError):
        return False


def load_columns(place: Place, header: Header) -> tuple[Columns, Names]:
    """Columns of the store: from index/ where it is up to date and whole, else from the commits.

    A store that is not at hand is not looked through for newer commits: it is read there, and written elsewhere.

    Raises:
        StoreDamageError: a commit is missing or damaged.
    """
    if not place.near or index_is_fresh(Path(place.name)):
        with suppress(StoreError, FileNotFoundError):
            return read_index(place, header)
    return _columns(place.name, header, read_commits(place, num_shards(header)))


def read_index_record(place: Place) -> dict[str, Any]:
    """Commit record of index/; raises as `read_index` does."""
    key = f"{INDEX}/{COMMIT}"
    return unseal(f"{place.name}/{key}", place.read(key, MAX_LIST_BYTES), IndexDocument)


def read_index(place: Place, header: Header) -> tuple[Columns, Names]:
    """What index/ holds, whether it is up to date or not.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is damaged, or not that of a store with this header.
    """
    record = read_index_record(place)
    files = {f"{INDEX}/{name}": (int(size), int(checksum)) for name, (size, checksum) in record["files"].items()}

    def read(key: str) -> bytes:
        size, checksum = files[key]
        data = place.read(key, size if key.endswith("/0") else min(size, MAX_NODE_BYTES))
        if len(data) != size or crc32c(data) != checksum:
            raise StoreDamageError(f"{place.name}/{key}", "its bytes are not those that were committed")
        return data

    with ThreadPoolExecutor(1 if place.near else 16) as pool:
        whole = Held(place.name, dict(zip(files, pool.map(read, files), strict=True)))
    rows = {name: read_array_document(whole, f"{INDEX}/{name}", spec).shape[0] for name, spec in COLUMN_SPECS.items()}
    unpacked = sum(rows[name] * spec.row_bytes for name, spec in COLUMN_SPECS.items())
    check_unpacked(f"{place.name}/{INDEX}", unpacked, sum(size for size, _ in files.values()))
    arrays: dict[str, Any] = {
        name: ArrayFile(whole, f"{INDEX}/{name}", spec).read(0, rows[name]) for name, spec in COLUMN_SPECS.items()
    }
    columns, names = Columns(**arrays), Names(tuple(record["groups"]), tuple(record["splits"]))
    check_columns(f"{place.name}/{INDEX}", columns, names, header)
    return columns, names


def stamped_shards(place: Place) -> set[int]:
    """The shards that index/ was derived from; of a store without one, those that have a commit."""
    with suppress(FileNotFoundError, StoreError):
        return {int(name) for name in read_index_record(place)["shards"]}
    header = parse_header(place.name, place.read("zarr.json", MAX_RECORD_BYTES))
    return {shard for shard, _ in read_commits(place, num_shards(header))}


def read_failures(place: Place, header: Header) -> list[Failure]:
    """The videos that could not be used: from the store's list where it is whole, else from the commits.

    Raises:
        StoreDamageError: a commit is damaged.
    """
    with suppress(FileNotFoundError, StoreError):
        size, checksum = read_index_record(place)["failures"]
        lines = place.read(FAILURES, min(size, MAX_LIST_BYTES))
        if len(lines) == size and crc32c(lines) == checksum:
            name = f"{place.name}/{FAILURES}"
            return [check_document(name, Failure, parse_json(name, line)) for line in lines.split(b"\n") if line]
    commits = read_commits(place, num_shards(header))
    return sorted((f for _, commit in commits for f in parse_failures(commit)), key=lambda failure: failure.id)
