from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from worlds import Recorder

from bgaug.cli.main import app
from bgaug.errors import StoreError, StoreLockedError, UsageError, VideoError
from bgaug.labels import Label
from bgaug.pipelines.build import workers as worker_room
from bgaug.pipelines.build.find_videos import Source, find_videos
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.run import Outcome, build_store
from bgaug.pipelines.build.shard import Put
from bgaug.pipelines.build.workers import Begins, Worker, WorkerLost, cloudpickle
from bgaug.progress import Progress, Silent
from bgaug.store import Header, Shot, VideoPayload, VideoRow, identify, open_store, verify_store
from bgaug.store.format.layout import COMMIT
from bgaug.store.lock import FileLock

LIMIT_SECONDS = 2.0
"""For one video. Other videos take milliseconds, so a busy machine may be a hundred times slower."""


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    # A worker process cannot import this file, as it could not a user's script.
    cloudpickle().register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle().unregister_pickle_by_value(sys.modules[__name__])
    assert not workers_of(os.getpid())


def workers_of(parent: int) -> list[int]:
    """Processes that run a worker of `parent`, or that such a one forked."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 4 and b"bgaug.pipelines.build.workers" in words[2] and words[4] == str(parent).encode():
            found.append(int(folder.name))
    return found


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.01)


# --- a world of videos that do what their names are -------------------------------------------------------------------


def hold_the_lock(library: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    library.sleep(600)


def spin() -> None:
    while True:
        pass


def leave_a_fork_behind() -> None:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(5)


def leave_a_program_behind() -> None:
    subprocess.Popen(["sleep", "601.5"])
    os.abort()


ACTS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "fork": leave_a_fork_behind,
    "forever": lambda: time.sleep(600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "lock": lambda: hold_the_lock(ctypes.PyDLL(None)),  # unlike CDLL it keeps the interpreter's lock
    "program": leave_a_program_behind,
    "slow": lambda: time.sleep(0.4 * LIMIT_SECONDS),
    "spin": spin,
}


ENDS = {
    "abort": ("crashed", "its process was ended by SIGABRT"),
    "exit": ("crashed", "its process left with exit code 3"),
    "forever": ("timeout", f"was not done within {LIMIT_SECONDS:g} seconds"),
    "fork": ("crashed", "its process left with exit code 5"),
    "kill": (
        "crashed",
        "its process was ended by SIGKILL, as the system does when memory runs out; use fewer jobs",
    ),
    "lock": ("timeout", f"was not done within {LIMIT_SECONDS:g} seconds"),
    "spin": ("timeout", f"was not done within {LIMIT_SECONDS:g} seconds"),
}


@dataclass(frozen=True)
class Act:
    """Notes that a video's turn has come, then does what its name is, or fails if `fails` is set."""

    log: Path
    fails: bool = False
    acts: dict[str, Callable[[], object]] = field(default_factory=lambda: ACTS)

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        with open(self.log, "a") as file:
            file.write(f"{source.id}\n")
        os.write(1, b"noise of a native decoder\n")
        act = source.path.stem.split("-")[1]
        if act in self.acts:
            if self.fails and act != "slow":
                raise VideoError(source.path, "corrupt", "told to")
            self.acts[act]()
        payload = VideoPayload(header)
        payload.add_frame(0.0, None)
        shots = [Shot(start=0, stop=1, background=-1)]
        row = VideoRow(
            id=source.id,
            label=None,
            group=None,
            split=None,
            fps=25.0,
            height=8,
            width=8,
            start=0,
            num_frames=1,
            status="ok",
            shots=shots,
            identity=identify(source.path),
            content="",
        )
        put(payload)
        return [row]


