"""Whether the bodies of a shot cast hard shadows, which its masks should leave out; decided without ground truth.

Dark clothes on plain ground and a shadow look the same in one image: the ground made darker. Three things together tell
them apart. A shadow has the same darkness everywhere in the shot, clothes have several. The texture of the ground
continues in a shadow, paler by the same factor, and is covered by clothes. And hard shadows are a good part of what
differs from the background.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, ShotSamples, evenly_spaced
from bgaug.masks import frame_mask, threshold_map
from bgaug.masks.light import lit_as, shadow_light

_FIRST, _SAMPLES = 5, 15  # most shots have no shadows, which few samples show
_MIN_SHARE, _MIN_PEAK, _MIN_TEXTURE = 0.035, 0.5, 0.45
_MIN_CONTRAST = 2.0  # grey levels: smoother ground does not show whether its texture continues
_BINS, _PEAK = np.linspace(0.4, 1.0, 61), 9  # of the light in a shadow, relative to the ground; bins of a peak
_NEXT = np.ones((3, 3), np.uint8)
_WINDOW = (7, 7)
_MARGIN = 4  # pixels around the masks that the windows look at

_Bools = NDArray[np.bool_]
_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class ShadowEvidence:
    """What speaks for hard shadows.

    Attributes:
        share: share in [0, 1] of the masks that looks like the ground made darker.
        peak: share in [0, 1] of that part whose darkness is within 4 % of the most frequent one.
        texture: slope of the texture seen there over that of the ground, relative to the darkness: 1 in a shadow, 0
            under clothes.
        contrast: standard deviation of the ground's texture there, grey levels.
    """

    share: float = 0.0
    peak: float = 0.0
    texture: float = 0.0
    contrast: float = 0.0

    @property
    def hard(self) -> bool:
        """Whether masks are better without shadows."""
        return (
            self.share >= _MIN_SHARE
            and self.peak >= _MIN_PEAK
            and self.texture >= _MIN_TEXTURE
            and self.contrast >= _MIN_CONTRAST
        )


def shadow_evidence(shot: ShotSamples, background: Background) -> ShadowEvidence:
    """The evidence of a shot whose camera does not move; 5 to 50 ms of CPU time at 320x240.

    Args:
        shot: the samples.
        background: theirs, at the same size.
    """
    threshold = threshold_map(background.noise)
    first = evenly_spaced(len(shot.images), _FIRST)
    found = _Sums.of(shot, background, threshold, first)
    if found.share < _MIN_SHARE / 2:
        return ShadowEvidence(found.share)
    return _Sums.of(shot, background, threshold, evenly_spaced(len(shot.images), _SAMPLES)).evidence()


@dataclass
class _Sums:
    """Sums over the samples: pixels of masks and of shadows, light by bins, and products of the texture."""

    masks: float
    shadows: float
    lights: NDArray[np.float64]
    ground: float
    both: float
    inner: float

    @classmethod
    def of(cls, shot: ShotSamples, background: Background, threshold: _Bytes, chosen: NDArray[np.int64]) -> _Sums:
        total = cls(0, 0, np.zeros(len(_BINS) - 1), 0, 0, 0)
        for index in chosen:
            behind = lit_as(shot.images[index], background.image)
            total.add(shot.images[index], behind, frame_mask(shot.images[index], behind, threshold))
        return total

    def add(self, image: _Bytes, behind: _Bytes, mask: _Bools) -> None:
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        if width == 0:
            return
        box = slice(max(0, y - _MARGIN), y + height + _MARGIN), slice(max(0, x - _MARGIN), x + width + _MARGIN)
        image, behind, mask = (np.ascontiguousarray(layer[box]) for layer in (image, behind, mask))
        light, shaded = shadow_light(image, behind)
        shadow = cv2.morphologyEx((shaded & mask).view(np.uint8), cv2.MORPH_OPEN, _NEXT)
        inner = cv2.erode(shadow, _NEXT) > 0
        seen, ground = (_texture(layer)[inner] for layer in (image, behind))
        self.masks += cv2.countNonZero(mask.view(np.uint8))
        self.shadows += cv2.countNonZero(shadow)
        self.lights += np.histogram(light[shadow > 0], _BINS)[0]
        self.ground += float(np.square(ground).sum())
        self.both += float((seen * ground).sum())
        self.inner += len(ground)

    @property
    def share(self) -> float:
        return self.shadows / max(1.0, self.masks)

    def evidence(self) -> ShadowEvidence:
        if self.inner == 0 or self.ground == 0:
            return ShadowEvidence(self.share)
        lights = self.lights / max(1.0, float(self.lights.sum()))
        usual = float(_BINS[int(np.searchsorted(np.cumsum(lights), 0.5))])
        peak = float(np.convolve(lights, np.ones(_PEAK), "same").max())
        return ShadowEvidence(self.share, peak, self.both / self.ground / usual, (self.ground / self.inner) ** 0.5)


def _texture(image: _Bytes) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.blur(grey, _WINDOW), np.float32)
