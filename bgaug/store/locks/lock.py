"""At most one writer a shard."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bgaug.errors import StoreLockedError
from bgaug.store.locks.lease import Lease, holder_name, parse_holder

PATIENCE_SECONDS = 2.0
LOOK_SECONDS = 0.05
LEASE = ".lease"

NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a disk says that knows no locks."""
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
# Not through a link: what it leads to would be written to.
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK


class ShardLock:
    """At most one writer a shard. The operating system lets go of it when its holder dies.

    On a disk that knows no locks, a lease stands in for it; see `bgaug.store.locks.lease`. A lease is respected in any case:
    another machine may have mounted the same disk without locks.

    It is waited for a moment: where a run was killed, its processes may take some milliseconds to follow.

    Args:
        path: of the lock file.
        patience_seconds: how long it is waited for.

    Raises:
        StoreLockedError: somebody else holds it; names the process, its host and since when.
    """

    def __init__(self, path: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._descriptor = -1
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        end = time.monotonic() + self._patience_seconds
        while not self._taken(last=time.monotonic() >= end):
            time.sleep(LOOK_SECONDS)
        return self

    def _taken(self, *, last: bool) -> bool:
        descriptor = os.open(self.path, _OPEN | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_at(self.path, descriptor):
                os.close(descriptor)  # its holder removed it in between; another writer may hold a new one
                return False
        except OSError as error:
            holder = parse_holder(_read(descriptor))
            os.close(descriptor)
            if error.errno in NO_FLOCK:
                return self._leased(last=last)
            if error.errno not in _HELD:
                raise
            return self._refused(holder, last=last)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            elsewhere = self._new_lease().living_holder()
            if elsewhere is None:
                with suppress(OSError):  # the disk may be full: then the next one learns no name
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, holder_name().encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        if elsewhere is not None:
            os.close(descriptor)
            return self._refused(elsewhere, last=last)
        self._descriptor = descriptor
        return True

    def _leased(self, *, last: bool) -> bool:
        lease = self._new_lease()
        holder = lease.take()
        if holder is None:
            self._lease = lease
            return True
        return self._refused(holder, last=last)

    def _new_lease(self) -> Lease:
        return Lease(self.path.with_name(f"{self.path.name}{LEASE}"))

    def _refused(self, holder: str, *, last: bool) -> bool:
        if last:
            raise StoreLockedError(self.path, f"is being written by {holder}; wait for it or end it")
        return False

    def check(self) -> None:
        """See that the lock is still held: a lease is lost by a process that stood still for too long.

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
        """Take the lock file away, while it is held."""
        self.path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.give_back()
        elif self._descriptor >= 0:
            os.close(self._descriptor)
        self._lease, self._descriptor = None, -1


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to the very file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_file(path: Path) -> int:
    """Lock a file that is there; the open descriptor that holds the lock.

    Raises:
        OSError: it is locked, or the disk knows no locks.
    """
    descriptor = os.open(path, _OPEN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holder_of(path: Path) -> str | None:
    """Who holds a file that its process both locks and renews, see `bgaug.store.locks.writers`; None where nobody does."""
    lease = Lease(path)
    try:
        os.close(lock_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _HELD:
            return lease.holder()
        if error.errno in NO_FLOCK:
            return lease.living_holder()
        raise
    # Nobody on this machine has it locked. Locks of another one may not be seen here, but its renewals are.
    return None if lease.is_of_this_host() else lease.living_holder()


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 200, 0)
    except OSError:
        return b""
