"""A file is written whole or not at all, whatever the system refuses."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from faults import BROKEN, DENIED, FULL, KINDS, READ_ONLY, Faults, contents, file_size_limit, small_disk

from bgaug.errors import BgaugError, UsageError, WriteError
from bgaug.files import (
    check_replaceable,
    clear_unfinished,
    make_folder,
    replacing,
    unfinished_name,
    write_bytes,
)


@pytest.fixture
def umask() -> object:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_has_its_bytes_and_the_mode_of_the_umask(tmp_path: Path, umask: object) -> None:
    path = write_bytes(tmp_path / "new" / "a.bin", b"abc")
    assert path.read_bytes() == b"abc" and stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    write_bytes(path, b"de")
    assert path.read_bytes() == b"de" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["a.bin"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a", tmp_path / "link"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    (tmp_path / "dangling").symlink_to(tmp_path / "there" / "b")
    write_bytes(tmp_path / "dangling", b"b")
    assert (tmp_path / "there" / "b").read_bytes() == b"b"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "device, fifo or socket"),
        (lambda path: path.symlink_to("/dev/null"), "device, fifo or socket"),
        (lambda path: path.symlink_to(path), "circle"),
    ],
)
def test_only_files_are_replaced(make: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    make(path)  # type: ignore[operator]
    for act in (lambda: write_bytes(path, b"a"), lambda: check_replaceable(path, overwrite=True)):
        with pytest.raises(WriteError, match=message):
            act()
    assert os.listdir(tmp_path) == ["x"] and os.path.lexists(path)


@pytest.mark.parametrize("error", [FULL, READ_ONLY, BROKEN, DENIED, errno.EDQUOT, errno.EMFILE])
def test_whatever_is_refused_the_earlier_file_stays(error: int, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.bin"
    with Faults(tmp_path) as counted:
        write_bytes(path, b"old" * 5000)
    assert {"open", "write", "fsync", "rename", "mkdir"} <= counted.calls.keys()
    tried = 0
    for kind in KINDS:
        for n in range(counted.calls[kind]):
            if kind == "mkdir":
                continue
            tried += 1
            with Faults(tmp_path, kind, n, error), pytest.raises(WriteError) as raised:
                write_bytes(path, b"new" * 5000)
            message = str(raised.value)
            assert isinstance(raised.value, BgaugError) and isinstance(raised.value, OSError)
            assert (
                raised.value.errno == error
                and str(path) in message
                and os.strerror(error) in message
                and "\n" not in message
            )
            assert contents(tmp_path) in ({"sub/a.bin": b"old" * 5000}, {"sub/a.bin": b"new" * 5000})
            # Only the last call, fsync of the folder, comes after the new file took its place.
            if (kind, n) != ("fsync", 1):
                assert path.read_bytes() == b"old" * 5000
            write_bytes(path, b"old" * 5000)
    assert tried >= 5
    with Faults(tmp_path, "mkdir", 0, error), pytest.raises(WriteError):
        write_bytes(tmp_path / "other" / "a", b"")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"a.bin": b"old"}


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as disk:
        write_bytes(disk / "a", b"old")
        with pytest.raises(WriteError, match="No space left on device; free some space"):
            write_bytes(disk / "a", bytes(10**6))
        assert contents(disk) == {"a": b"old"}
    with small_disk(tmp_path / "fixed", read_only=True) as disk:
        for act in (lambda: write_bytes(disk / "a", b""), lambda: check_replaceable(disk / "b" / "c", overwrite=True)):
            with pytest.raises(WriteError, match="Read-only file system; the disk is read-only"):
                act()


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a", b"old")
    with file_size_limit(1 << 16), pytest.raises(WriteError, match="ulimit -f"):
        write_bytes(path, bytes(1 << 17))
    assert contents(tmp_path) == {"a": b"old"}


def test_what_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for bad, message in (
        ("file/a", "Not a directory"),
        ("file/a/b", "Not a directory"),
        ("n" * 300, "name"),
        ("d/" + "n" * 300, "name"),
    ):
        with pytest.raises(WriteError, match=message):
            check_replaceable(tmp_path / bad, overwrite=True)
    with Faults(tmp_path, "open", 0, DENIED), pytest.raises(WriteError, match="make the folder writable"):
        check_replaceable(tmp_path / "new" / "folder", overwrite=True)
    check_replaceable(tmp_path / "new" / "folder", overwrite=True)
    assert contents(tmp_path) == {"file": b""} and not (tmp_path / "new").exists()
    with pytest.raises(WriteError, match="choose another place"):
        make_folder(tmp_path / "file")


def test_only_files_of_their_kind_are_replaced_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    check_replaceable(path, overwrite=False, kinds=[b"\x89PNG"])
    path.write_bytes(b"\x89PNG....")
    check_replaceable(path, overwrite=False, kinds=[b"\x89PNG"])
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        check_replaceable(path, overwrite=False)
    path.write_bytes(b"my thesis")
    with pytest.raises(UsageError, match="already exists and is not a PNG; --overwrite"):
        check_replaceable(path, overwrite=False, kinds=[b"\x89PNG"], what="a PNG")
    check_replaceable(path, overwrite=True, kinds=[b"\x89PNG"], what="a PNG")
    assert contents(tmp_path) == {"sheet.png": b"my thesis"}


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "a").mkdir(parents=True)
    (videos / "a" / "1.mp4").write_bytes(b"video")
    os.link(videos / "a" / "1.mp4", tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to(videos / "a" / "1.mp4")
    for out in (videos / "a" / "1.mp4", videos / "a" / ".." / "a" / "1.mp4", tmp_path / "soft.mp4"):
        with pytest.raises(UsageError, match="an input of this command"):
            check_replaceable(out, overwrite=True, inputs=[videos])
    with pytest.raises(UsageError, match="an input of this command"):
        check_replaceable(tmp_path / "hard.mp4", overwrite=True, inputs=[videos / "a" / "1.mp4"])
    check_replaceable(videos / "a" / "new.npz", overwrite=False, inputs=[videos])


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    own = tmp_path / unfinished_name(".mp4")
    dead = tmp_path / own.name.replace(f"-{os.getpid()}-", "-4194999-")  # above the highest number of a process
    others = tmp_path / ".bgaug-0000000a-4194999-00.mp4"
    for path in (own, dead, others, tmp_path / "a.mp4"):
        path.write_bytes(b"")
    assert clear_unfinished(tmp_path) == 1
    dead.mkdir()
    (dead / "half").write_bytes(b"")
    check_replaceable(tmp_path / "new", overwrite=True)
    assert not dead.exists() and own.exists() and others.exists() and (tmp_path / "a.mp4").exists()
