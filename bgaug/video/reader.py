"""Opening a video with the requested decoder, and reading it into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.names import Decoder
from bgaug.sizing import Size
from bgaug.video.container import check_regular, most_frames, open_container
from bgaug.video.frames import Video, VideoReader
from bgaug.video.timeline import timeline_of
from bgaug.video.with_decord import DecordReader
from bgaug.video.with_pyav import PyavReader

DECODERS: tuple[str, ...] = ("auto", "pyav", "decord")


def open_video(path: str | Path, decoder: Decoder = "auto") -> VideoReader:
    """Open a video for reading.

    Args:
        path: the file.
        decoder: "pyav", "decord", or "auto", which is PyAV.

    Raises:
        VideoError: the file is missing, empty, no regular file, not a video, or has no stream that can be decoded; see
            `.reason`.
        UsageError: an unknown decoder, or decord is not installed.
    """
    path = Path(path)
    if decoder not in DECODERS:
        raise UsageError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    check_regular(path)
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
        size: (height, width) of the result, resized by area; None keeps that of the video.
        on_error: "salvage" returns the good beginning of a video that breaks off.

    Raises:
        VideoError: as in `open_video`.
        VideoDecodeError: the stream breaks off after `.num_good_frames` frames.
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


_SUSPICIOUS_FRAME_BYTES = 64


def declared_length(path: str | Path) -> int:
    """Estimated number of frames of a file, without decoding; 0 if it is unknown.

    The container declares it. If it does not, or declares less than 64 bytes per frame, packets are counted. Never more
    than `most_frames` of the file's size.
    """
    path = Path(path)
    try:
        size = check_regular(path)
        with open_container(path) as (container, stream):
            claimed = int(stream.frames or _frames_by_duration(container, stream))
        if not 0 < claimed * _SUSPICIOUS_FRAME_BYTES <= size:
            claimed = len(timeline_of(path).times)
        return max(0, min(claimed, most_frames(size)))
    except VideoError:
        return 0


def _frames_by_duration(container: Any, stream: Any) -> float:
    return (container.duration or 0) / 1_000_000 * float(stream.average_rate or 25)
