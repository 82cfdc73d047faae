"""Writers of a whole store: several builds at a time, or one process that has the store to itself.

Builds of the same plan may run side by side, since each shard has its own lock. A process that clears or rewrites
shards (a build with `--overwrite`, an import, a merge, a repair) needs the store to itself. Both use one lock file, the
gate: an exclusive writer keeps it; a build only passes it and leaves a file of its own there while it runs.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bgaug.errors import StoreLockedError
from bgaug.store import lock
from bgaug.store.format.layout import LOCK, SHARDS, WRITER, writing

GATE = f"{LOCK}store"


@contextmanager
def build_mark(root: Path) -> Iterator[None]:
    """A file that shows other processes that a build runs: locked, and renewed for other machines."""
    lease = lock.Lease(root / f"{WRITER}{uuid.uuid4().hex}")
    descriptor = None
    lease.take()
    try:
        descriptor = lock.lock_file(lease.path)
        yield
    finally:
        lease.give_back()
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def at_the_gate(root: Path) -> Iterator[None]:
    """Within the block, no process begins to write or clear the store. Files of builds that died are removed.

    Raises:
        StoreLockedError: another process has the store to itself; the message names it.
        StoreError: the folder cannot be written.
    """
    with ExitStack() as held:
        with writing(root):
            held.enter_context(lock.locked(root / GATE))
            _running_build(root)
        yield


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Within the block, no other process writes the store.

    Raises:
        StoreLockedError: another process writes it; the message names it.
        StoreError: the folder cannot be written.
    """
    with at_the_gate(root):
        check_alone(root)
        yield


def check_alone(root: Path) -> None:
    """Check, at the gate, that no build runs and no shard is being written.

    Raises:
        StoreLockedError: one is; the message names the process.
    """
    end = time.monotonic() + lock.PATIENCE_SECONDS
    with writing(root):
        while (holder := _running_build(root)) is not None:
            if time.monotonic() >= end:
                raise StoreLockedError(root, f"is being written by {holder}; wait for it or end it")
            time.sleep(lock.LOOK_SECONDS)
        for path in _shard_locks(root):
            with lock.locked(path):  # of a worker whose build has died, or of another version of bgaug
                pass


def _running_build(root: Path) -> str | None:
    """The process of a build that runs. Files of builds that died are removed."""
    running = None
    for name in sorted(os.listdir(root)):
        if name.startswith(WRITER):
            is_mark = name.removeprefix(WRITER).isalnum()
            holder = lock.holder_of(root / name) if is_mark else None
            running = running or holder
            if holder is None:
                (root / name).unlink(missing_ok=True)
    return running


def _shard_locks(root: Path) -> list[Path]:
    shards = root / SHARDS
    if shards.is_symlink() or not shards.is_dir():
        return []
    names = {name.removesuffix(lock.LEASE) for name in os.listdir(shards) if name.startswith(LOCK)}
    return [shards / name for name in sorted(names)]
