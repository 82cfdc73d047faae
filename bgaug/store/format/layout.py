"""Names, header and checksums of a store: what writing, reading and verifying agree on."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import google_crc32c
from numpy.typing import NDArray
from pydantic import BaseModel

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.names import FrameKind
from bgaug.sizing import FITS, Fit, Size
from bgaug.store.format.documents import (
    MAX_RECORD_BYTES,
    CommitDocument,
    HeaderDocument,
    brief,
    check_document,
    parse_json,
)
from bgaug.store.format.inside import check_size, discard, names_inside, read_inside

FORMAT = "bgaug-store"
VERSION = (1, 0)

FRAME_KINDS: tuple[str, ...] = get_args(FrameKind)

SHARDS = "shards"
INDEX = "index"
BANKS = "banks"
PLAN = "plan.json"
FAILURES = "failures.jsonl"
COMMIT = "COMMIT.json"
TEMPORARY = ".tmp-"
OUTGOING = ".old-"
LOCK = ".lock-"
WRITER = ".build-"
CLEARED = ".old-store"

_NUMBER = re.compile("[0-9]{1,255}")

JPEG_CHUNK = 1 << 16
FRAMES_PER_CHUNK = 16


def crc32c(data: bytes | NDArray[Any]) -> int:
    """Checksum that every file of a store is covered by; of arrays, C-contiguous, that of their bytes."""
    return int(google_crc32c.value(data))


def extend_crc32c(before: int, data: bytes | NDArray[Any]) -> int:
    """Checksum of what `before` is the checksum of, with these bytes behind it."""
    return int(google_crc32c.extend(before, data))


def group_bytes(attributes: Mapping[str, Any]) -> bytes:
    """zarr.json of a group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(node, sort_keys=True, indent=1, ensure_ascii=False).encode()


def canonical_json(value: Any) -> bytes:
    """The one way in which a store writes JSON that is checksummed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def seal(record: dict[str, Any]) -> bytes:
    """Canonical JSON of a record with the crc32c of itself added."""
    return canonical_json({**record, "crc32c": crc32c(canonical_json(record))})


def unseal(path: Path | str, text: bytes, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """The record that `seal` wrote.

    Args:
        path: of its file.
        text: the file.
        kind: what the record must be; see `bgaug.store.format.documents`.

    Raises:
        StoreDamageError: it is not whole.
        StoreFormatError: it is whole, and not of this kind.
    """
    record = parse_json(path, text)
    try:
        checksum = record.pop("crc32c")
        whole = text == seal(record) and checksum == crc32c(canonical_json(record))
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamageError(path, "is not a whole record: run `bgaug verify`") from error
    if not whole:
        raise StoreDamageError(path, "its bytes are not those that were written (checksum differs)")
    if kind is not None:
        check_document(path, kind, record)
    return cast(dict[str, Any], record)


def shard_name(shard: int) -> str:
    """Folder name of a shard."""
    return f"{shard:05d}"


@dataclass(frozen=True)
class Header:
    """What holds for the whole store; kept in the attributes of its root group.

    Attributes:
        size: (height, width) of every frame, mask and background.
        fit: how pictures of another aspect were brought to `size`.
        frames: how frames are kept: "jpeg", "raw" or "none".
        classes: class names in the order of label indices.
        options: everything else that decides what the store holds, by name; JSON values.
        plan: {"videos": number, "shards": number, "sha256": of plan.json}.
        created_with: version of bgaug; not compared.
        version: of the format, (major, minor).
    """

    size: Size
    fit: Fit
    frames: FrameKind
    classes: tuple[str, ...]
    options: dict[str, Any]
    plan: dict[str, Any] = field(default_factory=dict)
    created_with: str = ""
    version: tuple[int, int] = VERSION

    def to_attributes(self) -> dict[str, Any]:
        """As JSON, with its own checksum."""
        record = {
            "format": FORMAT,
            "version": list(self.version),
            "size": list(self.size),
            "fit": self.fit,
            "frames": self.frames,
            "classes": list(self.classes),
            "options": self.options,
            "plan": self.plan,
            "created_with": self.created_with,
        }
        return {**record, "crc32c": crc32c(canonical_json(record))}

    def to_bytes(self) -> bytes:
        """The store's root zarr.json, to the byte."""
        return group_bytes({"bgaug": self.to_attributes()})

    @classmethod
    def from_attributes(cls, path: Path | str, attributes: Any) -> Header:
        """Read back what `to_attributes` wrote.

        Raises:
            StoreFormatError: not a bgaug store, or of an unknown version.
            StoreDamageError: its checksum differs.
        """
        if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
            raise StoreFormatError(path, "is not a bgaug store: its zarr.json does not name the format")
        version = _version(attributes.get("version"))
        if version is None or version[0] != VERSION[0]:
            found = brief(attributes.get("version"))
            raise StoreFormatError(path, f"has format version {found}; this bgaug reads {VERSION[0]}.x: update bgaug")
        record = dict(attributes)
        try:
            whole = record.pop("crc32c", None) == crc32c(canonical_json(record))
        except (ValueError, RecursionError):
            whole = False  # numbers or letters that no JSON of ours has
        if not whole:
            raise StoreDamageError(path, "the header in zarr.json is damaged (checksum differs)")
        header = check_document(path, HeaderDocument, record)
        if header.fit not in FITS or header.frames not in FRAME_KINDS:
            raise StoreFormatError(
                path, f"has fit {brief(header.fit)} and frames {brief(header.frames)}, unknown to this bgaug"
            )
        height, width = header.size
        return cls(
            size=(height, width),
            fit=cast(Fit, header.fit),
            frames=cast(FrameKind, header.frames),
            classes=tuple(header.classes),
            options=header.options,
            plan=header.plan.model_dump(),
            created_with=header.created_with,
            version=version,
        )


