"""Movers: eight motions, and the sprite that performs them.

Letters: T frames, P pixels of the canvas' side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bgaug.testing.synthetic.canvas import REFERENCE_SIZE, Floats, Rng, axis, blend, hsv, sigmoid

ACTIONS = ("left", "right", "up", "down", "rotate", "zoom", "circle", "shake")
NUM_CLASSES = len(ACTIONS)


class Track(NamedTuple):
    """Where a mover is, frame by frame."""

    xy: NDArray[np.float64]  # (T, 2), pixels of the frame
    angle: NDArray[np.float64]  # (T,), radians
    scale: NDArray[np.float64]  # (T,)

    def local(self, size: int) -> tuple[Floats, Floats]:
        """The canvas' pixels as the mover has them: x and y in pixels of the frame at scale 1, (T, P, P) each."""
        cx, cy, cos, sin, scale = (
            values.astype(np.float32)[:, None, None]
            for values in (*self.xy.T, np.cos(self.angle), np.sin(self.angle), self.scale)
        )
        dx, dy = (axis(size) - cx) / scale, (axis(size)[:, None] - cy) / scale
        return cos * dx + sin * dy, cos * dy - sin * dx


def draw_track(rng: Rng, action: int, size: int, num_frames: int, reach: float = 1.0) -> Track:
    """The way of a mover through one video; `reach` shortens every motion."""
    k, t = size / REFERENCE_SIZE, np.arange(num_frames) - (num_frames - 1) / 2
    xy = np.tile(size / 2 + rng.uniform(-5 * k, 5 * k, 2), (num_frames, 1))
    angle = np.full(num_frames, rng.uniform(0, 2 * math.pi))
    scale = np.ones(num_frames)
    sign, phase = 1 if rng.random() < 0.5 else -1, rng.uniform(0, 2 * math.pi)
    match ACTIONS[action]:
        case "left" | "right" | "up" | "down" as way:
            direction = -1 if way in ("left", "up") else 1
            xy[:, int(way in ("up", "down"))] += direction * rng.uniform(1.1, 2.0) * reach * k * t
        case "rotate":
            angle += sign * rng.uniform(0.35, 0.6) * reach * t
        case "zoom":
            scale += 0.45 * reach * np.sin(2 * math.pi * t / rng.uniform(5, 8) + phase)
        case "circle":
            turn = sign * 2 * math.pi * t / rng.uniform(8, 11) + phase
            xy += rng.uniform(5, 7) * reach * k * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        case "shake":
            xy[:, 0] += rng.uniform(4.5, 6.5) * reach * k * np.sin(2 * math.pi * t / rng.uniform(5, 7) + phase)
    return Track(xy, angle, scale)


def _distance(shape: int, ux: Floats, uy: Floats) -> Floats:
    """1 on the outline of a bar, a lopsided cross or an ellipse, less inside; (ux, uy) in radii."""
    if shape == 2:
        oval: Floats = np.hypot(ux / 1.1, uy / 0.65)
        return oval
    across: Floats = np.maximum(abs(ux) / 1.1, abs(uy) / (0.5, 0.33)[shape])
    along = np.maximum(abs(uy - 0.1) / 0.8, abs(ux - 0.35) / 0.3)
    return across if shape == 0 else np.minimum(across, along, out=across)


def draw_sprite(rng: Rng, track: Track, size: int) -> tuple[Floats, Floats]:
    """Share (T, P, P) and colour (T, P, P, 3) of a sprite whose looks say nothing about the class."""
    shape, radius, hue = int(rng.integers(3)), rng.uniform(5, 7) * size / REFERENCE_SIZE, rng.random()
    light, dark = hsv(hue, 0.25, 0.95), hsv(hue + 0.5, 0.3, 0.12)
    unit = (track.scale * radius).astype(np.float32)[:, None, None]
    ux, uy = (local / np.float32(radius) for local in track.local(size))
    alpha = sigmoid(1.5 * (1 - _distance(shape, ux, uy)) * unit)
    stripes = sigmoid(8 * np.sin(4.5 * ux))
    return alpha, blend(dark, light, stripes)
