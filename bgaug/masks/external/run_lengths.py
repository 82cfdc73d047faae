"""Masks as COCO's run lengths: a JSON list for one video, or a file for many as COCO and YouTube-VIS have it.

Letters: H, W pixels.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.masks.external.pixels import ExternalMasks, frame_index
from bgaug.sizing import Size

T = TypeVar("T")

_MOST_FRAMES, _MOST_PIXELS = 10**6, 2**28  # a few bytes can declare any length and size: larger ones are refused


@dataclass(frozen=True)
class Entry:
    """The entry of a file for one frame, unchecked.

    Attributes:
        name: file name of the frame's image; None where the position in a list counts.
        size: [height, width] that the file declares, None where it does not.
        segments: run-length objects, None where the frame has no mask.
    """

    name: str | None
    size: Sequence[Any]
    segments: Sequence[Any] | None


@dataclass(frozen=True)
class _Runs:
    """Run lengths of a video by frame, their size, and the number of frames where it is known."""

    of: Mapping[int, Sequence[Mapping[str, Any]]]
    size: Size | None
    num_frames: int | None


class RunMasks(ExternalMasks):
    """Masks as run lengths: `entries` of a file for many videos, or those of a file of its own."""

    def __init__(self, path: Path, video: str, entries: Sequence[Entry] | None = None, first: int = 0) -> None:
        super().__init__(path)
        self._video, self._entries, self._first = video, entries, first

    @cached_property
    def _content(self) -> _Runs:
        entries = _entries_of_json(self.path) if self._entries is None else self._entries
        return _runs(self.path, self._video, entries, self._first)

    @property
    def num_frames(self) -> int | None:
        """See `ExternalMasks`."""
        return self._content.num_frames

    def indices(self) -> Sequence[int]:
        """See `ExternalMasks`."""
        return sorted(self._content.of) if self._content.size is not None else []

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """See `ExternalMasks`."""
        segments, size = self._content.of.get(index), self._content.size
        if segments is None or size is None:
            return None
        mask = np.zeros(size, np.bool_)
        for run in segments:
            try:
                mask |= decode_run_lengths(run)
            except ValueError as error:
                raise MasksError(self.path, f"video {self._video}, frame {index}: {error}") from error
        return mask


def _runs(path: Path, video: str, entries: Sequence[Entry], first: int) -> _Runs:
    """Entries of one video by frame, checked except for the counts."""
    of: dict[int, Sequence[Mapping[str, Any]]] = {}
    size: Size | None = None
    for place, entry in enumerate(entries):
        index = place if entry.name is None else frame_index(path, entry.name, first)
        if entry.segments is None:
            continue
        try:
            if index in of:
                raise ValueError(f"{entry.name!r} is the second image of this frame; keep one")
            sizes = [_run_size(run) for run in entry.segments]
            if None not in entry.size:
                sizes.insert(0, parse_size(entry.size))
            for other in sizes:
                size = size or other
                if other != size:
                    raise ValueError(
                        f"{other[0]}x{other[1]} after {size[0]}x{size[1]}; a video's masks have one size, [height, "
                        "width]"
                    )
        except ValueError as error:
            raise MasksError(path, f"video {video}, frame {index}: {error}") from error
        of[index] = entry.segments
    named = any(entry.name is not None for entry in entries)
    return _Runs(of, size, None if named else len(entries))


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise MasksError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MasksError(path, f"is no JSON in UTF-8, or incomplete: {error}") from error


def _entries_of_json(path: Path) -> list[Entry]:
    data = _parse_json(path)
    if not isinstance(data, list):
        raise MasksError(
            path,
            "expected a list with one entry per frame, or the `annotations` and `videos` or `images` of COCO and "
            f"YouTube-VIS, got {reprlib.repr(data)}",
        )
    segments = [[entry] if isinstance(entry, dict) else entry for entry in data]
    for index, entry in enumerate(segments):
        if entry is not None and not isinstance(entry, list):
            raise MasksError(
                path, f"frame {index}: expected null, run lengths or a list of them, got {reprlib.repr(entry)}"
            )
    return [Entry(None, (None, None), entry) for entry in segments]


def videos_of_json(path: Path) -> list[tuple[str, Sequence[Entry]]] | None:
    """Videos of a file for many, by name; "" for a video without name, None for another kind of file."""
    data = _parse_json(path)
    if not isinstance(data, dict) or "annotations" not in data:
        return None
    if data.get("images"):
        return _videos_of_coco(path, data)
    return _videos_of_youtube_vis(path, data) if "videos" in data else None


def _videos_of_coco(path: Path, data: Mapping[str, Any]) -> list[tuple[str, Sequence[Entry]]]:
    segments: dict[int | str, list[Any]] = {}
    videos: dict[str, list[Entry]] = {}
    for image in _objects(path, data, "images"):
        held = segments.setdefault(_key(path, image, "id"), [])
        name = image.get("file_name")
        if not isinstance(name, str):
            raise MasksError(path, f"images must have a `file_name`, got {reprlib.repr(image)}")
        entry = Entry(name, (image.get("height"), image.get("width")), held)
        videos.setdefault(_folder(name), []).append(entry)
    if len(segments) != len(data["images"]):
        raise MasksError(path, f"{len(data['images'])} images have {len(segments)} different ids; give each its own")
    for annotation in _objects(path, data, "annotations"):
        _of_annotation(path, segments, annotation, "image_id").append(annotation.get("segmentation"))
    return list(videos.items())


def _videos_of_youtube_vis(path: Path, data: Mapping[str, Any]) -> list[tuple[str, Sequence[Entry]]]:
    videos: dict[int | str, tuple[str, list[Entry]]] = {}
    segments: dict[int | str, list[list[Any]]] = {}
    for video in _objects(path, data, "videos"):
        files = video.get("file_names") or [None] * _length(path, video)
        if not isinstance(files, list) or not all(name is None or isinstance(name, str) for name in files):
            raise MasksError(path, f"`file_names` must be a list of names, got {reprlib.repr(files)}")
        folders = {_folder(name) for name in files if name}
        if len(folders) > 1:
            raise MasksError(path, f"one video has images in several folders: {', '.join(sorted(folders)[:3])}")
        name = next(iter(folders), "") or video.get("name") or video.get("file_name") or ""
        size = (video.get("height"), video.get("width"))
        key = _key(path, video, "id")
        if key in videos:
            raise MasksError(path, f"two videos have the id {key!r}; give each its own")
        segments[key] = [[] for _ in files]
        entries = [Entry(file, size, held) for file, held in zip(files, segments[key], strict=True)]
        videos[key] = str(name), entries
    for annotation in _objects(path, data, "annotations"):
        rows = _of_annotation(path, segments, annotation, "video_id")
        given = annotation.get("segmentations")
        if not isinstance(given, list) or len(given) != len(rows):
            name = videos[annotation["video_id"]][0]
            came = len(given) if isinstance(given, list) else reprlib.repr(given)
            raise MasksError(path, f"video {name}: expected `segmentations` for {len(rows)} frames, got {came}")
        for row, segment in zip(rows, given, strict=True):
            if segment is not None:
                row.append(segment)
    return list(videos.values())


def _objects(path: Path, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    objects = data.get(key)
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise MasksError(path, f"`{key}` must be a list of objects, got {reprlib.repr(objects)}")
    return objects


def _key(path: Path, item: Mapping[str, Any], key: str) -> int | str:
    value = item.get(key)
    if not isinstance(value, int | str):
        raise MasksError(path, f"expected `{key}`, a number or a string, in {reprlib.repr(item)}")
    return value


def _of_annotation(path: Path, held: Mapping[int | str, T], annotation: Mapping[str, Any], key: str) -> T:
    value = _key(path, annotation, key)
    if value not in held:
        raise MasksError(path, f"an annotation has the {key} {value!r}, which is not in the file")
    return held[value]


def _length(path: Path, video: Mapping[str, Any]) -> int:
    length = video.get("length")
    if type(length) is not int or not 0 <= length <= _MOST_FRAMES:
        raise MasksError(
            path, f"videos must have `file_names` or a `length` of at most {_MOST_FRAMES}, got {reprlib.repr(video)}"
        )
    return length


def _folder(name: str) -> str:
    folder = PurePosixPath(name).parent.as_posix()
    return "" if folder == "." else folder


def decode_run_lengths(run: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Mask of a COCO run-length object.

    Args:
        run: {"size": [height, width], "counts": ...}. Counts are lengths of runs down the columns, in order, zeros
            first: a list of integers, or COCO's string. The string has groups of 5 bits, least significant first, one
            per
            character from "0" on; the sixth bit marks that the number continues. The last bit of a number is its sign,
            and from the fourth number on it is the difference to the number two positions before.

    Returns:
        bool (height, width).

    Raises:
        ValueError: the object is malformed.

    Reference: Lin et al., Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312; the format of its masks.
    """
    height, width = _run_size(run)
    counts = run["counts"]
    lengths = _lengths_of_string(counts) if isinstance(counts, str) else _lengths_of_list(counts)
    # No length exceeds the total, so the sum cannot overflow.
    wrong = ((lengths < 0) | (lengths > height * width)).any()
    if wrong or lengths.sum() != height * width:
        total = "lengths out of range" if wrong else f"{lengths.sum()}"
        raise ValueError(
            f"counts of {height}x{width} must add up to {height * width}, got {total}; size is [height, width]"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _run_size(run: Any) -> Size:
    """(height, width) of a COCO run-length object.

    Raises:
        ValueError: not a run-length object.
    """
    if isinstance(run, Mapping) and "size" in run and "counts" in run:
        return parse_size(run["size"])
    kind = "a polygon: convert it, with pycocotools' annToRLE" if isinstance(run, list) else reprlib.repr(run)
    raise ValueError(f'expected run lengths {{"size": [height, width], "counts": ...}}, got {kind}')


def parse_size(size: Any) -> Size:
    """(height, width) from [height, width].

    Raises:
        ValueError: not a size.
    """
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if whole and size[0] * size[1] <= _MOST_PIXELS:
        return size[0], size[1]
    raise ValueError(f"a size is [height, width], of at most {_MOST_PIXELS} pixels, got {reprlib.repr(size)}")


def _lengths_of_list(counts: Any) -> NDArray[np.int64]:
    try:
        lengths = np.asarray(counts if isinstance(counts, list) and counts else None)
    except ValueError:  # lists of several lengths
        lengths = np.asarray(None)
    if lengths.ndim != 1 or lengths.dtype.kind not in "ui":
        raise ValueError(f"counts must be a list of integers or a string, got {reprlib.repr(counts)}")
    return lengths.astype(np.int64)


def _lengths_of_string(counts: str) -> NDArray[np.int64]:
    stranger = re.search("[^0-o]", counts)
    if stranger is not None:
        raise ValueError(f"counts hold {stranger[0]!r} at {stranger.start()}; COCO's strings have characters 0 to o")
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    if not codes.size or codes[-1] >= 32:
        raise ValueError("counts break off within a number" if codes.size else "counts are empty")
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > 7:
        raise ValueError(f"counts hold a number of {digits.max()} characters, more than any mask needs")
    place = np.arange(codes.size) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * digits, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
