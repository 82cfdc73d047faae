"""Checks of all JSON documents of a store before they are used.

A store may come from anyone. The size of a document is bounded before it is read, its nesting and number of values
before they are used; a model defines the possible values of each field, and how fields go together. Fields of a later
minor version are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.format.records import MAX_PIXELS, Failure, Int63, ShotTotals, Text, VideoRow

MAX_RECORD_BYTES = 64 * 2**20  # the header, and the record of a shard or bank
MAX_NODE_BYTES = 64 * 2**10  # zarr.json of an array or shard; bgaug writes less than 1 KiB
MAX_LIST_BYTES = 2**30  # plan.json, failures.jsonl and the record of the index, which grow with the number of videos

_MAX_NESTING = 128
_FREE_BYTES = 2**20
_VALUE_BYTES = 64
_SHOWN = 60
_MAX_FILES = 64

# Files of a group: metadata and values of arrays; no path can lead outside.
_FILE_NAME = re.compile(r"([A-Za-z0-9_]+/)?zarr\.json|[A-Za-z0-9_]+/c(/0){1,4}")
_SHARD_NAME = re.compile(r"[0-9]{5,10}")

_Document = TypeVar("_Document", bound=BaseModel)
_Value = TypeVar("_Value")


def parse_json(path: object, text: bytes) -> Any:
    """JSON of a file of a store.

    Raises:
        StoreDamageError: it is not complete JSON, or nested too deeply.
        StoreFormatError: it has more values than possible for its size.
    """
    if len(text) > _FREE_BYTES:
        values = sum(text.count(sign) for sign in (b"[", b"{", b",", b":"))
        if values * _VALUE_BYTES > 8 * len(text) + 2**27:
            raise StoreFormatError(str(path), f"has {values} values in {len(text)} bytes, more than a store writes")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreDamageError(str(path), "is not complete JSON: run `bgaug verify`") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def check_document(path: object, kind: type[_Document], value: Any) -> _Document:
    """A document, checked against its model.

    Raises:
        StoreFormatError: it does not match; the message names the field, what was expected, and what came.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _format_error(path, error) from error


def check_value(path: object, kind: TypeAdapter[_Value], value: Any) -> _Value:
    """The same for a document that is not an object."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise _format_error(path, error) from error


def _format_error(path: object, error: ValidationError) -> StoreFormatError:
    first = error.errors(include_url=False)[0]
    # A union of types appears between the fields with its own name, such as tuple[str, int].
    field = ".".join(str(part)[:_SHOWN] for part in first["loc"] if "[" not in str(part))
    message = first["msg"].removeprefix("Value error, ")
    came = "" if first["type"] in ("missing", "value_error") else f", got {brief(first['input'])}"
    return StoreFormatError(str(path), f"{field}: {message}{came}" if field else message + came)


def brief(value: Any) -> str:
    """A value for a message, cut short."""
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a huge number"
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str | bytes | list) else type(value).__name__
    text = str(value) if isinstance(value, int | float | None) else text
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


# --- parts of several documents ---------------------------------------------------------------------------------------


def _unique(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("contains a name twice")
    return values


def _nested(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(_MAX_NESTING):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"is nested more than {_MAX_NESTING} levels deep")
    return value


def _shards(value: dict[str, Any]) -> dict[str, int]:
    for name, checksum in value.items():
        if not _SHARD_NAME.fullmatch(name):
            raise ValueError(f"names {brief(name)}, expected the number of a shard")
        if type(checksum) is not int or not 0 <= checksum < 2**32:
            raise ValueError(f"{name} has the checksum {brief(checksum)}, expected a number of 32 bits")
    return value


def _few(value: Any) -> Any:
    # Before the entries are checked: pydantic collects an error for each wrong one.
    if isinstance(value, dict) and len(value) > _MAX_FILES:
        raise ValueError(f"names {len(value)} files, expected at most {_MAX_FILES}")
    return value


def _files(value: dict[str, list[int]]) -> dict[str, list[int]]:
    for name, (_, checksum) in value.items():
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"names a file {brief(name)}, which is not in its folder")
        if checksum > 2**32 - 1:
            raise ValueError(f"{name} has a checksum of more than 32 bits")
    return value


_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Entry = Annotated[list[Int63], Field(min_length=2, max_length=2)]
Files = Annotated[dict[str, Entry], BeforeValidator(_few), AfterValidator(_files)]
Names = Annotated[list[str], FailFast()]
_Unique = Annotated[Names, AfterValidator(_unique)]
Rows = Annotated[int, Field(ge=0, le=2**53)]
_Size1 = Annotated[int, Field(ge=1, le=2**53)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


# --- header -----------------------------------------------------------------------------------------------------------


class _PlanSummary(_Model):
    videos: Annotated[int, Field(ge=0, le=2**31 - 1)]
    shards: Annotated[int, Field(ge=0, le=2**31 - 1)]
    sha256: _Sha256


class HeaderDocument(_Model):
    """attributes.bgaug of the root's zarr.json; the words of `fit` and `frames` are checked by `Header`."""

    size: Annotated[list[Annotated[int, Field(ge=1, le=2**16 - 1)]], Field(min_length=2, max_length=2)]
    fit: str
    frames: str
    classes: _Unique
    options: Annotated[dict[str, Any], AfterValidator(_nested)]
    plan: _PlanSummary
    created_with: str

    @field_validator("size")
    @classmethod
    def _check_pixels(cls, size: list[int]) -> list[int]:
        if math.prod(size) > MAX_PIXELS:
            raise ValueError(f"{size[0]}x{size[1]} are more than {MAX_PIXELS} pixels")
        return size


