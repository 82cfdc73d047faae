"""Repairing a damaged store: damaged parts are removed, so that running its build again rebuilds only those."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.files import replace_durably
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
    writing,
)
from bgaug.store.index import read_index_record
from bgaug.store.lock import locked
from bgaug.store.places import Folder
from bgaug.store.verify import Problem, Report, verify_store
from bgaug.store.writers import alone


@dataclass(frozen=True)
class Repair:
    """The result of a repair."""

    found: tuple[Problem, ...]  # all faults found
    videos: tuple[str, ...]  # ids of videos that must be built again with the command that built the store
    banks: tuple[str, ...]  # donor banks that were removed, to be imported again
    left: tuple[Problem, ...]  # faults that could not be fixed


def restore_header(root: Path) -> bool:
    """Restore a damaged zarr.json from the copy in the index; returns whether that was necessary.

    Raises:
        StoreDamageError: the copy is missing or damaged as well.
        StoreFormatError: there is no store.
        StoreLockedError: another process writes the store.
    """
    if _restored(root) is None:
        return False
    with alone(root):
        header = _restored(root)
        if header is not None:
            with writing(root):
                replace_durably(root / "zarr.json", header.to_bytes())
        return header is not None


def _restored(root: Path) -> Header | None:
    """The header that zarr.json should contain; None if it does."""
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
    """Remove what is damaged, and derive the index again.

    Args:
        root: folder of the store.
        report: result of `verify_store`, with `deep` to trust the decoding.

    Raises:
        StoreLockedError: another process writes the store; the message names it.
        StoreError: the store cannot be written.
    """
    with alone(root):
        # Shards that a build was writing during the report may be complete by now.
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
            with locked(root / SHARDS / (LOCK + name)):
                remove_inside(root, f"{SHARDS}/{name}")
        for name in banks:
            remove_inside(root, f"{BANKS}/{name}")
        remove_inside(root, INDEX)
        finish_store(root)
    left = [problem for problem in verify_store(root).problems if problem.path.name not in shards]
    videos = sorted({name for names in shards.values() for name in names})
    return Repair(report.problems, tuple(videos), tuple(sorted(set(banks))), tuple(left))
