"""Worker processes that can be killed and replaced, so that an item that hangs or crashes costs itself alone.

A native decoder can spin while it holds the interpreter's lock, abort, or run out of memory; only a process can be
stopped then. Each is a fresh interpreter that imports what its tasks name, and nothing of the script that began the
run. Tasks, events and results cross a socket of their own, so what decoders print disturbs nothing.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from typing import Any, Literal, Protocol, Self

Begins = Callable[[int | None], None]
"""Told the place of an item when work on it begins, and None when what follows is about no item."""

_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from bgaug.pipelines.build.workers import serve; serve(*sys.argv[1:3])"
# The processes are the parallelism.
_ONE_THREAD = {
    f"{name}_THREADS": "1"
    for name in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "NUMBA_NUM", "NUMEXPR_NUM")
}
_LOOK_SECONDS = 1.0
_LOOKS = 20  # at least so many before the time is up
_PR_SET_PDEATHSIG = 1


@dataclass(eq=False)
class WorkerLost(Exception):
    """A worker that was killed because an item took too long, or that died.

    Attributes:
        place: the item that it was at, None if it was at none.
        reason: "timeout" or "crashed".
        message: how it ended.
    """

    place: int | None
    reason: Literal["timeout", "crashed"]
    message: str


class WorkerStopped(Exception):
    """The run is over, and this worker's process was killed with it."""


class Task(Protocol):
    """Work on several items in turn. It travels to a worker process, so it holds values alone."""

    def __call__(self, begins: Begins, /) -> Any:
        """Do it all, telling `begins` the place of each item in turn. The result must be picklable."""
        ...

    def without(self, lost: WorkerLost, /) -> Self:
        """The same task, with the item set aside that a worker was lost to; or raises what ends the run."""
        ...


class Worker:
    """A process that runs tasks one after another. It starts with the first; where it is lost, with the next.

    For one thread at a time; `stop` alone may come from any.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._stopped = False
        self._changing = threading.Lock()

    def run(self, task: Task, begins: Begins, timeout_seconds: float = 0) -> Any:
        """The result of a task.

        Args:
            task: the work, sent by value where it is not importable.
            begins: told in this process what the task tells in the other.
            timeout_seconds: that one item may take; 0 for no limit. What is about no item has none.

        Raises:
            WorkerLost: the process died, or was killed after that time.
            WorkerStopped: `stop` was called.
            Exception: what the task raised.
        """
        payload = cloudpickle().dumps(task)
        process, pipe = self._start()
        place: int | None = None
        with self._losing(place):
            pipe.send_bytes(payload)
        while True:
            with self._losing(place, timeout_seconds):
                _wait(process, pipe, timeout_seconds if place is not None else 0)
                kind, value = pipe.recv()
            if kind == "result":
                return value
            if kind == "raised":
                raise value
            place = value
            begins(place)

    def stop(self) -> None:
        """Kill the process, whatever it is at, and never start another."""
        with self._changing:
            self._stopped = True
            if self._process is not None:
                _kill_group(self._process)

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
        with self._changing:
            if self._stopped:
                raise WorkerStopped
            if self._process is None or self._pipe is None or self._process.poll() is not None:
                self._process, self._pipe = _start_process()
            return self._process, self._pipe

    @contextmanager
    def _losing(self, place: int | None, timeout_seconds: float = 0) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._kill()
            raise WorkerLost(place, "timeout", f"was not done within {timeout_seconds:g} seconds") from None
        except (EOFError, OSError):  # of the socket: nobody is there any more
            raise WorkerLost(place, "crashed", _how_it_ended(self._kill())) from None

    def _kill(self) -> int:
        """Kill the process; returns how it ended, as `subprocess` counts."""
        with self._changing:
            process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
            if self._stopped or process is None or pipe is None:
                raise WorkerStopped
            pipe.close()
            return _kill_group(process)


def cloudpickle() -> Any:
    """The pickler that puts inside what a fresh interpreter cannot import: a script's own classes."""
    # joblib brought its own before 1.6, and requires it since.
    return import_module("cloudpickle" if find_spec("cloudpickle") else "joblib.externals.cloudpickle")


def _start_process() -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(theirs.fileno()), str(os.getpid()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=2,  # stdout is for results
            pass_fds=[theirs.fileno()],
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C is for the caller alone; and the process dies with all that it started
        )
    return process, ours


