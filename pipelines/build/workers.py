"""Worker processes that can be killed and replaced, so that an item that hangs or crashes does not stop the others.

A native decoder can spin while it holds the interpreter's lock, abort, or run out of memory; only a process can be
stopped then. Each is a fresh interpreter that imports only the modules of its tasks, not the script that started the
run. Tasks, events and results use a socket of their own, so the output of decoders does not interfere.
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
"""Called with the position of an item when work on it begins, and with None when the following work is on no item."""

_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from bgaug.pipelines.build.workers import serve; serve(*sys.argv[1:3])"
# The processes are the parallelism.
_ONE_THREAD = {
    f"{name}_THREADS": "1"
    for name in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "NUMBA_NUM", "NUMEXPR_NUM")
}
_POLL_SECONDS = 1.0
_POLLS = 20  # at least so many within the time limit
_PR_SET_PDEATHSIG = 1


@dataclass(eq=False)
class WorkerLost(Exception):
    """A worker died, or was killed because an item took too long.

    Attributes:
        place: position of the current item, None if there was none.
        reason: "timeout" or "crashed".
        message: how the process ended.
    """

    place: int | None
    reason: Literal["timeout", "crashed"]
    message: str


class WorkerStopped(Exception):
    """The run has ended, and the process of this worker was killed."""


class Task(Protocol):
    """Work on several items in turn. It is sent to a worker process, so it must be picklable."""

    def __call__(self, begins: Begins, /) -> Any:
        """Do the work, and call `begins` with the position of each item. The result must be picklable."""
        ...

    def without(self, lost: WorkerLost, /) -> Self:
        """The same task without the item that a worker was lost to; raises an error to end the run."""
        ...


class Worker:
    """A process that runs tasks one after another. It starts with the first task, and again after a loss.

    For one thread at a time, except for `stop`.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._stopped = False
        self._changing = threading.Lock()

    def run(self, task: Task, begins: Begins, timeout_seconds: float = 0) -> Any:
        """The result of a task.

        Args:
            task: the work; classes that cannot be imported are sent by value.
            begins: called in this process for each call of the task in the other.
            timeout_seconds: time limit per item; 0 for none. Work on no item has no limit.

        Raises:
            WorkerLost: the process died, or was killed after that time.
            WorkerStopped: `stop` was called.
            Exception: raised by the task.
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
        """Kill the process at once, and never start another."""
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
        except (EOFError, OSError):  # the other end of the socket is closed
            raise WorkerLost(place, "crashed", _how_it_ended(self._kill())) from None

    def _kill(self) -> int:
        """Kill the process; returns its exit code as in `subprocess`."""
        with self._changing:
            process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
            if self._stopped or process is None or pipe is None:
                raise WorkerStopped
            pipe.close()
            return _kill_group(process)


def cloudpickle() -> Any:
    """The pickler that includes classes that a fresh interpreter cannot import, such as those of a script."""
    # joblib contained a copy before 1.6, and requires it since.
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
            start_new_session=True,  # Ctrl-C reaches only the caller; the process is killed with its children
        )
    return process, ours


def _wait(process: subprocess.Popen[bytes], pipe: Connection[Any, Any], timeout_seconds: float) -> None:
    """Wait for a message; EOFError if the process ended, TimeoutError after the time limit.

    Time counts only while this process runs as well. If both are paused, by a batch system or with the machine, a poll
    takes too long, and the excess does not count. A worker that is paused by itself is timed out.
    """
    look = min(_POLL_SECONDS, timeout_seconds / _POLLS) if timeout_seconds else _POLL_SECONDS
    waited, last = 0.0, time.monotonic()
    while not pipe.poll(look):
        # Children of the worker may keep its end of the socket open after its end.
        if process.poll() is not None and not pipe.poll():
            raise EOFError
        now = time.monotonic()
        waited, last = waited + min(look, now - last), now
        if timeout_seconds and waited >= timeout_seconds and not pipe.poll():
            raise TimeoutError


def _kill_group(process: subprocess.Popen[bytes]) -> int:
    """Kill a process with all its children; a process that ended by itself keeps its exit code."""
    with suppress(ProcessLookupError, PermissionError):  # already ended; macOS refuses for a zombie
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process left with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    hint = ", as the system does when memory runs out; use fewer jobs" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int,
    timeout_seconds: float,
    begins: Callable[[int, int | None], None],
    done: Callable[[int, Any], None],
) -> None:
    """Run tasks in worker processes; after the loss of a worker, its task restarts without the item that caused it.

    No process remains when this returns or raises.

    Args:
        tasks: the work; without tasks, no process starts.
        jobs: largest number of processes.
        timeout_seconds: time limit per item; 0 for none.
        begins: called with the number of a task and the position of the item that begins; again after a restart.
        done: called with the number of a task and its result. Both are called from several threads, one at a time.

    Raises:
        Exception: raised by a task; the others are stopped.
    """
    import joblib

    jobs = max(1, min(jobs, len(tasks)))
    workers = [Worker() for _ in range(jobs)]
    idle = list(workers)
    reporting = threading.Lock()

    def report(what: Callable[[int, Any], None], number: int, value: Any) -> None:
        with reporting:
            what(number, value)

    def run(number: int) -> None:
        worker, task = idle.pop(), tasks[number]
        while True:
            try:
                result = worker.run(task, partial(report, begins, number), timeout_seconds)
            except WorkerLost as lost:
                task = task.without(lost)
            else:
                break
        idle.append(worker)
        report(done, number, result)

    try:
        # These threads only wait, and must outlive their processes: a process dies with the thread that started it.
        with joblib.parallel_config(backend="threading"):
            joblib.Parallel(n_jobs=jobs, batch_size=1)(joblib.delayed(run)(n) for n in range(len(tasks)))
    finally:
        for worker in workers:
            worker.stop()


def serve(descriptor: str, parent: str) -> None:
    """Main function of a worker process: run the tasks that come over a socket, until the `parent` process ends."""
    _die_with(int(parent))
    pipe: Connection[Any, Any] = Connection(int(descriptor))
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, tasks), daemon=True).start()

    import cv2

    cv2.setNumThreads(1)

    while True:
        pipe.send_bytes(_answer(tasks.get(), pipe))


def _die_with(parent: int) -> None:
    """Make Linux kill this process with its parent, even while native code holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _listen(pipe: Connection[Any, Any], tasks: queue.SimpleQueue[bytes]) -> None:
    """Receive tasks; exit at once when the caller ends, even during a task."""
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
