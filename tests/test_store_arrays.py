"""Arrays as they are written, read by zarr-python; checksums joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec

from bgaug.store.array_file import ArrayFile
from bgaug.store.arrays import ArraySpec, ArrayWriter, begin_group, sync_tree
from bgaug.store.format.layout import crc32c, joined
from bgaug.store.places import Folder

SPECS = {
    "raw pictures": ArraySpec("|u1", (5, 7, 3), 16),
    "packed masks": ArraySpec("|u1", (9,), 16, compress=True),
    "bytes": ArraySpec("|u1", (), 64),
    "times": ArraySpec("<f8", compress=True),
    "plain": ArraySpec("<i4"),
    "backgrounds": ArraySpec("|u1", (4, 4), 1, compress=True),
}


def write(folder: Path, spec: ArraySpec, values: np.ndarray, step: int = 7) -> ArrayWriter:
    begin_group(folder)
    writer = ArrayWriter(folder, "x", spec)
    for first in range(0, len(values), step):
        writer.append(values[first : first + step])
    writer.finish()
    return writer


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40, 64, 100])
def test_zarr_reads_what_was_written(tmp_path: Path, name: str, count: int) -> None:
    spec = SPECS[name]
    values = np.random.default_rng(count).integers(0, 4, (count, *spec.row)).astype(spec.dtype)
    writer = write(tmp_path / "g", spec, values)
    array = zarr.open_group(tmp_path / "g", mode="r")["x"]
    assert isinstance(array, zarr.Array) and array.dtype == np.dtype(spec.dtype)
    assert np.array_equal(np.asarray(array[...]), values)
    ours = ArrayFile(Folder(tmp_path), "g/x")
    assert np.array_equal(ours.read(0, count), values)
    if count > 20:
        assert np.array_equal(ours.read(3, 19), values[3:19])
        rows = np.array([9, 2, 19, 2])
        out = np.empty((4, *spec.row), spec.dtype)
        ours.gather(rows, out)
        assert np.array_equal(out, values[rows])
    for key, (size, checksum) in writer.files.items():
        data = (tmp_path / "g" / key).read_bytes()
        assert len(data) == size and crc32c(data) == checksum
    assert bool(writer.files) is bool(count)


@pytest.mark.parametrize("name", SPECS)
def test_metadata_are_those_that_zarr_writes(tmp_path: Path, name: str) -> None:
    spec, count = SPECS[name], 40
    size = spec.rows_per_chunk or count
    options: dict[str, Any] = {"compressors": (ZstdCodec(level=1, checksum=True),) if spec.compress else None}
    if spec.rows_per_chunk:
        options["shards"] = (-(-count // size) * size, *spec.row)
    zarr.create_array(
        tmp_path / "z",
        shape=(count, *spec.row),
        dtype=spec.dtype,
        chunks=(size, *spec.row),
        filters=None,
        fill_value=0,
        **options,
    )
    assert json.loads(spec.metadata(count)) == json.loads((tmp_path / "z" / "zarr.json").read_bytes())


def test_every_file_is_seen_and_named(tmp_path: Path) -> None:
    writer = write(tmp_path / "g", SPECS["times"], np.arange(5.0))
    files = sync_tree(tmp_path / "g", writer.files)
    assert set(files) == {"zarr.json", "x/zarr.json", "x/c/0"}
    for key, (size, checksum) in files.items():
        data = (tmp_path / "g" / key).read_bytes()
        assert (len(data), crc32c(data)) == (size, checksum)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_joined_checksums_are_those_of_joined_bytes(before: bytes, behind: bytes) -> None:
    expected = google_crc32c.value(before + behind)
    assert joined(google_crc32c.value(before), google_crc32c.value(behind), len(behind)) == expected
