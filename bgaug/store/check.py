"""What is in one shard or bank, held against its record and against the header."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError
from bgaug.store.arrays import ArraySpec
from bgaug.store.banks import bank_names, bank_spec, read_bank_commit
from bgaug.store.files import ArrayFile, check_numbers, read_array_document
from bgaug.store.format.documents import MAX_NODE_BYTES, ShardNode, check_document, parse_json
from bgaug.store.format.inside import files_inside, is_regular, kind_of, open_inside, read_inside
from bgaug.store.format.jpeg import decode_jpeg
from bgaug.store.format.layout import BANKS, COMMIT, SHARDS, Header, crc32c, extend_crc32c, shard_name
from bgaug.store.format.payload import content_digest
from bgaug.store.format.records import VideoRow
from bgaug.store.index import parse_rows
from bgaug.store.places import Folder
from bgaug.store.write import array_specs

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a store.

    Attributes:
        path: where.
        message: what.
        videos: ids of those that it costs.
        foreign: whether it is something that does not belong there, and costs nothing.
    """

    path: Path
    message: str
    videos: tuple[str, ...] = ()
    foreign: bool = False


def check_shard(root: Path, shard: int, commit: dict[str, Any], header: Header, *, deep: bool) -> list[Problem]:
    """Whether a shard has the files of its record, laid out as the header asks for; deep: also what they hold."""
    key = f"{SHARDS}/{shard_name(shard)}"
    ids = tuple(row["id"] for row in commit["videos"])
    problems = check_files(root, key, commit["files"], ids)
    if all(problem.foreign for problem in problems):
        problems += [Problem(root / key / where, said, ids) for where, said in _check_arrays(root, key, commit, header)]
    if deep and all(problem.foreign for problem in problems):
        try:
            _decode_everything(root, key, commit, header)
        except StoreError as error:
            problems.append(Problem(root / key, f"cannot be decoded: {error}", ids))
    return problems


def check_files(root: Path, key: str, files: Mapping[str, list[int]], ids: tuple[str, ...]) -> list[Problem]:
    """Whether a folder of the store has these files, by [bytes, crc32c], and no others."""
    problems = []
    try:
        found = files_inside(root, key)
    except (FileNotFoundError, NotADirectoryError) as error:
        return [Problem(root / key, f"cannot be read ({error.strerror})", ids)]
    except StoreError as error:
        return [Problem(error.path, error.message, ids)]
    for name, (size, checksum) in files.items():
        if name not in found:
            problems.append(Problem(root / key / name, "is missing", ids))
        elif not is_regular(found[name]):
            problems.append(Problem(root / key / name, f"is {kind_of(found[name])}", ids))
        elif found[name].st_size != size:
            said = f"has {found[name].st_size} bytes instead of {size}"
            problems.append(Problem(root / key / name, said, ids))
        elif _checksum(root, f"{key}/{name}") != checksum:
            said = "its bytes are not those that were committed (checksum differs)"
            problems.append(Problem(root / key / name, said, ids))
    for name in sorted(found.keys() - files.keys() - {COMMIT}):
        problems.append(Problem(root / key / name, "does not belong to the store", foreign=True))
    return problems


