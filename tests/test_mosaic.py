"""Pans over worlds that we made, and shots that must be refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_stabilise import H, W, corners_apart, f1, moved, seen_by, with_walker
from worlds import shot_of, textured

from bgaug.background.image import view
from bgaug.background.moving import _halves_apart, align_frames, mosaic_samples
from bgaug.masks.difference import difference_mask, frame_mask, threshold_map
from bgaug.video import read_video

WIDE = textured(1, H + 80, 420)
PAN = np.stack([np.linspace(0, 110, 100), 4 * np.sin(np.arange(100) / 20)], axis=1)


def panned(shifts: np.ndarray = PAN, noise: float = 2.0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return with_walker(seen_by(WIDE, moved(shifts), noise))


def test_a_pan_has_a_mosaic_and_good_masks() -> None:
    frames, masks = panned()
    shot = shot_of(frames)
    canvas = mosaic_samples(shot)
    assert canvas is not None
    height, width, _ = canvas.image.shape
    assert H + 6 <= height <= H + 12 and W + 106 <= width <= W + 114
    aligned = align_frames(canvas, frames)
    transforms = aligned.transforms
    assert aligned.confidence.min() > 0.7
    offset = np.median(transforms[:, :, 2] - PAN, axis=0)
    expected = moved(PAN - 40 + offset)
    assert np.median([corners_apart(a, b) for a, b in zip(transforms, expected, strict=True)]) < 0.3
    placed = cv2.warpAffine(WIDE, np.array([[1, 0, offset[0] - 40], [0, 1, offset[1] - 40]]), (width, height))
    inner = cv2.erode(canvas.valid.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0) > 0
    assert np.abs(placed.astype(int) - canvas.image)[inner].mean() < 3
    found = []
    for image, transform in zip(frames, transforms, strict=True):
        threshold = threshold_map(np.asarray(view(canvas.noise, transform, canvas.size), np.float32))
        found.append(frame_mask(image, np.asarray(view(canvas.image, transform, canvas.size), np.uint8), threshold))
    assert f1(np.stack(found), masks) > 0.85


def test_mirrored_pans_have_mirrored_mosaics() -> None:
    frames, _ = panned(PAN[::5])
    sizes = []
    for clip in (frames, np.ascontiguousarray(frames[:, :, ::-1])):
        canvas = mosaic_samples(shot_of(clip))
        assert canvas is not None
        sizes.append(canvas)
    a, b = sizes[0], sizes[1]
    np.testing.assert_allclose(a.image.shape, b.image.shape, atol=2)
    here = view(a.image, a.transforms[9], a.size)[:, ::-1].astype(int)
    assert np.abs(here - view(b.image, b.transforms[9], b.size)).mean() < 1.5


def refused(frames: NDArray[np.uint8]) -> bool:
    return mosaic_samples(shot_of(frames)) is None


def test_few_samples_are_refused() -> None:
    frames, _ = panned(PAN[::12])
    assert len(frames) == 9 and not refused(frames)
    assert refused(frames[:1]) and refused(frames[:7])


def test_no_texture_is_refused() -> None:
    assert refused(np.full((40, H, W, 3), 90, np.uint8))


def test_other_scenes_are_refused() -> None:
    frames = np.stack([textured(seed, H, W) for seed in range(20)])
    assert refused(frames)
    halves = np.concatenate([panned(PAN[:40])[0], seen_by(textured(9, H + 80, 420), moved(PAN[40:80]))])
    assert refused(halves)


def test_too_far_a_pan_is_refused() -> None:
    world = textured(3, H + 80, 700)
    frames = seen_by(world, moved(np.stack([np.linspace(0, 400, 120), np.zeros(120)], axis=1)))
    assert refused(frames)
    assert not refused(frames[:30])


def test_two_layers_that_move_apart_are_refused() -> None:
    far = seen_by(WIDE, moved(PAN * 0.3))
    near = seen_by(textured(4, H + 80, 420), moved(PAN))
    rng = np.random.default_rng(5)
    holes = cv2.resize(rng.random((12, 50)).astype(np.float32), (420, H + 80), interpolation=cv2.INTER_CUBIC) > 0.5
    shape = seen_by(np.repeat(holes[..., None] * np.uint8(255), 3, 2), moved(PAN), 0)
    assert refused(np.where(shape > 127, near, far))


def test_halves_of_a_correct_mosaic_agree_and_those_of_a_wrong_one_do_not() -> None:
    shot = shot_of(panned(PAN[::4])[0])
    canvas = mosaic_samples(shot)
    assert canvas is not None
    shared, apart = _halves_apart(shot, canvas)
    assert 0.3 < shared < 1 and apart < 0.01
    drifted = canvas.transforms.copy()
    drifted[:, 0, 2] += np.linspace(0, 12, len(drifted))
    drifted[:, 0, 2] -= drifted[:, 0, 2].min()
    assert _halves_apart(shot, replace(canvas, transforms=drifted))[1] > 0.1


@pytest.mark.parametrize("name", ["ucsd_cyclists", "ucsd_surfers", "ucsd_birds"])
def test_real_pans(real_data: Path, name: str) -> None:
    folder = real_data / "backgrounds" / name
    frames = read_video(next(folder.glob("video.*"))).frames
    canvas = mosaic_samples(shot_of(frames))
    # Grass; the others show waves and smoke, which have no still image.
    assert (canvas is not None) == (name == "ucsd_cyclists")
    if canvas is not None:
        transforms = align_frames(canvas, frames).transforms
        seen = [np.asarray(view(canvas.image, t, canvas.size), np.uint8) for t in transforms]
        floor = np.full(frames.shape[1:3], 26, np.uint8)
        share = np.mean([frame_mask(*pair, floor).mean() for pair in zip(frames, seen, strict=True)])
        plain = np.mean([difference_mask(a, b).mean() for a, b in zip(frames[1:], frames, strict=False)])
        assert share < 0.06 < plain  # three of a hundred pixels are cyclists
