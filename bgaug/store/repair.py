"""Making a damaged store usable again: what is damaged goes, so that a rerun of its build makes just that anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.store.check import Problem
from bgaug.store.create import finish_store
from bgaug.store.format.documents import MAX_RECORD_BYTES
from bgaug.store.format.inside import read_inside, refuse_links, remove_inside
from bgaug.store.format.layout import (
    BANKS,
    INDEX,
    LOCK,
    SHARDS,
    VERSION,
    Header,
    read_header,
    write_durably,
    writing,
)
from bgaug.store.index import read_index_record
from bgaug.store.locks.lock import ShardLock
from bgaug.store.locks.writers import alone
from bgaug.store.places import Folder
from bgaug.store.verify import Report, verify_store


@dataclass(frozen=True)
class Repair:
    """What was done to a store.

    Attributes:
        found: all that was wrong.
        videos: ids of those that are to be built again: run the command that built the store.
        banks: donor banks that were dropped, to be imported again.
        left: what could not be mended here.
    """

    found: tuple[Problem, ...]
    videos: tuple[str, ...]
    banks: tuple[str, ...]
    left: tuple[Problem, ...]


def restore_header(root: Path) -> bool:
    """Write a damaged zarr.json anew from the copy in the index; whether that was needed.

    Raises:
        StoreDamageError: the copy is missing or damaged as well.
        StoreFormatError: there is no store at all.
        StoreLockedError: another process writes the store.
    """
    if _restored(root) is None:
        return False
    with alone(root):
        header = _restored(root)
        if header is not None:
            with writing(root):
                write_durably(root / "zarr.json", header.to_bytes())
        return header is not None


def _restored(root: Path) -> Header | None:
    """The header that zarr.json should hold; None where it does."""
    try:
        header = read_header(root)
        if read_inside(root, "zarr.json", MAX_RECORD_BYTES) == header.to_bytes() or header.version != VERSION:
            return None
    except (StoreDamageError, StoreFormatError) as error:
        try:
            header = Header.from_attributes(str(root), read_index_record(Folder(root))["header"])
        except (OSError, StoreError):
            raise error from None
    return header


def repair_store(root: Path, report: Report) -> Repair:
    """Drop what is damaged, and derive anew what is derived.

    Args:
        root: of the store.
        report: what `verify_store` found, deeply if decoding is to be trusted.

    Raises:
        StoreLockedError: another process writes the store; names it.
        StoreError: the store cannot be written.
    """
    with alone(root):
        # What a build was at when the report was made may be whole by now.
        return _repair(root, verify_store(root, deep=report.deep))


def _repair(root: Path, report: Report) -> Repair:
    shards: dict[str, tuple[str, ...]] = {}
    banks: list[str] = []
    with writing(root):
        refuse_links(root, SHARDS, BANKS)
        for problem in report.problems:
            inside = problem.path.relative_to(root).parts
            if inside[0] == SHARDS and len(inside) > 1:
                if problem.foreign:
                    remove_inside(root, "/".join(inside))
                else:
                    shards[inside[1]] = (*shards.get(inside[1], ()), *problem.videos)
            elif inside[0] == BANKS and len(inside) > 1:
                banks.append(inside[1])
        for name in shards:
            with ShardLock(root / SHARDS / (LOCK + name)) as lock:
                remove_inside(root, f"{SHARDS}/{name}")
                lock.remove()
        for name in banks:
            remove_inside(root, f"{BANKS}/{name}")
        remove_inside(root, INDEX)
        finish_store(root)
    left = [problem for problem in verify_store(root).problems if problem.path.name not in shards]
    videos = sorted({name for names in shards.values() for name in names})
    return Repair(report.problems, tuple(videos), tuple(sorted(set(banks))), tuple(left))
