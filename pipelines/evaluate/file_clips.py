"""Evaluated clips of one video file, read in a worker process.

Letters: V clips of a video, T frames of a clip, U different frames of all clips, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.data.clips import longest_shot, uniform_clips
from bgaug.errors import BgaugError, VideoDecodeError, VideoError
from bgaug.pipelines.build.workers import Begins, WorkerLost
from bgaug.shots.boundaries import ShotFinder, shots_between
from bgaug.shots.gradual import Boundary
from bgaug.sizing import STORE_SIZE, Fit, Size, content_box, fit_frame
from bgaug.video import Decoder, VideoReader, open_video


def evaluation_size(crop: int) -> Size:
    """Size that frames are resized to before the centre crop: the default of stores, or more if the crop needs it."""
    height, width = STORE_SIZE
    return (height, width) if crop <= height else (crop, round(crop * width / height))


@dataclass(frozen=True, eq=False)
class FileClips:
    """Clips of a file.

    Attributes:
        frames: uint8 (U, H, W, 3), RGB, every frame of the clips once.
        places: int64 (V, T), place in `frames` of each frame of each clip.
        indices: int64 (V, T), their numbers in the video.
        box: (top, left, height, width) of the content inside a frame.
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
    """The task of reading the clips of one file, see `bgaug.pipelines.build.workers.Task`.

    Errors of the file are returned, not raised.

    Attributes:
        path: the file.
        num_frames: T.
        stride: distance of the frames.
        views: V.
        size: (height, width) that frames are resized to.
        fit: how frames are fitted to that size.
        shots: find cuts and use the longest shot; False treats the video as one shot.
        decoder: decoder of the file.
        salvage: use the readable beginning of a damaged file.
        lost: why a worker process was lost while it read this file.
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
        """Read the file twice: the first pass finds the shots, the second keeps the frames."""
        if self.lost is not None:
            return self.lost
        begins(0)
        try:
            with open_video(self.path, self.decoder) as reader:
                shots = self._shots(reader)
                shot = shots[longest_shot(shots)]
                indices = uniform_clips(*shot, self.num_frames, self.stride, self.views)
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
            return VideoError(self.path, "missing", "the file was deleted while it was read")
        except BgaugError:
            raise
        except Exception as error:  # noqa: BLE001
            # One bad video must not stop the others, whatever error it causes.
            return VideoError(self.path, "crashed", f"{type(error).__name__}: {error}")

    def _shots(self, reader: VideoReader) -> list[tuple[int, int]]:
        finder, found, count = ShotFinder(), list[Boundary](), 0
        try:
            for frame in reader.scan():
                count += 1
                found += finder.feed(frame.thumbnail()) if self.shots else []
        except VideoDecodeError:
            if not self.salvage or not count:
                raise
        found += finder.finish() if self.shots else []
        if not count:
            raise VideoError(self.path, "corrupt", "holds no frame that can be decoded")
        return shots_between(found, count) or [(0, count)]

    def _frames(self, reader: VideoReader, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames by ascending numbers, resized: uint8 (U, H, W, 3)."""
        found = np.empty((len(numbers), *self.size, 3), np.uint8)
        place = 0
        for frame in reader.scan():
            if frame.index == numbers[place]:
                found[place] = fit_frame(frame.rgb(), self.size, self.fit, frame.display_size)
                place += 1
                if place == len(numbers):
                    return found
        raise VideoError(self.path, "corrupt", "gave fewer frames in the second pass")

    def without(self, lost: WorkerLost) -> ReadClips:
        """A task that returns why a worker process was lost."""
        return replace(self, lost=VideoError(self.path, lost.reason, lost.message))
