"""How a shard becomes visible: written under its lock next to the others, checked, and renamed in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.files import replace_durably, sync_folder
from bgaug.store.array_file import read_array_document
from bgaug.store.arrays import begin_group
from bgaug.store.format.inside import discard, replace_folder
from bgaug.store.format.layout import (
    COMMIT,
    LOCK,
    OUTGOING,
    SHARDS,
    TEMPORARY,
    Header,
    read_commit,
    read_header,
    seal,
    shard_name,
    writing,
)
from bgaug.store.format.records import ShotTotals, VideoRow
from bgaug.store.lock import FileLock
from bgaug.store.places import Folder


def shard_lock(root: Path, shard: int, patience_seconds: float | None = None) -> FileLock:
    """The lock of a shard; all shards of a long video share that of the first."""
    return FileLock(root / SHARDS / f"{LOCK}{shard_name(shard)}", patience_seconds)


@contextmanager
def shard_folder(
    root: Path, shard: int, *, replace: bool = False, lock: FileLock | None = None
) -> Iterator[Path | None]:
    """The folder in which a shard is written, under its lock; removed after the block unless it was committed.

    Yields None if the shard exists and is not to be replaced. `lock` is that of the shard, if the caller holds it.

    Raises:
        StoreLockedError: another process builds this shard.
        StoreError: the folder cannot be created.
    """
    final, folder, _ = shard_paths(root, shard)
    with ExitStack() as held:
        with writing(final):
            if lock is None:
                held.enter_context(shard_lock(root, shard))
            settle(root, shard)
            if replace or not os.path.lexists(final):
                # Registered first: `begin_group` may fail half-way on a full disk.
                held.callback(shutil.rmtree, folder, ignore_errors=True)
                begin_group(folder)
        yield folder if folder.exists() else None


def commit_shard(root: Path, record: dict[str, Any]) -> None:
    """Write the commit record of a shard whose files are on the disk, then make the shard visible.

    A shard that it replaces remains visible until then.

    Raises:
        StoreError: rows and arrays do not agree.
    """
    final, folder, old = shard_paths(root, record["shard"])
    _check_record(folder, record)
    # All other files are synced by now: if this record is on the disk after a crash, so is what it describes.
    replace_durably(folder / COMMIT, seal(record))
    replace_folder(folder, final, old)  # `settle` undoes the first of its two renames after a crash
    shutil.rmtree(old, ignore_errors=True)


def _check_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Compare the rows of a commit record with each other and with the arrays in the shard's folder.

    Raises:
        StoreError: they do not agree; the shard must not become visible.
    """
    frames = [(row["start"], row["num_frames"]) for row in record["videos"]]
    faults, totals = [], ShotTotals()
    try:
        totals = ShotTotals.of(VideoRow.model_validate(row) for row in record["videos"])
    except ValueError as error:
        faults.append(str(error))
    if [start for start, _ in frames] != list(accumulate((count for _, count in frames), initial=0))[:-1]:
        faults.append("its videos are not end to end")
    if record["F"] != sum(count for _, count in frames):
        faults.append(f"its videos have {sum(count for _, count in frames)} frames, {record['F']} were written")
    if record["K"] != totals.backgrounds:
        faults.append(f"its shots refer to {totals.backgrounds} backgrounds, {record['K']} were written")
    expected = {name: record["K"] for name in ("backgrounds", "background_crc", "valid", "noise")}
    expected |= {name: record["F"] for name in ("pts_seconds", "frame_crc", "masks")}
    expected["frame_offsets"] = record["F"] + 1
    expected |= totals.rows_by_array
    there = {file.split("/")[0] for file in record["files"] if "/" in file}
    needed = {name for name, count in totals.rows_by_array.items() if count}
    faults += [f"it has no {name}, the shots need {expected[name]} rows" for name in sorted(needed - there)]
    for name in sorted(there):
        rows, *row = read_array_document(Folder(folder), name).shape
        if (name in expected and rows != expected[name]) or (name == "frames" and row and rows != record["F"]):
            faults.append(f"{name} has {rows} rows, the videos need {expected.get(name, record['F'])}")
    if faults:
        raise StoreError(folder, f"is not finished, because its rows and arrays do not agree: {'; '.join(faults)}")


def check_still_ours(root: Path, header: Header) -> None:
    """Check that the store is still the one that a shard was made for.

    Raises:
        StoreError: it was started again meanwhile, with other options or videos.
    """
    found = replace(read_header(root), created_with=header.created_with, version=header.version)
    if found != header:
        raise StoreError(root, "was started again by another process meanwhile; run the same command again")


def settle(root: Path, shard: int) -> None:
    """Finish or undo the work of a dead writer of this shard. The caller holds the shard's lock."""
    final, folder, old = shard_paths(root, shard)
    if folder.exists() and _is_whole(folder) and not os.path.lexists(final):
        os.rename(folder, final)  # its writer died between the commit and the rename
        sync_folder(final.parent)
    if old.is_dir() and not old.is_symlink() and not os.path.lexists(final):
        os.rename(old, final)  # the new shard cannot be used, so the old one comes back
    for left in (folder, old):
        discard(left)


def shard_paths(root: Path, shard: int) -> tuple[Path, Path, Path]:
    """Paths of a shard: visible, being written, and being replaced."""
    name = shard_name(shard)
    return root / SHARDS / name, root / SHARDS / (TEMPORARY + name), root / SHARDS / (OUTGOING + name)


def _is_whole(folder: Path) -> bool:
    try:
        read_commit(folder)  # written last, when everything else was on the disk
    except (StoreDamageError, StoreFormatError):
        return False
    return True
