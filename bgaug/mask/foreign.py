"""Foreground masks made elsewhere, by people or by segmentation models: found for videos, read frame by frame.

Four forms, told apart by what is there; NAME is a video's id, with or without its suffix:

    NAME/000012.png         a picture a frame: 1, 8 or 16 bit, grey, palette or colour. The last run of digits in the
                            name is the frame's number
    NAME.npz, NAME.npy      bool or integers (T, H, W) under `masks`, or as the only array; or bits as `pack_mask` writes
                            them, uint8 (T, P) under `packed`, with [H, W] under `size`
    NAME.json               a list with an entry a frame: null, a run-length object, or a list of them
    ANY.json                one file for many videos, as COCO or YouTube-VIS have it

Run lengths are COCO's: {"size": [H, W], "counts": [...]} with columns in order and zeros first, counts as numbers or as
COCO's string. Several objects of a frame are united, whatever their category. Polygons are refused.

A frame of which a file says that nobody is there has an empty mask; a frame of which it says nothing has none.

Letters: T frames, H, W pixels, P packed bytes of one mask.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import struct
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError, UsageError
from bgaug.mask.bits import unpack_mask
from bgaug.sizing import Size

Values = Literal["nonzero", "cdnet"]
VALUES: tuple[str, ...] = get_args(Values)

T = TypeVar("T")

_CDNET = (0, 50, 85, 170, 255)
# Files that claim more are not believed: a few bytes can claim any size.
_MOST_PIXELS = 2**28
_MOST_FRAMES = 10**6
_OTHER_PICTURES = {".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"}


class ForeignMasks(ABC):
    """Masks of one video, read when they are asked for.

    Iterating gives (index, mask) of every frame that has one, in order, and lets go of what was read. Used as a context
    it lets go at the end; used again, it reads again.

    Attributes:
        path: the file or folder that holds them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def num_frames(self) -> int | None:
        """Frames that it knows of; None where numbers in names stand for frames, which leaves the end open."""

    @abstractmethod
    def indices(self) -> Sequence[int]:
        """Frames that have a mask, ascending, from 0."""

    @abstractmethod
    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """Mask of a frame, bool (H, W) at the size of the file, an array of its own; None where there is none.

        Raises:
            MasksError: what is there cannot be understood.
        """

    def close(self) -> None:
        """Let go of what was read."""
        self.__dict__.pop("_content", None)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        with self:
            for index in self.indices():
                mask = self.frame(index)
                if mask is not None:
                    yield index, mask

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class FoundMasks:
    """Masks matched with videos.

    Attributes:
        of: masks of each video that has some, by id.
        without: ids of videos that have none.
        unused: what was found and belongs to no video: "folder/", "file.npz", "file.json: name".
    """

    of: Mapping[str, ForeignMasks]
    without: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_masks(path: str | Path, ids: Collection[str], *, first: int = 0, values: Values = "nonzero") -> FoundMasks:
    """Masks of videos, from a folder or from one JSON file for all.

    A folder is searched to its depths for the forms on top of this module, mixed as they come. Hidden names and the
    videos themselves are passed over. Links that lead out of the folder, and links to folders, are never followed.
    Pictures and arrays are only listed here; a JSON file for many videos is parsed, but no mask is decoded.

    Args:
        path: the folder, or a .json file in the layout of COCO or YouTube-VIS.
        ids: of the videos: paths relative to their folder, with forward slashes.
        first: number of a video's first frame where names carry numbers (pictures, `file_name`, `file_names`): 0 or 1.
            Never guessed: masks that are one frame off look right. Entries of lists and arrays count from 0 always.
        values: what pixels of pictures and integer arrays mean. "nonzero": foreground where any channel other than
            alpha is not 0; of a palette the colours count, so black is background. "cdnet": 255 is foreground; 0, 50
            (shadow), 85 (outside the region) and 170 (unknown) are not; any other value is an error.

    Raises:
        MasksError: something that belongs to a video cannot be read or understood, a video has two candidates, or one
            candidate stands for two videos.
        UsageError: `first` is negative or `values` is none of `VALUES`.
    """
    path = Path(path)
    if first < 0 or values not in VALUES:
        raise UsageError(f"first is 0 or more and values one of {', '.join(VALUES)}, got {first = }, {values = }")
    names = _Names(path, ids)
    found: dict[str, tuple[str, ForeignMasks]] = {}
    unused: set[str] = set()
    for offer in _offers(path, names, first, values):
        video_id = names.match(offer.name)
        if video_id is None or offer.open is None:
            unused.add(offer.label)
        elif video_id in found:
            raise MasksError(
                path,
                f"two candidates for the masks of {video_id}: {found[video_id][0]} and {offer.label}; keep one of them",
            )
        else:
            found[video_id] = offer.label, offer.open(video_id)
    of = {video_id: found[video_id][1] for video_id in sorted(found)}
    return FoundMasks(of, tuple(sorted(set(ids) - set(of))), tuple(sorted(unused)))


