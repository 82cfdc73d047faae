"""Files: written completely or not at all, and read only if they are regular files, with one-line errors.

archives  zip, .npz and .npy files; the size of their content is checked before anything is allocated
pickles   pickles of plain containers, text and numbers; names in them are never imported

Every file that this library writes, except the arrays of a store, is written in one step: a temporary name in the same
folder, fsync, rename, fsync of the folder. A reader finds the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgaug.errors import UsageError, WriteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNFINISHED = ".bgaug"  # hidden: searches for videos and images skip such names
_LONGEST_SUFFIX = 16
_FIXES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or ask for more quota",
    errno.EFBIG: "the file would be larger than this disk or `ulimit -f` allows; choose another place",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "make the folder writable, or choose another place",
    errno.EPERM: "make the folder writable, or choose another place",
    errno.EIO: "the disk reports an error; check it, or choose another place",
    errno.EMFILE: "this process has too many open files; raise `ulimit -n`, or use fewer jobs",
    errno.ENFILE: "the machine has too many open files; close some programs",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EEXIST: "there is a file where a folder is needed; choose another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ELOOP: "its links form a circle; choose another place",
}


def write_error(path: str | Path, error: OSError) -> WriteError:
    """The error of this library for an error of the system: path, reason and fix."""
    if isinstance(error, WriteError):
        return error
    fix = _FIXES.get(error.errno or 0, "check the disk, or choose another place")
    return WriteError(path, error.errno or 0, f"cannot be written: {error.strerror or error}; {fix}")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Errors of the system within the block become a `WriteError` for this path.

    Raises:
        WriteError: in place of any other OSError.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write to; when the block ends without an error, it replaces `path` in one step.

    The temporary file is empty, in the same folder, and has the same suffix. If `path` is a link, its target is
    replaced. The new file has the permissions of the old one, else those of the umask. Missing folders are created.

    Raises:
        WriteError: the system refuses, or `path` is a folder, device, fifo or socket. The old file is unchanged.
    """
    final = Path(os.path.realpath(path))
    with writing(path):
        mode = _mode_of_file(path, final)
        final.parent.mkdir(parents=True, exist_ok=True)
        with _in_one_step(final, final.with_name(unfinished_name(final.suffix)), mode) as unfinished:
            yield unfinished


