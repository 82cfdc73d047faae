"""Masks as an estimator gives them: too wide, late, with holes.

Letters: T frames, S pixels of a side. Lengths are for S = 40 and scale with S.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.testing.synthetic.canvas import REFERENCE_SIZE, Rng


def worn_masks(rng: Rng, moving: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What real masks do to true ones: they drag a rim of the source's background along, lag, and tear.

    Each video's masks are grown by 1, 2 or 3 pixels; half of the videos' come one frame late; and each has one or two
    square holes of side U(2, 4), at a fixed place from the middle of its foreground.

    Args:
        rng: advanced by the call.
        moving: bool (T, S, S), as in `SyntheticVideo`.

    Returns:
        bool (T, S, S).
    """
    T, S, _ = moving.shape
    k = S / REFERENCE_SIZE
    radius = max(1, round(int(rng.integers(1, 4)) * k))
    late = rng.random() < 0.5
    holes = [(rng.uniform(-4, 4, 2) * k, rng.uniform(2, 4) * k) for _ in range(rng.integers(1, 3))]
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    worn = np.zeros_like(moving)
    for t in range(T):
        source = moving[max(0, t - late)]
        if not source.any():
            continue
        worn[t] = cv2.dilate(source.astype(np.uint8), kernel) > 0
        middle = np.argwhere(source).mean(axis=0)
        for offset, side in holes:
            top, left = np.rint(middle + offset - side / 2).astype(int).clip(0, S)
            worn[t, top : top + round(side), left : left + round(side)] = False
    return worn
