"""Opening a file with PyAV, and errors that name what is wrong with it.

FFmpeg is called only here. It gets the absolute path of a regular file, with the protocol in front, and may open
nothing else: neither a name nor the content of a file leads to another file or to the network.

Headers are not trusted. A file counts as cut short only if the structure of its container extends past the end of the
file; a length that was never filled in (a pipe, a live recording) is a placeholder and is ignored.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bgaug.errors import VideoDecodeError, VideoError

_CONTAINERS = (
    *("mov", "matroska", "avi", "asf", "flv", "gif", "mpegts", "mpeg", "ogg", "mxf", "nut", "rm", "wtv", "dv", "ivf"),
    *("h264", "hevc", "vvc", "m4v", "mpegvideo", "obu", "yuv4mpegpipe"),
)
"""FFmpeg's names of the containers, and raw streams, that are read; no playlists or image sequences."""

_ATTACHED_PIC = 0x400
_STILL_CODECS = frozenset(["png", "mjpeg", "bmp", "tiff", "webp", "jpeg2000"])
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (fifo)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MIN_FRAME_BYTES = 8  # per frame in a file: the head of its packet and an index entry; real files have 15 and more
_MAX_STEPS = 1_000_000  # parts of a file that are examined before the question stays open
_AVI_PLACEHOLDERS = 0x7FFF_0000  # and above; no RIFF chunk is written so long
_MATROSKA_SEGMENT, _MATROSKA_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_MATROSKA_PARTS = frozenset(
    bytes.fromhex(name)
    for name in ("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1043a770", "1941a469", "1254c367", "ec", "bf")
    + ("e7", "a3", "a0", "a7", "ab", "5854", "1f43b675")
)


def readable_codecs() -> frozenset[str]:
    """FFmpeg's names of the codecs that the installed PyAV knows."""
    import av

    return frozenset(av.codecs_available)


def check_regular(path: Path) -> int:
    """Size in bytes of a regular file.

    Raises:
        VideoError: the file is missing, empty, or no regular file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise VideoError(path, "missing", f"cannot be accessed: {message_of(error)}") from error
        raise VideoError(path, "missing", "no such file") from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise VideoError(path, "not_a_file", f"expected a regular file, this is {kind}")
    if not status.st_size:
        raise VideoError(path, "empty", "the file is empty (0 bytes)")
    return status.st_size


@contextmanager
def open_container(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and best video stream; closed at the end, because an open container keeps threads and memory.

    Raises:
        VideoError: it has no video stream that can be decoded.
    """
    import av

    check_regular(path)
    limits = {"protocol_whitelist": "file", "format_whitelist": ",".join(_CONTAINERS)}
    try:
        # A name such as "a:b.mp4" would be a protocol without "file:". Metadata in another encoding is ignored.
        container = av.open(f"file:{path.absolute()}", metadata_errors="ignore", container_options=limits)
    except decoding_errors() as error:
        raise _open_error(path, error) from error
    with container:
        try:
            stream = _best_stream(container)
        except decoding_errors() as error:
            raise _stream_error(path, container) from error
        if stream is None:
            raise _stream_error(path, container)
        if stream.codec_context is None:
            raise VideoError(path, "unsupported_codec", "this build of FFmpeg has no decoder for the video stream")
        # One thread: more do not help at these sizes, and several processes run anyway.
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _open_error(path: Path, error: BaseException) -> VideoError:
    if is_cut_short(path):
        return VideoError(path, "truncated", "the file ends before the index of its frames")
    if getattr(error, "errno", None) == errno.EINVAL:  # FFmpeg's code for a format that is not allowed
        return VideoError(
            path,
            "unsupported_container",
            "not in a supported container: a playlist, an image, or a list of other files? Convert it to MP4",
        )
    return VideoError(path, "not_a_video", f"cannot be opened as a video: {message_of(error)}")


def _best_stream(container: Any) -> Any:
    """FFmpeg's best video stream that is no cover or thumbnail; None if there is no other."""
    best = container.streams.best("video")
    if best is None or not (is_attached_image(best) or _is_still(best)):
        return best
    others = [
        stream
        for stream in container.streams.video
        if not is_attached_image(stream) and not _is_still(stream) and stream.codec_context is not None
    ]
    largest = max(others, key=lambda stream: stream.codec_context.width * stream.codec_context.height, default=None)
    return best if largest is None and not is_attached_image(best) else largest


def is_attached_image(stream: Any) -> bool:
    """Whether a video stream is the cover of an album, or another image attached to a file."""
    return bool(int(stream.disposition) & _ATTACHED_PIC)


def _is_still(stream: Any) -> bool:
    """Whether a stream is one image that is not marked as attached; it counts as a video only if there is no other."""
    return stream.frames == 1 and stream.codec_context is not None and stream.codec_context.name in _STILL_CODECS


def _stream_error(path: Path, container: Any) -> VideoError:
    videos = [stream for stream in container.streams if stream.type == "video"]
    if any(not is_attached_image(stream) for stream in videos):
        return VideoError(path, "unsupported_codec", "no video stream that this build of FFmpeg can decode")
    if videos:
        return VideoError(path, "no_video_stream", "no video stream, only an attached image; is it an audio file?")
    return VideoError(path, "no_video_stream", "no video stream; is it an audio file?")


