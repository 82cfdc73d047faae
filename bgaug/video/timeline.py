"""The time of each frame of a file and the places where decoding may begin, from its packets without decoding.

A seek is trusted only if all of this is certain beforehand, and checked again during the seek: every decoded frame must
have the time that the timeline has for it. All other files are read sequentially.

Letters: N frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.video.container import decoding_errors, open_container
from bgaug.video.packets import PacketRules

_SEEKABLE = frozenset({"mov", "mp4", "matroska", "webm"})
_RESETS_CLOCK = frozenset({"mpegts", "mpeg"})
_CACHED = 4096
_FRAMES_CHECKED = 3
_DEFAULT_RATE = 25
_SAME_RATE, _SAME_COUNT, _SOME_MISSING = 0.01, 0.5, 1.5
_LATE_SECONDS = 1.0
_LONGEST_GAP_SECONDS = 10  # a longer one, in transport and program streams, is a reset of the clock, as in FFmpeg


class Clock:
    """Strictly ascending times of the frames of one pass, from their stamps.

    Ascending stamps are used as they are. Where they restart, the next frame follows one step after the last, and all
    later frames are shifted by the same amount. A frame without a stamp is one step after the last; one whose stamp is
    not after the last frame's is one unit after it.

    Args:
        unit: seconds per unit of the stamps.
        step: usual seconds from one frame to the next.
        seams: number of restarts of the times, as far as the packets show.
        closes_gaps: whether a gap of more than 10 seconds counts as a restart, too.
    """

    def __init__(self, unit: Fraction, step: Fraction, seams: int = 0, closes_gaps: bool = False) -> None:
        self._unit, self._step = unit, step
        self._seams_left, self._closes_gaps = seams, closes_gaps
        self._last_stamp = self._offset = Fraction(0)
        self._now: Fraction | None = None
        self._count = 0
        self.seams: list[int] = []

    def time(self, stamp: int | None) -> float:
        """Time of the next frame in seconds; `seams` collects the numbers of the frames at which times restart."""
        if self._now is None:
            now = Fraction(0) if stamp is None else stamp * self._unit
            self._last_stamp = now
        elif stamp is None:
            now = self._now + self._step
        else:
            shown = stamp * self._unit
            if self._seams_left and self._begins_again(shown):
                self._seams_left -= 1
                self.seams.append(self._count)
                self._offset = self._now + self._step - shown
            self._last_stamp = shown
            now = shown + self._offset
            if now <= self._now:
                now = self._now + self._unit
        self._now = now
        self._count += 1
        return float(now)

    def _begins_again(self, shown: Fraction) -> bool:
        return shown < self._last_stamp or (self._closes_gaps and shown - self._last_stamp > _LONGEST_GAP_SECONDS)


@dataclass(frozen=True)
class Timeline:
    """The packets of the video stream, in order of presentation.

    Attributes:
        stamps: int64 (N,), presentation times of the shown frames in the file, in units of `time_base`: ascending
            unless there are `seams`; for a stream without times, by the number of the frame.
        time_base: seconds per unit.
        times: float64 (N,), presentation times in seconds, strictly ascending.
        rate: frames per second: that of the container if the times confirm it, else by the times.
        duration_seconds: from the first frame shown to the end of the last.
        keyframes: int64, numbers of all frames that the container marks as keyframes, ascending.
        entries: int64, stamps from which decoding gives exactly the frames of a sequential pass, ascending.
        why_not: why seeks are not trusted; empty if they are.
        step: usual seconds from one frame to the next.
        seams: numbers of the frames at which the file's times restart.
        by_order: the stamps of decoded frames are wrong or missing: the k-th frame has the k-th stamp.
        closes_gaps: see `Clock`.
    """

    stamps: NDArray[np.int64]
    time_base: Fraction
    times: NDArray[np.float64]
    rate: float
    duration_seconds: float
    keyframes: NDArray[np.int64]
    entries: NDArray[np.int64]
    step: Fraction
    why_not: str = ""
    seams: tuple[int, ...] = ()
    by_order: bool = False
    closes_gaps: bool = False

    @property
    def trusted(self) -> bool:
        """Whether seeks may be used."""
        return not self.why_not

    def new_clock(self) -> Clock:
        """A clock for the stamps of the decoded frames of one pass."""
        return Clock(self.time_base, self.step, len(self.seams), self.closes_gaps)

    def entry_for(self, index: int) -> int | None:
        """The place to begin decoding for frame `index`: the last entry not after it, None if there is none."""
        place = int(np.searchsorted(self.entries, self.stamps[index], side="right")) - 1
        return int(self.entries[place]) if place >= 0 else None

    def index_at(self, seconds: float) -> int:
        """The frame shown at a time: the last one not after it, else the first."""
        place = int(np.searchsorted(self.times, seconds + 1e-9, side="right")) - 1
        return max(0, place)


_cache: OrderedDict[tuple[str, int, int], Timeline] = OrderedDict()


def is_seekable(container: str) -> bool:
    """Whether seeks in files of this container can be exact; `container` as in `VideoInfo`."""
    return bool(_SEEKABLE & set(container.split(",")))


def timeline_of(path: Path) -> Timeline:
    """The timeline of a file; cached while size and modification time of the file stay the same.

    Raises:
        VideoError: the file cannot be read.
    """
    key = _key(path)
    found = _cache.get(key)
    if found is None:
        found = _read(path)
    _remember(key, found)
    return found


def distrust(path: Path, why: str) -> None:
    """Never seek in this file again: decoded frames differ from its packets."""
    _remember(_key(path), replace(timeline_of(path), why_not=why))


def _key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _remember(key: tuple[str, int, int], timeline: Timeline) -> None:
    # Each step is atomic. A lock would stay locked if memory ran out at its release, and every later reader would wait.
    _cache.pop(key, None)
    _cache[key] = timeline
    while len(_cache) > _CACHED:
        with suppress(KeyError):  # another thread was faster
            _cache.popitem(last=False)


@dataclass
class _Packets:
    """The result of a pass over the packets.

    Attributes:
        segments: stamps of the shown frames, in the order of the file; a new segment where times restart.
        keys: for each segment, stamps of its keyframes.
        entries: as in `Timeline`.
        num_timeless: number of packets without a stamp.
        ordered: whether the stamps ascend in the order of the file.
        last_duration: of the packet shown last, in units; 0 if it has none.
        first_is_entry: whether decoding may begin with the first packet.
        edited: whether some packets are marked as not shown.
        broken: whether reading them ended in an error.
    """

    segments: list[list[int]] = field(default_factory=lambda: [[]])
    keys: list[list[int]] = field(default_factory=lambda: [[]])
    entries: list[int] = field(default_factory=list)
    num_timeless: int = 0
    ordered: bool = True
    last_duration: int = 0
    first_is_entry: bool | None = None
    edited: bool = False
    broken: bool = False


def _read(path: Path) -> Timeline:
    first_stamps, interlaced = _first_frames(path)
    with open_container(path) as (container, stream):
        name, codec = str(container.format.name), stream.codec_context
        rules = PacketRules(str(codec.name), bytes(codec.extradata or b""))
        packets = _read_packets(container, stream, rules)
        unit = Fraction(stream.time_base)
        header_rate = float(stream.average_rate or 0)
        reorders = bool(codec.has_b_frames)
    is_avi = name == "avi"
    lent = reorders and packets.ordered and not is_avi
    _drop_unshown_beginning(packets, first_stamps, name)
    stamps = [stamp for segment in packets.segments for stamp in sorted(segment)]
    count = len(stamps) + packets.num_timeless
    distinct = sum(len(set(segment)) for segment in packets.segments) + packets.num_timeless
    # In AVI with B-frames, packets may hold two images or none, and their times are not those of frames.
    by_count = packets.num_timeless * 2 > count or (count > 2 and distinct * 2 <= count) or (is_avi and reorders)
    if by_count:
        step = 1 / (Fraction(_believable(header_rate)).limit_denominator(1001_000) * unit)
        stamps = [round(number * step) for number in range(count)]
    step_seconds, closes_gaps = _step(stamps, unit), name in _RESETS_CLOCK
    clock = Clock(unit, step_seconds, len(packets.segments) - 1, closes_gaps)
    origin = stamps[0] if stamps and is_avi else 0
    missing = 0 if by_count else packets.num_timeless
    times = np.array([clock.time(s - origin) for s in stamps] + [clock.time(None) for _ in range(missing)], np.float64)
    rate, duration = _rate_and_duration(times, packets.last_duration * float(unit), header_rate)
    why_not = _why_not(name, str(codec.name), rules, packets, first_stamps, stamps) or (
        "images may be made of two fields" if interlaced else ""
    )
    if not why_not and lent and len(stamps) > 1:
        why_not = "its times may be those of decoding"
    return Timeline(
        stamps=np.array(stamps, np.int64),
        time_base=unit,
        times=times,
        rate=rate,
        duration_seconds=duration,
        keyframes=_key_places(packets),
        entries=np.array(sorted(packets.entries), np.int64),
        why_not=why_not,
        step=step_seconds,
        seams=tuple(clock.seams),
        by_order=(lent or by_count) and not is_avi,
        closes_gaps=closes_gaps,
    )


def _first_frames(path: Path) -> tuple[list[int | None], bool]:
    """Stamps of the first decoded frames, and whether one is interlaced; no stamps where decoding fails at once."""
    found: list[int | None] = []
    interlaced = False
    try:
        with open_container(path) as (container, stream):
            for frame in islice(container.decode(stream), _FRAMES_CHECKED):
                found.append(frame.pts)
                interlaced |= bool(frame.interlaced_frame)
    except decoding_errors():
        pass  # the sequential pass reports the error
    return found, interlaced


def _read_packets(container: Any, stream: Any, rules: PacketRules) -> _Packets:
    found = _Packets()
    is_avi = container.format.name == "avi"
    closes_gaps = container.format.name in _RESETS_CLOCK
    units = 1 / Fraction(stream.time_base)
    last_dts: int | None = None
    latest = longest = None
    try:
        for packet in container.demux(stream):
            # The end has no bytes. One byte is a placeholder for an image that came with another, in AVI and files made
            # from it, but in VP9 it shows an image again.
            if packet.size <= (0 if rules.codec == "vp9" else 1):
                continue
            # AVI has no presentation times, and those that FFmpeg invents are out of order.
            stamp = packet.dts if is_avi else packet.pts
            shown, is_entry = rules.look(packet)
            if stamp is None:
                found.num_timeless += shown
                continue
            back = last_dts is not None and packet.dts is not None and packet.dts < last_dts - _LATE_SECONDS * units
            back |= latest is not None and packet.is_keyframe and stamp < latest
            gap = closes_gaps and latest is not None and stamp - latest > _LONGEST_GAP_SECONDS * units
            if back or gap:
                found.segments.append([])
                found.keys.append([])
                latest = longest = None
            found.ordered &= latest is None or stamp > latest
            latest = stamp if latest is None else max(latest, stamp)
            last_dts = packet.dts if packet.dts is not None else last_dts
            found.first_is_entry = is_entry if found.first_is_entry is None else found.first_is_entry
            if packet.is_keyframe:
                found.keys[-1].append(stamp)
            if is_entry:
                found.entries.append(stamp)
            found.edited |= bool(packet.is_discard)
            if shown and not packet.is_discard:
                found.segments[-1].append(stamp)
                if longest is None or stamp >= longest:
                    longest, found.last_duration = stamp, int(packet.duration or 0)
    except decoding_errors():
        found.broken = True
    return found


def _drop_unshown_beginning(packets: _Packets, first_stamps: list[int | None], container: str) -> None:
    """Drop images before the first one shown, which depend on removed ones."""
    first = first_stamps[0] if first_stamps and container != "avi" else None
    if first is not None and first in packets.segments[0]:
        packets.segments[0] = [stamp for stamp in packets.segments[0] if stamp >= first]


def _step(stamps: Sequence[int], unit: Fraction) -> Fraction:
    """Median time between two frames, in seconds."""
    steps = np.diff(np.asarray(stamps, np.int64))
    steps = steps[steps > 0]
    return (
        Fraction(float(np.median(steps))).limit_denominator(1000) * unit if len(steps) else Fraction(1, _DEFAULT_RATE)
    )


def _rate_and_duration(times: NDArray[np.float64], last_seconds: float, header_rate: float) -> tuple[float, float]:
    """Frames per second, and seconds from the first frame to the end of the last."""
    if not len(times):
        return _believable(header_rate), 0.0
    if len(times) == 1:
        return _believable(header_rate), last_seconds or 1 / _believable(header_rate)
    steps = np.diff(times)
    usual = float(np.median(steps))
    believed = usual / 2 <= last_seconds <= 2 * float(steps.max())
    duration = float(times[-1] - times[0]) + (last_seconds if believed else usual)
    count = len(times)
    # One frame may be missing, or one gap longer, if all other steps match the header.
    same_step = abs(header_rate * usual - 1) <= _SAME_RATE
    allowed = max(_SOME_MISSING if same_step else _SAME_COUNT, _SAME_RATE * count)
    confirmed = abs(header_rate * duration - count) <= allowed
    return (header_rate if confirmed else count / duration), duration


def _believable(rate: float) -> float:
    return rate if 0 < rate <= 300 else float(_DEFAULT_RATE)


def _key_places(packets: _Packets) -> NDArray[np.int64]:
    places = []
    before = 0
    for shown, keys in zip(packets.segments, packets.keys, strict=True):
        places.append(before + np.searchsorted(np.array(sorted(shown), np.int64), sorted(keys)))
        before += len(shown)
    found: NDArray[np.int64] = np.concatenate(places).astype(np.int64)
    return found[found < before]


def _why_not(
    container: str,
    codec: str,
    rules: PacketRules,
    packets: _Packets,
    first_stamps: Sequence[int | None],
    stamps: Sequence[int],
) -> str:
    if not is_seekable(container):
        return f"seeks in {container} are not exact"
    if not rules.known:
        return f"the places where decoding of {codec} may begin are unknown"
    if packets.num_timeless or len(set(stamps)) != len(stamps):
        return "frames without a time of their own"
    if not stamps:
        return "no frame is shown"
    if len(packets.segments) > 1:
        return "its times restart"
    if packets.edited or rules.irregular:
        return "it was cut or joined without encoding"
    if packets.broken:
        return "its packets end in an error"
    if not packets.first_is_entry:
        return "it does not begin with an independent image"
    if list(first_stamps) != list(stamps[:_FRAMES_CHECKED]):
        return "its first frames differ from its packets"
    return ""
