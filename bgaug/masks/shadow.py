"""Shadows: the background made darker.

Letters: H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WINDOW = (3, 3)
_MIN_LIGHT, _MAX_LIGHT = 0.4, 0.97  # of the background's brightness
_TOLERANCE = 6.0  # grey levels, root mean square over window and channels


def shadow_like(image: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a frame shows the background times one factor below 1: bool (H, W), from two uint8 (H, W, 3), RGB.

    In each 3x3 window the factor is the one of least squares over all channels, and what it leaves over is compared
    with the noise of a camera: so colour and texture must be the background's. Dark smooth clothes on grey ground
    pass as well, and nothing in one picture tells them from a shadow.
    """
    seen, ground = image.astype(np.float32), background.astype(np.float32)
    power = _mean_product(ground, ground) + 1
    match = _mean_product(seen, ground)
    light = match / power
    left_over = _mean_product(seen, seen) - light * match
    shaded: NDArray[np.bool_] = (light > _MIN_LIGHT) & (light < _MAX_LIGHT) & (left_over < 3 * _TOLERANCE**2)
    return shaded


def without_shadows(
    image: NDArray[np.uint8], background: NDArray[np.uint8], mask: cv2.typing.MatLike
) -> cv2.typing.MatLike:
    """A mask, uint8 (H, W) of 0 and 255, less what looks like shadow."""
    return np.where(shadow_like(image, background), np.uint8(0), mask)


def _mean_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the window of the products, summed over the channels: (H, W)."""
    product = cv2.transform(a * b, np.ones((1, 3), np.float32))
    return np.asarray(cv2.blur(product, _WINDOW), np.float32)
