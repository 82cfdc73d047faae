"""Reading the arrays of shards, with caches: frames, masks, times, backgrounds by shard and row.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Canvas
from bgaug.errors import StoreDamageError
from bgaug.masks import SmallMasks, unpack_mask
from bgaug.store.array_file import ArrayFile, check_numbers
from bgaug.store.arrays import array_specs
from bgaug.store.format.canvas import CANVAS_LAYERS, CANVAS_PLACES, canvas_from
from bgaug.store.format.columns import Columns, VideoIds
from bgaug.store.format.layout import SHARDS, Header, crc32c, shard_name
from bgaug.store.format.payload import decode_jpeg
from bgaug.store.format.records import Shot, SmallMasksRow
from bgaug.store.places import Blob, Place

_MAX_FILES = 2048  # and at most half of the system's limit, see `_max_files`
_ARRAY_BYTES = 256 * 2**20  # times, offsets and checksums: about 20 bytes per frame
_IMAGE_BYTES = 64 * 2**20  # backgrounds of a remote store
_WHOLE = ("pts_seconds", "frame_offsets", "frame_crc", "background_crc", CANVAS_PLACES)  # of a few bytes per row
_MASK_BYTES = 64 * 2**10  # small masks that are decompressed at once, at least one frame

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _LRUCache(Generic[_Key, _Value]):
    """Values by key; the least recently used is removed first. The caller provides a lock.

    Args:
        limit: largest sum of the sizes; the newest value is always kept.
        size: size of a value.
    """

    def __init__(self, limit: int, size: Callable[[_Value], int]) -> None:
        self._limit, self._size = limit, size
        self._held: OrderedDict[_Key, _Value] = OrderedDict()
        self._total = 0

    def get(self, key: _Key) -> _Value | None:
        """The value of a key, if it is still kept."""
        value = self._held.get(key)
        if value is not None:
            self._held.move_to_end(key)
        return value

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value."""
        old = self._held.pop(key, None)
        self._total += self._size(value) - (self._size(old) if old is not None else 0)
        self._held[key] = value
        while len(self._held) > 1 and self._total > self._limit:
            _, removed = self._held.popitem(last=False)
            self._total -= self._size(removed)


class _Opened:
    """A place that keeps the most recently used files open; see `Place`.

    Args:
        place: the place.
        max_files: largest number of open files.
    """

    def __init__(self, place: Place, max_files: int) -> None:
        self.name = place.name
        self.near = place.near
        self.read = place.read
        self.names = place.names
        self._place = place
        self._files = _LRUCache[str, Blob](max_files, lambda file: 1)
        self._lock = Lock()

    def open(self, key: str) -> Blob:
        """See `Place`."""
        with self._lock:
            file = self._files.get(key)
        if file is None:
            file = self._place.open(key)
            with self._lock:
                self._files.put(key, file)  # a file that is dropped is closed when no thread uses it any more
        return file


