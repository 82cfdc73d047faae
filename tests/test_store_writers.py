"""Several processes that write, clear or rewrite one store: the second is refused with the name of the first."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults import Faults, contents
from stores import SIZE, header_of, make_store, payload_of, plan_of, row_of, write_shard

from bgaug.errors import StoreError, StoreFormatError, StoreLockedError
from bgaug.pipelines.build.importing import import_backgrounds, import_masks
from bgaug.progress import Silent
from bgaug.store import (
    ShardWriter,
    building,
    create_store,
    finish_store,
    merge_stores,
    open_store,
    repair_store,
    replace_masks,
    restore_header,
    verify_store,
)
from bgaug.store.create import exclusive
from bgaug.store.format.inside import link_inside
from bgaug.store.lock import _DEAD_SECONDS, FileLock, _holder_name

NAMED = rf"is being written by process {os.getpid()} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:"
WHOLE = {"zarr.json", "plan.json", "shards", "index", "failures.jsonl"}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgaug.store.lock.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=["flock", "lease"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A disk that supports locks, and one that does not."""
    if request.param == "lease":

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr("bgaug.store.lock.fcntl.flock", refuse)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(tmp_path / "store", 1, 2)
    return tmp_path / "store"


def begin_again(root: Path) -> object:
    return create_store(root, header_of("raw"), plan_of(2), overwrite=True)


def build_again(root: Path) -> object:
    with building(root, header_of("raw"), plan_of(2), overwrite=True):
        return None


def merge_over(root: Path) -> object:
    parts = [root.parent / "part 0", root.parent / "part 1"]
    for number, part in enumerate(parts):
        make_store(part, *[1] * (number + 1))
    return merge_stores(parts, root, overwrite=True, prefix=True)


def import_new_masks(root: Path) -> object:
    folder = root.parent / "masks"
    folder.mkdir()
    np.save(folder / "0.npy", np.zeros((20, *SIZE), np.uint8))
    return import_masks(root, folder, Silent())


def import_donors(root: Path) -> object:
    folder = root.parent / "donors"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((*SIZE, 3), np.uint8))
    return import_backgrounds(root, folder, Silent())


def repair(root: Path) -> object:
    report = verify_store(root)
    (root / "shards" / "00001" / "COMMIT.json").unlink()
    return repair_store(root, report if report.problems else verify_store(root))


def restore(root: Path) -> object:
    (root / "zarr.json").write_text("{}")
    return restore_header(root)


ALONE = [begin_again, build_again, merge_over, import_new_masks, import_donors, repair, restore]


@pytest.mark.parametrize("rewrite", ALONE)
@pytest.mark.parametrize("first", ["build", "shard", "exclusive"])
def test_what_clears_or_rewrites_is_refused_while_another_process_writes(
    root: Path, rewrite: Callable[[Path], object], first: str
) -> None:
    plan = plan_of(1, 2)
    holds: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "build": lambda: building(root, header_of(), plan),
        "shard": lambda: FileLock(root / "shards" / ".lock-00001"),
        "exclusive": lambda: exclusive(root),
    }
    with holds[first]():
        before = contents(root / "shards" / "00000")
        with pytest.raises(StoreLockedError, match=NAMED):
            rewrite(root)
        assert contents(root / "shards" / "00000") == before
        assert (root / "shards" / "00001" / "frames").is_dir()
    if rewrite in (begin_again, build_again):
        rewrite(root)
        assert sorted(os.listdir(root)) == ["plan.json", "shards", "zarr.json"] and not os.listdir(root / "shards")


def test_builds_of_one_plan_work_side_by_side_and_leave_nothing(root: Path, disk: str) -> None:
    with building(root, header_of(), plan_of(1, 2)), building(root, header_of(), plan_of(1, 2)):
        assert len([name for name in os.listdir(root) if name.startswith(".build-")]) >= 2
        with pytest.raises(StoreLockedError, match=NAMED):
            begin_again(root)
    finish_store(root)
    assert set(os.listdir(root)) == WHOLE and verify_store(root).problems == ()


