"""Reading arrays of a shard directly from their files: one ranged read for a clip.

Zarr-python needs more than ten times as long for such a read. Every array is either one plain uncompressed chunk, or
one Zarr shard: inner chunks, then an index of (offset, length) pairs with a crc32c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.arrays import ArraySpec
from bgaug.store.format.canvas import CANVAS_LAYERS, CANVAS_PLACES, places_are_possible
from bgaug.store.format.documents import MAX_NODE_BYTES, ArrayDocument, check_document, parse_json
from bgaug.store.format.layout import crc32c
from bgaug.store.format.payload import content_digest
from bgaug.store.format.records import VideoRow
from bgaug.store.places import Blob, Place

_ABSENT = 2**64 - 1  # offset and length of a chunk that was never written, by the format of Zarr
_OBJECT_BYTES = 2048  # of the object itself, approximately
# Bounds of decompression: a file of a few bytes can declare any number of zeros.
_FREE_BYTES = 64 * 2**20
_MAX_RATIO = 64
_MAX_CHUNK_BYTES = 128 * 2**20
_FRAME_HEADER_BYTES = 14  # the longest header of a zstd frame without a dictionary
_MAX_SECONDS = 1e12
_MIN_JPEG_BYTES = 128  # shorter than any JPEG; offsets thus bound the number of frames by the size of the file
_ZSTD = b"\x28\xb5\x2f\xfd"


class ArrayFile:
    """Rows of one array.

    Args:
        place: files of the store.
        key: path of the array's folder.
        spec: expected layout; None accepts any layout of a store.
        whole: read everything at once and keep it; for arrays of a few bytes per row.

    Attributes:
        name: path of its folder, for messages.
        shape: shape of the whole array.
        dtype: type of its values.
        nbytes: bytes that it keeps in memory.

    Raises:
        StoreDamageError: a file is missing, or contradicts the metadata.
        StoreFormatError: it has another layout.
    """

    def __init__(self, place: Place, key: str, spec: ArraySpec | None = None, *, whole: bool = False) -> None:
        self.name = f"{place.name}/{key}"
        document = read_array_document(place, key, spec)
        self.shape: tuple[int, ...] = tuple(document.shape)
        self.dtype = np.dtype(document.data_type).newbyteorder("<")
        self._sharded, self._compressed = document.rows_per_chunk is not None, document.compressed
        self._rows_per_chunk = document.rows_per_chunk or max(1, self.shape[0])
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._chunks: NDArray[np.uint64] | None = None
        self._contiguous = False
        self._kept: NDArray[Any] | None = None
        self._place = place
        self._key = "/".join([key, "c", *("0" * len(self.shape))])
        if self.shape[0]:
            self._look_at(place.open(self._key))
        if whole:
            self._kept = self.read_all()
        self.nbytes = _OBJECT_BYTES + sum(part.nbytes for part in (self._kept, self._chunks) if part is not None)

    def _look_at(self, file: Blob) -> None:
        """Locate the chunks; nothing larger than the file is trusted."""
        if self._sharded:
            if self._compressed and self._rows_per_chunk * self._row_bytes > _MAX_CHUNK_BYTES:
                raise StoreFormatError(
                    file.name, f"its chunks have {self._rows_per_chunk} rows of {self._row_bytes} bytes"
                )
            self._read_index(file)
        elif self._compressed:
            check_unpacked(file.name, self.shape[0] * self._row_bytes, file.size)
            size = self.shape[0] * self._row_bytes
            if file.size > size + size // 128 + 1024:  # zstd never adds as much
                raise StoreDamageError(file.name, f"has {file.size} bytes, more than {size} bytes of rows compress to")
            self._chunks = np.array([[0, file.size]], np.uint64)
        elif file.size != self.shape[0] * self._row_bytes:
            raise StoreDamageError(file.name, f"has {file.size} bytes, not those of {self.shape = }")

    def _read_index(self, file: Blob) -> None:
        count = -(-self.shape[0] // self._rows_per_chunk)
        behind = file.size - 16 * count - 4
        if behind < 0:
            raise StoreDamageError(file.name, f"has {file.size} bytes, too few for {count} chunks: run `bgaug verify`")
        data = file.read(behind, 16 * count + 4)
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise StoreDamageError(file.name, "the index of its chunks is damaged: run `bgaug verify`")
        self._chunks = np.frombuffer(data[:-4], "<u8").reshape(count, 2)
        if (self._chunks == _ABSENT).any():
            raise StoreDamageError(file.name, "a chunk is absent: run `bgaug verify`")
        # Check that offsets and lengths are within the file first, so that no sum overflows.
        if (self._chunks > file.size).any() or int(self._chunks[0, 0]) or int(self._chunks[-1].sum()) != behind:
            raise StoreDamageError(file.name, "its inner chunks are not those in the file")
        if (self._chunks[1:, 0] != self._chunks[:-1].sum(axis=1)).any():
            raise StoreFormatError(file.name, "its inner chunks are not end to end in order")
        size = np.uint64(self._rows_per_chunk * self._row_bytes)
        self._contiguous = not self._compressed
        if self._contiguous and (self._chunks[:, 1] != size).any():
            raise StoreDamageError(file.name, f"its inner chunks do not have {size} bytes each")

    def read_all(self) -> NDArray[Any]:
        """All rows, if they are in proportion to the file."""
        if self._compressed and self._chunks is not None:
            check_unpacked(self.name, self.shape[0] * self._row_bytes, int(self._chunks[:, 1].sum()))
        return self.read(0, self.shape[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop`, shape (stop - start, ...)."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Read rows from `start` on into a C-contiguous array, as many as it holds."""
        stop = start + len(out)
        if not 0 <= start <= stop <= self.shape[0]:
            raise self._outside(start, stop)
        if self._kept is not None:
            out[...] = self._kept[start:stop]
            return
        if not len(out):
            return
        file = self._place.open(self._key)
        if self._chunks is None or self._contiguous:
            file.read_into(start * self._row_bytes, out)
            return
        rows = self._rows_per_chunk
        first, last = start // rows, -(-stop // rows)
        # Inner chunks are end to end: neighbours are one range of the file, and one run for the decoder.
        begins = int(self._chunks[first, 0])
        data = file.read(begins, int(self._chunks[last - 1].sum()) - begins)
        skipped = start - first * rows
        if not skipped and len(out) == (last - first) * rows:
            self._unpack(file.name, data, first, last, out)
            return
        unpacked = np.empty(((last - first) * rows, *self.shape[1:]), self.dtype)
        self._unpack(file.name, data, first, last, unpacked)
        out[...] = unpacked[skipped : skipped + len(out)]

    def gather(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read rows in any order into a C-contiguous array; one read if they are neighbours, or remote."""
        # Lists: for a few numbers, numpy's reductions are ten times as expensive.
        numbers = rows.tolist()
        first, last = min(numbers), max(numbers)
        if numbers == list(range(first, first + len(numbers))):
            self.read_into(first, out)
        elif self._place.near and self._kept is None and (self._chunks is None or self._contiguous):
            if not 0 <= first <= last < self.shape[0]:
                raise self._outside(first, last + 1)
            self._place.open(self._key).read_pieces([row * self._row_bytes for row in numbers], out)
        else:
            out[...] = self.read(first, last + 1)[rows - first]

    @property
    def _rows_at_once(self) -> int:
        """Rows that are decompressed together, or rows of about a megabyte."""
        return max(self._rows_per_chunk if self._chunks is not None else 1, (1 << 20) // max(1, self._row_bytes))

    def blocks(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Rows `start` to `stop`, some at a time."""
        for first in range(start, stop, self._rows_at_once):
            yield self.read(first, min(first + self._rows_at_once, stop))

    def check_rows(self, count: int) -> None:
        """Check that there are this many rows. Raises StoreDamageError: there are fewer."""
        if count > self.shape[0]:
            raise self._outside(0, count)

    def _outside(self, start: int, stop: int) -> StoreDamageError:
        return StoreDamageError(
            self.name, f"has {self.shape[0]} rows, rows {start} to {stop} are expected: run `bgaug verify`"
        )

    def _unpack(self, name: str, data: bytes, first: int, last: int, out: NDArray[Any]) -> None:
        """Decompress these inner chunks, whose bytes are `data`, into an array of their size."""
        assert self._chunks is not None
        size = self._rows_per_chunk * self._row_bytes
        for begin in (self._chunks[first:last, 0] - self._chunks[first, 0]).tolist():
            if _content_bytes(data[begin : begin + _FRAME_HEADER_BYTES]) != size:
                raise StoreDamageError(name, f"a chunk does not declare {size} bytes: run `bgaug verify`")
        try:
            Zstd().decode(data, out)
        except (RuntimeError, ValueError) as error:
            what = f"chunk {first}" if last - first == 1 else f"one of the chunks {first} to {last - 1}"
            raise StoreDamageError(name, f"{what} is damaged ({error}): run `bgaug verify`") from error


def check_numbers(name: str, array: ArrayFile, frames: ArrayFile | None) -> None:
    """Check the values of arrays that other values are computed from; most arrays may contain anything.

    Raises:
        StoreDamageError: a time is not a number, frames are not end to end, or a transform cannot be one.
    """
    good = True
    if name == "pts_seconds":
        good = bool((np.abs(array.read_all()) <= _MAX_SECONDS).all())
    elif name == "frame_offsets" and frames is not None:
        offsets = array.read_all()
        good = bool(len(offsets) and offsets[0] == 0 and offsets[-1] == frames.shape[0])
        good = good and bool((np.diff(offsets) >= _MIN_JPEG_BYTES).all())
    elif name == CANVAS_PLACES:
        good = places_are_possible(array.read_all())
    if not good:
        raise StoreDamageError(array.name, "has impossible values: run `bgaug verify`")


def check_unpacked(name: str, unpacked: int, packed: int) -> None:
    """Check that data that is decompressed as a whole is in proportion to the file.

    Raises:
        StoreFormatError: it is larger than 64 MiB and than 64 times the file.
    """
    if unpacked > max(_FREE_BYTES, _MAX_RATIO * packed):
        raise StoreFormatError(
            name, f"would decompress from {packed} to {unpacked} bytes, more than arrays of a store do"
        )


def _content_bytes(frame: bytes) -> int | None:
    """The content size that a zstd frame declares; None if it declares none, or has no checksum.

    Reference: RFC 8878, section 3.1.1.
    """
    if len(frame) < 6 or frame[:4] != _ZSTD or not frame[4] & 4:
        return None
    single_segment = frame[4] >> 5 & 1
    flag = frame[4] >> 6
    begin = 5 + (not single_segment) + (0, 1, 2, 4)[frame[4] & 3]
    length = (1 if single_segment else 0, 2, 4, 8)[flag]
    field = frame[begin : begin + length]
    if not length or len(field) != length:
        return None
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)


