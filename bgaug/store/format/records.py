"""Rows of a commit record: the description of each video. The models define and check the possible values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_IDENTITY_BYTES = 1 << 20

STATUSES = ("ok", "partial", "no_static_background")
CAMERAS = ("unknown", "static", "jitter", "moving")
GRADES = ("", "A", "B", "C", "D", "E", "F")


def _one_of(words: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return value

    return AfterValidator(check)


_Int32 = Annotated[int, Field(ge=0, le=2**31 - 1)]  # frames or pixels: columns of the index have 32 bits
Int63 = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    # Fields of a later minor version are allowed.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


class Identity(_Record):
    """Identity of a source file: its size, and the sha256 of its first and last megabyte."""

    bytes: Int63
    sha256: Annotated[str, Field(max_length=64)]


class Shot(_Record):
    """One shot of a video."""

    start: _Int32  # first frame, counted within the video
    stop: _Int32  # one past the last frame
    background: Annotated[int, Field(ge=-1, le=2**31 - 1)]  # number of its background in the shard; -1 for none
    # camera motion: "static", "jitter", "moving", or "unknown" if it was not estimated
    camera: Annotated[str, _one_of(CAMERAS)] = "unknown"
    grade: Annotated[str, _one_of(GRADES[1:])] | None = None  # A to F, or None if it was not graded
    reasons: list[str] = []  # reasons for a lower grade, as text


class VideoRow(_Record):
    """One video of a shard."""

    id: str  # path relative to the input folder, POSIX separators
    label: str | None  # class name, None if unknown
    group: str | None  # videos of one group must stay in one split (a recording, a subject); None if unknown
    split: str | None  # "train", "test", ..., None if unknown
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # average frames per second of the source
    height: Annotated[_Int32, Field(ge=1)]  # of the source, pixels
    width: Annotated[_Int32, Field(ge=1)]  # of the source, pixels
    start: Int63  # its first frame among the shard's frames
    first: _Int32 = 0  # its first frame in the video; not 0 if earlier frames are in other shards
    num_frames: _Int32  # number of its frames in the shard
    # frames of the whole video, if other shards contain the rest; None if this one contains all
    total_frames: _Int32 | None = None
    # "ok", "partial" (the intact beginning of a broken file) or "no_static_background"
    status: Annotated[str, _one_of(STATUSES)]
    # in order, together covering the shard's frames of it. A shot shared by two shards is in both, with the
    # background in both
    shots: list[Shot]
    # frames of a "partial" video according to its container; None if unknown or the video is complete
    expected_frames: Int63 | None = None
    imported_masks: bool = False  # whether its masks were imported
    identity: Identity  # identity of the source file
    content: Annotated[str, Field(max_length=64)]  # sha256 of the stored content


class Failure(_Record):
    """A video that could not be used: its id, a reason code, and the message."""

    id: Text
    reason: Text
    message: str


def identify(path: Path) -> Identity:
    """Identity of a file on disk."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(_IDENTITY_BYTES))
        if size > _IDENTITY_BYTES:
            file.seek(max(_IDENTITY_BYTES, size - _IDENTITY_BYTES))
            digest.update(file.read(_IDENTITY_BYTES))
    return Identity(bytes=size, sha256=digest.hexdigest())
