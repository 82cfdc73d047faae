"""When each frame of a file is shown and where decoding may begin: from its packets, without decoding any.

A seek is trusted where all of this is certain beforehand, and checked again while it is done: every decoded frame must
carry the time that the table has for it. Whatever does not fit is read sequentially.

Letters: N frames.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.video.container import decode_error, decoding_errors, open_container

_SEEKABLE = frozenset({"mov", "mp4", "matroska", "webm"})
_CACHED = 4096
_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


@dataclass(frozen=True)
class Timeline:
    """The packets of the video stream, in order of presentation.

    Attributes:
        stamps: int64 (N,), presentation times of the frames that are shown, ascending, in units of `time_base`; for a
            stream without times, those of the packets by count.
        time_base: seconds a unit.
        keyframes: int64, times of all pictures that the container calls keyframes, ascending.
        entries: int64, times from which decoding gives the very frames of a sequential pass, ascending.
        why_not: why seeks are not trusted; empty where they are.
    """

    stamps: NDArray[np.int64]
    time_base: Fraction
    keyframes: NDArray[np.int64]
    entries: NDArray[np.int64]
    why_not: str = ""

    @property
    def trusted(self) -> bool:
        """Whether frames may be had by seeking."""
        return not self.why_not

    def seconds(self) -> NDArray[np.float64]:
        """Presentation times, float64 (N,)."""
        return np.array([float(stamp * self.time_base) for stamp in self.stamps.tolist()])

    def entry_for(self, index: int) -> int:
        """Where to begin decoding to reach frame `index`: the last entry not after it."""
        place = int(np.searchsorted(self.entries, self.stamps[index], side="right")) - 1
        return int(self.entries[place])

    def index_at(self, seconds: float) -> int:
        """The frame shown at a time: the last one that is not after it, else the first."""
        place = int(np.searchsorted(self.seconds(), seconds + 1e-9, side="right")) - 1
        return max(0, place)


_cache: OrderedDict[tuple[str, int, int], Timeline] = OrderedDict()
_lock = Lock()


def is_seekable(container: str) -> bool:
    """Whether seeks in files of this container can be exact at all; `container` as in `VideoInfo`."""
    return bool(_SEEKABLE & set(container.split(",")))


def timeline_of(path: Path) -> Timeline:
    """The timeline of a file; kept in memory for as long as the file's size and time of change stay.

    Raises:
        VideoError: the file cannot be read.
    """
    key = _key(path)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    found = _read(path)
    _remember(key, found)
    return found


def distrust(path: Path, why: str) -> None:
    """Never seek in this file again: what it showed was not what its packets had promised."""
    _remember(_key(path), replace(timeline_of(path), why_not=why))


def _key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _remember(key: tuple[str, int, int], timeline: Timeline) -> None:
    with _lock:
        _cache[key] = timeline
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)


def _read(path: Path) -> Timeline:
    with open_container(path) as (container, stream):
        codec = str(stream.codec_context.name)
        extradata = bytes(stream.codec_context.extradata or b"")
        shows, is_entry = _SHOWS.get(codec, _always), _entry_test(codec, extradata)
        stamps: list[int] = []
        keyframes: list[int] = []
        entries: list[int] = []
        first_is_entry: bool | None = None
        timeless = 0
        try:
            for packet in container.demux(stream):
                if packet.size <= 1:  # the end; in AVI also the place of a picture that came with another
                    continue
                stamp = packet.pts
                if stamp is None:
                    timeless += 1
                    continue
                entry = packet.is_keyframe and is_entry is not None and is_entry(packet)
                first_is_entry = entry if first_is_entry is None else first_is_entry
                if packet.is_keyframe:
                    keyframes.append(stamp)
                if entry:
                    entries.append(stamp)
                if not packet.is_discard and shows(packet):
                    stamps.append(stamp)
        except decoding_errors() as error:
            raise decode_error(path, error, 0) from error
        if container.format.name == "avi":  # times of decoding, of packets that may hold two pictures or none
            stamps, timeless = [], timeless + len(stamps)
        why_not = _why_not(str(container.format.name), codec, is_entry is not None, timeless, stamps, first_is_entry)
        if timeless:
            step = Fraction(1) / (Fraction(stream.average_rate or 25) * stream.time_base)
            stamps = [int(count * step) for count in range(len(stamps) + timeless)]
        return Timeline(
            stamps=np.array(sorted(stamps), np.int64),
            time_base=Fraction(stream.time_base),
            keyframes=np.array(sorted(keyframes), np.int64),
            entries=np.array(sorted(entries), np.int64),
            why_not=why_not,
        )


def _why_not(
    container: str, codec: str, known: bool, timeless: int, stamps: list[int], first_is_entry: bool | None
) -> str:
    if not is_seekable(container):
        return f"seeks in {container} are not exact"
    if not known:
        return f"it is not known where {codec} may be entered"
    if timeless or len(set(stamps)) != len(stamps):
        return "frames without a time of their own"
    if not stamps:
        return "no frame is shown"
    if not first_is_entry:
        return "it does not begin with a picture that stands for itself"
    return ""


# --- what packets say -------------------------------------------------------------------------------------------------


def _always(packet: Any) -> bool:
    return True


def _vp8_shows(packet: Any) -> bool:
    return bool(memoryview(packet)[0] & 0x10)


def _vp9_shows(packet: Any) -> bool:
    data = memoryview(packet)
    if data[-1] & 0xE0 == 0xC0:
        return True  # several pictures in one packet; one of them is shown
    bits = data[0] if (data[0] & 0x30) != 0x30 else data[0] << 1  # profile 3 has a bit more
    return bool(bits & 0x08) or bool(bits & 0x02)


_SHOWS: dict[str, Callable[[Any], bool]] = {"vp8": _vp8_shows, "libvpx": _vp8_shows, "vp9": _vp9_shows}


def _entry_test(codec: str, extradata: bytes) -> Callable[[Any], bool] | None:
    """Tells of a keyframe's packet whether what follows it needs nothing from before; None for codecs not known."""
    if codec in ("vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"):
        return _always
    if codec == "h264":
        # A recovery point in an open group of pictures is called a keyframe too, but is none: 5 is IDR.
        length = (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0
        return lambda packet: 5 in {kind & 0x1F for kind in _unit_heads(bytes(packet), length)}
    if codec == "hevc":
        length = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0
        # 16 to 21 are random access points: pictures shown after them need nothing from before.
        return lambda packet: any(16 <= kind >> 1 & 0x3F <= 21 for kind in _unit_heads(bytes(packet), length))
    return None


def _unit_heads(data: bytes, length_bytes: int) -> list[int]:
    """First byte of each unit of a packet, whether units are led by their length or by a start code."""
    if not length_bytes:
        return [match[1][0] for match in _START_CODE.finditer(data)]
    heads = []
    place = 0
    while place + length_bytes < len(data):
        length = int.from_bytes(data[place : place + length_bytes], "big")
        heads.append(data[place + length_bytes])
        place += length_bytes + length
    return heads
