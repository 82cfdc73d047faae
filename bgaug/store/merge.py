"""Several stores as one: their shards are listed together, nothing is encoded again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, UsageError
from bgaug.store.arrays import sync_tree
from bgaug.store.banks import bank_names, place_bank, read_bank_commit
from bgaug.store.commit import commit_shard, shard_folder
from bgaug.store.create import begin_store, finish_store, rewriting
from bgaug.store.format.inside import discard, exists_inside, link_inside, refuse_links
from bgaug.store.format.layout import (
    BANKS,
    COMMIT,
    PLAN,
    SHARDS,
    TEMPORARY,
    Header,
    num_shards,
    read_commit,
    read_header,
    shard_name,
    writing,
)
from bgaug.store.format.plan import Plan, PlannedVideo, read_plan
from bgaug.store.index import content_hash
from bgaug.store.places import Folder


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
        for file in sorted([COMMIT, *commit["files"]]):
            link_inside(root, f"{BANKS}/{name}/{file}", folder / file, copy=copy)
        sync_tree(folder, {})
        place_bank(folder, target)
