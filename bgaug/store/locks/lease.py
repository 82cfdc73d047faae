"""A lock for disks that know none: a file that its holder renews.

Some network file systems refuse `flock`. There a writer holds a shard by a file that names it, and touches that file
every few seconds. A holder of this machine that is no more, or one that has not renewed its lease for a minute, holds
nothing.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

RENEW_SECONDS = 10.0
DEAD_SECONDS = 60.0

_HOLDER = re.compile(r"process (\d{1,10}) on (\S.*?)(?: since \S.*)?")


def holder_name() -> str:
    """This process, as a lock names it: its number, its host, and the time."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def parse_holder(data: bytes) -> str:
    """The name that a lock file holds; whatever is no such name is nobody's."""
    text = data.decode(errors="replace")
    return text if _HOLDER.fullmatch(text) and text.isprintable() else "another process"


class Lease:
    """A lease on a path.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._renewal: threading.Thread | None = None
        self._descriptor = -1

    def take(self) -> str | None:
        """Take the lease; where somebody holds it, who."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            holder = self.living_holder()
            if holder is not None:
                return holder
            self._clear()
            return self.take()
        try:
            os.write(descriptor, holder_name().encode())
        except OSError:
            os.close(descriptor)
            self.path.unlink(missing_ok=True)
            raise
        # Open while it is held: the number of a file that was deleted may be given to the next one.
        self._descriptor = descriptor
        self._stop.clear()
        self._renewal = threading.Thread(target=self._renew, name="bgaug-lease", daemon=True)
        self._renewal.start()
        return None

    def give_back(self) -> None:
        """End it."""
        self._stop.set()
        if self._renewal is not None:
            self._renewal.join()
        with suppress(OSError):  # the disk may be gone, or read-only by now; what stays is not renewed any more
            if self.is_held():
                self.path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_held(self) -> bool:
        """Whether the file is still the one that this process made, and not that of somebody who took it over."""
        try:
            return self._descriptor >= 0 and os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                if not self.is_held():
                    return  # taken over: this process was thought dead
                os.utime(self.path)
            except OSError:
                continue  # the disk may be back the next time

    def living_holder(self) -> str | None:
        """Who holds the lease; None where nobody does any more."""
        try:
            data, written = self._look()
        except FileNotFoundError:
            return None
        process = _process_here(data)
        if process is not None and not _lives(process):
            return None
        return None if abs(self._now() - written) > DEAD_SECONDS else parse_holder(data)

    def holder(self) -> str:
        """Who is named in the file."""
        try:
            return parse_holder(self._look()[0])
        except OSError:
            return parse_holder(b"")

    def is_of_this_host(self) -> bool:
        """Whether the file names a process of this machine."""
        try:
            return _process_here(self._look()[0]) is not None
        except FileNotFoundError:
            return True

    def _look(self) -> tuple[bytes, float]:
        """What the file holds, and when it was renewed."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.read(descriptor, 200), os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

    def _now(self) -> float:
        """The time by the clock of the disk, which may be another machine's."""
        probe = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Take a dead lease away; of several who try, one does."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        aside.unlink(missing_ok=True)


def _process_here(data: bytes) -> int | None:
    """The number of the process of this machine that is named."""
    named = _HOLDER.fullmatch(data.decode(errors="replace"))
    return int(named[1]) if named and named[2] == socket.gethostname() else None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
