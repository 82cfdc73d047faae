"""The examples are documentation that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from test_pretrained import write_run

from bgaug.model import ContrastiveLearner

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_video(tmp_path: Path) -> None:
    assert "foreground" in run("one_video.py", "--out", tmp_path)
    assert {"background.png", "mask.png"} <= {path.name for path in tmp_path.iterdir()}


def test_one_video_of_ones_own(video_folder: Path, tmp_path: Path) -> None:
    assert "24 frames at 25 fps" in run("one_video.py", next(video_folder.rglob("clip 0*")), "--out", tmp_path)


def test_look_at_pairs(small_store: Path, tmp_path: Path) -> None:
    said = run("look_at_pairs.py", small_store, "--out", tmp_path / "pairs.png", "--clips", 4)
    assert said.count("over the background of") == 4 and (tmp_path / "pairs.png").is_file()


def test_train_tiny(video_folder: Path, tmp_path: Path) -> None:
    said = run("train_tiny.py", video_folder, "--out", tmp_path, "--epochs", 1, "--crop", 24)
    assert "6 videos" in said and "124144 weights" in said


def test_own_training_loop(small_store: Path) -> None:
    assert run("own_training_loop.py", small_store, "--steps", 3).count("loss") == 3


def test_use_encoder(video_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_run(tmp_path, ContrastiveLearner("tiny", "dual"))
    said = run("use_encoder.py", tmp_path, next(video_folder.rglob("clip 0*")))
    assert "tiny: 8 frames to features (1, 96)" in said and said.count("most active in row") == 4


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
