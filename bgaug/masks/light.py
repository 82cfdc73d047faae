"""Light: changes over the whole image (flicker, clouds, automatic exposure), and shadows.

Letters: H, W pixels.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.relit import fitted_light

_Bytes = NDArray[np.uint8]
_Floats = NDArray[np.float32]

_GRID = 12  # pixels
_OFFSET = 4  # grey levels: steadies the ratio of dark pixels
_MIN_CHANGE = 0.03  # smaller changes keep the differences below any threshold
_SATURATED, _FAR = 250, 18  # grey levels

_MIN_LIGHT, _MAX_LIGHT = 0.4, 0.97  # of the background's brightness
_TOLERANCE = 6.0  # grey levels, root mean square over window and channels


def lit_as(image: _Bytes, background: _Bytes) -> _Bytes:
    """The background in the light of a frame, both uint8 (H, W, 3): multiplied by one factor, or itself.

    The factor is the median ratio over a grid of 12 pixels, so bodies that cover less than half of the image do not
    matter; saturated pixels are left out. It is used if it is 3 % or more and fewer grid pixels then differ by over 18
    grey levels, so a change of the light in one place only is ignored. Mirrored images get the same factor.
    """
    rows, columns = _grid(image.shape[0])[:, None], _grid(image.shape[1])
    here, there = image[rows, columns].reshape(-1, 3), background[rows, columns].reshape(-1, 3)
    gain = _median_ratio(here, there)
    if abs(gain - 1) < _MIN_CHANGE or _num_far(here, _times(there, gain)) >= _num_far(here, there):
        return background
    return _times(background, gain)


def _median_ratio(here: _Bytes, there: _Bytes) -> float:
    known = np.maximum(here, there).max(1) < _SATURATED
    if not known.any():
        return 1.0
    seen, expected = (colours[known] @ np.ones(3, np.float32) + 3 * _OFFSET for colours in (here, there))
    return float(np.median(seen / expected))


def _times(image: _Bytes, gain: float) -> _Bytes:
    return np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def _num_far(here: _Bytes, there: _Bytes) -> int:
    return int((cv2.absdiff(here, there).max(1) > _FAR).sum())


@cache
def _grid(length: int) -> NDArray[np.intp]:
    half = np.arange(min(_GRID // 2, (length - 1) // 2), (length + 1) // 2, _GRID)
    return np.union1d(half, length - 1 - half).astype(np.intp)


def shadow_like(image: _Bytes, background: _Bytes) -> NDArray[np.bool_]:
    """Where a frame shows the background times one factor below 1: bool (H, W); see `shadow_light`."""
    return shadow_light(image, background)[1]


def shadow_light(image: _Bytes, background: _Bytes) -> tuple[_Floats, NDArray[np.bool_]]:
    """The factor between a frame and the background, and where it is the only difference and below 1.

    Args:
        image: uint8 (H, W, 3), RGB.
        background: uint8 (H, W, 3), RGB.

    Returns:
        float32 (H, W), and bool (H, W).

    In each 3x3 window the factor is fitted by least squares over all channels, and the residual is compared with the
    noise of a camera: colour and texture must be those of the background. Dark smooth clothes on grey ground also pass;
    a single image does not distinguish them from a shadow.
    """
    light, residual = fitted_light(image, background)
    shaded: NDArray[np.bool_] = (light > _MIN_LIGHT) & (light < _MAX_LIGHT) & (residual < _TOLERANCE**2)
    return light, shaded
