from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bgaug.store.lock as lease
from bgaug.errors import StoreLockedError
from bgaug.store.lock import FileLock


@pytest.fixture(params=["flock", "lease"])
def path(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a lock file, on a disk that supports locks and on one that does not."""
    if request.param == "lease":

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr("bgaug.store.lock.fcntl.flock", refuse)
    return tmp_path / ".lock-00003"


def held(path: Path) -> None:
    with FileLock(path, patience_seconds=0.1):
        pass


def test_one_at_a_time_and_the_holder_is_named(path: Path) -> None:
    with FileLock(path), pytest.raises(StoreLockedError, match=f"is being written by process {os.getpid()} on "):
        held(path)
    held(path)


def test_a_lock_is_waited_for_a_moment(path: Path) -> None:
    with FileLock(path):
        began = time.monotonic()
        with pytest.raises(StoreLockedError):
            held(path)
        assert time.monotonic() - began >= 0.1


def test_removed_while_held(path: Path) -> None:
    with FileLock(path) as lock:
        lock.remove()
    held(path)
    assert not list(path.parent.glob("*.lease*"))


def lease_of(path: Path, text: str, age_seconds: float) -> Path:
    file = path.with_name(f"{path.name}.lease")
    file.write_text(text)
    os.utime(file, (time.time() - age_seconds,) * 2)
    return file


@pytest.mark.parametrize("path", ["lease"], indirect=True)
def test_dead_holders_hold_nothing(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = int(done.stdout)
    lease_of(path, lease._holder_name().replace(str(os.getpid()), str(gone)), age_seconds=0)
    held(path)
    lease_of(path, "process 7 on another-host", age_seconds=lease._DEAD_SECONDS + 30)
    held(path)
    lease_of(path, "process 7 on another-host", age_seconds=lease._DEAD_SECONDS / 2)
    with pytest.raises(StoreLockedError, match="process 7 on another-host"):
        held(path)


@pytest.mark.parametrize("path", ["lease"], indirect=True)
def test_a_lease_is_renewed_and_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 0.02)
    with FileLock(path):
        file = path.with_name(f"{path.name}.lease")
        os.utime(file, (1, 1))
        end = time.monotonic() + 60
        while file.stat().st_mtime < 100 and time.monotonic() < end:
            time.sleep(0.01)
        assert file.stat().st_mtime > 100
    assert not file.exists()


def test_a_lease_appears_with_the_name_of_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "x.lease", os.write

    def killed(descriptor: int, data: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        lease.Lease(path).take()
    assert not path.exists()
    monkeypatch.setattr(os, "write", write)
    held_lease = lease.Lease(path)
    assert held_lease.take() is None and held_lease.holder().startswith(f"process {os.getpid()} on ")
    other = lease.Lease(path).take()
    assert other == held_lease.holder()
    held_lease.give_back()
    assert os.listdir(tmp_path) == []


def test_a_lease_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    held_lease = lease.Lease(tmp_path / "x.lease")
    assert held_lease.take() is None
    assert lease.Lease(tmp_path / "x.lease").take() == held_lease.holder()
    held_lease.give_back()
    assert os.listdir(tmp_path) == []
