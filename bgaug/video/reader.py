"""Readers: one sequential pass as the primitive, and frames by index or time that are those of that pass.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.sizing import Size, resize_area
from bgaug.video.container import (
    cut_short_error,
    decode_error,
    decoding_errors,
    first_frame,
    is_cut_short,
    open_container,
    said,
)
from bgaug.video.frames import DecodedFrame, Video, VideoInfo, shrunk, thumbnail_of
from bgaug.video.timeline import Timeline, distrust, is_seekable, timeline_of

Decoder = Literal["auto", "pyav", "decord"]
DECODERS: tuple[str, ...] = ("auto", "pyav", "decord")


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


def open_video(path: str | Path, decoder: Decoder = "auto") -> VideoReader:
    """Open a video for reading.

    Args:
        path: the file.
        decoder: "pyav", "decord", or "auto", which is PyAV.

    Raises:
        VideoError: the file is missing, empty, not a video, or holds no stream that can be decoded; `.reason` says
            which.
        UsageError: an unknown decoder, or decord where it is not installed.
    """
    path = Path(path)
    if decoder not in DECODERS:
        raise UsageError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    if not path.is_file():
        raise VideoError(path, "missing", "no such file")
    if path.stat().st_size == 0:
        raise VideoError(path, "empty", "the file is empty (0 bytes)")
    return DecordReader(path) if decoder == "decord" else PyavReader(path)


def read_video(
    path: str | Path,
    decoder: Decoder = "auto",
    size: Size | None = None,
    *,
    on_error: Literal["fail", "salvage"] = "fail",
) -> Video:
    """Read a whole video into memory: T * H * W * 3 bytes.

    Args:
        path: the file.
        decoder: as in `open_video`.
        size: (height, width) to bring every frame to, by area; None keeps the video's own.
        on_error: "salvage" returns the good beginning of a video that breaks off.

    Returns:
        The frames with their times.

    Raises:
        VideoError: as in `open_video`.
        VideoDecodeError: the stream breaks off; `.num_good_frames` says after how many frames.
    """
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    with open_video(path, decoder) as reader:
        try:
            for _, pts_seconds, image in reader.iter(size=size):
                frames.append(image)
                times.append(pts_seconds)
        except VideoDecodeError:
            if on_error == "fail" or not frames:
                raise
        return Video(np.stack(frames), reader.info.fps, np.array(times))


class _Reader:
    """What the readers share: everything that follows from a sequential pass."""

    info: VideoInfo

    def scan(self) -> Iterator[DecodedFrame]:
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
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        for frame in self.scan():
            if frame.index % stride == 0:
                image = frame.rgb()
                yield frame.index, frame.pts_seconds, image if size is None else resize_area(image, size)

    def get(self, indices: Sequence[int]) -> NDArray[np.uint8]:
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
        return _whole_clip(self.info.path, frames, num_frames, start_seconds)


def _whole_clip(path: Path, frames: list[NDArray[np.uint8]], wanted: int, start: float) -> NDArray[np.uint8]:
    if len(frames) < wanted:
        raise IndexError(f"{path} holds {len(frames)} of the {wanted} frames asked for from {start} s")
    return np.stack(frames)


# --- PyAV ---------------------------------------------------------------------------------------------------------


class PyavReader(_Reader):
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
        if is_cut_short(self._path):
            raise cut_short_error(self._path, count)

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
        return _whole_clip(self._path, list(self.get(indices)), num_frames, start_seconds)

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


_PLANAR_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "yuv410p", "yuv411p"})


class _PyavFrame:
    """A decoded picture that becomes RGB on request."""

    __slots__ = ("_convert", "_frame", "_rotation", "_size", "index", "pts_seconds")

    def __init__(self, index: int, pts_seconds: float, frame: Any, convert: Any, size: Size, rotation: int) -> None:
        self.index = index
        self.pts_seconds = pts_seconds
        self._frame = frame
        self._convert = convert
        self._size = size
        self._rotation = rotation

    def rgb(self) -> NDArray[np.uint8]:
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
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            planes.append(shrunk(rows[:, : plane.width]))
        return np.stack(planes, axis=-1)


# --- decord -------------------------------------------------------------------------------------------------------

# Elsewhere (MPEG program streams, transport streams, GIF) its frames or its length were found wrong.
_DECORD_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})


class DecordReader(_Reader):
    """A video read by decord, from the first frame to the last, its length checked against the packets of the file."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError as error:
            raise UsageError(
                "decord is not installed (it has wheels for Linux on x86-64 alone); use --decoder pyav"
            ) from error
        self._decord = decord
        self._path = path
        # PyAV says what the file is; decord does not know rotation, codec or which packets are never shown.
        self.info = PyavReader(path).info
        if not _DECORD_CONTAINERS & set(self.info.container.split(",")):
            raise VideoError(
                path,
                "unsupported_container",
                f"decord returns other frames from {self.info.container}; use --decoder pyav",
            )

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        times = self._times()
        try:
            reader = self._decord.VideoReader(str(self._path), ctx=self._decord.cpu(0), num_threads=1)
            length = len(reader)
        except Exception as error:
            raise VideoDecodeError(self._path, "corrupt", f"decord cannot open it: {said(error)}") from error
        # Where a container claims too much, decord fills up with copies of the last frame. In AVI those are known by
        # the true length and left out; elsewhere the difference may lie at the beginning.
        if length < len(times) or (length > len(times) and self.info.container != "avi"):
            raise self._mismatch(length, len(times))
        last: NDArray[np.uint8] | None = None
        for index in range(length):
            try:
                image = reader.next().asnumpy()
            except Exception as error:
                good = min(index, len(times))
                raise VideoDecodeError(
                    self._path, "corrupt", f"breaks off after {good} good frames: {said(error)}", good
                ) from error
            if image.shape != (self.info.height, self.info.width, 3):
                raise VideoDecodeError(
                    self._path, "corrupt", f"decord returns a frame of {image.shape = }; use --decoder pyav", index
                )
            if index < len(times):
                yield _DecordFrame(index, times[index], image)
                last = image
            elif last is None or not np.array_equal(image, last):
                raise self._mismatch(length, len(times))
        if is_cut_short(self._path):
            raise cut_short_error(self._path, len(times))

    def _times(self) -> list[float]:
        """Presentation times of the frames that there really are."""
        if self.info.container == "avi":
            # Packets of AVI may hold two pictures or none: who wants to know their number has to decode them.
            return [frame.pts_seconds for frame in PyavReader(self._path).scan()]
        return [float(second) for second in timeline_of(self._path).seconds()]

    def _mismatch(self, length: int, shown: int) -> VideoDecodeError:
        return VideoDecodeError(
            self._path, "length_mismatch", f"decord sees {length} frames where {shown} are shown; use --decoder pyav"
        )


@dataclass(frozen=True, slots=True)
class _DecordFrame:
    index: int
    pts_seconds: float
    image: NDArray[np.uint8]

    def rgb(self) -> NDArray[np.uint8]:
        return self.image

    def thumbnail(self) -> NDArray[np.uint8]:
        return thumbnail_of(self.image)


def declared_length(path: str | Path) -> int:
    """Frames that the container claims to hold, without decoding any: a forecast, not a fact; 0 where it says nothing."""
    try:
        with open_container(Path(path)) as (container, stream):
            if stream.frames:
                return int(stream.frames)
            seconds = (container.duration or 0) / 1_000_000
            return int(seconds * float(stream.average_rate or 25))
    except VideoError:
        return 0
