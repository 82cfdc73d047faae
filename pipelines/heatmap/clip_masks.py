"""What is known of a clip's foreground: the store's own masks, or true ones made elsewhere, also of some frames alone.

Letters: T frames of a clip, H, W pixels of a stored frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.masks.external import ExternalMasks, find_masks
from bgaug.names import MaskValues
from bgaug.sizing import Size, fit_frame
from bgaug.store import Store

_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class ClipMasks:
    """Masks of a clip's frames.

    Attributes:
        foreground: bool (T, H, W), False where nothing is known.
        unknown: bool (T, H, W), pixels of which the mask does not say what they are.
        there: bool (T,), which frames have a mask at all.
    """

    foreground: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    there: NDArray[np.bool_]

    @classmethod
    def none(cls, num_frames: int, size: Size) -> Self:
        """Of a clip of which nothing is known."""
        empty = np.zeros((num_frames, *size), np.bool_)
        return cls(empty, empty, np.zeros(num_frames, np.bool_))

    @property
    def middle(self) -> int:
        """The frame with a mask that is nearest to the middle; the middle where none has one."""
        half = len(self.there) // 2
        known = np.flatnonzero(self.there)
        return int(known[np.abs(known - half).argmin()]) if len(known) else half


class StoreTruth:
    """The masks that a store holds, of every frame: bgaug's estimates, unless others were imported.

    Attributes:
        name: what these masks are.
        short: the same, as the title of a column.
        videos: indices of the videos that have masks.
    """

    name = "the store's own, which bgaug estimated unless others were imported"
    short = "store's mask"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.videos = tuple(range(len(store)))

    def moved(self, video: int, indices: NDArray[np.int64], shot: tuple[int, int]) -> NDArray[np.int64]:
        """The clip as it is."""
        return indices

    def masks(self, video: int, indices: NDArray[np.int64]) -> ClipMasks:
        """Masks of frames, int64 (T,)."""
        foreground = np.concatenate([self._store.masks(video, int(index), 1) for index in indices])
        return ClipMasks(foreground, np.zeros_like(foreground), np.ones(len(indices), np.bool_))


class ForeignTruth:
    """Masks made elsewhere, of the frames that have one; arguments but the store's as of `find_masks`.

    Attributes:
        name: what these masks are.
        short: the same, as the title of a column.
        videos: indices of the videos that have masks.

    Raises:
        MasksError: they cannot be understood, or belong to no video of the store.
        UsageError: an option is out of range.
    """

    short = "true mask"

    def __init__(self, store: Store, path: Path, first: int = 0, values: MaskValues = "nonzero") -> None:
        found = find_masks(path, list(store.videos), first=first, values=values)
        if not found.of:
            raise MasksError(
                path, f"holds no masks of the {len(store)} videos of {store.path}; see `bgaug import --help`"
            )
        self.name = f"{path}, on the frames that have one there"
        self._store = store
        self._of = {store.find(video_id): masks for video_id, masks in found.of.items()}
        self.videos: tuple[int, ...] = tuple(sorted(self._of))

    def moved(self, video: int, indices: NDArray[np.int64], shot: tuple[int, int]) -> NDArray[np.int64]:
        """The nearest clip of the shot that sees a frame with a mask; the clip as it is where none does."""
        try:
            known = self._indices(video)
        except MasksError:
            return indices  # told when the masks are read
        steps = indices - indices[0]
        begins = np.arange(shot[0], shot[1] - steps.max())
        sees = begins[np.isin(begins[:, None] + steps, known).any(axis=1)]
        return indices if not len(sees) else sees[np.abs(sees - indices[0]).argmin()] + steps

    def masks(self, video: int, indices: NDArray[np.int64]) -> ClipMasks:
        """Masks of frames, int64 (T,).

        Raises:
            MasksError: they cannot be understood, or are not of this video.
        """
        known, masks = set(self._indices(video)), self._of[video]
        found = ClipMasks.none(len(indices), self._store.size)
        foreground, unknown = found.foreground.copy(), found.unknown.copy()
        with masks:
            for place, index in enumerate(indices.tolist()):
                if index not in known:
                    continue
                mask, untold = masks.frame(index), masks.unknown(index)
                if mask is None:
                    continue
                found.there[place] = True
                foreground[place] = self._fitted(video, masks, mask)
                if untold is not None:
                    unknown[place] = self._fitted(video, masks, untold)
        return ClipMasks(foreground, unknown & ~foreground, found.there)

    def _indices(self, video: int) -> Sequence[int]:
        masks, num_frames = self._of[video], self._store.num_frames(video)
        indices = masks.indices()
        if len(indices) and indices[-1] >= num_frames:
            mend = "; numbers that begin with 1 take --first 1" if masks.num_frames is None else ""
            raise MasksError(
                masks.path, f"has a mask of frame {indices[-1]}, the video has {num_frames}, counted from 0{mend}"
            )
        return indices

    def _fitted(self, video: int, masks: ExternalMasks, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Brought to the store's size as its frames were."""
        header, (height, width) = self._store.header, mask.shape
        if (height, width) == header.size:
            return mask
        source = int(self._store.columns.height[video]), int(self._store.columns.width[video])
        if abs(width * source[0] / (height * source[1]) - 1) > _ASPECT_TOLERANCE:
            raise MasksError(
                masks.path,
                f"masks are {height}x{width}, the video {source[0]}x{source[1]}: expected masks of all of the picture, of "
                f"any size of its aspect, or of the store's {header.size[0]}x{header.size[1]}",
            )
        return np.asarray(fit_frame(mask.astype(np.uint8) * 255, header.size, header.fit) > 127)