def test_an_exclusive_writer_keeps_builds_out(root: Path, disk: str) -> None:
    with exclusive(root), pytest.raises(StoreLockedError, match=NAMED), building(root, header_of(), plan_of(1, 2)):
        pass
    with building(root, header_of(), plan_of(1, 2)):
        pass


@pytest.mark.parametrize(
    ("holder", "age_seconds", "holds"),
    [
        ("dead", 0.0, False),
        ("process 7 on another-host since 2026-01-01 00:00:00 UTC", 1.0, True),
        ("process 7 on another-host", _DEAD_SECONDS + 30, False),
        ("process 7 on another-host", -_DEAD_SECONDS - 30, False),
        ("\x1b[31mprocess 7 on evil\nhost", 1.0, True),
    ],
)
def test_stale_marks_hold_nothing_and_those_of_other_hosts_as_long_as_they_are_renewed(
    root: Path, disk: str, holder: str, age_seconds: float, holds: bool
) -> None:
    if holder == "dead":
        done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        holder = _holder_name().replace(f"process {os.getpid()} ", f"process {int(done.stdout)} ")
    mark = root / f".build-{'0' * 32}"
    mark.write_text(holder)
    os.utime(mark, (time.time() - age_seconds,) * 2)
    if holds:
        with pytest.raises(StoreLockedError) as caught:
            begin_again(root)
        message = str(caught.value)
        assert message.isprintable() and ("another-host since 2026" in message or "by another process" in message)
        assert verify_store(root).problems == ()
    else:
        begin_again(root)
        assert not mark.exists()


def test_a_lease_from_a_machine_that_sees_no_locks_is_respected(root: Path) -> None:
    lease = root / "shards" / ".lock-00000.lease"
    lease.write_text("process 7 on another-host")
    with pytest.raises(StoreLockedError, match="process 7 on another-host"), ShardWriter(root, header_of(), 0):
        pass
    with pytest.raises(StoreLockedError, match="process 7 on another-host"):
        begin_again(root)
    os.utime(lease, (1, 1))
    begin_again(root)


def test_a_shard_is_not_committed_into_a_store_that_was_created_again(root: Path) -> None:
    header = make_store(root.parent / "other", 1, 1, frames="raw")
    (root / "shards" / "00000").rename(root.parent / "away")
    for file in ("zarr.json", "plan.json"):
        with ShardWriter(root, create_store(root, header_of(), plan_of(1, 2)), 0) as writer:
            writer.add(row_of(0), payload_of(header_of(), 0))
            shutil.copy(root.parent / "other" / file, root / file)
            if file == "zarr.json":
                with pytest.raises(StoreError, match="was started again by another process"):
                    writer.commit()
        make_store(root.parent / file, 1, 2)
        shutil.copy(root.parent / file / file, root / file)
    assert header.frames == "raw" and not (root / "shards" / "00000").exists()


def test_a_writer_that_stood_still_for_too_long_commits_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("bgaug.store.lock.fcntl.flock", refuse)
    header = create_store(root, header_of(), plan_of(1, 2))
    with ShardWriter(root, header, 0, replace=True) as writer:
        writer.add(row_of(0), payload_of(header, 0))
        lease = root / "shards" / ".lock-00000.lease"
        os.utime(lease, (1, 1))  # a minute ago, and more
        with FileLock(root / "shards" / ".lock-00000"):
            with pytest.raises(StoreLockedError, match="did not renew its lock"):
                writer.commit()
            assert lease.exists()
    assert verify_store(root).problems == ()


# --- clearing ---------------------------------------------------------------------------------------------------------


class Killed(BaseException): ...