def _wait(process: subprocess.Popen[bytes], pipe: Connection[Any, Any], timeout_seconds: float) -> None:
    """Until there is a message; EOFError where there will be none, TimeoutError where it takes longer than that.

    Time counts only while this process runs, too. When both are stopped, by a batch system or with the machine, a look
    takes longer than it should, and what is over it does not count. A worker that stands still alone is timed out.
    """
    look = min(_LOOK_SECONDS, timeout_seconds / _LOOKS) if timeout_seconds else _LOOK_SECONDS
    waited, last = 0.0, time.monotonic()
    while not pipe.poll(look):
        # Processes that the worker started may hold its end of the socket open longer than it lives.
        if process.poll() is not None and not pipe.poll():
            raise EOFError
        now = time.monotonic()
        waited, last = waited + min(look, now - last), now
        if timeout_seconds and waited >= timeout_seconds and not pipe.poll():
            raise TimeoutError


def _kill_group(process: subprocess.Popen[bytes]) -> int:
    """Kill a process with all that it started. One that ended by itself keeps its exit code."""
    with suppress(ProcessLookupError, PermissionError):  # gone already; macOS refuses where it is a zombie
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process left with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    hint = ", as the system does when memory runs out: fewer jobs need less" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int,
    timeout_seconds: float,
    begins: Callable[[int, int | None], None],
    done: Callable[[int, Any], None],
) -> None:
    """Run tasks in worker processes; one that a worker is lost to is begun again without the item that did it.

    When this returns, however it does, no process is left.

    Args:
        tasks: the work; without any, no process starts.
        jobs: processes at most.
        timeout_seconds: that one item may take; 0 for no limit.
        begins: told the number of a task and the place of the item that it begins; again where it is begun again.
        done: told the number of a task and its result. Both are called from several threads, one at a time.

    Raises:
        Exception: what a task raised; the others are given up.
    """
    import joblib

    jobs = max(1, min(jobs, len(tasks)))
    workers = [Worker() for _ in range(jobs)]
    idle = list(workers)
    telling = threading.Lock()

    def tell(what: Callable[[int, Any], None], number: int, value: Any) -> None:
        with telling:
            what(number, value)

    def run(number: int) -> None:
        worker, task = idle.pop(), tasks[number]
        while True:
            try:
                result = worker.run(task, partial(tell, begins, number), timeout_seconds)
            except WorkerLost as lost:
                task = task.without(lost)
            else:
                break
        idle.append(worker)
        tell(done, number, result)

    try:
        # These threads only wait for their processes, and outlive them: a process is killed with the thread it came of.
        with joblib.parallel_config(backend="threading"):
            joblib.Parallel(n_jobs=jobs, batch_size=1)(joblib.delayed(run)(n) for n in range(len(tasks)))
    finally:
        for worker in workers:
            worker.stop()


def serve(descriptor: str, parent: str) -> None:
    """The whole life of a worker process: run the tasks that come over a socket, until the `parent` process is gone."""
    _die_with(int(parent))
    pipe: Connection[Any, Any] = Connection(int(descriptor))
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, tasks), daemon=True).start()

    import cv2

    cv2.setNumThreads(1)

    while True:
        pipe.send_bytes(_answer(tasks.get(), pipe))


def _die_with(parent: int) -> None:
    """Linux kills this process with its parent, even while native code holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _listen(pipe: Connection[Any, Any], tasks: queue.SimpleQueue[bytes]) -> None:
    """Take tasks in; leave at once when the caller is gone, in the middle of one too."""
    try:
        while True:
            tasks.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _answer(task: bytes, pipe: Connection[Any, Any]) -> bytes:
    try:
        return pickle.dumps(("result", pickle.loads(task)(lambda place: pipe.send(("begins", place)))))
    except Exception as error:  # noqa: BLE001
        return _raised(error)  # for the caller to raise


def _raised(error: Exception) -> bytes:
    trace = "".join(traceback.format_exception(error))
    error.add_note(f"raised in a worker process:\n{trace}")
    try:
        answer = pickle.dumps(("raised", error))
        pickle.loads(answer)
    except Exception:  # noqa: BLE001
        return pickle.dumps(("raised", RuntimeError(f"in a worker process: {trace}")))  # it cannot travel
    return answer
