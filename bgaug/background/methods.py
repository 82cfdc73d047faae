"""Estimators of backgrounds by name, and the small ones among them.

Letters: S samples, H, W pixels, h, w cells of a coarse grid.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.image import Background
from bgaug.background.median import median_by_bits
from bgaug.background.samples import ShotSamples
from bgaug.names import BACKGROUND_METHODS

_CELL = 4  # pixels of a side: motion is summed over windows of many cells, so single pixels add nothing

Estimator = Callable[[ShotSamples], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""Maps samples to an image, uint8 (H, W, 3), and where it was really seen, bool (H, W)."""


def background_of(shot: ShotSamples, method: str = "auto") -> Background:
    """Background of a shot, whose camera does not move, from its samples.

    Args:
        shot: the samples.
        method: "auto" compares the others region by region. "median" is exact. "gated" is a median with small weights
            for samples in motion. "lowrank" decomposes the samples into a static and a sparse part, and follows the
            light. "patches" takes the samples with the least motion nearby. "plate" predicts the ground under people
            who never leave. "mog2" and "knn" are OpenCV's models, for comparison.

    Raises:
        ValueError: an unknown method.
    """
    if method not in BACKGROUND_METHODS:
        raise ValueError(f"method must be one of {', '.join(BACKGROUND_METHODS)}, got {method!r}")
    image, valid = BACKGROUND_METHODS[method](shot)
    return Background(image, shot.noise, valid)


def median_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The exact median of the samples; every pixel counts as seen."""
    return shot.median, np.ones(shot.size, np.bool_)


# --- the samples with the least motion ----------------------------------------------------------------------------
# A person who stands in front of the background for most of a shot outvotes it in a median. But people come, leave
# and sway, and without them nothing moves: so each patch takes the few samples with the least motion around it.


def patches_background(
    shot: ShotSamples, *, keep: int = 11, parts: int = 6
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Median of the samples with the least motion around each patch.

    Correct where the background is visible, and nothing moves nearby, in a tenth of the shot; better than a median
    where a person stands for most of it, worse where everything moves a little all the time. About three times the cost
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


# --- OpenCV's models, for comparison --------------------------------------------------------------------------------
# Both are made to follow a stream, so the latest frames count most. Given the samples backwards and then forwards they
# see the whole shot, but still prefer its end. Over five real shots of a still camera they were 8.5 and 10.2 grey
# levels off, the plain median 9.5 and the gated one 2.8, at ten and fifteen times the CPU time of the plain one.


def mog2_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Mean of the most likely Gaussians of a mixture for each pixel.

    Reference: Zivkovic, Improved adaptive Gaussian mixture model for background subtraction, ICPR 2004.
    """
    return _after_all(cv2.createBackgroundSubtractorMOG2(history=2 * len(shot.images), detectShadows=False), shot)


def knn_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A sample of each pixel that has enough others near it.

    OpenCV chooses the samples that it keeps at random; it is seeded here, so the same shot gives the same image.

    Reference: Zivkovic and van der Heijden, Efficient adaptive density estimation per image pixel for the task of
    background subtraction, Pattern Recognition Letters 2006.
    """
    cv2.setRNGSeed(0)
    return _after_all(cv2.createBackgroundSubtractorKNN(history=2 * len(shot.images), detectShadows=False), shot)


def _after_all(model: cv2.BackgroundSubtractor, shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    for image in [*shot.images[::-1], *shot.images]:
        model.apply(image)
    image = np.asarray(model.getBackgroundImage(), np.uint8)
    return image, np.ones(shot.size, np.bool_)
