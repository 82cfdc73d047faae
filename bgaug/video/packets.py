"""Packets without decoding: whether one shows an image, and whether decoding may begin with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


class PacketRules:
    """The rules of one codec, for the packets of one stream in the order of the file.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: of the stream.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self.codec = codec.removeprefix("libvpx-")
        self._entry, self._shows = _RULES.get(codec, (None, _always))
        self._hevc = _LeadingPictures() if codec == "hevc" else None
        place = {"h264": 4, "hevc": 21}.get(codec, len(extradata))
        self._length_bytes = (extradata[place] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > place else 0

    @property
    def known(self) -> bool:
        """Whether the places where decoding may begin are known."""
        return self._entry is not None or self._hevc is not None

    @property
    def irregular(self) -> bool:
        """Whether the stream was joined or cut in a way that makes seeks unreliable."""
        return self._hevc is not None and self._hevc.joined

    def look(self, packet: Any) -> tuple[bool, bool]:
        """Whether a packet shows an image, and whether decoding may begin there: later packets need no earlier ones."""
        data = memoryview(packet)
        if self._hevc is not None:
            kinds = [head >> 1 & 0x3F for head in _heads(data, self._length_bytes)]
            return self._hevc.shows(kinds), packet.is_keyframe and any(16 <= kind <= 21 for kind in kinds)
        may_enter = packet.is_keyframe and self._entry is not None and self._entry(data, self._length_bytes)
        return self._shows(data), bool(may_enter)


class _LeadingPictures:
    """Images of HEVC that are never shown.

    They depend on images before a random access point (RASL) that do not exist: at the beginning, after the end of a
    sequence, and at a broken link.
    """

    def __init__(self) -> None:
        self.joined = False
        self._first, self._dropping = True, False

    def shows(self, kinds: list[int]) -> bool:
        """Whether the image with units of these kinds is shown."""
        if any(16 <= kind <= 21 for kind in kinds):
            broken = any(16 <= kind <= 18 for kind in kinds)
            self.joined |= broken
            self._dropping = self._first or broken or any(19 <= kind <= 20 for kind in kinds)
            self._first = False
        shown = not (self._dropping and any(kind in (8, 9) for kind in kinds))
        if any(kind in (36, 37) for kind in kinds):  # the end of a sequence, of the stream
            self._first = self.joined = True
        return shown


def _always(data: memoryview) -> bool:
    return True


def _h264_entry(data: memoryview, length_bytes: int) -> bool:
    """Only IDR (5): a recovery point in an open group of pictures is also marked as a keyframe."""
    return 5 in {head & 0x1F for head in _heads(data, length_bytes)}


def _vp8_shows(data: memoryview) -> bool:
    return bool(data[0] & 0x10)


def _vp8_entry(data: memoryview, length_bytes: int) -> bool:
    return not data[0] & 1


def _vp9_shows(data: memoryview) -> bool:
    if data[-1] & 0xE0 == 0xC0:
        return True  # several images in one packet; one of them is shown
    bits = _vp9_bits(data)
    return bool(bits & 0x08) or bool(bits & 0x02)


def _vp9_entry(data: memoryview, length_bytes: int) -> bool:
    return not _vp9_bits(data) & 0x0C  # neither shown again nor predicted


def _vp9_bits(data: memoryview) -> int:
    return data[0] if (data[0] & 0x30) != 0x30 else data[0] << 1  # profile 3 has one more bit


def _av1_entry(data: memoryview, length_bytes: int) -> bool:
    """Whether the first frame is a keyframe that is shown at once: others may depend on frames before a later one."""
    place = 0
    while place < len(data):
        head = data[place]
        place += 2 if head & 4 else 1
        if not head & 2:  # to the end of the packet
            length = len(data) - place
        else:
            length = shift = 0
            while place < len(data):
                byte = data[place]
                place, length, shift = place + 1, length | (byte & 0x7F) << shift, shift + 7
                if not byte & 0x80 or shift > 56:
                    break
        if head >> 3 & 15 in (3, 6) and place < len(data):
            return data[place] & 0xF0 == 0x10
        place += length
    return False


def _heads(data: memoryview, length_bytes: int) -> list[int]:
    """First byte of each unit of a packet, whether units begin with their length or with a start code."""
    if not length_bytes:
        return [match[1][0] for match in _START_CODE.finditer(data)]
    heads = []
    place = 0
    while place + length_bytes < len(data):
        length = int.from_bytes(data[place : place + length_bytes], "big")
        heads.append(data[place + length_bytes])
        place += length_bytes + length
    return heads


_Entry = Callable[[memoryview, int], bool]
_RULES: dict[str, tuple[_Entry | None, Callable[[memoryview], bool]]] = {
    "h264": (_h264_entry, _always),
    **dict.fromkeys(("vp8", "libvpx"), (_vp8_entry, _vp8_shows)),
    **dict.fromkeys(("vp9", "libvpx-vp9"), (_vp9_entry, _vp9_shows)),
    **dict.fromkeys(("av1", "libdav1d", "libaom-av1"), (_av1_entry, _always)),
}
