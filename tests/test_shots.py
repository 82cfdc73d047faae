"""Cuts and cameras whose truth we made, and those of real videos, looked at frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import moving_square, scene

from bgaug.background import ShotSampler
from bgaug.shots.cuts import DELAY, CutFinder, camera_motion
from bgaug.video import open_video, thumbnail_of

Frames = NDArray[np.uint8]
Matrices = NDArray[Any]

CUTS = {
    "clips/bikes.mp4": [30, 76, 137, 187, 242],
    "clips/scene_cuts.mp4": [30, 76, 137, 187, 242],  # the same next to static plots
    # One shot whose file is broken from 229 on: half the image, then all of it, and at 268 it recovers.
    "clips/mmaction2_demo.mp4": [229, 268],
}
"""First frames of new shots, seen by eye around every large change; all other real videos are one shot."""

STATIC = ["cdnet_office", "sbi_board", "sbi_cavignal", "sbi_foliage", "sbi_highwayi", "sbi_humanbody2", "ucsd_peds"]
MOVING = ["ucsd_birds", "ucsd_cyclists", "ucsd_jump", "ucsd_surfers"]
STATIC_CLIPS = ["chaplin.mp4", "lrs_escalator.avi", "tree.avi", "v_ApplyEyeMakeup_g01_c01.avi"]
MOVING_CLIPS = ["kinetics_9r8wpMS2iEk.mp4", "kinetics_R6llTwEh07w.mp4", "v_biking_01_01.mpg"]


def textured(seed: int, height: int, width: int) -> Frames:
    """An image with structure of all sizes, as photographs have: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48, 96):
        coarse = rng.normal(0, 1, (cells, cells * width // height, 3))
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(120 + 30 * total, 0, 255).astype(np.uint8)


def seen_by(world: Frames, matrices: Matrices, noise: float = 2.0, seed: int = 0) -> Frames:
    """What a camera sees of a world: 120x160 about the middle, moved by (T, 2, 3) world to image, with noise."""
    rng = np.random.default_rng(seed)
    frames = [cv2.warpAffine(world, matrix, (world.shape[1], world.shape[0])) for matrix in matrices]
    top, left = (world.shape[0] - 120) // 2, (world.shape[1] - 160) // 2
    inside = np.stack(frames)[:, top : top + 120, left : left + 160]
    return np.clip(inside + rng.normal(0, noise, inside.shape), 0, 255).astype(np.uint8)


def moved(shifts: NDArray[np.float64]) -> Matrices:
    """Matrices that move the image by (dx, dy) each."""
    matrices = np.tile(np.eye(2, 3), (len(shifts), 1, 1))
    matrices[:, :, 2] = shifts
    return matrices


def with_square(frames: Frames, side: int) -> Frames:
    """A grey square with a pattern of its own crosses the image."""
    frames, pattern = frames.copy(), textured(99, side, side)
    T, H, W, _ = frames.shape
    for t in range(T):
        top, left = (H - side) // 2, round((W - side) * t / (T - 1))
        frames[t, top : top + side, left : left + side] = pattern
    return frames


def thumbnails(path: Path) -> Iterator[Frames]:
    with open_video(path) as reader:
        for frame in reader.scan():
            yield frame.thumbnail()


def streamed(pictures: Iterator[Frames] | list[Frames]) -> list[int]:
    """The cuts that a finder reports; checks that none comes early, late, twice or after its frame is settled."""
    finder, cuts, settled = CutFinder(), [], 0
    for index, thumbnail in enumerate(pictures):
        cut = finder.feed(thumbnail)
        if cut is not None:
            assert settled <= cut < finder.num_settled
            assert index - DELAY <= cut <= index
            cuts.append(cut)
        assert max(settled, index + 1 - DELAY) <= finder.num_settled <= index + 1
        settled = finder.num_settled
    last = finder.finish()
    assert all(settled <= cut for cut in last)
    assert finder.finish() == []
    return cuts + last


def video_of(lengths: list[int], seed: int = 0) -> Frames:
    """Shots of these lengths, each a square that moves before a scene of its own."""
    return np.concatenate([moving_square(seed + n, length)[0] for n, length in enumerate(lengths)])


def find_cuts(frames: Frames) -> list[int]:
    finder = CutFinder()
    return [cut for image in frames if (cut := finder.feed(thumbnail_of(image))) is not None] + finder.finish()


@pytest.mark.parametrize("lengths", [[20, 20], [15, 4, 30], [1, 20], [20, 1], [2, 9, 3 + DELAY, 8, 2], [5] * 12, [40]])
def test_cuts_are_found_at_their_frame(lengths: list[int]) -> None:
    assert find_cuts(video_of(lengths)) == np.cumsum(lengths)[:-1].tolist()


def test_cuts_do_not_depend_on_orientation_or_direction() -> None:
    lengths = [12, 20, 9, 31]
    frames = video_of(lengths)
    cuts = np.cumsum(lengths)[:-1].tolist()
    assert find_cuts(frames[:, :, ::-1]) == cuts
    assert find_cuts(frames[:, ::-1]) == cuts
    assert find_cuts(frames[::-1]) == [len(frames) - cut for cut in reversed(cuts)]


def test_noise_makes_and_hides_no_cut() -> None:
    lengths = [20, 20, 20]
    noise = np.random.default_rng(0).normal(0, 12, (60, 48, 64, 3))
    assert find_cuts(np.clip(video_of(lengths) + noise, 0, 255).astype(np.uint8)) == [20, 40]
    assert find_cuts(np.clip(video_of([60]) + noise, 0, 255).astype(np.uint8)) == []


@pytest.mark.parametrize("length", range(1, DELAY + 1))
def test_so_few_frames_between_two_scenes_are_no_shot(length: int) -> None:
    """Half an image, a broken one, a blend: they belong to the shot that follows."""
    old, between, new = (textured(seed, 120, 160) for seed in (1, 2, 3))
    frames = np.stack([old] * 20 + [between] * length + [new] * 20)
    assert find_cuts(frames) == [20]


@pytest.mark.parametrize("length", range(1, DELAY + 1))
def test_a_flash_is_no_cut(length: int) -> None:
    frames = moving_square(0, 40)[0]
    frames[20 : 20 + length] = 255 - (255 - frames[20 : 20 + length]) // 4
    assert find_cuts(frames) == []


def test_a_light_that_stays_on_is_a_cut() -> None:
    frames = moving_square(0, 40)[0]
    frames[20:] = frames[20:] // 3
    assert find_cuts(frames) == [20]


def test_a_dissolve_is_no_hard_cut() -> None:
    old, new = scene(0), scene(1)
    weights = np.linspace(0, 1, 16)[:, None, None, None]
    frames = np.concatenate(
        [np.repeat(old[None], 10, 0), (1 - weights) * old + weights * new, np.repeat(new[None], 10, 0)]
    )
    assert find_cuts(frames.astype(np.uint8)) == []


@pytest.mark.parametrize("step", [2, 8, 16])
def test_a_pan_is_no_cut(step: int) -> None:
    world = textured(1, 160, 240 + 30 * step)
    frames = np.stack([world[20:140, step * t : step * t + 160] for t in range(30)])
    assert find_cuts(frames) == []
    jerk = np.concatenate([frames[:1].repeat(15, 0), frames[2:3].repeat(15, 0)])  # two steps at once, then rest
    assert find_cuts(jerk) == []


def test_what_crosses_quickly_is_no_cut() -> None:
    frames = np.repeat(textured(2, 120, 160)[None], 40, 0)
    frames[20, 20:100, :70] = 250
    frames[21, 20:100, 40:110] = 250
    frames[22, 20:100, 90:] = 250
    assert find_cuts(frames) == []


def test_thumbnails_of_another_kind_are_refused() -> None:
    finder = CutFinder()
    with pytest.raises(
        ValueError, match=r"thumbnail must be uint8 \(60, 80, 3\), got uint8 thumbnail.shape = \(60, 80\)"
    ):
        finder.feed(np.zeros((60, 80), np.uint8))
    with pytest.raises(ValueError, match="got float32"):
        finder.feed(np.zeros((60, 80, 3), np.float32))
    assert finder.finish() == []
    with pytest.raises(ValueError, match=r"must be uint8 \(T, H, W, 3\)"):
        camera_motion(np.zeros((4, 60, 80), np.uint8))
    with pytest.raises(ValueError, match="none empty"):
        camera_motion(np.zeros((0, 60, 80, 3), np.uint8))


def test_a_still_camera_before_a_large_square_is_static() -> None:
    frames = seen_by(textured(3, 200, 240), moved(np.zeros((25, 2))))
    for side in (0, 60, 76):  # up to 30 % of the image
        camera = camera_motion(with_square(frames, side) if side else frames)
        assert camera.verdict == "static"
        assert camera.spread < 0.2
        assert np.nanpercentile(np.abs(camera.shifts), 80) < 0.3


@pytest.mark.parametrize("num_samples", [5, 24, 51])
def test_jitter_is_measured(num_samples: int) -> None:
    shifts = np.random.default_rng(4).uniform(-3, 3, (num_samples, 2))
    frames = with_square(seen_by(textured(4, 200, 240), moved(shifts)), 40)
    camera = camera_motion(frames)
    assert camera.verdict == "jitter"
    assert camera.reference == num_samples // 2
    error = np.hypot(*(camera.shifts - (shifts - shifts[camera.reference])).T)
    assert np.isfinite(error).all()
    assert error.max() < 0.3  # of 160 pixels
    assert ((camera.response >= 3 / 12) & (camera.response <= 1)).all()


def test_shifts_are_in_pixels_of_the_samples_and_turn_with_them() -> None:
    shifts = np.random.default_rng(5).uniform(-3, 3, (11, 2))
    frames = seen_by(textured(5, 200, 240), moved(shifts), noise=0)
    camera = camera_motion(frames)
    mirrored = camera_motion(np.ascontiguousarray(frames[:, :, ::-1]))
    np.testing.assert_allclose(mirrored.shifts, camera.shifts * [-1, 1], atol=0.1)
    doubled = camera_motion(frames.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(doubled.shifts, camera.shifts * 2, atol=0.2)
    order = np.random.default_rng(6).permutation(11)
    order[[5, np.flatnonzero(order == 5)[0]]] = order[[np.flatnonzero(order == 5)[0], 5]]  # the middle one stays
    np.testing.assert_allclose(camera_motion(frames[order]).shifts, camera.shifts[order], atol=1e-4)


def test_pictures_in_a_list_are_judged_as_in_an_array() -> None:
    frames = seen_by(textured(15, 200, 240), moved(np.zeros((25, 2))))
    one, other = camera_motion(frames), camera_motion(list(frames))
    assert one.verdict == other.verdict == "static" and one.spread == other.spread
    with pytest.raises(ValueError, match="none empty"):
        camera_motion([frames[0], frames[1, 1:]])


@pytest.mark.parametrize("length", [5, 6, 8])
def test_a_camera_that_is_pushed_for_a_third_of_the_shot_is_not_static(length: int) -> None:
    shifts = np.zeros((17, 2))
    shifts[-length:] = (3, -2)  # of 17 probes, or of the 9 that are looked at first
    assert camera_motion(seen_by(textured(16, 200, 240), moved(shifts))).verdict == "jitter"


@pytest.mark.parametrize("num_samples", [10, 18, 34, 36, 51])
def test_samples_that_share_nothing_are_moving(num_samples: int) -> None:
    samples = np.random.default_rng(17).integers(0, 256, (num_samples, 60, 80, 3), dtype=np.uint8)
    camera = camera_motion(samples)
    assert camera.verdict == "moving" and camera.seen < 0.1 and np.isfinite(camera.spread)


def test_a_pan_is_moving() -> None:
    world = textured(7, 160, 400)
    frames = np.stack([world[20:140, 2 * t : 2 * t + 160] for t in range(0, 100, 4)])  # 2 pixels a frame
    assert camera_motion(frames).verdict == "moving"


def test_bars_and_a_logo_that_stand_still_hide_no_pan() -> None:
    world = textured(13, 160, 400)
    frames = np.stack([world[20:140, 2 * t : 2 * t + 160] for t in range(0, 100, 4)])
    frames[:, :15] = frames[:, -15:] = 0
    frames[:, 90:104, 130:155] = textured(14, 14, 25)
    assert camera_motion(frames).verdict == "moving"


@pytest.mark.parametrize("zoom", [1.15, 1.4])
def test_a_zoom_is_moving(zoom: float) -> None:
    matrices = np.stack([cv2.getRotationMatrix2D((120, 100), 0, z) for z in np.geomspace(1, zoom, 25)])
    assert camera_motion(seen_by(textured(8, 200, 240), matrices)).verdict == "moving"


def test_a_roll_is_moving() -> None:
    matrices = np.stack([cv2.getRotationMatrix2D((120, 100), angle, 1) for angle in np.linspace(-8, 8, 25)])
    assert camera_motion(seen_by(textured(9, 200, 240), matrices)).verdict == "moving"


@pytest.mark.parametrize("noise", [0.0, 6.0, 15.0])
def test_noise_and_light_move_no_camera(noise: float) -> None:
    frames = seen_by(textured(10, 200, 240), moved(np.zeros((25, 2))), noise)
    frames[::3] = frames[::3] // 2
    assert camera_motion(frames).verdict == "static"


def test_nothing_to_go_by_is_unknown() -> None:
    flat = np.full((9, 120, 160, 3), 90, np.uint8)
    two = seen_by(textured(11, 200, 240), moved(np.zeros((2, 2))))
    half = flat.copy()
    half[:, 100:, 130:] = textured(12, 20, 30)  # only one tile has texture
    for samples in (flat, two, half):
        camera = camera_motion(samples)
        assert camera.verdict == "unknown"
        assert np.isnan(camera.spread)
        assert np.isnan(camera.shifts).all()
        assert not camera.response.any()


def sampled(path: Path) -> Frames:
    with open_video(path) as reader:
        info = reader.info
        sampler = ShotSampler((info.height, info.width), side=240)
        for frame in reader.scan():
            if sampler.wants(frame.index):
                sampler.add(frame.index, frame.rgb())
    return np.stack(sampler.samples())


every = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.full)])
"""The short form uses one real video of four."""


