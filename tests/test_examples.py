"""The examples are documentation that runs."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from test_pretrained import write_run

from bgaug.model import ContrastiveLearner

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(capsys: pytest.CaptureFixture[str], name: str, *arguments: object) -> str:
    """Standard output of an example; runs in this process, which saves an import of torch each time."""
    with patch.object(sys, "argv", [name, *map(str, arguments)]):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_one_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "foreground" in run(capsys, "one_video.py", "--out", tmp_path)
    assert {"background.png", "mask.png"} <= {path.name for path in tmp_path.iterdir()}


def test_one_video_of_ones_own(video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, "one_video.py", next(video_folder.rglob("clip 0*")), "--out", tmp_path)
    assert "24 frames at 25 fps" in output


def test_look_at_pairs(small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, "look_at_pairs.py", small_store, "--out", tmp_path / "pairs.png", "--clips", 4)
    assert output.count("over the background of") == 4 and (tmp_path / "pairs.png").is_file()


def test_train_tiny(video_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: it starts worker processes, which must not run the script again."""
    words = [EXAMPLES / "train_tiny.py", video_folder, "--out", tmp_path, "--epochs", 1, "--crop", 24]
    command = [sys.executable, "-W", "error", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 videos" in done.stdout and "124144 weights" in done.stdout


def test_own_training_loop(small_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "own_training_loop.py", small_store, "--steps", 3).count("loss") == 3


def test_use_encoder(video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    write_run(tmp_path, ContrastiveLearner("tiny", "dual"))
    output = run(capsys, "use_encoder.py", tmp_path, next(video_folder.rglob("clip 0*")))
    assert "tiny: 8 frames to features (1, 96)" in output and output.count("most active in row") == 4


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
