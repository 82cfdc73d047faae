"""Whole splits, the world as videos, and the offline pipeline scored on it."""

from __future__ import annotations

import csv
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds import Recorder

from bgaug.errors import UsageError
from bgaug.files import unfinished_name
from bgaug.masks import unpack_mask
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.demo.truth import Truth, read_truth, truth_file
from bgaug.pipelines.demo.world import score_offline, world_splits, write_world
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.testing.synthetic import ACTIONS, SyntheticSplit, make_split
from bgaug.video import read_video, write_video

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
        split = world_splits(["iid"], draw, {"iid": count}, 1, progress, cache=tmp_path / "cache", truth=truth)["iid"]
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
        world_splits(["iid"], 0, {"iid": 12}, 1, progress, cache=tmp_path / "cache")
        assert ("already there" in progress.done) == kept
        assert ["another world" in warning for warning in progress.warnings] == ([] if kept else [True])


def test_impossible_splits() -> None:
    with pytest.raises(ValueError, match="unknown split 'train'"):
        world_splits(["train"], 0, None, 1, Silent())
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
    write_world(folder, "pretrain", 16, 0, Silent(), jobs=1, truth=True)
    videos = {name: time for name, time in before.items() if name.endswith(".mp4")}
    assert videos.items() <= files(tmp_path).items()
    assert truth_file(folder).exists()
    write_world(folder, "pretrain", 8, 0, Silent(), jobs=1)
    assert len(list(folder.rglob("*.mp4"))) == 8 and not truth_file(folder).exists()


def test_an_interrupted_world_is_written_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_world(tmp_path / "whole", "swap", 10, 2, Silent(), jobs=1, truth=True)
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
        write_world(folder, "swap", 10, 2, Silent(), jobs=1, truth=True)
    assert len([path for path in folder.rglob("*.mp4") if not path.name.startswith(".")]) == 4
    before = files(folder)
    monkeypatch.undo()
    write_world(folder, "swap", 10, 2, Silent(), jobs=1, truth=True)
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
    with pytest.raises(UsageError, match="holds no truth"):
        read_truth(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("world") / "videos"
    return write_world(folder, "iid", 16, 0, Silent(), jobs=1, truth=True)


@pytest.fixture(scope="module")
def store(world: Path) -> Path:
    out = world.parent / "shards"
    build_shards(ShardOptions(inputs=[world], out=out, in_process=True, video=ONE_SHOT, size=None), Silent())
    return out


def test_the_truth_is_that_of_the_split(world: Path) -> None:
    truth, split = read_truth(world), make_split("iid", count=16, truth=True)
    assert split.masks is not None and split.plates is not None and split.backgrounds is not None
    np.testing.assert_array_equal(unpack_mask(truth.packed_masks, 40, 40), split.masks)
    np.testing.assert_array_equal(truth.masks(3), split.masks[3])
    np.testing.assert_array_equal(truth.backgrounds, split.backgrounds)
    assert abs(truth.views.astype(float) - split.plates.mean(axis=1)).mean() < 4
    assert all((world / video_id).is_file() for video_id in truth.ids)
    assert [ACTIONS.index(video_id.split("/")[0]) for video_id in truth.ids] == split.labels.tolist()


def test_the_offline_pipeline_is_scored(world: Path, store: Path) -> None:
    scores = score_offline(store, world)
    assert (scores.videos, scores.missing, scores.without_background) == (16, 0, 0)
    # A camera that shakes by a pixel of forty blurs the plain median and raises its thresholds.
    assert scores.age < 4 < scores.age_at_rest
    assert scores.recall < 0.6 and scores.precision > 0.75
    assert scores.iou < scores.f1 < 0.8

    steady = world.parent / "steady"
    build_shards(ShardOptions(inputs=[world], out=steady, in_process=True, size=None), Silent())
    held_against_what_each_frame_sees = score_offline(steady, world)
    assert held_against_what_each_frame_sees.f1 > scores.f1 + 0.1
    assert held_against_what_each_frame_sees.without_background <= 4


def test_scores_of_a_perfect_store(world: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own backgrounds and masks as the truth."""
    read, opened = read_truth(world), open_store(store)
    places = [opened.find(video_id) for video_id in read.ids]
    images = np.stack([opened.background(place).image for place in places])
    masks = np.stack([opened.packed_masks(place, 0, 12) for place in places])
    perfect = Truth(read.ids, masks, images, images)
    monkeypatch.setattr("bgaug.pipelines.demo.truth.read_truth", lambda folder: perfect)
    scores = score_offline(store, world)
    assert scores.age == scores.age_at_rest == 0
    assert scores.f1 == scores.precision == scores.recall == scores.iou == 1

    brighter = np.minimum(images, 245) + 10
    monkeypatch.setattr(
        "bgaug.pipelines.demo.truth.read_truth", lambda folder: Truth(read.ids, masks, images, brighter)
    )
    scores = score_offline(store, world)
    assert scores.age == pytest.approx(10, abs=0.5) and scores.age_at_rest == 0


def test_what_cannot_be_scored_is_counted_or_refused(world: Path, tmp_path: Path) -> None:
    def backgrounds(name: str, folder: Path, size: tuple[int, int] | None = None) -> Path:
        setup = ShardOptions(inputs=[folder], out=tmp_path / name, in_process=True)
        extract_backgrounds(replace(setup, video=ONE_SHOT, size=size), Silent())
        return tmp_path / name

    some = tmp_path / "some"
    shutil.copytree(world, some, ignore=shutil.ignore_patterns("left"))
    scores = score_offline(backgrounds("fourteen", some), world)
    assert (scores.videos, scores.missing, scores.without_background) == (14, 2, 0)
    assert scores.age > 0 and math.isnan(scores.f1) and math.isnan(scores.iou)  # a store without frames has no masks
    with pytest.raises(UsageError, match="holds no video of"):
        score_offline(backgrounds("elsewhere", world / "up"), world)
    with pytest.raises(UsageError, match="at the videos' own size"):
        score_offline(backgrounds("small", world, (24, 24)), world)
