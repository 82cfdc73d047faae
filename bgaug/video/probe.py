"""What a file really holds, and which reader can be trusted with it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.video.container import is_attached_picture, is_cut_short, open_container
from bgaug.video.frames import DecodedFrame, VideoInfo, thumbnail_of
from bgaug.video.reader import open_video
from bgaug.video.timeline import Timeline, timeline_of
from bgaug.video.with_decord import DecordReader
from bgaug.video.with_pyav import PyavReader

SEEKS_TRIED = 16
_SAME_THUMBNAIL = 4


@dataclass(frozen=True)
class Deep:
    """What only decoding tells.

    Attributes:
        real_frames: frames that a sequential pass gives; the good beginning, where the file breaks off.
        breaks_off: reason code and message, None where it does not.
        seeks: "16 of 16 equal a sequential pass"; empty where none was tried.
        decord: "the same frames", or what is wrong with it.
    """

    real_frames: int
    breaks_off: str | None
    seeks: str
    decord: str


@dataclass(frozen=True)
class Probe:
    """What `probe_video` found.

    Attributes:
        path: the file.
        error: reason code and message of a file that cannot be used at all; then nothing else is known.
        info: what the container says of the stream that is read.
        streams: one line each.
        pixel_format: FFmpeg's name.
        packet_frames: frames by the packets of the file, without decoding.
        duration_seconds: from the first frame shown to the end of the last.
        variable_rate: whether frames follow each other at varying distance.
        longest_group: most frames from one keyframe to the next.
        keyframes: their number.
        cut_short: whether the file is not all there.
        seams: numbers of the frames at which the file's times begin again; they are made to go on.
        seeks: empty where frames may be had by seeking, else why they are read sequentially.
        deep: what decoding told; None where it was not asked for.
        cuts: first frames of further shots; None where they were not looked for.
    """

    path: Path
    error: str | None = None
    info: VideoInfo | None = None
    streams: tuple[str, ...] = ()
    pixel_format: str = ""
    packet_frames: int = 0
    duration_seconds: float = 0.0
    variable_rate: bool = False
    longest_group: int = 0
    keyframes: int = 0
    cut_short: bool = False
    seams: tuple[int, ...] = ()
    seeks: str = ""
    deep: Deep | None = None
    cuts: tuple[int, ...] | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        record = asdict(self)
        record["path"] = str(self.path)
        if record["info"]:
            del record["info"]["path"]
            assert self.info is not None
            record["info"]["display_size"] = self.info.display_size
        return record


def probe_video(
    path: str | Path, *, deep: bool = False, on_frame: Callable[[DecodedFrame], None] | None = None
) -> Probe:
    """Look into a file.

    Args:
        path: the file.
        deep: also decode it: count its frames, try `SEEKS_TRIED` random frames against a sequential pass, and decord.
        on_frame: called with every frame of the deep pass.

    Returns:
        What was found; a file that cannot be used is a `Probe` with `error`, not an exception.
    """
    path = Path(path)
    try:
        with open_video(path) as reader:
            assert isinstance(reader, PyavReader)
            timeline = reader.timeline()
            streams, pixel_format = _streams(path)
            return Probe(
                path=path,
                info=reader.info,
                streams=streams,
                pixel_format=pixel_format,
                packet_frames=len(timeline.times),
                duration_seconds=round(timeline.duration_seconds, 3),
                variable_rate=_varies(timeline),
                longest_group=_longest_group(timeline),
                keyframes=len(timeline.keyframes),
                cut_short=is_cut_short(path),
                seeks=timeline.why_not,
                seams=timeline.seams,
                deep=_decode(reader, timeline, on_frame) if deep else None,
            )
    except VideoError as error:
        return Probe(path=path, error=f"{error.message} [{error.reason}]")


def _streams(path: Path) -> tuple[tuple[str, ...], str]:
    with open_container(path) as (container, stream):
        lines = []
        for other in container.streams:
            codec = getattr(other, "codec_context", None)
            size = f" {codec.width}x{codec.height}" if other.type == "video" and codec is not None else ""
            read = " (read)" if other.index == stream.index else ""
            kind = "attached picture" if other.type == "video" and is_attached_picture(other) else other.type
            lines.append(f"{kind} {codec.name if codec is not None else 'unknown'}{size}{read}")
        return tuple(lines), str(stream.codec_context.pix_fmt)


def _varies(timeline: Timeline) -> bool:
    steps = np.diff(timeline.times)
    # Times are whole units: at 30 fps in milliseconds steps of 33 and 34 are one rate.
    few = max(float(timeline.time_base), 0.01 * float(np.median(steps))) if len(steps) else 0.0
    return len(steps) > 1 and float(steps.max() - steps.min()) > few + 1e-9


def _longest_group(timeline: Timeline) -> int:
    if not len(timeline.keyframes):
        return 0
    return int(np.diff(np.append(timeline.keyframes, len(timeline.times))).max())


def _decode(reader: PyavReader, timeline: Timeline, on_frame: Callable[[DecodedFrame], None] | None) -> Deep:
    rng = np.random.default_rng(0)
    count = max(1, len(timeline.times))
    tried = set(rng.integers(0, count, SEEKS_TRIED).tolist())
    seen: dict[int, int] = {}
    thumbnails: dict[int, NDArray[np.uint8]] = {}
    frames, breaks_off = 0, None
    try:
        for frame in reader.scan():
            frames = frame.index + 1
            if frame.index in tried:
                seen[frame.index] = zlib.crc32(frame.rgb().tobytes())
                thumbnails[frame.index] = thumbnail_of(frame.rgb())
            if on_frame is not None:
                on_frame(frame)
    except VideoDecodeError as error:
        breaks_off = f"{error.message} [{error.reason}]"
    seeks = ""
    if timeline.trusted and breaks_off is None:
        order = rng.permutation(sorted(seen)).tolist()
        equal = sum(zlib.crc32(reader.get([index])[0].tobytes()) == seen[index] for index in order)
        still = timeline_of(reader.info.path)
        seeks = f"{equal} of {len(order)} equal a sequential pass" + ("" if still.trusted else f"; {still.why_not}")
    return Deep(frames, breaks_off, seeks, _try_decord(reader.info.path, frames, thumbnails))


def _try_decord(path: Path, frames: int, thumbnails: dict[int, NDArray[np.uint8]]) -> str:
    try:
        count = wrong = 0
        for frame in DecordReader(path).scan():
            count += 1
            mine = thumbnails.get(frame.index)
            if mine is not None:
                difference = np.abs(frame.thumbnail().astype(np.int16) - mine)[..., 0]
                wrong += float(difference.mean()) > _SAME_THUMBNAIL
    except UsageError:
        return "not installed"
    except VideoError as error:
        return f"{error.message} [{error.reason}]"
    if wrong or count != frames:
        return f"{wrong} of {len(thumbnails)} frames are others, {count} frames instead of {frames}"
    return "the same frames"
