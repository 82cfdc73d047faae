from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from worlds import moving_square

from bgaug.background import ShotSampler, ShotSamples, background_of, median_by_bits
from bgaug.background.auto import (
    Shown,
    auto_background,
    gradient,
    in_favour,
    median_suffices,
    outline,
    outline_moves,
    regions,
)
from bgaug.background.median import median_where
from bgaug.background.methods import motion_around, patches_background
from bgaug.background.plate import fill, plate_background, ring_error

H, W, T = 120, 160, 120
Frames = NDArray[np.uint8]


def shot_of(frames: Frames) -> ShotSamples:
    sampler = ShotSampler((frames.shape[1], frames.shape[2]))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def ground(texture: float = 0.0, seed: int = 0) -> Frames:
    """Plain ground, or one with a texture of so many grey levels, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    rough = cv2.resize(rng.normal(0, 1, (H // 4, W // 4, 3)), (W, H), interpolation=cv2.INTER_NEAREST)
    ramp = np.linspace(110, 130, W)[None, :, None]
    return np.clip(ramp + texture * rough, 0, 255).astype(np.uint8)


def filmed(background: Frames, people: list[tuple[int, int, int]], left_at: int = T, noise: float = 1.5) -> Frames:
    """T frames of people, each (left, top, brightness), who sway by two pixels until they leave."""
    rng = np.random.default_rng(1)
    frames = np.repeat(background[None], T, 0).astype(np.float64)
    columns = np.arange(W)
    for t in range(left_at):
        for number, (left, top, brightness) in enumerate(people):
            x = left + 2 * np.sin(t / 5 + number)
            for start, width, value in ((x, 20, brightness), (x + 6, 3, brightness // 3)):  # a seam of the coat
                covered = np.clip(columns + 1 - start, 0, 1) * np.clip(start + width - columns, 0, 1)
                rows = frames[t, top : top + 50]
                rows += covered[None, :, None] * (value - rows)
    return np.clip(frames + rng.normal(0, noise, frames.shape), 0, 255).astype(np.uint8)


def error(image: Frames, background: Frames) -> float:
    return float(np.abs(image.astype(int) - background).mean())


PEOPLE = [(30, 40, 40), (100, 45, 220)]


def test_a_person_at_rest_for_most_of_the_shot_is_not_in_the_patches() -> None:
    background = ground(20)
    shot = shot_of(filmed(background, PEOPLE, left_at=75))
    median = background_of(shot, "median").image
    assert error(median, background) > 5
    for image in (patches_background(shot)[0], auto_background(shot)[0]):
        assert error(image, background) < 2


def test_people_who_never_leave_are_taken_off_plain_ground() -> None:
    background = ground()
    shot = shot_of(filmed(background, PEOPLE))
    assert error(background_of(shot, "median").image, background) > 5
    for image, seen in (plate_background(shot), auto_background(shot)):
        assert error(image, background) < 2
        assert not seen[50:80, 36:44].any() and seen[:30].all()  # never seen, and reported so


def test_texture_is_not_taken_for_people() -> None:
    background = ground(30)
    frames = filmed(background, [])
    for t in range(T):  # a person crosses the whole image
        frames[t, 30:90, t : t + 25] = 60
    shot = shot_of(frames)
    image, seen = auto_background(shot)
    assert error(image, background) < 3 and seen.all()


def test_the_median_is_kept_where_it_suffices() -> None:
    frames, _, background = moving_square(num_frames=120)
    shot = shot_of(frames)
    median = median_by_bits(shot.images)
    assert median_suffices(shot, median)
    assert np.array_equal(auto_background(shot)[0], median) and error(median, background) < 1
    swaying = shot_of(filmed(ground(), PEOPLE))
    assert not median_suffices(swaying, median_by_bits(swaying.images))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_frames(count: int) -> None:
    frames = filmed(ground(), PEOPLE)[:count]
    image, seen = auto_background(shot_of(frames))
    assert image.shape == (H, W, 3) and seen.shape == (H, W)


def test_small_and_odd_pictures() -> None:
    frames = moving_square(height=31, width=45, side=7)[0]
    for method in ("auto", "patches", "plate"):
        assert background_of(shot_of(frames), method).image.shape == (31, 45, 3)


def test_mirrored_shots() -> None:
    shot = shot_of(filmed(ground(), PEOPLE))
    mirrored = shot_of(np.ascontiguousarray(filmed(ground(), PEOPLE)[:, :, ::-1]))
    assert error(auto_background(shot)[0][:, ::-1], auto_background(mirrored)[0]) < 1


def test_evidence_is_even_and_weighs_seam_and_motion() -> None:
    plain, body = Shown(seam=3.0, moving=0.02, support=0.4), Shown(seam=30.0, moving=0.02, support=0.4)
    moving = Shown(seam=3.0, moving=0.5, support=0.4)
    assert in_favour(plain, plain) == 0
    assert in_favour(body, plain) > 0 > in_favour(plain, body)
    assert in_favour(moving, plain) > 0 > in_favour(plain, moving)
    assert abs(in_favour(body, plain, prior=0) + in_favour(plain, body, prior=0)) < 1e-9
    assert abs(in_favour(plain, body) - np.log(5 / 32)) < 1e-9


def test_what_hardly_shows_is_not_known_to_move() -> None:
    body = Shown(seam=30.0, moving=0.02, support=0.9)
    seldom, often = Shown(seam=5.0, moving=0.5, support=0.01), Shown(seam=5.0, moving=0.5, support=0.5)
    assert in_favour(body, seldom) > in_favour(body, often)


def test_regions_are_where_pictures_differ() -> None:
    one, other = ground(), ground()
    other[20:60, 30:50] = 200
    other[100:102, 100:102] = 200  # too small
    found = list(regions(one, other))
    assert len(found) == 1
    square = np.zeros((H, W), np.bool_)
    square[20:60, 30:50] = True
    assert (found[0] ^ square).sum() < 150
    assert not list(regions(one, one))


def test_the_outline_of_a_body_moves_and_that_of_texture_does_not() -> None:
    shot = shot_of(filmed(ground(), PEOPLE))
    median = median_by_bits(shot.images)
    bodies = [region for region in regions(median, ground()) if region.sum() > 300]
    assert len(bodies) >= 2
    moves = [outline_moves(shot, median, gradient(median), body) for body in bodies]
    assert min(moves) > 0.22, moves
    painted = ground()
    painted[40:90, 30:50] = 40
    still = shot_of(filmed(painted, []))
    picture = median_by_bits(still.images)
    region = next(regions(picture, ground()))
    assert outline_moves(still, picture, gradient(picture), region) == 0


def test_the_picture_s_border_is_no_outline() -> None:
    region = np.zeros((20, 20), np.bool_)
    region[:10] = True
    rim = outline(region)
    assert rim[9, 5] and rim[10, 5] and not rim[0].any() and not rim[:, 0].any()


def test_filling_continues_what_is_known() -> None:
    known = np.ones((64, 80), np.bool_)
    known[20:44, 30:50] = False
    flat = np.full((64, 80, 3), 77, np.uint8)
    assert np.abs(fill(flat, known) - 77).max() < 0.01
    ramp = np.broadcast_to(np.linspace(50, 200, 80)[None, :, None], (64, 80, 3)).astype(np.uint8)
    hidden = ramp.copy()
    hidden[~known] = 255
    assert np.abs(fill(hidden, known) - ramp).max() < 20
    assert np.array_equal(fill(ramp, np.ones_like(known)), ramp)


def test_ring_error_separates_plain_ground_from_texture() -> None:
    region = np.zeros((H, W), np.bool_)
    region[40:80, 60:90] = True
    nothing = np.zeros_like(region)
    assert ring_error(ground(), region, nothing) < 3
    assert ring_error(ground(40), region, nothing) > 20
    assert ring_error(ground(), region, ~region) == float("inf")


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 1000))
def test_median_where_is_the_lower_median_of_what_counts(samples: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (samples, pixels, 3), dtype=np.uint8)
    shown = rng.random((samples, pixels)) < 0.5
    shown[rng.integers(samples), :] = True
    found = median_where(values, shown)
    for pixel in range(pixels):
        counted = np.sort(values[shown[:, pixel], pixel], axis=0)
        assert np.array_equal(found[pixel], counted[(len(counted) - 1) // 2])


def test_motion_around_is_where_it_moves() -> None:
    frames = np.repeat(ground()[None], 40, 0)
    frames[20:, 10:20, 10:20] = 250
    shot = shot_of(frames)
    around = motion_around(shot, (30, 40), 6)
    busiest = np.unravel_index(around.argmax(), around.shape)
    assert shot.indices[busiest[0]] in (18, 19) and busiest[1] < 10 and busiest[2] < 10
    assert around[:10].max() == 0