def _checksum(root: Path, key: str) -> int | None:
    """crc32c of a file; None where it cannot be read."""
    checksum = 0
    try:
        with os.fdopen(open_inside(root, key), "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                checksum = extend_crc32c(checksum, block)
    except (OSError, StoreError):
        return None
    return checksum


def _check_arrays(root: Path, key: str, commit: dict[str, Any], header: Header) -> Iterator[tuple[str, str]]:
    """(where, what) is wrong with the arrays that a shard declares."""
    specs, files = array_specs(header), commit["files"]
    found = {name.split("/")[0] for name in files if "/" in name}
    due = specs.keys() - {"masks"}
    if not due <= found <= specs.keys():
        which = ", ".join(sorted(due - found)) or ", ".join(sorted(found - specs.keys()))
        yield ".", f"is of another kind than the store: look at {which}"
    try:
        text = read_inside(root, f"{key}/zarr.json", MAX_NODE_BYTES)
        declared = check_document(f"{key}/zarr.json", ShardNode, parse_json(f"{key}/zarr.json", text))
        if set(declared.attributes.bgaug.arrays) != found:
            yield "zarr.json", "declares other arrays than there are"
    except (FileNotFoundError, StoreError) as error:
        yield "zarr.json", f"cannot be used: {error}"
    rows = dict.fromkeys(("backgrounds", "valid", "noise", "background_crc"), commit["K"])
    rows["frame_offsets"] = commit["F"] + 1
    for name in sorted(found & specs.keys()):
        count = None if name == "frames" and header.frames == "jpeg" else rows.get(name, commit["F"])
        said = _check_array(root, f"{key}/{name}", specs[name], count, files)
        if said:
            yield name, said


def _check_array(root: Path, key: str, spec: ArraySpec, num_rows: int | None, files: Mapping[str, Any]) -> str | None:
    """What is wrong with the layout of an array; None for nothing."""
    try:
        count = read_array_document(Folder(root), key, spec).shape[0]
        node = json.loads(read_inside(root, f"{key}/zarr.json", MAX_NODE_BYTES))
    except (FileNotFoundError, StoreError) as error:
        return f"cannot be used: {error}"
    due = json.loads(spec.metadata(count))
    node.setdefault("dimension_names", due["dimension_names"])  # stores of bgaug 0.1 have none
    if node != due or count != (count if num_rows is None else num_rows):
        return "is laid out otherwise than the store says"
    name = key.rsplit("/", 1)[1]
    data = "/".join([name, "c", "0", *("0" for _ in spec.row)])
    if (data in files) != bool(count):
        return f"has {count} rows, and {'a' if data in files else 'no'} file of data"
    return None


# --- deep ---------------------------------------------------------------------------------------------------------------


def _decode_everything(root: Path, key: str, commit: dict[str, Any], header: Header) -> None:
    """Decode every array of a shard.

    Raises:
        StoreError: one cannot be decoded, or holds something else than the records say.
    """
    place, files = Folder(root), commit["files"]
    arrays = {
        name: ArrayFile(place, f"{key}/{name}", spec, whole=spec.rows_per_chunk is None)
        for name, spec in array_specs(header).items()
        if f"{name}/zarr.json" in files
    }
    for name, array in arrays.items():
        check_numbers(name, array, arrays.get("frames"))
        if name != "frames":
            for _ in _blocks(array, 0, array.shape[0]):
                pass
    _check_pictures(root / key, arrays, "backgrounds", "background_crc")
    if header.frames == "jpeg":
        _decode_jpegs(root / key, arrays, header)
    else:
        _check_pictures(root / key, arrays, "frames", "frame_crc")
    for row in parse_rows(commit):
        if _content(row, arrays) != row.content:
            raise StoreDamageError(root / key, f"{row.id} has other content than its record declares")


def _blocks(array: ArrayFile, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Rows of an array, few at a time."""
    for first in range(start, stop, array.rows_at_once):
        yield array.read(first, min(first + array.rows_at_once, stop))


def _check_pictures(folder: Path, arrays: Mapping[str, ArrayFile], pictures: str, checksums: str) -> None:
    """Hold raw pictures against their checksums, where the store keeps those."""
    if checksums not in arrays:
        return
    for number, checksum in enumerate(arrays[checksums].read_all().tolist()):
        if crc32c(arrays[pictures].read(number, number + 1)) != checksum:
            said = f"row {number} of {pictures} is not the one that was stored (checksum differs)"
            raise StoreDamageError(folder, said)


def _decode_jpegs(folder: Path, arrays: Mapping[str, ArrayFile], header: Header) -> None:
    image = np.empty((*header.size, 3), np.uint8)
    places = arrays["frame_offsets"].read_all().tolist()
    for row, checksum in enumerate(arrays["frame_crc"].read_all().tolist()):
        data = arrays["frames"].read(places[row], places[row + 1])
        if crc32c(data) != checksum:
            raise StoreDamageError(folder, f"frame {row} is not the one that was stored (checksum differs)")
        decode_jpeg(data, image, f"{folder}: frame {row}")


def _content(row: VideoRow, arrays: Mapping[str, ArrayFile]) -> str:
    """See `content_digest`; of what the arrays hold."""
    start, stop = row.start, row.start + row.num_frames
    numbers = sorted({shot.background for shot in row.shots} - {-1})

    def parts() -> Iterator[NDArray[Any]]:
        if "masks" in arrays:
            yield from _blocks(arrays["masks"], start, stop)
        for number in numbers:
            for name in ("backgrounds", "noise", "valid"):
                yield arrays[name].read(number, number + 1)

    checksums = arrays["frame_crc"].read(start, stop).tolist() if "frame_crc" in arrays else []
    return content_digest(arrays["pts_seconds"].read(start, stop).tolist(), checksums, parts())


# --- banks --------------------------------------------------------------------------------------------------------------


def check_banks(root: Path, header: Header, *, deep: bool) -> list[Problem]:
    """Whether banks have the files of their records, laid out as the header asks for."""
    problems = []
    for name in bank_names(root):
        folder, key = root / BANKS / name, f"{BANKS}/{name}"
        try:
            record = read_bank_commit(Folder(root), name)
        except StoreError as error:
            problems.append(Problem(folder / COMMIT, error.message))
            continue
        found = check_files(root, key, record["files"], ())
        spec = bank_spec(header.size)
        if not found:
            said = _check_array(root, f"{key}/pictures", spec, len(record["names"]), record["files"])
            found += [Problem(folder / "pictures", said)] if said else []
        if not found and deep:
            try:
                array = ArrayFile(Folder(root), f"{key}/pictures", spec)
                for _ in _blocks(array, 0, array.shape[0]):
                    pass
            except StoreError as error:
                found.append(Problem(folder, f"cannot be decoded: {error}"))
        problems += found
    return problems