class _Names:
    """Which video a name means: an id, or an id without its suffix, however its accents are composed."""

    def __init__(self, path: Path, ids: Collection[str]) -> None:
        self._path = path
        self._whole: dict[str, set[str]] = {}
        self._bare: dict[str, set[str]] = {}
        for video_id in ids:
            key = unicodedata.normalize("NFC", video_id)
            self._whole.setdefault(key, set()).add(video_id)
            bare = PurePosixPath(key).parent / PurePosixPath(key).stem
            self._bare.setdefault(bare.as_posix(), set()).add(video_id)

    def match(self, name: str) -> str | None:
        if not name or ".." in PurePosixPath(name).parts:
            return None
        key = unicodedata.normalize("NFC", PurePosixPath(name).as_posix())
        several = sorted(self._whole.get(key) or self._bare.get(key) or ())
        if len(several) > 1:
            raise MasksError(
                self._path,
                f"{name} stands for {len(several)} videos ({several[0]}, {several[1]}); "
                "name their masks with the suffix, like " + several[0],
            )
        return several[0] if several else None

    def is_video(self, name: str) -> bool:
        return unicodedata.normalize("NFC", name) in self._whole


# --- what is there ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Offer:
    """What was found: how to call it, and where it may be masks of a video the name it goes by and how to open it."""

    label: str
    name: str = ""
    open: Callable[[str], ForeignMasks] | None = None


def _offers(path: Path, names: _Names, first: int, values: Values) -> Iterator[_Offer]:
    if path.is_dir():
        yield from _offers_of_folder(path, path.resolve(), "", names, first, values)
    elif path.is_file() and path.suffix.lower() == ".json":
        together = _videos_of_json(path)
        if together is None:
            raise MasksError(
                path,
                "expected `annotations` and `videos` or `images`, as COCO and YouTube-VIS have them; masks of one video "
                "are found by their file's name: give the folder that holds it",
            )
        yield from _offers_of_json(path, path.name, together, first)
    elif path.exists():
        raise MasksError(path, "expected a folder or a .json file; give the folder that holds it, unpacked")
    else:
        raise MasksError(path, "no such file or folder")


def _offers_of_folder(
    folder: Path, root: Path, prefix: str, names: _Names, first: int, values: Values
) -> Iterator[_Offer]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise MasksError(folder, f"cannot be read: {error.strerror}") from error
    pictures: list[os.DirEntry[str]] = []
    for entry in listed:
        label = prefix + entry.name
        suffix = Path(entry.name).suffix.lower()
        if entry.is_dir(follow_symlinks=False):
            yield from _offers_of_folder(folder / entry.name, root, label + "/", names, first, values)
        elif names.is_video(label):
            continue
        elif suffix == ".png" or suffix in _OTHER_PICTURES:
            pictures.append(entry)
        elif suffix in (".npz", ".npy", ".json") and entry.is_file() and not _leads_out(entry, root):
            yield from _offers_of_file(folder / entry.name, label, first, values)
        else:
            yield _Offer(label)
    if pictures:

        def open_pictures(video_id: str) -> ForeignMasks:
            _check_pictures(folder, pictures, root)
            return _PictureMasks(folder, first, values)

        yield _Offer(prefix or "./", prefix.rstrip("/"), open_pictures)