def first_frame(path: Path, container: Any, stream: Any) -> Any:
    """The first decoded frame.

    Raises:
        VideoDecodeError: there is none.
    """
    try:
        for frame in container.decode(stream):
            return frame
    except decoding_errors() as error:
        raise decode_error(path, error, 0) from error
    raise VideoDecodeError(path, "empty", "the stream holds no frame")


def decoding_errors() -> tuple[type[BaseException], ...]:
    """The exceptions that PyAV raises for a file."""
    import av

    return (av.FFmpegError, ValueError, IndexError, UnicodeDecodeError)


def decode_error(path: Path, error: BaseException, count: int) -> VideoDecodeError:
    """The project's error for one of PyAV, after `count` good frames."""
    import av

    if isinstance(error, (av.DecoderNotFoundError, av.PatchWelcomeError)):
        return VideoDecodeError(path, "unsupported_codec", f"cannot be decoded: {message_of(error)}", count)
    if is_cut_short(path):
        return _cut_short_error(path, count)
    return VideoDecodeError(path, "corrupt", f"breaks off after {count} good frames: {message_of(error)}", count)


def check_all_there(path: Path, count: int, declared: int | None) -> None:
    """Check after a pass of `count` frames without an error that the file did not end too early.

    Only if frames are missing: bytes appended to a complete file may look like the beginning of more frames.

    Raises:
        VideoDecodeError: the file is cut short.
    """
    if (declared is None or count < declared) and is_cut_short(path):
        raise _cut_short_error(path, count)


def _cut_short_error(path: Path, count: int) -> VideoDecodeError:
    return VideoDecodeError(path, "truncated", f"the file is cut short: {count} good frames, then nothing", count)


def message_of(error: BaseException) -> str:
    """The message of an error in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if str(text) else type(error).__name__


def most_frames(num_bytes: int) -> int:
    """Upper bound of the number of frames in a video file of this size, far above that of real files.

    A header that declares more is wrong.
    """
    return num_bytes // _MIN_FRAME_BYTES


def is_cut_short(path: Path) -> bool:
    """Whether the structure of the container extends past the end of the file.

    Reads the boxes of MP4 and QuickTime, the chunks of AVI, and the segment and clusters of Matroska. Other containers
    have no such lengths.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            magic = file.read(12)
            if magic[:4] == b"RIFF" and magic[8:12] == b"AVI ":
                return _riff_end(file, size) > size
            if magic[:4] == b"\x1a\x45\xdf\xa3":
                return _matroska_end(file, size) > size
            if magic[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
                return _boxes_end(file, size) > size
    except OSError:
        return False
    return False


def _riff_end(file: BinaryIO, size: int) -> int:
    """End of the last RIFF chunk; files above a gigabyte have several."""
    end = 0
    for _ in range(_MAX_STEPS):
        head = _read_at(file, end, 8)
        if head[:4] != b"RIFF" or len(head) < 8:
            break
        length = int.from_bytes(head[4:], "little")
        if length == 0 or length >= _AVI_PLACEHOLDERS:
            return _chunks_end(file, end + 12, size)
        end += 8 + length
    return end


def _chunks_end(file: BinaryIO, place: int, size: int) -> int:
    """End of the last chunk that begins within the file, for a RIFF chunk whose own length is a placeholder."""
    for _ in range(_MAX_STEPS):
        head = _read_at(file, place, 12)
        if len(head) < 8 or not all(32 <= letter < 127 for letter in head[:4]):
            return min(place, size)  # the end, or no chunk: undecided
        length = int.from_bytes(head[4:8], "little")
        if head[:4] in (b"RIFF", b"LIST") and (
            head[8:] in (b"movi", b"AVIX") or length == 0 or length >= _AVI_PLACEHOLDERS
        ):
            place += 12  # its parts follow
        else:
            place += 8 + length + length % 2
            if place - length % 2 > size:
                return place
    return 0


def _boxes_end(file: BinaryIO, size: int) -> int:
    end = 0
    for _ in range(_MAX_STEPS):
        if end >= size:
            return end
        head = _read_at(file, end, 16)
        if len(head) < 8:
            return 0
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return size  # the last box, to the end of the file
        if length < 8:
            return 0  # not a box: undecided
        end += length
    return 0


def _matroska_end(file: BinaryIO, size: int) -> int:
    file.seek(4)
    header = _variable_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _MATROSKA_SEGMENT:
        return 0
    segment = _variable_length(file)
    return _parts_end(file, size) if segment is None else file.tell() + segment


def _parts_end(file: BinaryIO, size: int) -> int:
    """End of the last part that begins within a segment of unknown length, which live recordings have."""
    for _ in range(_MAX_STEPS):
        first = file.read(1)
        if not first or not first[0]:
            return 0
        name = first + file.read(8 - first[0].bit_length())
        length = _variable_length(file)
        if name not in _MATROSKA_PARTS:
            return 0  # an unknown part: undecided
        if length is None:
            if name != _MATROSKA_CLUSTER:
                return 0
            continue  # its blocks follow
        end = file.tell() + length
        if end > size:
            return end
        file.seek(end)
    return 0


def _variable_length(file: BinaryIO) -> int | None:
    """An EBML length; None for "unknown", which live recordings have."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> (extra + 1))]) + file.read(extra), "big")
    return None if value == (1 << 7 * (extra + 1)) - 1 else value


def _read_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