def _version(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(number) is int and number >= 0 for number in value):
        return value[0], value[1]
    return None


def read_header(root: Path) -> Header:
    """Header of the store at `root`.

    Raises:
        StoreFormatError: there is no store.
        StoreDamageError: the header is damaged.
    """
    try:
        return parse_header(str(root), read_inside(root, "zarr.json", MAX_RECORD_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreFormatError(root, "is not a bgaug store: there is no zarr.json in it") from error


def parse_header(name: str, text: bytes) -> Header:
    """Header of the store of that name from the bytes of its zarr.json; raises as `read_header` does."""
    check_size(f"{name}/zarr.json", len(text), MAX_RECORD_BYTES)
    node = parse_json(f"{name}/zarr.json", text)
    if not isinstance(node, dict) or node.get("node_type") != "group" or node.get("zarr_format") != 3:
        raise StoreFormatError(name, "is not a bgaug store: its zarr.json is not that of a Zarr v3 group")
    attributes = node.get("attributes")
    return Header.from_attributes(name, attributes.get("bgaug") if isinstance(attributes, dict) else None)


def num_shards(header: Header) -> int:
    """Shards of the plan."""
    return int(header.plan["shards"])


def read_commit(folder: Path) -> dict[str, Any]:
    """Commit record of a shard, as it is once it is known to be one: see `CommitDocument`.

    Args:
        folder: of the shard, in `shards` of its store.

    Raises:
        StoreDamageError: missing or damaged.
        StoreFormatError: it is whole, and not the record of a shard.
    """
    key = f"{folder.parent.name}/{folder.name}/{COMMIT}"
    try:
        text = read_inside(folder.parent.parent, key, MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamageError(folder, "has no COMMIT.json: it was never finished, or the file was removed") from error
    return unseal(folder / COMMIT, text, CommitDocument)


def bytes_by_array(commit: dict[str, Any]) -> dict[str, int]:
    """Bytes of a shard's files by array; what belongs to none counts as "metadata"."""
    found: dict[str, int] = {}
    for name, (size, _) in commit["files"].items():
        array = name.split("/")[0] if "/" in name else "metadata"
        found[array] = found.get(array, 0) + size
    return found


def committed_shards(root: Path) -> list[Path]:
    """Folders of the shards that are visible, in order."""
    numbers = sorted(name for name in names_inside(root, SHARDS) if _NUMBER.fullmatch(name))
    return [root / SHARDS / name for name in numbers]


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and see it on the disk; replaces what was there in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    discard(temporary)
    # Never through a link that somebody put there.
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses becomes an error that says where, why, and what to do.

    Raises:
        StoreError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            mend = "free some space there and run the same command again: what is finished stays"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            mend = "make it writable, or name another --out"
        else:
            mend = "run the same command again: what is finished stays"
        raise StoreError(path, f"cannot be written ({error.strerror or error}); {mend}") from error


def sync_folder(path: Path) -> None:
    """See the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
