"""Changes of the light in one place: sun and clouds, lamps, screens, reflections, shadows.

There a frame shows the ground times one factor. So does plain cloth in front of plain ground; but only in another light
does the texture of the ground continue.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import evenly_spaced
from bgaug.background.samples import ShotSamples, max_channel_difference

_SAMPLES = 25
_DIFFERENT = 20  # grey levels
_MIN_PART = 0.1  # of the region that must differ in a sample, for it to count
_MIN_LIGHT, _MAX_LIGHT = 0.4, 2.5
_TOLERANCE = 6.0  # grey levels, root mean square over window and channels
_SURELY, _LIKELY, _RARELY = 0.9, 0.7, 0.25
_MIN_SLOPE, _MIN_CONTRAST = 0.5, 1.5  # clothes have a slope of up to .25, light one of .65 and more
_MARGIN, _WINDOW = 4, (7, 7)
_NEXT = np.ones((3, 3), np.uint8)

_Bytes = NDArray[np.uint8]
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]


def is_relit(shot: ShotSamples, image: _Bytes, region: _Bools) -> bool:
    """Whether in a region the samples that do not show an image show it in another light.

    Args:
        shot: the samples.
        image: uint8 (H, W, 3), RGB, a background that another one might replace.
        region: bool (H, W), not empty.
    """
    rows, columns = np.nonzero(region)
    box = (
        slice(max(0, rows.min() - _MARGIN), rows.max() + _MARGIN + 1),
        slice(max(0, columns.min() - _MARGIN), columns.max() + _MARGIN + 1),
    )
    inside, ground = region[box], np.ascontiguousarray(image[box])
    chosen = evenly_spaced(len(shot.images), _SAMPLES)
    different = relit = 0
    texture = Texture()
    for index in chosen:
        seen = np.ascontiguousarray(shot.images[index][box])
        differs = (max_channel_difference(seen, ground) > _DIFFERENT) & inside
        count = int(differs.sum())
        if count >= _MIN_PART * len(rows):
            light, residual = fitted_light(seen, ground)
            same = residual < np.square(_TOLERANCE * np.maximum(1, light))
            same &= (light > _MIN_LIGHT) & (light < _MAX_LIGHT) & differs
            different, relit = different + count, relit + int(same.sum())
            texture.add(seen, ground, same, light)
    share = relit / max(1, different)
    rarely = different < _RARELY * len(rows) * len(chosen)
    continues = texture.slope > _MIN_SLOPE and texture.contrast > _MIN_CONTRAST
    return continues and (share > _SURELY or (share > _LIKELY and rarely))


def fitted_light(image: _Bytes, ground: _Bytes) -> tuple[_Floats, _Floats]:
    """The factor between two images, fitted to all channels of each 3x3 window, and what it does not explain.

    Args:
        image: uint8 (H, W, 3).
        ground: uint8 (H, W, 3).

    Returns:
        Two float32 (H, W): the factor of least squares, and the mean squared error over window and channels in squared
        grey levels.
    """
    seen, there = image.astype(np.float32), ground.astype(np.float32)
    match = _mean_product(seen, there)
    light = match / (_mean_product(there, there) + 1)
    residual = (_mean_product(seen, seen) - light * match) / np.float32(3)
    return np.asarray(light, np.float32), np.asarray(residual, np.float32)


def _mean_product(a: _Floats, b: _Floats) -> _Floats:
    """Mean over the window of the products, summed over the channels: (H, W)."""
    return np.asarray(cv2.blur(cv2.transform(a * b, np.ones((1, 3), np.float32)), (3, 3)), np.float32)


@dataclass
class Texture:
    """How far the texture of the ground continues in other images, summed over them."""

    _ground: float = 0.0
    _both: float = 0.0
    _pixels: int = 0

    def add(self, image: _Bytes, ground: _Bytes, where: _Bools, light: _Floats) -> None:
        """Add an image, uint8 (H, W, 3), where it may be the ground times `light`, float32 (H, W)."""
        inner = cv2.erode(where.view(np.uint8), _NEXT) > 0
        there = _texture_of(ground)[inner]
        self._ground += float(np.square(there).sum())
        self._both += float((_texture_of(image)[inner] / light[inner] * there).sum())
        self._pixels += len(there)

    @property
    def slope(self) -> float:
        """Of the texture in the images over that of the ground: 1 in another light, 0 under a body."""
        return self._both / self._ground if self._ground else 0.0

    @property
    def contrast(self) -> float:
        """Standard deviation of the ground's texture, grey levels."""
        return float((self._ground / max(1, self._pixels)) ** 0.5)


def _texture_of(image: _Bytes) -> _Floats:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.blur(grey, _WINDOW), np.float32)
