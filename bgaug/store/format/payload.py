"""The content that one video adds to a shard, gathered in memory, and its images as JPEG."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, Canvas, quantise_noise
from bgaug.errors import StoreDamageError
from bgaug.masks import SmallMasks, pack_mask
from bgaug.store.format.canvas import CANVAS_LAYERS, CANVAS_PLACES, canvas_rows
from bgaug.store.format.layout import Header, crc32c
from bgaug.store.format.records import CanvasRow, ShotTotals, SmallMasksRow

_BLOCK = 1 << 20  # of JPEGs in memory
_FLAGS = [
    cv2.IMWRITE_JPEG_QUALITY,
    90,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
]
# OpenCV decodes to RGB since 4.11. Orientation marks are ignored: a store never writes any.
_RED_FIRST: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
_AS_STORED = (_RED_FIRST or cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION

# Markers of JPEG.
_BASELINE = 0xC0
_OTHER_FRAMES = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


@dataclass
class _Runs:
    """Runs of bytes end to end in a few large blocks: many small arrays would each touch fresh memory."""

    lengths: list[int] = field(default_factory=list)  # length of each run
    _blocks: list[NDArray[np.uint8]] = field(default_factory=list)
    _filled: int = _BLOCK

    def append(self, data: NDArray[np.uint8]) -> None:
        """Add a copy of a run."""
        if self._filled + len(data) > _BLOCK:
            self._close()
            self._blocks.append(np.empty(max(_BLOCK, len(data)), np.uint8))
            self._filled = 0
        self._blocks[-1][self._filled : self._filled + len(data)] = data
        self._filled += len(data)
        self.lengths.append(len(data))

    def _close(self) -> None:
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: self._filled]

    @property
    def blocks(self) -> list[NDArray[np.uint8]]:
        """All bytes, in order."""
        self._close()
        return self._blocks


@dataclass
class VideoPayload:
    """The content that one video adds to a shard; dropped completely if the video turns out to be unusable.

    Args:
        header: header of the store.
    """

    header: Header
    pts_seconds: list[float] = field(default_factory=list)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    jpegs: _Runs = field(default_factory=_Runs)
    checksums: list[int] = field(default_factory=list)
    masks: list[NDArray[np.uint8]] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)
    canvases: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    small_masks: list[SmallMasks] = field(default_factory=list)

    def add_frame(self, pts_seconds: float, image: NDArray[np.uint8] | None) -> None:
        """Add a frame at the store's size, uint8 (H, W, 3); None if the store keeps no frames."""
        self.pts_seconds.append(pts_seconds)
        if self.header.frames == "none" or image is None:
            return
        if self.header.frames == "jpeg":
            stored = _encode_jpeg(image)
            self.jpegs.append(stored)
        else:
            stored = np.ascontiguousarray(image)
            self.images.append(stored)
        self.checksums.append(crc32c(stored))

    def add_masks(self, masks: NDArray[np.bool_]) -> None:
        """Add the masks of further frames, bool (n, H, W)."""
        for mask in masks:
            self.masks.append(np.packbits(mask))  # faster than `pack_mask` for single masks

    def packed_masks(self) -> NDArray[np.uint8]:
        """All masks as bits, uint8 (n, P); n = 0 if there are none."""
        height, width = self.header.size
        return np.stack(self.masks) if self.masks else np.empty((0, (height * width + 7) // 8), np.uint8)

    def add_background(self, background: Background) -> int:
        """Add the background of a further shot, at the store's size; returns its number within the video."""
        self.backgrounds.append(background)
        return len(self.backgrounds) - 1

    def add_canvas(self, canvas: Canvas, start: int) -> CanvasRow:
        """Add the canvas of a further shot, which begins at frame `start`; returns its place within the video."""
        rows = canvas_rows(canvas, start)
        height, width = canvas.valid.shape
        row = CanvasRow(
            pixel=self.totals.canvas_pixels,
            size=[height, width],
            frame_size=list(canvas.size),
            usual=canvas.usual.ravel().tolist(),
            place=self.totals.canvas_places,
            num_places=len(rows[CANVAS_PLACES]),
        )
        self.canvases.append(rows)
        return row

    def add_small_masks(self, masks: SmallMasks) -> SmallMasksRow:
        """Add the small masks of a further shot; returns their place within the video."""
        row = SmallMasksRow(byte=self.totals.small_mask_bytes, size=list(masks.size))
        self.small_masks.append(masks)
        return row

    @property
    def totals(self) -> ShotTotals:
        """What its shots have in the arrays."""
        return ShotTotals(
            len(self.backgrounds),
            sum(len(rows[CANVAS_LAYERS[0]]) for rows in self.canvases),
            sum(len(rows[CANVAS_PLACES]) for rows in self.canvases),
            sum(masks.num_bytes for masks in self.small_masks),
        )

    def content(self, packed_masks: NDArray[np.uint8]) -> str:
        """See `content_digest`; takes the result of `packed_masks`."""

        def parts() -> Iterator[NDArray[Any]]:
            yield packed_masks
            for background in self.backgrounds:
                yield from (background.image, quantise_noise(background.noise), pack_mask(background.valid))
            for rows in self.canvases:
                yield from rows.values()
            for masks in self.small_masks:
                yield from masks.blocks()

        return content_digest(self.pts_seconds, self.checksums, parts())


def content_digest(
    pts_seconds: Sequence[float],
    checksums: Sequence[int],
    parts: Iterable[NDArray[Any]],
) -> str:
    """sha256 of the stored content of a video.

    Args:
        pts_seconds: time of every frame.
        checksums: crc32c of every stored frame, in place of its bytes.
        parts: the packed masks, if any; then image, quantised noise and packed validity of each background; then the
            rows of each canvas, and the small masks of each shot. Rows of an array may come one by one.
    """
    digest = hashlib.sha256(np.asarray(pts_seconds, "<f8").tobytes())
    digest.update(np.asarray(checksums, "<u4").tobytes())
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


# --- JPEG: quality 90, chroma at half resolution (4:2:0) ----------------------------------------------------------


def _encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of a JPEG image from uint8 (H, W, 3) RGB."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _FLAGS)
    if not good:
        raise ValueError(f"cv2 could not encode an image of {image.shape = }")
    encoded: NDArray[np.uint8] = data.reshape(-1)
    return encoded


def decode_jpeg(data: NDArray[np.uint8], out: NDArray[np.uint8], name: str = "an image") -> None:
    """Decode a JPEG image into uint8 (H, W, 3), RGB.

    Args:
        data: its bytes.
        out: array of the expected size; the size is checked before decoding.
        name: name of its file, for messages.

    Raises:
        StoreDamageError: it is not a baseline JPEG, or of another size.
    """
    found = _jpeg_shape(data.tobytes())  # a header may declare 65535x65535 pixels, which OpenCV would allocate
    image = None
    if found == out.shape:
        with suppress(cv2.error):
            image = cv2.imdecode(data, _AS_STORED)
    if image is None or image.shape != out.shape:
        height, width = out.shape[:2]
        what = f"an image of {found[0]}x{found[1]} with {found[2]} channels" if found else "an image"
        raise StoreDamageError(name, f"has {what} that is not a JPEG of {height}x{width}: run `bgaug verify`")
    if _RED_FIRST:
        out[...] = image
    else:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)


def _jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) in the header of a baseline JPEG; None if it is not one.

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
