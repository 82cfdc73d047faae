"""Run lengths of COCO, decoded.

Letters: H, W pixels.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size

# Files that claim more are not believed: a few bytes can claim any size.
_MOST_PIXELS = 2**28


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
        return parse_size(run["size"])
    kind = "a polygon: convert it, with pycocotools' annToRLE" if isinstance(run, list) else reprlib.repr(run)
    raise ValueError(f'expected run lengths {{"size": [height, width], "counts": ...}}, got {kind}')


def parse_size(size: Any) -> Size:
    """(height, width) from [height, width].

    Raises:
        ValueError: it is none.
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
