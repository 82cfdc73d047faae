"""Masks with soft rims.

Letters: H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_BYTE = np.dtype(np.uint8)


def soft_mask(difference: NDArray[np.uint8], threshold: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much each pixel is foreground, uint8 (H, W): 0 not at all, 255 wholly, 128 at its threshold.

    A straight ramp from half the threshold, where it is 0, to one and a half, where it is 255. Nothing is smoothed and
    no specks are taken out: take the larger of it and a hard mask, or the smaller, to have what that one knows.

    Args:
        difference: uint8 (H, W), grey levels; see `bgaug.background.max_channel_difference`.
        threshold: uint8 (H, W), grey levels; see `threshold_map`.

    Raises:
        ValueError: the shapes or types do not fit.
    """
    if difference.ndim != 2 or difference.shape != threshold.shape or {difference.dtype, threshold.dtype} != {_BYTE}:
        raise ValueError(
            f"difference and threshold must be uint8 (H, W) of one size, "
            f"got {difference.dtype} {difference.shape = }, {threshold.dtype} {threshold.shape = }"
        )
    limit = np.maximum(threshold, 1).astype(np.float32)
    ramp = cv2.divide(difference.astype(np.float32), limit) * np.float32(255) - np.float32(127.5)
    return np.asarray(np.clip(np.rint(ramp), 0, 255), np.uint8)