# --- records ----------------------------------------------------------------------------------------------------------


class CommitDocument(_Model):
    """COMMIT.json of a shard."""

    shard: Annotated[int, Field(ge=0, le=2**31 - 1)]
    F: Rows
    K: Rows
    files: Files
    videos: Annotated[list[VideoRow], FailFast()]
    failures: Annotated[list[Failure], FailFast()]

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        start, totals, ids = 0, ShotTotals(), set()
        for row in self.videos:
            if row.start != start:
                raise ValueError(f"{brief(row.id)} starts at frame {row.start} of the shard, expected {start}")
            start += row.num_frames
            totals = _check_shots(row, totals)
            ids.add(row.id)
        ids |= {failure.id for failure in self.failures}
        if self.F != start:
            raise ValueError(f"declares {self.F} frames, its videos have {start}")
        if self.K != totals.backgrounds:
            raise ValueError(f"declares {self.K} backgrounds, its videos have {totals.backgrounds}")
        if len(ids) != len(self.videos) + len(self.failures):
            raise ValueError("has two entries for one video")
        return self


def _check_shots(row: VideoRow, totals: ShotTotals) -> ShotTotals:
    """Check that shots cover the frames of their row in order; returns what the shots so far have in the arrays."""
    stop = row.first
    total = row.total_frames if row.total_frames is not None else row.first + row.num_frames
    for shot in row.shots:
        if shot.start != stop or shot.stop <= shot.start:
            raise ValueError(f"{brief(row.id)} has a shot {shot.start} to {shot.stop}, expected one from {stop} on")
        stop = shot.stop
        if shot.background_frames and shot.background_frames[-1] >= total:
            raise ValueError(f"{brief(row.id)} has a background of frame {shot.background_frames[-1]} of {total}")
        totals = totals.with_shot(shot, brief(row.id))
    if stop != row.first + row.num_frames:
        raise ValueError(f"{brief(row.id)} has {row.num_frames} frames, its shots {stop - row.first}")
    if row.total_frames is not None and row.total_frames < stop:
        raise ValueError(f"{brief(row.id)} has {row.total_frames} frames in all, and a part that ends at {stop}")
    return totals


class IndexDocument(_Model):
    """COMMIT.json of the index; `header` is checked like that of the store."""

    header: dict[str, Any]
    failures: Entry
    shards: Annotated[dict[str, Any], AfterValidator(_shards)]
    groups: _Unique
    splits: _Unique
    files: Files


class BankDocument(_Model):
    """COMMIT.json of a bank."""

    names: Annotated[Names, Field(min_length=1)]
    files: Files


# --- nodes of Zarr ----------------------------------------------------------------------------------------------------


