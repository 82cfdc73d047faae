"""The gated median: samples in which a pixel is still get a larger weight.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.samples import ShotSamples
from bgaug.sizing import Size

_WEIGHT = 32
"""Weight of a still sample; others have 1. So two still samples outvote all others."""

_LAG = 3  # samples; at lag 1 the change of a slow object is no larger than noise
_SPREADS, _SLACK = 2 * 1.4826, 1.0  # median absolute deviations, as standard deviations of a normal law; grey levels
_MOST_STILL = 10.0  # grey levels: if most of the image moves, its median change is no measure of noise


def gated_median(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The median of the samples, in which samples that are still at a pixel weigh 32 times as much as the others.

    An object that crosses slowly covers a pixel in over half of the samples and spoils the plain median; but it changes
    while it moves, and the ground does not. A sample is still at a pixel if its change to the third sample before and
    after it, and to the second frame after it, is usual for that pair of images. Where no sample is still, or all are,
    the result equals the plain median to the bit.

    Limits: people who stand for over half of the shot, and objects as plain as the ground that they slide over, remain.
    Three to five times the CPU time of the plain median: 50 to 80 ms for 51 samples of 320x240.

    Returns:
        The image, uint8 (H, W, 3), and where it was seen: everywhere, as far as a median shows.
    """
    still = still_samples(shot)
    return weighted_median(shot.images, still), np.ones(shot.size, np.bool_)


def still_samples(shot: ShotSamples) -> list[NDArray[np.bool_]]:
    """Where each sample is still: S of bool (ceil(H / 2), ceil(W / 2))."""
    height, width = shot.size
    half = ((height + 1) // 2, (width + 1) // 2)
    small = [_to_half(image[..., 1], half) for image in shot.images]
    between = [_usual(np.asarray(cv2.absdiff(a, b), np.uint8)) for a, b in zip(small, small[_LAG:], strict=False)]
    found = []
    for index, change in enumerate(shot.changes):
        still = _usual(_to_half(change, half))
        for neighbour in (index - _LAG, index):
            if 0 <= neighbour < len(between):
                still = still & between[neighbour]
        found.append(still)
    return found


def _to_half(change: NDArray[np.uint8], half: Size) -> NDArray[np.uint8]:
    if change.shape == half:
        return change
    return np.asarray(cv2.resize(change, half[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _usual(change: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a change, smoothed, is no larger than the noise and the light make it all over the image."""
    smooth = np.asarray(cv2.blur(change, (5, 5)), np.uint8)
    some = smooth[::2, ::2]
    middle = float(np.median(some))
    spread = float(np.median(np.abs(some - np.float32(middle))))
    return np.asarray(smooth <= min(middle + _SPREADS * spread + _SLACK, _MOST_STILL))


def weighted_median(
    samples: Sequence[NDArray[np.uint8]], heavy: Sequence[NDArray[np.bool_]], weight: int = _WEIGHT
) -> NDArray[np.uint8]:
    """Exact (lower) weighted median over samples, of which some weigh more.

    As `median_by_bits`, the search goes from the highest bit down for the largest value v such that the samples below
    it have less than half of the votes. Votes are two counts of bytes, of all samples and of the heavy ones, which is
    faster than adding up wider weights.

    Args:
        samples: S of uint8 (H, W, 3), at most 255.
        heavy: S of bool (h, w), brought to H x W by the nearest neighbour: where a sample has `weight` votes.
        weight: whole number of votes, at least 1; other samples have one.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: no samples, more than 255, not as many `heavy`, or a weight below 1.
    """
    num_samples = len(samples)
    if not 1 <= num_samples <= 255 or len(heavy) != num_samples or weight < 1:
        raise ValueError(
            f"need 1 to 255 samples, as many heavy and a weight >= 1, got {num_samples}, {len(heavy)} and {weight = }"
        )
    height, width, _ = samples[0].shape
    rows = max(1, 2**18 // (num_samples * width * 3))  # of two blocks that should stay in the second-level cache
    own = [_widened(flags, (height, width)) for flags in heavy]
    median = np.empty((height, width * 3), np.uint8)
    part = np.empty((num_samples, rows, width * 3), np.uint8)
    heavier = np.empty_like(part)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        for place, flags, sample, wide in zip(part, heavier, samples, own, strict=True):
            place[:count] = sample[top : top + count].reshape(count, -1)
            flags[:count] = cv2.merge([wide[top : top + count]] * 3).reshape(count, -1)
        median[top : top + count] = _weighted_median_of_block(part[:, :count], heavier[:, :count], weight)
    return median.reshape(height, width, 3)


def _widened(flags: NDArray[np.bool_], size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(flags.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _weighted_median_of_block(part: NDArray[np.uint8], heavy: NDArray[np.uint8], weight: int) -> NDArray[np.uint8]:
    num_samples = len(part)
    more = np.uint32(weight - 1)
    votes = num_samples + more * np.add.reduce(heavy, axis=0, dtype=np.uint8)
    most_below = (votes - 1) // 2
    found = np.zeros(part.shape[1:], np.uint8)
    below = np.empty(part.shape, np.bool_)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        candidate = found | np.uint8(bit)
        np.less(part, candidate, out=below)
        flags = below.view(np.uint8)
        counted = np.add.reduce(flags, axis=0, dtype=np.uint8).astype(np.uint32)
        flags &= heavy
        counted += more * np.add.reduce(flags, axis=0, dtype=np.uint8)
        np.copyto(found, candidate, where=counted <= most_below)
    return found
