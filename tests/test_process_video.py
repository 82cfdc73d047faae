"""Shots, cameras and broken files through the two offline commands."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_videos import encode
from worlds import moving_square, scene

from bgaug.errors import BgaugError
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.sizing import BACKGROUND_SIZE, Fit, resize_area
from bgaug.store import open_store, verify_store
from bgaug.store.format.records import CAMERAS
from bgaug.video import read_video, write_video


def textured(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A scene with enough texture to locate the camera."""
    blocks = np.random.default_rng(seed).integers(0, 90, (height // 8, width // 8, 3), dtype=np.uint8)
    return (scene(seed, height, width) // 2 + blocks.repeat(8, 0).repeat(8, 1)).astype(np.uint8)


def mover_over(background: np.ndarray, num_frames: int) -> np.ndarray:
    """A bright square that crosses a background."""
    frames = np.repeat(background[None], num_frames, 0)
    for t in range(num_frames):
        left = round(130 * t / num_frames)
        frames[t, 50:75, left : left + 25] = (250, 240, 30)
    return frames


def pan_over(wide: np.ndarray, num_frames: int, step: int = 3) -> np.ndarray:
    """A camera that pans along a wide image."""
    return np.stack([wide[:, t * step : t * step + 160] for t in range(num_frames)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "videos"
    found.mkdir()
    return found


def setup(folder: Path, out: Path, **options: Any) -> ShardOptions:
    return ShardOptions(inputs=[folder], out=out, jobs=1, in_process=True, **options)


def test_each_shot_has_its_own_background(folder: Path, tmp_path: Path) -> None:
    scenes = [textured(seed) for seed in (1, 2, 3)]
    frames = np.concatenate([mover_over(background, 40) for background in scenes])
    write_video(folder / "cuts.mp4", frames)
    outcome = build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent())
    store = open_store(tmp_path / "s")
    assert outcome.to_json()["ok"] == 1
    assert store.shots(0)[:, :2].tolist() == [[0, 40], [40, 80], [80, 120]]
    for shot, background in enumerate(scenes):
        assert np.abs(store.background(0, shot).image.astype(int) - background).mean() < 3
        assert CAMERAS[store.columns.shot_camera[shot]] == "static"
    masks = store.masks(0, 0, 120)
    truth = (frames == (250, 240, 30)).all(-1)
    assert (masks & truth).sum() / (masks | truth).sum() > 0.9


@pytest.mark.parametrize(("step", "short"), [(100, 0), (50, 1)])
def test_shots_are_as_long_as_their_own_times(folder: Path, tmp_path: Path, step: int, short: int) -> None:
    """12 frames of 100 ms are a shot of 1.2 s, whatever the rate of the rest; 12 of 50 ms are counted as too short."""
    frames = np.concatenate([mover_over(textured(1), 12), mover_over(textured(2), 120)])
    times = [*range(0, 12 * step, step), *range(12 * step, 12 * step + 1200, 10)]
    options = {"crf": "10"}
    encode(folder / "x.mkv", frames, "libx264", options, times=times, unit=Fraction(1, 1000), rate=1000)
    outcome = extract_backgrounds(replace(setup(folder, tmp_path / "bg"), size=None), Silent())
    store = open_store(tmp_path / "bg")
    assert store.shots(0)[:, :2].tolist() == [[0, 12], [12, 132]]
    assert [background >= 0 for background in store.columns.shot_background.tolist()] == [not short, True]
    assert outcome.to_json()["short_shots"] == short


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_pixels_that_are_not_square_are_shown_in_their_aspect(folder: Path, tmp_path: Path, fit: Fit) -> None:
    frames = mover_over(textured(1), 30)
    write_video(folder / "square.mp4", frames)
    stored = np.stack([resize_area(image, (120, 80)) for image in frames])
    encode(folder / "wide.mp4", stored, "libx264", {"crf": "4"}, sample_aspect=Fraction(2), pixel_format="yuv444p")
    build_shards(replace(setup(folder, tmp_path / "s"), size=(64, 64), fit=fit), Silent())
    store = open_store(tmp_path / "s")
    square, wide = store.find("square.mp4"), store.find("wide.mp4")
    assert store.content_box(square) == store.content_box(wide)
    for mine, other in (
        (store.frames_at(square, np.array([0]))[0], store.frames_at(wide, np.array([0]))[0]),
        (store.background(square, 0).image, store.background(wide, 0).image),
    ):
        assert np.abs(mine.astype(int) - other).mean() < 6


def test_backgrounds_from_a_store_give_the_same(folder: Path, tmp_path: Path) -> None:
    frames = np.concatenate([mover_over(textured(seed), 40) for seed in (1, 2)])
    write_video(folder / "cuts.mp4", frames)
    extract_backgrounds(replace(setup(folder, tmp_path / "bg"), size=None), Silent())
    build_shards(replace(setup(folder, tmp_path / "a"), size=None, backgrounds=tmp_path / "bg"), Silent())
    build_shards(replace(setup(folder, tmp_path / "b"), size=None), Silent())
    given, computed = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    assert np.array_equal(given.shots(0), computed.shots(0))
    assert np.array_equal(given.masks(0, 0, 80), computed.masks(0, 0, 80))


def test_shots_can_be_left_unchanged(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "cuts.mp4", np.concatenate([mover_over(textured(seed), 40) for seed in (1, 2)]))
    build_shards(replace(setup(folder, tmp_path / "s"), video=VideoOptions(shots=False), size=None), Silent())
    assert open_store(tmp_path / "s").shots(0)[:, :2].tolist() == [[0, 80]]


def test_a_moving_camera_has_backgrounds_at_their_own_times(folder: Path, tmp_path: Path) -> None:
    pan_frames = pan_over(textured(5, 120, 480), 60)
    write_video(folder / "pan.mp4", pan_frames)
    write_video(folder / "still.mp4", mover_over(textured(6), 60))
    outcome = build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent())
    counts = outcome.to_json()
    assert (counts["ok"], counts["no_static_background"], counts["failed"]) == (2, 0, 0)
    store = open_store(tmp_path / "s")
    pan = store.find("pan.mp4")
    shot = store.row(pan).shots[0]
    assert (shot.camera, shot.grade) == ("moving", "F")  # nothing but the camera moves
    assert "the camera moves: the masks come from motion" in shot.reasons[0]
    assert shot.background_frames == [16, 48]  # with flow between every second frame
    for frame in shot.background_frames:
        seen = store.background(pan, 0, frame)
        assert np.abs(seen.image.astype(int) - pan_frames[frame]).mean() < 6 and seen.valid.all()
    assert store.masks(pan, 0, 60).mean() < 0.01


def test_a_moving_camera_has_no_background_with_other_methods(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "pan.mp4", pan_over(textured(5, 120, 480), 60))
    options = setup(folder, tmp_path / "s")
    outcome = build_shards(replace(options, size=None, video=replace(options.video, method="median")), Silent())
    assert outcome.to_json()["no_static_background"] == 1
    store = open_store(tmp_path / "s")
    pan = store.find("pan.mp4")
    assert store.shots(pan)[0, 2] == -1 and store.masks(pan, 1, 20).any()  # what changed from frame to frame
    assert store.clip(pan, 0, 16).shape == (16, 120, 160, 3)


def test_pan_and_still_shot_in_one_video(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "both.mp4", np.concatenate([mover_over(textured(6), 50), pan_over(textured(5, 120, 480), 60)]))
    outcome = build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent())
    shots = open_store(tmp_path / "s").shots(0)
    assert outcome.to_json()["ok"] == 1
    assert shots[:, :2].tolist() == [[0, 50], [50, 110]] and shots[0, 2] == 0 and shots[1, 2] == 1


def test_shots_under_a_second_take_no_part(folder: Path, tmp_path: Path) -> None:
    frames = np.concatenate([mover_over(textured(1), 40), mover_over(textured(2), 10), mover_over(textured(3), 40)])
    write_video(folder / "short.mp4", frames)
    build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent())
    shots = open_store(tmp_path / "s").shots(0)
    assert shots[:, :2].tolist() == [[0, 40], [40, 50], [50, 90]]
    assert shots[1, 2] == -1 and (shots[[0, 2], 2] >= 0).all()


# --- files that break off ---------------------------------------------------------------------------------------------


@pytest.fixture
def broken(folder: Path) -> Path:
    """A whole AVI, and one that was cut short."""
    noise = np.random.default_rng(0).integers(0, 40, (60, 48, 64, 3), dtype=np.uint8)
    frames = np.minimum(moving_square(0, 60)[0], 210) + noise
    options = {"g": "10", "b": "2M"}
    write_video(folder / "whole.avi", frames, codec="mpeg4", pixel_format="yuv420p", options=options)
    data = (folder / "whole.avi").read_bytes()
    (folder / "cut.avi").write_bytes(data[: len(data) * 6 // 10])
    return folder


def test_skip_leaves_a_broken_video_out(broken: Path, tmp_path: Path) -> None:
    # So much noise hides whether the camera is static: that is not tested here.
    options = VideoOptions(shots=False)
    outcome = extract_backgrounds(replace(setup(broken, tmp_path / "s"), size=BACKGROUND_SIZE, video=options), Silent())
    counts = outcome.to_json()
    assert (counts["ok"], counts["partial"], counts["failed"]) == (1, 0, 1)
    line = json.loads((tmp_path / "s" / "failures.jsonl").read_text())
    assert line["id"] == "cut.avi" and line["reason"] == "truncated"


def test_salvage_keeps_the_good_beginning(broken: Path, tmp_path: Path) -> None:
    options = VideoOptions(on_error="salvage", shots=False)
    good = len(read_video(broken / "cut.avi", on_error="salvage").frames)
    for name, backgrounds in (("bg", None), ("a", None), ("b", tmp_path / "bg")):
        if name == "bg":
            outcome = extract_backgrounds(replace(setup(broken, tmp_path / name), video=options, size=None), Silent())
        else:
            outcome = build_shards(
                replace(setup(broken, tmp_path / name), video=options, size=None, backgrounds=backgrounds), Silent()
            )
        counts = outcome.to_json()
        assert (counts["ok"], counts["partial"], counts["failed"]) == (1, 1, 0)
        store = open_store(tmp_path / name)
        row = store.row(store.find("cut.avi"))
        assert row.status == "partial" and row.num_frames == good < 60 == row.expected_frames
        assert not verify_store(tmp_path / name).problems
    whole = read_video(broken / "whole.avi").frames
    stored = open_store(tmp_path / "a")
    assert np.abs(stored.clip(stored.find("cut.avi"), 0, good).astype(int) - whole[:good]).mean() < 12


def test_salvage_in_little_memory(broken: Path, tmp_path: Path) -> None:
    options = VideoOptions(on_error="salvage", memory=48 * 64 * 4 * 12)
    outcome = build_shards(replace(setup(broken, tmp_path / "s"), video=options, size=None), Silent())
    assert outcome.to_json()["partial"] == 1 and not verify_store(tmp_path / "s", deep=True).problems


def test_fail_ends_the_run_and_names_the_video(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(BgaugError, match=r"cut.avi.*truncated.*--on-error fail"):
        extract_backgrounds(
            replace(setup(broken, tmp_path / "s"), size=BACKGROUND_SIZE, video=VideoOptions(on_error="fail")), Silent()
        )


# --- real videos ------------------------------------------------------------------------------------------------------


def test_verdicts_on_real_videos(real_data: Path, tmp_path: Path) -> None:
    """Cuts at the right frames, pans without a background, a camera on a stand with one."""
    clips = real_data / "clips"
    inputs = [clips / name for name in ("bikes.mp4", "v_SoccerJuggling_g23_c01.avi", "kth_person04_boxing_d1.mp4")]
    inputs.append(real_data / "actions" / "ut_interaction_set1" / "0_1_4.avi")
    plain = VideoOptions(method="median")  # cuts and cameras are found before any method, and this one is fast
    extract_backgrounds(BackgroundOptions(inputs=inputs, out=tmp_path / "s", video=plain, in_process=True), Silent())
    store = open_store(tmp_path / "s")
    assert store.shots(store.find("bikes.mp4"))[1:, 0].tolist() == [30, 76, 137, 187, 242]
    still = store.find("0_1_4.avi")
    assert (
        store.shots(still)[0, 2] >= 0
        and CAMERAS[store.columns.shot_camera[store.columns.shot_offsets[still]]] == "static"
    )
