"""Changes of the light in one place: sun and clouds, lamps, screens, reflections.

There a sample shows the ground times one factor, with its texture and colour; a body has others.

Letters: H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import evenly_spaced
from bgaug.background.samples import ShotSamples, max_channel_difference

_SAMPLES = 25
_DIFFERENT = 20  # grey levels
_MIN_PART = 0.1  # of the region that must differ in a sample, for it to count
_MIN_LIGHT, _MAX_LIGHT = 0.4, 2.5
_TOLERANCE = 6.0  # grey levels, root mean square over window and channels
_SURELY, _LIKELY = 0.9, 0.7  # clothes in one colour on plain ground have up to .84
_RARELY = 0.25


def is_relit(shot: ShotSamples, image: NDArray[np.uint8], region: NDArray[np.bool_]) -> bool:
    """Whether in a region the samples that do not show an image show it in another light.

    Args:
        shot: the samples.
        image: uint8 (H, W, 3), RGB, a background that another one might replace.
        region: bool (H, W), not empty.
    """
    rows, columns = np.nonzero(region)
    box = slice(max(0, rows.min() - 1), rows.max() + 2), slice(max(0, columns.min() - 1), columns.max() + 2)
    inside, ground = region[box], np.ascontiguousarray(image[box])
    chosen = evenly_spaced(len(shot.images), _SAMPLES)
    different = relit = 0
    for index in chosen:
        seen = np.ascontiguousarray(shot.images[index][box])
        differs = (max_channel_difference(seen, ground) > _DIFFERENT) & inside
        count = int(differs.sum())
        if count >= _MIN_PART * len(rows):
            different += count
            relit += int((_same_in_other_light(seen, ground) & differs).sum())
    share = relit / max(1, different)
    return share > _SURELY or (share > _LIKELY and different < _RARELY * len(rows) * len(chosen))


def _same_in_other_light(image: NDArray[np.uint8], ground: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where each 3x3 window is the ground's times one factor fitted by least squares: bool (H, W)."""
    seen, there = image.astype(np.float32), ground.astype(np.float32)
    match = _mean_product(seen, there)
    light = match / (_mean_product(there, there) + 1)
    residual = _mean_product(seen, seen) - light * match
    near = residual < 3 * _TOLERANCE**2 * np.square(np.maximum(1, light))
    return np.asarray((light > _MIN_LIGHT) & (light < _MAX_LIGHT) & near)


def _mean_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(cv2.transform(a * b, np.ones((1, 3), np.float32)), (3, 3)), np.float32)