def _offers_of_file(file: Path, label: str, first: int, values: Values) -> Iterator[_Offer]:
    name = label[: -len(file.suffix)]
    if file.suffix.lower() != ".json":
        yield _Offer(label, name, lambda video_id: _ArrayMasks(file, values))
        return
    try:
        with open(file, "rb") as data:
            begins = data.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise MasksError(file, f"cannot be read: {error.strerror}") from error
    # Files of one video stay closed until they are needed: there may be thousands.
    together = _videos_of_json(file) if begins.startswith(b"{") else None
    if together is None:
        yield _Offer(label, name, lambda video_id: _RunMasks(file, video_id))
    else:
        yield from _offers_of_json(file, label, together, first)


def _offers_of_json(
    file: Path, label: str, together: Sequence[tuple[str, Sequence[_Entry]]], first: int
) -> Iterator[_Offer]:
    for name, entries in together:

        def open_runs(video_id: str, entries: Sequence[_Entry] = entries) -> ForeignMasks:
            return _RunMasks(file, video_id, _runs(file, video_id, entries, first))

        yield _Offer(f"{label}: {name}" if name else label, name, open_runs)


def _leads_out(entry: os.DirEntry[str], root: Path) -> bool:
    return entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root)


def _check_pictures(folder: Path, pictures: Sequence[os.DirEntry[str]], root: Path) -> None:
    for entry in pictures:
        if not entry.name.lower().endswith(".png"):
            raise MasksError(
                folder / entry.name,
                "masks are read from PNGs alone, JPEG blurs them; write them as PNG from the source, or move it away",
            )
        if _leads_out(entry, root):
            raise MasksError(folder / entry.name, f"is a link that leads out of {root}; put the mask itself there")


def _frame_index(path: Path, name: str, first: int) -> int:
    """Index of a frame by the last run of digits in a file's name."""
    runs = re.findall("[0-9]+", PurePosixPath(name).stem)
    if not runs or len(runs[-1]) > 18:
        raise MasksError(path, f"expected names that end in the frame's number, like 000012.png, got {name!r}")
    index = int(runs[-1]) - first
    if index < 0:
        raise MasksError(path, f"{name!r} lies before the first frame, which has the number {first}; see `first`")
    return index


def _foreground(pixels: NDArray[Any], values: Values) -> NDArray[np.bool_]:
    """Foreground of a picture, (H, W) or (H, W, C) without alpha.

    Raises:
        ValueError: a value that the convention does not know.
    """
    if pixels.dtype == np.bool_ or values == "nonzero":
        nonzero = np.asarray(pixels != 0)
        return nonzero if nonzero.ndim == 2 else np.asarray(nonzero.any(-1))
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        raise ValueError("values='cdnet' needs grey pixels, these have colours; read them with values='nonzero'")
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    known = np.isin(grey, _CDNET)
    if not known.all():
        others = ", ".join(map(str, np.unique(grey[~known])[:5]))
        raise ValueError(
            f"values='cdnet' knows the values {', '.join(map(str, _CDNET))}, these hold {others}; "
            "read them with values='nonzero'"
        )
    return np.asarray(grey == 255)


# --- pictures ---------------------------------------------------------------------------------------------------------


