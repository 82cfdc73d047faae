"""Which method estimates the background of a shot.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bgaug.background.auto import auto_background
from bgaug.background.median import median_by_bits
from bgaug.background.patches import patches_background
from bgaug.background.picture import Background
from bgaug.background.plate import plate_background
from bgaug.background.samples import ShotSampler, ShotSamples

Method = Literal["auto", "median", "patches", "plate"]
METHODS: tuple[str, ...] = get_args(Method)

Estimator = Callable[[ShotSamples], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""From samples to the picture, uint8 (H, W, 3), and where it was really seen, bool (H, W)."""


def estimate_background(frames: NDArray[np.uint8], method: Method = "auto") -> Background:
    """Static background of one shot that is in memory.

    Args:
        frames: uint8 (T, H, W, 3), RGB, from a camera that stands still.
        method: "median": exact temporal median of `NUM_SAMPLES` evenly spaced frames. "auto" picks the method by what
            the shot shows; the median is what there is to pick.

    Returns:
        The background at the size of the frames.

    Raises:
        ValueError: frames of another shape or type, none at all, or an unknown method.
    """
    _check_frames(frames)
    height, width = frames.shape[1:3]
    sampler = ShotSampler((height, width), side=min(height, width))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return background_of(sampler.shot(), method)


def background_of(shot: ShotSamples, method: Method = "auto") -> Background:
    """Static background of a shot from its samples; see `estimate_background`."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    image, valid = _ESTIMATORS[method](shot)
    return Background(image, shot.noise, valid)


def median_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The exact median of the samples; it holds every pixel for seen."""
    return median_by_bits(shot.images), np.ones(shot.size, np.bool_)


_ESTIMATORS: dict[str, Estimator] = {
    "auto": auto_background,
    "median": median_background,
    "patches": patches_background,
    "plate": plate_background,
}


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape = }")
