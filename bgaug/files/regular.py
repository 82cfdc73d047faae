"""Opening files from outside: only regular files, so that nothing waits for a fifo or reads a device without end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class MalformedFile(ValueError):
    """Content that is not in the expected format, or not allowed. Callers add the path and raise their own error."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: it cannot be opened, or is a folder, fifo, socket or device; `strerror` names the reason.
    """
    path = os.fspath(path)
    if "\0" in path:
        raise OSError(errno.EINVAL, "the name contains a zero byte", path)
    try:
        # Without O_NONBLOCK, opening a fifo waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "its symbolic links lead in a circle", path) from error
        if error.errno == errno.ENXIO:  # the error of Linux for a socket
            raise OSError(errno.ENXIO, "is a socket or a missing device, not a regular file", path) from error
        raise
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"is {_KINDS.get(kind, 'no file')}, not a regular file", path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes.

    Raises:
        OSError: see `open_regular`.
        MalformedFile: the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1)
    if len(data) > limit:
        raise MalformedFile(f"is larger than expected: {max(size, len(data))} bytes, at most {limit}")
    return data
