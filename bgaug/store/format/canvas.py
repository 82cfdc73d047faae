"""The canvas of a moving camera as rows of the arrays of a shard.

Letters: H, W pixels of a frame, h, w of a canvas, S places: frames that could be aligned to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.background import NOISE_STEP, Canvas, quantise_noise
from bgaug.background.image import MIN_CONFIDENCE
from bgaug.store.format.records import CanvasRow, is_transform

CANVAS_LAYERS = ("canvas_image", "canvas_noise", "canvas_valid")
"""Arrays with a row for each pixel of a canvas."""
CANVAS_PLACES = "canvas_places"
"""The array with a row for each of its places."""


def canvas_rows(canvas: Canvas, start: int) -> dict[str, NDArray[Any]]:
    """The rows of a canvas in each array, in the order in which content covers them.

    `canvas_image` uint8 (h * w, 3); `canvas_noise`, in eighths of a grey level, and `canvas_valid` uint8 (h * w,);
    `canvas_places` float64 (S, 8): frame number within the video, confidence, and transform row by row.

    Args:
        canvas: frames below `MIN_CONFIDENCE` are left out: `Canvas.guess` does not use them.
        start: first frame of its shot.
    """
    sure = canvas.confidence >= MIN_CONFIDENCE
    numbers = [canvas.indices[sure] + start, canvas.confidence[sure], *canvas.transforms[sure].reshape(-1, 6).T]
    return {
        "canvas_image": canvas.image.reshape(-1, 3),
        "canvas_noise": quantise_noise(canvas.noise).reshape(-1),
        "canvas_valid": canvas.valid.reshape(-1).astype(np.uint8),
        CANVAS_PLACES: np.stack(numbers, axis=1).astype(np.float64),
    }


def canvas_from(row: CanvasRow, arrays: Mapping[str, NDArray[Any]], start: int) -> Canvas:
    """The canvas from its record and the rows that `canvas_rows` made; `start` is the first frame of its shot.

    Raises:
        ValueError: its places are not in order of frames.
    """
    height, width = row.size
    places = arrays[CANVAS_PLACES]
    if (np.diff(places[:, 0]) <= 0).any():
        raise ValueError("the places of a canvas are not in order of frames")
    return Canvas(
        image=arrays["canvas_image"].reshape(height, width, 3),
        noise=arrays["canvas_noise"].reshape(height, width).astype(np.float32) * np.float32(NOISE_STEP),
        valid=arrays["canvas_valid"].reshape(height, width) > 0,
        transforms=places[:, 2:].astype(np.float32).reshape(-1, 2, 3),
        confidence=places[:, 1].astype(np.float32),
        usual=np.array(row.usual, np.float32).reshape(2, 3),
        indices=places[:, 0].astype(np.int64) - start,
        size=(row.frame_size[0], row.frame_size[1]),
    )


def can_be_stored(canvas: Canvas) -> bool:
    """Whether a store can hold a canvas: that of a camera that shakes is far within the limits of `is_transform`."""
    sure = canvas.transforms[canvas.confidence >= MIN_CONFIDENCE].reshape(-1, 6).tolist()
    return len(sure) > 0 and all(is_transform(values) for values in (*sure, canvas.usual.ravel().tolist()))


def places_are_possible(places: NDArray[np.float64]) -> bool:
    """Whether the values of `canvas_places`, float64 (S, 8), are frames, confidences and transforms."""
    frames, confidence = places[:, 0], places[:, 1]
    return bool(
        np.isfinite(places).all()
        and (frames >= 0).all()
        and (frames < 2**31).all()
        and (frames == np.rint(frames)).all()
        and ((confidence >= MIN_CONFIDENCE) & (confidence <= 1)).all()
        and all(is_transform(values) for values in places[:, 2:].tolist())
    )