def read_array_document(place: Place, key: str, spec: ArraySpec | None = None) -> ArrayDocument:
    """zarr.json of an array.

    Raises:
        StoreDamageError: it is missing or damaged.
        StoreFormatError: it is not that of an array, or differs from `spec`.
    """
    name = f"{place.name}/{key}/zarr.json"
    try:
        text = place.read(f"{key}/zarr.json", MAX_NODE_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreDamageError(name, "is missing: run `bgaug verify`") from error
    document = check_document(name, ArrayDocument, parse_json(name, text))
    if spec is not None:
        found = document.data_type, tuple(document.shape[1:]), document.rows_per_chunk, document.compressed
        expected = np.dtype(spec.dtype).name, spec.row, spec.rows_per_chunk, spec.compress
        for field, one, other in zip(("data_type", "shape", "chunk_shape", "codecs"), found, expected, strict=True):
            if one != other:
                raise StoreFormatError(name, f"{field}: is {one}, expected {other}")
    return document


def content_of(row: VideoRow, arrays: Mapping[str, ArrayFile], masks: NDArray[np.uint8] | None = None) -> str:
    """See `content_digest`: of a video in these arrays of its shard, or of the video with other packed masks."""
    start, stop = row.start, row.start + row.num_frames
    held = (range(shot.background, shot.background + shot.num_backgrounds) for shot in row.shots)
    numbers = sorted(number for some in held for number in some)

    def parts() -> Iterator[NDArray[Any]]:
        if masks is not None:
            yield masks
        elif "masks" in arrays:
            yield from arrays["masks"].blocks(start, stop)
        for number in numbers:
            for name in ("backgrounds", "noise", "valid"):
                yield arrays[name].read(number, number + 1)
        for canvas in (shot.canvas for shot in row.shots if shot.canvas is not None):
            for name in CANVAS_LAYERS:
                yield from arrays[name].blocks(canvas.pixel, canvas.pixel + canvas.num_pixels)
            yield from arrays[CANVAS_PLACES].blocks(canvas.place, canvas.place + canvas.num_places)
        for shot in row.shots:
            if shot.masks is not None:
                num_bytes = shot.masks.frame_bytes * (shot.stop - shot.start)
                yield from arrays["small_masks"].blocks(shot.masks.byte, shot.masks.byte + num_bytes)

    checksums = arrays["frame_crc"].read(start, stop).tolist() if "frame_crc" in arrays else []
    return content_digest(arrays["pts_seconds"].read(start, stop).tolist(), checksums, parts())
