"""Masks as pixels: a folder of PNGs, or arrays; the meaning of their values and names.

Letters: T frames, H, W pixels, C channels, P packed bytes of one mask.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.files import MalformedFile
from bgaug.files.archives import is_npy, npz_names, read_npy, read_npz
from bgaug.masks.bits import unpack_mask
from bgaug.names import MaskValues
from bgaug.sizing import Fit, Size, fit_frame

VALUES: tuple[str, ...] = get_args(MaskValues)

_CDNET = (0, 50, 85, 170, 255)
_UNKNOWN = (85, 170)
_ASPECT_TOLERANCE = 0.02  # rounding of the sides of small masks


class ExternalMasks(ABC):
    """Masks of one video, read on demand.

    Iteration gives (index, mask) of every frame that has one, in order. The end of an iteration, and of a `with` block,
    releases the data; a later use reads it again.

    Attributes:
        path: the file or folder that holds them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def num_frames(self) -> int | None:
        """Number of frames; None where file names carry frame numbers, which leaves the end open."""

    @abstractmethod
    def indices(self) -> Sequence[int]:
        """Frames that have a mask, ascending, from 0."""

    @abstractmethod
    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """Mask of a frame, bool (H, W) at the size of the file, a new array; None where there is none.

        Raises:
            MasksError: the mask cannot be read.
        """

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels that a frame's mask marks as unknown, bool (H, W); None where the format has no such pixels.

        Raises:
            MasksError: as `frame`.
        """
        return None

    def indices_of(self, num_frames: int) -> Sequence[int]:
        """As `indices`, of a video with that many frames.

        Raises:
            MasksError: there is a mask of a later frame.
        """
        indices = self.indices()
        if len(indices) and indices[-1] >= num_frames:
            # Only names carry numbers, so only they may count from 1.
            fix = "; numbers that begin with 1 need --first 1" if self.num_frames is None else ""
            raise MasksError(
                self.path, f"has a mask of frame {indices[-1]}, the video has {num_frames}, counted from 0{fix}"
            )
        return indices

    def fitted(self, index: int, mask: NDArray[np.bool_], source: Size, size: Size, fit: Fit) -> NDArray[np.bool_]:
        """A frame's mask at the size of a store, fitted as the frames of its video were: bool (H, W).

        Raises:
            MasksError: the mask has neither the aspect of the video, whose size is `source`, nor the store's size.
        """
        height, width = mask.shape
        if (height, width) == size:
            return mask
        if abs(width * source[0] / (height * source[1]) - 1) > _ASPECT_TOLERANCE:
            raise MasksError(
                self.path,
                f"frame {index} is {height}x{width}, the video {source[0]}x{source[1]}: expected a mask of the whole "
                f"image, of any size with its aspect, or of the store's {size[0]}x{size[1]}",
            )
        return np.asarray(fit_frame(mask.astype(np.uint8) * 255, size, fit) > 127)

    def close(self) -> None:
        """Release the data; a later use reads it again."""
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


def frame_index(path: Path, name: str, first: int) -> int:
    """Index of a frame by the last run of digits in a file's name."""
    runs = re.findall("[0-9]+", PurePosixPath(name).stem)
    if not runs or len(runs[-1]) > 18:
        raise MasksError(path, f"expected names that end in the frame number, like 000012.png, got {name!r}")
    index = int(runs[-1]) - first
    if index < 0:
        raise MasksError(path, f"{name!r} lies before the first frame, which has the number {first}; see `first`")
    return index


