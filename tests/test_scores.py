from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from worlds import scene

from bgaug.testing.scores import MaskScores, background_scores, boundary_f, ghost_share, luminance, ms_ssim


def square(top: int, left: int, side: int, height: int = 100, width: int = 120) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def truth_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype(np.uint8)


def test_equal_backgrounds_score_perfectly() -> None:
    image = scene(0, 200, 240)
    scores = background_scores(image, image)
    assert scores.age == scores.age_rgb == scores.peps == 0
    assert scores.ms_ssim == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("offset", "peps"), [(7, 0), (20, 0), (21, 100)])
def test_constant_offset_is_the_error(offset: int, peps: float) -> None:
    image = scene(1, 200, 240)
    scores = background_scores(image + np.uint8(offset), image)
    assert scores.age == scores.age_rgb == offset and scores.peps == peps
    assert 0.9 < scores.ms_ssim < 1  # the structure is the same


def test_a_channel_counts_by_its_luminance() -> None:
    truth = np.full((64, 64, 3), 100, np.uint8)
    image = truth.copy()
    image[..., 1] += 60
    scores = background_scores(image, truth)
    assert scores.age == pytest.approx(0.587 * 60, abs=0.5) and scores.age_rgb == 20


def test_invalid_pixels_do_not_count() -> None:
    truth = scene(2, 100, 120)
    image, valid = truth.copy(), ~square(20, 20, 40)
    image[~valid] = 255
    scores = background_scores(image, truth, valid)
    assert scores.age == scores.peps == 0 and scores.ms_ssim == pytest.approx(1, abs=1e-6)
    assert background_scores(image, truth).peps > 10


def test_one_scale_is_plain_ssim() -> None:
    rng = np.random.default_rng(0)
    truth = scene(3, 21, 21)  # one scale fits
    image = np.clip(truth + rng.normal(0, 12, truth.shape), 0, 255).astype(np.uint8)
    plain: Any = structural_similarity
    expected = plain(
        luminance(image).astype(np.float64),
        luminance(truth).astype(np.float64),
        data_range=255,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert ms_ssim(image, truth) == pytest.approx(expected, abs=1e-3)


def test_contrary_pictures_score_zero() -> None:
    image = np.random.default_rng(0).integers(0, 256, (180, 180, 3), dtype=np.uint8)
    assert ms_ssim(255 - image, image) == 0


def test_ghost_share_is_of_the_persons_area() -> None:
    truth = np.full((100, 120, 3), 90, np.uint8)
    image = truth.copy()
    image[20:40, 20:60] += 60  # the upper half of where the person stood
    image[80:90] += 60  # elsewhere
    assert ghost_share(image, truth, square(20, 20, 40)) == 0.5


def test_half_overlapping_squares() -> None:
    scores = MaskScores()
    scores.add(square(20, 20, 40), truth_of(square(20, 40, 40)))
    assert scores.precision == scores.recall == scores.f1 == 0.5
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.true_negatives == 100 * 120 - 3 * 40 * 20


def test_pixels_are_summed_over_frames() -> None:
    scores = MaskScores()
    scores.add(square(0, 0, 10), truth_of(square(0, 0, 10)))  # 100 found
    scores.add(np.zeros((100, 120), np.bool_), truth_of(square(0, 0, 30)))  # 900 missed
    assert scores.num_frames == 2
    assert scores.recall == 0.1 and scores.precision == 1
    assert scores.boundary_f == 0.5


def test_nothing_found_of_nothing_is_right() -> None:
    scores = MaskScores()
    scores.add(np.zeros((50, 50), np.bool_), np.zeros((50, 50), np.uint8))
    assert scores.f1 == scores.iou == scores.precision == scores.boundary_f == 1


def test_shadow_is_background_and_unknown_does_not_count() -> None:
    truth = truth_of(square(20, 20, 40))
    truth[70:90, 20:60] = 50
    truth[:, 80:100], truth[:, 100:] = 85, 170
    mask = square(20, 20, 40)
    mask[70:80, 20:60] = True
    clean = MaskScores()
    clean.add(mask, truth)
    assert (clean.true_positives, clean.false_positives, clean.false_negatives) == (1600, 400, 0)
    mask[:, 80:] = True
    scores = MaskScores()
    scores.add(mask, truth)
    assert (scores.f1, scores.iou) == (clean.f1, clean.iou)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, None), (5, None)])
def test_boundary_within_the_tolerance(shift: int, expected: float | None) -> None:
    # .008 of the diagonal of 100x120 is 1.25: two pixels.
    score = boundary_f(square(20, 20 + shift, 40), truth_of(square(20, 20, 40)))
    if expected is not None:
        assert score == expected
    else:
        assert 0.4 < score < 0.6  # two of the four sides still agree


def test_boundaries_far_apart_do_not_agree() -> None:
    assert boundary_f(square(5, 5, 20), truth_of(square(60, 60, 30))) == 0
    assert boundary_f(square(5, 5, 20), truth_of(square(5, 5, 0))) == 0
    assert boundary_f(square(5, 5, 0), truth_of(square(5, 5, 20))) == 0


@pytest.mark.parametrize("value", [0, 50, 170, 255])
def test_without_a_true_boundary_there_is_none_to_miss(value: int) -> None:
    assert boundary_f(square(5, 5, 0), np.full((100, 120), value, np.uint8)) == 1


def test_outlines_in_the_unknown_zone_are_not_blamed() -> None:
    body = square(20, 20, 40)
    truth = truth_of(body)
    truth[20:60, 60:100] = 170  # a wide zone to the right of the body
    zone = truth == 170
    assert boundary_f(body, truth) == 1
    assert boundary_f(body | zone & square(30, 60, 20), truth) == 1
    assert boundary_f(body | square(70, 20, 20), truth) < 0.9  # in the known background


def test_a_thin_unknown_rim_keeps_the_boundary() -> None:
    truth = truth_of(square(21, 21, 38))
    truth[square(20, 20, 40) & (truth == 0)] = 170
    assert boundary_f(square(20, 20, 40), truth) == 1
    assert boundary_f(square(30, 30, 20), truth) == 0


def test_wrong_input_is_named() -> None:
    image, mask = scene(0), np.zeros((48, 64), np.bool_)
    with pytest.raises(ValueError, match=r"image\.shape"):
        background_scores(image, image[:-1])
    with pytest.raises(ValueError, match="not empty"):
        background_scores(image, image, mask)
    with pytest.raises(ValueError, match="not empty"):
        ghost_share(image, image, mask)
    with pytest.raises(ValueError, match="at least 11x11"):
        ms_ssim(image[:10], image[:10])
    with pytest.raises(ValueError, match="mask must be bool"):
        MaskScores().add(mask.astype(np.uint8), mask.astype(np.uint8))
