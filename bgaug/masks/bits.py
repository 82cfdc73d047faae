"""Masks as bits.

Letters: T frames, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size

_ROWS_AT_ONCE = 256


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks as bits: bool (..., H, W) to uint8 (..., P), most significant bit first, rows in order."""
    flat = mask.reshape(*mask.shape[:-2], -1)
    return np.packbits(flat, axis=-1)


def unpack_mask(packed: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    """Bits as masks: uint8 (..., P) to bool (..., H, W).

    Raises:
        ValueError: P is not ceil(height * width / 8).
    """
    if packed.shape[-1] != (height * width + 7) // 8:
        raise ValueError(
            f"masks of {height}x{width} pack into {(height * width + 7) // 8} bytes, got {packed.shape = }"
        )
    bits = np.unpackbits(packed, axis=-1, count=height * width)
    return bits.reshape(*packed.shape[:-1], height, width).astype(np.bool_)


class SmallMasks:
    """Foreground masks of all frames of a shot at a small working size, as bits.

    Args:
        packed: uint8 (T, P), one row for each frame of the shot; see `pack_mask`.
        size: (H, W), with the aspect of the frames.

    Raises:
        ValueError: the rows do not have the bytes of masks of that size.
    """

    def __init__(self, packed: NDArray[np.uint8], size: Size) -> None:
        if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != (size[0] * size[1] + 7) // 8:
            raise ValueError(f"masks of {size[0]}x{size[1]} are not {packed.dtype} {packed.shape = }")
        self.size = size
        self._packed = packed

    @classmethod
    def of(cls, masks: NDArray[np.bool_]) -> SmallMasks:
        """From masks, bool (T, H, W)."""
        return cls(pack_mask(masks), (masks.shape[1], masks.shape[2]))

    def __len__(self) -> int:
        """T."""
        return len(self._packed)

    def packed(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The rows of the frames `start` to `stop` of the shot, uint8 (stop - start, P)."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"there are masks of {len(self)} frames, not of the frames {start} to {stop}")
        return self._rows(start, stop)

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * ((self.size[0] * self.size[1] + 7) // 8)

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """All rows, some at a time: the memory stays bounded where they are read from a file."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield self.packed(start, min(start + _ROWS_AT_ONCE, len(self)))

    def at(self, frame: int) -> NDArray[np.bool_]:
        """The mask of frame number `frame` of the shot, bool (H, W)."""
        return unpack_mask(self.packed(frame, frame + 1)[0], *self.size)

    def _rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self._packed[start:stop]
