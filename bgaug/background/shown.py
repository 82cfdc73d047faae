"""Where the aligned frames of a moving camera show the background: odds of foreground, weighed with a prediction.

A body that is missed stays in the background; ground that is taken for a body is filled from around it. Which error
costs more depends on the scene: plain ground is filled almost without error, a furnished room is not. So the error of
filling is measured in the frame itself, and decides how sure the ground must be, and how much its colour counts.

Letters: S aligned frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import median_where
from bgaug.background.plate import fill
from bgaug.sizing import resize_area

_Image = NDArray[np.uint8]
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]

GENEROUS = -1.5
"""Log odds above which a pixel is no background while frames are aligned, and the error of filling is measured."""
BEYOND = 100.0
"""Larger log odds than any: those of pixels that a frame does not reach."""

# Chosen on other clips, or other parts of them, than those that docs/backgrounds.md reports.
_LEFT = 130.0  # grey levels that a body costs which stays in the background
_BODY = 20.0  # grey levels: spread of the colours of bodies around the ground; with larger errors, colours are ignored
_LEAST_SPREAD = 3.0  # grey levels: spread of the ground around its prediction
_LOWEST, _HIGHEST = -4.0, -0.5  # limits of the log odds from which on a pixel is no background
_SUREST = 0.2  # share of the frame that is the least likely foreground, which the prediction continues
_MOST = 4.0  # log odds that a colour may add or remove
_AVERAGED = 5  # pixels: side of the square over which differences to the prediction are averaged
_SHIFTS = -1 / 2, -1 / 4, 1 / 4, 1 / 2  # of the width: where filling is tried
_FEWEST = 50  # pixels that filling must be tried on


def filling_error(image: _Image, region: _Bools) -> float:
    """Error with which `fill` continues an image into regions of this form: largest channel, grey levels.

    The region is moved sideways to up to four places where the image is known, and filled there without looking. The
    median of the mean errors there is robust to a body that was missed in one place.

    Args:
        image: uint8 (H, W, 3).
        region: bool (H, W), what is unknown.

    Returns:
        NaN if the region is empty, or covers the image so far that filling cannot be tried.
    """
    width = region.shape[1]
    errors = []
    for shift in _SHIFTS:
        by = round(shift * width)
        moved = np.zeros_like(region)
        moved[:, max(0, by) : width + min(0, by)] = region[:, max(0, -by) : width - max(0, by)]
        tried = moved & ~region
        if np.count_nonzero(tried) >= _FEWEST:
            error = np.abs(image - fill(image, ~(moved | region))).max(2)
            errors.append(float(error[tried].mean()))
    return float(np.median(errors)) if errors else float("nan")


def where_shown(
    here: _Image, own: _Floats, images: Sequence[_Image], odds: Sequence[_Floats]
) -> tuple[_Bools, list[_Bools]]:
    """Where a frame, and others aligned to it, show the background.

    What is surely background is continued over the image. The difference of each pixel to this prediction changes its
    odds: the less, the worse filling works in this frame. A pixel is no background if keeping it has a larger expected
    error than filling it.

    Args:
        here: uint8 (H, W, 3), the frame.
        own: float32 (H, W), its log odds of foreground.
        images: S of uint8 (H, W, 3), the others.
        odds: S of float32 (H, W), theirs; `BEYOND` where they do not reach.

    Returns:
        Where a body hides the background in the frame, bool (H, W), and where the others show it, S of bool (H, W).
    """
    error = _measured(here, own, odds)
    share = min(error / _LEFT, 0.99)
    least = float(np.clip(np.log(share / (1 - share + 1e-6) + 1e-6), _LOWEST, _HIGHEST))
    spread = float(np.clip(error, _LEAST_SPREAD, _BODY))
    ground = _predicted(here, own, images, odds)
    hides = own - _evidence(here, ground, spread) >= least
    return hides, [one - _evidence(image, ground, spread) < least for image, one in zip(images, odds, strict=True)]


def _measured(here: _Image, own: _Floats, odds: Sequence[_Floats]) -> float:
    """The error of filling in a frame, for the form of its bodies, or of those of another frame if it has none."""
    half = max(1, own.shape[0] // 2), max(1, own.shape[1] // 2)
    small = resize_area(here, half)
    bodies = [(one >= GENEROUS) & (one < BEYOND / 2) for one in odds]
    largest = max(bodies, key=np.count_nonzero, default=None)
    for region in (own >= GENEROUS, largest):
        if region is not None:
            error = filling_error(small, resize_area(region.astype(np.uint8), half) > 0)
            if not np.isnan(error):
                return error
    return _BODY  # the colours then count for nothing


def _predicted(here: _Image, own: _Floats, images: Sequence[_Image], odds: Sequence[_Floats]) -> _Floats:
    """What is surely background, continued over the image: float32 (H, W, 3)."""
    limit = float(np.quantile(own, _SUREST))
    sure = [one <= limit for one in odds]
    seen = np.any(sure, axis=0) if sure else np.zeros(own.shape, np.bool_)
    image = np.where(seen[..., None], median_where(images, sure), here) if sure else here
    return fill(image.astype(np.uint8), seen | (own <= limit))


def _evidence(image: _Image, ground: _Floats, spread: float) -> _Floats:
    """Log odds by which the colour of a pixel speaks for the ground: both have exponential differences to it."""
    apart = cv2.blur(np.abs(image - ground).max(2), (_AVERAGED, _AVERAGED))
    return np.asarray(np.clip(np.log(_BODY / spread) - apart * (1 / spread - 1 / _BODY), -_MOST, _MOST), np.float32)
