"""What a file's own bytes say about its length: whether it was cut short, and how many frames it can hold at most.

Headers are claims. A file is cut short only if the container's structure leads past the end of the file; a length that
a writer fills in at the end and never did (a pipe, a live recording) is a placeholder and says nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

MIN_FRAME_BYTES = 8
"""Least that a frame takes in a file: the head of its packet and an entry in the index; measured files have 15 and more."""

_MAX_STEPS = 1_000_000
"""Parts of a file that are looked at before the question is left open."""

_AVI_PLACEHOLDERS = 0x7FFF_0000  # and above; no RIFF chunk is written so long
_MATROSKA_SEGMENT, _MATROSKA_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_MATROSKA_PARTS = frozenset(
    bytes.fromhex(name)
    for name in ("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1043a770", "1941a469", "1254c367", "ec", "bf")
    + ("e7", "a3", "a0", "a7", "ab", "5854", "1f43b675")
)


def most_frames(num_bytes: int) -> int:
    """The most frames that a video file of this size can hold: an upper bound, far above what real files have.

    Whatever a header claims beyond it is not true.

    Args:
        num_bytes: size of the file.
    """
    return num_bytes // MIN_FRAME_BYTES


def is_cut_short(path: Path) -> bool:
    """Whether the container's own structure leads past the end of the file.

    Looks at the boxes of MP4 and QuickTime, the chunks of AVI, the segment and clusters of Matroska. Other containers
    carry no such lengths.
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
    """Where the last RIFF chunk ends: files above a gigabyte have several."""
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
    """Where the last chunk ends that begins within the file, for a RIFF chunk whose own length is a placeholder."""
    for _ in range(_MAX_STEPS):
        head = _read_at(file, place, 12)
        if len(head) < 8 or not all(32 <= letter < 127 for letter in head[:4]):
            return min(place, size)  # the end, or no chunk: nothing more can be said
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
            return 0  # not a box: nothing can be said
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
    """Where the last part ends that begins within a segment of unknown length, as live recordings have it."""
    for _ in range(_MAX_STEPS):
        first = file.read(1)
        if not first or not first[0]:
            return 0
        name = first + file.read(8 - first[0].bit_length())
        length = _variable_length(file)
        if name not in _MATROSKA_PARTS:
            return 0  # not a part that is known: nothing can be said
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
    """An EBML length; None for "unknown", as live recordings have it."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> (extra + 1))]) + file.read(extra), "big")
    return None if value == (1 << 7 * (extra + 1)) - 1 else value


def _read_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
