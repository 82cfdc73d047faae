"""Lock files: at most one process at a time, on any disk.

The operating system releases a lock when its holder dies. Some network file systems refuse `flock`; there, a lease
replaces it: a file with the name of its holder, which the holder renews every few seconds. A lease ends if its holder
is a process of this machine that no longer exists, or if it was not renewed for a minute.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from bgaug.errors import StoreLockedError
from bgaug.files import is_alive

PATIENCE_SECONDS = 2.0  # waiting time for a lock: processes of a killed build may need some milliseconds to end
LOOK_SECONDS = 0.05
LEASE = ".lease"

# A lease outlives five missed renewals: a network disk may be away for a while.
_RENEW_SECONDS = 10.0
_DEAD_SECONDS = 60.0

_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems without hard links
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK  # never through a link: its target would be written
_HOLDER = re.compile(r"process (\d{1,10}) on (\S.*?)(?: since \S.*)?")


class FileLock:
    """At most one holder of a lock file; use it in a `with` block.

    Leases are respected even if the disk supports locks: another machine may mount it without them.

    Args:
        path: path of the lock file.
        patience_seconds: how long to wait for it; by default `PATIENCE_SECONDS`.

    Raises:
        StoreLockedError: another process holds it; the message names process, host and time.
    """

    def __init__(self, path: Path, patience_seconds: float | None = None) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._descriptor = -1
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        patience = PATIENCE_SECONDS if self._patience_seconds is None else self._patience_seconds
        end = time.monotonic() + patience
        while not self._taken(last=time.monotonic() >= end):
            time.sleep(LOOK_SECONDS)
        return self

    def _taken(self, *, last: bool) -> bool:
        descriptor = os.open(self.path, _OPEN | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system when the process ends
            if not _is_at(self.path, descriptor):
                os.close(descriptor)  # its holder removed it meanwhile; another process may hold a new one
                return False
        except OSError as error:
            holder = _parse_holder(_read(descriptor))
            os.close(descriptor)
            if error.errno in _NO_FLOCK:
                lease = self._new_lease()
                other = lease.take()
                if other is None:
                    self._lease = lease
                return other is None or self._refused(other, last=last)
            if error.errno not in _HELD:
                raise
            return self._refused(holder, last=last)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            elsewhere = self._new_lease().living_holder()
            if elsewhere is None:
                with suppress(OSError):  # the disk may be full: then the holder has no name
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _holder_name().encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        if elsewhere is not None:
            os.close(descriptor)
            return self._refused(elsewhere, last=last)
        self._descriptor = descriptor
        return True

    def _new_lease(self) -> Lease:
        return Lease(self.path.with_name(f"{self.path.name}{LEASE}"))

    def _refused(self, holder: str, *, last: bool) -> bool:
        if last:
            raise StoreLockedError(self.path, f"is being written by {holder}; wait for it or end it")
        return False

    def check(self) -> None:
        """Check that the lock is still held: a process that was stopped for too long loses its lease.

        Raises:
            StoreLockedError: it is not.
        """
        if self._lease is not None and not self._lease.is_held():
            raise StoreLockedError(
                self.path,
                "this process did not renew its lock for a minute and another process may have taken it; run the same "
                "command again",
            )

    def remove(self) -> None:
        """Remove the lock file while it is held."""
        self.path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.give_back()
        elif self._descriptor >= 0:
            os.close(self._descriptor)
        self._lease, self._descriptor = None, -1


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file within the block, and remove it at the end; raises as `FileLock` does."""
    with FileLock(path) as lock:
        try:
            yield
        finally:
            with suppress(OSError):  # a lock file that stays locks nothing
                lock.remove()