class _Codec(_Model):
    name: str
    configuration: dict[str, Any] = {}


class _ChunkShape(_Model):
    chunk_shape: Annotated[list[_Size1], Field(min_length=1, max_length=4)]


class _Grid(_Model):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Sharding(_ChunkShape):
    codecs: list[_Codec]
    index_codecs: list[_Codec]
    index_location: Literal["end"] = "end"


class _ShardingCodec(_Model):
    name: Literal["sharding_indexed"]
    configuration: _Sharding


class _Separator(_Model):
    separator: Literal["/"] = "/"


class _Keys(_Model):
    name: Literal["default"]
    configuration: _Separator = _Separator()


class ArrayDocument(_Model):
    """zarr.json of an array, in one of the two layouts that a store uses.

    Attributes:
        rows_per_chunk: rows of an inner chunk of its one Zarr shard; None for one plain chunk.
        compressed: whether chunks are compressed.
    """

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: Annotated[list[Rows], Field(min_length=1, max_length=4)]
    data_type: Literal["uint8", "uint32", "int32", "int64", "float32", "float64"]
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    fill_value: Annotated[int | float, Field(ge=0, le=0)]
    codecs: Annotated[list[_ShardingCodec | _Codec], Field(min_length=1, max_length=2)]
    attributes: dict[str, Any] = {}
    dimension_names: list[str | None] | None = None
    storage_transformers: Annotated[list[Any], Field(max_length=0)] = []

    @property
    def rows_per_chunk(self) -> int | None:
        """See the class."""
        first = self.codecs[0]
        return first.configuration.chunk_shape[0] if isinstance(first, _ShardingCodec) else None

    @property
    def compressed(self) -> bool:
        """See the class."""
        return self._chunk_codecs()[-1].name == "zstd"

    def _chunk_codecs(self) -> Sequence[_Codec | _ShardingCodec]:
        first = self.codecs[0]
        return first.configuration.codecs if isinstance(first, _ShardingCodec) else self.codecs

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        rows, rest = self.shape[0], self.shape[1:]
        if any(size < 1 for size in rest) or math.prod(self.shape) > 2**56:
            raise ValueError(f"shape: {self.shape} is not the shape of an array of a store")
        chunk = self.chunk_grid.configuration.chunk_shape
        inner = self.rows_per_chunk or max(1, rows)
        if chunk != [max(1, -(-rows // inner)) * inner, *rest]:
            raise ValueError(f"chunk_grid: chunks of {chunk} are not one chunk for {self.shape}")
        self._check_codecs()
        return self

    def _check_codecs(self) -> None:
        codecs = self._chunk_codecs()
        names = [codec.name for codec in codecs]
        if names not in (["bytes"], ["bytes", "zstd"]):
            raise ValueError(f"codecs: {brief(names)}, which this bgaug does not read")
        assert isinstance(codecs[0], _Codec)
        if codecs[0].configuration.get("endian", "little") != "little":
            raise ValueError("codecs: numbers are not little-endian")
        first = self.codecs[0]
        if isinstance(first, _ShardingCodec):
            inner = first.configuration
            if len(self.codecs) != 1 or inner.chunk_shape[1:] != self.shape[1:]:
                raise ValueError(f"codecs: inner chunks of {inner.chunk_shape} do not fit {self.shape}")
            if [codec.name for codec in inner.index_codecs] != ["bytes", "crc32c"]:
                raise ValueError("codecs: the index of inner chunks is not bytes with crc32c")


class _Arrays(_Model):
    arrays: _Unique


class _ShardAttributes(_Model):
    bgaug: _Arrays


class ShardNode(_Model):
    """zarr.json of a shard's group."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: _ShardAttributes


# --- plan -------------------------------------------------------------------------------------------------------------

_Count = Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)]
_Id = Annotated[Text, Strict()]
_Planned = tuple[_Id, _Count, _Count] | tuple[_Id, _Count, _Count, _Count, Annotated[_Count, Field(ge=2)]]
PlanDocument: TypeAdapter[list[list[_Planned]]] = TypeAdapter(
    Annotated[list[Annotated[list[_Planned], Field(min_length=1), FailFast()]], FailFast()]
)