@pytest.mark.parametrize("kind", ["rename", "unlink", "mkdir", "open", "write"])
def test_clearing_may_end_at_any_step(tmp_path: Path, kind: str) -> None:
    """Whatever can be seen is whole; the old build goes on from there, and so does the new one."""
    make_store(tmp_path / "before", 1, 1, 1)
    known = contents(tmp_path / "before" / "shards")
    with Faults(shutil.copytree(tmp_path / "before", tmp_path / "count")) as counted:
        begin_again(tmp_path / "count")
    assert counted.calls[kind]
    for step in range(counted.calls[kind]):
        root = shutil.copytree(tmp_path / "before", tmp_path / f"store{step}")
        with pytest.raises(Killed), Faults(root, kind, step, raises=Killed):
            begin_again(root)
        header = (root / "zarr.json").read_bytes()
        seen = {name: data for name, data in contents(root / "shards").items() if not name.startswith(".")}
        assert seen.items() <= known.items()
        assert all(f"{name.split('/')[0]}/COMMIT.json" in seen for name in seen), "a torn shard can be seen"
        if header == (tmp_path / "before" / "zarr.json").read_bytes() and step % 2:
            old = create_store(root, header_of(), plan_of(1, 1, 1))
            for shard in range(3):
                if not (root / "shards" / f"{shard:05}").exists():
                    write_shard(root, old, shard, range(shard, shard + 1))
            finish_store(root)
            assert contents(root / "shards") == known and set(os.listdir(root)) == WHOLE
        begin_again(root)
        assert sorted(os.listdir(root)) == ["plan.json", "shards", "zarr.json"] and not os.listdir(root / "shards")


def test_what_is_not_ours_stays(root: Path) -> None:
    for name in ("notes.txt", "shards/notes.txt", "my folder/deep"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("precious")
    begin_again(root)
    for name in ("notes.txt", "shards/notes.txt", "my folder/deep"):
        assert (root / name).read_text() == "precious"
    assert not (root / "shards" / "00000").exists() and not (root / "index").exists()


@pytest.mark.parametrize("name", ["shards", "banks", "index", "shards/00000", "shards/.tmp-00000", ".old-store"])
def test_clearing_goes_through_no_link(root: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for inside in ("00000", "precious", ".lock-00000"):
        (elsewhere / inside).write_text("precious")
    if (root / name).exists():
        shutil.rmtree(root / name)
    (root / name).symlink_to(elsewhere)
    begin_again(root)
    assert sorted(contents(elsewhere)) == [".lock-00000", "00000", "precious"]
    assert not (root / name).is_symlink()


@pytest.mark.parametrize("name", ["shards/.lock-00000", ".lock-store"])
def test_a_lock_that_is_a_link_is_not_written_through(root: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(precious)
    with (
        pytest.raises(StoreError, match="link"),
        building(root, header_of(), plan_of(1, 2)) as header,
        ShardWriter(root, header, 0, replace=True),
    ):
        pass
    assert precious.read_text() == "precious"


def test_shards_that_lie_elsewhere_are_not_built(root: Path, tmp_path: Path) -> None:
    (root / "shards").rename(tmp_path / "shards")
    (root / "shards").symlink_to(tmp_path / "shards")
    with pytest.raises(StoreFormatError, match="is a link"):
        create_store(root, header_of(), plan_of(1, 2))


# --- merging ----------------------------------------------------------------------------------------------------------


def test_a_shard_that_is_replaced_while_it_is_merged_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "a", 1)
    make_store(tmp_path / "b", 1)
    real = link_inside

    def slow(root: Path, key: str, target: Path, *, copy: bool = False) -> int:
        if key.endswith("/masks/c/0/0") and root.name == "a":
            monkeypatch.setattr("bgaug.store.upkeep.link_inside", real)
            replace_masks(tmp_path / "a", header_of(), 0, lambda row, masks: ~masks)
        return real(root, key, target, copy=copy)

    monkeypatch.setattr("bgaug.store.upkeep.link_inside", slow)
    with pytest.raises(StoreError, match="was built again during the merge"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out", prefix=True)
    merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out", prefix=True)
    assert verify_store(tmp_path / "out", deep=True).problems == () and len(open_store(tmp_path / "out")) == 2
