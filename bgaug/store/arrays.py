"""Writing the arrays of a shard: rows go to the disk as they come, so that a shard is never in memory as a whole.

The files are those of a Zarr v3 array. Zarr-python would hold a Zarr shard in memory, copy it three times, and offers
no fsync; a test reads these files with it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bgaug.files import sync_folder
from bgaug.store.format.layout import (
    CANVAS_CHUNK,
    FRAMES_PER_CHUNK,
    JPEG_CHUNK,
    Header,
    crc32c,
    extend_crc32c,
    group_bytes,
)

_ZSTD_LEVEL = 1
_PIECES = 512  # per call of the system, which allows 1,024


@dataclass(frozen=True)
class ArraySpec:
    """Layout of one array on the disk."""

    dtype: str  # type of its values
    row: tuple[int, ...] = ()  # shape of one row
    rows_per_chunk: int | None = None  # rows of an inner chunk of its one Zarr shard; None for one plain chunk
    compress: bool = False  # whether chunks are compressed, with a checksum
    # names of its dimensions, required by some readers; dimensions of equal size in a group share a name
    dimensions: tuple[str, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return math.prod(self.row) * np.dtype(self.dtype).itemsize

    def metadata(self, num_rows: int) -> bytes:
        """The array's zarr.json."""
        dtype = np.dtype(self.dtype)
        size = self.rows_per_chunk or max(1, num_rows)
        chunks = max(1, -(-num_rows // size))
        order = {"name": "bytes"} | ({"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {})
        codecs: list[dict[str, Any]] = [order]
        if self.compress:
            codecs.append({"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": True}})
        if self.rows_per_chunk:
            index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
            inner = {"chunk_shape": [size, *self.row], "codecs": codecs}
            shard = {**inner, "index_codecs": index, "index_location": "end"}
            codecs = [{"name": "sharding_indexed", "configuration": shard}]
        node = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [num_rows, *self.row],
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [size * chunks, *self.row]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if dtype.kind == "f" else 0,
            "codecs": codecs,
            "attributes": {},
            "storage_transformers": [],
        }
        if self.dimensions:
            node["dimension_names"] = list(self.dimensions)
        return json.dumps(node, sort_keys=True).encode()


def array_specs(header: Header) -> dict[str, ArraySpec]:
    """Layout of every array that a shard of the store may contain."""
    height, width = header.size
    packed = (height * width + 7) // 8
    specs = {
        "pts_seconds": ArraySpec("<f8", compress=True, dimensions=("frame",)),
        "masks": ArraySpec("|u1", (packed,), FRAMES_PER_CHUNK, compress=True, dimensions=("frame", "byte_of_mask")),
        # Decompressing one costs .2 ms: a third of reading a raw clip, a twelfth of reading a JPEG clip.
        "backgrounds": ArraySpec(
            "|u1", (height, width, 3), 1, header.frames == "none", ("background", "height", "width", "channel")
        ),
        "valid": ArraySpec("|u1", (packed,), 1, compress=True, dimensions=("background", "byte_of_mask")),
        "noise": ArraySpec("|u1", (height, width), 1, compress=True, dimensions=("background", "height", "width")),
        "canvas_image": ArraySpec("|u1", (3,), CANVAS_CHUNK, compress=True, dimensions=("canvas_pixel", "channel")),
        "canvas_noise": ArraySpec("|u1", (), CANVAS_CHUNK, compress=True, dimensions=("canvas_pixel",)),
        "canvas_valid": ArraySpec("|u1", (), CANVAS_CHUNK, compress=True, dimensions=("canvas_pixel",)),
        "canvas_places": ArraySpec("<f8", (8,), compress=True, dimensions=("canvas_place", "canvas_value")),
        "small_masks": ArraySpec("|u1", (), JPEG_CHUNK, compress=True, dimensions=("small_mask_byte",)),
    }
    if header.frames != "none":
        specs["frame_crc"] = ArraySpec("<u4", compress=True, dimensions=("frame",))
        specs["background_crc"] = ArraySpec("<u4", compress=True, dimensions=("background",))
    if header.frames == "jpeg":
        specs["frames"] = ArraySpec("|u1", (), JPEG_CHUNK, dimensions=("byte",))
        specs["frame_offsets"] = ArraySpec("<i8", compress=True, dimensions=("frame_edge",))
    elif header.frames == "raw":
        specs["frames"] = ArraySpec(
            "|u1", (height, width, 3), FRAMES_PER_CHUNK, dimensions=("frame", "height", "width", "channel")
        )
    return specs


# State of an array: rows, checksum, bytes, chunks, rows that wait for a full chunk, and their number.
Mark = tuple[int, int, int, int, tuple[NDArray[Any], ...], int]


class ArrayWriter:
    """One array, appended to row by row; `finish` completes it.

    Args:
        group: folder of its Zarr group.
        name: name of the array.
        spec: its layout.

    Attributes:
        num_rows: rows so far.
        crc: checksum of all bytes so far.
        files: after `finish`: path in the group to [bytes, crc32c] of the file of its values; empty if there is none.
    """

    def __init__(self, group: Path, name: str, spec: ArraySpec) -> None:
        self.num_rows = 0
        self.files: dict[str, list[int]] = {}
        self._group = group
        self._name = name
        self._spec = spec
        self._key = "/".join([name, "c", *("0" * (1 + len(spec.row)))])
        self._descriptor = -1
        self.crc = 0
        self._bytes = 0
        self._lengths: list[int] = []
        self._waiting: list[NDArray[Any]] = []
        self._num_waiting = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, (n, *row), of the array's dtype."""
        self.num_rows += len(rows)
        if not self._spec.compress:
            self._put([np.ascontiguousarray(rows)])
            return
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        size = self._spec.rows_per_chunk
        if size is not None and self._num_waiting >= size:
            ready = np.concatenate(self._waiting) if len(self._waiting) > 1 else rows
            whole = len(ready) // size * size
            for first in range(0, whole, size):
                self._put_chunk(ready[first : first + size])
            self._waiting, self._num_waiting = [ready[whole:]], len(ready) - whole

    def append_pieces(self, pieces: Sequence[NDArray[Any]], num_rows: int, crc: int | None = None) -> None:
        """Append rows of an uncompressed array from C-contiguous pieces; `crc` is that of the file after them."""
        self.num_rows += num_rows
        self._put(pieces, crc)

    def mark(self) -> Mark:
        """The current state, for `go_back`."""
        return self.num_rows, self.crc, self._bytes, len(self._lengths), tuple(self._waiting), self._num_waiting

    def go_back(self, mark: Mark) -> None:
        """Discard everything appended since then, also after an error in between."""
        self.num_rows, self.crc, self._bytes, num_chunks, waiting, self._num_waiting = mark
        self._waiting = list(waiting)
        del self._lengths[num_chunks:]
        if self._descriptor < 0:
            return
        if self._bytes:
            os.ftruncate(self._descriptor, self._bytes)
            os.lseek(self._descriptor, self._bytes, os.SEEK_SET)  # else the next write would leave a hole
        else:  # an empty array has no chunks, so no file
            self.close()
            (self._group / self._key).unlink()

    def finish(self) -> None:
        """Write the rest, the index of the chunks and the metadata. The caller syncs the files."""
        spec, size = self._spec, self._spec.rows_per_chunk or max(1, self.num_rows)
        if self._num_waiting:  # Zarr requires full inner chunks; the shape hides the padding
            rest = np.zeros((size, *spec.row), spec.dtype)
            rest[: self._num_waiting] = np.concatenate(self._waiting)
            self._put_chunk(rest)
        elif not spec.compress and spec.rows_per_chunk:
            self._put([np.zeros(-self.num_rows % size * spec.row_bytes, np.uint8)])
            self._lengths = [size * spec.row_bytes] * -(-self.num_rows // size)
        if spec.rows_per_chunk and self.num_rows:
            self._put([_chunk_index(self._lengths)])
        self.close()
        if self._bytes:
            self.files = {self._key: [self._bytes, self.crc]}
        (self._group / self._name).mkdir(exist_ok=True)
        (self._group / self._name / "zarr.json").write_bytes(spec.metadata(self.num_rows))

    def close(self) -> None:
        """Close the file; `finish` does the same."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put_chunk(self, rows: NDArray[Any]) -> None:
        data = np.frombuffer(Zstd(_ZSTD_LEVEL, checksum=True).encode(np.ascontiguousarray(rows)), np.uint8)
        self._lengths.append(len(data))
        self._put([data])

    def _put(self, pieces: Sequence[NDArray[Any]], crc: int | None = None) -> None:
        pieces = [piece for piece in pieces if piece.nbytes]
        if not pieces:
            return
        if self._descriptor < 0:  # an empty array has no chunks, so no file
            path = self._group / self._key
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for first in range(0, len(pieces), _PIECES):
            _write_all(self._descriptor, pieces[first : first + _PIECES])
        if crc is None:
            for piece in pieces:
                self.crc = extend_crc32c(self.crc, piece)
        else:
            self.crc = crc
        self._bytes += sum(piece.nbytes for piece in pieces)


def _write_all(descriptor: int, pieces: Sequence[NDArray[Any]]) -> None:
    views = [piece.reshape(-1).view(np.uint8).data for piece in pieces]
    while views:  # the system may write less than it was given, such as on a full disk
        written = os.writev(descriptor, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def _chunk_index(lengths: list[int]) -> NDArray[np.uint8]:
    """The end of a Zarr shard: offset and length of each inner chunk, uint64, then the crc32c of these."""
    ends = np.cumsum(lengths)
    table = np.stack([ends - lengths, ends - ends + lengths], axis=1).astype("<u8").tobytes()
    return np.frombuffer(table + crc32c(table).to_bytes(4, "little"), np.uint8)


def begin_group(folder: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Create the folder of a Zarr group, or change its attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes(group_bytes(attributes or {}))


def sync_tree(folder: Path, known: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Sync everything below a folder to the disk; returns name to [bytes, crc32c] of every file.

    `known` contains the same for files with known checksums; the others are read.
    """
    files = {}
    # All files before all folders: the first fsync makes the disk work, the others find it done.
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            key = path.relative_to(folder).as_posix()
            descriptor = os.open(path, os.O_RDONLY)  # fsync also covers what other descriptors wrote
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            files[key] = list(known[key]) if key in known else [len(data := path.read_bytes()), crc32c(data)]
    for parent, _, _ in os.walk(folder):
        sync_folder(Path(parent))  # without this, a file on the disk may have no name after a crash
    return dict(sorted(files.items()))
