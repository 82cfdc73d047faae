"""Runs that are killed, stopped, diverge or do not fit: nothing is lost, and the message names the fix."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bgaug.cli.console import TerminalProgress
from bgaug.cli.main import app
from bgaug.errors import BgaugError, CheckpointError, UsageError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import _BEST, CHECKPOINTS, load_checkpoint, load_run
from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.train.loop import _enough_memory
from bgaug.pipelines.train.run import RunResult, TrainOptions, train
from bgaug.pipelines.train.run_folder import LOG
from bgaug.progress import Silent

SMALL = ["--backbone", "tiny", "--batch-size", "3", "--frames", "4", "--stride", "1", "--crop", "16", "--device", "cpu"]


def run(store: Path, out: Path, *, resume: bool = False, stop_after: int | None = None, **options: Any) -> RunResult:
    small: dict[str, Any] = {"backbone": "tiny", "batch_size": 3, "num_frames": 4, "stride": 1, "crop": 16, "steps": 6}
    chosen = TrainOptions(**{**small, **options})
    return train(
        store, out, Silent(), options=replace(chosen, resume=resume, stop_after=stop_after, device="cpu", threads=0)
    )


def state(out: Path) -> dict[str, Any]:
    return load_checkpoint(last_checkpoint(out))


def steps(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def command(store: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "bgaug.cli.main", "train", str(store), "--out", str(out), *SMALL, *more]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=os.environ | threads, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_step(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        if (out / LOG).exists() and len((out / LOG).read_text().splitlines()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step}: {process.communicate()}")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("momentum", [pytest.param("--no-momentum", marks=pytest.mark.full), "--momentum"])
def test_a_killed_run_goes_on_to_the_same_bits(small_store: Path, tmp_path: Path, momentum: str) -> None:
    # Killed in the middle of an epoch, some steps after the last checkpoint; resumed in another process, this one.
    plan = ["--steps", "24", "--checkpoint-every", "5", momentum]
    killed = command(small_store, tmp_path / "killed", *plan)
    wait_for_step(tmp_path / "killed", 9, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert state(tmp_path / "killed")["step"] < 24
    for name, more in (("killed", ["--resume"]), ("whole", [])):
        done = invoke(str(small_store), "--out", str(tmp_path / name), *SMALL, *plan, *more)
        assert done.exit_code == 0, done.output
    one, other = state(tmp_path / "killed"), state(tmp_path / "whole")
    assert one["step"] == other["step"] == 24
    for part in ("learner", "loader", "recent"):
        assert same(one[part], other[part]), part
    assert same(one["optimiser"]["state"], other["optimiser"]["state"])
    assert [line["loss"] for line in steps(tmp_path / "killed")] == [line["loss"] for line in steps(tmp_path / "whole")]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)]
)
def test_a_stop_signal_leaves_a_checkpoint(
    small_store: Path, tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TerminalProgress, "state", lambda self, values: os.kill(os.getpid(), number))
    out = tmp_path / "r"
    done = invoke(str(small_store), "--out", str(out), *SMALL, "--steps", "100", "--json")
    assert done.exit_code == code, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["stopped"] == signal.Signals(number).name and not result["finished"]
    assert state(out)["step"] == result["steps"] == steps(out)[-1]["step"]
    assert "continue with --resume" in done.stderr


def test_signals_are_ordinary_again_after_a_run(small_store: Path, tmp_path: Path) -> None:
    class Impatient(Silent):
        def state(self, values: Mapping[str, str]) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    options = TrainOptions(backbone="tiny", batch_size=3, num_frames=4, stride=1, crop=16, steps=100)
    result = train(small_store, tmp_path / "r", Impatient(), options=replace(options, device="cpu", threads=0))
    assert result.trained.stopped == "SIGTERM" and result.trained.steps == 1 and not result.trained.finished
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_not_finite_is_kept_with_its_clips(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ContrastiveLearner.forward
    calls = iter(range(100))

    def diverges_later(self: ContrastiveLearner, pairs: Any) -> dict[str, torch.Tensor]:
        terms = forward(self, pairs)
        return {name: term * float("inf") for name, term in terms.items()} if next(calls) == 4 else terms

    monkeypatch.setattr(ContrastiveLearner, "forward", diverges_later)
    with pytest.raises(BgaugError, match="loss of step 5 is inf.*not-finite-step-00000005.json.*--clip-norm"):
        run(small_store, tmp_path / "r", checkpoint_every=1)
    record = json.loads((tmp_path / "r" / "not-finite-step-00000005.json").read_text())
    assert len(record["videos"]) == 3 and record["loss"] == "inf"
    assert len(record["provenance"][0]["anchor_crop"]) == 3
    assert state(tmp_path / "r")["step"] == 4, "no checkpoint may hold what came of it"


def test_the_clips_of_every_batch_of_a_step_are_kept(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Buffers are reused while gradients accumulate: the record must describe the batches as they were.
    forward, seen = ContrastiveLearner.forward, []

    def diverges_last(self: ContrastiveLearner, pairs: Any) -> dict[str, torch.Tensor]:
        seen.append(pairs.provenance["key"].tolist())
        terms = forward(self, pairs)
        return {name: term * float("nan") for name, term in terms.items()} if len(seen) == 6 else terms

    monkeypatch.setattr(ContrastiveLearner, "forward", diverges_last)
    with pytest.raises(BgaugError, match="loss of step 1 is nan"):
        run(small_store, tmp_path / "r", accumulate=6, steps=2)
    record = json.loads((tmp_path / "r" / "not-finite-step-00000001.json").read_text())
    assert [part["key"] for part in record["provenance"]] == seen
    assert len(record["videos"]) == 18


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_names_the_fix(error: Exception) -> None:
    with pytest.raises(BgaugError, match="64 clips per step.*--batch-size.*--accumulate.*--amp"), _enough_memory(64):
        raise error
    with pytest.raises(RuntimeError, match="shapes"), _enough_memory(64):
        raise RuntimeError("shapes do not fit")


def test_the_best_and_the_last_checkpoints_stay(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(small_store, out, steps=12, keep=3, best="-loss")
    ends = {line["step"]: line["loss"] for line in steps(out) if line["step"] % 2 == 0}  # an epoch is two steps
    kept = sorted(path.name for path in (out / CHECKPOINTS).iterdir())
    assert kept == [_BEST, "step-00000008.pt", "step-00000010.pt", "step-00000012.pt"]
    assert load_checkpoint(out / CHECKPOINTS / _BEST)["step"] == min(ends, key=lambda step: ends[step])
    best = load_run(out, best=True, device="cpu").learner
    assert same(dict(best.state_dict()), load_checkpoint(out / CHECKPOINTS / _BEST)["learner"])
    with pytest.raises(BgaugError, match="no number 'fame'.*loss"):
        run(small_store, tmp_path / "x", best="fame")
    with pytest.raises(UsageError, match="no number 'motion_r1'; there are loss; with --meters also motion_r1"):
        run(small_store, tmp_path / "x", best="motion_r1")
    assert not (tmp_path / "x").exists(), "told before an epoch is spent"


def test_a_checkpoint_of_something_else_is_refused(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(small_store, out, stop_after=1)
    with pytest.raises(CheckpointError, match="backbone: 'tiny' there, 'slow_r18' now"):
        run(small_store, out, resume=True, backbone="slow_r18")
    path = last_checkpoint(out)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is it whole"):
        run(small_store, out, resume=True)
    path.write_bytes(whole)
    broken = torch.load(path, weights_only=True)
    del broken["learner"]["encoder.heads.global.0.weight"]
    torch.save(broken, path)
    with pytest.raises(CheckpointError, match="does not fit this run's model"):
        run(small_store, out, resume=True)
    with pytest.raises(CheckpointError, match="does not fit its own configuration"):
        load_run(out)


def test_a_full_disk_leaves_the_checkpoint_before(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    run(small_store, out, stop_after=1)
    save = torch.save

    def full(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device.*--resume continues"):
        run(small_store, out, resume=True)
    monkeypatch.setattr(torch, "save", save)
    assert [path.name for path in (out / CHECKPOINTS).iterdir()] == ["step-00000001.pt"]
    assert run(small_store, out, resume=True).trained.finished
    assert [line["step"] for line in steps(out)] == [1, 2, 3, 4, 5, 6]


def test_a_run_is_resumed_only_on_its_own_store(small_store: Path, tmp_path: Path, video_folder: Path) -> None:
    out, other = tmp_path / "r", tmp_path / "smaller"
    build_shards(ShardOptions(inputs=[video_folder], out=other, in_process=True, size=(24, 32)), Silent())
    run(small_store, out, stop_after=1)
    with pytest.raises(CheckpointError, match="store_content"):
        run(other, out, resume=True)


def test_a_log_line_that_was_cut_off_is_dropped(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(small_store, out, stop_after=3)
    with open(out / LOG, "a") as log:
        log.write('{"step": 4, "lo')
    run(small_store, out, resume=True)
    assert [line["step"] for line in steps(out)] == [1, 2, 3, 4, 5, 6]


# --- options as a file ---


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["train", *words])


def test_options_of_a_file_are_defaults(small_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        'backbone = "tiny"\nbatch-size = 3\nframes = 4\nstride = 1\ncrop = 16\nsteps = 3\nseed = 5\n'
        'set = ["gamma=0.5", "donor=frame"]\nmethod = "dual"\ndevice = "cpu"\nmomentum = false\ndrop_at = [0.3]\n'
    )
    done = invoke(str(small_store), "--out", str(tmp_path / "r"), "--config", str(file), "--seed", "7")
    assert done.exit_code == 0, done.output
    run = load_run(tmp_path / "r", device="cpu")
    learner, config = run.learner, run.config
    assert config["seed"] == 7 and config["steps"] == 3, "what stands on the command line wins"
    assert learner.method.gamma == 0.5 and learner.method.compose.donor == "frame"
    assert config["drop_at"] == [0.3]
    # A run's own file trains the same again.
    again = invoke(
        str(small_store),
        "--out",
        str(tmp_path / "again"),
        "--config",
        str(tmp_path / "r" / "config.toml"),
        "--device",
        "cpu",
    )
    assert again.exit_code == 0, again.output
    assert same(state(tmp_path / "again")["learner"], state(tmp_path / "r")["learner"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("colour = 1\n", "no option colour here"), ("seed = \n", "cannot be read as TOML"), ('seed = "x"\n', "seed")],
)
def test_a_file_that_cannot_be_options(small_store: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    done = invoke(str(small_store), "--out", str(tmp_path / "r"), "--config", str(tmp_path / "plan.toml"))
    assert done.exit_code == 2 and message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "r").exists()


def test_values_that_cannot_be_are_listed() -> None:
    with pytest.raises(UsageError, match="--epochs: .*got 0; --lr: .*got -1.0; magic: "):
        TrainOptions(epochs=0, lr=-1.0, magic=3)  # type: ignore[call-arg]


def test_a_run_records_its_provenance(small_store: Path, tmp_path: Path) -> None:
    run(small_store, tmp_path / "r", stop_after=1)
    record = json.loads((tmp_path / "r" / "config.json").read_text())
    assert set(record["versions"]) >= {"bgaug", "python", "torch", "numpy"}
    assert len(record["config"]["store_content"]) == 64
    assert record["git"] is None or len(record["git"]["commit"]) == 40
