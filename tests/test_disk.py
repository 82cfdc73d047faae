"""Every command that writes, on a disk that refuses: one line, exit code 1, no partial file, earlier files unchanged.

Commands that write stores are tested in tests/test_crashes.py; these are all the others.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from faults import BROKEN, DENIED, FULL, READ_ONLY, Faults, contents, file_size_limit, small_disk
from safetensors import safe_open
from typer.testing import CliRunner, Result

from bgaug.cli.main import app

TINY = ("--backbone", "tiny", "--steps", 3, "--crop", 32, "--frames", 4, "--batch-size", 2, "--threads", 0)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("disk") / "run"
    assert invoke("train", small_store, "--out", out, *TINY).exit_code == 0
    return out


@dataclass(frozen=True)
class Command:
    """One that writes below a folder."""

    arguments: Callable[[Path, Path, Path], tuple[object, ...]]  # of store, run, folder
    prepare: Callable[[Path, Path], object] = lambda run, folder: None
    tolerant: bool = False  # what it could not keep it warns of, and shows its results


COMMANDS = {
    "preview": Command(lambda store, run, out: ("preview", store, "--out", out / "sheet.png", "--rows", 2)),
    "export-weights": Command(
        lambda store, run, out: ("export-weights", run, "--out", out / "encoder.safetensors", "--overwrite")
    ),
    "embed": Command(
        lambda store, run, out: ("embed", run, store, "--out", out / "f.npz", "--clips", 1, "--overwrite")
    ),
    "heatmap": Command(
        lambda store, run, out: (
            *("heatmap", run, store, "--out", out / "maps", "--map", "activation", "--videos", 2, "--overwrite"),
        )
    ),
    "train": Command(lambda store, run, out: ("train", store, "--out", out / "run", "--overwrite", *TINY)),
    "train --resume": Command(
        lambda store, run, out: ("train", store, "--out", out / "run", "--resume", *TINY),
        prepare=lambda run, out: shutil.copytree(run, out / "run", dirs_exist_ok=True),
    ),
    "train --tensorboard": Command(
        lambda store, run, out: ("train", store, "--out", out / "run", "--overwrite", "--tensorboard", *TINY)
    ),
    "evaluate": Command(
        lambda store, run, out: ("evaluate", out / "run", store, "--clips", 1, "--threads", 0),
        prepare=lambda run, out: shutil.copytree(run, out / "run", dirs_exist_ok=True),
        tolerant=True,
    ),
}


SHORT: dict[str, Callable[[int], list[int]]] = {
    "open": lambda count: [0],
    "write": lambda count: [count // 2],
    "rename": lambda count: [count - 1] if count else [],
    "fsync": lambda count: [],
    "mkdir": lambda count: [],
}
"""Which calls fail in the short form, of so many."""


def check_whole(folder: Path) -> None:
    """Every file below a folder can be read to its end by what it is for, and nothing half written lies there."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert not path.name.startswith(".bgaug") and path.suffix != ".tmp", f"{path} was left behind"
        if path.suffix == ".png":
            assert cv2.imread(str(path)) is not None
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)


def check_refused(result: Result, error: int, command: Command) -> None:
    """One line that names what the system refused, and no traceback."""
    accompanying = "TensorBoard files are no longer written"
    message = [line for line in result.stderr.strip().splitlines() if accompanying not in line]
    if command.tolerant and result.exit_code == 0:
        assert message == [] or "not kept" in result.stderr
        return
    assert result.exit_code == 1, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    assert len(message) == 1 and message[0].startswith("error: ") and os.strerror(error) in message[0], message
    assert re.search(r"; (free|make|the disk|check|choose|this process|the file|--resume)", message[0]), message


