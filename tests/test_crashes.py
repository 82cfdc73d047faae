"""Builds that are killed, interrupted, refused, out of space, or concurrent.

Only public interfaces are used: the command line, the layout of docs/store.md, `verify_store`.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from worlds import Recorder, moving_square

from bgaug.cli.console import TerminalProgress
from bgaug.cli.main import app
from bgaug.errors import StoreError
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import open_store, verify_store
from bgaug.video import write_video

SIZE = (48, 64)
SHARDS = 12
WHOLE = {"zarr.json", "plan.json", "shards", "index", "failures.jsonl"}
"""What lies in the folder of a finished store."""

MARK = "BGAUG_TEST_BUILD"
_numbers = itertools.count()


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.001)


# --- a build from outside ---------------------------------------------------------------------------------------------


def command(videos: Path, out: Path, jobs: int = 1, *more: str) -> list[str]:
    size = "x".join(map(str, SIZE))
    return ["build-shards", str(videos), "--out", str(out), "--size", size, "--jobs", str(jobs), "--json", *more]


class Build:
    """`bgaug build-shards` in processes of its own, known by a mark in their environment."""

    def __init__(self, videos: Path, out: Path, jobs: int = 1) -> None:
        self.mark = f"{os.getpid()}-{next(_numbers)}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bgaug.cli.main", *command(videos, out, jobs)],
            env=os.environ | {MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        BUILDS.append(self)

    def processes(self) -> list[int]:
        """All that are alive, the workers first. Outside Linux none are seen."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}\0".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found, key=lambda pid: pid == self.process.pid)

    def signal(self, number: int) -> None:
        """To all of them."""
        for pid in {*self.processes(), self.process.pid}:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self, where: Callable[[], object]) -> bool:
        """Stop all of them while a condition holds; False if they ended before."""
        while self.process.poll() is None:
            until(lambda: where() or self.process.poll() is not None)
            self.signal(signal.SIGSTOP)
            until(self.stands_still)
            if where() and self.process.poll() is None:
                return True
            self.signal(signal.SIGCONT)
        return False

    def stands_still(self) -> bool:
        """Whether all of them are stopped or have ended."""
        states = []
        for pid in self.processes():
            with suppress(OSError):
                states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        return all(state in "TZX" for state in states)

    def kill(self, *, all_of_them: bool) -> None:
        """By SIGKILL: the whole tree, or only the first process; the others must end with it."""
        if all_of_them:
            self.signal(signal.SIGKILL)
        else:
            self.process.kill()
        self.end(-signal.SIGKILL, 0)  # it may have been through by then

    def end(self, *codes: int) -> str:
        """Wait for it to leave with one of these codes and for its workers to be gone; returns its stderr."""
        output, errors = self.process.communicate(timeout=120)
        until(lambda: not self.processes())
        assert self.process.returncode in codes, (self.process.returncode, output, errors)
        assert "Traceback" not in errors, errors
        return errors


def stopped_build(videos: Path, out: Path, where: Callable[[], object], jobs: int = 1) -> Build:
    """A build whose processes are stopped while a condition holds. One that ended before is begun again."""
    before = names(out / "shards")
    for _ in range(5):
        build = Build(videos, out, jobs)
        if build.stop(where):
            return build
        build.end(0)
        for name in names(out / "shards") - before:
            shutil.rmtree(out / "shards" / name)
    raise AssertionError("five builds ended before they could be stopped")


