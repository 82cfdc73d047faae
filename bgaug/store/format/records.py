"""Rows of a commit record: the description of each video. The models define and check the possible values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticSerializationError

from bgaug.names import MasksFrom

_IDENTITY_BYTES = 1 << 20
MAX_PIXELS = 2**25  # of one image; 8K has slightly fewer
_MAX_SHIFT = 1e5  # pixels

STATUSES = ("ok", "partial", "no_static_background")
CAMERAS = ("unknown", "static", "jitter", "moving")
GRADES = ("", "A", "B", "C", "D", "E", "F")
MASKS_FROM: tuple[MasksFrom, ...] = get_args(MasksFrom)


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
        try:
            return self.model_dump(mode="json")
        except PydanticSerializationError as error:
            # Only memory can fail in a record that was validated; pydantic hides that.
            raise MemoryError(str(error)) from error


class Identity(_Record):
    """Identity of a source file: its size, and the sha256 of its first and last megabyte."""

    bytes: Int63
    sha256: Annotated[str, Field(max_length=64)]


def _is_size(value: list[int]) -> list[int]:
    if math.prod(value) > MAX_PIXELS:
        raise ValueError(f"{value[0]}x{value[1]} are more than {MAX_PIXELS} pixels")
    return value


def is_transform(values: Sequence[float]) -> bool:
    """Whether six numbers, row by row, are a transform (2, 3) that a canvas may have.

    Its linear part must differ from the identity by less than 1 (largest sum of a row), so that it, and everything
    between two such transforms, can be inverted.
    """
    a, b, x, c, d, y = values
    near = max(abs(a - 1) + abs(b), abs(c) + abs(d - 1)) < 1
    return near and max(abs(x), abs(y)) <= _MAX_SHIFT


def _transform(value: list[float]) -> list[float]:
    if not is_transform(value):
        raise ValueError("expected a transform close to the identity")
    return value


def _ascending(values: list[int]) -> list[int]:
    if any(one >= other for one, other in pairwise(values)):
        raise ValueError("expected numbers in ascending order")
    return values


_Side = Annotated[int, Field(ge=1, le=2**16 - 1)]
_Size = Annotated[list[_Side], Field(min_length=2, max_length=2), AfterValidator(_is_size)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Transform = Annotated[list[_Number], Field(min_length=6, max_length=6), AfterValidator(_transform)]


class CanvasRow(_Record):
    """Where the canvas of a shot is in the arrays of the shard; see `bgaug.background.Canvas`."""

    pixel: Int63  # its first pixel in `canvas_image`, `canvas_noise` and `canvas_valid`
    size: _Size  # (height, width)
    frame_size: _Size  # (height, width) of the frames that its transforms are for
    usual: _Transform  # transform of the usual frame, frame to canvas, row by row
    place: Int63  # its first row in `canvas_places`
    num_places: Annotated[int, Field(ge=1, le=2**31 - 1)]  # number of its rows there

    @property
    def num_pixels(self) -> int:
        """Pixels of the canvas."""
        return math.prod(self.size)


class SmallMasksRow(_Record):
    """Where the small masks of a shot are in the shard's `small_masks`: one after the other, one for each frame."""

    byte: Int63  # the first byte
    size: _Size  # (height, width)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the mask of one frame."""
        return (math.prod(self.size) + 7) // 8


