"""Reading videos: what a file holds, one sequential pass over it, and frames by index or time.

The only room that imports PyAV or decord. Every frame leaves it as RGB uint8, turned the way it is meant to be seen,
in the order of presentation, from the best video stream of the file. PyAV reads all that FFmpeg reads and is the
default; decord is read from the first frame to the last, never by index, because its seeks return other frames on
AVI with B-frames and on open-GOP H.264.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.sizing import Size, resize_area

Decoder = Literal["auto", "pyav", "decord"]
DECODERS: tuple[str, ...] = ("auto", "pyav", "decord")

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
        height: display height in pixels, after rotation.
        width: display width in pixels, after rotation.
        fps: average frames per second; 25.0 where the container does not say.
        declared_frames: number of frames that the container claims, None where it does not; often wrong.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container format.
        rotation_degrees: counter-clockwise turn that display needs: 0, 90, 180 or 270.
    """

    path: Path
    height: int
    width: int
    fps: float
    declared_frames: int | None
    codec: str
    container: str
    rotation_degrees: int


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
    """One decoded frame; its pixels are converted only when asked for, and only until the next frame is drawn."""

    @property
    def index(self) -> int:
        """Number of the frame in the video."""
        ...

    @property
    def pts_seconds(self) -> float:
        """Presentation time."""
        ...

    def rgb(self) -> NDArray[np.uint8]:
        """Fresh uint8 (H, W, 3) array, turned for display."""
        ...

    def thumbnail(self) -> NDArray[np.uint8]:
        """Brightness and the two colour differences at `THUMBNAIL_SIZE`: uint8 (60, 80, 3), far cheaper than `rgb`."""
        ...


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


def read_video(path: str | Path, decoder: Decoder = "auto", size: Size | None = None) -> Video:
    """Read a whole video into memory: T * H * W * 3 bytes.

    Args:
        path: the file.
        decoder: as in `open_video`.
        size: (height, width) to bring every frame to, by area; None keeps the video's own.

    Returns:
        The frames with their times.

    Raises:
        VideoError: as in `open_video`.
        VideoDecodeError: the stream breaks off; `.num_good_frames` says after how many frames.
    """
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    with open_video(path, decoder) as reader:
        for _, pts_seconds, image in reader.iter(size=size):
            frames.append(image)
            times.append(pts_seconds)
        return Video(np.stack(frames), reader.info.fps, np.array(times))