def foreground(pixels: NDArray[Any], values: MaskValues) -> NDArray[np.bool_]:
    """Foreground of an image, (H, W) or (H, W, C) without alpha.

    Raises:
        ValueError: a value that the convention does not define.
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


def _unknown(pixels: NDArray[Any], values: MaskValues) -> NDArray[np.bool_] | None:
    """Pixels that a convention calls unknown (170) or outside the annotated region (85), bool (H, W); else None."""
    if values != "cdnet" or pixels.dtype == np.bool_:
        return None
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    return np.isin(grey, _UNKNOWN)


def leads_out(path: str | Path, root: Path) -> bool:
    """Whether a path is a link that leads out of the folder `root`, a resolved path."""
    return os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root)


OTHER_IMAGES = (".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


class ImageMasks(ExternalMasks):
    """Masks in a folder; links that lead out of `root` are refused."""

    def __init__(self, path: Path, root: Path, first: int, values: MaskValues) -> None:
        super().__init__(path)
        self._root, self._first, self._values = root, first, values
        self._seen: tuple[str, Size] | None = None

    @cached_property
    def _content(self) -> dict[int, str]:
        """Name of each frame's image."""
        images: dict[int, str] = {}
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror}") from error
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(OTHER_IMAGES):
                raise MasksError(
                    self.path / name,
                    "masks are read only from PNGs, as JPEG blurs them; write PNGs from the source, or move it away",
                )
            if not name.lower().endswith(".png"):
                continue
            if leads_out(self.path / name, self._root):
                raise MasksError(
                    self.path / name, f"is a link that leads out of {self._root}; put the mask itself there"
                )
            index = frame_index(self.path, name, self._first)
            if index in images:
                raise MasksError(self.path, f"{images[index]} and {name} are the same frame {index}; keep one")
            images[index] = name
        return images

    @property
    def num_frames(self) -> int | None:
        """See `ExternalMasks`."""
        return None

    def indices(self) -> Sequence[int]:
        """See `ExternalMasks`."""
        return sorted(self._content)

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """See `ExternalMasks`."""
        name = self._content.get(index)
        if name is None:
            return None
        file, pixels = self.path / name, self._pixels(name)
        try:
            mask = foreground(pixels, self._values)
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

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """See `ExternalMasks`."""
        name = self._content.get(index)
        return None if name is None or self._values == "nonzero" else _unknown(self._pixels(name), self._values)

    def _pixels(self, name: str) -> NDArray[Any]:
        file = self.path / name
        try:
            return _decode_png(file.read_bytes())
        except OSError as error:
            raise MasksError(file, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise MasksError(file, str(error)) from error


def _decode_png(data: bytes) -> NDArray[Any]:
    """Pixels of a PNG without alpha: (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        ValueError: not a whole PNG.
    """
    _check_png(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"a PNG that cannot be decoded ({error.err}); write it again") from error
    if pixels is None:
        raise ValueError("a PNG that cannot be decoded; write it again")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., :3])


def _check_png(data: bytes) -> None:
    """Check that every chunk is complete and unchanged: decoders fill missing parts with background, some silently."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("expected a PNG, it does not begin like one; write it again")
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it again")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError(f"a PNG that breaks off after {len(data)} bytes; copy or write it again")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("a PNG whose bytes are damaged (a checksum is wrong); copy or write it again")
        at = end


class ArrayMasks(ExternalMasks):
    """Masks in an .npz, which is read at once and kept, or an .npy, which is paged in per frame."""

    def __init__(self, path: Path, values: MaskValues) -> None:
        super().__init__(path)
        self._values = values

    @cached_property
    def _content(self) -> tuple[NDArray[Any], Size | None]:
        """Masks (T, H, W) and None, or packed ones (T, P) and their size."""
        try:
            # A single array stays on disk and is paged in per frame. The content decides, not the name, as in numpy.
            return (self._checked(read_npy(self.path)), None) if is_npy(self.path) else self._of_npz()
        except MasksError:
            raise
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror or error}") from error
        except MemoryError as error:
            raise MasksError(self.path, f"{error}; an .npy is read frame by frame") from error
        except (MalformedFile, KeyError) as error:
            raise MasksError(
                self.path, f"is no complete .npz or .npy, or holds Python objects ({error}); write it again"
            ) from error

    def _of_npz(self) -> tuple[NDArray[Any], Size | None]:
        keys = npz_names(self.path)
        if "masks" not in keys and {"packed", "size"} <= set(keys):
            held = read_npz(self.path, ["packed", "size"])
            return self._checked_bits(held["packed"], held["size"])
        if "masks" in keys or len(keys) == 1:
            name = "masks" if "masks" in keys else keys[0]
            return self._checked(read_npz(self.path, [name])[name]), None
        raise MasksError(
            self.path, f"expected an array `masks`, or `packed` and `size`, it has: {', '.join(keys) or 'nothing'}"
        )

    def _checked(self, masks: NDArray[Any]) -> NDArray[Any]:
        if masks.ndim != 3 or 0 in masks.shape[1:]:
            raise MasksError(self.path, f"masks must be (T, H, W), got {masks.shape = }; a single mask is masks[None]")
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
        """See `ExternalMasks`."""
        return len(self._content[0])

    def indices(self) -> Sequence[int]:
        """See `ExternalMasks`."""
        return range(len(self._content[0]))

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """See `ExternalMasks`."""
        array, size = self._content
        if not 0 <= index < len(array):
            return None
        if size is not None:
            return unpack_mask(array[index], *size)
        try:
            return foreground(np.array(array[index]), self._values)
        except ValueError as error:
            raise MasksError(self.path, f"frame {index}: {error}") from error

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """See `ExternalMasks`."""
        array, size = self._content
        inside = size is None and 0 <= index < len(array)
        return _unknown(np.array(array[index]), self._values) if inside else None
