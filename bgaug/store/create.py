"""Starting, resuming and finishing a store, and which processes may write it at the same time."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, StoreLockedError, StoreOptionsError
from bgaug.files import replace_durably
from bgaug.store import lock as locks
from bgaug.store.commit import settle, shard_lock
from bgaug.store.format.inside import discard, refuse_links
from bgaug.store.format.layout import (
    BANKS,
    CLEARED,
    COMMIT,
    FAILURES,
    INDEX,
    LOCK,
    OUTGOING,
    PLAN,
    SHARDS,
    TEMPORARY,
    WRITER,
    Header,
    read_commit,
    read_header,
    shard_name,
    writing,
)
from bgaug.store.format.plan import Plan, read_plan
from bgaug.store.index import rebuild_index
from bgaug.store.lock import LEASE, FileLock, locked

_INDEX_PATIENCE_SECONDS = 60.0  # writing the index of a large store may take as long
_GATE = f"{LOCK}store"
# Names in the folder of the shards.
_OURS = re.compile(rf"\d+|({re.escape(TEMPORARY)}|{re.escape(OUTGOING)}|{re.escape(LOCK)})\d+.*")
_NUMBER = re.compile("[0-9]{1,18}")
# Files that remain if `replace_durably` is killed.
_LEFT = re.compile(r"\.(zarr\.json|plan\.json|failures\.jsonl)\.\d+")


def create_store(root: Path, header: Header, plan: Plan, *, overwrite: bool = False) -> Header:
    """Create the store's folder, or resume one with the same options.

    Args:
        root: the folder.
        header: without the summary of the plan, which is added here.
        plan: the videos of each shard.
        overwrite: start again if there is a store, even a finished one or one with other options or another plan.

    Returns:
        The header in the store.

    Raises:
        StoreFormatError: the folder contains something else.
        StoreOptionsError: there is a store with other options; the message names each difference.
        StoreLockedError: another process clears the store, or builds a store that is to be cleared.
        StoreError: not enough space.
    """
    _make_folder(root)
    with _at_the_gate(root):
        return begin_store(root, header, plan, overwrite=overwrite)


@contextmanager
def building(root: Path, header: Header, plan: Plan, *, overwrite: bool = False) -> Iterator[Header]:
    """`create_store`, yielding the header; within the block the store is neither cleared nor rewritten."""
    _make_folder(root)
    with ExitStack() as held:
        with _at_the_gate(root):
            found = begin_store(root, header, plan, overwrite=overwrite)
            with writing(root):
                held.enter_context(_build_mark(root))  # before the gate opens, so that no other process slips through
        yield found


@contextmanager
def rewriting(root: Path) -> Iterator[None]:
    """Within the block, no other process writes the store; its folder is created if necessary.

    Raises:
        StoreFormatError: the folder contains something else.
        StoreLockedError: another process writes the store; the message names it.
        StoreError: the folder cannot be created.
    """
    _make_folder(root)
    with exclusive(root):
        yield


def begin_store(root: Path, header: Header, plan: Plan, *, overwrite: bool = False, check_space: bool = True) -> Header:
    """`create_store` for a caller at the gate; see the end of this module."""
    requested = Header(**{**header.__dict__, "plan": plan.summary()})
    Header.from_attributes(root, requested.to_attributes())  # refuse what no reader accepts
    if (root / "zarr.json").exists():
        if overwrite:
            read_header(root)  # never clear a folder that is not a store
            _check_exclusive(root)
            with writing(root):
                _clear(root)
        else:
            _check_same(root, read_header(root), requested, plan)
            with writing(root):
                _make_shards_folder(root)
                if _is_damaged(root, requested):  # the same plan was given again, so it can be restored
                    replace_durably(root / PLAN, plan.to_bytes())
            return requested
    with writing(root):
        if check_space:
            _check_space(root, plan)
        _make_shards_folder(root)
        replace_durably(root / PLAN, plan.to_bytes())
        # The header is last: a folder without it is not a store yet and may be started again.
        replace_durably(root / "zarr.json", requested.to_bytes())
    return requested


def _make_folder(root: Path) -> None:
    if root.exists() and not (root / "zarr.json").exists() and (not root.is_dir() or _foreign_names(root)):
        raise StoreFormatError(root, "exists and is not a bgaug store; name another folder, or empty it")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)


def _make_shards_folder(root: Path) -> None:
    folder = root / SHARDS
    if folder.is_symlink():
        raise StoreFormatError(folder, "is a link: a store must be one folder; move the shards there, or start again")
    if not folder.is_dir():
        folder.mkdir()


def _clear(root: Path) -> None:
    """Remove everything that belongs to a store except the header, which the next store replaces; keep other files."""
    # Each shard is moved away in one step: if this is interrupted, every visible shard is complete.
    cleared = root / CLEARED
    discard(cleared)
    cleared.mkdir()
    for folder in (root / SHARDS, root / BANKS):
        if folder.is_symlink():
            folder.unlink()  # not its target
        elif folder.is_dir():
            for name in filter(_OURS.fullmatch if folder.name == SHARDS else bool, sorted(os.listdir(folder))):
                os.rename(folder / name, cleared / f"{folder.name}-{name}")
    for name in os.listdir(root):
        if name in (INDEX, FAILURES, CLEARED, f"{TEMPORARY}{INDEX}") or _LEFT.fullmatch(name):
            discard(root / name)


def _is_damaged(root: Path, header: Header) -> bool:
    try:
        read_plan(root, header.plan["sha256"])
    except StoreDamageError:
        return True
    return False


def _foreign_names(root: Path) -> list[str]:
    return [
        name
        for name in os.listdir(root)
        if name not in (SHARDS, PLAN, _GATE, CLEARED) and not name.startswith(WRITER) and not _LEFT.fullmatch(name)
    ]


def _check_space(root: Path, plan: Plan) -> None:
    free, estimate = shutil.disk_usage(root).free, plan.estimate
    if estimate > free:
        largest = max((video for shard in plan.shards for video in shard), key=lambda video: video.estimate)
        raise StoreError(
            root,
            f"needs about {_megabytes(estimate)} (the most, {_megabytes(largest.estimate)}, for {largest.id}), "
            f"{_megabytes(free)} are free there: free some space, or name another --out",
        )


def _megabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _check_same(root: Path, found: Header, requested: Header, plan: Plan) -> None:
    differences = [f"{name}: {_brief(old)} there, {_brief(new)} now" for name, old, new in _differing(found, requested)]
    if found.plan != requested.plan:
        # A damaged plan raises its own error here.
        differences.append(_plan_difference(read_plan(root, found.plan["sha256"]), plan))
    if differences:
        raise StoreOptionsError(
            root,
            "was built with other options: " + "; ".join(differences) + ". Give the same options to continue, "
            "--overwrite to start again, or another --out",
        )


def _differing(found: Header, requested: Header) -> list[tuple[str, Any, Any]]:
    pairs = [(name, getattr(found, name), getattr(requested, name)) for name in ("size", "fit", "frames", "classes")]
    names = sorted({*found.options, *requested.options})
    pairs += [(name, found.options.get(name), requested.options.get(name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _brief(value: Any) -> str:
    text = (
        "x".join(map(str, value)) if isinstance(value, tuple) and all(isinstance(v, int) for v in value) else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _plan_difference(found: Plan, requested: Plan) -> str:
    old = {video.id: video.bytes for shard in found.shards for video in shard}
    new = {video.id: video.bytes for shard in requested.shards for video in shard}
    parts = [
        (f"{len(names)} {word}", sorted(names))
        for word, names in (
            ("added", new.keys() - old.keys()),
            ("removed", old.keys() - new.keys()),
            ("of another size", {i for i in old.keys() & new.keys() if old[i] != new[i]}),
        )
        if names
    ]
    parts_text = ", ".join(f"{count} ({names[0]}{', ...' if len(names) > 1 else ''})" for count, names in parts)
    return "videos: " + (parts_text or "distributed over other shards")


def pending_shards(root: Path, plan: Plan, *, retry_failed: bool = False) -> list[int]:
    """Shards that are not built yet; with `retry_failed` also those with failures."""
    pending = []
    for shard in range(len(plan.shards)):
        folder = root / SHARDS / shard_name(shard)
        if not (folder / COMMIT).exists() or (retry_failed and read_commit(folder)["failures"]):
            pending.append(shard)
    return pending


def finish_store(root: Path) -> None:
    """Derive index and list of failures from the commits, and remove files of dead writers.

    Raises:
        StoreDamageError: a commit is damaged.
        StoreError: the store cannot be written.
    """
    refuse_links(root, SHARDS)
    with writing(root):
        _settle_shards(root)
        discard(root / CLEARED)  # of a process that died while clearing the store
        with FileLock(root / f"{LOCK}{INDEX}", _INDEX_PATIENCE_SECONDS) as lock:
            rebuild_index(root, read_header(root))
            for name in os.listdir(root):
                if _LEFT.fullmatch(name):
                    discard(root / name)
            lock.remove()


def _settle_shards(root: Path) -> None:
    """Settle shards of dead writers; those of living writers are kept."""
    leads = _leads(root)
    found = {_shard_of(name) for name in os.listdir(root / SHARDS)}
    left = sorted((leads.get(shard, shard), shard) for shard in found if shard is not None)
    patience: float | None = None
    for lead, shards in groupby(left, key=lambda pair: pair[0]):
        try:
            with shard_lock(root, lead, patience) as lock:
                for _, shard in shards:
                    settle(root, shard)
                    if shard != lead:
                        discard(root / SHARDS / f"{LOCK}{shard_name(shard)}")
                lock.remove()
        except StoreLockedError:
            patience = 0.0  # other builds run: wait for the first of their shards only


def _leads(root: Path) -> dict[int, int]:
    """The first shard of a long video for each of its further shards: they share its lock."""
    try:
        plan = read_plan(root, read_header(root).plan["sha256"])
    except StoreError:
        return {}
    return {number: number - shard[0].part for number, shard in enumerate(plan.shards) if shard and shard[0].part}


def _shard_of(name: str) -> int | None:
    """The shard of a lock or of a file of a writer."""
    for prefix in (LOCK, TEMPORARY, OUTGOING):
        number = name.removeprefix(prefix).split(LEASE)[0]
        if name.startswith(prefix) and _NUMBER.fullmatch(number):
            return int(number)
    return None


# --- writers of a whole store ----------------------------------------------------------------------------------------

# Builds of the same plan may run side by side, since each shard has its own lock. A process that clears or rewrites
# shards (a build with --overwrite, an import, a merge, a repair) needs the store for itself. Both use one lock file,
# the gate: an exclusive writer keeps it; a build only passes it and leaves a file of its own there while it runs.


@contextmanager
def _build_mark(root: Path) -> Iterator[None]:
    """A file that shows other processes that a build runs: locked, and renewed for other machines."""
    lease = locks.Lease(root / f"{WRITER}{uuid.uuid4().hex}")
    descriptor = None
    lease.take()
    try:
        descriptor = locks.lock_file(lease.path)
        yield
    finally:
        lease.give_back()
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _at_the_gate(root: Path) -> Iterator[None]:
    """Within the block, no process begins to write or clear the store. Files of builds that died are removed.

    Raises:
        StoreLockedError: another process has the store to itself; the message names it.
        StoreError: the folder cannot be written.
    """
    with ExitStack() as held:
        with writing(root):
            held.enter_context(locked(root / _GATE))
            _running_build(root)
        yield


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Within the block, no other process writes the store.

    Raises:
        StoreLockedError: another process writes it; the message names it.
        StoreError: the folder cannot be written.
    """
    with _at_the_gate(root):
        _check_exclusive(root)
        yield


