"""What all forms of masks have in common, and what their pixels and names mean.

Letters: H, W pixels, C channels.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.names import MaskValues

VALUES: tuple[str, ...] = get_args(MaskValues)

_CDNET = (0, 50, 85, 170, 255)
_UNTOLD = (85, 170)


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

    def unknown(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels of which a frame's mask does not say what they are, bool (H, W); None where it speaks of all.

        Raises:
            MasksError: as `frame`.
        """
        return None

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


def frame_index(path: Path, name: str, first: int) -> int:
    """Index of a frame by the last run of digits in a file's name."""
    runs = re.findall("[0-9]+", PurePosixPath(name).stem)
    if not runs or len(runs[-1]) > 18:
        raise MasksError(path, f"expected names that end in the frame's number, like 000012.png, got {name!r}")
    index = int(runs[-1]) - first
    if index < 0:
        raise MasksError(path, f"{name!r} lies before the first frame, which has the number {first}; see `first`")
    return index


def foreground(pixels: NDArray[Any], values: MaskValues) -> NDArray[np.bool_]:
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


def untold(pixels: NDArray[Any], values: MaskValues) -> NDArray[np.bool_] | None:
    """Pixels that a convention calls unknown (170) or outside of what was looked at (85), bool (H, W); else None."""
    if values != "cdnet" or pixels.dtype == np.bool_:
        return None
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    return np.isin(grey, _UNTOLD)


def leads_out(path: str | Path, root: Path) -> bool:
    """Whether a path is a link that leads out of the folder `root`, a resolved path."""
    return os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root)
