"""Decoded images as upright RGB.

Conversion follows FFmpeg's default: matrix and range are those that the frame names, BT.601 and limited range where it
names none. Ordinary video (8 bits, 4:2:0) repeats each chroma sample over its two by two pixels; where depth or size
need a scaler, chroma is repeated along rows and interpolated by a bicubic filter along columns (in odd widths along
both). Transfer curves stay as they are: HDR is not converted to SDR.

Letters: H, W pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.0175  # the tangent of one degree, as in FFmpeg
_DIRECT = frozenset(["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"])


@dataclass(frozen=True)
class Orientation:
    """How an image is turned for display: first transposed, then mirrored.

    Attributes:
        transposed: rows become columns.
        left_right: mirrored left to right.
        top_bottom: mirrored top to bottom.
    """

    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a turn: mirrored left to right, then turned by `rotation_degrees`."""
        return self.transposed ^ self.left_right ^ self.top_bottom

    @property
    def rotation_degrees(self) -> int:
        """Counter-clockwise turn, after mirroring if `mirrored`: 0, 90, 180 or 270."""
        if self.transposed:
            return 270 if self.left_right else 90
        return 180 if self.top_bottom else 0

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image, uint8 (H, W, 3), as it is displayed; a view."""
        if self.transposed:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.top_bottom else 1, :: -1 if self.left_right else 1]


AS_STORED = Orientation()


def orientation_of(frame: Any) -> Orientation:
    """Orientation of a frame of PyAV by its display matrix; a matrix that is no quarter turn is ignored."""
    from av.sidedata.sidedata import SideDataContainer

    # Not `frame.side_data`: the frame keeps it, and it refers back to the frame, so frames pile up until the garbage
    # collector runs.
    of: Any = SideDataContainer
    for data in of(frame):
        if data.type.name == "DISPLAYMATRIX":
            return _orientation(bytes(data))
    return AS_STORED


def _orientation(matrix: bytes) -> Orientation:
    """Orientation by a display matrix: nine 32-bit numbers in the machine's byte order, as FFmpeg returns them.

    Its first two rows map the axes: x' = a x + c y, y' = b x + d y.
    """
    if len(matrix) < 36:
        return AS_STORED
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight and max(abs(b), abs(c)) <= _TOLERANCE * straight:
        return Orientation(False, a < 0, d < 0)
    if crossed and max(abs(a), abs(d)) <= _TOLERANCE * crossed:
        return Orientation(True, c < 0, b < 0)
    return AS_STORED


class RgbConverter:
    """Converts frames of PyAV, with one scaler for all frames of one format. Not thread-safe."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._scaler = VideoReformatter()
        self._bicubic = Interpolation.BICUBIC

    def __call__(self, frame: Any, height: int, width: int) -> NDArray[np.uint8]:
        """The image as it is stored, uint8 (H, W, 3), RGB; scaled if its size differs."""
        if _has_siting(frame):
            frame = _without_siting(frame)
        # One thread: the default of one per processor doubles the time for images of this size.
        converted = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=self._bicubic, threads=1
        )
        plane: Any = converted.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        image: NDArray[np.uint8] = rows[:, : width * 3].reshape(height, width, 3)
        return image


def _has_siting(frame: Any) -> bool:
    """Whether the scaler would shift chroma by the chroma location that the stream names."""
    name = frame.format.name
    return name.startswith("yuv") and (name not in _DIRECT or frame.width % 2 == 1 or frame.height % 2 == 1)


def _without_siting(frame: Any) -> Any:
    """The same image without a chroma location, which newer versions of FFmpeg follow and older ones ignore.

    Without it all versions agree, and files with and without a chroma location are converted alike.
    """
    import av

    bare: Any = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for ours, theirs in zip(bare.planes, frame.planes, strict=True):
        into = np.frombuffer(ours, np.uint8).reshape(-1, ours.line_size)
        source = np.frombuffer(theirs, np.uint8).reshape(-1, theirs.line_size)
        count = min(ours.line_size, theirs.line_size)
        into[:, :count] = source[: len(into), :count]
    bare.colorspace, bare.color_range = frame.colorspace, frame.color_range
    return bare