def replace_durably(path: Path, data: bytes) -> None:
    """Write a file in one step, below a folder that is not trusted: no link is followed.

    If the process is killed, `.NAME.PROCESS` remains.

    Raises:
        OSError: the system refuses; the old file is unchanged.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with _in_one_step(path, unfinished, None), open(os.open(unfinished, os.O_WRONLY | os.O_NOFOLLOW), "wb") as file:
        file.write(data)


@contextmanager
def _in_one_step(final: Path, unfinished: Path, mode: int | None) -> Iterator[Path]:
    """Create a file, see the content that the block writes on the disk, then rename it to its final name."""
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode) if mode is None else mode
        finally:
            os.close(descriptor)
        yield unfinished
        descriptor = os.open(unfinished, os.O_RDWR)  # the block may have put another file under the name
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, final)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(final.parent)


def _mode_of_file(path: str | Path, final: Path) -> int | None:
    """Permissions of an existing file; None if there is none."""
    try:
        there = os.stat(final)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(there.st_mode):
        raise WriteError(path, errno.EINVAL, "cannot be written: it is a device, fifo or socket; name a file")
    return stat.S_IMODE(there.st_mode)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file in one step, see `replacing`; returns its absolute path.

    Raises:
        WriteError: the system refuses; the old file is unchanged.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)
    return Path(path).absolute()


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as .npz in one step, see `replacing`; `bgaug.files.archives.read_npz` reads them.

    Raises:
        WriteError: the system refuses; the earlier file is as it was.
    """
    import numpy as np  # this module loads without it

    with replacing(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; returns its absolute path.

    Raises:
        WriteError: the system refuses, or there is a file of this name.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path.absolute()


def _check_writable(path: str | Path) -> None:
    """Create and remove a file next to a path; remove what killed processes left there."""
    final = Path(os.path.realpath(path))
    with writing(path):
        folder, missing = _nearest_folder(final)
        for name in missing:
            with suppress(FileNotFoundError):
                os.lstat(folder / name)  # fails if the name is too long
        if len(missing) < 2:
            clear_unfinished(folder)
        trial = folder / unfinished_name("")
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        trial.unlink()


def check_folder(path: str | Path) -> None:
    """Check, before hours of work, that files can be written into a folder, which may exist. Nothing remains.

    Raises:
        WriteError: it is not writable or cannot be created, or there is a file of this name.
    """
    path = Path(path)
    if os.path.lexists(path) and not path.is_dir():
        raise write_error(path, OSError(errno.EEXIST, "there is a file of this name"))
    _check_writable(path)


def _nearest_folder(path: Path) -> tuple[Path, list[str]]:
    """The nearest existing folder at or above a path, and the missing names below it."""
    missing: list[str] = []
    while not path.is_dir():
        if os.path.lexists(path) and missing:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        missing.append(path.name)
        path = path.parent
    return path, missing


def check_replaceable(
    path: str | Path, *, overwrite: bool, kinds: Sequence[bytes] = (), what: str = "", inputs: Sequence[str | Path] = ()
) -> None:
    """Check, before hours of work, that a file may be written under this name. Nothing remains.

    Args:
        path: the file.
        overwrite: any existing file may be replaced.
        kinds: first bytes of files that may be replaced in any case.
        what: name of such files, for the message.
        inputs: files and folders that are read; neither they nor files in them may be replaced.

    Raises:
        UsageError: the file exists and is of another kind, or it is an input.
        WriteError: it cannot be written there.
    """
    path = Path(path)
    for item in inputs:
        if _is_inside(path, Path(item)):
            raise UsageError(f"{path} is an input of this command; choose another --out")
    if not overwrite and os.path.lexists(path) and path.is_file():
        begins = _first_bytes(path, max(map(len, kinds), default=0))
        if not any(begins.startswith(kind) for kind in kinds):
            other = f" and is not {what}" if what else ""
            raise UsageError(f"{path} already exists{other}; --overwrite replaces it")
    with writing(path):
        _mode_of_file(path, Path(os.path.realpath(path)))
    _check_writable(path)


def _is_inside(path: Path, item: Path) -> bool:
    """Whether a path is an existing file that is the input or is inside it."""
    if not path.is_file():
        return False
    real = Path(os.path.realpath(path))
    other = Path(os.path.realpath(item))
    with suppress(OSError):
        if os.path.samefile(real, other):
            return True
    return other.is_dir() and real.is_relative_to(other)


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def sync_folder(path: Path) -> None:
    """See the names in a folder on the disk, if the disk supports it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # network disks
            raise
    finally:
        os.close(descriptor)


@contextmanager
def replacing_files(folder: str | Path) -> Iterator[Path]:
    """A temporary folder; when the block ends without an error, its files replace those in `folder`, one by one.

    A job that fails half-way leaves the files of an earlier one unchanged. The files are moved in order of their names.

    Raises:
        WriteError: the system refuses.
    """
    folder = make_folder(folder)
    with writing(folder):
        clear_unfinished(folder)
        unfinished = folder / unfinished_name("")
        unfinished.mkdir()
    try:
        yield unfinished
        with writing(folder):
            for path in sorted(unfinished.iterdir()):
                os.replace(path, folder / path.name)
            sync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


# --- files of killed processes ------------------------------------------------------------------------------------


def unfinished_name(suffix: str) -> str:
    """A new hidden name for a file that is being written; it contains the machine and the process."""
    ending = suffix if len(suffix.encode(errors="surrogateescape")) <= _LONGEST_SUFFIX else ""
    return f"{_UNFINISHED}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{ending}"


def clear_unfinished(folder: str | Path) -> int:
    """Remove unfinished files of killed processes of this machine from a folder; returns their number."""
    count = 0
    for path in Path(folder).glob(f"{_UNFINISHED}-{_machine()}-*"):
        process = path.name.split("-")[2]
        if not process.isdigit() or is_alive(int(process)) or path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
        count += not path.exists()
    return count


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def is_alive(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


# --- files from outside -----------------------------------------------------------------------------------------------

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