class Shot(_Record):
    """One shot of a video. The last five fields are left out of the JSON where a shot does not have them."""

    start: _Int32  # first frame, counted within the video
    stop: _Int32  # one past the last frame
    background: Annotated[int, Field(ge=-1, le=2**31 - 1)]  # number of its background in the shard; -1 for none
    # camera motion: "static", "jitter", "moving", or "unknown" if it was not estimated
    camera: Annotated[str, _one_of(CAMERAS)] = "unknown"
    grade: Annotated[str, _one_of(GRADES[1:])] | None = None  # A to F, or None if it was not graded
    reasons: list[str] = []  # reasons for a lower grade, as text
    # for a moving camera with several backgrounds, `background` and those that follow it in the shard: the frame,
    # counted within the video, that each belongs to
    background_frames: Annotated[list[_Int32], Field(min_length=1), AfterValidator(_ascending)] = []
    # for a camera that shakes: None if its frames could not be aligned; not set if the canvas was not kept
    canvas: CanvasRow | None = None
    masks: SmallMasksRow | None = None  # small masks that the masks of the frames are made from
    shadows: bool = True  # whether masks keep hard shadows
    # where the masks come from, if the other fields do not imply it; see `own_masks_from`
    masks_from: Literal["motion", "segmenter"] | None = None

    @property
    def num_backgrounds(self) -> int:
        """Number of its backgrounds in the shard."""
        return len(self.background_frames) or int(self.background >= 0)

    @property
    def has_canvas_result(self) -> bool:
        """Whether it is known what the camera's frames are aligned to, even if that is nothing."""
        return "canvas" in self.model_fields_set

    @property
    def own_masks_from(self) -> MasksFrom:
        """Where the masks that the build made come from; see `VideoRow.masks_from`, which also counts later ones."""
        if self.masks_from is not None:
            return self.masks_from
        if self.masks is not None or self.background_frames:
            return "motion"
        return "background" if self.background >= 0 else "missing"

    @property
    def is_transition(self) -> bool:
        """Whether its frames are a dissolve or a fade between two shots: it has a reason, but was not graded."""
        return self.grade is None and self.background < 0 and bool(self.reasons)

    @property
    def content(self) -> list[Any]:
        """What the content hash of a store covers: neither places in the shard nor grade, camera and `masks_from`."""
        more: dict[str, Any] = {}
        if self.background_frames:
            more["background_frames"] = self.background_frames
        if self.has_canvas_result:
            more["canvas"] = None
        if self.canvas is not None:
            more["canvas"] = self.canvas.model_dump(mode="json", exclude={"pixel", "place"})
        if self.masks is not None:
            more["masks"] = self.masks.size
        if not self.shadows:
            more["shadows"] = False
        return [self.start, self.stop, *([more] if more else [])]

    def moved(self, to: ShotTotals) -> Shot:
        """The shot behind what is already in a shard."""
        update: dict[str, Any] = {}
        if self.background >= 0:
            update["background"] = self.background + to.backgrounds
        if self.canvas is not None:
            places = {"pixel": self.canvas.pixel + to.canvas_pixels, "place": self.canvas.place + to.canvas_places}
            update["canvas"] = self.canvas.model_copy(update=places)
        if self.masks is not None:
            update["masks"] = self.masks.model_copy(update={"byte": self.masks.byte + to.small_mask_bytes})
        return self.model_copy(update=update)

    @model_serializer(mode="wrap")
    def _without_absent(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = to_dict(self)
        present = {
            "background_frames": bool(self.background_frames),
            "canvas": self.has_canvas_result,
            "masks": self.masks is not None,
            "shadows": not self.shadows,
            "masks_from": self.masks_from is not None,
        }
        return {name: value for name, value in found.items() if present.get(name, True)}


@dataclass(frozen=True)
class ShotTotals:
    """What shots have in the arrays of a shard, together."""

    backgrounds: int = 0
    canvas_pixels: int = 0
    canvas_places: int = 0
    small_mask_bytes: int = 0

    def with_shot(self, shot: Shot, video_id: str) -> ShotTotals:
        """The totals with the next shot of the shard.

        Raises:
            ValueError: what it has does not follow on what is there.
        """
        if shot.background not in (-1, self.backgrounds):
            raise ValueError(f"{video_id} has background {shot.background}, expected {self.backgrounds} or -1")
        if shot.background < 0 and shot.background_frames:
            raise ValueError(f"{video_id} has frames of backgrounds, and no background")
        pixels, places, num_bytes = 0, 0, 0
        if shot.canvas is not None:
            if (shot.canvas.pixel, shot.canvas.place) != (self.canvas_pixels, self.canvas_places):
                raise ValueError(
                    f"{video_id} has a canvas at pixel {shot.canvas.pixel} and place {shot.canvas.place}, expected "
                    f"{self.canvas_pixels} and {self.canvas_places}"
                )
            pixels, places = shot.canvas.num_pixels, shot.canvas.num_places
        if shot.masks is not None:
            if shot.masks.byte != self.small_mask_bytes:
                raise ValueError(
                    f"{video_id} has small masks at byte {shot.masks.byte}, expected {self.small_mask_bytes}"
                )
            num_bytes = (shot.stop - shot.start) * shot.masks.frame_bytes
        return self.and_also(ShotTotals(shot.num_backgrounds, pixels, places, num_bytes))

    def and_also(self, other: ShotTotals) -> ShotTotals:
        """The totals of both."""
        return ShotTotals(
            self.backgrounds + other.backgrounds,
            self.canvas_pixels + other.canvas_pixels,
            self.canvas_places + other.canvas_places,
            self.small_mask_bytes + other.small_mask_bytes,
        )

    @classmethod
    def of(cls, rows: Iterable[VideoRow]) -> ShotTotals:
        """The totals of all shots of rows, in order; raises as `with_shot` does."""
        totals = cls()
        for row in rows:
            for shot in row.shots:
                totals = totals.with_shot(shot, row.id)
        return totals

    @property
    def rows_by_array(self) -> dict[str, int]:
        """Rows of each array that a shard has only if its shots need it."""
        return {
            "canvas_image": self.canvas_pixels,
            "canvas_noise": self.canvas_pixels,
            "canvas_valid": self.canvas_pixels,
            "canvas_places": self.canvas_places,
            "small_masks": self.small_mask_bytes,
        }


class MaskModel(_Record):
    """The segmentation model that made the masks of a video, and its settings."""

    name: Annotated[str, Field(min_length=1, max_length=200)]  # on the hub, else that of its folder
    kind: Annotated[str, Field(min_length=1, max_length=50)]  # `model_type` of its configuration
    sha256: Annotated[str, Field(max_length=64)]  # of its weights
    window: Annotated[_Int32, Field(ge=1)]  # frames at a time
    objects: Annotated[_Int32, Field(ge=1)]  # followed at a time
    points: _Int32  # on each object of a prompt
    negative_points: _Int32  # off it


class VideoRow(_Record):
    """One video of a shard. The JSON has no `mask_model` where no model made the masks."""

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
    imported_masks: bool = False  # whether its masks were imported, or made by a segmentation model
    mask_model: MaskModel | None = None  # the segmentation model that made masks of it; None for other masks
    identity: Identity  # identity of the source file
    content: Annotated[str, Field(max_length=64)]  # sha256 of the stored content

    def masks_from(self, shot: Shot) -> MasksFrom:
        """Where the masks of one of its shots come from.

        Returns:
            "background": differences to the shot's background. "motion": see `bgaug.shots.by_motion`. "segmenter": a
            segmentation network or model. "imported": `bgaug import --masks`. "missing": none of these; the store then
            has the differences between neighbouring frames in their place.
        """
        if self.imported_masks:
            return "imported" if self.mask_model is None else "segmenter"
        return shot.own_masks_from

    @model_serializer(mode="wrap")
    def _without_absent(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = to_dict(self)
        if self.mask_model is None:
            found.pop("mask_model", None)
        return found


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
