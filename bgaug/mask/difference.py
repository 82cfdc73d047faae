"""Foreground masks from a static background, offline, in numpy; the device forms live in `compose`.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, max_channel_difference

FLOOR = 26
"""Smallest difference, in grey levels, that is called foreground: below it, shadows and codec noise are."""

_NOISE_FACTOR = 4.0
_SMOOTH_SHORT_SIDE = 96


def foreground_mask(frames: NDArray[np.uint8], background: Background, refine: bool = False) -> NDArray[np.bool_]:
    """What differs from the static background, frame by frame.

    A pixel is foreground where its largest channel difference to the background exceeds a floor of 26 grey levels
    and four times its own noise, which is that of successive frames and so does not count a standing person as
    noise. A 5x5 median takes out specks, a 3x3 closing joins what they cut.

    Args:
        frames: uint8 (T, H, W, 3), RGB, at the size of the background.
        background: of the shot that the frames come from.
        refine: cut each mask's rim anew by colour (GrabCut in a band of 4 pixels): closer to the body, at some
            50 ms a frame.

    Returns:
        bool (T, H, W), True on the foreground.

    Raises:
        ValueError: the shapes do not fit.
    """
    if frames.ndim != 4 or frames.shape[1:] != background.image.shape or frames.dtype != np.uint8:
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3) at the background's size {background.image.shape}, "
            f"got {frames.dtype} {frames.shape = }"
        )
    threshold = threshold_map(background.noise)
    masks = np.empty(frames.shape[:3], np.bool_)
    for index, image in enumerate(frames):
        mask = frame_mask(image, background.at(index), threshold)
        masks[index] = _refine(image, mask) if refine else mask
    return masks


def threshold_map(noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Difference above which a pixel is foreground: uint8 (H, W), grey levels, from the noise in grey levels.

    The noise is spread to its neighbours, and held between its median g and 3 g + 6 over the picture, so that a
    pixel that moves all the time cannot hide what passes it.
    """
    typical = float(np.median(noise))
    spread = cv2.blur(cv2.dilate(noise, np.ones((3, 3), np.uint8)), (3, 3))
    held = np.clip(spread, typical, 3.0 * typical + 6.0)
    threshold: NDArray[np.uint8] = np.clip(np.ceil(_NOISE_FACTOR * held), FLOOR, 254).astype(np.uint8)
    return threshold


def frame_mask(
    image: NDArray[np.uint8], background: NDArray[np.uint8], threshold: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Mask of one frame: bool (H, W); see `foreground_mask`."""
    difference = max_channel_difference(image, background)
    mask = cv2.compare(difference, threshold, cv2.CMP_GT)
    # On small pictures a 5x5 median would eat what it should keep.
    mask = cv2.medianBlur(mask, 5 if min(mask.shape) >= _SMOOTH_SHORT_SIDE else 3)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    found: NDArray[np.bool_] = mask.astype(np.bool_)
    return found


def difference_mask(image: NDArray[np.uint8], previous: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What changed since the previous frame, bool (H, W): all that can be said where there is no static background.

    Rims of what moves, twice, and nothing of what stands still; under a moving camera every edge of the scene.
    """
    return frame_mask(image, previous, np.full(image.shape[:2], FLOOR, np.uint8))


def _refine(image: NDArray[np.uint8], mask: NDArray[np.bool_], band: int = 4) -> NDArray[np.bool_]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    inner = cv2.erode(mask.astype(np.uint8), kernel)
    outer = cv2.dilate(mask.astype(np.uint8), kernel)
    if not inner.any() or outer.all():
        return mask
    plan = np.where(inner > 0, cv2.GC_FGD, np.where(outer == 0, cv2.GC_BGD, cv2.GC_PR_BGD)).astype(np.uint8)
    plan[(plan == cv2.GC_PR_BGD) & mask] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)
    whole = (0, 0, image.shape[1], image.shape[0])  # not looked at: the plan says it all
    cv2.grabCut(image, plan, whole, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    cut: NDArray[np.bool_] = (plan == cv2.GC_FGD) | (plan == cv2.GC_PR_FGD)
    return cut
