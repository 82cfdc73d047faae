"""What every reader can do because it can do one sequential pass.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size, resize_area
from bgaug.video.frames import DecodedFrame, VideoInfo


class VideoReader(Protocol):
    """An open video. Use it in a `with` block, or call `close`."""

    info: VideoInfo

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass from the first frame to the last; conversion to RGB is left to the caller."""
        ...

    def iter(self, stride: int = 1, size: Size | None = None) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """One pass: (index, pts in seconds, uint8 (H, W, 3)) of every `stride`-th frame, resized by area to `size`."""
        ...

    def get(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames by index, uint8 (len(indices), H, W, 3), those that a sequential pass returns.

        Raises:
            IndexError: an index is negative or past the last frame that the file really holds.
        """
        ...

    def clip(self, start_seconds: float, num_frames: int, stride: int = 1) -> NDArray[np.uint8]:
        """`num_frames` frames from the one shown at `start_seconds` on, every `stride`-th.

        Raises:
            IndexError: the video ends before the clip does.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SequentialReader:
    """What the readers share: everything that follows from a sequential pass."""

    info: VideoInfo

    def scan(self) -> Iterator[DecodedFrame]:
        """See `VideoReader.scan`."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing stays open between passes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def iter(self, stride: int = 1, size: Size | None = None) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """See `VideoReader.iter`."""
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        for frame in self.scan():
            if frame.index % stride == 0:
                image = frame.rgb()
                yield frame.index, frame.pts_seconds, image if size is None else resize_area(image, size)

    def get(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `VideoReader.get`."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if wanted.size and wanted.min() < 0:
            raise IndexError(f"frame indices start at 0, got {wanted.min()}")
        if not wanted.size:
            return np.empty((0, self.info.height, self.info.width, 3), np.uint8)
        found = self._frames(sorted(set(wanted.tolist())))
        return np.stack([found[index] for index in wanted.tolist()])

    def _frames(self, wanted: list[int]) -> dict[int, NDArray[np.uint8]]:
        """Frames by ascending, distinct indices, from a sequential pass."""
        found: dict[int, NDArray[np.uint8]] = {}
        distinct = set(wanted)
        for frame in self.scan():
            if frame.index in distinct:
                found[frame.index] = frame.rgb()
                if len(found) == len(distinct):
                    return found
        raise IndexError(f"{self.info.path} ends before frame {wanted[-1]}")

    def clip(self, start_seconds: float, num_frames: int, stride: int = 1) -> NDArray[np.uint8]:
        """See `VideoReader.clip`."""
        if num_frames < 1 or stride < 1:
            raise ValueError(f"num_frames and stride must be at least 1, got {num_frames = }, {stride = }")
        frames: list[NDArray[np.uint8]] = []
        shown: DecodedFrame | None = None
        first = -1
        for frame in self.scan():
            if first < 0:
                # The frame shown at a time is the last one whose own time is not after it.
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


def whole_clip(path: Path, frames: list[NDArray[np.uint8]], wanted: int, start: float) -> NDArray[np.uint8]:
    """The frames of a clip, stacked.

    Raises:
        IndexError: there are fewer than were wanted.
    """
    if len(frames) < wanted:
        raise IndexError(f"{path} holds {len(frames)} of the {wanted} frames asked for from {start} s")
    return np.stack(frames)
