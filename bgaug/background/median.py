"""The temporal median, exact and fast.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_SAMPLES = 51
"""Samples of a shot: 51 evenly spaced frames are as accurate as all 250 of a clip. Odd, so the median is a sample."""

_CHUNK_BYTES = 2**19


def evenly_spaced(num_frames: int, num_samples: int) -> NDArray[np.int64]:
    """Indices of at most `num_samples` of `num_frames` frames, with both ends; an odd number if possible."""
    count = min(num_frames, num_samples)
    if count > 2 and count % 2 == 0:
        count -= 1
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def median_by_bits(samples: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Exact (lower) median along the first axis by a search from the highest bit down.

    Equal to ``numpy.median`` for odd S; for even S the lower of the middle two, where ``numpy.median`` averages. The
    median is the largest value v with at most (S - 1) // 2 samples below it. Eight rounds of comparing and
    counting in bytes replace a sort: no branch, no gap, and several times faster than selection whatever the values.

    Args:
        samples: S arrays of one shape, uint8, or one array (S, ...) of them.

    Returns:
        uint8, of the shape of a sample.
    """
    num_samples = len(samples)
    rows = [np.ascontiguousarray(sample).reshape(-1) for sample in samples]
    num_values = rows[0].size
    # A chunk is read eight times, so it and its flags should stay in the second-level cache. Gathering it there also
    # avoids a copy of all samples. Its length is a multiple of eight for the counting by words.
    chunk = min(_CHUNK_BYTES // num_samples // 64 * 64 or 64, 32768, -(-num_values // 8) * 8)
    median = np.empty(num_values, np.uint8)
    part = np.zeros((num_samples, chunk), np.uint8)
    below = np.empty((num_samples, chunk), np.bool_)
    for left in range(0, num_values, chunk):
        width = min(chunk, num_values - left)
        for place, row in zip(part, rows, strict=True):
            place[:width] = row[left : left + width]
        median[left : left + width] = _median_of_chunk(part, below, (num_samples - 1) // 2)[:width]
    return median.reshape(np.shape(samples[0]))


def median_where(
    samples: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], counted: Sequence[NDArray[np.bool_]] | NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Exact (lower) median, at each place, over the samples that count there.

    Args:
        samples: S of uint8 (...) or (..., C).
        counted: S of bool (...), which of them count.

    Returns:
        uint8, of the shape of a sample; undefined where no sample counts.
    """
    rank = ((np.sum(counted, axis=0, dtype=np.int16) - 1) // 2).reshape(-1, 1)
    values = [sample.reshape(len(rank), -1) for sample in samples]
    flags = [count.reshape(-1, 1) for count in counted]
    median = np.zeros(values[0].shape, np.uint8)
    rows = max(1, 2**19 // (len(values) * median.shape[1]))
    for top in range(0, len(rank), rows):
        place = slice(top, top + rows)
        # A sample that does not count is never below a candidate.
        part = np.stack(
            [np.where(flag[place], one[place], np.uint8(255)) for one, flag in zip(values, flags, strict=True)]
        )
        found = median[place]
        for bit in (128, 64, 32, 16, 8, 4, 2, 1):
            candidate = found | np.uint8(bit)
            below = np.add.reduce(part < candidate, axis=0, dtype=np.int16)
            np.copyto(found, candidate, where=below <= rank[place])
    return median.reshape(samples[0].shape)


def _median_of_chunk(part: NDArray[np.uint8], below: NDArray[np.bool_], rank: int) -> NDArray[np.uint8]:
    found = np.zeros(part.shape[1], np.uint8)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        np.less(part, found | np.uint8(bit), out=below)
        # Arithmetic on the flags: a masked copy would cost as much as comparing all samples does.
        found |= (_count(below) <= rank).view(np.uint8) * np.uint8(bit)
    return found


def _count(flags: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Flags set in each column, (S, N) with N a multiple of 8: (N,)."""
    # Eight byte counters are added as one word: up to 255 samples there is no carry; more are summed by blocks.
    words = flags.view(np.uint64)
    counts: NDArray[np.integer] = np.add.reduce(words[:255], axis=0).view(np.uint8)
    if len(flags) > 255:
        counts = counts.astype(np.uint32)
        for block in range(255, len(flags), 255):
            counts += np.add.reduce(words[block : block + 255], axis=0).view(np.uint8)
    return counts