def attempts(name: str, store: Path, run: Path, folder: Path, errors: tuple[int, ...], *, every: bool) -> int:
    """Fail calls of each kind in turn; returns how often."""
    command, tried = COMMANDS[name], 0
    first = folder / "first"
    first.mkdir()
    command.prepare(run, first)
    with Faults(first) as counted:
        result = invoke(*command.arguments(store, run, first))
    assert result.exit_code == 0, (result.output, result.exception)
    for kind, chosen in SHORT.items():
        count = counted.calls[kind]
        for n in range(count) if every else chosen(count):
            for error in errors if n in (0, count - 1) else errors[:1]:
                out = folder / f"{kind}-{n}-{error}"
                out.mkdir()
                command.prepare(run, out)
                with Faults(out, kind, n, error) as faults:
                    result = invoke(*command.arguments(store, run, out))
                if result.exit_code == 0 and (not faults.failed or kind == "mkdir"):
                    continue  # there are fewer calls where a folder is there, and mkdir may fail then
                tried += 1
                if "tensorboard" in name and result.exit_code == 0:
                    assert "TensorBoard files are no longer written" in result.stderr
                else:
                    check_refused(result, error, command)
                check_whole(out)
                shutil.rmtree(out)
    return tried


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_refuses_costs_one_line(
    name: str, small_store: Path, run: Path, tmp_path: Path, report: list[str]
) -> None:
    tried = attempts(name, small_store, run, tmp_path, (FULL,), every=False)
    assert tried >= 2
    report.append(f"disk: {name}: {tried} refused calls, all held")


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_every_call_that_a_disk_refuses(
    name: str, small_store: Path, run: Path, tmp_path: Path, report: list[str]
) -> None:
    errors = (FULL, READ_ONLY, BROKEN, DENIED, errno.EDQUOT)
    tried = attempts(name, small_store, run, tmp_path, errors, every=True)
    report.append(f"disk, every call: {name}: {tried} refused calls, all held")


@pytest.mark.parametrize("name", ["preview", "export-weights", "embed", "heatmap"])
def test_the_earlier_result_stays(name: str, small_store: Path, run: Path, tmp_path: Path) -> None:
    """A second call that fails at its last write leaves every file of the first as it was."""
    command = COMMANDS[name]
    assert invoke(*command.arguments(small_store, run, tmp_path)).exit_code == 0
    before = contents(tmp_path)
    with Faults(tmp_path, "write", {"heatmap": 3}.get(name, 0), FULL):
        check_refused(invoke(*command.arguments(small_store, run, tmp_path)), FULL, command)
    assert contents(tmp_path) == before


def test_files_of_a_limited_size(small_store: Path, run: Path, tmp_path: Path) -> None:
    """Native writers included: no file may grow beyond some kilobytes."""
    for name in ("preview", "export-weights", "heatmap", "train"):
        out = tmp_path / name.replace(" ", "")
        out.mkdir()
        with file_size_limit(4096):
            check_refused(invoke(*COMMANDS[name].arguments(small_store, run, out)), errno.EFBIG, COMMANDS[name])
        check_whole(out)


