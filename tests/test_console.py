"""Progress where no terminal is: plain lines."""

from __future__ import annotations

import re
import time

import pytest

from bgaug.cli.console import TerminalProgress


def test_long_work_reports_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(every=0.05) as progress:
        progress.start("videos", 10)
        progress.advance(4)
        for count in range(3):
            time.sleep(0.1)
            progress.advance(1, f"a\x1b[31m/{count}.mp4")
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"videos: [4-7] of 10 \(\d+ %\), \d s.*", lines[0])
    assert re.fullmatch(r"videos: 7 of 10 \(70 %\), \d s, about \d s left, a\\x1b\[31m/2.mp4", lines[-1])


def test_a_stage_without_a_total_reports_its_state(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(every=0.05) as progress:
        time.sleep(0.1)  # nothing has begun: there is nothing to say
        progress.start("steps", None)
        progress.state({"loss": "2.31"})
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines and set(lines) == {"steps: working, 0 s, loss 2.31"}


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress.start("videos", 2)
        progress.advance(2)
    assert capsys.readouterr().err == ""
