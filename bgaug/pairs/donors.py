"""Which clip borrows the background of which, and images whose foreground is filled.

Letters: B clips, T frames, h, w pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs.draws import random_bits
from bgaug.pairs.filters import gaussian_blur

_THUMBNAIL = 8  # side of the images by which backgrounds are compared
_FILL_SIGMA = 1 / 8  # share of the height: how far colours reach into a filled region


def derangement(video: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """A donor of another video for every clip; each clip is a donor at most once where that is possible.

    The clips are put in a random order in which clips of one video are neighbours, and each takes the clip k places
    further on, where k is the number of clips of the largest video. Every clip gets a donor exactly if no video holds
    more than half of the batch, and otherwise as many as possible do. Permuting the batch permutes the result.

    Args:
        video: int64 (B,), index of each clip's video.
        key: int64 (B,), randomness.

    Returns:
        donor: int64 (B,), a place in the batch; the clip's own where no other video was left for it.
        valid: bool (B,), whether the donor is another video.
    """
    (B,) = video.shape
    # The salt depends on all keys, but not on their order; with it the hash is a bijection of the video's index.
    salt = random_bits(key, "derangement/batch").sum()
    group = random_bits(video + salt, "derangement/group")
    within = torch.argsort(random_bits(key, "derangement/clip"), stable=True)
    order = within[torch.argsort(group[within], stable=True)]
    largest = (video.unsqueeze(0) == video.unsqueeze(1)).sum(dim=1).max()
    places = torch.arange(B, device=video.device)
    donor = torch.empty_like(order).scatter_(0, order, order[(places + largest) % B])
    valid = video[donor] != video
    return torch.where(valid, donor, places), valid


def permutation(key: Tensor) -> Tensor:
    """A random permutation of the batch, with fixed points, as published code draws donors: int64 (B,).

    Permuting the batch permutes the result.
    """
    # The clip with the n-th smallest value of one hash takes the clip with the n-th smallest value of another.
    takers = torch.argsort(random_bits(key, "permutation/taker"), stable=True)
    givers = torch.argsort(random_bits(key, "permutation/giver"), stable=True)
    return torch.empty_like(takers).scatter_(0, takers, givers)


def similar_backgrounds(backgrounds: Tensor, video: Tensor, far: bool = False) -> tuple[Tensor, Tensor]:
    """For every clip the most, or the least, similar background of another video.

    Backgrounds are compared by the mean absolute difference of images of 8x8 pixels. Several clips may get the same
    donor.

    Args:
        backgrounds: float (B, 3, 1, h, w).
        video: int64 (B,).
        far: take the least similar.

    Returns:
        donor and valid, as in `derangement`.
    """
    small = F.adaptive_avg_pool2d(backgrounds[:, :, 0], _THUMBNAIL).flatten(1)
    distance = torch.cdist(small, small, p=1.0)
    same = video.unsqueeze(0) == video.unsqueeze(1)
    distance = distance.masked_fill(same, -torch.inf if far else torch.inf)
    donor = distance.argmax(dim=1) if far else distance.argmin(dim=1)
    valid = video[donor] != video
    return torch.where(valid, donor, torch.arange(len(video), device=video.device)), valid


def fill_foreground(images: Tensor, masks: Tensor) -> Tensor:
    """Images whose foreground is filled smoothly with the colours around it.

    Colours and their weights (1 outside the mask) are blurred in the same way, and divided: near colours count more.
    They reach an eighth of the height; further inside the fill is the mean colour outside the mask.

    Args:
        images: float in [0, 1], (B, 3, 1, h, w).
        masks: float in [0, 1], (B, 1, 1, h, w).

    Returns:
        float in [0, 1], (B, 3, 1, h, w); equal to the image where the mask is 0.
    """
    B, C, T, h, w = images.shape
    outside = 1 - masks
    both = torch.cat([images * outside, outside], dim=1)
    reach = gaussian_blur(both, _FILL_SIGMA * h)
    # A small share of the mean colour, which decides only where no colour reaches.
    total = both.mean(dim=(2, 3, 4), keepdim=True)
    reach = reach + 1e-3 * total + 1e-12
    return torch.lerp(images, (reach[:, :C] / reach[:, C:]).clamp(0, 1), masks)