BUILDS: list[Build] = []


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Not even where a test failed."""
    yield
    while BUILDS:
        build = BUILDS.pop()
        if build.process.returncode is None:
            build.signal(signal.SIGKILL)
            build.process.communicate()


def run(videos: Path, out: Path, *codes: int, jobs: int = 1, more: Sequence[str] = ()) -> str:
    """The same command in this process, but for its workers; returns stderr."""
    result = CliRunner().invoke(app, command(videos, out, jobs, *more))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        pytest.fail("".join(traceback.format_exception(result.exception)))
    assert result.exit_code in codes, (result.exit_code, result.stdout, result.stderr)
    return result.stderr


# --- what a store looks like ------------------------------------------------------------------------------------------


def visible(out: Path) -> dict[str, tuple[int, int]]:
    """The shards that exist, and the stamp that changes if one is built again."""
    stamps = {}
    for folder in (out / "shards").glob("[0-9]*"):
        stat = (folder / "COMMIT.json").stat()
        stamps[folder.name] = stat.st_ino, stat.st_mtime_ns
    return stamps


def temporary(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "shards").glob(".tmp-*"))


def names(out: Path) -> set[str]:
    return {path.name for folder in (out, out / "shards") if folder.is_dir() for path in folder.iterdir()}


def check_visible(out: Path) -> None:
    """Whatever shards can be seen are whole: their commits, and sizes and checksums of all their files."""
    shards = list((out / "shards").glob("[0-9]*"))
    if not (out / "zarr.json").exists():
        assert not shards, "shards without a header"
        return
    problems = [problem for problem in verify_store(out).problems for s in shards if problem.path.is_relative_to(s)]
    assert not problems, f"not whole, but visible: {problems[0].path.relative_to(out)} {problems[0].message}"


def check_finished(out: Path, content_hash: str | None) -> None:
    """A complete store of that content, and no other file."""
    report = verify_store(out, deep=True)
    assert report.problems == (), f"not whole: {report.problems[0].path.relative_to(out)} {report.problems[0].message}"
    assert report.content_hash == content_hash, "other content"
    extra = [path for path in out.iterdir() if path.name not in WHOLE]
    extra += [path for path in (out / "shards").iterdir() if not re.fullmatch(r"\d{5}", path.name)]
    assert not extra, f"left behind: {[path.relative_to(out).as_posix() for path in extra]}"


def check_same_bytes(out: Path, other: Path) -> None:
    """All files of all shards, except for COMMIT.json, which may name the build."""
    files = {path.relative_to(other) for path in (other / "shards").rglob("*") if path.is_file()}
    assert {path.relative_to(out) for path in (out / "shards").rglob("*") if path.is_file()} == files
    for file in files:
        assert file.name == "COMMIT.json" or (out / file).read_bytes() == (other / file).read_bytes(), file


# --- kills ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed build of many shards: the time to its first file, and from there to its end."""

    videos: Path
    out: Path
    content_hash: str | None
    start_seconds: float
    work_seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "videos").mkdir()
    for number in range(SHARDS):
        write_video(folder / "videos" / f"{number:02}.mp4", moving_square(number, 16, *SIZE)[0])
    begun = time.monotonic()
    build = Build(folder / "videos", folder / "store")
    until(lambda: names(folder / "store"))
    first = time.monotonic()
    build.end(0)
    report = verify_store(folder / "store", deep=True)
    assert report.problems == () and report.num_shards == SHARDS
    seconds = first - begun, time.monotonic() - first
    return Undisturbed(folder / "videos", folder / "store", report.content_hash, *seconds)


@dataclass
class Kills:
    """How builds went that were killed again and again."""

    kills: int = 0
    parents: int = 0
    left_behind: int = 0
    lost: int = 0
    completed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.parents} of only the parent), builds completed: {self.completed}; "
            f"{self.left_behind} kills left {self.lost} temporary folders"
        )


def build_and_kill(world: Undisturbed, out: Path, jobs: int, kills: int, rng: random.Random, tally: Kills) -> None:
    """One build, killed at random moments until it is through, or was killed often enough."""
    there: dict[str, tuple[int, int]] = {}
    while True:
        build = Build(world.videos, out, jobs)
        # Most kills come a moment after one of the next shards is there; the others while the processes start.
        before, enough = names(out), min(SHARDS, len(there) + rng.randint(0, 3))
        if tally.kills == kills:
            moment = math.inf
        elif rng.random() < 0.85:
            while (names(out) == before or len(visible(out)) < enough) and build.process.poll() is None:
                time.sleep(0.001)
            moment = time.monotonic() + rng.uniform(0, 2 * world.work_seconds / SHARDS)
        else:
            moment = time.monotonic() + rng.uniform(0, world.start_seconds)
        while time.monotonic() < moment and build.process.poll() is None:
            time.sleep(0.001)
        only_parent = rng.random() < 0.5
        if build.process.poll() is None:
            build.kill(all_of_them=not only_parent)
        else:
            build.end(0)
        now, left = visible(out), temporary(out)
        assert there.items() <= now.items(), "a shard that was there is gone or was built again"
        if build.process.returncode == 0:
            break
        assert len(left) <= jobs, f"more than a shard for each of {jobs} workers was begun: {left}"
        check_visible(out)
        there = now
        tally.kills += 1
        tally.parents += only_parent
        tally.left_behind += bool(left)
        tally.lost += len(left)
    check_finished(out, world.content_hash)
    check_same_bytes(out, world.out)
    tally.completed += 1


