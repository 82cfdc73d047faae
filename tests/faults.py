"""What a system may refuse, on purpose: the n-th call of a kind below a folder fails, or a disk is tiny or read-only.

    with Faults(folder) as faults:                      # counts only
        work()
    for n in range(faults.calls["write"]):
        with Faults(folder, "write", n, errno.ENOSPC):  # this write and all after it fail
            work()

Python's own calls are seen, of this process: os.open, open, write, fsync, rename, mkdir, link, unlink. What native code
writes by itself is not; `small_disk` and `file_size_limit` are for that.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import pytest

KINDS = ("open", "write", "fsync", "rename", "mkdir", "link", "unlink")
FULL, READ_ONLY, BROKEN, DENIED = errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Faults:
    """Counts calls that change files below a folder, and fails them from the n-th of a kind on; a context manager.

    Args:
        root: the folder; calls elsewhere pass.
        kind: one of `KINDS`; None fails nothing. "any" counts all kinds together, in the order of the calls.
        at: number of the first call that fails, from 0.
        error: the system's number.
        lasting: later calls of the kind fail, too, as on a disk that stays full; else only this one.
        raises: another exception than an OSError, such as MemoryError; given the path.

    Attributes:
        calls: how many there were of each kind, and of "any".
        failed: how many were refused.
    """

    def __init__(
        self,
        root: str | Path,
        kind: str | None = None,
        at: int = 0,
        error: int = FULL,
        *,
        lasting: bool = True,
        raises: Callable[[str], BaseException] | None = None,
    ) -> None:
        assert kind in (None, "any", *KINDS), kind
        self.root, self.kind, self.at, self.error = os.path.realpath(root), kind, at, error
        self.lasting, self.raises = lasting, raises
        self.calls: Counter[str] = Counter()
        self.failed = 0
        self._patches: list[Any] = []

    def __enter__(self) -> Self:
        for module, name, made in self._replacements():
            self._patches.append(patch.object(module, name, made))
        for one in self._patches:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._patches:
            one.stop()
        self._patches = []

    def see(self, kind: str, path: Any) -> None:
        """A call of this kind; raises where it is to fail."""
        path = self._path(path)
        if path is None or not (path + os.sep).startswith(self.root + os.sep):
            return
        number = self.calls["any"] if self.kind == "any" else self.calls[kind]
        self.calls[kind] += 1
        self.calls["any"] += 1
        if self.kind in (kind, "any") and (number == self.at or (self.lasting and number > self.at)):
            self.failed += 1
            raise self.raises(path) if self.raises else OSError(self.error, os.strerror(self.error), path)

    @staticmethod
    def _path(path: Any) -> str | None:
        if isinstance(path, int):
            with suppress(OSError):
                return os.readlink(f"/proc/self/fd/{path}")
            return None
        path = os.fsdecode(path)
        return os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        yield os, "open", self._os_open(os.open)
        for name, kind, place in (
            ("write", "write", 0),
            ("pwrite", "write", 0),
            ("writev", "write", 0),
            ("sendfile", "write", 0),
            ("ftruncate", "write", 0),
            ("fsync", "fsync", 0),
            ("fdatasync", "fsync", 0),
            ("rename", "rename", 1),
            ("replace", "rename", 1),
            ("mkdir", "mkdir", 0),
            ("link", "link", 1),
            ("symlink", "link", 1),
            ("unlink", "unlink", 0),
            ("rmdir", "unlink", 0),
        ):
            if hasattr(os, name):
                yield os, name, self._seen(getattr(os, name), kind, place)
        opened = self._file_open(io.open)
        yield io, "open", opened
        yield builtins, "open", opened

    def _seen(self, real: Callable[..., Any], kind: str, place: int) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if keywords.get("dir_fd") is None:
                self.see(kind, args[place])
            return real(*args, **keywords)

        return call

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **keywords: Any) -> int:
            if flags & _WRITING and keywords.get("dir_fd") is None:
                self.see("open", path)
            return real(path, flags, *args, **keywords)

        return call

    def _file_open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **keywords: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real(file, mode, *args, **keywords)
            if not isinstance(file, int):
                self.see("open", file)
            return self._watched(real, file, mode, *args, **keywords)

        return call

    def _watched(self, real: Callable[..., Any], file: Any, mode: str, *args: Any, **keywords: Any) -> Any:
        """The opened file, whose bytes pass `see` when they reach the system."""
        text = "b" not in mode
        names = ("buffering", "encoding", "errors", "newline", "closefd", "opener")
        options = dict(zip(names, args, strict=False)) | keywords
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""), options.get("closefd", True), options)
        if options.get("buffering", -1) == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if not text:
            return buffered
        how = {name: options.get(name) for name in ("encoding", "errors", "newline")}
        return io.TextIOWrapper(buffered, line_buffering=options.get("buffering") == 1, **how)  # type: ignore[arg-type]


class _Raw(io.FileIO):
    def __init__(self, faults: Faults, file: Any, mode: str, closefd: bool, options: dict[str, Any]) -> None:
        super().__init__(file, mode, closefd=closefd, opener=options.get("opener"))
        self._faults = faults

    def write(self, data: Any) -> int:
        self._faults.see("write", self.fileno())
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._faults.see("write", self.fileno())
        return super().truncate(size)


def left_behind(folder: Path, before: dict[str, bytes] | None = None) -> list[str]:
    """Names below a folder that were not there `before`, in order."""
    known = before or {}
    return sorted(name for name in contents(folder) if name not in known)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def small_disk(folder: Path, size: str = "1m", *, read_only: bool = False) -> Iterator[Path]:
    """A disk of this size at a folder; the test is skipped with a reason if nothing may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size}" + (",ro" if read_only else "")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: writes fail with EFBIG, those of native code, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
