"""Pictures as JPEG: quality 90, chroma at half resolution (4:2:0)."""

from __future__ import annotations

import struct
from contextlib import suppress

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
# Decodes with red first; OpenCV has it since 4.11. Turned pictures are not ours: a picture is as it is stored.
_RED_FIRST: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
_AS_STORED = (_RED_FIRST or cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION

_BASELINE = 0xC0
_OTHER_FRAMES = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


def encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB to the bytes of a JPEG picture: quality 90, chroma at half resolution (4:2:0)."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _FLAGS)
    if not good:
        raise ValueError(f"cv2 could not encode a picture of {image.shape = }")
    encoded: NDArray[np.uint8] = data.reshape(-1)
    return encoded


def decode_jpeg(data: NDArray[np.uint8], out: NDArray[np.uint8], name: str = "a picture") -> None:
    """A JPEG picture into uint8 (H, W, 3), RGB.

    Args:
        data: its bytes.
        out: of the size that it must have; that is looked at before it is decoded.
        name: of its file, for messages.

    Raises:
        StoreDamageError: it is no baseline JPEG, or of another size.
    """
    found = jpeg_shape(data.tobytes())
    picture = None
    if found == out.shape:
        with suppress(cv2.error):
            picture = cv2.imdecode(data, _AS_STORED)
    if picture is None or picture.shape != out.shape:
        height, width = out.shape[:2]
        said = f"has a picture of {found[0]}x{found[1]} with {found[2]} colours" if found else "has a picture"
        raise StoreDamageError(name, f"{said} that is no JPEG of {height}x{width}: run `bgaug verify`")
    if _RED_FIRST:
        out[...] = picture
    else:
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=out)


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, colours) that the header of a baseline JPEG declares; None where it is none.

    Reference: ITU-T T.81, annex B.
    """
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _BASELINE and length >= 8 and place + 2 + length <= len(data):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width, data[place + 9]
        if marker == _SCAN or marker in _OTHER_FRAMES or length < 2:
            return None
        place += 2 + length
    return None
