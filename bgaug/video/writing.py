"""Writing videos, for generated worlds and tests."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.files import write_bytes

# libx264's macroblock tree reads memory that it has not written: with it, equal frames give other bytes in each run.
_NEAR_LOSSLESS = {"crf": "12", "preset": "veryfast", "x264-params": "mbtree=0"}


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

    A reader finds the earlier file or the new one, see `bgaug.files.replacing`.

    Args:
        path: the file.
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second.
        codec: FFmpeg's encoder.
        pixel_format: FFmpeg's pixel format; the default keeps the colour of single pixels.
        options: options of the encoder; the default is near-lossless and the same bytes in every run.

    Raises:
        ValueError: frames of another shape or type, or an encoder that this FFmpeg lacks.
        WriteError: the file cannot be written.
    """
    suffix = Path(path).suffix
    data = _encode_video(frames, fps, suffix=suffix, codec=codec, pixel_format=pixel_format, options=options)
    write_bytes(path, data)


def _encode_video(
    frames: NDArray[np.uint8], fps: float, *, suffix: str, codec: str, pixel_format: str, options: dict[str, str] | None
) -> bytes:
    import av

    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape = }")
    # FFmpeg writes to memory, because its errors about a full disk are no `WriteError`.
    memory = io.BytesIO()
    memory.name = f"video{suffix}"
    with av.open(memory, "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.options = _NEAR_LOSSLESS if options is None else options
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()
