"""Backgrounds from the samples with the least motion nearby.

A person who stands in front of the background for most of a shot outvotes it in a median. But people come, leave and
sway, and without them nothing moves: so each patch takes the few samples with the least motion around it.

Letters: S samples, H, W pixels, h, w cells of a coarse grid.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import median_by_bits
from bgaug.background.samples import ShotSamples

_CELL = 4


def patches_background(
    shot: ShotSamples, *, keep: int = 11, parts: int = 6
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Median of the samples with the least motion around each patch.

    Correct where the background is visible, and nothing moves nearby, in a tenth of the shot; better than a median
    where somebody stands for most of it, worse where everything moves a little all the time. About three times the cost
    of the median.

    Args:
        shot: the samples.
        keep: samples that each patch keeps; fewer find a background that is rarely visible, but are noisier.
        parts: the window in which motion is summed is the short side divided by this.

    Returns:
        uint8 (H, W, 3), and where it was seen: everywhere.

    Reference: the principle of selecting the least moving patches is that of B. Laugraud, S. Pierard, M. Van
    Droogenbroeck, "LaBGen: a method based on motion detection for generating the background of a scene", Pattern
    Recognition Letters 96, 2017, and of its pixel-level form LaBGen-P, 2016, which sum motion likewise over windows of
    a third of the side. Here motion is the change to the second next frame of a bounded number of samples.
    """
    height, width = shot.size
    grid = max(1, height // _CELL), max(1, width // _CELL)
    keep = min(keep, len(shot.images))
    calmest = np.argpartition(motion_around(shot, grid, parts), keep - 1, axis=0)[:keep].astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    chosen = np.stack(
        [
            shot.stack[cv2.resize(one, (width, height), interpolation=cv2.INTER_NEAREST), rows, columns]
            for one in calmest
        ]
    )
    return median_by_bits(chosen), np.ones(shot.size, np.bool_)


def motion_around(shot: ShotSamples, grid: tuple[int, int], parts: int) -> NDArray[np.float32]:
    """Motion in a window around each cell in each sample: float32 (S, h, w), mean change in grey levels."""
    height, width = grid
    side = 2 * (min(grid) // (2 * parts)) + 1
    coarse = [cv2.resize(change, (width, height), interpolation=cv2.INTER_AREA) for change in shot.changes]
    around = [cv2.blur(one.astype(np.float32), (side, side), borderType=cv2.BORDER_REFLECT) for one in coarse]
    return np.stack(around)
