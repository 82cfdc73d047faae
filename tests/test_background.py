from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from worlds import moving_square, scene

from bgaug.background import (
    Background,
    ShotSampler,
    estimate_background,
    evenly_spaced,
    fit_background,
    median_by_bits,
    temporal_median,
)


@given(arrays(np.uint8, st.tuples(st.integers(1, 40).map(lambda n: 2 * n - 1), st.integers(1, 70))))
def test_median_equals_numpy_for_odd_counts(samples: np.ndarray) -> None:
    assert np.array_equal(median_by_bits(samples), np.median(samples, 0))


@pytest.mark.parametrize("count", [255, 257, 511])
def test_median_beyond_byte_counters(count: int) -> None:
    samples = np.random.default_rng(count).integers(0, 256, (count, 500), dtype=np.uint8)
    assert np.array_equal(median_by_bits(samples), np.median(samples, 0))


def test_even_counts_give_the_lower_of_the_middle_two() -> None:
    samples = np.array([[10], [20], [30], [40]], np.uint8)
    assert median_by_bits(samples)[0] == 20


def test_median_of_many_chunks() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (51, 60, 401, 3), dtype=np.uint8)
    assert np.array_equal(median_by_bits(samples), np.median(samples, 0))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_order_of_frames_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (9, 6, 7, 3), dtype=np.uint8)
    assert np.array_equal(temporal_median(frames), temporal_median(rng.permutation(frames)))


def test_mirrored_frames_give_a_mirrored_background() -> None:
    frames = moving_square()[0]
    assert np.array_equal(estimate_background(frames).image[:, ::-1], estimate_background(frames[:, :, ::-1]).image)


def test_known_background_is_found() -> None:
    frames, _, background = moving_square(num_frames=120)
    found = estimate_background(frames)
    assert np.abs(found.image.astype(int) - background).mean() < 1
    assert found.valid.all() and found.at(3) is found.image


def test_noise_is_that_of_successive_frames() -> None:
    rng = np.random.default_rng(0)
    sigma = 3.0
    frames = np.clip(120 + rng.normal(0, sigma, (200, 40, 40, 1)), 0, 255).round().repeat(3, -1).astype(np.uint8)
    # The median of |N(0, s)| is .6745 s, whatever the lag.
    assert abs(float(np.median(estimate_background(frames).noise)) - 0.6745 * sigma) < 0.4


def test_who_stands_still_is_no_noise() -> None:
    frames = np.repeat(scene(1)[None], 60, 0)
    frames[25:, 10:30, 10:30] = 250  # comes and stays
    assert estimate_background(frames).noise.max() == 0


def test_short_clips_have_no_noise() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (11, 20, 20, 3), dtype=np.uint8)
    assert estimate_background(frames).noise.max() == 0


def test_one_frame_is_its_own_background() -> None:
    image = scene(3)
    assert np.array_equal(estimate_background(image[None]).image, image)


@pytest.mark.parametrize("num_frames", [1, 5, 102, 103, 104, 250, 1000])
def test_samples_are_evenly_spaced_and_bounded(num_frames: int) -> None:
    sampler = ShotSampler((2, 2))
    asked = 0
    for i in range(num_frames):
        if sampler.wants(i):
            asked += 1
            sampler.add(i, np.full((2, 2, 3), i // 8, np.uint8))
        assert sampler.num_held <= 102
    values = np.array([int(sample[0, 0, 0]) for sample in sampler.samples()])
    assert len(values) == min(51, num_frames) or num_frames < 103
    assert values[0] == 0 and abs(values[-1] - (num_frames - 1) // 8) <= 2
    assert num_frames == 1 or np.ptp(np.diff(values)) <= 2  # in eighths of the number of a frame
    assert asked <= 103 + 60 * 2 * max(0, np.log2(num_frames / 103))


def test_a_small_memory_takes_fewer_samples() -> None:
    sampler = ShotSampler((100, 100), memory=100 * 100 * 4 * 21)
    image = np.zeros((100, 100, 3), np.uint8)
    for i in range(500):
        if sampler.wants(i):
            sampler.add(i, image)
        assert sampler.num_held <= 21


def test_evenly_spaced_takes_both_ends_and_an_odd_number() -> None:
    for count in range(1, 200):
        chosen = evenly_spaced(count, 51)
        assert chosen[0] == 0 and (count == 2 or chosen[-1] == count - 1)
        assert len(set(chosen.tolist())) == len(chosen) and (len(chosen) % 2 or count == 2)


def test_fitted_background_is_fitted_as_frames_are() -> None:
    background = Background(scene(1), np.full((48, 64), 2.0, np.float32), np.ones((48, 64), np.bool_))
    fitted = fit_background(background, (40, 40), "pad")
    assert fitted.image.shape == (40, 40, 3) and fitted.noise.shape == fitted.valid.shape == (40, 40)
    assert not fitted.valid[0].any() and fitted.valid[20].all()
    moved = Background(background.image, background.noise, background.valid, np.zeros((3, 2, 3), np.float32))
    with pytest.raises(ValueError, match="stabilised"):
        fit_background(moved, (40, 40), "stretch")


def test_transforms_bring_the_background_to_the_frame() -> None:
    image = scene(2)
    shift = np.array([[[1, 0, 5], [0, 1, 0]]], np.float32)  # frame -> background: 5 px to the right
    seen = Background(image, np.zeros((48, 64), np.float32), np.ones((48, 64), np.bool_), shift).at(0)
    assert np.array_equal(seen[:, :-5], image[:, 5:])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), "T >= 1"),
        (np.zeros((3, 4, 4), np.uint8), "frames.shape = "),
        (np.zeros((3, 4, 4, 3), np.float32), "float32"),
    ],
)
def test_wrong_frames_are_named(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_background(frames)
    if frames.ndim == 4:
        with pytest.raises(ValueError, match="uint8"):
            temporal_median(frames)


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="auto, median"):
        estimate_background(np.zeros((3, 4, 4, 3), np.uint8), "best")  # type: ignore[arg-type]