def kill_builds(world: Undisturbed, folder: Path, jobs: int, kills: int, report: list[str]) -> None:
    rng, tally = random.Random(jobs), Kills()
    while tally.kills < kills:
        out = folder / f"store{tally.completed}"
        build_and_kill(world, out, jobs, kills, rng, tally)
        shutil.rmtree(out)
    report.append(f"{jobs} worker{'s' if jobs > 1 else ''}: {tally}")


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.full), 2])
def test_a_killed_build_goes_on(undisturbed: Undisturbed, tmp_path: Path, jobs: int, report: list[str]) -> None:
    kill_builds(undisturbed, tmp_path, jobs, 2, report)


@pytest.mark.full
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_hundred_kills(undisturbed: Undisturbed, tmp_path: Path, jobs: int, report: list[str]) -> None:
    kill_builds(undisturbed, tmp_path, jobs, 100, report)


# --- every step at which a writer may end -----------------------------------------------------------------------------


class Fault:
    """Counts the changes that this process makes below a folder; before one of them, kills it or fails with ENOSPC.

    It sees the audit events of the interpreter (opening for writing, making, renaming, removing) and calls of `os`.
    It cannot be taken away again, so it belongs into a process of its own.
    """

    CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
    CALLS = ("fsync", "fdatasync", "write", "writev", "pwrite", "pwritev")
    TAKES_SPACE = ("open", "os.mkdir", *CALLS)

    def __init__(self, root: Path, kind: str, at: int | None) -> None:
        self.root, self.kind, self.at = str(root), kind, at
        self.seen: list[tuple[str, str]] = []
        self.over = False
        sys.addaudithook(self._on_event)
        for name in self.CALLS:
            setattr(os, name, partial(self._called, name, getattr(os, name)))

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            self._happens(event, arguments[0])

    def _called(self, name: str, function: Callable[..., Any], descriptor: int, *arguments: Any) -> Any:
        self._happens(name, descriptor)
        return function(descriptor, *arguments)

    def _happens(self, event: str, where: Any) -> None:
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.fsdecode(where)
        # Trees are removed by names that are relative to an open folder.
        if self.over or not (path.startswith(self.root) or (event in self.CHANGES and not os.path.isabs(path))):
            return
        self.seen.append((event, path))
        if self.at is None or len(self.seen) < self.at:
            return
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif event in self.TAKES_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def forked(work: Callable[[], Any], folder: Path) -> tuple[int, Any]:
    """How a copy of this process that does some work ended, and what it found: for a process without threads."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            result.write_text(json.dumps(work()))
        except BaseException as error:  # noqa: BLE001
            result.write_text(json.dumps(f"{type(error).__name__}: {error}"[:2000]))
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(result.read_text()) if result.exists() else None


@dataclass(frozen=True)
class Sweep:
    """A small build that is ended at one step after another.

    Attributes:
        folder: with the videos.
        kind: "killed" or "full".
        over: the store that lies there before: "nothing", or one that the build replaces ("overwrite"), or one whose
            failed video it tries again ("retry_failed").
    """

    folder: Path
    kind: str
    over: str

    def build(self, out: Path, over: str) -> None:
        options = {over: True} if over in ("overwrite", "retry_failed") else {}
        videos = [self.folder / "videos"]
        setup = ShardOptions(inputs=videos, out=out, in_process=True, **options)  # type: ignore[arg-type]
        build_shards(replace(setup, size=(16, 16) if over == "other" else (24, 32)), Silent())

    def steps(self) -> list[tuple[str, str]]:
        fault = Fault(self.prepared("all"), self.kind, None)
        self.build(self.folder / "all", self.over)
        return fault.seen

    def prepared(self, name: str) -> Path:
        out = self.folder / name
        if self.over != "nothing":
            shutil.copytree(self.folder / "before", out)
        return out

    def end_at(self, out: Path, step: int) -> list[str]:
        """Build up to that step."""
        fault = Fault(out, self.kind, step)
        try:
            self.build(out, self.over)
        except StoreError as error:
            if not (error.path.is_relative_to(out) and "No space left" in str(error)):
                return [f"it does not name the disk without space: {error}"]
        fault.over = True
        return self.go_on(out)

    def go_on(self, out: Path) -> list[str]:
        """Look at what is there and build the rest."""
        if self.over != "overwrite":
            check_visible(out)
        self.build(out, self.over)
        check_finished(out, verify_store(self.folder / "all").content_hash)
        return []

    def complaints(self, most: int) -> dict[str, Any]:
        """By step, what went wrong; and how many steps there are and were taken."""
        if self.over != "nothing":
            forked(lambda: self.build(self.folder / "before", "other" if self.over == "overwrite" else ""), self.folder)
        status, steps = forked(self.steps, self.folder)
        assert status == 0, steps
        wrong, chosen = {}, self._chosen(steps, most)
        for step in chosen:
            out = self.prepared("step")
            status, found = forked(partial(self.end_at, out, step), self.folder)
            if status == -signal.SIGKILL:
                status, found = forked(partial(self.go_on, out), self.folder)
            if status or found:
                event, path = steps[step - 1]
                wrong[f"{step} {event} {path.removeprefix(f'{self.folder}/all/')}"] = found or f"left with {status}"
            shutil.rmtree(out)
        return {"wrong": wrong, "steps": len(steps), "taken": len(chosen)}

    def _chosen(self, steps: list[tuple[str, str]], most: int) -> list[int]:
        """One of each sort of step first, half of them of the plainest, on which most depends; the rest by chance."""
        rng, sorts = random.Random(0), dict[str, list[int]]()
        for number, (event, path) in enumerate(steps, 1):
            parts = path.removeprefix(f"{self.folder}/all/").split("/")
            sorts.setdefault(re.sub(r"[0-9a-f]{32}|\d+", "#", f"{event} {parts[:3]} {len(parts)}"), []).append(number)
        firsts = [rng.choice(numbers) for numbers in sorts.values()]
        firsts.sort(key=lambda number: steps[number - 1][1].removeprefix(f"{self.folder}/all/").count("/"))
        plainest, others = firsts[: most // 2], firsts[most // 2 :]
        rest = sorted(set(range(1, len(steps) + 1)) - set(firsts))
        return sorted((plainest + rng.sample(others, len(others)) + rng.sample(rest, len(rest)))[:most])


def sweep(folder: Path, most: int) -> dict[str, dict[str, Any]]:
    """Every sort of end, for a process that has nothing but this file imported, so that it may fork."""
    found = {}
    for kind, over in (("killed", "nothing"), ("full", "nothing"), ("killed", "retry_failed"), ("killed", "overwrite")):
        mine = folder / f"{kind}-{over}"
        shutil.copytree(folder / "videos", mine / "videos")
        found[f"{kind} over {over}"] = Sweep(mine, kind, over).complaints(most)
    return found


def sweep_apart(folder: Path, most: int, report: list[str]) -> None:
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", moving_square(0, 8, 24, 32, side=6)[0])
    (folder / "videos" / "b.mp4").write_text("no video")
    script = (
        f"import sys, json, numpy.ma; sys.path[:0] = {[str(Path(__file__).parent)]}\n"
        "from pathlib import Path; from test_crashes import sweep\n"
        f"print(json.dumps(sweep(Path({str(folder)!r}), {most})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    report += [f"builds {name}: ended at {each['taken']} of {each['steps']} steps" for name, each in found.items()]
    wrong = {name: dict(list(each["wrong"].items())[:20]) for name, each in found.items() if each["wrong"]}
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are looked up in /proc")
def test_a_build_may_end_at_any_step(tmp_path: Path, report: list[str]) -> None:
    sweep_apart(tmp_path, 2, report)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="open files are looked up in /proc")
def test_a_build_may_end_at_every_step(tmp_path: Path, report: list[str]) -> None:
    sweep_apart(tmp_path, 100, report)


# --- disks that are full, folders that cannot be written --------------------------------------------------------------


class Disk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> None:
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        done = subprocess.run(call, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def change(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        yield Disk(folder)
    finally:
        if folder.is_mount():
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def content_hash(small_store: Path) -> str | None:
    return verify_store(small_store).content_hash


def at_each_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Run this whenever the command reports progress on videos. Meanwhile no other shard is begun."""
    advance = TerminalProgress.advance

    def acting(self: TerminalProgress, count: int = 1, note: str = "") -> None:
        advance(self, count, note)
        act()

    monkeypatch.setattr(TerminalProgress, "advance", acting)


