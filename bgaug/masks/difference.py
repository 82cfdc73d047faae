"""Foreground masks from a static background, offline, in numpy; the device forms live in `compose`.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, max_channel_difference
from bgaug.background.align import locate_frames
from bgaug.masks.light import lit_as
from bgaug.masks.refine import learn_colours, refine_mask
from bgaug.masks.shadow import without_shadows

FLOOR = 18
"""Smallest difference, in grey levels, that is ever called foreground: below it, codec noise and soft shades are."""

_Bytes = NDArray[np.uint8]

_NOISE_FACTOR = 4.0
_SURE_ABOVE = 12  # grey levels above the threshold: sure by itself
_PLAIN_FLOOR = 26  # where nothing but the difference is known
_COLOUR_FACTOR = 1.5  # a change of colour tells more than one of brightness: shadows have little of it
_RIM_SHARE = 0.25  # of the largest difference nearby: less is the soft edge of a body
_RIM = np.ones((5, 5), np.uint8)
_STEP, _STEPS = np.ones((7, 7), np.uint8), 3  # 9 pixels from what is sure
_NEXT = np.ones((3, 3), np.uint8)
_SMOOTH_SHORT_SIDE = 96


def foreground_mask(
    frames: _Bytes, background: Background, refine: bool = False, *, shadows: bool = True
) -> NDArray[np.bool_]:
    """What differs from the static background, frame by frame.

    A pixel is surely foreground where its largest channel difference to the background exceeds its threshold (18 grey
    levels, or four times its own noise) by 12. From there the mask grows by up to 9 pixels over what exceeds the
    threshold alone, unless that could be a soft shadow (darker, of the background's colour, without an edge), or the
    soft rim of a body. Majorities in 5x5 take out specks, a 3x3 closing joins what they cut. A change of the light by
    3 % and more is taken out first. Each mask depends on its own frame alone, unless refined.

    Args:
        frames: uint8 (T, H, W, 3), RGB, at the size of the background: any of its shot's. Before a camera that moves,
            all of them are quicker than some, whose places must be found again.
        background: of the shot that the frames come from.
        refine: cut each mask's rim anew, along edges and by colours learned from eight of the frames: closer to the
            body, at some 15 ms a frame of 320x240, and 60 ms once.
        shadows: keep hard shadows in the mask. False takes out what is the background made darker: right for cars
            and people on plain ground in the sun, but grey or shaded bodies lose parts. Costs some 2 ms a frame.

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

    The noise is spread to its neighbours, and held between its median g and 3 g + 6 over the picture, so that a
    pixel that moves all the time cannot hide what passes it.
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
    window = _window(difference)
    sure = _majority(
        cv2.compare(difference, np.minimum(threshold, 255 - _SURE_ABOVE) + _SURE_ABOVE, cv2.CMP_GT), window
    )
    rim = cv2.convertScaleAbs(cv2.dilate(difference, _RIM), alpha=_RIM_SHARE)
    body = cv2.compare(difference, rim, cv2.CMP_GE)
    possible = cv2.bitwise_and(cv2.compare(unlike_shadow, threshold, cv2.CMP_GT), body)
    mask = _grown(sure, _majority(cv2.bitwise_or(possible, sure), window))
    if not shadows:
        mask = _majority(without_shadows(image, background, mask), window)
    return _closed(mask)


def difference_mask(image: _Bytes, previous: _Bytes) -> NDArray[np.bool_]:
    """What changed by more than 26 grey levels since the previous frame, bool (H, W).

    All that can be said where there is no static background: rims of what moves, twice, and nothing of what stands
    still; under a moving camera every edge of the scene.
    """
    difference = max_channel_difference(image, previous)
    changed = cv2.threshold(difference, _PLAIN_FLOOR, 255, cv2.THRESH_BINARY)[1]
    return _closed(_majority(changed, _window(difference)))


def _differences(image: _Bytes, background: _Bytes) -> tuple[_Bytes, _Bytes]:
    """Largest channel difference, and how much of it no soft shadow explains: brighter, of another colour, an edge."""
    up, down = cv2.subtract(image, background), cv2.subtract(background, image)
    brighter, least_up = _extremes(up)
    darker, least_down = _extremes(down)
    # One of each pair is zero where all channels change the same way: then this is the largest change less the least.
    colour = cv2.add(cv2.subtract(brighter, least_up), cv2.subtract(darker, least_down))
    edge = cv2.min(darker, cv2.morphologyEx(darker, cv2.MORPH_GRADIENT, _NEXT))
    unlike = cv2.max(cv2.max(brighter, edge), cv2.convertScaleAbs(colour, alpha=_COLOUR_FACTOR))
    return np.asarray(cv2.max(brighter, darker), np.uint8), np.asarray(unlike, np.uint8)


def _extremes(picture: cv2.typing.MatLike) -> tuple[_Bytes, _Bytes]:
    """Largest and smallest channel of each pixel."""
    red, green, blue = cv2.split(picture)
    largest, smallest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return np.asarray(largest, np.uint8), np.asarray(smallest, np.uint8)


def _grown(sure: cv2.typing.MatLike, possible: cv2.typing.MatLike) -> cv2.typing.MatLike:
    mask = sure
    for _ in range(_STEPS):
        mask = cv2.bitwise_and(cv2.dilate(mask, _STEP), possible)
    return cv2.bitwise_or(mask, sure)


def _window(difference: _Bytes) -> int:
    # On small pictures 5x5 would eat what it should keep.
    return 5 if min(difference.shape) >= _SMOOTH_SHORT_SIDE else 3


def _majority(mask: cv2.typing.MatLike, window: int) -> cv2.typing.MatLike:
    """Each pixel as most in its window are: what a median of a mask of 0 and 255 gives, in a fifth of the time."""
    share = cv2.blur(mask, (window, window), borderType=cv2.BORDER_REPLICATE)
    return cv2.threshold(share, 127, 255, cv2.THRESH_BINARY)[1]


def _closed(mask: cv2.typing.MatLike) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _NEXT).astype(np.bool_)
    return found
