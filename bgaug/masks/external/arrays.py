"""Masks as arrays: .npz and .npy.

Letters: T frames, H, W pixels, P packed bytes of one mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError
from bgaug.masks.bits import unpack_mask
from bgaug.masks.external.form import ForeignMasks, foreground, untold
from bgaug.names import MaskValues
from bgaug.sizing import Size
from bgaug.untrusted import MalformedFile
from bgaug.untrusted.archives import is_npy, npz_names, read_npy, read_npz


class ArrayMasks(ForeignMasks):
    """Masks in an .npz, read whole and kept, or an .npy, paged in by the frame."""

    def __init__(self, path: Path, values: MaskValues) -> None:
        super().__init__(path)
        self._values = values

    @cached_property
    def _content(self) -> tuple[NDArray[Any], Size | None]:
        """Masks (T, H, W) and None, or packed ones (T, P) and their size."""
        try:
            # A lone array stays on disk and is paged in by the frame; told apart by content, as numpy does.
            return (self._checked(read_npy(self.path)), None) if is_npy(self.path) else self._of_npz()
        except MasksError:
            raise
        except OSError as error:
            raise MasksError(self.path, f"cannot be read: {error.strerror or error}") from error
        except MemoryError as error:
            raise MasksError(self.path, f"{error}; an .npy is read by the frame") from error
        except (MalformedFile, KeyError) as error:
            raise MasksError(
                self.path, f"is no whole .npz or .npy, or holds Python objects ({error}); write it anew"
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
        """See `ForeignMasks`."""
        return len(self._content[0])

    def indices(self) -> Sequence[int]:
        """See `ForeignMasks`."""
        return range(len(self._content[0]))

    def frame(self, index: int) -> NDArray[np.bool_] | None:
        """See `ForeignMasks`."""
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
        """See `ForeignMasks`."""
        array, size = self._content
        inside = size is None and 0 <= index < len(array)
        return untold(np.array(array[index]), self._values) if inside else None
