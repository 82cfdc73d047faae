"""The methods by name.

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
"""From samples to the picture, uint8 (H, W, 3), and where it was really seen, bool (H, W)."""


def background_of(shot: ShotSamples, method: str = "auto") -> Background:
    """Background of a shot, whose camera stands still, from its samples.

    Args:
        shot: the samples.
        method: "auto" weighs the others against each other, region by region. "median" is exact. "gated" is a median in
            which samples weigh little where they move. "lowrank" parts the samples into a static and a sparse part, and
            follows the light. "patches" takes the samples in which least moves near by. "plate" predicts the ground
            under people who never leave. "mog2" and "knn" are OpenCV's models, for comparison.

    Raises:
        ValueError: an unknown method.
    """
    if method not in BACKGROUND_METHODS:
        raise ValueError(f"method must be one of {', '.join(BACKGROUND_METHODS)}, got {method!r}")
    image, valid = BACKGROUND_METHODS[method](shot)
    return Background(image, shot.noise, valid)


def median_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The exact median of the samples; it holds every pixel for seen."""
    return shot.median, np.ones(shot.size, np.bool_)
