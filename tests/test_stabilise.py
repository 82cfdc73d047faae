"""Cameras whose every move we made."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import shot_of, textured

from bgaug.background import Background, Canvas, ShotSamples
from bgaug.background.align import FrameAligner
from bgaug.background.image import MIN_CONFIDENCE, view
from bgaug.background.median import median_where
from bgaug.background.moving import align_frames, put_together, stabilise_samples, steadied
from bgaug.masks import foreground_mask
from bgaug.masks.difference import frame_mask, threshold_map
from bgaug.shots.cuts import camera_motion
from bgaug.shots.estimate import estimate_background
from bgaug.video import read_video, write_video

Frames = NDArray[np.uint8]
H, W = 120, 160


def seen_by(world: Frames, matrices: np.ndarray, noise: float = 2.0, seed: int = 0) -> Frames:
    """Frames of a camera: (T, 2, 3) frame to world."""
    rng = np.random.default_rng(seed)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    frames = np.stack([cv2.warpAffine(world, matrix, (W, H), flags=flags) for matrix in matrices])
    return np.clip(frames + rng.normal(0, noise, frames.shape), 0, 255).round().astype(np.uint8)


def stabilised(frames: Frames, shot: ShotSamples, shifts: np.ndarray) -> Background | None:
    """The background of a shaking camera, if there is one."""
    canvas = stabilise_samples(shot, shifts)
    return None if canvas is None else replace(canvas.usual_view(), canvas=align_frames(canvas, frames))


def moved(shifts: np.ndarray) -> np.ndarray:
    """Cameras at (dx, dy) each, 40 pixels within the world."""
    matrices = np.tile(np.eye(2, 3), (len(shifts), 1, 1))
    matrices[:, :, 2] = shifts + 40.0
    return matrices


def with_walker(frames: Frames, seed: int = 99, speed: float | None = None) -> tuple[Frames, NDArray[np.bool_]]:
    """A patterned ellipse crosses the image; its true masks."""
    frames, pattern = frames.copy(), 255 - textured(seed, 40, 20)
    T = len(frames)
    body = np.zeros((40, 20), np.uint8)
    cv2.ellipse(body, (10, 20), (9, 19), 0, 0, 360, 255, -1)
    masks = np.zeros(frames.shape[:3], np.bool_)
    for t in range(T):
        left = round((W - 20) * t / max(1, T - 1))
        masks[t, 50:90, left : left + 20] = body > 0
        frames[t, 50:90, left : left + 20][body > 0] = pattern[body > 0]
    return frames, masks


def shifts_of(shot: ShotSamples) -> NDArray[np.float32]:
    return camera_motion(np.stack(shot.images)).shifts


def corners_apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance in pixels at which two transforms place a corner of the frame."""
    corners = np.array([[0, 0, 1], [W - 1, 0, 1], [0, H - 1, 1], [W - 1, H - 1, 1]], np.float64)
    return float(np.linalg.norm((a - b) @ corners.T, axis=-2).max())


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * int((found & truth).sum()) / max(1, int(found.sum()) + int(truth.sum()))


WORLD = textured(1, H + 80, W + 80)
SHAKES = np.random.default_rng(2).uniform(-3, 3, (60, 2))


@pytest.mark.parametrize("limit", [1.0, 8.0])
def test_known_shifts_are_found(limit: float) -> None:
    shifts = SHAKES * limit / 3
    frames, _ = with_walker(seen_by(WORLD, moved(shifts)))
    clean = seen_by(WORLD, moved(np.zeros((1, 2))), 0)[0]
    aligner = FrameAligner(clean)
    for image, shift in zip(frames, shifts, strict=True):
        found = aligner.align(image)
        expected = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        assert corners_apart(found.transform, expected) < 0.2
        assert MIN_CONFIDENCE < found.confidence <= 1


@pytest.mark.parametrize(("angle", "scale"), [(2.0, 1.0), (-1.0, 1.03), (0.0, 0.97)])
def test_turns_and_zooms_are_found(angle: float, scale: float) -> None:
    turn = cv2.getRotationMatrix2D((W / 2, H / 2), angle, scale)
    matrix = turn + np.array([[0, 0, 42], [0, 0, 39]])
    image = seen_by(WORLD, matrix[None])[0]
    found = FrameAligner(seen_by(WORLD, moved(np.zeros((1, 2))), 0)[0]).align(image)
    assert corners_apart(found.transform, matrix - np.array([[0, 0, 40], [0, 0, 40]])) < 0.4


