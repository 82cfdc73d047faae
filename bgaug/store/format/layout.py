"""Names, checksums, records and the header of a store: what writing, reading and verifying share."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
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
from bgaug.store.format.inside import check_size, names_inside, read_inside

FORMAT = "bgaug-store"
VERSION = (1, 0)

_FRAME_KINDS: tuple[str, ...] = get_args(FrameKind)

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
_POLYNOMIAL = 0x82F63B78
_BITS = 32

JPEG_CHUNK = 1 << 16
CANVAS_CHUNK = 1 << 14
FRAMES_PER_CHUNK = 16


def crc32c(data: bytes | NDArray[Any]) -> int:
    """Checksum of bytes or of a C-contiguous array; it covers every file of a store."""
    return int(google_crc32c.value(data))


def extend_crc32c(before: int, data: bytes | NDArray[Any]) -> int:
    """Checksum of earlier data, whose checksum is `before`, followed by these bytes."""
    return int(google_crc32c.extend(before, data))


# A CRC is linear: appending n bytes maps the checksum before them by a matrix over bits that depends only on n, and
# adds the checksum of the bytes. So the checksum of a file follows from those of its frames without reading them again.
# Reference: M. Adler, `crc32_combine` in zlib, 2004, for the idea; the polynomial here is Castagnoli's.


def joined(before: int, behind: int, num_bytes: int) -> int:
    """crc32c of two runs of bytes, the second `num_bytes` long, from the crc32c of each."""
    return _image(_appending(num_bytes), before) ^ behind


@lru_cache(maxsize=64)
def _appending(num_bytes: int) -> tuple[int, ...]:
    """Effect of appending zero bytes on a checksum, as a matrix: column i is the image of bit i."""
    one_bit = (_POLYNOMIAL, *(1 << bit for bit in range(_BITS - 1)))
    power, result = one_bit, tuple(1 << bit for bit in range(_BITS))
    count = 8 * num_bytes
    while count:
        if count & 1:
            result = tuple(_image(power, column) for column in result)
        power = tuple(_image(power, column) for column in power)
        count >>= 1
    return result


def _image(matrix: tuple[int, ...], bits: int) -> int:
    image = 0
    for column in matrix:
        if bits & 1:
            image ^= column
        bits >>= 1
        if not bits:
            break
    return image


def group_bytes(attributes: Mapping[str, Any]) -> bytes:
    """zarr.json of a group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(node, sort_keys=True, indent=1, ensure_ascii=False).encode()


def canonical_json(value: Any) -> bytes:
    """JSON as a store writes it under a checksum: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def seal(record: dict[str, Any]) -> bytes:
    """Canonical JSON of a record, with its crc32c added."""
    return canonical_json({**record, "crc32c": crc32c(canonical_json(record))})


def unseal(path: Path | str, text: bytes, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """The record that `seal` wrote, from the content of its file, checked against the model `kind`.

    Raises:
        StoreDamageError: it is incomplete or changed.
        StoreFormatError: it is intact, and of another kind.
    """
    record = parse_json(path, text)
    try:
        checksum = record.pop("crc32c")
        # The bytes, too: equal values may be written in different ways, and only one of them is ours.
        whole = text == seal(record) and checksum == crc32c(canonical_json(record))
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamageError(path, "is not a complete record: run `bgaug verify`") from error
    if not whole:
        raise StoreDamageError(path, "its bytes differ from those that were written (checksum differs)")
    if kind is not None:
        check_document(path, kind, record)
    return cast(dict[str, Any], record)


def shard_name(shard: int) -> str:
    """Folder name of a shard."""
    return f"{shard:05d}"


@dataclass(frozen=True)
class Header:
    """Properties of the whole store, kept in the attributes of its root group."""

    size: Size  # (height, width) of every frame, mask and background
    fit: Fit  # how frames of another aspect ratio were brought to `size`
    frames: FrameKind  # how frames are kept: "jpeg", "raw" or "none"
    classes: tuple[str, ...]  # class names in the order of label indices
    options: dict[str, Any]  # all other options that determine the content, by name; JSON values
    plan: dict[str, Any] = field(default_factory=dict)  # {"videos": number, "shards": number, "sha256": of plan.json}
    created_with: str = ""  # version of bgaug; not compared
    version: tuple[int, int] = VERSION  # version of the format, (major, minor)

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
        """The exact bytes of the store's root zarr.json."""
        return group_bytes({"bgaug": self.to_attributes()})

    @classmethod
    def from_attributes(cls, path: Path | str, attributes: Any) -> Header:
        """The header from what `to_attributes` wrote.

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
            whole = False  # numbers or text that a store never writes
        if not whole:
            raise StoreDamageError(path, "the header in zarr.json is damaged (checksum differs)")
        header = check_document(path, HeaderDocument, record)
        if header.fit not in FITS or header.frames not in _FRAME_KINDS:
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
    """Header of a store from the bytes of its zarr.json; raises as `read_header` does."""
    check_size(f"{name}/zarr.json", len(text), MAX_RECORD_BYTES)
    node = parse_json(f"{name}/zarr.json", text)
    if not isinstance(node, dict) or node.get("node_type") != "group" or node.get("zarr_format") != 3:
        raise StoreFormatError(name, "is not a bgaug store: its zarr.json is not that of a Zarr v3 group")
    attributes = node.get("attributes")
    return Header.from_attributes(name, attributes.get("bgaug") if isinstance(attributes, dict) else None)


def num_shards(header: Header) -> int:
    """Number of shards of the plan."""
    return int(header.plan["shards"])


def read_commit(folder: Path) -> dict[str, Any]:
    """Commit record of a shard by its folder in `shards` of its store, checked: see `CommitDocument`.

    Raises:
        StoreDamageError: missing or damaged.
        StoreFormatError: intact, and not the record of a shard.
    """
    key = f"{folder.parent.name}/{folder.name}/{COMMIT}"
    try:
        text = read_inside(folder.parent.parent, key, MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamageError(folder, "has no COMMIT.json: it was never finished, or the file was removed") from error
    return unseal(folder / COMMIT, text, CommitDocument)


def bytes_by_array(commit: dict[str, Any]) -> dict[str, int]:
    """Bytes of a shard's files by array; other files count as "metadata"."""
    found: dict[str, int] = {}
    for name, (size, _) in commit["files"].items():
        array = name.split("/")[0] if "/" in name else "metadata"
        found[array] = found.get(array, 0) + size
    return found


def committed_shards(root: Path) -> list[Path]:
    """Folders of the visible shards, in order."""
    numbers = sorted(name for name in names_inside(root, SHARDS) if _NUMBER.fullmatch(name))
    return [root / SHARDS / name for name in numbers]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system within the block become an error with place, reason and fix.

    Raises:
        StoreError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fix = "free some space there and run the same command again: what is finished stays"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            fix = "make it writable, or name another --out"
        else:
            fix = "run the same command again: what is finished stays"
        raise StoreError(path, f"cannot be written ({error.strerror or error}); {fix}") from error
