from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from worlds import moving_square, scene

from bgaug.background.gated import gated_median, still_samples, weighted_median
from bgaug.background.lowrank import light_changes, low_rank_background, robust_line
from bgaug.background.median import median_by_bits
from bgaug.background.methods import Estimator, knn_background, median_background, mog2_background
from bgaug.background.samples import ShotSampler, ShotSamples

METHODS = [gated_median, low_rank_background, mog2_background, knn_background]
ROBUST = METHODS[:2]


def shot_of(frames: np.ndarray) -> ShotSamples:
    sampler = ShotSampler(frames.shape[1:3], side=min(frames.shape[1:3]))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(found.astype(int) - truth).mean())


def textured(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_mover(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A textured thing creeps 100 pixels in 100 frames, so that it covers some pixels for 68 of them."""
    ground = scene(1, 60, 200)
    frames, thing = np.repeat(ground[None], 100, 0), textured(2, 40, 68) // 3
    for t in range(100):
        left = 10 + t
        frames[t, 10:50, left : left + 68] = thing
    if noise:
        jitter = np.random.default_rng(3).normal(0, noise, frames.shape)
        frames = np.clip(frames + jitter, 0, 255).round().astype(np.uint8)
    return frames, ground


def lit(frames: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(frames * gains[:, None, None, None], 0, 255).round(), np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_a_still_clip_is_its_own_background(method: Estimator) -> None:
    image = scene(3)
    found, valid = method(shot_of(np.repeat(image[None], 30, 0)))
    assert found.dtype == np.uint8 and valid.dtype == np.bool_ and valid.all() and valid.shape == image.shape[:2]
    assert np.abs(found.astype(int) - image).max() <= 1


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_few_frames_are_enough_for_a_picture(method: Estimator, num_frames: int) -> None:
    image = scene(4)
    found, _ = method(shot_of(np.repeat(image[None], num_frames, 0)))
    assert np.abs(found.astype(int) - image).max() <= 1


@pytest.mark.parametrize("method", ROBUST)
def test_mirrored_samples_give_a_mirrored_background(method: Estimator) -> None:
    frames, _ = slow_mover(2.0)
    found = method(shot_of(frames))[0][:, ::-1]
    mirrored = method(shot_of(np.ascontiguousarray(frames[:, :, ::-1])))[0]
    assert np.percentile(np.abs(found.astype(int) - mirrored), 99) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_what_crosses_is_not_in_the_background(method: Estimator) -> None:
    frames, _, truth = moving_square(num_frames=120)
    assert error(method(shot_of(frames))[0], truth) < (1 if method in ROBUST else 6)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_shot_gives_the_same_background(method: Estimator) -> None:
    shot = shot_of(slow_mover(2.0)[0])
    kept = [image.copy() for image in shot.images]
    assert np.array_equal(method(shot)[0], method(shot)[0])
    assert all(np.array_equal(a, b) for a, b in zip(kept, shot.images, strict=True))


@pytest.mark.parametrize("method", ROBUST)
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_what_creeps_over_the_median_is_seen_through(method: Estimator, noise: float) -> None:
    frames, truth = slow_mover(noise)
    shot = shot_of(frames)
    covered = np.s_[10:50, 85:103]  # for over half of the time
    plain = error(median_background(shot)[0][covered], truth[covered])
    assert plain > 10
    assert error(method(shot)[0][covered], truth[covered]) < 0.25 * plain


@pytest.mark.parametrize("method", ROBUST)
def test_all_moving_all_the_time_is_the_plain_median(method: Estimator) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (51, 40, 50, 3), dtype=np.uint8)
    assert np.array_equal(method(shot_of(frames))[0], median_by_bits(frames))


def test_changes_of_full_and_half_size_do() -> None:
    frames, truth = slow_mover(2.0)
    for height, width in ((60, 200), (59, 199)):
        shot = shot_of(np.ascontiguousarray(frames[:, :height, :width]))
        half = ((height + 1) // 2, (width + 1) // 2)
        for size in ((height, width), half):
            changes = [
                np.asarray(cv2.resize(change, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
                for change in shot.changes
            ]
            resized = replace(shot, changes=changes)
            assert still_samples(resized)[0].shape == half
            assert error(gated_median(resized)[0], truth[:height, :width]) < 2


@pytest.mark.parametrize("shape", [(7, 9), (8, 10)])
def test_weighted_median_is_that_of_repeated_samples(shape: tuple[int, int]) -> None:
    height, width = shape
    rng = np.random.default_rng(6)
    samples = rng.integers(0, 256, (12, height, width, 3), dtype=np.uint8)
    heavy = rng.random((12, height, width)) < 0.3
    found = weighted_median(list(samples), list(heavy), 5)
    for y, x in np.ndindex(height, width):
        repeated = np.repeat(samples[:, y, x], np.where(heavy[:, y, x], 5, 1), axis=0)
        assert np.array_equal(found[y, x], median_by_bits(repeated))
    order = rng.permutation(12)
    assert np.array_equal(weighted_median(list(samples[order]), list(heavy[order]), 5), found)


def test_equal_weights_are_the_plain_median() -> None:
    samples = np.random.default_rng(7).integers(0, 256, (51, 33, 41, 3), dtype=np.uint8)
    for flag in (False, True):
        flags = [np.full((17, 21), flag)] * 51
        assert np.array_equal(weighted_median(list(samples), flags), median_by_bits(samples))


def test_impossible_weights_are_refused() -> None:
    images, flags = [scene(1)] * 3, [np.zeros((24, 32), np.bool_)] * 3
    for given in ((images, flags[:2], 32), (images, flags, 0), ([], [], 32)):
        with pytest.raises(ValueError, match="need 1 to 255 samples"):
            weighted_median(*given)


def test_low_rank_follows_the_light() -> None:
    frames, _, truth = moving_square(num_frames=120)
    for gains in (np.linspace(0.8, 1.2, 120), 1 + 0.15 * np.sin(2.1 * np.arange(120))):
        shot = shot_of(lit(frames, gains))
        light = light_changes(shot)
        target = gains[shot.indices] / np.median(gains[shot.indices[len(shot.images) // 2 - 2 :][:5]])
        brightness = 105.0
        change = light[:, :, 0] * brightness + light[:, :, 1] - brightness * target[:, None]
        assert np.abs(change).max() < 2.5
        middle = np.median(gains[shot.indices[len(shot.images) // 2 - 2 :][:5]])
        assert error(low_rank_background(shot)[0], truth * middle) < 2


def test_low_rank_is_the_gated_median_where_the_light_stays() -> None:
    shot = shot_of(slow_mover(2.0)[0])
    assert (light_changes(shot) == [1, 0]).all()
    assert np.array_equal(low_rank_background(shot)[0], gated_median(shot)[0])


def test_what_moves_is_no_light() -> None:
    frames = np.repeat(scene(8)[None], 60, 0)
    frames[30:, 5:35, 5:45] = 250  # comes and stays, over a third of the image
    assert (light_changes(shot_of(frames)) == [1, 0]).all()


def test_lines_are_found_under_outliers() -> None:
    rng = np.random.default_rng(9)
    given = rng.uniform(20, 200, 2000).astype(np.float32)
    truth = np.array([[1, 0], [1.2, -10], [0.8, 20]], np.float32)
    target = truth[:, :1] * given + truth[:, 1:] + rng.normal(0, 1, (3, 2000)).astype(np.float32)
    target[:, :600] = rng.uniform(0, 255, (3, 600))
    np.testing.assert_allclose(robust_line(given, target), truth, atol=0.6, rtol=0.01)
    flat = robust_line(np.full(100, 90, np.float32), np.full((1, 100), 100, np.float32))
    np.testing.assert_allclose(flat, [[1, 10]], atol=1e-3)
