"""Names, header and checksums of a store: what writing, reading and verifying agree on."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import google_crc32c
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.sizing import FITS, Fit, Size

FORMAT = "bgaug-store"
VERSION = (1, 0)

FrameKind = Literal["jpeg", "raw", "none"]
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

# Files of a group: an array's metadata and values, nothing that could lead elsewhere.
_SAFE_NAME = re.compile(r"(\w+/)?(zarr\.json|c(/\d+)+)")

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


def unseal(path: Path | str, text: bytes) -> dict[str, Any]:
    """The record that `seal` wrote.

    Raises:
        StoreDamageError: it is not whole.
    """
    try:
        record = json.loads(text)
        checksum = record.pop("crc32c")
        whole = text == seal(record) and checksum == crc32c(canonical_json(record))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StoreDamageError(path, "is not a whole record: run `bgaug verify`") from error
    if not whole:
        raise StoreDamageError(path, "its bytes are not those that were written (checksum differs)")
    for name in record.get("files", ()):
        if not _SAFE_NAME.fullmatch(name):
            raise StoreFormatError(path, f"names a file {name!r}, which does not lie in its folder")
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
        version = attributes.get("version")
        if not isinstance(version, list) or len(version) != 2 or version[0] != VERSION[0]:
            raise StoreFormatError(path, f"has format version {version}; this bgaug reads {VERSION[0]}.x: update bgaug")
        record = dict(attributes)
        try:
            whole = record.pop("crc32c", None) == crc32c(canonical_json(record))
        except ValueError:
            whole = False  # numbers or letters that no JSON of ours has
        if not whole:
            raise StoreDamageError(path, "the header in zarr.json is damaged (checksum differs)")
        if record["fit"] not in FITS or record["frames"] not in FRAME_KINDS:
            raise StoreFormatError(
                path, f"has fit {record['fit']!r} and frames {record['frames']!r}, unknown to this bgaug"
            )
        height, width = record["size"]
        return cls(
            size=(height, width),
            fit=record["fit"],
            frames=record["frames"],
            classes=tuple(record["classes"]),
            options=record["options"],
            plan=record["plan"],
            created_with=record["created_with"],
            version=(version[0], version[1]),
        )


def read_header(root: Path) -> Header:
    """Header of the store at `root`.

    Raises:
        StoreFormatError: there is no store.
        StoreDamageError: the header is damaged.
    """
    try:
        return parse_header(str(root), (root / "zarr.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreFormatError(root, "is not a bgaug store: there is no zarr.json in it") from error


def parse_header(name: str, text: bytes) -> Header:
    """Header of the store of that name from the bytes of its zarr.json; raises as `read_header` does."""
    try:
        node = json.loads(text)
    except ValueError as error:
        raise StoreDamageError(f"{name}/zarr.json", "is not whole JSON") from error
    if not isinstance(node, dict) or node.get("node_type") != "group" or node.get("zarr_format") != 3:
        raise StoreFormatError(name, "is not a bgaug store: its zarr.json is not that of a Zarr v3 group")
    attributes = node.get("attributes")
    return Header.from_attributes(name, attributes.get("bgaug") if isinstance(attributes, dict) else None)


def num_shards(header: Header) -> int:
    """Shards of the plan."""
    return int(header.plan["shards"])


def read_commit(folder: Path) -> dict[str, Any]:
    """Commit record of a shard.

    Raises:
        StoreDamageError: missing or damaged.
    """
    file = folder / COMMIT
    try:
        return unseal(file, file.read_bytes())
    except FileNotFoundError as error:
        raise StoreDamageError(folder, "has no COMMIT.json: it was never finished, or the file was removed") from error


def bytes_by_array(commit: dict[str, Any]) -> dict[str, int]:
    """Bytes of a shard's files by array; what belongs to none counts as "metadata"."""
    found: dict[str, int] = {}
    for name, (size, _) in commit["files"].items():
        array = name.split("/")[0] if "/" in name else "metadata"
        found[array] = found.get(array, 0) + size
    return found


def committed_shards(root: Path) -> list[Path]:
    """Folders of the shards that are visible, in order."""
    return sorted(path for path in (root / SHARDS).glob("[0-9]*") if path.is_dir() and path.name.isdigit())


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and see it on the disk; replaces what was there in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
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


def discard(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """See the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