def _check_exclusive(root: Path) -> None:
    """Check, at the gate, that no build runs and no shard is being written.

    Raises:
        StoreLockedError: one is; the message names the process.
    """
    end = time.monotonic() + locks.PATIENCE_SECONDS
    with writing(root):
        while (holder := _running_build(root)) is not None:
            if time.monotonic() >= end:
                raise StoreLockedError(root, f"is being written by {holder}; wait for it or end it")
            time.sleep(locks.LOOK_SECONDS)
        for path in _shard_locks(root):
            with locked(path):  # of a worker whose build has died, or of another version of bgaug
                pass


def _running_build(root: Path) -> str | None:
    """The process of a build that runs. Files of builds that died are removed."""
    running = None
    for name in sorted(os.listdir(root)):
        if name.startswith(WRITER):
            is_mark = name.removeprefix(WRITER).isalnum()
            holder = locks.holder_of(root / name) if is_mark else None
            running = running or holder
            if holder is None:
                (root / name).unlink(missing_ok=True)
    return running


def _shard_locks(root: Path) -> list[Path]:
    shards = root / SHARDS
    if shards.is_symlink() or not shards.is_dir():
        return []
    names = {name.removesuffix(locks.LEASE) for name in os.listdir(shards) if name.startswith(LOCK)}
    return [shards / name for name in sorted(names)]
