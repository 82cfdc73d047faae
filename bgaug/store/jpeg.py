"""Pictures as JPEG: quality 90, chroma at half resolution (4:2:0)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError

JPEG_QUALITY = 90
_FLAGS = [
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
]
# Decodes with red first; OpenCV has it since 4.11.
_RED_FIRST: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)


def encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB to the bytes of a JPEG picture: quality 90, chroma at half resolution (4:2:0)."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _FLAGS)
    if not good:
        raise ValueError(f"cv2 could not encode a picture of {image.shape = }")
    encoded: NDArray[np.uint8] = data.reshape(-1)
    return encoded


def decode_jpeg(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """A JPEG picture into uint8 (H, W, 3), RGB.

    Raises:
        StoreDamageError: it is none, or of another size.
    """
    picture = cv2.imdecode(data, _RED_FIRST or cv2.IMREAD_COLOR)
    if picture is None or picture.shape != out.shape:
        raise StoreDamageError("a picture", f"is no JPEG of {out.shape[0]}x{out.shape[1]}: run `bgaug verify`")
    if _RED_FIRST:
        out[...] = picture
    else:
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=out)
