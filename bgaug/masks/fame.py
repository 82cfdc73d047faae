"""FAME's mask: one for a whole clip, by motion and colour, without a background.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]

_BLUR_SHARE = 0.1  # of the short side: length of the Gaussian kernel
_SEED_FOREGROUND, _SEED_BACKGROUND = 0.5, 0.1  # shares of the picture that move most and least
_BINS = 10


def fame_mask(frames: NDArray[np.uint8], share: float = 0.5, published: bool = False) -> NDArray[np.bool_]:
    """The share of the picture that most likely belongs to what moves, once for the whole clip.

    Where the frames differ most on average and where they differ least give two colour histograms of the mean frame;
    each pixel's colour then says how much more often it is seen where things move. A mask of a fixed area is a proxy
    for training, not a segmentation: it covers as much of an empty street as of a crowd, one mask blurs along the
    way of whoever walks, and under a moving camera it marks edges. Without any motion it is arbitrary, but the same
    each time.

    Args:
        frames: uint8 (T, H, W, 3), RGB, T >= 2. The paper takes 16 frames, every second of 32, at 112x112 or 224x224.
        share: in (0, 1], of the picture that the mask covers; the paper's beta, there 0.5.
        published: take the hue as the published code does. It multiplies a hue that is already in radians by 2 pi
            once more, so that red, yellow-green and cyan (0, 57 and 172 degrees) fall into one bin. False uses the hue
            as it is. Everything else is as published either way, the bins and the numbers of pixels included.

    Returns:
        bool (H, W), of which `int(share * H * W)` pixels, at least one, are True.

    Raises:
        ValueError: frames of another shape or type, fewer than two, or a share outside (0, 1].

    Reference: Ding et al., Motion-aware contrastive video representation learning via foreground-background merging,
    CVPR 2022, arXiv 2109.15130, section 3.2. Written from the description; kernel, bins and the rounding of counts
    follow the published code. It leaves open which of equal pixels are taken; here the first in reading order are.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) < 2:
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 2, got {frames.dtype} {frames.shape = }")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    motion = _spread(_motion(frames))
    moving = _largest(motion, _SEED_FOREGROUND)
    still = _largest(-motion, _SEED_BACKGROUND)
    mean = frames.mean(0, dtype=np.float32) / np.float32(255)
    colours = _colour_bins(mean, hue_factor=2 * math.pi if published else 1.0)
    return _largest(_spread(_likelihood(colours, moving, still)), share)


def _motion(frames: NDArray[np.uint8]) -> _Floats:
    """Mean absolute difference of successive frames, summed over the channels: (H, W)."""
    total = np.zeros(frames.shape[1:], np.float32)
    for previous, image in pairwise(frames):
        total += cv2.absdiff(previous, image)
    motion: _Floats = total.sum(2) / np.float32(255 * (len(frames) - 1))
    return motion


def _spread(score: _Floats) -> _Floats:
    """Blurred by a tenth of the short side."""
    # The paper also stretches the result to [0, 1], which changes no order and so no mask.
    length = 2 * (int(_BLUR_SHARE * min(score.shape)) // 2) + 1
    return np.asarray(cv2.GaussianBlur(score, (length, length), length / 3), np.float32)


def _largest(score: _Floats, share: float) -> NDArray[np.bool_]:
    """The given share of pixels with the largest score; of equal ones the first in reading order."""
    H, W = score.shape
    count = max(1, int(share * H * W))  # rounded down, as published
    mask = np.zeros(score.size, np.bool_)
    mask[np.argsort(-score, axis=None, kind="stable")[:count]] = True
    return mask.reshape(score.shape)


def _colour_bins(image: _Floats, hue_factor: float) -> NDArray[np.int64]:
    """Number of each pixel's colour bin, int64 (H, W), from RGB in [0, 1]: ten by ten of the disc, ten values.

    Bins are centred on multiples of a ninth, so the two outer ones are half as wide. The published code counts them
    from 1, and that decides where grey goes: at saturation 0 both parts are 0.5, a tie, which rounds to the even number.
    """
    hue_degrees, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    angle = np.radians(hue_degrees) * np.float32(hue_factor)
    parts = ((saturation * np.cos(angle) + 1) / 2, (saturation * np.sin(angle) + 1) / 2, value)
    bins = [np.rint(part * (_BINS - 1) + 1).astype(np.int64) - 1 for part in parts]
    return np.asarray((bins[0] * _BINS + bins[1]) * _BINS + bins[2])


def _likelihood(colours: NDArray[np.int64], moving: NDArray[np.bool_], still: NDArray[np.bool_]) -> _Floats:
    """Probability of each pixel's colour among the moving seeds, against that among the still ones."""
    among_moving = np.bincount(colours[moving], minlength=_BINS**3).astype(np.float32)
    among_still = np.bincount(colours[still], minlength=_BINS**3).astype(np.float32) + 1  # no colour is impossible
    among_moving /= among_moving.sum()
    among_still /= among_still.sum()
    ratio: _Floats = (among_moving / (among_moving + among_still))[colours]
    return ratio
