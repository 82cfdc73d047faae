"""Masks as bits.

Letters: H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
