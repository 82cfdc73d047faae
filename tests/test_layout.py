"""Black bars and still parts next to a video, in images that we made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_process_video import mover_over, pan_over, setup
from test_shots import moved, seen_by, textured, with_square

from bgaug.background import ShotSampler, ShotSamples
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.progress import Silent
from bgaug.shots.estimate import estimate_shot
from bgaug.shots.layout import Box, black_bars, moving_box
from bgaug.store import open_store
from bgaug.video import write_video

Frames = NDArray[np.uint8]


def samples_of(frames: Frames) -> ShotSamples:
    sampler = ShotSampler((frames.shape[1], frames.shape[2]))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def pan(length: int = 40) -> Frames:
    return pan_over(textured(1, 120, 160 + 3 * length), length)


def still(length: int = 40) -> Frames:
    return with_square(seen_by(textured(2, 200, 240), moved(np.zeros((length, 2)))), 40)


def barred(frames: Frames, above: int, below: int, left: int = 0, right: int = 0) -> Frames:
    """With black bars of so many pixels around it."""
    return np.pad(frames, ((0, 0), (above, below), (left, right), (0, 0)), constant_values=4)


@pytest.mark.parametrize(
    ("bars", "reason"),
    [
        ((15, 15, 0, 0), "black bars: 10 % above, 10 % below"),
        ((0, 0, 40, 40), "black bars: 17 % on the left, 17 % on the right"),
        ((0, 40, 0, 0), "black bars: 25 % below"),
    ],
)
def test_black_bars_are_a_reason_and_change_nothing_else(bars: tuple[int, int, int, int], reason: str) -> None:
    frames = barred(still(), *bars)
    samples = samples_of(frames)
    above, below, left, right = bars
    assert black_bars(samples.images) == Box(above, left, frames.shape[1] - below, frames.shape[2] - right)
    shot, other = estimate_shot(samples), estimate_shot(samples, look_at_camera=False)
    assert shot.reasons == (*other.reasons, reason) and shot.grade == other.grade and shot.camera == "static"
    assert shot.background is not None and other.background is not None
    assert np.array_equal(shot.background.image, other.background.image)


def test_a_pan_between_bars_is_moving() -> None:
    shot = estimate_shot(samples_of(barred(pan(), 20, 20)))
    assert shot.camera == "moving" and shot.grade == "F"
    assert shot.reasons[1:] == ("black bars: 12 % above, 12 % below",)


def test_dark_scenes_have_no_bars() -> None:
    dusk = (still().astype(float) * np.linspace(0, 1, 120)[None, :, None, None]).astype(np.uint8)
    lamp = np.full((20, 120, 160, 3), 6, np.uint8)
    lamp[:, 50:80, 60:90] = 220
    for frames in (still(), dusk, lamp, np.zeros((20, 120, 160, 3), np.uint8), barred(still(), 2, 2)):
        assert black_bars(list(frames)) is None


def page(height: int, width: int) -> Frames:
    """A still page with lines of text."""
    image = np.full((height, width, 3), 240, np.uint8)
    image[10:-10:8, 8:-8] = 20
    return image


def side_by_side(frames: Frames, part: Frames) -> Frames:
    return np.concatenate([frames, np.repeat(part[None], len(frames), 0)], axis=2)


def inset(frames: Frames, around: Frames, top: int, left: int) -> Frames:
    whole = np.repeat(around[None], len(frames), 0)
    whole[:, top : top + frames.shape[1], left : left + frames.shape[2]] = frames
    return whole


@pytest.mark.parametrize("place", ["right", "left", "inset"])
def test_a_camera_that_moves_next_to_a_still_part_is_moving(place: str) -> None:
    moving = side_by_side(pan(), page(120, 160)) if place != "inset" else inset(pan(), page(240, 320), 50, 100)
    moving = moving[:, :, ::-1] if place == "left" else moving
    shot = estimate_shot(samples_of(np.ascontiguousarray(moving)))
    share = 75 if place == "inset" else 50
    (reason,) = shot.reasons
    assert (shot.camera, shot.grade, shot.background) == ("moving", "F", None)
    assert reason.endswith("% of the image never changes, and the camera moves in the rest")
    assert abs(int(reason.split()[0]) - share) <= 3


def test_a_still_camera_next_to_a_still_part_stays_static() -> None:
    for frames in (side_by_side(still(), page(120, 160)), inset(still(), page(240, 320), 50, 100)):
        shot = estimate_shot(samples_of(frames))
        assert shot.camera == "static" and shot.background is not None


def test_people_do_not_fill_a_rectangle() -> None:
    """An oval of a third of the image that sways, a pan of the whole image, a still scene, too few samples."""
    swaying = np.repeat(textured(3, 120, 160)[None], 30, 0)
    for t in range(30):
        left = 40 + round(8 * np.sin(t / 3))
        oval = cv2.ellipse(np.zeros((110, 60), np.uint8), (30, 55), (30, 55), 0, 0, 360, 1, -1) > 0
        swaying[t, 10:, left : left + 60][oval] = textured(4, 110, 60)[oval]
    assert moving_box(list(pan())) is None
    assert moving_box(list(side_by_side(pan(), page(120, 160))[:8])) is None
    assert moving_box(list(swaying)) is None
    assert moving_box(list(still())) is None and moving_box([np.zeros((60, 80, 3), np.uint8)] * 20) is None


def test_reasons_reach_the_store(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "bars.mp4", barred(mover_over(textured(5, 120, 160), 40), 16, 16))
    write_video(videos / "half.mp4", side_by_side(pan(), page(120, 160)))
    extract_backgrounds(replace(setup(videos, tmp_path / "bg"), size=(120, 160)), Silent())
    store = open_store(tmp_path / "bg")
    (bars,), (half,) = (store.row(store.find(name)).shots for name in ("bars.mp4", "half.mp4"))
    assert bars.camera == "static" and bars.reasons[-1].startswith("black bars: 1")
    assert half.camera == "moving" and "never changes" in half.reasons[0]


def test_half_of_a_real_video_is_a_plot(real_data: Path) -> None:
    """The same film with and without plots next to it: a pan is moving in both, as far as it does not merely shake."""
    from bgaug.video import read_video

    frames = read_video(real_data / "clips" / "scene_cuts.mp4").frames
    for start, stop in ((30, 76), (76, 137)):
        shot = estimate_shot(samples_of(frames[start:stop]))
        assert shot.camera == "moving" and shot.reasons[0].startswith("5")
