"""The program as a shell runs it: streams that are closed or full, Ctrl-C at any time, messages of other libraries."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BGAUG = (sys.executable, "-m", "bgaug.cli.start")
QUIET = ("Traceback", "Exception ignored", "BrokenPipeError", "lost sys.stderr")


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which $B is the program; its exit code, stdout and stderr."""
    env = os.environ | variables | {"B": " ".join(BGAUG)}
    done = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, text=True, errors="replace", env=env, timeout=600
    )
    assert not any(words in done.stderr for words in QUIET), done.stderr
    return done


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        pytest.param(
            "$B verify {store} --json > /dev/full",
            1,
            "error: the results cannot be written to stdout: No space left",
            marks=pytest.mark.full,
        ),
        ("$B verify {store} > /dev/full", 1, "error: the results cannot be written to stdout: No space left"),
        pytest.param(
            "$B --help > /dev/full",
            1,
            "error: the results cannot be written to stdout: No space left",
            marks=pytest.mark.full,
        ),
        ("$B verify {store} --json >&-", 0, ""),
        pytest.param("$B verify {store} --json 2>&-", 0, "", marks=pytest.mark.full),
        pytest.param("$B verify nowhere 2>&-", 1, "", marks=pytest.mark.full),
        pytest.param("$B verify nowhere 2>/dev/full", 1, "", marks=pytest.mark.full),
        ("$B verify nowhere >&- 2>&- <&-", 1, ""),
        ("set -o pipefail; $B verify {store} --json | true", 141, ""),
        pytest.param("set -o pipefail; $B --help | true", 141, "", marks=pytest.mark.full),
        ("$B inspect {videos} 2>&1 | head -n 1 > /dev/null", 0, ""),
    ],
)
def test_closed_and_full_streams(line: str, code: int, message: str, small_store: Path, video_folder: Path) -> None:
    done = shell(line.format(store=small_store, videos=video_folder))
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == bool(message)


def test_work_is_done_whatever_the_output(small_store: Path, tmp_path: Path) -> None:
    """The file is written although the output is closed; and no file takes the number of a closed stream."""
    for number, closed in enumerate((">&- 2>&- <&-", "> /dev/full")):
        sheet = tmp_path / f"{number}.png"
        done = shell(f"$B preview {small_store} --rows 1 --out {sheet} {closed}")
        assert done.returncode == (closed == "> /dev/full")
        assert sheet.read_bytes().startswith(b"\x89PNG") and sheet.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_a_terminal_without_unicode(tmp_path: Path) -> None:
    path = tmp_path / "é日\x1b[2J\u202e" / "v.mp4"
    path.parent.mkdir()
    path.write_text("no video")
    for encoding in ("ascii", "utf-8"):
        done = shell(f"$B inspect {tmp_path} --json", PYTHONIOENCODING=encoding, LC_ALL="C")
        assert [video["path"] for video in json.loads(done.stdout)["videos"]] == [str(path)]
        assert (
            "\x1b" not in done.stdout
            and "\u202e" not in done.stdout
            and ("é日" in done.stdout) == (encoding == "utf-8")
        )
    assert shell(f"$B inspect {tmp_path}", PYTHONIOENCODING="ascii", LC_ALL="C").returncode == 1


def test_what_other_libraries_print(tmp_path: Path) -> None:
    """Warnings, logs, threads and tracebacks carry names, too."""
    script = tmp_path / "script.py"
    script.write_text(
        "import logging, sys, threading, warnings\n"
        "from bgaug.cli import start\n"
        "def run():\n"
        "    warnings.warn('a\\nerror: forged \\x1b[2J \\udcff')\n"
        "    logging.getLogger('x').warning('b\\nerror: forged \\x9b2J')\n"
        "    thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "    raise RuntimeError('c\\nerror: forged \\u202e')\n"
        "import bgaug.cli.main as room\n"
        "room.app = run\n"
        "start.main()\n",
        "utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and not re.search(r"[\x1b\x9b\u202e]", done.stderr)
    assert "a\\nerror: forged \\x1b[2J \\udcff" in done.stderr and "b\\nerror: forged \\x9b2J" in done.stderr
    assert done.stderr.splitlines()[-1] == "RuntimeError: c\\nerror: forged \\u202e"
    assert not any(line.startswith("error: forged") for line in done.stderr.splitlines())


READY = "import sys; from bgaug.cli import start; print('ready', file=sys.stderr, flush=True); start.main()"


def check_interrupted(after: float, *arguments: object) -> None:
    """Ctrl-C so many seconds after Python itself has started: exit code 130 and no traceback, or it was done before."""
    words = [sys.executable, "-c", READY, *map(str, arguments)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "ready\n"
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)
        _, message = process.communicate(timeout=600)
    assert process.returncode in (0, 1, 130, -signal.SIGINT), (after, process.returncode, message)
    assert process.returncode in (130, -signal.SIGINT) or "interrupt" not in message.lower(), (after, message)
    assert not any(words in message for words in QUIET), (after, message)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("after", [pytest.param(0.1, marks=pytest.mark.full), 0.9])
def test_ctrl_c_while_it_starts_and_works(after: float, small_store: Path, tmp_path: Path) -> None:
    check_interrupted(after, "embed", "nowhere", small_store, "--out", tmp_path / "f.npz")


@pytest.mark.full
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("step", range(40))
def test_ctrl_c_at_any_time(step: int, video_folder: Path, tmp_path: Path) -> None:
    check_interrupted(0.1 * step, "build-shards", video_folder, "--out", tmp_path / "s", "--jobs", 2)
