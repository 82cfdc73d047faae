"""The arrays of one shard, read straight from their files: one ranged read for what a clip needs.

Zarr-python spends more than ten times as long on such a read, in Python; the files are the same. Every array is either
one plain uncompressed chunk, or one Zarr shard: its inner chunks, and behind them an index of (offset, length) pairs
with a crc32c.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.layout import crc32c
from bgaug.store.places import Blob, Place

_ABSENT = 2**64 - 1
_OBJECT_BYTES = 2048  # of the object itself, about


class ArrayFile:
    """Rows of one array.

    Args:
        place: the files of the store.
        key: of the array's folder.
        whole: read everything at once and keep it; for arrays of a few bytes a row.

    Attributes:
        shape: of the whole array.
        dtype: of its values.
        nbytes: that it keeps in memory.

    Raises:
        StoreDamageError: a file is missing, or not what the metadata say.
        StoreFormatError: it is coded in a way that this bgaug does not read.
    """

    def __init__(self, place: Place, key: str, *, whole: bool = False) -> None:
        self._name = f"{place.name}/{key}"
        meta = _array_metadata(place, key)
        try:
            self.shape: tuple[int, ...] = tuple(int(size) for size in meta["shape"])
            self.dtype = np.dtype(meta["data_type"]).newbyteorder("<")
            self._sharded, self._rows_per_chunk, self._compressed = _codecs(self._name, meta)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, StoreFormatError):
                raise
            raise StoreDamageError(f"{self._name}/zarr.json", f"is damaged ({error!r}): run `bgaug verify`") from error
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._chunks: NDArray[np.uint64] | None = None
        self._contiguous = False
        self._kept: NDArray[Any] | None = None
        self._place = place
        self._key = "/".join([key, "c", *("0" * len(self.shape))])
        if self.shape[0]:
            file = place.open(self._key)
            if self._sharded:
                self._read_index(file)
            elif self._compressed:
                self._chunks = np.array([[0, file.size]], np.uint64)
            elif file.size != self.shape[0] * self._row_bytes:
                raise StoreDamageError(file.name, f"has {file.size} bytes, not those of {self.shape = }")
        if whole:
            self._kept = self.read(0, self.shape[0])
        self.nbytes = _OBJECT_BYTES + sum(part.nbytes for part in (self._kept, self._chunks) if part is not None)

    def _read_index(self, file: Blob) -> None:
        count = -(-self.shape[0] // self._rows_per_chunk)
        data = file.read(max(0, file.size - 16 * count - 4), 16 * count + 4)
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise StoreDamageError(file.name, "the index of its chunks is damaged: run `bgaug verify`")
        self._chunks = np.frombuffer(data[:-4], "<u8").reshape(count, 2)
        if (self._chunks == _ABSENT).any():
            raise StoreDamageError(file.name, "a chunk is absent: run `bgaug verify`")
        if (self._chunks[1:, 0] != self._chunks[:-1].sum(axis=1)).any():
            raise StoreFormatError(file.name, "its inner chunks do not lie end to end in order")
        offsets = np.arange(count, dtype=np.uint64) * np.uint64(self._rows_per_chunk * self._row_bytes)
        self._contiguous = not self._compressed and bool((self._chunks[:, 0] == offsets).all())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop`, shape (stop - start, ...)."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Rows from `start` on into a C-contiguous array, as many as it holds."""
        stop = start + len(out)
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start}:{stop} of an array of {self.shape[0]} ({self._name})")
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
        # Inner chunks lie end to end, so that neighbours are one range of the file, and one run for the decoder.
        begins = int(self._chunks[first, 0])
        data = file.read(begins, int(self._chunks[last - 1].sum()) - begins)
        out[...] = self._decoded(file.name, data, first, last)[start - first * rows : stop - first * rows]

    def gather(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Any rows, in any order, into a C-contiguous array; one read where they are neighbours, or far away."""
        # Lists, since reductions of a few numbers cost numpy ten times as much.
        wanted = rows.tolist()
        first, last = min(wanted), max(wanted)
        if wanted == list(range(first, first + len(wanted))):
            self.read_into(first, out)
        elif self._place.near and self._kept is None and (self._chunks is None or self._contiguous):
            if not 0 <= first <= last < self.shape[0]:
                raise IndexError(f"rows {first} to {last} of an array of {self.shape[0]} ({self._name})")
            self._place.open(self._key).read_pieces([row * self._row_bytes for row in wanted], out)
        else:
            out[...] = self.read(first, last + 1)[rows - first]

    def _decoded(self, name: str, data: bytes, first: int, last: int) -> NDArray[Any]:
        """The rows of these inner chunks of the file of that name."""
        if self._compressed:
            try:
                data = Zstd().decode(data)
            except RuntimeError as error:
                what = f"chunk {first}" if last - first == 1 else f"one of the chunks {first} to {last - 1}"
                raise StoreDamageError(name, f"{what} is damaged ({error}): run `bgaug verify`") from error
        shape = ((last - first) * self._rows_per_chunk, *self.shape[1:])
        if len(data) != math.prod(shape) * self.dtype.itemsize:
            raise StoreDamageError(name, f"chunks {first} to {last - 1} do not hold what they should")
        return np.frombuffer(data, self.dtype).reshape(shape)


def _array_metadata(place: Place, key: str) -> dict[str, Any]:
    name = f"{place.name}/{key}/zarr.json"
    try:
        meta = json.loads(place.read(f"{key}/zarr.json"))
    except FileNotFoundError as error:
        raise StoreDamageError(name, "is missing: run `bgaug verify`") from error
    except ValueError as error:
        raise StoreDamageError(name, "is not whole JSON: run `bgaug verify`") from error
    if not isinstance(meta, dict) or meta.get("node_type") != "array":
        raise StoreFormatError(name, "does not describe a Zarr array")
    return meta


def _codecs(name: str, meta: dict[str, Any]) -> tuple[bool, int, bool]:
    """(is it a Zarr shard, rows of a chunk, are chunks compressed)."""
    codecs = meta["codecs"]
    sharded = codecs[0]["name"] == "sharding_indexed"
    rows = meta["chunk_grid"]["configuration"]["chunk_shape"][0]
    if sharded:
        rows = codecs[0]["configuration"]["chunk_shape"][0]
        codecs = codecs[0]["configuration"]["codecs"]
    names = [codec["name"] for codec in codecs]
    if names not in (["bytes"], ["bytes", "zstd"]):
        raise StoreFormatError(name, f"has codecs {names}, which this bgaug does not read")
    return sharded, int(rows), names[-1] == "zstd"
