"""The n-th call that changes a file fails, in every command that writes a store: one line of error, no partial file,
and the same command continues.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults import Faults, contents
from stores import SIZE, make_store
from worlds import moving_square

from bgaug.errors import StoreError
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.importing import import_backgrounds, import_masks, merge
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import repair_store, verify_store
from bgaug.video import write_video

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE, errno.EDQUOT)
MOST = 3
OPTIONS = VideoOptions(method="median", shots=False, num_samples=5)


@dataclass(frozen=True)
class Command:
    """Something that writes a store `out`, from what lies in a folder.

    Attributes:
        run: does it; once more where it was stopped.
        begin: makes what is there before.
        is_whole_before: whether `out` is a finished store before, and so at any moment.
    """

    run: Callable[[Path, Path], object]
    begin: Callable[[Path, Path], object] | None = None
    is_whole_before: bool = False


def build(folder: Path, out: Path) -> object:
    return build_shards(
        ShardOptions(inputs=[folder / "v"], out=out, in_process=True, video=OPTIONS, size=(24, 32)), Silent()
    )


def build_over(folder: Path, out: Path) -> object:
    setup = ShardOptions(inputs=[folder / "v"], out=out, in_process=True, overwrite=True)
    return build_shards(replace(setup, video=OPTIONS, size=(24, 32)), Silent())


def build_other(folder: Path, out: Path) -> object:
    return build_shards(
        ShardOptions(inputs=[folder / "v"], out=out, in_process=True, video=OPTIONS, size=(16, 16)), Silent()
    )


def extract(folder: Path, out: Path) -> object:
    return extract_backgrounds(
        BackgroundOptions(inputs=[folder / "v"], out=out, in_process=True, video=OPTIONS, size=(24, 32)), Silent()
    )


def join(folder: Path, out: Path) -> object:
    return merge([folder / "a", folder / "b"], out, Silent(), prefix=True, copy=True)


def begin_small(folder: Path, out: Path) -> object:
    return make_store(out, 1, 1)


def bring_masks(folder: Path, out: Path) -> object:
    return import_masks(out, folder / "masks", Silent())


def bring_donors(folder: Path, out: Path) -> object:
    return import_backgrounds(out, folder / "donors", Silent(), name="places", overwrite=True)


def damage(folder: Path, out: Path) -> object:
    make_store(out, 1, 1)
    (out / "shards" / "00001" / "frames" / "c" / "0").write_bytes(b"")
    return None


def mend(folder: Path, out: Path) -> object:
    return repair_store(out, verify_store(out))


COMMANDS = {
    "build-shards": Command(build),
    "build-shards --overwrite": Command(build_over, build_other),
    "extract-backgrounds": Command(extract),
    "merge": Command(join),
    "import --masks": Command(bring_masks, begin_small, is_whole_before=True),
    "import --backgrounds": Command(bring_donors, begin_small, is_whole_before=True),
    "verify --repair": Command(mend, damage),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "v").mkdir()
    for number in range(2):
        write_video(folder / "v" / f"{number}.mp4", moving_square(number, 8, 24, 32, side=6)[0])
    for name in ("a", "b"):
        make_store(folder / name, 1, frames="raw")
    (folder / "masks").mkdir()
    np.save(folder / "masks" / "0.npy", np.zeros((20, *SIZE), np.uint8))
    (folder / "donors").mkdir()
    cv2.imwrite(str(folder / "donors" / "a.png"), np.full((*SIZE, 3), 90, np.uint8))
    return folder


def seen(out: Path) -> dict[str, bytes]:
    """Every file of a store that is not hidden, but for what is derived."""
    hidden = {
        name: data for name, data in contents(out).items() if not any(p.startswith(".") for p in Path(name).parts)
    }
    return {name: data for name, data in hidden.items() if name.split("/")[0] not in ("index", "failures.jsonl")}


def check_nothing_is_torn(out: Path, command: Command) -> None:
    shards = sorted((out / "shards").glob("[0-9]*"))
    if not (out / "zarr.json").exists():
        assert not shards, "shards without a header"
        return
    report = verify_store(out)
    torn = [p for p in report.problems if any(p.path.is_relative_to(s) for s in shards) and not p.foreign]
    assert not torn, f"seen, and not whole: {torn[0].path} {torn[0].message}"
    banks = [problem for problem in report.problems if problem.path.is_relative_to(out / "banks")]
    assert not banks, "a torn bank can be seen"
    if command.is_whole_before:
        assert len(shards) == report.num_shards == 2


def fail_calls(name: str, inputs: Path, folder: Path, most: int, report: list[str]) -> None:
    command, rng = COMMANDS[name], random.Random(name)
    before, whole = folder / "before", folder / "whole"
    if command.begin is not None:
        command.begin(inputs, before)
        shutil.copytree(before, whole)
    with Faults(whole) as counted:
        command.run(inputs, whole)
    expected, reported = seen(whole), 0
    steps = sorted(rng.sample(range(counted.calls["any"]), min(most, counted.calls["any"])))
    for place, step in enumerate(steps):
        out, error, lasting = folder / f"{step}", ERRORS[place % len(ERRORS)], rng.random() < 0.5
        if command.begin is not None:
            shutil.copytree(before, out)
        try:
            with Faults(out, "any", step, error, lasting=lasting):
                command.run(inputs, out)
        except StoreError as refused:
            reported += 1
            message = str(refused)
            assert str(out) in message and "\n" not in message and os.strerror(error) in message, message
        if name != "verify --repair":  # which begins with a torn one
            check_nothing_is_torn(out, command)
        command.run(inputs, out)
        assert seen(out) == expected, f"other bytes after {os.strerror(error)} at call {step}"
        hidden = [path.relative_to(out).as_posix() for path in out.rglob(".*")]
        assert not hidden, f"left behind: {hidden}"
        shutil.rmtree(out)
    report.append(
        f"{name}: {len(steps)} of {counted.calls['any']} calls failed, {reported} reported, store complete each time"
    )


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_that_fails_is_reported_and_loses_nothing(
    name: str, inputs: Path, tmp_path: Path, report: list[str]
) -> None:
    fail_calls(name, inputs, tmp_path, MOST, report)


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_every_call_that_fails_is_reported_and_loses_nothing(
    name: str, inputs: Path, tmp_path: Path, report: list[str]
) -> None:
    fail_calls(name, inputs, tmp_path, 10**6, report)
