"""Who writes a store as a whole: builds, which may work side by side, or one process alone.

A build that adds shards may run beside others of the same plan; each shard has its own lock. Whatever clears shards or
writes them again (a build with `--overwrite`, an import, a merge, a repair) has to be alone. Both pass through one lock
file, the gate: who works alone keeps it, a build leaves a file of its own behind it for as long as it runs.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bgaug.errors import StoreLockedError
from bgaug.store.format.layout import LOCK, SHARDS, WRITER, writing
from bgaug.store.locks.lease import Lease
from bgaug.store.locks.lock import LEASE, LOOK_SECONDS, NO_FLOCK, PATIENCE_SECONDS, ShardLock, holder_of, lock_file

GATE = f"{LOCK}store"


class BuildMark:
    """A build, as others see it: a file in the store that its process locks, and renews for other machines.

    Args:
        root: of the store.
    """

    def __init__(self, root: Path) -> None:
        self._lease = Lease(root / f"{WRITER}{uuid.uuid4().hex}")
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._lease.take()
        try:
            self._descriptor = lock_file(self._lease.path)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                self._lease.give_back()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.give_back()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def at_the_gate(root: Path) -> Iterator[None]:
    """Nobody begins to write the store, or clears it, within the block. Files of builds that died are removed.

    Raises:
        StoreLockedError: another process is alone with the store; names it.
        StoreError: the folder cannot be written.
    """
    with ExitStack() as held:
        with writing(root):
            gate = held.enter_context(ShardLock(root / GATE))
            _running_build(root)
        try:
            yield
        finally:
            with suppress(OSError):  # a lock file that stays holds nothing
                gate.remove()


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else writes the store within the block.

    Raises:
        StoreLockedError: another process writes it; names it.
        StoreError: the folder cannot be written.
    """
    with at_the_gate(root):
        check_alone(root)
        yield


def check_alone(root: Path) -> None:
    """See, at the gate, that no build runs and no shard is being written.

    Raises:
        StoreLockedError: names the process that writes.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    with writing(root):
        while (holder := _running_build(root)) is not None:
            if time.monotonic() >= end:
                raise StoreLockedError(root, f"is being written by {holder}; wait for it or end it")
            time.sleep(LOOK_SECONDS)
        for path in _shard_locks(root):
            with ShardLock(path) as lock:  # of a worker whose build has died, or of another version of bgaug
                lock.remove()


def _running_build(root: Path) -> str | None:
    """The process of a build that runs. What builds that died left is removed."""
    running = None
    for name in sorted(os.listdir(root)):
        if name.startswith(WRITER):
            is_mark = name.removeprefix(WRITER).isalnum()
            holder = holder_of(root / name) if is_mark else None
            running = running or holder
            if holder is None:
                (root / name).unlink(missing_ok=True)
    return running


def _shard_locks(root: Path) -> list[Path]:
    shards = root / SHARDS
    if shards.is_symlink() or not shards.is_dir():
        return []
    names = {name.removesuffix(LEASE) for name in os.listdir(shards) if name.startswith(LOCK)}
    return [shards / name for name in sorted(names)]