def test_a_still_camera_stays_where_it_is() -> None:
    frames, _ = with_walker(seen_by(WORLD, moved(np.zeros((40, 2))), 4))
    shot = shot_of(frames)
    background = stabilised(frames, shot, np.zeros((len(shot.images), 2), np.float32))
    assert background is not None and background.canvas is not None
    transforms = background.canvas.transforms
    assert max(corners_apart(transform, transforms[20]) for transform in transforms) < 0.1
    assert np.abs(background.at(7).astype(int) - background.image).max() <= 2
    assert background.image.shape == frames.shape[1:] and background.valid.all()


@pytest.mark.parametrize("light", [0.7, 1.3])
def test_light_moves_nothing(light: float) -> None:
    still = seen_by(WORLD, moved(np.zeros((1, 2))), 0)[0]
    brighter = np.clip(still.astype(float) * light - 5, 0, 255).astype(np.uint8)
    assert corners_apart(FrameAligner(still).align(brighter).transform, np.eye(2, 3)) < 0.1


def test_a_shaking_camera_has_a_sharp_background_and_good_masks(tmp_path: Path) -> None:
    frames, masks = with_walker(seen_by(WORLD, moved(SHAKES), 3))
    write_video(tmp_path / "shaking.mp4", frames, pixel_format="yuv420p", options={"crf": "23"})
    frames = read_video(tmp_path / "shaking.mp4").frames
    shot = shot_of(frames)
    canvas = stabilise_samples(shot, shifts_of(shot))
    assert canvas is not None
    height, width, _ = canvas.image.shape
    assert H + 4 <= height <= H + 10 and W + 4 <= width <= W + 10
    aligned = align_frames(canvas, iter(frames))
    transforms = aligned.transforms
    # Up to the place of the whole: that of the usual frame.
    offset = np.median(transforms[:, :, 2] - SHAKES, axis=0)
    expected = moved(SHAKES - 40 + offset)
    assert max(corners_apart(a, b) for a, b in zip(transforms, expected, strict=True)) < 0.35
    assert aligned.confidence.min() > 0.7
    threshold = [threshold_map(np.asarray(view(canvas.noise, t, canvas.size))) for t in transforms]
    seen = [np.asarray(view(canvas.image, transform, canvas.size), np.uint8) for transform in transforms]
    found = np.stack([frame_mask(*three) for three in zip(frames, seen, threshold, strict=True)])
    assert f1(found, masks) > 0.9
    background = replace(canvas.usual_view(), canvas=aligned)
    assert background.image.shape == frames.shape[1:]
    assert f1(foreground_mask(frames, background), masks) > 0.85
    unmoved = Background(background.image, background.noise, background.valid)
    assert f1(foreground_mask(frames, unmoved), masks) < 0.5


def test_steadied_samples_lie_on_each_other() -> None:
    shot = shot_of(seen_by(WORLD, moved(SHAKES)))
    canvas = stabilise_samples(shot, shifts_of(shot))
    assert canvas is not None
    steady = steadied(shot, canvas)
    spread = np.stack([image[10:-10, 10:-10] for image in steady.images]).std(0).mean()
    assert spread < 0.4 * np.stack([image[10:-10, 10:-10] for image in shot.images]).std(0).mean()


def test_mirrored_shots_have_mirrored_backgrounds() -> None:
    frames, _ = with_walker(seen_by(WORLD, moved(SHAKES)))
    found = []
    for clip in (frames, np.ascontiguousarray(frames[:, :, ::-1])):
        shot = shot_of(clip)
        background = stabilised(clip, shot, shifts_of(shot))
        assert background is not None
        found.append(background.image[8:-8, 8:-8].astype(int))
    assert np.abs(found[0][:, ::-1] - found[1]).mean() < 1.5


def test_the_order_of_samples_does_not_matter() -> None:
    frames = seen_by(WORLD, moved(SHAKES[:15]))
    shot = shot_of(frames)
    order = np.random.default_rng(3).permutation(len(shot.images))
    shifts = shifts_of(shot)
    mixed = ShotSamples(
        [shot.images[i] for i in order], [shot.changes[i] for i in order], shot.indices, shot.num_frames, shot.noise
    )
    a, b = stabilise_samples(shot, shifts), stabilise_samples(mixed, shifts[order])
    assert a is not None and b is not None
    assert np.array_equal(a.image, b.image)
    np.testing.assert_allclose(a.transforms[order], b.transforms, atol=1e-3)


