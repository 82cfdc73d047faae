"""The arrays of one shard, read straight from their files: one ranged read for what a clip needs.

Zarr-python spends more than ten times as long on such a read, in Python; the files are the same. Every array is either
one plain uncompressed chunk, or one Zarr shard: its inner chunks, and behind them an index of (offset, length) pairs
with a crc32c.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.layout import crc32c

_ABSENT = 2**64 - 1


class File:
    """An open file that gives its descriptor back when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise StoreDamageError(path, "is missing: run `bgaug verify`") from error
        self.size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on.

        Raises:
            StoreDamageError: the file is shorter.
        """
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise StoreDamageError(self.path, f"ends before byte {offset + length}: run `bgaug verify`")
        return data

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """Fill a C-contiguous array from `offset` on."""
        if os.preadv(self._descriptor, [out.data], offset) != out.nbytes:
            raise StoreDamageError(self.path, f"ends before byte {offset + out.nbytes}: run `bgaug verify`")


class ArrayFile:
    """Rows of one array of a shard.

    Attributes:
        shape: of the whole array.
        dtype: of its values.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        meta = _array_metadata(folder)
        self.shape: tuple[int, ...] = tuple(meta["shape"])
        self.dtype = np.dtype(meta["data_type"]).newbyteorder("<")
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._sharded, self._rows_per_chunk, self._compressed = _codecs(folder, meta)
        self._chunks: NDArray[np.uint64] | None = None
        self._contiguous = False
        self._file = File(folder / "/".join(["c", *("0" * len(self.shape))])) if self.shape[0] else None
        if self._file is not None and self._sharded:
            self._read_index(self._file)
        elif self._file is not None and self._file.size != self.shape[0] * self._row_bytes:
            raise StoreDamageError(self._file.path, f"has {self._file.size} bytes, not those of {self.shape = }")

    def _read_index(self, file: File) -> None:
        count = -(-self.shape[0] // self._rows_per_chunk)
        data = file.read(max(0, file.size - 16 * count - 4), 16 * count + 4)
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise StoreDamageError(file.path, "the index of its chunks is damaged: run `bgaug verify`")
        self._chunks = np.frombuffer(data[:-4], "<u8").reshape(count, 2)
        if (self._chunks == _ABSENT).any():
            raise StoreDamageError(file.path, "a chunk is absent: run `bgaug verify`")
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
            raise IndexError(f"rows {start}:{stop} of an array of {self.shape[0]} ({self._folder})")
        if self._file is None or not len(out):
            return
        if self._chunks is None or self._contiguous:
            self._file.read_into(start * self._row_bytes, out)
            return
        rows = self._rows_per_chunk
        for chunk in range(start // rows, -(-stop // rows)):
            left, right = max(start, chunk * rows), min(stop, (chunk + 1) * rows)
            out[left - start : right - start] = self._chunk(chunk)[left - chunk * rows : right - chunk * rows]

    def gather(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Any rows, in any order, into a C-contiguous array; one read where they are neighbours."""
        first, last = int(rows.min()), int(rows.max())
        if last - first == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
            self.read_into(first, out)
        elif self._chunks is None or self._contiguous:
            for slot, row in enumerate(rows.tolist()):
                self.read_into(row, out[slot : slot + 1])
        else:
            out[...] = self.read(first, last + 1)[rows - first]

    def _chunk(self, chunk: int) -> NDArray[Any]:
        assert self._chunks is not None and self._file is not None
        offset, length = self._chunks[chunk].tolist()
        data: Any = self._file.read(offset, length)
        if self._compressed:
            try:
                data = Zstd().decode(data)
            except RuntimeError as error:
                raise StoreDamageError(
                    self._file.path, f"chunk {chunk} is damaged ({error}): run `bgaug verify`"
                ) from error
        return np.frombuffer(data, self.dtype).reshape(self._rows_per_chunk, *self.shape[1:])


def _array_metadata(folder: Path) -> dict[str, Any]:
    file = folder / "zarr.json"
    try:
        meta = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise StoreDamageError(folder, "is missing: run `bgaug verify`") from error
    except ValueError as error:
        raise StoreDamageError(file, "is not whole JSON: run `bgaug verify`") from error
    if not isinstance(meta, dict) or meta.get("node_type") != "array":
        raise StoreFormatError(file, "does not describe a Zarr array")
    return meta


def _codecs(folder: Path, meta: dict[str, Any]) -> tuple[bool, int, bool]:
    """(is it a Zarr shard, rows of a chunk, are chunks compressed)."""
    codecs = meta["codecs"]
    sharded = codecs[0]["name"] == "sharding_indexed"
    rows = meta["chunk_grid"]["configuration"]["chunk_shape"][0]
    if sharded:
        rows = codecs[0]["configuration"]["chunk_shape"][0]
        codecs = codecs[0]["configuration"]["codecs"]
    names = [codec["name"] for codec in codecs]
    if names not in (["bytes"], ["bytes", "zstd"]):
        raise StoreFormatError(folder, f"has codecs {names}, which this bgaug does not read")
    return sharded, int(rows), names[-1] == "zstd"
