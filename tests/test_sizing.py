from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgaug.errors import UsageError
from bgaug.sizing import FITS, Fit, content_box, fit_frame, parse_size, resize_area, working_size

sides = st.integers(8, 90)


def test_area_filter_is_the_mean_of_blocks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    blocks = image.reshape(10, 4, 15, 4, 3).mean((1, 3))
    assert np.abs(resize_area(image, (10, 15)) - blocks).max() <= 0.5


def test_same_size_is_left_unchanged() -> None:
    image = np.zeros((10, 12, 3), np.uint8)
    assert resize_area(image, (10, 12)) is image


@given(sides, sides, sides, sides, st.sampled_from(FITS))
def test_fits_give_the_size_asked_for(h: int, w: int, height: int, width: int, fit: Fit) -> None:
    image = np.full((h, w, 3), 200, np.uint8)
    fitted = fit_frame(image, (height, width), fit)
    assert fitted.shape == (height, width, 3)
    top, left, inner_height, inner_width = content_box((h, w), (height, width), fit)
    assert (fitted[top : top + inner_height, left : left + inner_width] == 200).all()
    outside = fitted.astype(int).sum() - 200 * 3 * inner_height * inner_width
    assert outside == 0  # borders are black


def test_pad_and_crop_keep_the_aspect() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # a square of 40 x 40
    padded = fit_frame(image, (40, 40), "pad")
    assert content_box((40, 80), (40, 40), "pad") == (10, 0, 20, 40)
    assert (padded[10:30, 10:30] == 255).all() and padded[:, :9].max() == 0
    assert (fit_frame(image, (40, 40), "crop") == 255).all()


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.6, 3.0])
def test_pixels_that_are_not_square_keep_the_aspect_that_is_shown(aspect: float) -> None:
    """A disc as a file with such pixels stores it is a disc again."""
    height, width = 240, 240
    rows, columns = np.mgrid[:height, :width]
    stored_width = round(width / aspect)
    disc = ((rows - 119.5) ** 2 + (columns - 119.5) ** 2 < 80**2).astype(np.uint8) * 255
    stored = resize_area(disc, (height, stored_width))
    for fit in ("pad", "crop"):
        found = fit_frame(stored, (120, 150), fit, (height, width)) > 127
        assert found.any(0).sum() == pytest.approx(found.any(1).sum(), abs=3), fit
    assert content_box((height, width), (120, 150), "pad") == (0, 15, 120, 120)
    assert np.array_equal(fit_frame(stored, (120, 150), "stretch", (height, width)), resize_area(stored, (120, 150)))


def test_working_size_never_enlarges() -> None:
    assert working_size((240, 320), 360) == (240, 320)
    assert working_size((1080, 1920), 360) == (360, 640)
    assert working_size((1, 500), 360) == (1, 500)


def test_sizes_as_people_write_them() -> None:
    assert parse_size("128x171") == (128, 171)
    assert parse_size("112") == (112, 112)
    assert parse_size("native") is None
    for wrong in ("", "x", "12x", "axb", "1x2x3", "4x4", "-8x20"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_size(wrong)