@every
def test_cuts_of_real_videos(real_data: Path, every: int) -> None:
    paths = sorted(p for folder in ("clips", "backgrounds") for p in (real_data / folder).rglob("*") if is_video(p))
    assert len(paths) >= 31
    named = {path: str(path.relative_to(real_data)) for path in paths}
    for path, name in named.items():
        if name not in CUTS and path not in paths[::every]:
            continue
        assert streamed(thumbnails(path)) == CUTS.get(name, []), name


def test_clips_of_one_shot_have_no_cut(real_data: Path) -> None:
    paths = sorted(p for p in (real_data / "actions" / "ut_interaction_set1").iterdir() if is_video(p))
    assert len(paths) == 60
    for path in paths:
        assert streamed(thumbnails(path)) == [], path.name


def test_cuts_between_real_videos_are_found(real_data: Path) -> None:
    folders = sorted((real_data / "backgrounds").iterdir())
    starts = [list(islice(thumbnails(next(folder.glob("video.*"))), 20)) for folder in folders]
    joined = [thumbnail for start in starts for thumbnail in start]
    assert streamed(joined) == np.cumsum([len(start) for start in starts])[:-1].tolist()


@every
def test_cameras_of_real_videos(real_data: Path, every: int) -> None:
    expected = {name: "static" for name in STATIC} | {name: "moving" for name in MOVING} | {"cdnet_traffic": "jitter"}
    paths = {next((real_data / "backgrounds" / name).glob("video.*")): verdict for name, verdict in expected.items()}
    paths |= {real_data / "clips" / name: "static" for name in STATIC_CLIPS}
    paths |= {real_data / "clips" / name: "moving" for name in MOVING_CLIPS}
    chosen = [path for verdict in ("static", "moving") for path in paths if paths[path] == verdict][::every]
    chosen += [path for path in paths if paths[path] == "jitter"]
    found = {path: camera_motion(sampled(path)) for path in chosen}
    wrong = {path.name: camera for path, camera in found.items() if camera.verdict != paths[path]}
    assert not wrong
    static = [camera for path, camera in found.items() if paths[path] == "static"]
    assert max(camera.spread for camera in static) < 0.5


@every
def test_cameras_before_people_are_static(real_data: Path, every: int) -> None:
    paths = sorted(p for p in (real_data / "actions" / "ut_interaction_set1").iterdir() if is_video(p))[:: 10 * every]
    assert {path.name: camera_motion(sampled(path)).verdict for path in paths} == {p.name: "static" for p in paths}


def is_video(path: Path) -> bool:
    return path.suffix in {".avi", ".mp4", ".mpg"}
