"""What everything in the synthetic world is drawn with: axes, colours, blending.

Letters: P pixels of the canvas' side, S pixels of the frame's.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rng = np.random.Generator

REFERENCE_SIZE = 40


def margin_of(size: int) -> int:
    """Pixels that the canvas goes beyond the frame on each side."""
    return math.ceil(4 * size / REFERENCE_SIZE)


@lru_cache(maxsize=8)
def axis(size: int) -> Floats:
    """Centres of the canvas' pixels along one axis, in pixels of the frame: (P,)."""
    margin = margin_of(size)
    return np.arange(-margin, size + margin, dtype=np.float32) + np.float32(0.5)


def hsv(hue: float, saturation: float, value: float) -> Floats:
    """RGB (3,) in [0, 1]; the hue in turns, any number."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    share: Floats = 0.5 + 0.5 * np.tanh(0.5 * x)  # unlike 1 / (1 + exp(-x)), never overflows
    return share


def blend(under: Floats, over: Floats, share: Floats) -> Floats:
    """``under + share * (over - under)`` of (..., 3) and a share (...); channel by channel, which numpy does faster."""
    blended = np.empty((*share.shape, 3), np.float32)
    for channel in range(3):
        below, above = under[..., channel], over[..., channel]
        blended[..., channel] = below + share * (above - below)
    return blended
