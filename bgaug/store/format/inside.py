"""Files below the folder of a store, opened without leaving it.

A store may come from anyone. No symbolic link below its root is followed, for reading or for removing; the root itself
may be a link, because the user named it. Only regular files are opened: a named pipe would block.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.files import sync_folder

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: the file may become a pipe between the check and the opening.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPIED_BYTES = 1 << 20
_KINDS = (
    (stat.S_ISLNK, "a symbolic link, and links inside a store are not followed: replace it by its target"),
    (stat.S_ISDIR, "a folder, expected a file"),
    (stat.S_ISREG, "a file, expected a folder"),
    (stat.S_ISFIFO, "a named pipe, expected a file"),
    (stat.S_ISSOCK, "a socket, expected a file"),
)


def open_inside(root: Path, key: str) -> int:
    """Descriptor of a regular file for reading, by its path below the folder of the store, with forward slashes.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: the root is not a folder.
        StoreDamageError: a part of the path is a link or of another kind.
        StoreError: the system refuses.
    """
    with _folder_of(root, key) as (folder, name):
        _check_file(root, key, os.stat(name, dir_fd=folder, follow_symlinks=False))  # opening a device may act on it
        descriptor = _opened(name, _FILE, folder, root, key)
        try:
            _check_file(root, key, os.fstat(descriptor))  # it may have been replaced since
        except StoreError:
            os.close(descriptor)
            raise
        return descriptor


def read_inside(root: Path, key: str, max_bytes: int) -> bytes:
    """Content of a regular file; raises as `open_inside` does, and StoreFormatError if it is too large."""
    with os.fdopen(open_inside(root, key), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            check_size(root / key, size, max_bytes)
        try:
            return file.read(size)
        except OSError as error:
            raise StoreError(root / key, f"cannot be read ({error.strerror or error})") from error


def link_inside(root: Path, key: str, target: Path, *, copy: bool = False) -> int:
    """Link or copy a regular file to a path outside; returns its size in bytes.

    Raises:
        OSError: the target cannot be written.
        StoreError: as `open_inside`; StoreDamageError also if there is no file.
    """
    try:
        descriptor = open_inside(root, key)
    except FileNotFoundError as error:
        raise StoreDamageError(root / key, "is missing: run `bgaug verify`") from error
    with os.fdopen(descriptor, "rb") as file:
        target.parent.mkdir(parents=True, exist_ok=True)
        discard(target)
        status = os.fstat(descriptor)
        if copy or not _linked(root / key, target, status):
            with open(target, "xb") as copied:
                shutil.copyfileobj(file, copied, _COPIED_BYTES)
        return status.st_size


def _linked(path: Path, target: Path, status: os.stat_result) -> bool:
    """Whether a hard link could be made, and leads to the checked file."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        return False  # another disk, or one without links
    if os.path.samestat(os.lstat(target), status):
        return True  # else the name was given to another file since it was opened
    target.unlink()
    return False


def check_size(path: Path | str, size: int, max_bytes: int) -> None:
    """Check that a file is not too large for its kind. Raises StoreFormatError: it is."""
    if size > max_bytes:
        raise StoreFormatError(path, f"has {size} bytes, expected at most {max_bytes}")


def exists_inside(root: Path, key: str) -> bool:
    """Whether there is a regular file, reached without links."""
    try:
        os.close(open_inside(root, key))
    except (FileNotFoundError, NotADirectoryError, StoreDamageError):
        return False
    return True


def names_inside(root: Path, key: str) -> list[str]:
    """Names in a folder, unordered; none if there is no folder, or it is reached through a link."""
    try:
        with _folder_of(root, f"{key}/."):
            return os.listdir(root / key)
    except (FileNotFoundError, NotADirectoryError, StoreDamageError):
        return []


def remove_inside(root: Path, key: str) -> None:
    """Remove a file, a link (not its target) or a folder with its content, if it exists.

    Raises:
        StoreError: a part of the path to it is a link, or the system refuses.
    """
    with suppress(FileNotFoundError), _folder_of(root, key) as (folder, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        _remove_folder(name, root / key, folder)


def discard(path: Path) -> None:
    """Remove a file, a folder with its content, or a link, never its target.

    Raises:
        OSError: the system refuses.
        StoreError: folders are nested too deeply.
    """
    if path.is_dir() and not path.is_symlink():
        _remove_folder(path, path, None)
    else:
        path.unlink(missing_ok=True)


def replace_folder(folder: Path, final: Path, old: Path) -> None:
    """Give a complete folder the name of another, which gets the name `old`; on the disk when this returns.

    A folder cannot replace a folder that is not empty. If the second renaming fails, the first one is undone.

    Raises:
        OSError: the system refuses.
    """
    replaced = os.path.lexists(final)
    if replaced:
        os.rename(final, old)
    try:
        os.rename(folder, final)
    except OSError:
        if replaced:
            os.rename(old, final)
        raise
    sync_folder(final.parent)


def _remove_folder(name: str | Path, path: Path, folder: int | None) -> None:
    try:
        shutil.rmtree(name, dir_fd=folder)
    except RecursionError as error:
        raise StoreError(path, "contains too deeply nested folders: remove it by hand") from error


def refuse_links(root: Path, *names: str) -> None:
    """Check that folders that are written to are inside the store. Raises StoreDamageError: one is a link."""
    for name in names:
        if (root / name).is_symlink():
            raise StoreDamageError(root / name, f"is {_KINDS[0][1]}")


def files_inside(root: Path, key: str) -> dict[str, os.stat_result]:
    """Everything below a folder except folders, by its path from there; links are not followed.

    Raises:
        StoreError: the system refuses.
    """
    with _folder_of(root, f"{key}/."):
        pass  # no link on the way
    found: dict[str, os.stat_result] = {}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        path = root / key / folder
        with _refusals(path), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{folder}{entry.name}/")
                else:
                    found[folder + entry.name] = entry.stat(follow_symlinks=False)
    return found


def kind_of(status: os.stat_result) -> str:
    """Description of something that is not a regular file."""
    return next((words for is_kind, words in _KINDS if is_kind(status.st_mode)), "a device, expected a file")


@contextmanager
def _folder_of(root: Path, key: str) -> Iterator[tuple[int, str]]:
    """(descriptor of the folder that contains `key`, its name there); no link below the root is followed."""
    *parents, name = key.split("/")
    if "\0" in key or "" in parents or ".." in parents or name in ("", ".."):
        raise StoreFormatError(root, f"names {key[:80]!r}, which is not in its folder")
    # One folder at a time by its descriptor: a path could lead elsewhere as soon as it has been checked.
    folder, place = _opened(root, _FOLDER, None, root, ""), ""
    try:
        for part in parents:
            place += part
            status = os.stat(part, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise StoreDamageError(root / place, f"is {kind_of(status)}")
            inner = _opened(part, _FOLDER | os.O_NOFOLLOW, folder, root, place)
            os.close(folder)
            folder, place = inner, place + "/"
        yield folder, name
    finally:
        os.close(folder)


def _opened(name: str | Path, flags: int, folder: int | None, root: Path, key: str) -> int:
    with _refusals(root / key):
        return os.open(name, flags, dir_fd=folder)


def _check_file(root: Path, key: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StoreDamageError(root / key, f"is {kind_of(status)}")


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Errors of the system become errors of ours, except that a file or folder does not exist."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StoreError(path, f"cannot be read ({error.strerror or error})") from error
