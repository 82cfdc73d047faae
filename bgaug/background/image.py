"""The static background of a shot: one image, or, for a camera that moves, an image with a transform for each frame.

Letters: T frames, S samples, H, W pixels of a frame, h, w of a canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Fit, Size, fit_frame

NOISE_STEP = 0.125
"""Noise is stored in eighths of a grey level."""

MIN_CONFIDENCE = 0.5
"""A frame below this confidence counts as not aligned. Correct alignments have .6 and more, other scenes less."""


@dataclass(frozen=True)
class Canvas:
    """A background put together from frames of a camera that moved, with the place of each frame in it.

    Attributes:
        image: uint8 (h, w, 3), RGB; may be larger than a frame.
        noise: float32 (h, w), grey levels, see `Background.noise`; measured between aligned samples.
        valid: bool (h, w), where enough samples saw it.
        transforms: float32 (S, 2, 3), frame to canvas, of the frames `indices`.
        confidence: float32 (S,), see `Alignment`.
        usual: float32 (2, 3), transform of the usual frame, to which `Background.image` belongs.
        indices: int64 (S,), frame numbers within the shot.
        size: (height, width) of a frame.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]
    transforms: NDArray[np.float32]
    confidence: NDArray[np.float32]
    usual: NDArray[np.float32]
    indices: NDArray[np.int64]
    size: Size

    def layer_at(self, layer: NDArray[Any], place: int) -> NDArray[Any]:
        """The part of a layer (h, w, ...) that the frame number `place` of `transforms` sees: (H, W, ...)."""
        return view(layer, self.transforms[place], self.size)

    def guess(self, frame: int) -> NDArray[np.float32]:
        """The transform of a frame, interpolated between the aligned frames around it: float32 (2, 3)."""
        sure = self.confidence >= MIN_CONFIDENCE
        known = self.transforms[sure].reshape(-1, 6)
        between = [np.interp(frame, self.indices[sure], column) for column in known.T]
        return np.array(between, np.float32).reshape(2, 3)

    def usual_view(self) -> Background:
        """The part of the canvas that the usual frame sees, as the background of a camera that does not move."""
        image, noise, valid = (view(layer, self.usual, self.size) for layer in (self.image, self.noise, self.valid))
        return Background(image, noise, valid)


@dataclass(frozen=True)
class Background:
    """The static background of one shot.

    Attributes:
        image: uint8 (H, W, 3), RGB; for a moving camera, the view of its usual frame.
        noise: float32 (H, W), grey levels: how much a still pixel changes from frame to frame; 0 where the shot was
            too short to measure it.
        valid: bool (H, W), where the background was really seen; elsewhere it is filled in. A median counts every
            pixel as seen.
        canvas: for a camera that shakes or pans, the larger background and the place of each frame; None for a still
            camera.
        grade: A to F, predicted quality; None where it was not graded.
        reasons: what lowered the grade.
        shadows: whether masks keep hard shadows; False where the bodies of the shot were found to cast them.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]
    canvas: Canvas | None = None
    grade: str | None = None
    reasons: tuple[str, ...] = ()
    shadows: bool = True

    def at(self, frame: int) -> NDArray[np.uint8]:
        """The background as frame number `frame` of the shot sees it, uint8 (H, W, 3)."""
        return self.image if self.canvas is None else self.canvas.layer_at(self.canvas.image, frame)

    def valid_at(self, frame: int) -> NDArray[np.bool_]:
        """Where the background of a frame was really seen, bool (H, W)."""
        return self.valid if self.canvas is None else self.canvas.layer_at(self.canvas.valid, frame)


@dataclass(frozen=True)
class BackgroundView:
    """The background of a camera that moves, as one frame of the shot sees it.

    Attributes:
        frame: number of the frame within the shot.
        background: at the size and place of that frame; without a canvas.
    """

    frame: int
    background: Background


def view(layer: NDArray[Any], transform: NDArray[np.float32], size: Size) -> NDArray[Any]:
    """The part of a layer that a frame sees: (height, width, ...) of the layer's type.

    Args:
        layer: (h, w, ...), uint8, float32 or bool.
        transform: float32 (2, 3), frame to layer; beyond the layer, its rim is repeated.
        size: (height, width) of the frame.
    """
    solid = layer.astype(np.uint8) * 255 if layer.dtype == np.bool_ else layer
    seen = cv2.warpAffine(
        solid, transform, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen > 127 if layer.dtype == np.bool_ else seen, layer.dtype)


def fit_background(background: Background, size: Size, fit: Fit) -> Background:
    """A background at a store's size, fitted exactly as the frames are.

    Raises:
        ValueError: it has a canvas, whose transforms hold only for its own size.
    """
    if background.canvas is not None:
        raise ValueError("a background of a moving camera cannot be resized, only its `image` can")
    noise = fit_frame(quantise_noise(background.noise), size, fit).astype(np.float32) * np.float32(NOISE_STEP)
    valid = fit_frame(background.valid.astype(np.uint8) * 255, size, fit) > 127
    return replace(background, image=fit_frame(background.image, size, fit), noise=noise, valid=valid)


def quantise_noise(noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Noise in grey levels as whole eighths, at most 255 of them: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(noise / np.float32(NOISE_STEP)), 0, 255), np.uint8)
