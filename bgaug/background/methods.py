"""The methods by name.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bgaug.background.auto import auto_background
from bgaug.background.gated import gated_median
from bgaug.background.image import Background
from bgaug.background.lowrank import low_rank_background
from bgaug.background.models import knn_background, mog2_background
from bgaug.background.patches import patches_background
from bgaug.background.plate import plate_background
from bgaug.background.samples import ShotSamples

Method = Literal["auto", "median", "gated", "lowrank", "patches", "plate", "mog2", "knn"]
METHODS: tuple[str, ...] = get_args(Method)

Estimator = Callable[[ShotSamples], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""From samples to the picture, uint8 (H, W, 3), and where it was really seen, bool (H, W)."""


def background_of(shot: ShotSamples, method: Method = "auto") -> Background:
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
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    image, valid = _ESTIMATORS[method](shot)
    return Background(image, shot.noise, valid)


def median_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The exact median of the samples; it holds every pixel for seen."""
    return shot.median, np.ones(shot.size, np.bool_)


_ESTIMATORS: dict[str, Estimator] = {
    "auto": auto_background,
    "median": median_background,
    "gated": gated_median,
    "lowrank": low_rank_background,
    "patches": patches_background,
    "plate": plate_background,
    "mog2": mog2_background,
    "knn": knn_background,
}
