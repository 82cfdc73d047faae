"""A static background and what is known of it.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Fit, Size, fit_frame

NOISE_STEP = 0.125
"""Noise is kept in eighths of a grey level."""


@dataclass(frozen=True)
class Plane:
    """What the frames of a moving camera each see a part of.

    Attributes:
        image: uint8 (h, w, 3), RGB; may be larger than a frame.
        noise: float32 (h, w), see `Background.noise`.
        valid: bool (h, w), where it was really seen.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Background:
    """The static background of one shot.

    Attributes:
        image: uint8 (H, W, 3), RGB; of a moving camera, as its usual frame sees it.
        noise: float32 (H, W), grey levels: how much a still pixel changes from frame to frame; 0 where the shot was
            too short to tell.
        valid: bool (H, W), where the background was really seen; elsewhere it is filled in. A median holds every pixel
            for seen.
        transforms: float32 (T, 2, 3), frame to plane, for a camera that shakes or pans; None where it stands still.
        plane: what they lead into; None where that is the picture itself.
        grade: A to F, how far to trust it; None where it was not graded.
        reasons: what lowered the grade.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]
    transforms: NDArray[np.float32] | None = None
    plane: Plane | None = None
    grade: str | None = None
    reasons: tuple[str, ...] = ()

    def at(self, frame: int) -> NDArray[np.uint8]:
        """The background as frame number `frame` of the shot sees it, uint8 (H, W, 3)."""
        return self.layer_at((self.plane or self).image, frame)

    def valid_at(self, frame: int) -> NDArray[np.bool_]:
        """Where the background of a frame was really seen, bool (H, W)."""
        return self.layer_at((self.plane or self).valid, frame)

    def layer_at(self, layer: NDArray[Any], frame: int) -> NDArray[Any]:
        """What a frame sees of a layer of the plane, (h, w, ...), or of the picture where there is no plane: (H, W, ...)."""
        if self.transforms is None:
            return layer
        return view(layer, self.transforms[frame], (self.image.shape[0], self.image.shape[1]))


def view(layer: NDArray[Any], transform: NDArray[np.float32], size: Size) -> NDArray[Any]:
    """What a frame of `size` = (height, width) sees of a layer: (height, width, ...) of its type.

    Args:
        layer: (h, w, ...), uint8, float32 or bool.
        transform: float32 (2, 3), frame to layer; what lies beyond the layer is repeated from its rim.
        size: of the frame.
    """
    solid = layer.astype(np.uint8) * 255 if layer.dtype == np.bool_ else layer
    seen = cv2.warpAffine(
        solid, transform, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen > 127 if layer.dtype == np.bool_ else seen, layer.dtype)


def fit_background(background: Background, size: Size, fit: Fit) -> Background:
    """A background brought to a store's size, exactly as the frames are.

    Raises:
        ValueError: it is of a stabilised shot: its transforms hold for its own size alone.
    """
    if background.transforms is not None:
        raise ValueError("a background of a moving camera cannot be brought to another size; its `image` can")
    noise = fit_frame(quantise_noise(background.noise), size, fit).astype(np.float32) * np.float32(NOISE_STEP)
    valid = fit_frame(background.valid.astype(np.uint8) * 255, size, fit) > 127
    return replace(background, image=fit_frame(background.image, size, fit), noise=noise, valid=valid)


def quantise_noise(noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Noise in grey levels as whole eighths, saturating at 255 of them: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(noise / np.float32(NOISE_STEP)), 0, 255), np.uint8)