def names_the_fix(output: str) -> bool:
    return (
        re.search(r"make room|make space|free some|more space|more room|another --out|name another", output) is not None
    )


def test_too_small_a_disk_is_reported_before_the_first_byte(video_folder: Path, disk: Disk) -> None:
    disk.mount("size=64k")
    out = disk.path / "store"
    output = run(video_folder, out, 1)
    assert str(out) in output and "needs" in output and "free" in output
    assert names_the_fix(output), output
    assert not [path for path in disk.path.rglob("*") if path.is_file()]
    disk.change("size=32m")
    run(video_folder, out, 0)


def test_a_disk_that_fills_up_costs_what_was_not_yet_written(
    video_folder: Path, disk: Disk, content_hash: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.mount("size=8m")
    out = disk.path / "store"

    def fill() -> None:
        if not visible(out) or (disk.path / "other").exists():
            return
        with open(disk.path / "other", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    at_each_step(monkeypatch, fill)
    output = run(video_folder, out, 1)
    assert str(out) in output and "No space left" in output
    assert names_the_fix(output), output
    there = visible(out)
    assert 0 < len(there) < 6 and not temporary(out)
    check_visible(out)
    disk.change("size=32m")
    run(video_folder, out, 0)
    assert there.items() <= visible(out).items()
    check_finished(out, content_hash)


def test_a_disk_that_is_read_only_is_reported(video_folder: Path, small_store: Path, disk: Disk) -> None:
    disk.mount("size=32m")
    finished, begun, new = (disk.path / name for name in ("finished", "begun", "new"))
    shutil.copytree(small_store, finished)
    shutil.copytree(small_store, begun)
    shutil.rmtree(begun / "shards" / "00002")
    disk.change("ro")
    for out in (new, begun):
        output = run(video_folder, out, 1, 2)
        assert str(out) in output and "Read-only" in output, output
    # Nothing is left to do there; the rerun may report that or be refused.
    output = run(video_folder, finished, 0, 1)
    assert not output or str(finished) in output
    assert verify_store(finished, deep=True).problems == ()
    assert len(open_store(finished)) == 6


def test_a_folder_without_permission_is_reported(video_folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user, root maybe, may write everywhere")
    output = run(video_folder, closed / "store", 1, 2)
    assert str(closed) in output and "Permission denied" in output


@pytest.mark.parametrize("place", ["file/store", "file/deep/store", "file"])
def test_a_file_in_the_way_is_reported(video_folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("precious")
    output = run(video_folder, tmp_path / place, 1, 2)
    assert str(tmp_path / place) in output
    assert (tmp_path / "file").read_text() == "precious"


# --- videos that go ---------------------------------------------------------------------------------------------------


def test_a_video_that_goes_after_the_planning_is_missing(
    video_folder: Path, tmp_path: Path, content_hash: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out, away = tmp_path / "videos", tmp_path / "store", tmp_path / "away.mp4"
    shutil.copytree(video_folder, videos)
    last = max(videos.rglob("*.mp4"))

    def take_away() -> None:
        if (out / "zarr.json").exists() and last.exists():
            last.rename(away)

    with monkeypatch.context() as patched:
        at_each_step(patched, take_away)
        output = run(videos, out, 1)
    assert last.name in output and "[missing]" in output
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lines] == [(last.relative_to(videos).as_posix(), "missing")]
    assert verify_store(out, deep=True).problems == () and len(open_store(out)) == 5
    away.rename(last)
    run(videos, out, 0, more=["--retry-failed"])
    check_finished(out, content_hash)


# --- several writers --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_second_writer_names_the_first(
    video_folder: Path, small_store: Path, tmp_path: Path, content_hash: str | None
) -> None:
    out = tmp_path / "store"
    shutil.copytree(small_store, out)
    for number in (3, 4, 5):
        shutil.rmtree(out / "shards" / f"{number:05}")
    first = stopped_build(video_folder, out, lambda: temporary(out))
    there, held = visible(out), temporary(out)
    try:
        output = run(video_folder, out, 1)
        named = re.search(r"is being written by process (\d+) on (\S+?);? ", output)
        assert named is not None, output
        assert int(named[1]) in first.processes() and named[2] == socket.gethostname()
        assert visible(out) == there and temporary(out) == held
        check_visible(out)
    finally:
        first.kill(all_of_them=True)
    run(video_folder, out, 0)
    assert there.items() <= visible(out).items()
    check_finished(out, content_hash)


@pytest.mark.full
def test_two_builds_of_one_store_at_a_time(video_folder: Path, tmp_path: Path, content_hash: str | None) -> None:
    out = tmp_path / "store"
    builds = [Build(video_folder, out) for _ in range(2)]
    for build in builds:
        output = build.end(0, 1)
        assert build.process.returncode == 0 or str(out) in output, output
    if all(build.process.returncode for build in builds):
        run(video_folder, out, 0)
    check_finished(out, content_hash)


def test_two_builds_finish_a_store_at_a_time(
    video_folder: Path, small_store: Path, tmp_path: Path, content_hash: str | None
) -> None:
    """All shards are there, so that both come to what follows them in the same moment."""
    out = tmp_path / "store"
    shutil.copytree(small_store, out)
    shutil.rmtree(out / "index")
    (out / "failures.jsonl").unlink()
    builds = [Build(video_folder, out) for _ in range(2)]
    for build in builds:
        build.end(0)
    check_finished(out, content_hash)


def test_what_another_build_finished_meanwhile_is_not_built_again(video_folder: Path, tmp_path: Path) -> None:
    setup = ShardOptions(inputs=[video_folder], out=tmp_path / "store", in_process=True)

    class Slow(Recorder):
        """Lets another build have the whole work, once, after it has looked at what there is to do."""

        there: dict[str, tuple[int, int]] | None = None

        def start(self, task: str, total: int | None) -> None:
            if self.there is None:
                self.there = {}
                build_shards(replace(setup, size=SIZE), Silent())
                self.there = visible(setup.out)

    slow = Slow()
    build_shards(replace(setup, size=SIZE), slow)
    assert slow.there and visible(setup.out) == slow.there
    assert verify_store(setup.out).problems == ()


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_build_goes_on(video_folder: Path, tmp_path: Path, content_hash: str | None) -> None:
    out = tmp_path / "store"
    build = stopped_build(video_folder, out, lambda: visible(out) and temporary(out), jobs=2)
    for number in (signal.SIGINT, signal.SIGCONT):  # its workers stand still, so no other shard is finished
        build.process.send_signal(number)
    assert "interrupted; the same command goes on from here" in build.end(130)
    there = visible(out)
    assert 0 < len(there) < 6 and len(temporary(out)) <= 2
    check_visible(out)
    run(video_folder, out, 0)
    assert there.items() <= visible(out).items()
    check_finished(out, content_hash)
