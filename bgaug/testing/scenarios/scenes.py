"""The scenes of scenarios: walls and ground with texture, or plain.

Letters: T frames, K shots, H, W pixels; P, Q pixels of the canvas that the camera looks at a part of. Positions are
(x, y) in pixels of the canvas.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size

_Floats = NDArray[np.float32]
_Rng = np.random.Generator


def colour(rng: _Rng, low: float = 40, high: float = 215) -> _Floats:
    """A muted colour (3,), grey levels."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 14, 3), 15, 240).astype(np.float32)


def cloud(rng: _Rng, size: Size, scales: tuple[float, ...]) -> _Floats:
    """Noise (H, W) with features of several sizes in pixels, standard deviation about 1."""
    total = np.zeros(size, np.float32)
    for scale in scales:
        coarse = [max(2, round(length / scale)) for length in size]
        total += cv2.resize(rng.standard_normal(coarse, dtype=np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return total / np.float32(math.sqrt(len(scales)))


def textured_scene(rng: _Rng, size: Size, unit: float) -> _Floats:
    """A brick wall with doors and windows above paved ground: (P, Q, 3), grey levels."""
    height, width = size
    scene = np.empty((*size, 3), np.float32)
    wall, ground = colour(rng, 90, 170), colour(rng, 80, 160)
    horizon = round(height * rng.uniform(0.4, 0.55))
    slope = np.linspace(0.85, 1.15, width, dtype=np.float32)[:, None]
    scene[:horizon], scene[horizon:] = wall * slope, ground / slope
    _lay_bricks(rng, scene[:horizon], unit)
    scene += 14 * cloud(rng, size, (60 * unit, 22 * unit, 7 * unit))[..., None]
    for _ in range(7):
        _fit_window(rng, scene, horizon, unit)
    for x in range(-height, width + height, round(30 * unit)):
        tone = float(rng.uniform(-35, 25))
        line = np.zeros(size, np.uint8)
        cv2.line(line, (x, horizon), (x + round(40 * unit * rng.uniform(-1, 1)), height), 1, max(1, round(unit)))
        scene[line > 0] += tone
    scene += rng.normal(0, 5, (*size, 1)).astype(np.float32)  # the grain of the ground, not of the camera
    return scene.clip(12, 243, out=scene)


def _lay_bricks(rng: _Rng, wall: _Floats, unit: float) -> None:
    """Bricks of a tone each and mortar between them, onto the wall in place."""
    tall, long = max(4, round(10 * unit)), max(8, round(24 * unit))
    y, x = np.indices(wall.shape[:2])
    row = y // tall
    x = x + long // 2 * (row % 2)
    tones = rng.normal(0, 12, (row.max() + 1, x.max() // long + 1)).astype(np.float32)
    wall += tones[row, x // long][..., None]
    wall[(y % tall == 0) | (x % long == 0)] += 30


def _fit_window(rng: _Rng, scene: _Floats, horizon: int, unit: float) -> None:
    """A window, door or board with a frame around it, somewhere on the wall or at its foot, in place."""
    tall, wide = (round(unit * rng.uniform(20, 62)) for _ in range(2))
    top = int(rng.integers(0, max(1, horizon + round(15 * unit) - tall)))
    left = int(rng.integers(0, scene.shape[1] - wide))
    rim = max(1, round(3 * unit))
    scene[top : top + tall, left : left + wide] = colour(rng, 30, 225)
    pane = scene[top + rim : top + tall - rim, left + rim : left + wide - rim]
    pane[:] = colour(rng, 30, 225)
    pane += 10 * cloud(rng, (pane.shape[0], pane.shape[1]), (12 * unit,))[..., None]


def smooth_ground(rng: _Rng, size: Size, unit: float) -> _Floats:
    """Asphalt, a little lighter to one side, with four painted lines: (P, Q, 3), grey levels."""
    height, width = size
    slope = np.linspace(-14, 14, height, dtype=np.float32)[:, None] + np.linspace(-9, 9, width, dtype=np.float32)
    tone = slope + 3 * cloud(rng, size, (80 * unit, 30 * unit)) + rng.normal(0, 2, size).astype(np.float32)
    scene = colour(rng, 110, 150) + tone[..., None]
    for _ in range(4):
        left, right = (round(height * float(end)) for end in rng.uniform(0.1, 1, 2))
        line = np.zeros(size, np.uint8)
        cv2.line(line, (0, left), (width, right), 1, max(2, round(3 * unit)))
        scene[line > 0] += 55
    return scene.clip(12, 243, out=scene)


# Who moves in them.
