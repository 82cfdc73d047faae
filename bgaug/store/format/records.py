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
    """One shot of a video.

    Attributes:
        start: first frame, counted within the video.
        stop: one past the last frame.
        background: number of its background in the shard; -1 for none.
        camera: camera motion: "static", "jitter", "moving", or "unknown" if it was not estimated.
        grade: A to F, or None if it was not graded.
        reasons: reasons for a lower grade, as text.
    """

    start: _Int32
    stop: _Int32
    background: Annotated[int, Field(ge=-1, le=2**31 - 1)]
    camera: Annotated[str, _one_of(CAMERAS)] = "unknown"
    grade: Annotated[str, _one_of(GRADES[1:])] | None = None
    reasons: list[str] = []


class VideoRow(_Record):
    """One video of a shard.

    Attributes:
        id: path relative to the input folder, POSIX separators.
        label: class name, None if unknown.
        group: videos of one group must stay in one split (a recording, a subject); None if unknown.
        split: "train", "test", ..., None if unknown.
        fps: average frames per second of the source.
        height: of the source, pixels.
        width: of the source, pixels.
        start: its first frame among the shard's frames.
        first: its first frame in the video; not 0 if earlier frames are in other shards.
        num_frames: number of its frames in the shard.
        total_frames: frames of the whole video, if other shards contain the rest; None if this one contains all.
        status: "ok", "partial" (the intact beginning of a broken file) or "no_static_background".
        shots: in order, together covering the shard's frames of it. A shot shared by two shards is in both, with the
            background in both.
        imported_masks: whether its masks were imported.
        expected_frames: frames of a "partial" video according to its container; None if unknown or the video is
            complete.
        identity: identity of the source file.
        content: sha256 of the stored content.
    """

    id: str
    label: str | None
    group: str | None
    split: str | None
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    height: Annotated[_Int32, Field(ge=1)]
    width: Annotated[_Int32, Field(ge=1)]
    start: Int63
    first: _Int32 = 0
    num_frames: _Int32
    total_frames: _Int32 | None = None
    status: Annotated[str, _one_of(STATUSES)]
    shots: list[Shot]
    expected_frames: Int63 | None = None
    imported_masks: bool = False
    identity: Identity
    content: Annotated[str, Field(max_length=64)]


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
