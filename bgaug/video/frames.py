"""What reading a video gives: its facts, its frames, and small pictures of them.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size

THUMBNAIL_SIZE: Size = (60, 80)

EXTENSIONS = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".f4v",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
"""File names that a folder walk takes for videos; an explicitly named file is always tried."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container says about the stream that is read.

    Attributes:
        path: the file.
        height: of the frames in pixels, turned as they are shown.
        width: of the frames in pixels, turned as they are shown.
        fps: average frames per second: the container's where the frames' times bear it out, else theirs; 25.0 where
            neither says.
        declared_frames: number of frames that the container claims; often wrong. None where it claims none, or more than
            a file of its size can hold.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container format.
        rotation_degrees: counter-clockwise turn that display needs: 0, 90, 180 or 270.
        mirrored: whether display also needs left and right exchanged, before the turn.
        sample_aspect: width to height of a pixel as it is shown, (1, 1) for square ones.
    """

    path: Path
    height: int
    width: int
    fps: float
    declared_frames: int | None
    codec: str
    container: str
    rotation_degrees: int
    mirrored: bool = False
    sample_aspect: tuple[int, int] = (1, 1)

    @property
    def display_size(self) -> Size:
        """(height, width) at which the picture has its right aspect: as high as the frames, as wide as their pixels ask."""
        across, down = self.sample_aspect
        return self.height, max(1, round(self.width * across / down))


@dataclass(frozen=True)
class Video:
    """A whole video in memory.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        fps: average frames per second.
        pts_seconds: float64 (T,), presentation time of each frame.
    """

    frames: NDArray[np.uint8]
    fps: float
    pts_seconds: NDArray[np.float64]


class DecodedFrame(Protocol):
    """One decoded frame; its pixels are converted only when asked for, which may be frames later: it keeps them."""

    @property
    def index(self) -> int:
        """Number of the frame in the video."""
        ...

    @property
    def pts_seconds(self) -> float:
        """Presentation time."""
        ...

    @property
    def display_size(self) -> Size:
        """See `VideoInfo.display_size`."""
        ...

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), turned for display; made at the first call, the same array at each, and the caller's to keep."""
        ...

    def thumbnail(self) -> NDArray[np.uint8]:
        """Brightness and the two colour differences at `THUMBNAIL_SIZE`: uint8 (60, 80, 3), far cheaper than `rgb`."""
        ...


def thumbnail_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thumbnail of an RGB picture, uint8 (H, W, 3) to (60, 80, 3); see `DecodedFrame.thumbnail`."""
    return np.asarray(cv2.cvtColor(shrunk(image), cv2.COLOR_RGB2YUV), np.uint8)


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture or plane at `THUMBNAIL_SIZE`: means of two by two points of one of twice that size.

    That one is had by whichever is cheap: means of two by two again, or every picture point that falls on its grid,
    which is quiet enough. General area filters cost several times as much.
    """
    height, width = THUMBNAIL_SIZE
    there = image.shape[:2]
    if there[0] < 2 * height or there[1] < 2 * width:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if there != (2 * height, 2 * width):
        how = cv2.INTER_AREA if there == (4 * height, 4 * width) else cv2.INTER_NEAREST
        image = np.asarray(cv2.resize(image, (2 * width, 2 * height), interpolation=how), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
