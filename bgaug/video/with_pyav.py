"""Reading by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size
from bgaug.video.container import (
    check_all_there,
    check_regular,
    decode_error,
    decoding_errors,
    first_frame,
    most_frames,
    open_container,
)
from bgaug.video.convert import AS_STORED, Orientation, RgbConverter, orientation_of
from bgaug.video.frames import DecodedFrame, VideoInfo, VideoReader, shrunk, thumbnail_of, whole_clip
from bgaug.video.timeline import Timeline, distrust, is_seekable, timeline_of


class PyavReader(VideoReader):
    """A video read by PyAV, with one decoding thread and one conversion context per pass.

    Frames by index or time come from seeks if the packets of the file leave no doubt (see `bgaug.video.timeline`), else
    from a sequential pass.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        size = check_regular(path)
        with open_container(path) as (container, stream):
            first = first_frame(path, container, stream)
            shown = orientation_of(first)
            claimed = int(stream.frames)
            self.info = VideoInfo(
                path=path,
                height=first.width if shown.transposed else first.height,
                width=first.height if shown.transposed else first.width,
                fps=timeline_of(path).rate,
                declared_frames=claimed if 0 < claimed <= most_frames(size) else None,
                codec=str(stream.codec_context.name),
                container=str(container.format.name),
                rotation_degrees=shown.rotation_degrees,
                mirrored=shown.mirrored,
                sample_aspect=_sample_aspect(stream.sample_aspect_ratio, shown),
            )

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        timeline, convert = self.timeline(), RgbConverter()
        clock, stamps = timeline.new_clock(), _Stamps(timeline, self.info.container == "avi")
        count = 0
        with open_container(self._path) as (container, stream):
            try:
                for frame in container.decode(stream):
                    yield self._wrap(count, clock.time(stamps.of(count, frame)), frame, convert)
                    count += 1
            except decoding_errors() as error:
                raise decode_error(self._path, error, count) from error
        if timeline.trusted and not stamps.as_promised(count):
            distrust(self._path, "a sequential pass gave other frames than its packets promise")
        check_all_there(self._path, count, self.info.declared_frames)

    def _wrap(self, index: int, pts_seconds: float, frame: Any, convert: RgbConverter) -> DecodedFrame:
        return _PyavFrame(index, pts_seconds, frame, convert, self.info)

    def timeline(self) -> Timeline:
        """The times of all frames, and whether seeks are trusted."""
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

    def _frames(self, requested: list[int]) -> dict[int, NDArray[np.uint8]]:
        if not is_seekable(self.info.container):
            return super()._frames(requested)
        timeline = self.timeline()
        if timeline.trusted and requested[-1] < len(timeline.stamps):
            found = self._by_seeking(timeline, requested)
            if found is not None:
                return found
            distrust(self._path, "decoded frames were not those that the packets had promised")
        return super()._frames(requested)

    def _by_seeking(self, timeline: Timeline, requested: list[int]) -> dict[int, NDArray[np.uint8]] | None:
        """Frames by ascending indices; None as soon as a frame has another time than in the timeline."""
        convert = RgbConverter()
        found: dict[int, NDArray[np.uint8]] = {}
        decoded: Iterator[Any] = iter(())
        upcoming = -1  # the frame that the decoder gives next; -1 before the first seek
        try:
            with open_container(self._path) as (container, stream):
                if len(timeline.entries) > 1:
                    # The first packet names the version of x264, without which the decoder breaks 4:4:4.
                    next(container.decode(stream), None)
                for index in requested:
                    entry = timeline.entry_for(index)
                    if entry is None:
                        return None
                    first = int(np.searchsorted(timeline.stamps, entry))
                    if upcoming < 0 or first > upcoming:
                        container.seek(entry, stream=stream)
                        # Images shown before the entry may depend on skipped ones.
                        decoded = (f for f in container.decode(stream) if f.pts is None or f.pts >= entry)
                        upcoming = first
                    while upcoming <= index:
                        frame = next(decoded, None)
                        if frame is None or frame.pts != timeline.stamps[upcoming]:
                            return None
                        upcoming += 1
                    found[index] = self._wrap(index, 0.0, frame, convert).rgb()
        except decoding_errors():
            return None  # the sequential pass reports the error
        return found


def _sample_aspect(ratio: Any, shown: Orientation) -> tuple[int, int]:
    """Width to height of a pixel as it is shown; (1, 1) if the file has none, or an impossible one."""
    if not ratio or not 1 / _MAX_ASPECT <= ratio <= _MAX_ASPECT:
        return 1, 1
    across, down = int(ratio.numerator), int(ratio.denominator)
    return (down, across) if shown.transposed else (across, down)


class _Stamps:
    """The stamps of decoded frames, in order of presentation."""

    def __init__(self, timeline: Timeline, is_avi: bool) -> None:
        self._timeline, self._is_avi = timeline, is_avi
        self._first: int | None = None
        self._same = True

    def of(self, index: int, frame: Any) -> int | None:
        """In units of the timeline; None where the frame has none."""
        promised = self._timeline.stamps
        self._same &= index < len(promised) and frame.pts == promised[index]
        if self._timeline.by_order:
            return int(promised[index]) if index < len(promised) else None
        if not self._is_avi:
            return None if frame.pts is None else int(frame.pts)
        # AVI has no presentation times, and those that FFmpeg invents are out of order with B-frames. Its decoding
        # times, from the first on, follow the frames.
        if frame.dts is None:
            return None
        self._first = frame.dts if self._first is None else self._first
        return int(frame.dts - self._first)

    def as_promised(self, count: int) -> bool:
        """Whether all frames of a pass were those of the timeline."""
        return self._same and count == len(self._timeline.stamps)


_MAX_ASPECT = 16
_PLANAR_FORMATS = frozenset(
    ["gray", "yuv410p", "yuv411p", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"]
)


class _PyavFrame:
    """A decoded frame that is converted to RGB on request."""

    __slots__ = ("_convert", "_frame", "_image", "_info", "index", "pts_seconds")

    def __init__(self, index: int, pts_seconds: float, frame: Any, convert: RgbConverter, info: VideoInfo) -> None:
        self.index = index
        self.pts_seconds = pts_seconds
        self._frame = frame
        self._convert = convert
        self._info = info
        self._image: NDArray[np.uint8] | None = None

    @property
    def display_size(self) -> Size:
        """See `DecodedFrame.display_size`."""
        return self._info.display_size

    def rgb(self) -> NDArray[np.uint8]:
        """See `DecodedFrame.rgb`."""
        if self._image is None:
            self._image = self._converted()
        return self._image

    def _converted(self) -> NDArray[np.uint8]:
        shown = orientation_of(self._frame)
        height, width = self._info.height, self._info.width
        if shown.transposed:
            height, width = width, height
        # Contiguous rows are returned without a copy, which would cost as much as the conversion; the array keeps the
        # frame alive.
        return np.ascontiguousarray(shown.upright(self._convert(self._frame, height, width)))

    def thumbnail(self) -> NDArray[np.uint8]:
        """See `DecodedFrame.thumbnail`."""
        if self._frame.format.name not in _PLANAR_FORMATS or orientation_of(self._frame) != AS_STORED:
            return thumbnail_of(self.rgb())
        planes = []
        for plane in self._frame.planes[:3]:
            size, strides = (plane.height, plane.width), (plane.line_size, 1)
            planes.append(shrunk(np.ndarray(size, np.uint8, plane, strides=strides)))
        if len(planes) == 1:
            planes += [np.full_like(planes[0], 128)] * 2  # grey: no colour difference
        return np.asarray(cv2.merge(planes), np.uint8)
