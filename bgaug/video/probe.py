"""The real content of a file, and which readers handle it correctly."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.video.container import is_attached_image, is_cut_short, open_container
from bgaug.video.frames import DecodedFrame, VideoInfo, thumbnail_of
from bgaug.video.reader import open_video
from bgaug.video.timeline import Timeline, timeline_of
from bgaug.video.with_decord import DecordReader
from bgaug.video.with_pyav import PyavReader

_SEEKS_TRIED = 16
_SAME_THUMBNAIL = 4


@dataclass(frozen=True)
class _Deep:
    """Results that need decoding.

    Attributes:
        real_frames: frames of a sequential pass; those of the good beginning if the file breaks off.
        breaks_off: message and reason code; None if it does not.
        seeks: "16 of 16 equal a sequential pass"; empty if none was tried.
        decord: "the same frames", or what is wrong with those of decord.
    """

    real_frames: int
    breaks_off: str | None
    seeks: str
    decord: str


@dataclass(frozen=True)
class Probe:
    """The result of `probe_video`.

    Attributes:
        path: the file.
        error: message and reason code of a file that cannot be used; then nothing else is known.
        info: facts of the container about the stream that is read.
        streams: one line each.
        pixel_format: FFmpeg's name.
        packet_frames: number of frames by the packets of the file, without decoding.
        duration_seconds: from the first frame shown to the end of the last.
        variable_rate: whether the time between frames varies.
        longest_group: largest number of frames from one keyframe to the next.
        keyframes: number of keyframes.
        cut_short: whether the end of the file is missing.
        seams: numbers of the frames at which the file's times restart; they are continued.
        seeks: empty if seeks are used, else why frames are read sequentially.
        deep: results of decoding; None if it was not requested.
        cuts: first frames of shots after a hard cut; None if they were not detected.
        transitions: first frame, one past the last, and kind ("dissolve", "fade") of each gradual transition; None if
            they were not detected.
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
    deep: _Deep | None = None
    cuts: tuple[int, ...] | None = field(default=None)
    transitions: tuple[tuple[int, int, str], ...] | None = field(default=None)

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
    """Examine a file.

    Args:
        path: the file.
        deep: also decode it: count its frames, and compare 16 random seeks and decord with a sequential pass.
        on_frame: called with every frame of the deep pass.

    Returns:
        The result; a file that cannot be used gives a `Probe` with `error`, not an exception.
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
            kind = "attached image" if other.type == "video" and is_attached_image(other) else other.type
            lines.append(f"{kind} {codec.name if codec is not None else 'unknown'}{size}{read}")
        return tuple(lines), str(stream.codec_context.pix_fmt)


def _varies(timeline: Timeline) -> bool:
    steps = np.diff(timeline.times)
    # Times are whole units: at 30 fps in milliseconds, steps of 33 and 34 are one rate.
    few = max(float(timeline.time_base), 0.01 * float(np.median(steps))) if len(steps) else 0.0
    return len(steps) > 1 and float(steps.max() - steps.min()) > few + 1e-9


def _longest_group(timeline: Timeline) -> int:
    if not len(timeline.keyframes):
        return 0
    return int(np.diff(np.append(timeline.keyframes, len(timeline.times))).max())


def _decode(reader: PyavReader, timeline: Timeline, on_frame: Callable[[DecodedFrame], None] | None) -> _Deep:
    rng = np.random.default_rng(0)
    count = max(1, len(timeline.times))
    tried = set(rng.integers(0, count, _SEEKS_TRIED).tolist())
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
    return _Deep(frames, breaks_off, seeks, _try_decord(reader.info.path, frames, thumbnails))


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
        return f"{wrong} of {len(thumbnails)} frames differ, {count} frames instead of {frames}"
    return "the same frames"