class ShardReader:
    """Rows of the arrays of all shards. Safe to pickle, and to share between threads and forked processes.

    Args:
        place: files of the store.
        header: header of the store.
        columns: columns of the store, which name the video of a damaged frame.
        check_frames: check raw frames against their checksums.

    Attributes:
        guide: name of the array whose rows are the stored frames.
    """

    def __init__(self, place: Place, header: Header, columns: Columns, *, check_frames: bool) -> None:
        self.guide = "frame_offsets" if header.frames == "jpeg" else "frames"
        self._place = place
        self._header = header
        self._columns = columns
        self._check_frames = check_frames
        self._specs = array_specs(header)
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()
        self._opened = _Opened(self._place, _max_files())
        self._arrays = _LRUCache[tuple[int, str], ArrayFile](_ARRAY_BYTES, lambda array: array.nbytes)
        self._backgrounds = _LRUCache[tuple[int, int], NDArray[np.uint8]](_IMAGE_BYTES, lambda image: image.nbytes)
        self._process = os.getpid()  # last: other threads of a forked process check it

    def __getstate__(self) -> dict[str, Any]:
        # Open files belong to this process; another one opens its own.
        return {**self.__dict__, "_opened": None, "_arrays": None, "_backgrounds": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _check_fork(self) -> None:
        if self._process != os.getpid():  # forked: another thread may have held the lock at that moment
            self._begin()

    def array(self, shard: int, name: str) -> ArrayFile:
        """An array of a shard."""
        self._check_fork()
        key = shard, name
        with self._lock:
            array = self._arrays.get(key)
        if array is None:
            folder = f"{SHARDS}/{shard_name(shard)}/{name}"
            array = ArrayFile(self._opened, folder, self._specs.get(name), whole=name in _WHOLE)
            # Outside the lock, so that other threads do not wait; two may read the same array.
            check_numbers(name, array, self.array(shard, "frames") if name == "frame_offsets" else None)
            with self._lock:
                self._arrays.put(key, array)
        return array

    def frames(self, shard: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Read frames into uint8 (T, H, W, 3). Raises StoreDamageError: bytes are missing, or a checksum differs."""
        if self._header.frames == "raw":
            self._read_raw(shard, rows, out)
        else:
            self._read_jpegs(shard, rows, out)

    def _read_raw(self, shard: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self.array(shard, "frames").gather(rows, out)
        if not self._check_frames:
            return
        checksums = np.empty(len(rows), np.uint32)
        self.array(shard, "frame_crc").gather(rows, checksums)
        for row, image, checksum in zip(rows.tolist(), out, checksums.tolist(), strict=True):
            if crc32c(image) != checksum:
                raise self._damaged(shard, row)

    def _read_jpegs(self, shard: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        numbers = rows.tolist()
        first, last = min(numbers), max(numbers)
        offsets = self.array(shard, "frame_offsets").read(first, last + 2).tolist()
        checksums = self.array(shard, "frame_crc").read(first, last + 1).tolist()
        blob = self.array(shard, "frames").read(offsets[0], offsets[-1])
        done: dict[int, int] = {}
        for i, row in enumerate(numbers):
            if row in done:  # a repeated frame is decoded once
                out[i] = out[done[row]]
                continue
            done[row] = i
            j = row - first
            data = blob[offsets[j] - offsets[0] : offsets[j + 1] - offsets[0]]
            if crc32c(data) != checksums[j]:
                raise self._damaged(shard, row)
            decode_jpeg(data, out[i], f"{self._place.name}/{SHARDS}/{shard_name(shard)}/frames")

    def _damaged(self, shard: int, row: int) -> StoreDamageError:
        c = self._columns
        parts = np.flatnonzero((c.part_shard == shard) & (c.part_start <= row))
        part = int(parts[c.part_start[parts].argmax()])
        video = int(np.searchsorted(c.part_offsets, part, side="right")) - 1
        frame = row - int(c.part_start[part]) + int(c.part_first[part])
        place = f"{self._place.name}/{SHARDS}/{shard_name(shard)}"
        return StoreDamageError(place, f"frame {frame} of {VideoIds(c)[video]} is damaged: run `bgaug verify`")

    def background(self, shard: int, number: int, out: NDArray[np.uint8]) -> None:
        """Read a background into uint8 (H, W, 3); those of a remote store are cached."""
        if self._place.near:
            self._read_background(shard, number, out)
            return
        self._check_fork()
        with self._lock:
            image = self._backgrounds.get((shard, number))
        if image is None:
            image = np.empty_like(out)
            self._read_background(shard, number, image)
            with self._lock:
                self._backgrounds.put((shard, number), image)
        out[...] = image

    def canvas(self, shard: int, shot: Shot) -> Canvas:
        """The canvas of a shot that has one. Raises StoreDamageError: it is damaged."""
        row = shot.canvas
        assert row is not None
        arrays = {name: self.array(shard, name) for name in (*CANVAS_LAYERS, CANVAS_PLACES)}
        for name, array in arrays.items():  # before memory is allocated for it
            array.check_rows(row.pixel + row.num_pixels if name != CANVAS_PLACES else row.place + row.num_places)
        rows = {name: arrays[name].read(row.pixel, row.pixel + row.num_pixels) for name in CANVAS_LAYERS}
        rows[CANVAS_PLACES] = arrays[CANVAS_PLACES].read(row.place, row.place + row.num_places)
        try:
            return canvas_from(row, rows, shot.start)
        except ValueError as error:
            raise StoreDamageError(arrays[CANVAS_PLACES].name, f"{error}: run `bgaug verify`") from error

    def small_masks(self, shard: int, shot: Shot) -> SmallMasks:
        """The small masks of a shot that has them, read as they are used.

        Raises:
            StoreDamageError: bytes are missing.
        """
        assert shot.masks is not None
        return _StoredMasks(self.array(shard, "small_masks"), shot.masks, shot.stop - shot.start)

    def _read_background(self, shard: int, number: int, out: NDArray[np.uint8]) -> None:
        self.array(shard, "backgrounds").read_into(number, out[None])
        if self._header.frames == "none":
            return  # compressed, with the checksum of the compression
        if crc32c(out) != int(self.array(shard, "background_crc").read(number, number + 1)[0]):
            place = f"{self._place.name}/{SHARDS}/{shard_name(shard)}"
            raise StoreDamageError(place, f"background {number} is damaged: run `bgaug verify`")


class _StoredMasks(SmallMasks):
    """Small masks of a shot that are read from a store block by block; the last block is kept.

    Args:
        array: `small_masks` of the shard.
        row: place of the masks there.
        num_frames: T.
    """

    def __init__(self, array: ArrayFile, row: SmallMasksRow, num_frames: int) -> None:
        array.check_rows(row.byte + num_frames * row.frame_bytes)
        self.size = (row.size[0], row.size[1])
        self._array, self._first, self._count, self._stride = array, row.byte, num_frames, row.frame_bytes
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self._count

    def at(self, frame: int) -> NDArray[np.bool_]:
        """See `SmallMasks`."""
        step = max(1, _MASK_BYTES // self._stride)
        held = self._held
        if held is None or not held[0] <= frame < held[0] + len(held[1]):
            start = frame // step * step
            held = self._held = start, self.packed(start, max(frame + 1, min(start + step, self._count)))
        return unpack_mask(held[1][frame - held[0]], *self.size)

    def _rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        rows = self._array.read(self._first + start * self._stride, self._first + stop * self._stride)
        return rows.reshape(stop - start, self._stride)


def _max_files() -> int:
    """Largest number of open files: half of the system's limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, min(_MAX_FILES, soft // 2))