class Counts(Recorder):
    """Also keeps how far the bar went."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int | None = None
        self.count = 0

    def start(self, task: str, total: int | None) -> None:
        self.total = total

    def advance(self, count: int = 1, note: str = "") -> None:
        assert count >= 0
        self.count += count


def make_videos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / f"{number:02}-{name}.mp4").write_text(f"video {number}")
    return folder


def build(setup: ShardOptions, each_video: Act, progress: Progress | None = None) -> Outcome:
    header = Header((8, 8), "stretch", "none", (), {})
    return build_store(setup, find_videos(setup.inputs), each_video, header, progress or Silent())


# --- one bad video ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "names"),
    [
        (1, ("slow", "slow", "slow", "lock", "fork", "fine", "fine", "exit", "fine", "fine")),
        (2, ("fine", "forever", "abort", "kill", "fine")),
        pytest.param(2, ("fine", "spin", "fine"), marks=pytest.mark.full),
    ],
)
def test_what_hangs_or_crashes_affects_no_other_video(
    tmp_path: Path,
    jobs: int,
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bgaug.store.format.plan._SHARDS_FOR_FEW", 2)  # so that several bad ones share a shard
    videos = make_videos(tmp_path / "v", *names)
    seen, log = Counts(), tmp_path / "log"
    setup = ShardOptions(inputs=[videos], out=tmp_path / "s", jobs=jobs, timeout_seconds=LIMIT_SECONDS)
    outcome = build(setup, Act(log), seen)
    assert capfd.readouterr().out == ""
    expected = {name: ENDS[name] for name in names if name in ENDS}
    assert (outcome.built, outcome.statuses["ok"]) == (2, len(names) - len(expected))

    lines = [json.loads(line) for line in (tmp_path / "s" / "failures.jsonl").read_text().splitlines()]
    assert {line["id"][3:-4]: (line["reason"], line["message"]) for line in lines} == expected
    assert len(seen.warnings) == len(expected) and (seen.count, seen.total) == (len(names), len(names))
    touched = [line[3:-4] for line in log.read_text().split()]
    assert all(touched.count(name) == 1 for name in expected)

    plain = build(ShardOptions(inputs=[videos], out=tmp_path / "plain", in_process=True), Act(log, fails=True))
    assert [failure.reason for failure in plain.failures] == ["corrupt"] * len(expected)
    reports = [verify_store(tmp_path / name, deep=True) for name in ("s", "plain")]
    assert not reports[0].problems and reports[0].content_hash == reports[1].content_hash
    assert not list((tmp_path / "s" / "shards").glob(".*"))


def test_no_time_limit_where_it_is_0_and_programs_die_with_their_worker(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "v", "slow", "program")
    outcome = build(ShardOptions(inputs=[videos], out=tmp_path / "s", jobs=1, timeout_seconds=0), Act(tmp_path / "log"))
    assert [failure.message for failure in outcome.failures] == ["its process was ended by SIGABRT"]
    lines = (folder / "cmdline" for folder in Path("/proc").glob("[0-9]*"))
    assert not [line for line in lines if line.exists() and b"601.5" in line.read_bytes()]


def test_the_command_leaves_with_1_and_takes_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_videos(tmp_path / "v", "fine", "forever")
    monkeypatch.setattr("bgaug.pipelines.build.backgrounds.ExtractVideo", lambda options: Act(tmp_path / "log"))
    command = ["extract-backgrounds", str(videos), "--out", str(tmp_path / "s"), "--json", "--timeout"]
    result = CliRunner().invoke(app, [*command, f"{LIMIT_SECONDS:g}"])
    assert result.exit_code == 1, result.output
    assert "01-forever.mp4: was not done within 2 seconds [timeout]" in result.stderr
    counts = json.loads(result.stdout.splitlines()[-1])
    assert (counts["ok"], counts["failed"]) == (1, 1)
    assert CliRunner().invoke(app, [*command, "-1"]).exit_code == 2


def test_the_reasons_are_known() -> None:
    assert {reason for reason, _ in ENDS.values()} <= set(VideoError.REASONS)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_time_limit_is_a_time(seconds: float) -> None:
    with pytest.raises(UsageError, match="--timeout: "):
        ShardOptions(inputs=[], out=Path("s"), timeout_seconds=seconds)


# --- what ends a run --------------------------------------------------------------------------------------------------


def test_an_error_of_ours_comes_back_as_itself_and_ends_the_others(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "v", "fine", "forever", "fine")
    log = tmp_path / "log"
    build(ShardOptions(inputs=[make_videos(tmp_path / "other", "fine")], out=tmp_path / "s", in_process=True), Act(log))
    with pytest.raises(StoreError, match="was built with other options"):
        build(ShardOptions(inputs=[videos], out=tmp_path / "s", in_process=True), Act(log))
    (tmp_path / "t" / "shards").mkdir(parents=True)
    with (
        FileLock(tmp_path / "t" / "shards" / ".lock-00002"),
        pytest.raises(StoreLockedError, match="is being written by process") as caught,
    ):
        build(ShardOptions(inputs=[videos], out=tmp_path / "t", jobs=2, timeout_seconds=0), Act(log))
    assert caught.value.path.name == ".lock-00002"
    assert "raised in a worker process" in caught.value.__notes__[0]


def test_a_worker_lost_to_no_video_ends_the_run_and_its_shard_is_built_again(tmp_path: Path) -> None:
    def die_in_commit() -> None:
        import bgaug.store.commit

        def die(record: dict[str, object]) -> bytes:
            os.kill(os.getpid(), signal.SIGKILL)
            return b""

        vars(bgaug.store.commit)["seal"] = die

    setup = ShardOptions(inputs=[make_videos(tmp_path / "v", "odd")], out=tmp_path / "s", jobs=1)
    with pytest.raises(StoreError, match="00000: cannot be built: its process was ended by SIGKILL"):
        build(setup, Act(tmp_path / "log", acts={"odd": die_in_commit}))
    left = {path.name for path in (tmp_path / "s" / "shards").iterdir()}
    assert left == {".tmp-00000", ".lock-00000"}
    assert build(setup, Act(tmp_path / "log")).statuses == {"ok": 1}
    assert [path.name for path in (tmp_path / "s" / "shards").iterdir()] == ["00000"]


def test_a_worker_that_cannot_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(StoreError, match="cannot be built: its process left with exit code 1"):
        build(
            ShardOptions(inputs=[make_videos(tmp_path / "v", "fine")], out=tmp_path / "s", jobs=1),
            Act(tmp_path / "log"),
        )


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.full), 2])
def test_an_interruption_leaves_whole_files_and_no_process(tmp_path: Path, jobs: int) -> None:
    videos, log = make_videos(tmp_path / "v", "fine", "forever", "fine"), tmp_path / "log"
    setup = ShardOptions(inputs=[videos], out=tmp_path / "s", jobs=jobs)

    def interrupt() -> None:
        until((tmp_path / "s" / "shards" / "00000" / COMMIT).exists)
        until(lambda: "forever" in log.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        build(setup, Act(log))
    assert not workers_of(os.getpid())
    assert not (tmp_path / "s" / "shards" / "00001").exists()
    assert build(setup, Act(log, fails=True)).to_json()["videos"] == 3
    assert not verify_store(tmp_path / "s").problems


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """Though native code holds the interpreter's lock; and a script's own class travels."""
    videos, script = make_videos(tmp_path / "v", "lock"), tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}\n"
        "import test_workers as world\nfrom pathlib import Path\n"
        "class Mine(world.Act): pass\n"
        "world.cloudpickle().register_pickle_by_value(world)\n"
        f"world.build(world.ShardOptions(inputs=[{str(videos)!r}], out={str(tmp_path / 's')!r}, jobs=1),"
        f" Mine(Path({str(tmp_path / 'log')!r})))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    until((tmp_path / "log").exists)
    assert workers_of(parent.pid)
    parent.kill()
    parent.wait()
    until(lambda: not workers_of(parent.pid))


# --- one worker -------------------------------------------------------------------------------------------------------


def test_a_finished_store_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = ShardOptions(inputs=[make_videos(tmp_path / "v", "fine")], out=tmp_path / "s")
    assert build(setup, Act(tmp_path / "log")).built == 1
    monkeypatch.setattr(worker_room, "_start_process", lambda: pytest.fail("a process was started"))
    assert build(setup, Act(tmp_path / "log")).built == 0
    assert list(open_store(tmp_path / "s").videos) == ["00-fine.mp4"]


@dataclass(frozen=True)
class Do:
    """A task of one function."""

    work: Callable[[Begins], Any]

    def __call__(self, begins: Begins, /) -> Any:
        return self.work(begins)

    def without(self, lost: WorkerLost, /) -> Do:
        return self


def test_a_worker_lives_on_from_task_to_task_with_one_thread_and_no_torch() -> None:
    def look(begins: Begins) -> tuple[int, bool, int, str]:
        import cv2

        return os.getpid(), "torch" in sys.modules, cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]

    def die_at_the_second(begins: Begins) -> None:
        begins(0)
        begins(7)
        os._exit(0)

    def fail_with_what_cannot_travel(begins: Begins) -> None:
        raise type("Odd", (ArithmeticError,), {})("too odd")

    worker = Worker()
    try:
        first = worker.run(Do(look), print)
        assert first == (first[0], False, 1, "1") and first[0] != os.getpid()
        with pytest.raises(RuntimeError, match="Odd: too odd"):
            worker.run(Do(fail_with_what_cannot_travel), print)
        with pytest.raises(Exception, match="pickle local object"):
            worker.run(Do(lambda begins: lambda: 0), print)
        assert worker.run(Do(look), print)[0] == first[0]
        places: list[int | None] = []
        with pytest.raises(WorkerLost) as caught:
            worker.run(Do(die_at_the_second), places.append)
        assert (caught.value.place, caught.value.reason, places) == (7, "crashed", [0, 7])
        again = worker.run(Do(look), print)[0]
        os.kill(again, signal.SIGKILL)  # while it waits for work
        os.waitid(os.P_PID, again, os.WEXITED | os.WNOWAIT)
        assert worker.run(Do(look), print)[0] not in (first[0], again)
    finally:
        worker.stop()
    with pytest.raises(worker_room.WorkerStopped):
        worker.run(Do(look), print)


def test_an_error_of_the_listener_is_no_crash() -> None:
    def complain(place: int | None) -> None:
        raise BrokenPipeError(f"nobody listens to {place}")

    worker = Worker()
    try:
        with pytest.raises(BrokenPipeError, match="nobody listens to 3"):
            worker.run(Do(lambda begins: begins(3)), complain)
    finally:
        worker.stop()


# --- time while processes are stopped ---------------------------------------------------------------------------------

STOPPED = """
import sys; sys.path[:0] = {paths!r}
import time, test_workers as world
world.cloudpickle().register_pickle_by_value(world)
def work(begins):
    begins(0)
    open({begun!r}, "w").close()
    end = time.monotonic() + 0.5
    while time.monotonic() < end: pass
    time.sleep({sleep})
    return "done"
worker = world.Worker()
try:
    print(worker.run(world.Do(work), lambda place: None, 2.0))
except world.WorkerLost as lost:
    print(lost.reason)
finally:
    worker.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("sleep", "who", "ends"),
    [(0, "all", "done"), (0, "worker", "timeout"), pytest.param(600, "all", "timeout", marks=pytest.mark.full)],
)
def test_only_time_that_the_run_was_not_stopped_counts(tmp_path: Path, sleep: int, who: str, ends: str) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = STOPPED.format(paths=paths, begun=str(tmp_path / "begun"), sleep=sleep)
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    until((tmp_path / "begun").exists)
    stopped = workers_of(run.pid) + ([run.pid] if who == "all" else [])
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in stopped:
            if who == "all" or number == signal.SIGSTOP:
                os.kill(pid, number)
        time.sleep(2.5 if number == signal.SIGSTOP else 0)
    said, _ = run.communicate(timeout=60)
    assert said.strip() == ends
