"""Foreground masks from a static background.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, max_channel_difference
from bgaug.background.align import locate_frames
from bgaug.masks.light import lit_as, shadow_like
from bgaug.masks.refine import learn_colours, refine_mask

FLOOR = 18
"""Smallest difference, in grey levels, that can count as foreground: codec noise and soft shades stay below it."""

_Bytes = NDArray[np.uint8]

_NOISE_FACTOR = 4.0
_SURE_ABOVE = 12  # grey levels above the threshold: sure by itself
_PLAIN_FLOOR = 26  # where only the difference of two frames is known
_COLOUR_FACTOR = 1.5  # a change of colour counts more than one of brightness: shadows change colour little
_RIM_SHARE = 0.25  # of the largest difference nearby: less is the soft edge of a body
_RIM = np.ones((5, 5), np.uint8)
_STEP, _STEPS = np.ones((7, 7), np.uint8), 3  # 9 pixels from the sure pixels
_NEXT = np.ones((3, 3), np.uint8)
_SMOOTH_SHORT_SIDE = 96
_SMALL_WINDOW = 3
_TINY_SHARE = 0.015  # of the image: if no more differs, bodies have few pixels, which 5x5 would round off or remove


def foreground_mask(
    frames: _Bytes, background: Background, refine: bool = False, *, shadows: bool | None = None
) -> NDArray[np.bool_]:
    """Pixels that differ from the static background, frame by frame.

    A pixel is surely foreground where its largest channel difference to the background exceeds its threshold (18 grey
    levels, or four times its own noise) by 12. From there the mask grows by up to 9 pixels over pixels that only exceed
    the threshold, unless they could be a soft shadow (darker, of the background's colour, without an edge), or the soft
    rim of a body. Majorities in 5x5 remove specks, and a 3x3 closing joins what they cut. Where less than 1.5 % of the
    image exceeds its threshold, bodies are tiny: majorities are those of 3x3, and the mask grows by 3 pixels. A change
    of the light by 3 % or more is compensated first. Each mask depends only on its own frame, unless refined.

    Args:
        frames: uint8 (T, H, W, 3), RGB, at the size of the background: any frames of its shot. For a moving camera, all
            frames are faster than some, whose places must be searched again.
        background: of the shot that the frames come from.
        refine: cut the rim of each mask again, along edges and by colours learned from eight of the frames: closer to
            the body, for about 15 ms per frame of 320x240, and 60 ms once.
        shadows: keep hard shadows in the mask. False removes pixels that are the background made darker: correct for
            cars and people on plain ground in the sun, but grey or shaded bodies lose parts. Costs 2 ms per frame. By
            default `background.shadows`, which "auto" decides for each shot.

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
    canvas = None if background.canvas is None else locate_frames(background.canvas, frames)
    seen = replace(background, canvas=canvas)
    shadows = background.shadows if shadows is None else shadows
    threshold = threshold_map((canvas or background).noise)
    masks = np.empty(frames.shape[:3], np.bool_)
    for index, image in enumerate(frames):
        limit = threshold if canvas is None else canvas.layer_at(threshold, index)
        masks[index] = frame_mask(image, seen.at(index), limit, shadows=shadows)
    if refine:
        colours = learn_colours(frames, seen.at, masks)
        for index, image in enumerate(frames):
            masks[index] = refine_mask(image, seen.at(index), masks[index], colours)
    if canvas is not None:  # beyond what was seen, the canvas is filled in
        for index in range(len(frames)):
            masks[index] &= seen.valid_at(index)
    return masks


def threshold_map(noise: NDArray[np.float32]) -> _Bytes:
    """Difference above which a pixel may be foreground: uint8 (H, W), grey levels, from the noise in grey levels.

    The noise is spread to its neighbours, and limited to [g, 3 g + 6] with its median g over the image, so that a pixel
    that moves all the time still shows bodies that pass it.
    """
    typical = float(np.median(noise))
    spread = cv2.blur(cv2.dilate(noise, np.ones((3, 3), np.uint8)), (3, 3))
    held = np.clip(spread, typical, 3.0 * typical + 6.0)
    threshold: _Bytes = np.clip(np.ceil(_NOISE_FACTOR * held), FLOOR, 254).astype(np.uint8)
    return threshold


def frame_mask(image: _Bytes, background: _Bytes, threshold: _Bytes, *, shadows: bool = True) -> NDArray[np.bool_]:
    """Mask of one frame: bool (H, W); see `foreground_mask`."""
    background = lit_as(image, background)
    difference, unlike_shadow = _differences(image, background)
    window, steps = _window(difference), _STEPS
    if cv2.countNonZero(cv2.compare(difference, threshold, cv2.CMP_GT)) < _TINY_SHARE * difference.size:
        window, steps = _SMALL_WINDOW, 1
    sure = _majority(
        cv2.compare(difference, np.minimum(threshold, 255 - _SURE_ABOVE) + _SURE_ABOVE, cv2.CMP_GT), window
    )
    rim = cv2.convertScaleAbs(cv2.dilate(difference, _RIM), alpha=_RIM_SHARE)
    body = cv2.compare(difference, rim, cv2.CMP_GE)
    possible = cv2.bitwise_and(cv2.compare(unlike_shadow, threshold, cv2.CMP_GT), body)
    mask = _grown(sure, _majority(cv2.bitwise_or(possible, sure), window), steps)
    if not shadows:
        mask = _majority(np.where(shadow_like(image, background), np.uint8(0), mask), window)
    return _closed(mask)


def difference_mask(image: _Bytes, previous: _Bytes) -> NDArray[np.bool_]:
    """Pixels that changed by more than 26 grey levels since the previous frame, bool (H, W).

    The only mask without a static background: it shows the rims of moving bodies, twice, nothing of bodies that stand
    still, and for a moving camera every edge of the scene.
    """
    difference = max_channel_difference(image, previous)
    changed = cv2.threshold(difference, _PLAIN_FLOOR, 255, cv2.THRESH_BINARY)[1]
    return _closed(_majority(changed, _window(difference)))


def _differences(image: _Bytes, background: _Bytes) -> tuple[_Bytes, _Bytes]:
    """Largest channel difference, and the part that no soft shadow explains: brighter, of another colour, an edge."""
    up, down = cv2.subtract(image, background), cv2.subtract(background, image)
    brighter, least_up = _extremes(up)
    darker, least_down = _extremes(down)
    # One of each pair is zero where all channels change in one direction: this is then the largest change minus the
    # smallest.
    colour = cv2.add(cv2.subtract(brighter, least_up), cv2.subtract(darker, least_down))
    edge = cv2.min(darker, cv2.morphologyEx(darker, cv2.MORPH_GRADIENT, _NEXT))
    unlike = cv2.max(cv2.max(brighter, edge), cv2.convertScaleAbs(colour, alpha=_COLOUR_FACTOR))
    return np.asarray(cv2.max(brighter, darker), np.uint8), np.asarray(unlike, np.uint8)


def _extremes(image: cv2.typing.MatLike) -> tuple[_Bytes, _Bytes]:
    """Largest and smallest channel of each pixel."""
    red, green, blue = cv2.split(image)
    largest, smallest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return np.asarray(largest, np.uint8), np.asarray(smallest, np.uint8)


def _grown(sure: cv2.typing.MatLike, possible: cv2.typing.MatLike, steps: int) -> cv2.typing.MatLike:
    mask = sure
    for _ in range(steps):
        mask = cv2.bitwise_and(cv2.dilate(mask, _STEP), possible)
    return cv2.bitwise_or(mask, sure)


def _window(difference: _Bytes) -> int:
    # In small images 5x5 would remove thin parts of bodies.
    return 5 if min(difference.shape) >= _SMOOTH_SHORT_SIDE else _SMALL_WINDOW


def _majority(mask: cv2.typing.MatLike, window: int) -> cv2.typing.MatLike:
    """Each pixel as the majority of its window: equal to a median of a mask of 0 and 255, in a fifth of the time."""
    share = cv2.blur(mask, (window, window), borderType=cv2.BORDER_REPLICATE)
    return cv2.threshold(share, 127, 255, cv2.THRESH_BINARY)[1]


def _closed(mask: cv2.typing.MatLike) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _NEXT).astype(np.bool_)
    return found
