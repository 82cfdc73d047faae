"""Estimators of backgrounds by name.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bgaug.background.image import Background
from bgaug.background.samples import ShotSamples
from bgaug.names import BACKGROUND_METHODS

Estimator = Callable[[ShotSamples], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""Maps samples to an image, uint8 (H, W, 3), and where it was really seen, bool (H, W)."""


def background_of(shot: ShotSamples, method: str = "auto") -> Background:
    """Background of a shot, whose camera stands still, from its samples.

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
