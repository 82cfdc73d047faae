"""Something new is one file and one entry: its name is then in help, completion and validation, and works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bgaug import estimate_background
from bgaug.background.samples import ShotSamples
from bgaug.cli.main import app
from bgaug.errors import UsageError
from bgaug.labels import FORMATS, Label, labels_for
from bgaug.labels.label import Entry, ListFormat, SplitList
from bgaug.model import ContrastiveLearner, Method
from bgaug.model.backbones.tiny import Tiny
from bgaug.model.losses import total
from bgaug.names import BACKBONES, BACKGROUND_METHODS, LOSSES, METHODS, POLICIES, Registry
from bgaug.pairs import Composition, Pairs
from bgaug.pipelines.build.options import LabelOptions, VideoOptions
from bgaug.pipelines.train.options import TrainOptions

Add = Callable[[Registry, Any], None]
SMALL = ("--backbone", "tiny", "--steps", "1", "--batch-size", "2", "--frames", "4", "--crop", "16", "--device", "cpu")


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Add something named "toy" to a registry, from a module of its own."""

    def entry(registry: Registry, value: Any) -> None:
        name = f"toys_{len(sys.modules)}"
        module = ModuleType(name)
        module.toy = value  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(registry.entries, "toy", f"{name}:toy")

    return entry


def invoke(*words: object, **environment: str) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env=environment, prog_name="bgaug")
    assert result.exit_code == 0, (result.output, result.stderr)
    return result.stdout


def completes(*words: str) -> bool:
    """Whether the shell completes these words with the toy."""
    line = {"COMP_WORDS": " ".join(("bgaug", *words)), "COMP_CWORD": str(len(words))}
    return "toy" in invoke(_BGAUG_COMPLETE="complete_bash", **line)


def train(store: Path, out: Path, *words: str) -> None:
    invoke("train", store, "--out", out, *SMALL, *words)
    assert next((out / "checkpoints").glob("*.pt"))


def test_a_background_method(add: Add) -> None:
    with pytest.raises(UsageError, match="there is no 'toy'; there are auto, median"):
        VideoOptions(method="toy")

    def first_sample(shot: ShotSamples) -> Any:
        return shot.median // 2, np.ones(shot.size, np.bool_)

    add(BACKGROUND_METHODS, first_sample)
    assert VideoOptions(method="toy").method == "toy"
    assert "toy" in invoke("build-shards", "--help") and completes("build-shards", "v", "--background-method", "to")
    frames = np.full((5, 8, 8, 3), 100, np.uint8)
    assert (estimate_background(frames, "toy").image == 50).all()


def test_a_policy_and_a_training_method(add: Add, small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no 'toy'; there are bgaug, semi"):
        TrainOptions(method="toy")
    add(POLICIES, Composition(mask="random_box", donor="frame"))
    add(METHODS, Method("toy", policy="toy"))
    assert "toy" in invoke("train", "--help")
    assert completes("train", "s", "--method", "to") and completes("train", "s", "--set", "policy=to")
    train(small_store, tmp_path / "a", "--method", "toy")
    train(small_store, tmp_path / "b", "--set", "policy=toy")


def test_a_loss(add: Add, small_store: Path, tmp_path: Path) -> None:
    called: list[int] = []

    def distance(learner: ContrastiveLearner, pairs: Pairs) -> dict[str, Tensor]:
        anchor, semi = learner.embed_views(pairs)
        called.append(len(pairs.anchor))
        return total({code: (1.0, (anchor[code] - semi[code]).square().mean()) for code in anchor})

    add(LOSSES, distance)
    assert "toy" in invoke("train", "--help") and completes("train", "s", "--set", "objective=to")
    train(small_store, tmp_path / "r", "--method", "semi", "--set", "objective=toy")
    assert called == [2]


def test_a_backbone(add: Add, small_store: Path, tmp_path: Path) -> None:
    built: list[Tiny] = []

    def small() -> Tiny:
        built.append(Tiny(width=8))
        return built[-1]

    add(BACKBONES, small)
    assert "toy" in invoke("train", "--help") and completes("train", "s", "--backbone", "to")
    train(small_store, tmp_path / "r", "--backbone", "toy")
    assert built


def test_a_format_of_lists(add: Add, tmp_path: Path) -> None:
    file = tmp_path / "list.toy"
    file.write_text("a.mp4 run\n")

    def read(path: Path, options: object) -> SplitList:
        rows = [line.split() for line in path.read_text().splitlines()]
        entries = tuple(Entry((name,), label, None, None, str(path)) for name, label in rows)
        return SplitList("toy", 1, entries, ("run",), (path,), "any")

    with pytest.raises(UsageError, match="there is no 'toy'; there are auto, csv"):
        LabelOptions(labels=file, labels_format="toy")
    add(FORMATS, ListFormat(looked_for="*.toy", finds=lambda path: path.suffix == ".toy", read=read))
    assert LabelOptions(labels=file, labels_format="toy").labels == file
    assert "toy" in invoke("build-shards", "--help") and completes("build-shards", "v", "--labels-format", "to")
    for name in ("toy", "auto"):
        assert labels_for(file, ["a.mp4"], name).of("a.mp4") == Label("run")


def test_registries_import_when_they_are_used() -> None:
    registry = Registry({"torch": "torch:Tensor", "missing": "nowhere:nothing"})
    assert list(registry) == ["torch", "missing"] and len(registry) == 2 and "missing" in registry
    assert registry["torch"] is torch.Tensor
    with pytest.raises(ModuleNotFoundError):
        _ = registry["missing"]
