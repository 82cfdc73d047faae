"""Opening a file with PyAV, and saying clearly what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bgaug.errors import VideoDecodeError, VideoError


@contextmanager
def open_container(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and best video stream, closed at the end: an unclosed one keeps threads and memory.

    Raises:
        VideoError: there is no video stream in it that can be decoded.
    """
    import av

    try:
        # Metadata in another encoding is no reason to refuse the pictures.
        container = av.open(str(path), metadata_errors="ignore")
    except decoding_errors() as error:
        if is_cut_short(path):
            raise VideoError(path, "truncated", "the file ends before it says where its frames are") from error
        raise VideoError(path, "not_a_video", f"cannot be opened as a video: {said(error)}") from error
    with container:
        try:
            stream = container.streams.best("video")
        except decoding_errors() as error:
            raise _stream_error(path, container) from error
        if stream is None:
            raise _stream_error(path, container)
        if stream.codec_context is None:
            raise VideoError(path, "unsupported_codec", "this build of FFmpeg has no decoder for the video stream")
        # One thread: more buy nothing at these sizes, and processes run side by side anyway.
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _stream_error(path: Path, container: Any) -> VideoError:
    if any(stream.type == "video" for stream in container.streams):
        return VideoError(path, "unsupported_codec", "no video stream that this build of FFmpeg can decode")
    return VideoError(path, "no_video_stream", "no video stream; is it an audio file?")


def first_frame(path: Path, container: Any, stream: Any) -> Any:
    """The first decoded picture.

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
    """What PyAV raises about a file."""
    import av

    return (av.FFmpegError, ValueError, IndexError, UnicodeDecodeError)


def decode_error(path: Path, error: BaseException, count: int) -> VideoDecodeError:
    """An error of ours for one of PyAV's, after `count` good frames."""
    import av

    if isinstance(error, (av.DecoderNotFoundError, av.PatchWelcomeError)):
        return VideoDecodeError(path, "unsupported_codec", f"cannot be decoded: {said(error)}", count)
    if is_cut_short(path):
        return cut_short_error(path, count)
    return VideoDecodeError(path, "corrupt", f"breaks off after {count} good frames: {said(error)}", count)


def check_all_there(path: Path, count: int, declared: int | None) -> None:
    """After a pass of `count` frames that ended without an error: whether the file ended too early.

    Only where frames are missing: what was appended to a whole file may look like the beginning of more.

    Raises:
        VideoDecodeError: it did.
    """
    if (declared is None or count < declared) and is_cut_short(path):
        raise cut_short_error(path, count)


def cut_short_error(path: Path, count: int) -> VideoDecodeError:
    """The file is not all there; `count` frames are."""
    return VideoDecodeError(path, "truncated", f"the file is cut short: {count} good frames, then nothing", count)


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if str(text) else type(error).__name__


# --- is the file all there? -----------------------------------------------------------------------------------------


def is_cut_short(path: Path) -> bool:
    """Whether the container's own structure says that the file should be longer than it is.

    Looks at the outermost structure alone: boxes of MP4 and QuickTime, the RIFF chunks of AVI, the segment of Matroska.
    Other containers carry no such length.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            magic = file.read(12)
            if magic[:4] == b"RIFF" and magic[8:12] == b"AVI ":
                return _riff_end(file, size) > size
            if magic[:4] == b"\x1a\x45\xdf\xa3":
                return _matroska_end(file) > size
            if magic[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
                return _boxes_end(file, size) > size
    except OSError:
        return False
    return False


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk ends: files above a gigabyte have several."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        if head[:4] != b"RIFF":
            break
        end += 8 + int.from_bytes(head[4:], "little")
    return end


def _boxes_end(file: BinaryIO, size: int) -> int:
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return size  # the last box, to the end of the file
        if length < 8:
            return 0  # not a box: nothing can be said
        end += length
    return end


def _matroska_end(file: BinaryIO) -> int:
    file.seek(4)
    header = _variable_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    segment = _variable_length(file)
    return 0 if segment is None else file.tell() + segment


def _variable_length(file: BinaryIO) -> int | None:
    """An EBML length; None for "unknown", as live recordings have it."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> (extra + 1))]) + file.read(extra), "big")
    return None if value == (1 << 7 * (extra + 1)) - 1 else value