def test_a_run_goes_on_after_the_disk_was_full(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train = ("train", small_store, "--out", out, *TINY, "--checkpoint-every", 1, "--keep", 9)
    with Faults(tmp_path, "rename", 4, FULL):  # after config.json, config.toml, and two checkpoints
        result = invoke(*train)
    assert result.exit_code == 1 and "--resume continues from the checkpoint before" in result.stderr
    check_whole(out)
    assert invoke(*train, "--resume").exit_code == 0
    assert invoke("train", small_store, "--out", tmp_path / "whole", *TINY).exit_code == 0
    states = [
        torch.load(folder / "checkpoints" / "step-00000003.pt")["learner"] for folder in (out, tmp_path / "whole")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 3


def test_what_cannot_be_written_is_found_before_the_work(
    small_store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is encoded, drawn or trained for an --out that is not writable."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("bgaug.pipelines.evaluate.embed.embed_store", never)
    monkeypatch.setattr("bgaug.pipelines.heatmap.run.load_runs", never)
    monkeypatch.setattr("bgaug.visualize.contact_sheet", never)
    monkeypatch.setattr("bgaug.pipelines.train.run._Run.prepare", never)
    monkeypatch.setattr("bgaug.model.pretrained.load.load_encoder", never)
    monkeypatch.setattr("bgaug.pipelines.demo.run._write_videos", never)
    file = tmp_path / "file"
    file.write_bytes(b"")
    outs = {
        "preview": ("preview", small_store, "--out", file / "sheet.png"),
        "export-weights": ("export-weights", run, "--out", file / "a" / "e.safetensors"),
        "embed": ("embed", run, small_store, "--out", file / "f.npz"),
        "heatmap": ("heatmap", run, small_store, "--out", file / "maps"),
        "train": ("train", small_store, "--out", file / "run"),
        "demo": ("demo", "--out", file / "demo"),
        "bias": ("evaluate", run, small_store, "--protocol", "bias", "--bias-out", file / "bias"),
    }
    for arguments in outs.values():
        result = invoke(*arguments)
        assert result.exit_code == 1 and "a part of the path is a file" in result.stderr, (arguments, result.exception)
        assert len(result.stderr.strip().splitlines()) == 1
    with Faults(tmp_path, "open", 0, READ_ONLY):
        for arguments in (tuple(str(part).replace("/file/", "/new/") for part in one) for one in outs.values()):
            result = invoke(*arguments)
            assert result.exit_code == 1 and "the disk is read-only" in result.stderr, (arguments, result.exception)
    assert contents(tmp_path) == {"file": b""} and not (tmp_path / "new").exists()


def test_files_of_another_kind_are_not_replaced(small_store: Path, run: Path, tmp_path: Path) -> None:
    thesis = b"PK\x03\x04 my thesis"
    bias = ("evaluate", run, small_store, "--protocol", "bias", "--bias-out", tmp_path)
    maps = ("heatmap", run, small_store, "--out", tmp_path, "--map", "activation", "--videos", 1)
    for name, arguments in {
        "thesis.docx": ("preview", small_store, "--out", tmp_path / "thesis.docx"),
        "sheet.png": ("preview", small_store, "--out", tmp_path / "sheet.png"),
        "photo.jpg": ("preview", small_store, "--out", tmp_path / "photo.jpg"),
        "video.mp4": ("embed", run, small_store, "--out", tmp_path / "video.mp4"),
        "e.safetensors": ("export-weights", run, "--out", tmp_path / "e.safetensors"),
        "heatmaps.json": maps,
        "000_run_clip_1_é.mp4.mp4": maps,
        "heatmaps.png": ("demo", "--quick", "--out", tmp_path),
        "report.json": bias,
        "manifest.json": bias,
    }.items():
        path = tmp_path / name
        path.write_bytes(thesis)
        result = invoke(*arguments)
        assert result.exit_code == 2 and "--overwrite replaces" in result.stderr, (
            name,
            result.output,
            result.exception,
        )
        assert contents(tmp_path) == {name: thesis}
        path.unlink()
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(thesis)
    assert invoke("preview", small_store, "--out", sheet, "--rows", 1, "--overwrite").exit_code == 0
    assert cv2.imread(str(sheet)) is not None
    assert invoke("preview", small_store, "--out", sheet, "--rows", 1).exit_code == 0  # an image of ours, or anybody's


def test_an_input_is_never_the_output(small_store: Path, run: Path, video_folder: Path, tmp_path: Path) -> None:
    videos = shutil.copytree(video_folder, tmp_path / "videos")
    store = shutil.copytree(small_store, tmp_path / "store")
    own = shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "e.safetensors"
    assert invoke("export-weights", own, "--out", weights).exit_code == 0
    before = contents(tmp_path)
    video = next(videos.rglob("*.mp4"))
    checkpoint = next(own.rglob("*.pt"))
    for arguments in (
        ("embed", own, videos, "--out", video),
        ("embed", own, store, "--out", store / "zarr.json"),
        ("embed", own, store, "--out", checkpoint),
        ("preview", store, "--out", store / "plan.json"),
    ):
        result = invoke(*arguments, "--overwrite")
        assert result.exit_code == 2 and "an input of this command" in result.stderr, (
            arguments,
            result.exception,
        )
    assert contents(tmp_path) == before


def test_the_demo_removes_only_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"mine")
    for more in ((), ("--overwrite",)):
        result = invoke("demo", "--quick", "--out", tmp_path, *more)
        assert result.exit_code == 2 and str(tmp_path / "videos") in result.stderr
    assert contents(tmp_path) == {"videos/holiday.mp4": b"mine"}


@pytest.mark.full
def test_a_tiny_and_a_read_only_disk(small_store: Path, run: Path, tmp_path: Path, report: list[str]) -> None:
    """Real disks: as small as a few blocks, and mounted read-only; the demo too."""
    tried = 0
    demo = Command(lambda store, run, out: ("demo", "--quick", "--steps", 1, "--out", out / "demo", "--jobs", 1))
    writers = {name: command for name, command in COMMANDS.items() if name not in ("train --resume", "evaluate")}
    for name, command in {**writers, "demo": demo}.items():  # those two begin with a run, which would not fit
        for size, read_only in (("4k", False), ("16k", False), ("64k", False), ("1m", False), ("1m", True)):
            with small_disk(tmp_path / "disk", size, read_only=read_only) as disk:
                result = invoke(*command.arguments(small_store, run, disk))
                tried += 1
                if result.exit_code:
                    message = result.stderr.strip().splitlines()
                    assert isinstance(result.exception, SystemExit), (name, size, result.exception)
                    assert result.exit_code == 1 and message[-1].startswith("error: "), (name, size, message)
                check_whole(disk)
    report.append(f"disk: {tried} commands on tiny and read-only disks, all held")
