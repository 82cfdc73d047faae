"""Whole splits, the world as videos, and the offline pipeline scored on it."""

from __future__ import annotations

import csv
import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import Recorder

from bgaug.errors import UsageError
from bgaug.files import unfinished_name
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.demo.world import world_splits, write_world
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.testing.scores import FOREGROUND, MaskScores, background_scores
from bgaug.testing.synthetic import ACTIONS, SyntheticSplit, make_split
from bgaug.video import read_video, write_video

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
cached_splits: Any = importlib.import_module("world_scores").cached_splits
sys.path.remove(BENCHMARKS)

FIELDS = ("frames", "labels", "scene", "prop", "masks", "plates", "backgrounds")
ONE_SHOT = VideoOptions(shots=False, method="median")


class Stages(Recorder):
    """Also counts what was advanced, by note."""

    def __init__(self) -> None:
        super().__init__()
        self.done: dict[str, int] = {}

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done[note] = self.done.get(note, 0) + count


def assert_same(found: SyntheticSplit, expected: SyntheticSplit) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def files(folder: Path) -> dict[str, int]:
    """Time of the last change of every file below a folder, by name."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_splits_are_those_of_one_process() -> None:
    splits = world_splits(["swap", "iid"], 1, {"swap": 70, "iid": 3}, 2, Silent(), truth=True)
    assert list(splits) == ["swap", "iid"]
    assert_same(splits["swap"], make_split("swap", count=70, draw=1, truth=True))
    assert_same(splits["iid"], make_split("iid", count=3, draw=1, truth=True))
    assert world_splits(["iid"], 0, {"iid": 2}, 1, Silent())["iid"].masks is None


def test_a_cache_is_read_and_cut_and_replaced_where_it_is_not_enough(tmp_path: Path) -> None:
    def ask(count: int, draw: int = 0, truth: bool = False) -> tuple[SyntheticSplit, Stages]:
        progress = Stages()
        split = cached_splits(["iid"], draw, {"iid": count}, 1, progress, tmp_path / "cache", truth=truth)["iid"]
        assert_same(split, make_split("iid", count=count, draw=draw, truth=truth))
        return split, progress

    assert ask(10)[1].done == {"": 10}
    assert ask(10)[1].done == {"already there": 10} and ask(7)[1].done == {"already there": 7}
    assert ask(12)[1].done == {"": 12}
    assert ask(5, draw=1)[1].done == ask(5, truth=True)[1].done == {"": 5}
    assert ask(4, truth=True)[1].done == {"already there": 4}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        "iid-draw0.npz",
        "iid-draw0-truth.npz",
        "iid-draw1.npz",
    }

    path = tmp_path / "cache" / "iid-draw0.npz"
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be read and is made again" in ask(12)[1].warnings[0]
    other = make_split("iid", count=12)
    one_level = np.where(other.frames == 255, 254, other.frames + 1)
    for frames, kept in ((one_level, True), (np.where(one_level == 255, 253, one_level + 1), False)):
        np.savez(path, frames=frames, labels=other.labels, scene=other.scene, prop=other.prop, kind=other.kind)
        progress = Stages()
        cached_splits(["iid"], 0, {"iid": 12}, 1, progress, tmp_path / "cache")
        assert ("already there" in progress.done) == kept
        assert ["another world" in warning for warning in progress.warnings] == ([] if kept else [True])


def test_caches_and_folders_tell_worlds_apart(tmp_path: Path) -> None:
    for kind, size in (("plain", 40), ("micro", 40), ("micro", 16)):
        for _ in range(2):
            split = cached_splits(["iid"], 0, {"iid": 4}, 1, Silent(), tmp_path, world=kind, size=size)["iid"]
            expected = make_split("iid", count=4, world=kind, size=size)  # type: ignore[arg-type]
            np.testing.assert_array_equal(split.frames, expected.frames)
            np.testing.assert_array_equal(split.kind, expected.kind)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_impossible_splits() -> None:
    with pytest.raises(ValueError, match="unknown split 'train'"):
        world_splits(["train"], 0, {}, 1, Silent())
    with pytest.raises(ValueError, match="at least 1 video, asked for 0 of iid"):
        world_splits(["iid"], 0, {"iid": 0}, 1, Silent())


def test_the_world_is_written_as_it_was_generated(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "videos", "pretrain", 16, 0, Silent(), jobs=1)
    split = make_split("pretrain", stop=16)
    for number in range(16):
        (path,) = folder.rglob(f"{number:05d}.mp4")
        assert path.parent.name == ACTIONS[split.labels[number]]
        frames = read_video(path).frames
        assert frames.shape == (12, 40, 40, 3)
        assert np.abs(frames.astype(int) - split.frames[number]).mean() < 4  # stripes and hues survive the codec
    before = files(tmp_path)
    write_world(folder, "pretrain", 16, 0, Silent(), jobs=1)
    assert files(tmp_path) == before
    write_world(folder, "pretrain", 8, 0, Silent(), jobs=1)
    assert len(list(folder.rglob("*.mp4"))) == 8


def test_an_interrupted_world_is_written_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_world(tmp_path / "whole", "swap", 10, 2, Silent(), jobs=1)
    folder, written = tmp_path / "videos", 0

    def breaks_off(path: Path, frames: np.ndarray, fps: float) -> None:
        nonlocal written
        if written == 4:
            left = unfinished_name(".mp4").replace(f"-{os.getpid()}-", "-4194999-")  # of a process that is gone
            path.with_name(left).write_bytes(b"half a vid")
            raise KeyboardInterrupt
        write_video(path, frames, fps)
        written += 1

    monkeypatch.setattr("bgaug.pipelines.demo.world.write_video", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        write_world(folder, "swap", 10, 2, Silent(), jobs=1)
    assert len([path for path in folder.rglob("*.mp4") if not path.name.startswith(".")]) == 4
    before = files(folder)
    monkeypatch.undo()
    write_world(folder, "swap", 10, 2, Silent(), jobs=1)
    after = files(folder)
    assert {n: t for n, t in before.items() if n[-4:] == ".mp4" and "/." not in n}.items() <= after.items()
    assert after.keys() == files(whole).keys()
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in after)


def test_labels_name_scene_and_purpose(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "videos", "photo", 9, 0, Silent(), jobs=1)
    split = make_split("photo", count=9, num_frames=2, size=16)
    with open(folder / "labels.csv", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["class_name"] for row in rows] == [ACTIONS[label] for label in split.labels]
    assert [int(row["scene"]) for row in rows] == split.scene.tolist()
    assert [int(row["prop"]) for row in rows] == split.prop.tolist()
    assert all((folder / row["file"]).is_file() for row in rows)
    assert {row["split"] for row in rows} == {"test"}
    assert all(row["group"].startswith("photo ") for row in rows)
    assert len({row["group"] for row in rows}) == len(set(split.scene.tolist()))

    store = tmp_path / "backgrounds"
    setup = ShardOptions(inputs=[folder], out=store, labels=folder / "labels.csv", in_process=True)
    progress = Recorder()
    extract_backgrounds(replace(setup, video=ONE_SHOT, size=None), progress)
    assert progress.warnings == []
    names = open_store(store).names
    assert set(names.groups) == {row["group"] for row in rows} and set(names.splits) == {"test"}
    with open(write_world(tmp_path / "train", "probe_train", 1, 0, Silent(), jobs=1) / "labels.csv") as text:
        assert next(csv.DictReader(text))["split"] == "train"


def test_what_is_not_a_world_is_left_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(UsageError, match="is not empty and has no record of a world"):
        write_world(folder, "iid", 2, 0, Silent(), jobs=1)
    (folder / "world.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        write_world(folder, "iid", 2, 0, Silent(), jobs=1)
    assert (folder / "holiday.mp4").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("world") / "videos"
    return write_world(folder, "iid", 16, 0, Silent(), jobs=1)


@pytest.fixture(scope="module")
def store(world: Path) -> Path:
    out = world.parent / "shards"
    build_shards(ShardOptions(inputs=[world], out=out, in_process=True, video=ONE_SHOT, size=None), Silent())
    return out


def scores_of(path: Path) -> dict[str, float]:
    """Scores of a store's backgrounds and masks against the truth: means over the videos that have a background."""
    store, split = open_store(path), make_split("iid", count=16, truth=True)
    assert split.masks is not None and split.plates is not None and split.backgrounds is not None
    found: list[dict[str, float]] = []
    for number, label in enumerate(split.labels.tolist()):
        video = store.find(f"{ACTIONS[label]}/{number:05d}.mp4")
        if store.shots(video)[0, 2] < 0:
            continue
        masks = MaskScores()
        for mask, true in zip(store.masks(video, 0, 12), split.masks[number], strict=True):
            masks.add(mask, np.where(true, FOREGROUND, 0).astype(np.uint8))
        image = store.background(video, 0).image
        seen = np.median(split.plates[number], axis=0).round().astype(np.uint8)
        ages = [background_scores(image, true).age for true in (seen, split.backgrounds[number])]
        quality = {name: float(getattr(masks, name)) for name in ("f1", "precision", "recall", "iou")}
        found.append(quality | {"age": ages[0], "age_at_rest": ages[1]})
    return {"videos": len(found)} | {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def test_the_offline_pipeline_is_scored(world: Path, store: Path) -> None:
    scores = scores_of(store)
    assert scores["videos"] == 16
    # A camera that shakes by a pixel of forty blurs the plain median and raises its thresholds.
    assert scores["age"] < 4 < scores["age_at_rest"]
    assert scores["recall"] < 0.6 and scores["precision"] > 0.75
    assert scores["iou"] < scores["f1"] < 0.8

    steady = world.parent / "steady"
    build_shards(ShardOptions(inputs=[world], out=steady, in_process=True, size=None), Silent())
    stabilised = scores_of(steady)
    assert stabilised["f1"] > scores["f1"] + 0.1 and stabilised["videos"] >= 12
