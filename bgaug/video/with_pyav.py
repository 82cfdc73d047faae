"""Reading by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size
from bgaug.video.container import (
    check_all_there,
    decode_error,
    decoding_errors,
    first_frame,
    open_container,
)
from bgaug.video.frames import DecodedFrame, VideoInfo, shrunk, thumbnail_of
from bgaug.video.sequential import SequentialReader, whole_clip
from bgaug.video.timeline import Timeline, distrust, is_seekable, timeline_of


class PyavReader(SequentialReader):
    """A video read by PyAV: one decoding thread, one conversion context for a pass.

    Frames by index or time are had by seeking where the file's packets leave no doubt (see `bgaug.video.timeline`),
    else from a sequential pass.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_container(path) as (container, stream):
            first = first_frame(path, container, stream)
            rotation = int(first.rotation) % 360
            turned = rotation in (90, 270)
            self.info = VideoInfo(
                path=path,
                height=first.width if turned else first.height,
                width=first.height if turned else first.width,
                fps=float(stream.average_rate or stream.guessed_rate or 25),
                declared_frames=int(stream.frames) or None,
                codec=str(stream.codec_context.name),
                container=str(container.format.name),
                rotation_degrees=rotation,
            )
            self._size: Size = (first.height, first.width)

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        import av.video.reformatter

        convert = av.video.reformatter.VideoReformatter()
        clock = _Clock(self.info)
        count = 0
        with open_container(self._path) as (container, stream):
            try:
                for frame in container.decode(stream):
                    yield self._wrap(count, clock.time(frame), frame, convert)
                    count += 1
            except decoding_errors() as error:
                raise decode_error(self._path, error, count) from error
        check_all_there(self._path, count, self.info.declared_frames)

    def _wrap(self, index: int, pts_seconds: float, frame: Any, convert: Any) -> DecodedFrame:
        return _PyavFrame(index, pts_seconds, frame, convert, self._size, self.info.rotation_degrees)

    def timeline(self) -> Timeline:
        """When each frame is shown, and whether seeks are trusted."""
        return timeline_of(self._path)

    def clip(self, start_seconds: float, num_frames: int, stride: int = 1) -> NDArray[np.uint8]:
        """See `VideoReader.clip`."""
        if not is_seekable(self.info.container) or num_frames < 1 or stride < 1:
            return super().clip(start_seconds, num_frames, stride)
        timeline = self.timeline()
        if not timeline.trusted:
            return super().clip(start_seconds, num_frames, stride)
        first = timeline.index_at(start_seconds)
        indices = range(first, min(first + num_frames * stride, len(timeline.stamps)), stride)
        return whole_clip(self._path, list(self.get(indices)), num_frames, start_seconds)

    def _frames(self, wanted: list[int]) -> dict[int, NDArray[np.uint8]]:
        if not is_seekable(self.info.container):
            return super()._frames(wanted)
        timeline = self.timeline()
        if timeline.trusted and wanted[-1] < len(timeline.stamps):
            found = self._by_seeking(timeline, wanted)
            if found is not None:
                return found
            distrust(self._path, "decoded frames were not those that the packets had promised")
        return super()._frames(wanted)

    def _by_seeking(self, timeline: Timeline, wanted: list[int]) -> dict[int, NDArray[np.uint8]] | None:
        """Frames by ascending indices; None as soon as a frame comes at another time than the timeline has for it."""
        import av.video.reformatter

        convert = av.video.reformatter.VideoReformatter()
        found: dict[int, NDArray[np.uint8]] = {}
        decoded: Iterator[Any] = iter(())
        upcoming = -1  # the frame that the decoder gives next; -1 before the first seek
        try:
            with open_container(self._path) as (container, stream):
                if len(timeline.entries) > 1:
                    # The first packet tells H.264's decoder which x264 made the stream; without that, 4:4:4 is garbage.
                    next(container.decode(stream), None)
                for index in wanted:
                    entry = timeline.entry_for(index)
                    first = int(np.searchsorted(timeline.stamps, entry))
                    if upcoming < 0 or first > upcoming:
                        container.seek(entry, stream=stream)
                        # Pictures shown before the entry may lean on what was skipped.
                        decoded = (f for f in container.decode(stream) if f.pts is None or f.pts >= entry)
                        upcoming = first
                    while upcoming <= index:
                        frame = next(decoded, None)
                        if frame is None or frame.pts != timeline.stamps[upcoming]:
                            return None
                        upcoming += 1
                    found[index] = self._wrap(index, 0.0, frame, convert).rgb()
        except decoding_errors():
            return None  # the sequential pass will say what is wrong
        return found


class _Clock:
    """Presentation times of frames in the order in which they are shown."""

    def __init__(self, info: VideoInfo) -> None:
        # AVI has no presentation times: what FFmpeg makes up for it is out of order where there are B-frames. Its
        # decoding times, from the first on, run as the frames do.
        self._by_decoding_time = info.container == "avi"
        self._step = Fraction(1) / Fraction(info.fps).limit_denominator(100_000)
        self._first: int | None = None
        self._next = Fraction(0)

    def time(self, frame: Any) -> float:
        """Seconds at which the frame is shown; one step after the last where the stream does not say."""
        stamp = frame.dts if self._by_decoding_time else frame.pts
        now = self._next
        if stamp is not None and frame.time_base:
            if self._by_decoding_time:
                self._first = stamp if self._first is None else self._first
                stamp -= self._first
            now = stamp * frame.time_base
        self._next = now + self._step
        return float(now)


_PLANAR_FORMATS = frozenset(
    ["gray", "yuv410p", "yuv411p", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"]
)


class _PyavFrame:
    """A decoded picture that becomes RGB on request."""

    __slots__ = ("_convert", "_frame", "_image", "_rotation", "_size", "index", "pts_seconds")

    def __init__(self, index: int, pts_seconds: float, frame: Any, convert: Any, size: Size, rotation: int) -> None:
        self.index = index
        self.pts_seconds = pts_seconds
        self._frame = frame
        self._convert = convert
        self._size = size
        self._rotation = rotation
        self._image: NDArray[np.uint8] | None = None

    def rgb(self) -> NDArray[np.uint8]:
        """See `DecodedFrame.rgb`."""
        if self._image is None:
            self._image = self._converted()
        return self._image

    def _converted(self) -> NDArray[np.uint8]:
        height, width = self._size
        # One thread: its own choice, one a processor, costs twice the time on pictures of this size.
        picture = self._convert.reformat(self._frame, width=width, height=height, format="rgb24", threads=1)
        plane = picture.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        image = rows[:, : width * 3].reshape(height, width, 3)
        # FFmpeg's rotation is counter-clockwise, as numpy's rot90 is.
        turned = np.rot90(image, self._rotation // 90) if self._rotation else image
        # Rows without gaps are handed out as they lie: the array keeps the picture alive, and a copy would cost as much
        # as the conversion.
        return np.ascontiguousarray(turned)

    def thumbnail(self) -> NDArray[np.uint8]:
        """See `DecodedFrame.thumbnail`."""
        if self._frame.format.name not in _PLANAR_FORMATS or self._rotation:
            return thumbnail_of(self.rgb())
        planes = []
        for plane in self._frame.planes[:3]:
            size, strides = (plane.height, plane.width), (plane.line_size, 1)
            planes.append(shrunk(np.ndarray(size, np.uint8, plane, strides=strides)))
        if len(planes) == 1:
            planes += [np.full_like(planes[0], 128)] * 2  # grey: no colour difference
        return np.asarray(cv2.merge(planes), np.uint8)
