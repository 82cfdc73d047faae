"""Upkeep of stores: merging several into one, and repairing a damaged one.

Merging lists the shards of all stores together; nothing is encoded again. Repairing removes what is damaged, so that
running the build again rebuilds only that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, UsageError
from bgaug.files import replace_durably
from bgaug.store.arrays import sync_tree
from bgaug.store.banks import bank_names, place_bank, read_bank_commit
from bgaug.store.commit import commit_shard, shard_folder
from bgaug.store.create import begin_store, exclusive, finish_store, rewriting
from bgaug.store.format.documents import MAX_RECORD_BYTES
from bgaug.store.format.inside import discard, exists_inside, link_inside, read_inside, refuse_links, remove_inside
from bgaug.store.format.layout import (
    BANKS,
    COMMIT,
    INDEX,
    LOCK,
    PLAN,
    SHARDS,
    TEMPORARY,
    VERSION,
    Header,
    num_shards,
    read_commit,
    read_header,
    shard_name,
    writing,
)
from bgaug.store.format.plan import Plan, PlannedVideo, read_plan
from bgaug.store.index import content_hash, read_index_record
from bgaug.store.lock import locked
from bgaug.store.places import Folder
from bgaug.store.verify import Problem, Report, verify_store


@dataclass(frozen=True)
class _Part:
    """One of the stores."""

    root: Path
    header: Header
    plan: Plan
    prefix: str  # prefix of its videos' ids


def merge_stores(
    roots: Sequence[Path],
    out: Path,
    *,
    copy: bool = False,
    prefix: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[], None] | None = None,
) -> Header:
    """Join stores of the same size, fit and kind of frames into a new one.

    Files are linked if the disk allows it, so that they cost no space; files of a store are never changed in place, so
    links are safe. Donor banks are included; of two banks with one name, the second is numbered.

    Args:
        roots: folders of the stores, two or more.
        out: the new store.
        copy: copy the files.
        prefix: put the name of each store's folder before its videos' ids.
        overwrite: start `out` again.
        on_shard: called after each shard.

    Raises:
        UsageError: stores do not match; two videos have the same id; `out` is one of the stores.
        StoreError: one is incomplete, or the new one cannot be written.
    """
    if any(root.resolve() == out.resolve() or out.resolve() in root.resolve().parents for root in roots):
        raise UsageError(f"{out} is one of the stores to be merged, or contains one: choose another --out")
    parts = [_read(root, prefix) for root in roots]
    header = _joint_header(parts)
    plan = _joint_plan(parts)
    with rewriting(out):
        header = begin_store(out, header, plan, overwrite=overwrite, check_space=copy)
        refuse_links(out, SHARDS, BANKS)
        shard = 0
        for part in parts:
            for number in range(num_shards(part.header)):
                _take(part, number, out, shard, copy)
                shard += 1
                if on_shard is not None:
                    on_shard()
        for part in parts:
            for name in bank_names(part.root):
                _take_bank(part.root, name, out, copy)
        finish_store(out)
    return header


def _read(root: Path, prefix: bool) -> _Part:
    header = read_header(root)
    for number in range(num_shards(header)):
        if not exists_inside(root, f"{SHARDS}/{shard_name(number)}/{COMMIT}"):
            raise StoreError(root, f"shard {shard_name(number)} is missing: finish the store before it is merged")
    plan = read_plan(root, header.plan["sha256"])
    if len(plan.shards) != num_shards(header):
        raise StoreFormatError(root / PLAN, f"has {len(plan.shards)} shards, the header {num_shards(header)}")
    return _Part(root, header, plan, f"{root.resolve().name}/" if prefix else "")


def _joint_header(parts: Sequence[_Part]) -> Header:
    first = parts[0].header
    if len(parts) < 2:
        raise UsageError("merging takes two stores or more")
    for part in parts[1:]:
        for name in ("size", "fit", "frames"):
            one, other = getattr(first, name), getattr(part.header, name)
            if one != other:
                raise UsageError(
                    f"{parts[0].root} has {name} {one}, {part.root} has {other}: "
                    "build both with the same options to merge them"
                )
        if first.options.get("holds") != part.header.options.get("holds"):
            raise UsageError(
                f"{parts[0].root} holds {first.options.get('holds')}, {part.root} {part.header.options.get('holds')}"
            )
    classes = tuple(dict.fromkeys(name for part in parts for name in part.header.classes))
    return replace(first, classes=classes, options=_joint_options(parts), plan={})


def _joint_options(parts: Sequence[_Part]) -> dict[str, Any]:
    """Common options; different ones under the content hash of their store."""
    every = [part.header.options for part in parts]
    common = {
        name: value
        for name, value in every[0].items()
        if all(name in other and other[name] == value for other in every)
    }
    if all(options == common for options in every):
        return common
    differing = [
        {
            "content": content_hash(part.root),
            "options": {name: value for name, value in part.header.options.items() if name not in common},
        }
        for part in parts
    ]
    return {**common, "merged": differing}


def _joint_plan(parts: Sequence[_Part]) -> Plan:
    owners: dict[str, Path] = {}
    shards: list[tuple[PlannedVideo, ...]] = []
    for part in parts:
        for videos in part.plan.shards:
            shards.append(tuple(replace(video, id=part.prefix + video.id) for video in videos))
            for video in shards[-1]:
                if video.part == 0 and owners.setdefault(video.id, part.root) is not part.root:
                    raise UsageError(
                        f"{owners[video.id]} and {part.root} both have a video {video.id!r}; "
                        + (
                            "rename one of the two folders"
                            if part.prefix
                            else "--prefix puts each store's name before its ids"
                        )
                    )
    return Plan(tuple(shards))


def _take(part: _Part, number: int, out: Path, shard: int, copy: bool) -> None:
    source = part.root / SHARDS / shard_name(number)
    with shard_folder(out, shard) as folder:
        if folder is None:
            return  # an earlier run merged it
        commit = read_commit(source)
        with writing(folder):
            key = f"{SHARDS}/{source.name}"
            found = {
                name: link_inside(part.root, f"{key}/{name}", folder / name, copy=copy) for name in commit["files"]
            }
            if read_commit(source) != commit:
                raise StoreError(source, "was built again during the merge; run the same command again")
            for name, (size, _) in commit["files"].items():
                if found[name] != size:
                    raise StoreDamageError(source / name, f"has other than the {size} bytes that were committed")
            sync_tree(folder, commit["files"])
            commit["shard"] = shard
            for entry in (*commit["videos"], *commit["failures"]):
                entry["id"] = part.prefix + entry["id"]
            commit_shard(out, commit)


def _take_bank(root: Path, name: str, out: Path, copy: bool) -> None:
    commit = read_bank_commit(Folder(root), name)
    target, number = out / BANKS / name, 2
    while os.path.lexists(target):
        with suppress(StoreError):
            if read_bank_commit(Folder(out), target.name) == commit:
                return
        target, number = out / BANKS / f"{name}-{number}", number + 1
    folder = out / BANKS / f"{TEMPORARY}{target.name}"
    with writing(target):
        discard(folder)
        for file, (size, _) in sorted(commit["files"].items()):
            if link_inside(root, f"{BANKS}/{name}/{file}", folder / file, copy=copy) != size:
                raise StoreDamageError(
                    root / BANKS / name / file, f"has other than the {size} bytes that were committed"
                )
        link_inside(root, f"{BANKS}/{name}/{COMMIT}", folder / COMMIT, copy=copy)
        sync_tree(folder, commit["files"])
        place_bank(folder, target)


# --- repair -----------------------------------------------------------------------------------------------------------


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
    with exclusive(root):
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
    with exclusive(root):
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
