"""Clips for evaluation, evenly spaced over a video's longest shot; of a file they are read in a worker process.

Letters: V clips of a video, T frames of a clip, U different frames of all clips, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import BgaugError, VideoDecodeError, VideoError
from bgaug.pipelines.build.workers import Begins, WorkerLost
from bgaug.shots.cuts import CutFinder
from bgaug.sizing import STORE_SIZE, Fit, Size, content_box, fit_frame
from bgaug.video import Decoder, VideoReader, open_video


def uniform_frames(start: int, stop: int, num_frames: int, stride: int, views: int) -> NDArray[np.int64]:
    """Frames of clips that are evenly spaced over a shot, as `ClipDataset` takes them with `sampling="uniform"`.

    Args:
        start: first frame of the shot.
        stop: one past its last.
        num_frames: T.
        stride: distance of the frames.
        views: V.

    Returns:
        int64 (V, T), counted within the video. A shot that is shorter than a clip begins again.
    """
    span, steps = (num_frames - 1) * stride + 1, np.arange(num_frames)
    if stop - start >= span:
        places = np.round((np.arange(views) + 0.5) / views * (stop - start - span)).astype(np.int64)
        return start + places[:, None] + steps * stride
    available = -(-(stop - start) // stride)
    return np.tile(start + steps % available * stride, (views, 1))


def longest_shot(shots: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(start, stop) of the longest, of equally long ones the first."""
    return max(shots, key=lambda shot: shot[1] - shot[0])


def evaluation_size(crop: int) -> Size:
    """Size that files are brought to before the centre crop: that of stores, or more where the crop asks for it."""
    height, width = STORE_SIZE
    return (height, width) if crop <= height else (crop, round(crop * width / height))


@dataclass(frozen=True, eq=False)
class FileClips:
    """Clips of a file.

    Attributes:
        frames: uint8 (U, H, W, 3), RGB, the frames that occur, each once.
        places: int64 (V, T), which of `frames` each clip shows.
        indices: int64 (V, T), their numbers in the video.
        box: (top, left, height, width) of the picture inside a frame.
    """

    frames: NDArray[np.uint8]
    places: NDArray[np.int64]
    indices: NDArray[np.int64]
    box: tuple[int, int, int, int]

    @property
    def clips(self) -> NDArray[np.uint8]:
        """uint8 (V, T, H, W, 3)."""
        clips: NDArray[np.uint8] = self.frames[self.places]
        return clips


@dataclass(frozen=True)
class ReadClips:
    """Clips of one file: see `bgaug.pipelines.build.workers.Task`. What is wrong with it is returned, not raised.

    Attributes:
        path: the file.
        num_frames: T.
        stride: distance of the frames.
        views: V.
        size: (height, width) that frames are brought to.
        fit: how.
        shots: look for cuts, and take the longest shot; False takes the whole video for one.
        decoder: who decodes.
        salvage: take the good beginning of a file that breaks off.
        lost: what a worker died of that was at it.
    """

    path: Path
    num_frames: int
    stride: int
    views: int
    size: Size = STORE_SIZE
    fit: Fit = "stretch"
    shots: bool = True
    decoder: Decoder = "auto"
    salvage: bool = False
    lost: VideoError | None = field(default=None, compare=False)

    def __call__(self, begins: Begins) -> FileClips | VideoError:
        """Two passes: one tells the shots, the other takes the frames."""
        if self.lost is not None:
            return self.lost
        begins(0)
        try:
            with open_video(self.path, self.decoder) as reader:
                shot = longest_shot(self._shots(reader))
                indices = uniform_frames(*shot, self.num_frames, self.stride, self.views)
                numbers, places = np.unique(indices, return_inverse=True)
                return FileClips(
                    self._frames(reader, numbers),
                    places.reshape(indices.shape).astype(np.int64),
                    indices,
                    content_box(reader.info.display_size, self.size, self.fit),
                )
        except VideoError as error:
            return error
        except FileNotFoundError:
            return VideoError(self.path, "missing", "was there, and is gone")
        except BgaugError:
            raise
        except Exception as error:  # noqa: BLE001
            # One bad video never stops a thousand good ones, whatever it breaks.
            return VideoError(self.path, "crashed", f"{type(error).__name__}: {error}")

    def _shots(self, reader: VideoReader) -> list[tuple[int, int]]:
        finder, cuts, count = CutFinder(), [0], 0
        try:
            for frame in reader.scan():
                count += 1
                cut = finder.feed(frame.thumbnail()) if self.shots else None
                cuts += [] if cut is None else [cut]
        except VideoDecodeError:
            if not self.salvage or not count:
                raise
        cuts += finder.finish() if self.shots else []
        if not count:
            raise VideoError(self.path, "corrupt", "holds no frame that can be decoded")
        return list(zip(cuts, [*cuts[1:], count], strict=True))

    def _frames(self, reader: VideoReader, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames by ascending numbers, at the size: uint8 (U, H, W, 3)."""
        found = np.empty((len(numbers), *self.size, 3), np.uint8)
        place = 0
        for frame in reader.scan():
            if frame.index == numbers[place]:
                found[place] = fit_frame(frame.rgb(), self.size, self.fit, frame.display_size)
                place += 1
                if place == len(numbers):
                    return found
        raise VideoError(self.path, "corrupt", "gave fewer frames when it was read again")

    def without(self, lost: WorkerLost) -> ReadClips:
        """The same, which tells what a worker died of."""
        return replace(self, lost=VideoError(self.path, lost.reason, lost.message))
