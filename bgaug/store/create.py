"""Beginning, resuming and finishing a store."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, StoreLockedError, StoreOptionsError
from bgaug.store.index import rebuild_index
from bgaug.store.layout import (
    COMMIT,
    INDEX,
    LOCK,
    OUTGOING,
    PLAN,
    SHARDS,
    TEMPORARY,
    Header,
    read_commit,
    read_header,
    shard_name,
    write_durably,
    writing,
)
from bgaug.store.lock import ShardLock
from bgaug.store.plan import Plan, read_plan
from bgaug.store.write import settle

_INDEX_PATIENCE_SECONDS = 60.0
# What `write_durably` leaves when it is killed.
_LEFT = re.compile(r"\.(zarr\.json|plan\.json|failures\.jsonl)\.\d+")


def create_store(
    root: Path, header: Header, plan: Plan, *, overwrite: bool = False, check_space: bool = True
) -> Header:
    """Make the store's folder, or find it already begun with the same options.

    Args:
        root: the folder.
        header: without the plan's summary, which is added here.
        plan: the videos of each shard.
        overwrite: begin anew if there is a store with other options or another plan, or a finished one.
        check_space: whether the disk must have room for what the plan expects.

    Returns:
        The header as it stands in the store.

    Raises:
        StoreFormatError: the folder holds something else.
        StoreOptionsError: there is a store with other options; each difference is named.
        StoreError: not enough space for the forecast.
    """
    wanted = Header(**{**header.__dict__, "plan": plan.summary()})
    if overwrite and (root / "zarr.json").exists():
        read_header(root)  # never clear a folder that is not one of ours
        with writing(root):
            _clear(root)
    if (root / "zarr.json").exists():
        _check_same(root, read_header(root), wanted, plan)
        if _is_damaged(root, wanted):
            with writing(root):
                write_durably(root / PLAN, plan.to_bytes())
        return wanted
    if root.exists() and (not root.is_dir() or _foreign_names(root)):
        raise StoreFormatError(root, "exists and is not a bgaug store; name another folder, or empty it")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        if check_space:
            _check_space(root, plan.estimate)
        (root / SHARDS).mkdir(exist_ok=True)
        write_durably(root / PLAN, plan.to_bytes())
        # The header comes last: a folder without it is no store yet and may be begun again.
        write_durably(root / "zarr.json", wanted.to_bytes())
    return wanted


def _clear(root: Path) -> None:
    """Empty the folder of a store. The header goes last: until then it is one of ours, whenever this is stopped."""
    for name in sorted(os.listdir(root), key=lambda name: name == "zarr.json"):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_damaged(root: Path, header: Header) -> bool:
    try:
        read_plan(root, header.plan["sha256"])
    except StoreDamageError:
        return True
    return False


def _foreign_names(root: Path) -> list[str]:
    return [name for name in os.listdir(root) if name not in (SHARDS, PLAN) and not _LEFT.fullmatch(name)]


def _check_space(root: Path, estimate: int) -> None:
    free = shutil.disk_usage(root).free
    if estimate > free:
        raise StoreError(
            root,
            f"needs about {_megabytes(estimate)}, {_megabytes(free)} are free there: free some space, or name another --out",
        )


def _megabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _check_same(root: Path, found: Header, wanted: Header, plan: Plan) -> None:
    differences = [f"{name}: {_brief(old)} there, {_brief(new)} now" for name, old, new in _differing(found, wanted)]
    if found.plan != wanted.plan:
        # What a damaged plan cannot tell is told as its damage.
        differences.append(_plan_difference(read_plan(root, found.plan["sha256"]), plan))
    if differences:
        raise StoreOptionsError(
            root,
            "was begun with other options: " + "; ".join(differences) + ". Give the same options to go on, "
            "--overwrite to begin anew, or another --out",
        )


def _differing(found: Header, wanted: Header) -> list[tuple[str, Any, Any]]:
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in ("size", "fit", "frames", "classes")]
    names = sorted({*found.options, *wanted.options})
    pairs += [(name, found.options.get(name), wanted.options.get(name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _brief(value: Any) -> str:
    text = (
        "x".join(map(str, value)) if isinstance(value, tuple) and all(isinstance(v, int) for v in value) else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _plan_difference(found: Plan, wanted: Plan) -> str:
    old = {video.id: video.bytes for shard in found.shards for video in shard}
    new = {video.id: video.bytes for shard in wanted.shards for video in shard}
    parts = [
        (f"{len(names)} {word}", sorted(names))
        for word, names in (
            ("added", new.keys() - old.keys()),
            ("gone", old.keys() - new.keys()),
            ("of another size", {i for i in old.keys() & new.keys() if old[i] != new[i]}),
        )
        if names
    ]
    said = ", ".join(f"{count} ({names[0]}{', ...' if len(names) > 1 else ''})" for count, names in parts)
    return "videos: " + (said or "cut into other shards")


def pending_shards(root: Path, plan: Plan, *, retry_failed: bool = False) -> list[int]:
    """Shards that are still to be built; with `retry_failed` also those that hold failures."""
    pending = []
    for shard in range(len(plan.shards)):
        folder = root / SHARDS / shard_name(shard)
        if not (folder / COMMIT).exists() or (retry_failed and read_commit(folder)["failures"]):
            pending.append(shard)
    return pending


def finish_store(root: Path) -> None:
    """Derive index and list of failures from the commits, and clear away what dead writers left.

    Raises:
        StoreDamageError: a commit is damaged.
        StoreError: the store cannot be written.
    """
    with writing(root):
        left = {_shard_of(name) for name in os.listdir(root / SHARDS)}
        for shard in sorted(shard for shard in left if shard is not None):
            with suppress(StoreLockedError), ShardLock(root / SHARDS / (LOCK + shard_name(shard))) as lock:
                settle(root, shard)
                lock.remove()
        with ShardLock(root / f"{LOCK}{INDEX}", _INDEX_PATIENCE_SECONDS) as lock:
            rebuild_index(root, read_header(root))
            for name in os.listdir(root):
                if _LEFT.fullmatch(name):
                    (root / name).unlink(missing_ok=True)
            lock.remove()


def _shard_of(name: str) -> int | None:
    """The shard to which something that is no shard belongs: a lock, or what a writer left."""
    for prefix in (LOCK, TEMPORARY, OUTGOING):
        number = name.removeprefix(prefix).removesuffix(".lease")
        if name.startswith(prefix) and number.isdigit():
            return int(number)
    return None
