"""Prompts from masks: boxes, points and frames in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bgaug.masks.external.prompts import NEGATIVE, POSITIVE, choose_prompts, inner_points
from bgaug.sizing import FITS, Fit, Size, fit_frame, shown_box

SIZE: Size = (64, 80)


def disc(x: float, y: float, radius: float, size: Size = SIZE) -> np.ndarray:
    """Pixels whose centres lie in a disc, bool (H, W); the image is [0, W] x [0, H]."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def box(left: int, top: int, right: int, bottom: int, size: Size = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def clip(*frames: np.ndarray) -> np.ndarray:
    return np.stack(frames)


def test_a_disc_gives_its_box_and_its_centre() -> None:
    found = choose_prompts(np.repeat(disc(30.5, 20.5, 12)[None], 5, 0))
    assert found is not None and found.frame == 0
    (one,) = found.objects
    assert one.box == (18, 8, 43, 33)
    assert one.points.tolist() == [[30.5, 20.5]] and one.labels.tolist() == [POSITIVE]
    assert one.all_labels.tolist() == [2, 3, POSITIVE]


def test_points_of_a_long_object_lie_along_it() -> None:
    points = inner_points(box(10, 20, 71, 25), 3)
    assert points.tolist()[0] == [40.5, 22.5] and set(points[:, 1].tolist()) == {22.5}
    assert len({tuple(point) for point in points.tolist()}) == 3
    assert min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]) > 5
    assert inner_points(np.zeros(SIZE, np.bool_), 3).shape == (0, 2) == inner_points(disc(9, 9, 4), 0).shape


def test_the_rim_of_the_image_is_a_rim() -> None:
    assert inner_points(np.ones((21, 21), np.bool_), 1).tolist() == [[10.5, 10.5]]


def test_negative_points_lie_in_the_box_and_on_no_object() -> None:
    mask = disc(30.5, 20.5, 12) | box(41, 8, 43, 12)
    found = choose_prompts(mask[None], points=1, negative_points=4)
    assert found is not None
    (one,) = found.objects
    off = one.points[one.labels == NEGATIVE]
    assert 1 <= len(off) <= 4 and one.labels.tolist()[0] == POSITIVE
    left, top, right, bottom = one.box
    for x, y in off.tolist():
        assert left < x < right and top < y < bottom and not mask[int(y), int(x)]


def test_the_most_certain_objects_first_and_no_noise() -> None:
    mask = disc(20.5, 20.5, 8) | disc(60.5, 40.5, 14)
    mask[60, 2:4] = True  # two pixels
    found = choose_prompts(mask[None])
    assert found is not None
    assert [one.points[0].tolist() for one in found.objects] == [[60.5, 40.5], [20.5, 20.5]]
    limited = choose_prompts(mask[None], objects=1)
    assert limited is not None and len(limited.objects) == 1
    assert limited.objects[0].box == found.objects[0].box


def test_parts_that_nearly_touch_are_one_object() -> None:
    body = box(20, 10, 30, 30) | box(20, 31, 30, 50)  # a belt of one row
    found = choose_prompts(body[None])
    assert found is not None and [one.box for one in found.objects] == [(20, 10, 30, 50)]
    apart = choose_prompts((box(20, 10, 30, 30) | box(20, 40, 30, 60))[None])
    assert apart is not None and len(apart.objects) == 2


@pytest.mark.parametrize(
    ("frames", "best"),
    [
        ([disc(30, 30, 8), disc(30, 30, 8), disc(30, 30, 12), disc(30, 30, 12), disc(30, 30, 12)], 3),  # large, stable
        ([disc(30, 30, 10), disc(30, 30, 10), disc(60, 30, 10)], 0),  # the last is a flash
        ([box(10, 10, 50, 12) | box(10, 10, 12, 50)] * 2 + [box(10, 10, 24, 24)] * 2, 3),  # compact, stable
        ([np.zeros(SIZE, np.bool_), disc(30, 30, 8), disc(30, 30, 8)], 2),
        ([disc(30, 30, 8), np.ones(SIZE, np.bool_), disc(30, 30, 8)], 0),  # the light changes
        ([disc(30, 30, 9), disc(30, 30, 9) | disc(60, 30, 9), disc(30, 30, 9) | disc(60, 30, 9)], 2),  # two objects
    ],
)
def test_the_frame_is_the_one_with_large_compact_stable_objects(frames: list[np.ndarray], best: int) -> None:
    found = choose_prompts(clip(*frames))
    assert found is not None and found.frame == best


def test_what_is_known_needs_no_prompt() -> None:
    masks = clip(*[disc(20.5, 20.5, 8) | disc(60.5, 40.5, 14)] * 3)
    known = clip(*[disc(60.5, 40.5, 14)] * 3)
    found = choose_prompts(masks, known=known)
    assert found is not None and [one.points[0].tolist() for one in found.objects] == [[20.5, 20.5]]
    assert choose_prompts(masks, known=masks) is None
    assert (
        choose_prompts(np.zeros((4, *SIZE), np.bool_)) is None and choose_prompts(np.zeros((0, 9, 9), np.bool_)) is None
    )


@pytest.mark.parametrize(
    ("masks", "known"),
    [(np.zeros(SIZE, np.bool_), None), (np.zeros((1, *SIZE), np.uint8), None), (np.zeros((1, 9, 9), np.bool_), SIZE)],
)
def test_what_is_no_clip_of_masks_is_refused(masks: np.ndarray, known: Any) -> None:
    with pytest.raises(ValueError, match=r"masks must be bool \(T, H, W\)"):
        choose_prompts(masks, known=None if known is None else np.zeros((1, *known), np.bool_))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", [(96, 120), (60, 200), (200, 60)])
@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_fractions_are_those_of_the_source_whatever_the_fit(fit: Fit, source: Size, aspect: float) -> None:
    """A disc in the middle of the source is fitted as frames are; its prompt leads back to it."""
    height, width = source
    shown = height, round(width * aspect)
    radius = min(source) / 5
    mask = disc(width / 2 + 3, height / 2 - 2, radius, source)
    fitted = fit_frame(mask.astype(np.uint8) * 255, SIZE, fit, shown) > 127
    found = choose_prompts(fitted[None], points=1)
    assert found is not None
    corners_and_point = found.objects[0].fractions(source, SIZE, fit, shown) * (width, height)
    left, top, share_x, share_y = shown_box(source, SIZE, fit, shown)
    pixel = np.array([share_x * width / SIZE[1], share_y * height / SIZE[0]])  # of the store, in pixels of the source
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1], [width / 2 + 3, height / 2 - 2]]
    tolerance = pixel + np.array([[0.5], [0.5], [1.0]])  # a half covered pixel; a pixel of the maximum
    assert (np.abs(corners_and_point - expected) <= tolerance * 1.01).all(), (corners_and_point, expected)


def test_the_box_that_a_stored_frame_shows() -> None:
    assert shown_box((40, 80), (20, 20), "stretch") == (0, 0, 1, 1)
    assert shown_box((40, 80), (20, 20), "crop") == (0.25, 0, 0.5, 1)
    assert shown_box((40, 80), (20, 20), "pad") == (0, -0.5, 1, 2)