def test_nothing_to_go_by_is_reported() -> None:
    flat = np.full((20, H, W, 3), 90, np.uint8)
    aligner = FrameAligner(flat[0])
    assert aligner.num_points == 0
    start = np.array([[1, 0, 2], [0, 1, 3]], np.float32)
    found = aligner.align(flat[1], start)
    assert found.confidence == 0 and np.array_equal(found.transform, start)
    shot = shot_of(flat)
    assert stabilise_samples(shot, np.zeros((len(shot.images), 2), np.float32)) is None
    one = shot_of(seen_by(WORLD, moved(np.zeros((1, 2)))))
    assert stabilise_samples(one, np.zeros((1, 2), np.float32)) is None
    assert stabilised(flat, shot, np.full((len(shot.images), 2), np.nan, np.float32)) is None


def test_another_scene_is_not_held_for_aligned() -> None:
    aligner = FrameAligner(seen_by(WORLD, moved(np.zeros((1, 2))))[0])
    others = [seen_by(textured(seed, H + 80, W + 80), moved(np.zeros((1, 2))))[0] for seed in range(20, 40)]
    assert max(aligner.align(image).confidence for image in others) < MIN_CONFIDENCE


def test_a_frame_that_cannot_be_aligned_lies_between_its_neighbours() -> None:
    frames = seen_by(WORLD, moved(SHAKES))
    shot = shot_of(frames)
    canvas = stabilise_samples(shot, shifts_of(shot))
    assert canvas is not None
    broken = frames.copy()
    broken[31] = 0
    aligned = align_frames(canvas, broken)
    assert aligned.confidence[31] < MIN_CONFIDENCE
    np.testing.assert_array_equal(aligned.transforms[31], canvas.guess(31))


def test_frames_of_another_kind_are_refused() -> None:
    aligner = FrameAligner(textured(1, H, W))
    with pytest.raises(ValueError, match=r"image must be uint8 \(120, 160, 3\), got uint8 image.shape = \(60, 80, 3\)"):
        aligner.align(np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ValueError, match="got float32"):
        aligner.align(np.zeros((H, W, 3), np.float32))


def test_the_median_is_of_what_was_seen() -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (11, 9, 13, 3), dtype=np.uint8)
    seen = rng.random((11, 9, 13)) < 0.6
    seen[:, 0, 0] = False
    images[~seen] = 255
    found = median_where(list(images), list(seen))
    for y, x in np.ndindex(9, 13):
        own = images[seen[:, y, x], y, x]
        if len(own):
            assert np.array_equal(found[y, x], np.sort(own, axis=0)[(len(own) - 1) // 2])


def test_what_few_samples_saw_is_not_valid() -> None:
    shifts = np.zeros((11, 2))
    shifts[:2, 0] = 10  # only two samples saw the right rim
    shot = shot_of(seen_by(WORLD, moved(shifts), 0))
    transforms = moved(shifts - 40).astype(np.float32)
    canvas = put_together(shot, transforms, np.ones(11, np.float32))
    assert isinstance(canvas, Canvas)
    assert canvas.image.shape == (H, W + 10, 3)
    assert canvas.valid[:, : W - 1].all() and not canvas.valid[:, W + 1 :].any()
    assert put_together(shot, transforms, np.ones(11, np.float32), 1.01) is None
    seen = view(canvas.image, canvas.transforms[5], canvas.size)
    assert np.abs(seen.astype(int) - shot.images[5]).max() <= 1


def test_aligning_is_quick(report: list[str]) -> None:
    world = textured(5, 320, 400)
    frames = [
        np.asarray(cv2.warpAffine(world, np.array([[1, 0, -40 - dx], [0, 1, -40 - dy]]), (320, 240)), np.uint8)
        for dx, dy in SHAKES
    ]
    aligner = FrameAligner(np.ascontiguousarray(world[40:280, 40:360]))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        begun = time.process_time()
        for image in frames:
            aligner.align(image)
        each = (time.process_time() - begun) / len(frames)
    finally:
        cv2.setNumThreads(threads)
    report.append(f"aligning a frame of 320x240: {1e3 * each:.2f} ms CPU")
    assert each < 5e-3  # three times what it takes on an idle machine


def test_masks_of_some_frames_are_those_among_all() -> None:
    frames, masks = with_walker(seen_by(WORLD, moved(SHAKES), 3))
    background = estimate_background(frames)
    assert background.canvas is not None and background.grade is not None
    together = foreground_mask(frames, background)
    assert f1(together, masks) > 0.85
    some = [33, 5, 20]
    assert f1(foreground_mask(frames[some], background), together[some]) > 0.97
