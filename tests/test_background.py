from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from worlds import moving_square, scene

from bgaug.background import (
    Background,
    Canvas,
    ShotSampler,
    evenly_spaced,
    fit_background,
    median_by_bits,
)
from bgaug.shots.estimate import estimate_background


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
    assert np.array_equal(median_by_bits(frames), median_by_bits(rng.permutation(frames)))


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


def test_a_person_at_rest_is_no_noise() -> None:
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


@pytest.mark.parametrize("num_frames", [1, 2, 11, 60, 104, 250, 431])
@pytest.mark.parametrize("expected", [1, 120, 250, 431, 100_000])
def test_an_expected_length_changes_no_result(num_frames: int, expected: int) -> None:
    frames = np.random.default_rng(num_frames).integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)
    plain, informed = ShotSampler((5, 7)), ShotSampler((5, 7), expected_frames=expected)
    for index, image in enumerate(frames):
        assert plain.wants(index) == informed.wants(index)
        if plain.wants(index):
            plain.add(index, image)
            informed.add(index, partial(np.asarray, image))
        assert plain.num_held == informed.num_held
    assert all(np.array_equal(a, b) for a, b in zip(plain.samples(17), informed.samples(17), strict=True))
    one, other = plain.shot(), informed.shot()
    assert np.array_equal(one.indices, other.indices) and np.array_equal(one.noise, other.noise)
    for name in ("images", "changes"):
        assert np.array_equal(np.stack(getattr(one, name)), np.stack(getattr(other, name)))


def test_frames_without_use_are_not_converted() -> None:
    def converted(index: int) -> np.ndarray:
        asked.append(index)
        return np.zeros((4, 4, 3), np.uint8)

    asked: list[int] = []
    sampler = ShotSampler((4, 4), expected_frames=700)
    for index in range(700):
        if sampler.wants(index):
            sampler.add(index, partial(converted, index))
    sampler.shot()
    assert sorted(asked) == [index for index in range(700) if index % 8 in (0, 2)]


def test_changes_are_those_to_the_second_frame_after_at_every_second_pixel() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 5, 8, 3), dtype=np.uint8)
    sampler = ShotSampler((5, 8))
    for index, image in enumerate(frames):
        assert sampler.wants(index)
        sampler.add(index, image)
    shot = sampler.shot()
    assert shot.indices.tolist()[:3] == [0, 1, 2] and shot.noise.shape == (5, 8)
    for index, change in zip(shot.indices[:17], shot.changes, strict=False):
        full = np.abs(frames[index].astype(int) - frames[index + 2]).max(-1)
        assert np.array_equal(change, full[::2, ::2])
    assert np.array_equal(shot.noise[:4:2, ::2], shot.noise[1::2, 1::2])


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


def canvas_of(image: np.ndarray, shift: int) -> Canvas:
    """A canvas of the image's size in which the only frame lies `shift` pixels to the right."""
    size = (image.shape[0], image.shape[1])
    transform = np.array([[1, 0, shift], [0, 1, 0]], np.float32)
    noise, valid = np.zeros(size, np.float32), np.ones(size, np.bool_)
    return Canvas(image, noise, valid, transform[None], np.ones(1, np.float32), transform, np.arange(1), size)


def test_fitted_background_is_fitted_as_frames_are() -> None:
    background = Background(scene(1), np.full((48, 64), 2.0, np.float32), np.ones((48, 64), np.bool_))
    fitted = fit_background(background, (40, 40), "pad")
    assert fitted.image.shape == (40, 40, 3) and fitted.noise.shape == fitted.valid.shape == (40, 40)
    assert not fitted.valid[0].any() and fitted.valid[20].all()
    with pytest.raises(ValueError, match="moving camera"):
        fit_background(replace(background, canvas=canvas_of(background.image, 0)), (40, 40), "stretch")


def test_transforms_bring_the_background_to_the_frame() -> None:
    image, noise, valid = scene(2), np.zeros((48, 64), np.float32), np.ones((48, 64), np.bool_)
    seen = Background(image, noise, valid, canvas_of(image, 5)).at(0)
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


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="auto, median"):
        estimate_background(np.zeros((3, 4, 4, 3), np.uint8), "best")
