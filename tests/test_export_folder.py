"""Exports that are killed at any step or run concurrently: the next one cleans up and touches no other files."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from pathlib import Path

import pytest
from faults import Faults, contents
from stores import header_of, make_store

from bgaug.errors import StoreError, StoreLockedError
from bgaug.pipelines.build.export import Journal, export_lock, export_videos
from bgaug.progress import Silent
from bgaug.store import finish_store, replace_masks

IDS = ["0.mp4", "1.mp4"]
MINE = {"notes.txt": b"mine", "masks/0/readme.txt": b"mine", "masks/0/.000001.png.123": b"mine"}


class Killed(BaseException): ...


def export(store: Path, out: Path, *, overwrite: bool = False) -> None:
    export_videos(store, IDS, out, Silent(), frames=True, overwrite=overwrite)


@pytest.fixture(autouse=True)
def dead_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill is simulated in this very process: it changes nothing any more."""
    monkeypatch.setattr("bgaug.files.is_alive", lambda process: False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores of the same videos, of which one has imported masks."""
    for name in ("a", "b"):
        make_store(tmp_path / name, 2, kind=name)
    replace_masks(tmp_path / "b", header_of(kind="b"), 0, lambda row, masks: ~masks)
    finish_store(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def make_mine(out: Path) -> None:
    for name, data in MINE.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)


def kill_exports(stores: tuple[Path, Path], folder: Path, stride: int, report: list[str]) -> None:
    """Over nothing, and over an earlier export of another store."""
    old, new = stores
    export(old, folder / "old")
    export(new, folder / "new")
    was, whole = contents(folder / "old"), contents(folder / "new")
    assert was.keys() == whole.keys() and was != whole
    for overwrite in (False, True):
        with Faults(shutil.copytree(folder / "old", folder / "count")) as counted:
            export(new, folder / "count", overwrite=True)
        shutil.rmtree(folder / "count")
        steps = range(counted.calls["any"])[::stride]
        for step in steps:
            out = folder / "out"
            if overwrite:
                shutil.copytree(folder / "old", out)
            make_mine(out)
            with pytest.raises(Killed), Faults(out, "any", step, raises=Killed):
                export(new, out, overwrite=overwrite)
                raise Killed  # over an empty folder there are fewer steps
            left = {name: data for name, data in contents(out).items() if name not in MINE}
            for number in (0, 1):
                mine = {name for name in whole if re.match(rf"({number}\.json|\w+/{number}/)", name)}
                if f"{number}.json" in left:
                    states = ({name: files[name] for name in mine} for files in (was, whole))
                    assert {name: left[name] for name in mine} in states, "an export looks whole and is mixed"
            export(new, out, overwrite=any(name.endswith(".json") for name in left))  # of videos that were through
            assert contents(out) == whole | MINE
            shutil.rmtree(out)
        report.append(f"exports killed at {len(steps)} of {counted.calls['any']} steps{' over another' * overwrite}")


def test_a_killed_export_leaves_nothing_for_the_next(
    stores: tuple[Path, Path], tmp_path: Path, report: list[str]
) -> None:
    kill_exports(stores, tmp_path, 23, report)


@pytest.mark.full
def test_an_export_killed_at_very_many_steps_leaves_nothing_for_the_next(
    stores: tuple[Path, Path], tmp_path: Path, report: list[str]
) -> None:
    kill_exports(stores, tmp_path, 4, report)


def test_another_export_cleans_up_as_well(stores: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_mine(out)
    with pytest.raises(Killed), Faults(out, "any", 60, raises=Killed):
        export(stores[0], out)
    assert contents(out).keys() != MINE.keys()
    export_videos(stores[0], ["1.mp4"], out, Silent())
    left = contents(out)
    assert {name for name in left if "/0/" in name or name.startswith((".", "0"))} == {n for n in MINE if "/0/" in n}


def test_one_export_at_a_time(stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgaug.store.lock.PATIENCE_SECONDS", 0.1)
    export(stores[0], tmp_path / "out")
    before = contents(tmp_path / "out")
    with (
        export_lock(tmp_path / "out"),
        pytest.raises(StoreLockedError, match=f"is being written by process {os.getpid()} on .* since "),
    ):
        export(stores[1], tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "line",
    ['"../precious.json"', '"/precious.json"', '"masks/../../precious.json"', '"notes.txt"', '"masks/0/readme.txt"']
    + ['"link/precious.json"', '"masks/link/000000.png"', "[1]", "{", '"a\u0000.json"', '""', "null"],
)
def test_a_list_of_leftovers_leads_nowhere_else(tmp_path: Path, line: str) -> None:
    out = tmp_path / "out"
    make_mine(out)
    for name in ("precious.json", "000000.png"):
        (tmp_path / name).write_text("precious")
    (out / "link").symlink_to(tmp_path)
    (out / "masks" / "link").symlink_to(tmp_path)
    Journal.of(out, "x").path.write_text(f"{line}\n")
    with export_lock(out):
        pass
    assert contents(out) == MINE and (tmp_path / "precious.json").exists() and (tmp_path / "000000.png").exists()


def test_what_the_disk_refuses_is_reported_and_nothing_is_left(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with Faults(tmp_path / "count") as counted:
        export(stores[0], tmp_path / "count")
    errors = itertools.cycle((errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE, errno.EDQUOT))
    for kind in ("open", "write", "rename", "mkdir", "unlink"):
        for step in range(counted.calls[kind])[:: max(1, counted.calls[kind] // 3)]:
            out = tmp_path / f"{kind}{step}"
            make_mine(out)
            try:
                with Faults(out, kind, step, next(errors), lasting=bool(step % 2)):
                    export(stores[0], out)
            except StoreError as caught:
                assert str(out) in str(caught) and "\n" not in str(caught)
            export(stores[0], out, overwrite=True)
            assert contents(out) == contents(tmp_path / "count") | MINE
