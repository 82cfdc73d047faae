"""What one video adds to a shard, gathered in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, quantise_noise
from bgaug.masks import pack_mask
from bgaug.store.format.jpeg import encode_jpeg
from bgaug.store.format.layout import Header, crc32c

_BLOCK = 1 << 20


@dataclass
class Gathered:
    """Runs of bytes end to end in a few large blocks: many small arrays would each touch fresh memory.

    Attributes:
        lengths: of each run.
    """

    lengths: list[int] = field(default_factory=list)
    _blocks: list[NDArray[np.uint8]] = field(default_factory=list)
    _filled: int = _BLOCK

    def append(self, data: NDArray[np.uint8]) -> None:
        """A further run, copied."""
        if self._filled + len(data) > _BLOCK:
            self._close()
            self._blocks.append(np.empty(max(_BLOCK, len(data)), np.uint8))
            self._filled = 0
        self._blocks[-1][self._filled : self._filled + len(data)] = data
        self._filled += len(data)
        self.lengths.append(len(data))

    def _close(self) -> None:
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: self._filled]

    @property
    def blocks(self) -> list[NDArray[np.uint8]]:
        """All of it, in order."""
        self._close()
        return self._blocks


@dataclass
class VideoPayload:
    """What one video adds to a shard; dropped as a whole if the video turns out bad.

    Args:
        header: of the store that it is for.
    """

    header: Header
    pts_seconds: list[float] = field(default_factory=list)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    jpegs: Gathered = field(default_factory=Gathered)
    checksums: list[int] = field(default_factory=list)
    masks: list[NDArray[np.uint8]] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)

    def add_frame(self, pts_seconds: float, image: NDArray[np.uint8] | None) -> None:
        """One frame at the store's size, uint8 (H, W, 3); None where the store keeps no frames."""
        self.pts_seconds.append(pts_seconds)
        if self.header.frames == "none" or image is None:
            return
        if self.header.frames == "jpeg":
            picture = encode_jpeg(image)
            self.jpegs.append(picture)
        else:
            picture = np.ascontiguousarray(image)
            self.pictures.append(picture)
        self.checksums.append(crc32c(picture))

    def add_masks(self, masks: NDArray[np.bool_]) -> None:
        """Masks of further frames, bool (n, H, W)."""
        for mask in masks:
            self.masks.append(np.packbits(mask))  # `pack_mask` for one: most come alone

    def packed_masks(self) -> NDArray[np.uint8]:
        """All masks as bits, uint8 (n, P); n = 0 where there are none."""
        height, width = self.header.size
        return np.stack(self.masks) if self.masks else np.empty((0, (height * width + 7) // 8), np.uint8)

    def add_background(self, background: Background) -> int:
        """The background of a further shot, at the store's size; returns its number within the video."""
        self.backgrounds.append(background)
        return len(self.backgrounds) - 1

    def content(self, packed_masks: NDArray[np.uint8]) -> str:
        """See `content_digest`; takes what `packed_masks` gave."""
        parts = [
            part
            for background in self.backgrounds
            for part in (background.image, quantise_noise(background.noise), pack_mask(background.valid))
        ]
        return content_digest(self.pts_seconds, self.checksums, [packed_masks, *parts])


def content_digest(
    pts_seconds: Sequence[float],
    checksums: Sequence[int],
    parts: Iterable[NDArray[Any]],
) -> str:
    """sha256 of what is stored for a video.

    Args:
        pts_seconds: of every frame.
        checksums: crc32c of every stored picture; a picture is known by it.
        parts: the masks, packed, none where the store has none; then of each background in turn its image, its
            quantised noise, its packed validity. Rows of an array may come one after the other.
    """
    digest = hashlib.sha256(np.asarray(pts_seconds, "<f8").tobytes())
    digest.update(np.asarray(checksums, "<u4").tobytes())
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
