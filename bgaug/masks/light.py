"""Light that changes over the whole picture: flicker, clouds, a camera that sets its exposure.

Letters: H, W pixels.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_Bytes = NDArray[np.uint8]

_GRID = 12  # pixels
_OFFSET = 4  # grey levels: steadies the ratio of dark pixels
_MIN_CHANGE = 0.03  # below it the differences stay under any threshold
_SATURATED, _FAR = 250, 18  # grey levels


def lit_as(image: _Bytes, background: _Bytes) -> _Bytes:
    """The background in the light of a frame, both uint8 (H, W, 3): times one factor, or itself.

    The factor is the median ratio over a grid of 12 pixels, so bodies over less than half of the picture do not
    matter; saturated pixels are left out. It is used if it is 3 % or more, and fewer of the grid's pixels then differ
    by over 18 grey levels: light that changes in one place only stays. Mirrored pictures have the same.
    """
    rows, columns = _grid(image.shape[0])[:, None], _grid(image.shape[1])
    here, there = image[rows, columns].reshape(-1, 3), background[rows, columns].reshape(-1, 3)
    gain = _median_ratio(here, there)
    if abs(gain - 1) < _MIN_CHANGE or _far(here, _times(there, gain)) >= _far(here, there):
        return background
    return _times(background, gain)


def _median_ratio(here: _Bytes, there: _Bytes) -> float:
    known = np.maximum(here, there).max(1) < _SATURATED
    if not known.any():
        return 1.0
    seen, expected = (colours[known] @ np.ones(3, np.float32) + 3 * _OFFSET for colours in (here, there))
    return float(np.median(seen / expected))


def _times(picture: _Bytes, gain: float) -> _Bytes:
    return np.asarray(cv2.convertScaleAbs(picture, alpha=gain), np.uint8)


def _far(here: _Bytes, there: _Bytes) -> int:
    return int((cv2.absdiff(here, there).max(1) > _FAR).sum())


@cache
def _grid(length: int) -> NDArray[np.intp]:
    half = np.arange(min(_GRID // 2, (length - 1) // 2), (length + 1) // 2, _GRID)
    return np.union1d(half, length - 1 - half).astype(np.intp)
