"""Writing the arrays of a shard: rows go to the disk as they come, so that a shard never lies in memory whole.

The files are those of a Zarr v3 array. Zarr-python itself holds a Zarr shard in memory, copies it three times, and
cannot be told to sync it; it writes the metadata alone here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from bgaug.store.layout import crc32c, sync_folder

_BUFFER = 1 << 20
_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class ArraySpec:
    """How one array lies on the disk.

    Attributes:
        dtype: of its values.
        row: shape of one row.
        rows_per_chunk: rows of an inner chunk of its one Zarr shard; None for one plain chunk.
        compress: whether chunks are compressed, with a checksum.
    """

    dtype: str
    row: tuple[int, ...] = ()
    rows_per_chunk: int | None = None
    compress: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return math.prod(self.row) * np.dtype(self.dtype).itemsize


class ArrayWriter:
    """One array, appended to row by row; `finish` makes it whole.

    Args:
        group: folder of the Zarr group that it belongs to.
        name: of the array.
        spec: how it is laid out.
    """

    def __init__(self, group: Path, name: str, spec: ArraySpec) -> None:
        self.num_rows = 0
        self._group = group
        self._name = name
        self._spec = spec
        self._path = group / name / "/".join(["c", *("0" * (1 + len(spec.row)))])
        self._file: BinaryIO | None = None
        self._crc = 0
        self._bytes = 0
        self._lengths: list[int] = []
        self._waiting: list[NDArray[Any]] = []
        self._num_waiting = 0
        self._zstd = Zstd(level=_ZSTD_LEVEL, checksum=True)

    def append(self, rows: NDArray[Any]) -> None:
        """Further rows, (n, *row), of the array's dtype."""
        self.num_rows += len(rows)
        if not self._spec.compress:
            self._put(np.ascontiguousarray(rows))
            return
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        size = self._spec.rows_per_chunk
        if size is not None and self._num_waiting >= size:
            ready = np.concatenate(self._waiting)
            whole = len(ready) // size * size
            for first in range(0, whole, size):
                self._put_chunk(ready[first : first + size])
            self._waiting, self._num_waiting = [ready[whole:]], len(ready) - whole

    def finish(self) -> None:
        """Write what is left, the index of the chunks and the metadata, and see it on the disk."""
        size = self._spec.rows_per_chunk or max(1, self.num_rows)
        if self._num_waiting:
            rest = np.zeros((size, *self._spec.row), self._spec.dtype)
            rest[: self._num_waiting] = np.concatenate(self._waiting)
            self._put_chunk(rest)
        elif not self._spec.compress and self._spec.rows_per_chunk:
            self._put(np.zeros(-self.num_rows % size * self._spec.row_bytes, np.uint8))
            self._lengths = [size * self._spec.row_bytes] * -(-self.num_rows // size)
        if self._spec.rows_per_chunk and self.num_rows:
            self._put(_chunk_index(self._lengths))
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self.close()
        self._write_metadata(size)

    def close(self) -> None:
        """Give the file back; after `finish` there is nothing left to do."""
        if self._file is not None:
            self._file.close()

    @property
    def file(self) -> tuple[Path, int, int] | None:
        """The array's one file of data with its bytes and crc32c; None where it has no rows."""
        return (self._path, self._bytes, self._crc) if self.num_rows else None

    def _put_chunk(self, rows: NDArray[Any]) -> None:
        data = np.frombuffer(self._zstd.encode(np.ascontiguousarray(rows)), np.uint8)
        self._lengths.append(len(data))
        self._put(data)

    def _put(self, data: NDArray[Any]) -> None:
        if not data.nbytes:
            return
        if self._file is None:  # an empty array has no chunks, so no file
            self._path.parent.mkdir(parents=True)
            self._file = open(self._path, "wb", buffering=_BUFFER)  # noqa: SIM115
        self._crc = google_crc32c.extend(self._crc, data)
        self._bytes += data.nbytes
        self._file.write(data.data)

    def _write_metadata(self, size: int) -> None:
        spec = self._spec
        shards = None if spec.rows_per_chunk is None else (max(1, -(-self.num_rows // size)) * size, *spec.row)
        zarr.create_array(
            self._group,
            name=self._name,
            shape=(self.num_rows, *spec.row),
            dtype=spec.dtype,
            chunks=(size, *spec.row),
            shards=shards,
            compressors=(ZstdCodec(level=_ZSTD_LEVEL, checksum=True),) if spec.compress else None,
            filters=None,
            fill_value=0,
            # An absent chunk must always mean damage, never "all zeros".
            config={"write_empty_chunks": True},
        )


def _chunk_index(lengths: list[int]) -> NDArray[np.uint8]:
    """What ends a Zarr shard: offset and length of each inner chunk, uint64, then the crc32c of that."""
    ends = np.cumsum(lengths)
    table = np.stack([ends - lengths, ends - ends + lengths], axis=1).astype("<u8").tobytes()
    data = table + crc32c(table).to_bytes(4, "little")
    return np.frombuffer(data, np.uint8)


def sync_metadata(folder: Path) -> dict[str, list[int]]:
    """The metadata files below a folder, and all names, seen on the disk: name to [bytes, crc32c]."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if name == "zarr.json":
                path = Path(parent) / name
                with open(path, "rb") as file:
                    data = file.read()
                    os.fsync(file.fileno())
                files[path.relative_to(folder).as_posix()] = [len(data), crc32c(data)]
        sync_folder(Path(parent))
    return files
