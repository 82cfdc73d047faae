"""A video as it is read: facts of its header, its frames, and what every reader shares.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size, resize_area

_THUMBNAIL_SIZE: Size = (60, 80)

EXTENSIONS = frozenset(
    (
        *(".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m4v", ".mkv"),
        *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)
"""File names that a folder walk counts as videos; an explicitly named file is always tried."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts of the container about the stream that is read.

    Attributes:
        path: the file.
        height: of the frames in pixels, turned as they are shown.
        width: of the frames in pixels, turned as they are shown.
        fps: average frames per second: that of the container if the times of the frames confirm it, else by those
            times; 25.0 if both are missing.
        declared_frames: number of frames that the container declares; often wrong. None if it declares none, or more
            than a file of its size can hold.
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
        """(height, width) at which the image has its correct aspect; the height is that of the frames."""
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
    """One decoded frame; its pixels are converted only on request, even after later frames were decoded."""

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
        """uint8 (H, W, 3), upright; converted at the first call, and the same array at every call."""
        ...

    def thumbnail(self) -> NDArray[np.uint8]:
        """Luma and the two chroma channels at `_THUMBNAIL_SIZE`: uint8 (60, 80, 3), much cheaper than `rgb`."""
        ...


def thumbnail_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thumbnail of an RGB image, uint8 (H, W, 3) to (60, 80, 3); see `DecodedFrame.thumbnail`."""
    return np.asarray(cv2.cvtColor(shrunk(image), cv2.COLOR_RGB2YUV), np.uint8)


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image or plane at `_THUMBNAIL_SIZE`: an image of twice that size, averaged over 2x2 blocks.

    The larger image comes from 2x2 averages too if its size allows it, else by subsampling, which is accurate enough.
    General area filters cost several times as much.
    """
    height, width = _THUMBNAIL_SIZE
    there = image.shape[:2]
    if there[0] < 2 * height or there[1] < 2 * width:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if there != (2 * height, 2 * width):
        how = cv2.INTER_AREA if there == (4 * height, 4 * width) else cv2.INTER_NEAREST
        image = np.asarray(cv2.resize(image, (2 * width, 2 * height), interpolation=how), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class VideoReader:
    """An open video. Use it in a `with` block, or call `close`. A reader needs to implement only `scan`."""

    info: VideoInfo

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass from the first frame to the last; conversion to RGB is left to the caller."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; between passes nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def iter(self, stride: int = 1, size: Size | None = None) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """One pass: (index, pts in seconds, uint8 (H, W, 3)) of every `stride`-th frame, resized by area to `size`."""
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        for frame in self.scan():
            if frame.index % stride == 0:
                image = frame.rgb()
                yield frame.index, frame.pts_seconds, image if size is None else resize_area(image, size)

    def get(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames by index, uint8 (len(indices), H, W, 3), equal to those of a sequential pass.

        Raises:
            IndexError: an index is negative or past the last frame that the file really holds.
        """
        requested = np.asarray(indices, np.int64).reshape(-1)
        if requested.size and requested.min() < 0:
            raise IndexError(f"frame indices start at 0, got {requested.min()}")
        if not requested.size:
            return np.empty((0, self.info.height, self.info.width, 3), np.uint8)
        found = self._frames(sorted(set(requested.tolist())))
        return np.stack([found[index] for index in requested.tolist()])

    def _frames(self, requested: list[int]) -> dict[int, NDArray[np.uint8]]:
        """Frames by ascending, distinct indices, from a sequential pass."""
        found: dict[int, NDArray[np.uint8]] = {}
        distinct = set(requested)
        for frame in self.scan():
            if frame.index in distinct:
                found[frame.index] = frame.rgb()
                if len(found) == len(distinct):
                    return found
        raise IndexError(f"{self.info.path} ends before frame {requested[-1]}")

    def clip(self, start_seconds: float, num_frames: int, stride: int = 1) -> NDArray[np.uint8]:
        """`num_frames` frames from the one shown at `start_seconds` on, every `stride`-th.

        Raises:
            IndexError: the video ends before the clip does.
        """
        if num_frames < 1 or stride < 1:
            raise ValueError(f"num_frames and stride must be at least 1, got {num_frames = }, {stride = }")
        frames: list[NDArray[np.uint8]] = []
        shown: DecodedFrame | None = None
        first = -1
        for frame in self.scan():
            if first < 0:
                # The frame shown at a time is the last one whose own time is not later.
                if frame.pts_seconds <= start_seconds + 1e-9:
                    shown = frame
                    continue
                shown = shown or frame
                first = shown.index
                frames.append(shown.rgb())
            if len(frames) == num_frames:
                break
            if frame.index > first and (frame.index - first) % stride == 0:
                frames.append(frame.rgb())
        if first < 0 and shown is not None:
            frames.append(shown.rgb())
        return whole_clip(self.info.path, frames, num_frames, start_seconds)


def whole_clip(path: Path, frames: list[NDArray[np.uint8]], count: int, start: float) -> NDArray[np.uint8]:
    """The frames of a clip, stacked.

    Raises:
        IndexError: there are fewer than `count`.
    """
    if len(frames) < count:
        raise IndexError(f"{path} holds {len(frames)} of the {count} frames requested from {start} s")
    return np.stack(frames)
