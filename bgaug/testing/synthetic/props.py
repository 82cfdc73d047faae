"""Props: what touches the mover and gives its class away.

A prop is known by its hue and its pattern. In the plain world it is a mat that lies still under the mover. In the
micro world it is larger, and of one of three kinds, whatever the class: a mat; a shadow, under the mover and going
along with it; or an object that the mover holds. The last two move as the mover does, so no background shows them.

Letters: T frames, P pixels of the canvas' side, S pixels of the frame's. Lengths are for S = 40 and scale with S.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bgaug.testing.synthetic.canvas import REFERENCE_SIZE, Floats, Rng, axis, hsv, sigmoid
from bgaug.testing.synthetic.movers import Track

KINDS = ("mat", "shadow", "held")
NUM_PROPS = 8


class Layer(NamedTuple):
    """Something to draw over what is there already."""

    share: Floats  # (T, P, P), or (1, P, P) where it stands still
    colour: Floats  # as share, 3 colours
    moves: bool
    above: bool  # the mover, else below it


def draw_prop(rng: Rng, prop: int, kind: int, track: Track, size: int, *, bold: bool, still: bool) -> Layer:
    """A prop of a kind, for a mover on its way.

    Args:
        rng: advanced by the call.
        prop: 0..7, hue and pattern.
        kind: index into `KINDS`.
        track: of the mover.
        size: S.
        bold: larger, in a pattern of higher contrast, which is coarser for props 4..7.
        still: what moves along rests at the middle of its way.
    """
    k = size / REFERENCE_SIZE
    moves = kind > 0 and not still
    x, y = _local(track, size, turning=KINDS[kind] == "held", moves=moves)
    match KINDS[kind]:
        case "mat":
            half, opacity = rng.uniform(10, 13) if bold else rng.uniform(5, 7), 0.85
        case "shadow":
            half, opacity = rng.uniform(9, 11), 0.75
            x, y = x - np.float32(rng.uniform(-2, 2) * k), y - np.float32(rng.uniform(2, 4) * k)
        case "held":
            half, opacity = rng.uniform(4.5, 6), 0.95
            way = rng.uniform(0, 2 * math.pi)
            x, y = x - np.float32(7 * k * math.cos(way)), y - np.float32(7 * k * math.sin(way))
    bright = hsv(0.02 + prop / 8 + rng.uniform(-0.02, 0.02), 0.85, 0.9)
    above = KINDS[kind] == "held" and rng.random() < 0.5
    share, tone = (
        _square(x, y, half * k, k),
        _pattern(x, y, prop, 2 * k if bold and prop >= 4 else k, 0.1 if bold else 0.45),
    )
    return Layer(np.float32(opacity) * share, tone[..., None] * bright, moves, above)


def _local(track: Track, size: int, *, turning: bool, moves: bool) -> tuple[Floats, Floats]:
    """Pixels of the canvas from where the prop hangs on the mover: (T, P, P) each, or (1, P, P) where it stands still."""
    if not moves:
        x, y = track.xy.mean(axis=0)
        dx, dy = axis(size)[None, None, :] - np.float32(x), axis(size)[None, :, None] - np.float32(y)
        return dx + 0 * dy, dy + 0 * dx
    return track.local(size) if turning else track._replace(angle=np.zeros_like(track.angle)).local(size)


def _square(x: Floats, y: Floats, half: float, k: float) -> Floats:
    """1 within a square, 0 without, over one pixel of the reference."""
    edge = np.float32(half + 0.5)
    share: Floats = (edge - abs(x)).clip(0, 1) * (edge - abs(y)).clip(0, 1)
    return share


def _pattern(x: Floats, y: Floats, prop: int, k: float, dark: float) -> Floats:
    """Stripes across, stripes along, rings or checks, in [dark, 1]."""
    wave = np.float32(math.pi / (2 * k))
    match prop % 4:
        case 0:
            value = np.sin(wave * x)
        case 1:
            value = np.sin(wave * y)
        case 2:
            value = np.sin(wave * np.hypot(x, y))
        case _:
            value = np.sin(wave * x) * np.sin(wave * y)
    tone: Floats = np.float32(dark) + np.float32(1 - dark) * sigmoid(6 * value)
    return tone
