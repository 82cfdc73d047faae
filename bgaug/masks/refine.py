"""The rim of a mask cut again along edges.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.masks.light import lit_as

_Bytes = NDArray[np.uint8]
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float64]

_INWARDS, _OUTWARDS = 2, 6  # pixels that the rim may move
_MIN_INSIDE = 0.2  # of the rim's area: in smaller bodies too few pixels are sure
_MARGIN = 8  # pixels around a body that the cut looks at
_LEARN_FRAMES, _LEARN_STEP = 8, 2
_GREY = 128


@dataclass(frozen=True)
class _RimColours:
    """Differences of foreground and background to the background image: OpenCV's mixtures of Gaussians, (1, 65)."""

    background: _Floats
    foreground: _Floats


def learn_colours(frames: _Bytes, background_at: Callable[[int], _Bytes], masks: _Bools) -> _RimColours | None:
    """Colours of the differences inside and outside the masks, from eight frames of a clip.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        background_at: maps the number of a frame to its background, uint8 (H, W, 3).
        masks: bool (T, H, W).

    Returns:
        None where the masks have no inside, or no outside.
    """
    shown = np.flatnonzero(masks.any((1, 2)))
    if not len(shown):
        return None
    chosen = shown[np.linspace(0, len(shown) - 1, min(_LEARN_FRAMES, len(shown))).round().astype(int)]
    some = (slice(None, None, _LEARN_STEP),) * 2
    changes = np.concatenate([_change(frames[i], background_at(int(i)))[some] for i in chosen])
    plan = np.concatenate([_plan(masks[i])[some] for i in chosen])
    if not (plan == cv2.GC_FGD).any() or not (plan == cv2.GC_BGD).any():
        return None
    colours = _RimColours(np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    _cut(changes, plan, colours, cv2.GC_INIT_WITH_MASK)
    return colours


def refine_mask(image: _Bytes, background: _Bytes, mask: _Bools, colours: _RimColours | None) -> _Bools:
    """A mask whose rim, up to 2 pixels inwards and 6 outwards, follows the edges of the difference.

    Parts that are too thin to have an inside, and bodies of a few pixels, stay as they are.

    Args:
        image: uint8 (H, W, 3), RGB.
        background: uint8 (H, W, 3), RGB, of this frame.
        mask: bool (H, W).
        colours: see `learn_colours`; None leaves the mask as it is.

    Reference: Rother, Kolmogorov, Blake, GrabCut, SIGGRAPH 2004, on the image of the differences instead of the frame,
    with colours learned once per clip instead of once per image.
    """
    if colours is None or not mask.any():
        return mask
    plan = _plan(mask)
    change = _change(image, background)
    refined = mask.copy()
    for place in _bodies(plan):
        part = np.ascontiguousarray(plan[place])
        inside = part == cv2.GC_FGD
        if inside.sum() < _MIN_INSIDE * (part >= cv2.GC_PR_BGD).sum() or not inside.any() or (part != cv2.GC_BGD).all():
            continue
        _cut(np.ascontiguousarray(change[place]), part, colours, cv2.GC_EVAL_FREEZE_MODEL)
        near = cv2.dilate(inside.astype(np.uint8), _disc(_INWARDS + _OUTWARDS)) > 0
        refined[place] = np.where(near, (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD), refined[place])
    return refined


def _plan(mask: _Bools) -> _Bytes:
    """Sure pixels and pixels to be decided, by OpenCV's labels: uint8 (H, W)."""
    plain = mask.astype(np.uint8)
    plan = np.where(plain > 0, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    plan[cv2.erode(plain, _disc(_INWARDS)) > 0] = cv2.GC_FGD
    plan[cv2.dilate(plain, _disc(_OUTWARDS)) == 0] = cv2.GC_BGD
    return plan


def _bodies(plan: _Bytes) -> Iterator[tuple[slice, slice]]:
    """Boxes around pixels that are not surely background, with a margin."""
    height, width = plan.shape
    count, _, boxes, _ = cv2.connectedComponentsWithStats((plan != cv2.GC_BGD).astype(np.uint8))
    for x, y, wide, tall, _ in boxes[1:count].tolist():
        yield (
            slice(max(0, y - _MARGIN), min(height, y + tall + _MARGIN)),
            slice(max(0, x - _MARGIN), min(width, x + wide + _MARGIN)),
        )


def _change(image: _Bytes, background: _Bytes) -> _Bytes:
    """Half the signed difference around grey, uint8 (H, W, 3)."""
    lit = lit_as(image, background)
    return np.asarray(cv2.addWeighted(image, 0.5, lit, -0.5, _GREY), np.uint8)


def _cut(changes: _Bytes, plan: _Bytes, colours: _RimColours, mode: int) -> None:
    """Write GrabCut's labels into the plan, and its mixtures into the colours unless the mode freezes them."""
    whole = (0, 0, changes.shape[1], changes.shape[0])  # unused: the plan covers every pixel
    cv2.grabCut(changes, plan, whole, colours.background, colours.foreground, 1, mode)


def _disc(radius: int) -> cv2.typing.MatLike:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
