"""Videos that are odd in one known way, written by PyAV or by changing bytes of one that it wrote."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
SHAPE = (48, 64)
CLOSED = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"


def numbered(count: int, height: int = SHAPE[0], width: int = SHAPE[1]) -> Frames:
    """Frames that encode their number: eight columns of black and white are its bits, least first."""
    frames = np.full((count, height, width, 3), 16, np.uint8)
    side = width // 8
    for index in range(count):
        for bit in range(8):
            frames[index, :, bit * side : (bit + 1) * side] = 235 if index >> bit & 1 else 16
        frames[index, : height // 4] = np.random.default_rng(index).integers(0, 256, (height // 4, width, 1))
    return frames


def numbers(frames: Frames) -> list[int]:
    """The numbers that frames encode."""
    side = frames.shape[2] // 8
    middles = frames[:, frames.shape[1] // 2 :, side // 2 :: side].mean((1, 3))[:, :8]
    return [int(sum(1 << bit for bit in range(8) if row[bit] > 127)) for row in middles]


def encode(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 25),
    rate: int = 25,
    sample_aspect: Fraction | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Frames through an encoder; frame k is shown at `times[k]` units, by default k."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = unit
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        stream.options = {"x264-params": CLOSED} if options is None else options
        for index, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = index if times is None else times[index], unit
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def remux(path: Path, source: Path, change: Callable[[int, Any], bool] = lambda number, packet: True) -> Path:
    """The packets of a file in another container; `change` may alter each, or leave it out by returning False."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size and change(number, packet):
                packet.stream = stream
                new.mux(packet)
    return path


def with_decoding_times(number: int, packet: Any) -> bool:
    """For `remux`: the packet is shown when it is decoded, as containers without times of presentation have it."""
    packet.dts = packet.pts = round(number * Fraction(1, 25) / packet.time_base)
    return True


def with_matrix(path: Path, source: Path, a: float, b: float, c: float, d: float) -> Path:
    """An MP4 with another display matrix: x' = a x + c y, y' = b x + d y."""
    data = source.read_bytes()
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    numbers_in = [round(value * 65536) for value in (a, b, 0, c, d, 0)]
    path.write_bytes(data[:place] + struct.pack(">9i", *numbers_in, 0, 0, 1 << 30) + data[place + 36 :])
    return path


class _Pipe(io.RawIOBase):
    """What is written into a pipe: no way back."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)


def piped(path: Path, source: Path, container: str) -> Path:
    """The packets of a file written into a pipe, whose lengths stay placeholders."""
    pipe = _Pipe()
    with av.open(str(source)) as old, av.open(pipe, "w", format=container) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    path.write_bytes(bytes(pipe.data))
    return path


def with_cover(path: Path, frames: Frames | None) -> Path:
    """Sound with an album's cover, and a video stream if frames are given."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 400, 400, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        video: Any = None
        if frames is not None:
            video = container.add_stream("libx264", rate=25)
            video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound: Any = container.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for packet in cover.encode(av.VideoFrame.from_ndarray(np.zeros((400, 400, 3), np.uint8), format="rgb24")):
            container.mux(packet)
        if frames is not None:
            for image in frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        for _ in range(20):
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 44100
            container.mux(sound.encode(tone))
        container.mux(sound.encode())
    return path
