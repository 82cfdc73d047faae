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
from bgaug.background.relit import Texture
from bgaug.masks import frame_mask, threshold_map
from bgaug.masks.light import lit_as, shadow_light

_FIRST, _SAMPLES = 5, 15  # most shots have no shadows, which few samples show
_MIN_SHARE, _MIN_PEAK, _MIN_TEXTURE = 0.035, 0.5, 0.4
_MIN_CONTRAST = 2.5  # grey levels: smoother ground does not show whether its texture continues
_BINS, _PEAK = np.linspace(0.4, 1.0, 61), 9  # of the light in a shadow, relative to the ground; bins of a peak
_NEXT = np.ones((3, 3), np.uint8)
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
    found = _Sums.of(shot, background, _FIRST)
    if found.share < _MIN_SHARE / 2:
        return ShadowEvidence(found.share)
    return _Sums.of(shot, background, _SAMPLES).evidence()


@dataclass
class _Sums:
    """Sums over the samples: pixels of masks and of shadows, light by bins, and the texture."""

    masks: int
    shadows: int
    lights: NDArray[np.float64]
    texture: Texture

    @classmethod
    def of(cls, shot: ShotSamples, background: Background, count: int) -> _Sums:
        """Sums over so many samples."""
        total = cls(0, 0, np.zeros(len(_BINS) - 1), Texture())
        threshold = threshold_map(background.noise)
        for index in evenly_spaced(len(shot.images), count):
            image = shot.images[index]
            behind = lit_as(image, background.image)
            total.add(image, behind, frame_mask(image, behind, threshold))
        return total

    def add(self, image: _Bytes, behind: _Bytes, mask: _Bools) -> None:
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        if width == 0:
            return
        box = slice(max(0, y - _MARGIN), y + height + _MARGIN), slice(max(0, x - _MARGIN), x + width + _MARGIN)
        image, behind = np.ascontiguousarray(image[box]), np.ascontiguousarray(behind[box])
        light, shaded = shadow_light(image, behind)
        opened = cv2.morphologyEx((shaded & mask[box]).view(np.uint8), cv2.MORPH_OPEN, _NEXT)
        shadow = np.asarray(opened > 0, np.bool_)
        self.masks += int(mask.sum())
        self.shadows += int(shadow.sum())
        self.lights += np.histogram(light[shadow], _BINS)[0]
        self.texture.add(image, behind, shadow, light)

    @property
    def share(self) -> float:
        return self.shadows / max(1, self.masks)

    def evidence(self) -> ShadowEvidence:
        lights = self.lights / max(1.0, float(self.lights.sum()))
        peak = float(np.convolve(lights, np.ones(_PEAK), "same").max())
        return ShadowEvidence(self.share, peak, self.texture.slope, self.texture.contrast)
