"""The search against micro bias: its bookkeeping, and what its kept lines hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bgaug.model.decomposition import MotionAwareDecomposition
from bgaug.pipelines.build.importing import import_masks
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.demo.world import write_world
from bgaug.pipelines.train.run import TrainOptions, make_learner
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.testing.synthetic import ACTIONS, make_split

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEPT = FOLDER / "results" / "micro.jsonl"


def load() -> ModuleType:
    sys.path.insert(0, str(FOLDER))  # it takes rows and paths from its neighbour, as a script does
    try:
        spec = importlib.util.spec_from_file_location("micro_benchmark", FOLDER / "micro.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


micro = load()
TESTS = ("iid", "wide", "micro", "swap", "photo", "conflict", "bgonly")


@pytest.mark.parametrize("name", micro.TRIALS)
def test_every_trial_can_be_trained_at_equal_views(name: str) -> None:
    row = micro.TRIALS[name]
    options = TrainOptions(
        method=row.method, backbone="tiny", steps=8, batch_size=row.batch, momentum=row.momentum, change=row.change
    )
    method = make_learner(options, 2048, row.batch, 8).method
    assert method.momentum == row.momentum
    assert row.batch == 64


def test_trials_lie_apart() -> None:
    folders = {micro.Trial(name, 0, 800, 0, 40).folder(Path("w")) for name in micro.TRIALS}
    assert len(folders) == len(micro.TRIALS)
    one = micro.Trial("semi", 0, 800, 0, 40)
    others = [
        micro.Trial("semi", *rest) for rest in ((1, 800, 0, 40), (0, 400, 0, 40), (0, 800, 1, 40), (0, 800, 0, 80))
    ]
    assert len({trial.folder(Path("w")) for trial in (one, *others)}) == 5
    assert len({micro.key_of(asdict(trial)) for trial in (one, *others)}) == 5


def line(seed: int, swap: float, **other: Any) -> dict[str, Any]:
    scores = dict.fromkeys([*TESTS, "unbiased", "scene", "prop"], 90.0) | {"swap": swap}
    found = asdict(micro.Trial("semi", seed, 800, 0, 40)) | {"pool": "deviation", "cpu_seconds": 1.0} | other
    return found | {"scores": {"global": scores, "dynamic": scores | {"swap": swap + 5}, "static": scores}}


def asked(*words: str) -> Any:
    return micro.parser.parse_args(words)


def test_the_table_is_of_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(0, 70.0), line(1, 80.0), line(2, 10.0), line(0, 20.0, device="cuda"), line(0, 30.0, draw=1)]
    micro.show(micro.asked_for(lines, asked("--trials", "semi", "--seeds", "0,1")))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3 and shown[1].split()[:4] == ["semi", "800", "deviation", "2"]
    assert "80.0 +- 7.1" in shown[1] and "10.0 +- 7.1" in shown[1] and "75.0 +- 7.1" in shown[2]
    micro.show(micro.asked_for(lines, asked("--device", "cuda")), markdown=True)
    table = capsys.readouterr().out.splitlines()
    assert table[3].startswith("| semi | 800 | mean | 1 | 90.0 | 90.0 | 90.0 | 20.0 |")
    assert not micro.asked_for(lines, asked("--trials", "fame"))


def test_how_the_dynamic_code_was_pooled_is_reported() -> None:
    assert [micro.feature_of(line(0, 1.0, pool=pool), "dynamic") for pool in ("mean", "change", "deviation")] == [
        "mean where it moves",
        "change",
        "deviation",
    ]
    assert micro.feature_of(line(0, 1.0), "global") == "mean"


def test_trials_that_are_there_are_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "micro.jsonl"
    out.write_text(json.dumps(line(0, 70.0)) + "\n")
    options = asked("--trials", "semi", "--out", str(out), "--work", str(tmp_path))
    trials = list(micro.wanted_trials(options))
    micro.run_trials(trials, options)
    assert capsys.readouterr().err == "" and len(micro.read_lines(out)) == 1
    with pytest.raises(SystemExit):
        list(micro.wanted_trials(micro.parser.parse_args(["--trials", "magic"])))


def test_a_trial_that_breaks_off_leaves_no_line_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {name: [sys.executable, "-c", code] for name, code in (("good", "pass"), ("bad", "raise SystemExit(3)"))}
    finished: list[str] = []
    micro.run_each(commands, 2, finished.append)
    assert finished == ["good"]
    reported = capsys.readouterr().err
    assert "good: done" in reported and "bad: failed" in reported and "1 failed; rerun to try them again" in reported


def test_the_readings_are_those_of_the_decomposition() -> None:
    z = torch.rand(2, 3, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    codes = MotionAwareDecomposition()({"last": z})
    readings = micro.readings_of(z, codes.saliency.unsqueeze(1))
    torch.testing.assert_close(readings["mean"], codes.global_code)
    torch.testing.assert_close(readings["deviation where it moves"], codes.dynamic, atol=1e-5, rtol=1e-5)
    mean = MotionAwareDecomposition(pool="mean")({"last": z}).dynamic
    torch.testing.assert_close(readings["mean where it moves"], mean)
    assert readings["mean and deviation"].shape == (2, 6)
    still = micro.readings_of(z[:, :, :1].expand_as(z), codes.saliency.unsqueeze(1))
    assert not still["change"].any() and not still["largest deviation of any cell"].any()


@pytest.fixture
def kept() -> list[dict[str, Any]]:
    if not KEPT.exists():
        pytest.skip(f"no kept result at {KEPT}")
    lines: list[dict[str, Any]] = micro.read_lines(KEPT)
    return lines


def test_kept_lines_are_whole_and_of_different_trials(kept: list[dict[str, Any]]) -> None:
    assert len({micro.key_of(line) for line in kept}) == len(kept)
    for line in kept:
        assert set(TESTS) <= set(line["scores"]["global"])
        assert line["name"] in micro.TRIALS or "commit" in line, line["name"]


def test_kept_lines_are_of_the_trial_that_they_name(kept: list[dict[str, Any]]) -> None:
    for line in kept:
        if "commit" not in line:
            row = micro.TRIALS[line["name"]]
            change = json.loads(json.dumps(row.change))
            assert (row.method, change, row.momentum) == (line["method"], line["change"], line["momentum"])


def scores(kept: list[dict[str, Any]], name: str, code: str, draw: int, **where: Any) -> list[dict[str, float]]:
    """By seed; on a CPU, 800 steps at size 40 unless specified otherwise."""
    expected = {"name": name, "draw": draw, "device": "cpu", "steps": 800, "size": 40} | where
    of = {line["seed"]: line["scores"][code] for line in kept if all(line[key] == expected[key] for key in expected)}
    return [of[seed] for seed in sorted(of)]


def owed(of: list[dict[str, float]]) -> list[float]:
    """Points lost from wide to swap."""
    return [one["wide"] - one["swap"] for one in of]


def test_the_world_tempts(kept: list[dict[str, Any]]) -> None:
    """Plain contrast and plain composites both owe ten points and more to the prop."""
    for name in ("simclr", "semi"):
        for draw in (0, 1):
            losses = owed(scores(kept, name, "global", draw))
            assert losses and min(losses) >= 10


def test_the_default_owes_the_prop_half_of_what_plain_composites_do(kept: list[dict[str, Any]]) -> None:
    ours, semi = scores(kept, "bgaug", "dynamic", 1), scores(kept, "semi", "global", 1)
    assert len(ours) == len(semi) >= 3
    assert mean(owed(ours)) <= mean(owed(semi)) / 2
    for metric, gain in (("swap", 8), ("wide", 3), ("iid", 0), ("unbiased", 5)):
        assert all(a[metric] >= b[metric] + gain for a, b in zip(ours, semi, strict=True)), metric
    for rival in ("simclr", "fame"):
        theirs = scores(kept, rival, "global", 1)
        assert len(theirs) >= 3 and mean(one["swap"] for one in ours) >= 20 + max(one["swap"] for one in theirs)


def test_training_the_dynamic_code_is_worth_more_than_reading_it(kept: list[dict[str, Any]]) -> None:
    trained, read = scores(kept, "bgaug", "dynamic", 1), scores(kept, "semi", "dynamic", 1)
    assert mean(one["swap"] for one in trained) >= 3 + mean(one["swap"] for one in read)
    assert mean(owed(trained)) <= mean(owed(read)) - 2


def test_the_finding_holds_elsewhere(kept: list[dict[str, Any]]) -> None:
    """On the draw of the search, and at twice the size."""
    for draw, size in ((0, 40), (1, 80)):
        (ours,), (semi,) = (
            scores(kept, name, code, draw, steps=400, size=size)
            for name, code in (("bgaug", "dynamic"), ("semi", "global"))
        )
        assert owed([ours])[0] < owed([semi])[0] - 3 and ours["swap"] > semi["swap"] + 3


def test_degraded_masks_are_imported_into_a_store(tmp_path: Path) -> None:
    videos = write_world(tmp_path / "videos", "pretrain", 8, 0, Silent(), 1, world="micro")
    assert "held" in (videos / "labels.csv").read_text() or "shadow" in (videos / "labels.csv").read_text()
    build_shards(
        ShardOptions(
            inputs=[videos], out=tmp_path / "shards", video=VideoOptions(shots=False, method="median"), size=None
        ),
        Silent(),
    )
    split = make_split("pretrain", count=8, truth=True, world="micro")
    found = import_masks(tmp_path / "shards", micro.write_degraded_masks(split, tmp_path / "degraded"), Silent())
    assert (found.videos, found.frames) == (8, 96)
    store = open_store(tmp_path / "shards")
    assert split.degraded is not None
    for number, label in enumerate(split.labels.tolist()):
        stored = store.masks(store.find(f"{ACTIONS[label]}/{number:05d}.mp4"), 0, 12)
        np.testing.assert_array_equal(np.asarray(stored).astype(bool), split.degraded[number])
