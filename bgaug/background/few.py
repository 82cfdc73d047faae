"""The background of a shot of a few frames: the colours on which most of them agree.

With six frames, a median is wrong wherever bodies cover three of them. But different bodies have different colours, and
the ground always has the same: what two or three frames show alike is the ground.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

FEW_SAMPLES = 12
"""Up to so many samples count as few. With more, a median outvotes what passes, and motion can be measured."""

_ALIKE = 12  # grey levels after a 3x3 blur; noise of compressed video has up to 6
_WINDOW = 27  # the window in which agreement is counted is the short side divided by this: 9 pixels of 240


def consensus(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mean of the samples that agree with the one that agrees with the most others nearby.

    Correct where the ground is visible in at least two samples, and no body of one colour in as many. About 0.1 s of
    CPU time for ten samples of 320x240; it grows with the square of their number.

    Args:
        images: S of uint8 (H, W, 3), at least one.

    Returns:
        uint8 (H, W, 3).
    """
    smooth = [cv2.blur(image, (3, 3)) for image in images]
    height, width = images[0].shape[:2]
    side = max(5, min(height, width) // _WINDOW) | 1
    support = np.zeros((len(images), height, width), np.uint16)
    for one, other in combinations(range(len(images)), 2):
        share = cv2.blur(_alike(smooth[one], smooth[other]), (side, side))
        support[one] += share
        support[other] += share
    best = support.argmax(0)
    shown = np.take_along_axis(np.stack(smooth), best[None, :, :, None], 0)[0]
    total, count = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    for image, blurred in zip(images, smooth, strict=True):
        agrees = (_alike(blurred, shown) > 0).astype(np.float32)[..., None]
        total += agrees * image
        count += agrees
    return np.asarray(np.rint(total / count), np.uint8)  # each pixel agrees with itself, so no count is zero


def _alike(one: cv2.typing.MatLike, other: cv2.typing.MatLike) -> NDArray[np.uint8]:
    """255 where no channel differs by more than `_ALIKE`, else 0: uint8 (H, W)."""
    red, green, blue = cv2.split(cv2.absdiff(one, other))
    largest = cv2.max(cv2.max(red, green), blue)
    return np.asarray(cv2.threshold(largest, _ALIKE, 255, cv2.THRESH_BINARY_INV)[1], np.uint8)
