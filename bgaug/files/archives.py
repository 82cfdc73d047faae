"""Zip, .npz and .npy files from outside: sizes are checked against a limit before memory is allocated."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bgaug.files import MalformedFile, open_regular

_ARRAYS = 2 << 30  # bytes of all arrays of a compressed archive; without compression, the size of the file
_CHUNK = 4 << 20  # bytes per read; also the longest table of contents
_MAGIC = b"\x93NUMPY"
_HEADER = 1 << 16
UNREADABLE = (OSError, KeyError, MalformedFile)
"""Errors of `read_npz`."""

_MALFORMED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError)


class _Bounded(io.RawIOBase):
    """A file for `zipfile` that refuses reads of more than a chunk, such as an endless table of contents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most a chunk."""
        if size is None or size < 0:
            place = self._file.tell()
            size = self._file.seek(0, os.SEEK_END) - place
            self._file.seek(place)
        if size > _CHUNK:
            raise MalformedFile("the archive's table of contents is far too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """See the file."""
        return True


@contextmanager
def open_archive(file: BinaryIO, *, compressed: int = 0) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members have a bounded total size.

    Args:
        file: a regular file.
        compressed: largest total size of compressed members; 0 refuses compression.

    Raises:
        MalformedFile: it is not a complete archive, a member occurs twice, is encrypted or uses another compression, or
            the members are larger.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            _check_members(archive.infolist(), size, compressed)
            yield archive
    except MalformedFile:
        raise
    except _MALFORMED as error:
        raise MalformedFile(f"is not a complete archive ({str(error)[:200]})") from error


def _check_members(members: Sequence[zipfile.ZipInfo], size: int, compressed: int) -> None:
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise MalformedFile("the archive contains a member twice")
    # Stored members cannot be larger than the file, compressed ones a thousand times as large.
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored and not compressed:
        raise MalformedFile("the archive is compressed; files of this kind are not")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise MalformedFile(
                f"the archive's member {member.filename[:200]!r} is encrypted or compressed in a rare way"
            )
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise MalformedFile(f"the archive's member {member.filename[:200]!r} has two sizes")
    total, most = sum(member.file_size for member in members), size if stored else max(compressed, size)
    # Members that overlap can each be small and huge together.
    if total > most or sum(member.compress_size for member in members) > size:
        raise MalformedFile(f"the archive of {size} bytes declares {total} bytes of content; at most {most} are read")


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """The content of a member, in memory of its own. Raises MalformedFile: it is incomplete."""
    content = bytearray(member.file_size)
    view = memoryview(content)
    try:
        with archive.open(member) as file:
            place = 0
            # One byte more than declared, so that longer content is noticed.
            while part := file.read(min(_CHUNK // 2, member.file_size - place + 1)):
                view[place : place + len(part)] = part
                place += len(part)
    except _MALFORMED as error:
        raise MalformedFile(f"the member {member.filename[:200]!r} is damaged ({str(error)[:200]})") from error
    if place != member.file_size:
        raise MalformedFile(f"the member {member.filename[:200]!r} is cut short")
    return content


def read_npz(
    path: str | Path, names: Sequence[str] | None = None, *, compressed: int = _ARRAYS
) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz by name, without Python objects.

    Args:
        path: the file.
        names: names of the arrays; all by default.
        compressed: see `open_archive`.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
        KeyError: an array is missing.
        MalformedFile: it is not a complete .npz, contains Python objects, or is too large.
    """
    with open_regular(path) as file:
        with open_archive(file, compressed=compressed) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [name for name in names or () if name not in members]
            for name in [] if missing else members if names is None else names:
                _check_array(archive, members[name])
        if missing:
            raise KeyError(
                f"the archive has no array {', '.join(missing)}; it has {', '.join(members)[:200] or 'none'}"
            )
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as held:
                return {name: held[name] for name in (members if names is None else names)}
        except _MALFORMED as error:
            raise MalformedFile(f"is damaged ({str(error)[:200]})") from error


def npz_names(path: str | Path) -> list[str]:
    """Names of the arrays of an .npz; errors as `read_npz`."""
    with open_regular(path) as file, open_archive(file, compressed=_ARRAYS) as archive:
        return [member.filename.removesuffix(".npy") for member in archive.infolist()]


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array has exactly the size of its member, so that numpy reads up to the checksum."""
    try:
        with archive.open(member) as file:
            stream = io.BytesIO(file.read(_HEADER))
    except _MALFORMED as error:
        raise MalformedFile(f"the member {member.filename[:200]!r} is damaged ({str(error)[:200]})") from error
    shape, dtype = _header(stream, member.file_size)
    if member.file_size - stream.tell() != prod(shape) * dtype.itemsize:
        raise MalformedFile(f"the array {member.filename[:200]!r} has not the size that its header declares")


def read_npy(path: str | Path) -> NDArray[Any]:
    """The array of an .npy, memory-mapped.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
        MalformedFile: it is not a complete .npy, or contains Python objects.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        stream = io.BytesIO(file.read(_HEADER))
        shape, dtype = _header(stream, size)
        if size - stream.tell() < prod(shape) * dtype.itemsize:
            raise MalformedFile("the array is cut short")
    return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r" if prod(shape) else None))


def is_npy(path: str | Path) -> bool:
    """Whether a file begins like an .npy. Raises OSError: it cannot be opened, or is not a regular file."""
    with open_regular(path) as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an .npy declares, checked against the bytes that exist."""
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(stream)
    except (ValueError, KeyError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise MalformedFile(f"is not a complete .npy ({str(error)[:200]})") from error
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise MalformedFile(f"holds {'Python objects' if dtype.hasobject else dtype}, not plain numbers or text")
    if any(side < 0 for side in shape) or prod(shape) * max(1, dtype.itemsize) > size or len(shape) > 8:
        raise MalformedFile(f"declares an array of shape {str(shape)[:100]} in {size} bytes")
    return shape, dtype