class _PictureMasks(ForeignMasks):
    def __init__(self, path: Path, first: int, values: Values) -> None:
        super().__init__(path)
        self._first, self._values = first, values
        self._seen: tuple[str, Size] | None = None

    @cached_property
    def _content(self) -> dict[int, str]:
        """Name of each frame's picture."""
        pictures: dict[int, str] = {}
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror}") from error
        for name in names:
            if name.startswith(".") or not name.lower().endswith(".png"):
                continue
            index = _frame_index(self.path, name, self._first)
            if index in pictures:
                raise MasksError(self.path, f"{pictures[index]} and {name} are the same frame {index}; keep one")
            pictures[index] = name
        return pictures

    @property
    def num_frames(self) -> int | None:
        return None

    def indices(self) -> Sequence[int]:
        return sorted(self._content)

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        name = self._content.get(index)
        if name is None:
            return None
        file = self.path / name
        try:
            mask = _foreground(_decode_png(file.read_bytes()), self._values)
        except OSError as error:
            raise MasksError(file, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise MasksError(file, str(error)) from error
        size = mask.shape[0], mask.shape[1]
        self._seen = self._seen or (name, size)
        if size != self._seen[1]:
            other, (height, width) = self._seen
            raise MasksError(
                file, f"is {size[0]}x{size[1]}, but {other} is {height}x{width}; a video's masks have one size"
            )
        return mask


def _decode_png(data: bytes) -> NDArray[Any]:
    """Pixels of a PNG without alpha: (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        ValueError: not a whole PNG.
    """
    _check_png(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"a PNG that cannot be decoded ({error.err}); write it anew") from error
    if pixels is None:
        raise ValueError("a PNG that cannot be decoded; write it anew")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., :3])