def lock_file(path: Path) -> int | None:
    """Lock an existing file; the open descriptor that holds the lock, None if the disk does not support locks.

    Raises:
        OSError: another process holds the lock, or there is no file.
    """
    descriptor = os.open(path, _OPEN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_FLOCK:
            return None
        raise
    return descriptor


def holder_of(path: Path) -> str | None:
    """The holder of a file that its process both locks and renews; None if it is not held."""
    lease = Lease(path)
    try:
        descriptor = lock_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _HELD:
            return lease.holder()
        raise
    if descriptor is None:
        return lease.living_holder()
    os.close(descriptor)
    # No process of this machine has locked it. Locks of other machines may be invisible, but renewals are not.
    return None if lease.is_of_this_host() else lease.living_holder()


def _holder_name() -> str:
    """Name of this process in lock files: its number, its host, and the time."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _parse_holder(data: bytes) -> str:
    """The name in a lock file, if it has the form of a name."""
    text = data.decode(errors="replace")
    return text if _HOLDER.fullmatch(text) and text.isprintable() else "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 200, 0)
    except OSError:
        return b""


# --- leases ---------------------------------------------------------------------------------------------------------


class Lease:
    """A file that its holder renews.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._renewal: threading.Thread | None = None
        self._descriptor = -1

    def take(self) -> str | None:
        """Take the lease; returns the holder if another process has it."""
        try:
            descriptor = self._create()
        except FileExistsError:
            holder = self.living_holder()
            if holder is not None:
                return holder
            self._clear()
            return self.take()
        # Stays open: a file system may give the number of a deleted file to the next one.
        self._descriptor = descriptor
        self._stop.clear()
        self._renewal = threading.Thread(target=self._renew, name="bgaug-lease", daemon=True)
        self._renewal.start()
        return None

    def _create(self) -> int:
        """Create the file with the name of its holder in it; the open descriptor.

        A file that appeared before its name was written would block others for a minute if its process were killed
        between the two.
        """
        unfinished = self._new_name()
        try:
            descriptor = _write_holder(unfinished)
            try:
                os.link(unfinished, self.path)  # of several processes, one succeeds, on network file systems as well
            except OSError as error:
                os.close(descriptor)
                if error.errno not in _NO_LINKS:
                    raise
                return _write_holder(self.path)
            return descriptor
        finally:
            with suppress(OSError):  # a file that stays is removed with those of builds that died
                unfinished.unlink(missing_ok=True)

    def give_back(self) -> None:
        """End the lease."""
        self._stop.set()
        if self._renewal is not None:
            self._renewal.join()
        with suppress(OSError):  # the disk may be gone or read-only by now; a file that stays is not renewed
            if self.is_held():
                self.path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_held(self) -> bool:
        """Whether the file is still the one of this process, and not of one that took the lease over."""
        return self._descriptor >= 0 and _is_at(self.path, self._descriptor)

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_SECONDS):
            with suppress(OSError):  # the disk may be back the next time
                if not self.is_held():
                    return  # taken over: this process was considered dead
                os.utime(self.path)

    def living_holder(self) -> str | None:
        """The holder of the lease; None if it has ended."""
        try:
            data, written = self._look()
        except FileNotFoundError:
            return None
        process = _process_here(data)
        if process is not None and not is_alive(process):
            return None  # killed: no need to wait for the lease to end
        # A time far in the future is no renewal either: the clock was wrong when it was written.
        return None if abs(self._now() - written) > _DEAD_SECONDS else _parse_holder(data)

    def holder(self) -> str:
        """The name in the file."""
        try:
            return _parse_holder(self._look()[0])
        except OSError:
            return _parse_holder(b"")

    def is_of_this_host(self) -> bool:
        """Whether the file names a process of this machine."""
        try:
            return _process_here(self._look()[0]) is not None
        except FileNotFoundError:
            return True

    def _look(self) -> tuple[bytes, float]:
        """Content of the file, and time of its last renewal."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.read(descriptor, 200), os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

    def _now(self) -> float:
        """The time by the clock of the disk, which may belong to another machine."""
        probe = self._new_name()
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove an ended lease; of several processes that try, one succeeds."""
        aside = self._new_name()
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            aside.unlink(missing_ok=True)

    def _new_name(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")


def _write_holder(path: Path) -> int:
    """Create a file with the name of this process in it; the open descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(descriptor, _holder_name().encode())
    except OSError:
        with suppress(OSError):
            os.utime(descriptor, (0, 0))  # the lease has ended, even if its file cannot be removed
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _process_here(data: bytes) -> int | None:
    """The process that is named, if it is one of this machine."""
    named = _HOLDER.fullmatch(data.decode(errors="replace"))
    return int(named[1]) if named and named[2] == socket.gethostname() else None
