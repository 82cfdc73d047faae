"""Scenes: textures of sixteen families, and photographs.

Letters: P pixels of the canvas' side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bgaug.testing.synthetic.canvas import Floats, Rng, axis, blend, hsv, margin_of, sigmoid

# All inside scikit-image's wheel, so nothing is downloaded.
PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "rocket")
FIRST_UNSEEN = 8  # scene families 0..7 are for training, 8..15 are unseen, 16..23 are the photographs
FIRST_PHOTO = 16


class _Family(NamedTuple):
    amplitude: Floats  # (P, P // 2 + 1), of the half spectrum
    hues: tuple[float, float]
    saturation: float
    values: tuple[float, float]
    gradient: float
    num_rectangles: int


@lru_cache(maxsize=64)
def _family(scene: int, size: int) -> _Family:
    """What all instances of one scene family share; frequencies are in cycles per canvas."""
    rng = np.random.default_rng(1000 + scene)
    frequency, bandwidth = rng.uniform(2, 9), rng.uniform(0.5, 2)
    orientation, anisotropy = rng.uniform(0, math.pi), rng.uniform(0, 1)
    hues = (0.618 * scene % 1, rng.uniform(0, 1))
    saturation, value, gradient = rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.8), rng.uniform(0, 0.5)
    num_rectangles = int(rng.integers(0, 5))
    side = size + 2 * margin_of(size)
    fy, fx = np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)[None, :]
    radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    band = np.exp(-0.5 * ((radius - frequency) / bandwidth) ** 2)
    band *= 1 - anisotropy * np.sin(angle - orientation) ** 2
    amplitude = (band + 0.25 * np.exp(-radius / 2)).astype(np.float32)
    amplitude[0, 0] = 0  # the mean is the colours' business
    return _Family(amplitude, hues, saturation, (value, 0.6 * value), gradient, num_rectangles)


def draw_scene(rng: Rng, scene: int, size: int) -> Floats:
    """A new instance of a scene family: float32 (P, P, 3) in [0, 1]."""
    family, side = _family(scene, size), size + 2 * margin_of(size)
    phase = rng.uniform(0, 2 * math.pi, family.amplitude.shape)
    noise = np.fft.irfft2(family.amplitude * np.exp(1j * phase), s=(side, side)).astype(np.float32)
    share = sigmoid(2 * noise / float(noise.std()))
    hues = family.hues + rng.uniform(-0.03, 0.03, 2)
    first, second = (hsv(hues[i], family.saturation, family.values[i]) for i in (0, 1))
    plate = blend(second, first, share)
    line, way = axis(size) / size - np.float32(0.5), rng.uniform(0, 2 * math.pi)
    slope = math.cos(way) * line[None, :] + math.sin(way) * line[:, None]
    plate *= (1 + 2 * family.gradient * slope)[..., None]
    for _ in range(family.num_rectangles):
        _blend_rectangle(rng, plate, family)
    return plate.clip(0, 1, out=plate)


def _blend_rectangle(rng: Rng, plate: Floats, family: _Family) -> None:
    side = len(plate)
    height, width = (side * rng.uniform(0.15, 0.45, 2)).astype(int)
    top, left = rng.integers(side - np.array([height, width]))
    colour = hsv(family.hues[int(rng.integers(2))], family.saturation, rng.uniform(0.2, 0.95))
    region = plate[top : top + height, left : left + width]
    region += 0.5 * (colour - region)


@lru_cache(maxsize=64)
def _photograph(index: int, factor: int) -> Floats:
    """A photograph shrunk by a whole factor: float32 (height, width, 3) in [0, 1]."""
    from skimage import data  # only this split needs it

    image = getattr(data, PHOTOS[index])() / np.float32(255) if factor == 1 else _photograph(index, 1)
    height, width = (length // factor for length in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return np.broadcast_to(blocks.mean(axis=(1, 3)), (height, width, 3))


def draw_photo(rng: Rng, index: int, size: int) -> Floats:
    """A random crop of a photograph, of half its short side or more: float32 (P, P, 3) in [0, 1]."""
    side = size + 2 * margin_of(size)
    largest = min(_photograph(index, 1).shape[:2]) // side
    if largest < 1:
        raise ValueError(f"{PHOTOS[index]} is too small a photograph for {size = }; 250 is the largest")
    image = _photograph(index, int(rng.integers((largest + 1) // 2, largest + 1)))
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    return image[top : top + side, left : left + side].copy()
