"""A static background and what is known of it.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Fit, Size, fit_frame

NOISE_STEP = 0.125
"""Noise is kept in eighths of a grey level."""


@dataclass(frozen=True)
class Background:
    """The static background of one shot.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        noise: float32 (H, W), grey levels: how much a still pixel changes from frame to frame; 0 where the shot was
            too short to tell.
        valid: bool (H, W), where the background was really seen. A median holds every pixel for seen.
        transforms: float32 (T, 2, 3), frame to background, for a stabilised shot; None where the camera stands still.
        grade: A to F, how far to trust it; None where it was not graded.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]
    transforms: NDArray[np.float32] | None = None
    grade: str | None = None

    def at(self, frame: int) -> NDArray[np.uint8]:
        """The background as frame number `frame` of the shot sees it, uint8 (H, W, 3)."""
        if self.transforms is None:
            return self.image
        height, width = self.image.shape[:2]
        seen = cv2.warpAffine(
            self.image,
            self.transforms[frame],
            (width, height),
            flags=cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(seen, np.uint8)


def fit_background(background: Background, size: Size, fit: Fit) -> Background:
    """A background brought to a store's size, exactly as the frames are.

    Raises:
        ValueError: it is of a stabilised shot: its transforms hold for its own size alone.
    """
    if background.transforms is not None:
        raise ValueError("a stabilised background cannot be brought to another size")
    noise = fit_frame(quantise_noise(background.noise), size, fit).astype(np.float32) * np.float32(NOISE_STEP)
    valid = fit_frame(background.valid.astype(np.uint8) * 255, size, fit) > 127
    return Background(fit_frame(background.image, size, fit), noise, valid, None, background.grade)


def quantise_noise(noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Noise in grey levels as whole eighths, saturating at 255 of them: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(noise / np.float32(NOISE_STEP)), 0, 255), np.uint8)
