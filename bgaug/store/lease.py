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
from pathlib import Path

RENEW_SECONDS = 10.0
DEAD_SECONDS = 60.0

_HOLDER = re.compile(r"process (\d+) on (.*)")


def holder_name() -> str:
    """This process, as a lock names it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class Lease:
    """A lease on a path.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._renewal: threading.Thread | None = None

    def take(self) -> str | None:
        """Take the lease; where somebody holds it, who."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            holder = self._living_holder()
            if holder is not None:
                return holder
            self._clear()
            return self.take()
        with os.fdopen(descriptor, "w") as file:
            file.write(holder_name())
        self._stop.clear()
        self._renewal = threading.Thread(target=self._renew, name="bgaug-lease", daemon=True)
        self._renewal.start()
        return None

    def give_back(self) -> None:
        """End it."""
        self._stop.set()
        if self._renewal is not None:
            self._renewal.join()
        self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                return  # taken over: this process was thought dead

    def _living_holder(self) -> str | None:
        """Who holds the lease; None where nobody does any more."""
        try:
            text = self.path.read_text(errors="replace")
            age = self._now() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        named = _HOLDER.fullmatch(text)
        if named and named[2] == socket.gethostname() and not _lives(int(named[1])):
            return None
        return None if age > DEAD_SECONDS else text or "another process"

    def _now(self) -> float:
        """The time by the clock of the disk, which may be another machine's."""
        probe = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        except FileNotFoundError:
            return time.time()
        finally:
            probe.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Take a dead lease away; of several who try, one does."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        aside.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