def thumbnail_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thumbnail of an RGB picture, uint8 (H, W, 3) to (60, 80, 3); see `DecodedFrame.thumbnail`."""
    return np.asarray(cv2.cvtColor(_shrunk(image), cv2.COLOR_RGB2YUV), np.uint8)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Area filter over every picture point that falls on twice the thumbnail's grid: cheap, and quiet enough."""
    height, width = THUMBNAIL_SIZE
    if image.shape[0] > 2 * height and image.shape[1] > 2 * width:
        image = np.asarray(cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class _Reader:
    """What the readers share: everything that follows from a sequential pass."""

    info: VideoInfo

    def scan(self) -> Iterator[DecodedFrame]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

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
        found: dict[int, NDArray[np.uint8]] = {}
        distinct = set(wanted.tolist())
        for frame in self.scan() if distinct else ():
            if frame.index in distinct:
                found[frame.index] = frame.rgb()
                if len(found) == len(distinct):
                    break
        if len(found) < len(distinct):
            raise IndexError(f"{self.info.path} ends before frame {max(distinct)}")
        if not distinct:
            return np.empty((0, self.info.height, self.info.width, 3), np.uint8)
        return np.stack([found[index] for index in wanted.tolist()])

    def clip(self, start_seconds: float, num_frames: int, stride: int = 1) -> NDArray[np.uint8]:
        if num_frames < 1 or stride < 1:
            raise ValueError(f"num_frames and stride must be at least 1, got {num_frames = }, {stride = }")
        shown: NDArray[np.uint8] | None = None
        frames: list[NDArray[np.uint8]] = []
        first = -1
        for frame in self.scan():
            # The frame shown at a time is the last one whose own time is not after it.
            if first < 0 and frame.pts_seconds <= start_seconds + 1e-9:
                shown = frame.rgb()
                continue
            if first < 0:
                first = frame.index - 1 if shown is not None else frame.index
                if shown is not None:
                    frames.append(shown)
            if len(frames) == num_frames:
                break
            if (frame.index - first) % stride == 0 and len(frames) < num_frames:
                frames.append(frame.rgb())
        if not frames and shown is not None:
            frames.append(shown)
        if len(frames) < num_frames:
            raise IndexError(
                f"{self.info.path} holds {len(frames)} of the {num_frames} frames asked for from {start_seconds} s"
            )
        return np.stack(frames)


# --- PyAV ---------------------------------------------------------------------------------------------------------


class PyavReader(_Reader):
    """A video read by PyAV: one decoding thread, one conversion context for the whole file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _open_container(path) as (container, stream):
            first = _first_frame(path, container, stream)
            rotation = int(first.rotation) % 360
            turned = rotation in (90, 270)
            context = stream.codec_context
            self.info = VideoInfo(
                path=path,
                height=first.width if turned else first.height,
                width=first.height if turned else first.width,
                fps=float(stream.average_rate or stream.guessed_rate or 25),
                declared_frames=int(stream.frames) or None,
                codec=str(context.name),
                container=str(container.format.name),
                rotation_degrees=rotation,
            )

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        import av.video.reformatter

        with _open_container(self._path) as (container, stream):
            convert = av.video.reformatter.VideoReformatter()
            size: Size | None = None
            step = Fraction(1) / Fraction(self.info.fps).limit_denominator(100_000)
            count = 0
            try:
                for frame in container.decode(stream):
                    size = size or (frame.height, frame.width)
                    # A stream may have no times (raw H.264, some AVI): then frames follow each other at its rate.
                    pts = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else count * step
                    yield _PyavFrame(count, float(pts), frame, convert, size, self.info.rotation_degrees)
                    count += 1
            except _pyav_errors() as error:
                raise _decode_error(self._path, error, count) from error
            if count == 0:
                raise VideoDecodeError(self._path, "empty", "the stream holds no frame")

    def close(self) -> None:
        """Nothing stays open between passes."""


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
        picture = self._convert.reformat(self._frame, width=width, height=height, format="rgb24")
        plane = picture.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        image = rows[:, : width * 3].reshape(height, width, 3)
        # FFmpeg's rotation is counter-clockwise, as numpy's rot90 is.
        turned = np.rot90(image, self._rotation // 90) if self._rotation else image
        return np.array(turned, order="C")

    def thumbnail(self) -> NDArray[np.uint8]:
        """See `DecodedFrame.thumbnail`."""
        if self._frame.format.name not in _PLANAR_FORMATS or self._rotation:
            return thumbnail_of(self.rgb())
        planes = []
        for plane in self._frame.planes[:3]:
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            planes.append(_shrunk(rows[:, : plane.width]))
        return np.stack(planes, axis=-1)


@contextmanager
def _open_container(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and best video stream, closed at the end: an unclosed one keeps threads and memory."""
    import av

    try:
        # Metadata in another encoding is no reason to refuse the pictures.
        container = av.open(str(path), metadata_errors="ignore")
    except _pyav_errors() as error:
        raise VideoError(path, "not_a_video", f"cannot be opened as a video: {_said(error)}") from error
    with container:
        try:
            stream = container.streams.best("video")
        except _pyav_errors() as error:
            raise _codec_error(path, container) from error
        if stream is None:
            raise _codec_error(path, container)
        if stream.codec_context is None:
            raise VideoError(path, "unsupported_codec", "this build of FFmpeg has no decoder for the video stream")
        # One thread: more buy nothing at these sizes, and processes run side by side anyway.
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _codec_error(path: Path, container: Any) -> VideoError:
    if any(stream.type == "video" for stream in container.streams):
        return VideoError(path, "unsupported_codec", "no video stream that this build of FFmpeg can decode")
    return VideoError(path, "no_video_stream", "no video stream; is it an audio file?")


def _first_frame(path: Path, container: Any, stream: Any) -> Any:
    try:
        for frame in container.decode(stream):
            return frame
    except _pyav_errors() as error:
        raise _decode_error(path, error, 0) from error
    raise VideoDecodeError(path, "empty", "the stream holds no frame")


def _pyav_errors() -> tuple[type[BaseException], ...]:
    import av

    return (av.FFmpegError, ValueError, IndexError, UnicodeDecodeError)


def _decode_error(path: Path, error: BaseException, count: int) -> VideoDecodeError:
    import av

    if isinstance(error, (av.DecoderNotFoundError, av.PatchWelcomeError)):
        return VideoDecodeError(path, "unsupported_codec", f"cannot be decoded: {_said(error)}", count)
    return VideoDecodeError(path, "corrupt", f"breaks off after {count} good frames: {_said(error)}", count)


def _said(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if str(text) else type(error).__name__


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
        try:
            reader = self._decord.VideoReader(str(self._path), ctx=self._decord.cpu(0), num_threads=1)
            length = len(reader)
        except Exception as error:
            raise VideoDecodeError(self._path, "corrupt", f"decord cannot open it: {_said(error)}") from error
        times = _shown_times(self._path, self.info.fps)
        if length != len(times):
            # decord would fill the difference with copies of the last frame.
            raise VideoDecodeError(
                self._path,
                "length_mismatch",
                f"decord sees {length} frames where {len(times)} are shown; use --decoder pyav",
            )
        for index in range(length):
            try:
                image = reader.next().asnumpy()
            except Exception as error:
                raise VideoDecodeError(
                    self._path, "corrupt", f"breaks off after {index} good frames: {_said(error)}", index
                ) from error
            yield _DecordFrame(index, times[index], image)

    def close(self) -> None:
        """Nothing stays open between passes: an open decord reader decodes ahead without bound."""


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
        with _open_container(Path(path)) as (container, stream):
            if stream.frames:
                return int(stream.frames)
            seconds = (container.duration or 0) / 1_000_000
            return int(seconds * float(stream.average_rate or 25))
    except VideoError:
        return 0


def _shown_times(path: Path, fps: float) -> list[float]:
    """Presentation times of the packets that are meant to be shown, in order, without decoding them."""
    with _open_container(path) as (container, stream):
        try:
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        except _pyav_errors() as error:
            raise _decode_error(path, error, 0) from error
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
    return sorted(times) if len(times) == len(packets) else [count / fps for count in range(len(packets))]


# --- writing, for generated worlds and tests ------------------------------------------------------------------------


def write_video(
    path: str | Path,
    frames: NDArray[np.uint8],
    fps: float = 25.0,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv444p",
    options: dict[str, str] | None = None,
) -> None:
    """Write frames as a video file; the container follows from the name.

    Args:
        path: where to.
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second.
        codec: FFmpeg's encoder.
        pixel_format: FFmpeg's pixel format; the default keeps the colour of single pixels.
        options: of the encoder; the default is near-lossless (crf 12).

    Raises:
        ValueError: frames of another shape or type.
    """
    import av

    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape = }")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "12", "preset": "veryfast"} if options is None else options
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
