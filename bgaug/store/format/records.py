"""What a store says of each video: the rows of a commit. What a value may be is said here, and checked by the model."""

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


Int32 = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A count of frames or pixels: columns of the index have 32 bits."""
Int63 = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    # What a later minor version adds is no fault.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


class Identity(_Record):
    """What a source file is known by: its bytes, and the sha256 of its first and last megabyte."""

    bytes: Int63
    sha256: Annotated[str, Field(max_length=64)]


class Shot(_Record):
    """One shot of a video.

    Attributes:
        start: first frame, counted within the video.
        stop: one past the last frame.
        background: which of the shard's backgrounds is its own; -1 where it has none.
        camera: verdict on the camera: "static", "jitter", "moving", or "unknown" where it was not looked at.
        grade: A to F, or None where it was not graded.
        reasons: what lowered it, in words.
    """

    start: Int32
    stop: Int32
    background: Annotated[int, Field(ge=-1, le=2**31 - 1)]
    camera: Annotated[str, _one_of(CAMERAS)] = "unknown"
    grade: Annotated[str, _one_of(GRADES[1:])] | None = None
    reasons: list[str] = []


class VideoRow(_Record):
    """One video of a shard.

    Attributes:
        id: path relative to the folder it was found in, POSIX separators.
        label: class name, None where unknown.
        group: what must not be torn apart by a split (a recording, a subject), None where unknown.
        split: "train", "test", ..., None where unknown.
        fps: average frames per second of the source.
        height: of the source, pixels.
        width: of the source, pixels.
        start: its first frame among the shard's frames.
        first: which frame of the video that is: not 0 where earlier ones lie in other shards.
        num_frames: frames of it that the shard accounts for.
        total_frames: of the whole video, where other shards hold the rest; None where this one holds it all.
        status: "ok", "partial" (the good beginning of a broken file) or "no_static_background".
        shots: in order, together covering the shard's frames of it. A shot that two shards share stands in both, with
            the background in both.
        imported_masks: whether its masks were made elsewhere.
        expected_frames: how many frames a "partial" video should have had, by its container; None where that is not
            known or the video is whole.
        identity: of the source file.
        content: sha256 of what was stored for it.
    """

    id: str
    label: str | None
    group: str | None
    split: str | None
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    height: Annotated[Int32, Field(ge=1)]
    width: Annotated[Int32, Field(ge=1)]
    start: Int63
    first: Int32 = 0
    num_frames: Int32
    total_frames: Int32 | None = None
    status: Annotated[str, _one_of(STATUSES)]
    shots: list[Shot]
    expected_frames: Int63 | None = None
    imported_masks: bool = False
    identity: Identity
    content: Annotated[str, Field(max_length=64)]


class Failure(_Record):
    """A video that could not be used: its id, a reason code, and what was said."""

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
