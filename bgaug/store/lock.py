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
from bgaug.store.lease import Lease, holder_name

_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.05


class ShardLock:
    """At most one writer a shard. The operating system lets go of it when its holder dies.

    On a disk that knows no locks, a lease stands in for it; see `bgaug.store.lease`.

    It is waited for a moment: where a run was killed, its processes may take some milliseconds to follow.

    Args:
        path: of the lock file.
        patience_seconds: how long it is waited for.

    Raises:
        StoreLockedError: somebody else holds it; names the process and its host.
    """

    def __init__(self, path: Path, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._descriptor = -1
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        end = time.monotonic() + self._patience_seconds
        while not self._taken(last=time.monotonic() >= end):
            time.sleep(_LOOK_SECONDS)
        return self

    def _taken(self, *, last: bool) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_there(descriptor):
                os.close(descriptor)  # its holder removed it in between; another writer may hold a new one
                return False
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                return self._leased(last=last)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if last:
                raise StoreLockedError(self.path, f"is being written by {holder}; wait for it or end it") from error
            return False
        with suppress(OSError):  # the disk may be full: then the next one learns no name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder_name().encode(), 0)
        self._descriptor = descriptor
        return True

    def _leased(self, *, last: bool) -> bool:
        lease = Lease(self.path.with_name(f"{self.path.name}.lease"))
        holder = lease.take()
        if holder is None:
            self._lease = lease
            return True
        if last:
            raise StoreLockedError(self.path, f"is being written by {holder}; wait for it or end it")
        return False

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

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
