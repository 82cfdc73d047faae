"""Masks as pictures: a folder of PNGs.

Letters: H, W pixels.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.masks.external.form import ForeignMasks, foreground, frame_index, leads_out, untold
from bgaug.names import MaskValues
from bgaug.sizing import Size

OTHER_PICTURES = (".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


class PictureMasks(ForeignMasks):
    """Masks in a folder; links that lead out of `root` are refused."""

    def __init__(self, path: Path, root: Path, first: int, values: MaskValues) -> None:
        super().__init__(path)
        self._root, self._first, self._values = root, first, values
        self._seen: tuple[str, Size] | None = None

    @cached_property
    def _content(self) -> dict[int, str]:
        """Name of each frame's picture."""
        pictures: dict[int, str] = {}
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror}") from error
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(OTHER_PICTURES):
                raise MasksError(
                    self.path / name,
                    "masks are read from PNGs alone, JPEG blurs them; write them as PNG from the source, or move it away",
                )
            if not name.lower().endswith(".png"):
                continue
            if leads_out(self.path / name, self._root):
                raise MasksError(
                    self.path / name, f"is a link that leads out of {self._root}; put the mask itself there"
                )
            index = frame_index(self.path, name, self._first)
            if index in pictures:
                raise MasksError(self.path, f"{pictures[index]} and {name} are the same frame {index}; keep one")
            pictures[index] = name
        return pictures

    @property
    def num_frames(self) -> int | None:
        """See `ForeignMasks`."""
        return None

    def indices(self) -> Sequence[int]:
        """See `ForeignMasks`."""
        return sorted(self._content)

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """See `ForeignMasks`."""
        name = self._content.get(index)
        if name is None:
            return None
        file, pixels = self.path / name, self._pixels(name)
        try:
            mask = foreground(pixels, self._values)
        except ValueError as error:
            raise MasksError(file, str(error)) from error
        size = mask.shape[0], mask.shape[1]
        self._seen = self._seen or (name, size)
        if size != self._seen[1]:
            other, (height, width) = self._seen
            raise MasksError(
                file, f"is {size[0]}x{size[1]}, but {other} is {height}x{width}; a video's masks have one size"
            )
        return mask

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """See `ForeignMasks`."""
        name = self._content.get(index)
        return None if name is None or self._values == "nonzero" else untold(self._pixels(name), self._values)

    def _pixels(self, name: str) -> NDArray[Any]:
        file = self.path / name
        try:
            return _decode_png(file.read_bytes())
        except OSError as error:
            raise MasksError(file, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise MasksError(file, str(error)) from error


def _decode_png(data: bytes) -> NDArray[Any]:
    """Pixels of a PNG without alpha: (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        ValueError: not a whole PNG.
    """
    _check_png(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"a PNG that cannot be decoded ({error.err}); write it anew") from error
    if pixels is None:
        raise ValueError("a PNG that cannot be decoded; write it anew")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., :3])


def _check_png(data: bytes) -> None:
    """Every chunk there and unchanged: decoders fill what is missing with background, some of them silently."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("expected a PNG, it does not begin like one; write it anew")
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it anew")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it anew")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("a PNG whose bytes are damaged (a checksum is wrong); copy or write it anew")
        at = end
