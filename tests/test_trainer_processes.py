"""Two processes train as one does on the same batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from worlds import moving_square

from bgaug.cli.main import app
from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
from bgaug.model.checkpoint import load_checkpoint
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.video import write_video

SMALL = [
    *("--backbone", "tiny", "--batch-size", "8", "--frames", "4", "--stride", "1", "--crop", "16", "--device", "cpu"),
    *("--threads", "0", "--steps", "3"),
]
SMALL += ["--optimiser", "sgd", "--lr", "0.0005"]  # AdamW divides by small gradients, and so turns rounding into steps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventeen short videos of two classes, so that a queue holds a batch."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(17):
        write_video(folder / f"{number}.mp4", moving_square(number, 20)[0])
    labels = folder / "labels.csv"
    labels.write_text("file,class\n" + "".join(f"{number}.mp4,{'ab'[number % 2]}\n" for number in range(17)))
    options = ShardOptions(inputs=[folder], out=folder / "shards", in_process=True, size=None, labels=labels)
    build_shards(options, Silent())
    return folder / "shards"


def by_two(store: Path, out: Path, *more: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "bgaug.cli.main", "train", str(store), "--out", str(out), *SMALL, *more]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            words,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    message = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], message
    assert b"run in" in message[0][0] and not message[1][0], "only the first process reports"


def by_one(store: Path, out: Path, *more: str) -> None:
    done = CliRunner().invoke(app, ["train", str(store), "--out", str(out), *SMALL, *more])
    assert done.exit_code == 0, done.output


def learned(out: Path) -> dict[str, Any]:
    return load_checkpoint(last_checkpoint(out))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "method",
    [
        ("dual", "--momentum", "--set", "symmetric=true"),
        pytest.param(("dual", "--no-momentum"), marks=pytest.mark.full),
        pytest.param(("byol", "--set", "bn_groups=2"), marks=pytest.mark.full),
        pytest.param(("dclr", "--lr", "1e-5"), marks=pytest.mark.full),  # divides by means near 0
        ("supervised-albar", "--set", "dropout=0", "--set", "bn_groups=2", "--lr", "1e-4"),
        pytest.param(("simclr", "--accumulate", "2", "--clip-norm", "1", "--ema", "0.9"), marks=pytest.mark.full),
    ],
    ids=lambda words: " ".join(words),
)
def test_two_processes_are_one_of_the_whole_batch(store: Path, tmp_path: Path, method: tuple[str, ...]) -> None:
    words = ["--method", *method]
    grouped = ["--set", "donor_groups=2"] + ([] if "bn_groups=2" in words else ["--set", "bn_groups=2"])
    by_two(store, tmp_path / "two", *words)
    by_one(store, tmp_path / "one", *words, *grouped)
    two, one = learned(tmp_path / "two"), learned(tmp_path / "one")
    # The first loss contains rounding errors of one step only; each later step amplifies them about tenfold.
    assert two["recent"][0] == pytest.approx(one["recent"][0], rel=1e-5)
    assert two["recent"] == pytest.approx(one["recent"], rel=1e-3)
    assert two["loader"] == one["loader"]
    # Running statistics are of two groups in turn there, and averaged here; no step depends on them.
    apart = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in one["learner"].items():
        if not name.endswith(apart):
            torch.testing.assert_close(two["learner"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.full
def test_two_processes_go_on_where_they_stopped(store: Path, tmp_path: Path) -> None:
    words = ["--method", "dual", "--momentum"]
    by_two(store, tmp_path / "parts", *words, "--stop-after", "2")
    by_two(store, tmp_path / "parts", *words, "--resume")
    by_two(store, tmp_path / "whole", *words)
    parts, whole = learned(tmp_path / "parts"), learned(tmp_path / "whole")
    assert parts["step"] == whole["step"] == 3
    assert parts["recent"] == pytest.approx(whole["recent"], rel=1e-5)
    for name, value in whole["learner"].items():
        torch.testing.assert_close(parts["learner"][name], value, rtol=1e-4, atol=1e-6)


def test_a_batch_that_cannot_be_shared_out(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("init_process_group", "destroy_process_group", "barrier"):
        monkeypatch.setattr(torch.distributed, name, lambda *_: None)
    words = ["train", str(store), "--out", str(tmp_path / "r"), *SMALL, "--batch-size", "9"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "--batch-size 9 must be a multiple of the number of processes, 2" in done.stderr
    assert not (tmp_path / "r" / "config.json").exists()
