"""Bias meters: encoders that only see the motion, or only the background, read as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import UsageError
from bgaug.model import METHODS
from bgaug.pipelines.train.bias_monitor import BiasMonitor, _probe_accuracy, evaluating, nearest
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.progress import Silent


class Reads(nn.Module):
    """An encoder whose feature is known: `what(clips)`."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what
        self.method = METHODS["bgaug"]

    def features(self, clips: Tensor, which: str) -> Tensor:
        assert which == "dynamic"  # what a run of this method is asked for elsewhere, too
        out: Tensor = self.what(clips)
        return out


def meters(store: Path) -> BiasMonitor:
    return BiasMonitor(ClipDataset(store, ClipOptions(num_frames=4, stride=1)), 99, 32, torch.device("cpu"))


def test_what_only_sees_the_background_follows_the_donor(small_store: Path) -> None:
    # The corners of a clip show only background.
    def corners(clips: Tensor) -> Tensor:
        return torch.cat([clips[:, :, 0, :4, :4].flatten(1), clips[:, :, 0, -4:, -4:].flatten(1)], dim=1)

    found = meters(small_store)(Reads(corners))  # type: ignore[arg-type]
    assert found["scene_r1"] >= 80 and found["motion_r1"] <= 20
    assert found["background_probe"] == 100


def test_the_same_clips_each_time(small_store: Path) -> None:
    one, other = meters(small_store), meters(small_store)
    assert torch.equal(one.batch.frames, other.batch.frames)
    assert torch.equal(one.compose().semi, other.compose().semi)


def test_nearest_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    mean = gallery.mean(axis=0)
    for row, found in zip(queries, nearest(queries, gallery), strict=True):
        cosines = [
            float((row - mean) @ (g - mean) / np.linalg.norm(row - mean) / np.linalg.norm(g - mean)) for g in gallery
        ]
        assert found == int(np.argmax(cosines))


def test_backgrounds_are_probe_accuracy_or_not() -> None:
    rng = np.random.default_rng(0)
    background = np.arange(64) % 8
    known = np.ones(64, np.bool_)
    one_hot = np.eye(8, dtype=np.float32)[background] + rng.normal(0, 0.01, (64, 8)).astype(np.float32)
    assert _probe_accuracy(one_hot, background, known) == 100
    assert _probe_accuracy(rng.normal(size=(64, 3)).astype(np.float32), background, known) < 40
    assert np.isnan(_probe_accuracy(one_hot, background, known & False))


def test_a_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2)).train()
    with evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
    assert model.training and torch.is_grad_enabled()


def test_meters_stand_in_the_log_and_on_the_board(small_store: Path, tmp_path: Path) -> None:
    import json

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = TrainOptions(
        backbone="tiny",
        steps=4,
        batch_size=3,
        num_frames=4,
        stride=1,
        crop=16,
        meters=6,
        tensorboard=True,
        best="motion_r1",
    )
    train(small_store, tmp_path / "r", Silent(), options=replace(options, device="cpu", threads=0))
    lines = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    measured = [line["meters"] for line in lines if "meters" in line]
    assert len(measured) == 2, "one an epoch"
    assert set(measured[0]) == {"motion_r1", "scene_r1", "background_probe"}
    assert (tmp_path / "r" / "checkpoints" / "best.pt").exists()
    board = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    tags = board.Tags()
    assert {"train/loss", "train/lr", "bias/motion_r1", "bias/background_probe"} <= set(tags["scalars"])
    assert len(board.Scalars("train/loss")) == 4
    image = board.Images("clip, composite, saliency")[-1]
    assert image.height == 3 * 16 and image.width == 6 * 16


def test_meters_do_not_change_a_run(small_store: Path, tmp_path: Path) -> None:
    from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
    from bgaug.model.checkpoint import load_checkpoint

    for name, count in (("with", 6), ("without", 0)):
        options = TrainOptions(backbone="tiny", steps=4, batch_size=3, num_frames=4, stride=1, crop=16, meters=count)
        train(small_store, tmp_path / name, Silent(), options=replace(options, device="cpu", threads=0))
    one, other = (load_checkpoint(last_checkpoint(tmp_path / name))["learner"] for name in ("with", "without"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_too_few_videos_are_refused(small_store: Path, tmp_path: Path) -> None:
    options = TrainOptions(backbone="tiny", steps=1, batch_size=3, num_frames=4, stride=1, crop=16, meters=2)
    with pytest.raises(UsageError, match="--meters 2: the bias monitor needs 4 videos"):
        train(small_store, tmp_path / "r", Silent(), options=replace(options, device="cpu", threads=0))