def _check_png(data: bytes) -> None:
    """Every chunk there and unchanged: decoders fill what is missing with background, some of them silently."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("expected a PNG, it does not begin like one; write it anew")
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it anew")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it anew")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("a PNG whose bytes are damaged (a checksum is wrong); copy or write it anew")
        at = end


# --- arrays -----------------------------------------------------------------------------------------------------------


class _ArrayMasks(ForeignMasks):
    def __init__(self, path: Path, values: Values) -> None:
        super().__init__(path)
        self._values = values

    @cached_property
    def _content(self) -> tuple[NDArray[Any], Size | None]:
        """Masks (T, H, W) and None, or packed ones (T, P) and their size."""
        try:
            # Opened here, since numpy leaves a broken archive open; told apart by content, since numpy does so too.
            with open(self.path, "rb") as file:
                if file.read(6) != b"\x93NUMPY":
                    file.seek(0)
                    with np.load(file, allow_pickle=False) as held:
                        return self._from_npz(held)
            # A lone array stays on disk and is paged in by the frame.
            return self._checked(np.asarray(np.load(self.path, allow_pickle=False, mmap_mode="r"))), None
        except MasksError:
            raise
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror or error}") from error
        except MemoryError as error:
            raise MasksError(self.path, f"{error}; an .npy is read by the frame") from error
        except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
            raise MasksError(
                self.path, f"is no whole .npz or .npy, or holds Python objects ({error}); write it anew"
            ) from error

    def _from_npz(self, held: Any) -> tuple[NDArray[Any], Size | None]:
        keys = list(held.files)
        if "masks" not in keys and {"packed", "size"} <= set(keys):
            return self._checked_bits(held["packed"], held["size"])
        if "masks" in keys or len(keys) == 1:
            return self._checked(held["masks" if "masks" in keys else keys[0]]), None
        raise MasksError(
            self.path, f"expected an array `masks`, or `packed` and `size`, it has: {', '.join(keys) or 'nothing'}"
        )

    def _checked(self, masks: NDArray[Any]) -> NDArray[Any]:
        if masks.ndim != 3 or 0 in masks.shape[1:]:
            raise MasksError(self.path, f"masks must be (T, H, W), got {masks.shape = }; a lone mask is masks[None]")
        if masks.dtype.kind not in "bui":
            raise MasksError(
                self.path,
                f"masks must be bool or integers, got {masks.dtype = }; save scores by a threshold, like scores > 0.5",
            )
        return masks

    def _checked_bits(self, packed: NDArray[Any], size: NDArray[Any]) -> tuple[NDArray[Any], Size]:
        if size.shape != (2,) or size.dtype.kind not in "ui" or (size < 1).any():
            raise MasksError(self.path, f"size must be [H, W], integers above 0, got {size.tolist()}")
        height, width = (int(side) for side in size)
        shape = (len(packed) if packed.ndim else 0, (height * width + 7) // 8)
        if packed.shape != shape or packed.dtype != np.uint8:
            raise MasksError(
                self.path,
                f"packed must be uint8 (T, {shape[1]}) for masks of {height}x{width}, got {packed.shape = }, "
                f"{packed.dtype = }; see `pack_mask`",
            )
        return packed, (height, width)

    @property
    def num_frames(self) -> int | None:
        return len(self._content[0])

    def indices(self) -> Sequence[int]:
        return range(len(self._content[0]))

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        array, size = self._content
        if not 0 <= index < len(array):
            return None
        if size is not None:
            return unpack_mask(array[index], *size)
        try:
            return _foreground(np.array(array[index]), self._values)
        except ValueError as error:
            raise MasksError(self.path, f"frame {index}: {error}") from error


# --- run lengths ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """What a file says of a frame, as it stands there.

    Attributes:
        name: of the frame's picture; None where the place in a list counts.
        size: [height, width] that the file claims, either of them None where it does not.
        segments: run-length objects, None where the frame is not spoken of.
    """

    name: str | None
    size: Sequence[Any]
    segments: Sequence[Any] | None


@dataclass(frozen=True)
class _Runs:
    """Run lengths of a video: those of each frame that is spoken of, their size, frames where their number is known."""

    of: Mapping[int, Sequence[Mapping[str, Any]]]
    size: Size | None
    num_frames: int | None


class _RunMasks(ForeignMasks):
    def __init__(self, path: Path, video: str, runs: _Runs | None = None) -> None:
        super().__init__(path)
        self._video, self._runs = video, runs

    @cached_property
    def _content(self) -> _Runs:
        return self._runs or _runs(self.path, self._video, _entries_of_json(self.path), 0)

    @property
    def num_frames(self) -> int | None:
        return self._content.num_frames

    def indices(self) -> Sequence[int]:
        return sorted(self._content.of) if self._content.size is not None else []

    def frame(self, index: int) -> NDArray[np.bool_] | None:
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


def _runs(path: Path, video: str, entries: Sequence[_Entry], first: int) -> _Runs:
    """Entries of one video by frame, with everything but the counts checked."""
    of: dict[int, Sequence[Mapping[str, Any]]] = {}
    size: Size | None = None
    for place, entry in enumerate(entries):
        index = place if entry.name is None else _frame_index(path, entry.name, first)
        if entry.segments is None:
            continue
        try:
            if index in of:
                raise ValueError(f"{entry.name!r} is the second picture of this frame; keep one")
            sizes = [run_size(run) for run in entry.segments]
            if None not in entry.size:
                sizes.insert(0, _parse_size(entry.size))
            for other in sizes:
                size = size or other
                if other != size:
                    raise ValueError(
                        f"{other[0]}x{other[1]} after {size[0]}x{size[1]}; a video's masks have one size, [height, width]"
                    )
        except ValueError as error:
            raise MasksError(path, f"video {video}, frame {index}: {error}") from error
        of[index] = entry.segments
    named = any(entry.name is not None for entry in entries)
    return _Runs(of, size, None if named else len(entries))


def decode_run_lengths(run: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Mask of a COCO run-length object.

    Args:
        run: {"size": [height, width], "counts": ...}. Counts are lengths of runs down the columns, in order, zeros first:
            a list of integers, or COCO's string. That has groups of 5 bits, least significant first, each in a
            character from "0" on whose sixth bit says that the number goes on; the last bit of a number is its sign, and
            from the fourth number on it is the difference to the one two places before.

    Returns:
        bool (height, width).

    Raises:
        ValueError: the object is malformed.

    Reference: Lin et al., Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312; the format of its masks.
    """
    height, width = run_size(run)
    counts = run["counts"]
    lengths = _lengths_of_string(counts) if isinstance(counts, str) else _lengths_of_list(counts)
    # No single one above the total, so that the sum cannot wrap around.
    wrong = ((lengths < 0) | (lengths > height * width)).any()
    if wrong or lengths.sum() != height * width:
        total = "lengths out of range" if wrong else f"{lengths.sum()}"
        raise ValueError(
            f"counts of {height}x{width} must add up to {height * width}, got {total}; size is [height, width]"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def run_size(run: Any) -> Size:
    """(height, width) of a COCO run-length object.

    Raises:
        ValueError: it is none.
    """
    if isinstance(run, Mapping) and "size" in run and "counts" in run:
        return _parse_size(run["size"])
    kind = "a polygon: convert it, with pycocotools' annToRLE" if isinstance(run, list) else reprlib.repr(run)
    raise ValueError(f'expected run lengths {{"size": [height, width], "counts": ...}}, got {kind}')


def _parse_size(size: Any) -> Size:
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


# --- files of run lengths ---------------------------------------------------------------------------------------------


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise MasksError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MasksError(path, f"is no JSON in UTF-8, or not all of it: {error}") from error


def _entries_of_json(path: Path) -> list[_Entry]:
    data = _parse_json(path)
    if not isinstance(data, list):
        raise MasksError(
            path,
            "expected a list with one entry a frame, or the `annotations` and `videos` or `images` of COCO and "
            f"YouTube-VIS, got {reprlib.repr(data)}",
        )
    segments = [[entry] if isinstance(entry, dict) else entry for entry in data]
    for index, entry in enumerate(segments):
        if entry is not None and not isinstance(entry, list):
            raise MasksError(
                path, f"frame {index}: expected null, run lengths or a list of them, got {reprlib.repr(entry)}"
            )
    return [_Entry(None, (None, None), entry) for entry in segments]


def _videos_of_json(path: Path) -> list[tuple[str, Sequence[_Entry]]] | None:
    """Videos of a file for many, by name; "" where it does not name them, None where it is another kind of file."""
    data = _parse_json(path)
    if not isinstance(data, dict) or "annotations" not in data:
        return None
    if data.get("images"):
        return _videos_of_coco(path, data)
    return _videos_of_youtube_vis(path, data) if "videos" in data else None


def _videos_of_coco(path: Path, data: Mapping[str, Any]) -> list[tuple[str, Sequence[_Entry]]]:
    segments: dict[int | str, list[Any]] = {}
    videos: dict[str, list[_Entry]] = {}
    for image in _objects(path, data, "images"):
        held = segments.setdefault(_key(path, image, "id"), [])
        name = image.get("file_name")
        if not isinstance(name, str):
            raise MasksError(path, f"images must have a `file_name`, got {reprlib.repr(image)}")
        entry = _Entry(name, (image.get("height"), image.get("width")), held)
        videos.setdefault(_folder(name), []).append(entry)
    if len(segments) != len(data["images"]):
        raise MasksError(path, f"{len(data['images'])} images have {len(segments)} different ids; give each its own")
    for annotation in _objects(path, data, "annotations"):
        _of_annotation(path, segments, annotation, "image_id").append(annotation.get("segmentation"))
    return list(videos.items())


def _videos_of_youtube_vis(path: Path, data: Mapping[str, Any]) -> list[tuple[str, Sequence[_Entry]]]:
    videos: dict[int | str, tuple[str, list[_Entry]]] = {}
    segments: dict[int | str, list[list[Any]]] = {}
    for video in _objects(path, data, "videos"):
        files = video.get("file_names") or [None] * _length(path, video)
        if not isinstance(files, list) or not all(name is None or isinstance(name, str) for name in files):
            raise MasksError(path, f"`file_names` must be a list of names, got {reprlib.repr(files)}")
        folders = {_folder(name) for name in files if name}
        if len(folders) > 1:
            raise MasksError(path, f"one video has pictures in several folders: {', '.join(sorted(folders)[:3])}")
        name = next(iter(folders), "") or video.get("name") or video.get("file_name") or ""
        size = (video.get("height"), video.get("width"))
        key = _key(path, video, "id")
        if key in videos:
            raise MasksError(path, f"two videos have the id {key!r}; give each its own")
        segments[key] = [[] for _ in files]
        entries = [_Entry(file, size, held) for file, held in zip(files, segments[key], strict=True)]
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
