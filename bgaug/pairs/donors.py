"""Who lends a background to whom, and pictures that are fit to be lent.

Letters: B clips, T frames, h, w pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs.draws import random_bits
from bgaug.pairs.filters import gaussian_blur

THUMBNAIL = 8  # side of the pictures by which backgrounds are compared
FILL_SIGMA = 1 / 8  # of the height: how far colours reach into what is filled


def derangement(video: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """A donor of another video for every clip, each clip giving at most once where all can be served.

    The clips are put in a random order that keeps those of one video together, and each takes the clip as many places
    on as the largest video has clips. That serves everybody exactly when no video holds more than half of the batch,
    and otherwise as many as can be served. Permuting the batch permutes the result.

    Args:
        video: int64 (B,), index of each clip's video.
        key: int64 (B,), randomness.

    Returns:
        donor: int64 (B,), a place in the batch; the clip's own where no other video was left for it.
        valid: bool (B,), whether the donor is of another video.
    """
    (B,) = video.shape
    # Salted by all keys at once, in a way that does not depend on their order; a bijection of the video's index.
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
    """A random permutation of the batch, fixed points and all, as published code draws donors: int64 (B,).

    Permuting the batch permutes the result: the clip with the n-th smallest of one hash takes the clip with the n-th
    smallest of another.
    """
    takers = torch.argsort(random_bits(key, "permutation/taker"), stable=True)
    givers = torch.argsort(random_bits(key, "permutation/giver"), stable=True)
    return torch.empty_like(takers).scatter_(0, takers, givers)


def similar_backgrounds(backgrounds: Tensor, video: Tensor, far: bool = False) -> tuple[Tensor, Tensor]:
    """For every clip the background of another video that is most, or least, like its own.

    Likeness is the mean absolute difference of pictures shrunk to 8x8. Several clips may get the same donor.

    Args:
        backgrounds: float (B, 3, 1, h, w).
        video: int64 (B,).
        far: the least similar.

    Returns:
        donor and valid, as `derangement` has them.
    """
    small = F.adaptive_avg_pool2d(backgrounds[:, :, 0], THUMBNAIL).flatten(1)
    distance = torch.cdist(small, small, p=1.0)
    same = video.unsqueeze(0) == video.unsqueeze(1)
    distance = distance.masked_fill(same, -torch.inf if far else torch.inf)
    donor = distance.argmax(dim=1) if far else distance.argmin(dim=1)
    valid = video[donor] != video
    return torch.where(valid, donor, torch.arange(len(video), device=video.device)), valid


def fill_foreground(images: Tensor, masks: Tensor) -> Tensor:
    """Pictures whose foreground is filled smoothly with the colours around it.

    Colours and their weights (1 outside of the mask) are blurred alike, and divided: near colours count more. The
    reach is an eighth of the height; what lies deeper takes the mean of the whole outside.

    Args:
        images: float in [0, 1], (B, 3, 1, h, w).
        masks: float in [0, 1], (B, 1, 1, h, w).

    Returns:
        float in [0, 1], (B, 3, 1, h, w); equal to the picture where the mask is 0.
    """
    B, C, T, h, w = images.shape
    outside = 1 - masks
    both = torch.cat([images * outside, outside], dim=1)
    reach = gaussian_blur(both, FILL_SIGMA * h)
    # A faint share of the mean colour: all that is left where no colour reaches.
    total = both.mean(dim=(2, 3, 4), keepdim=True)
    reach = reach + 1e-3 * total + 1e-12
    return torch.lerp(images, (reach[:, :C] / reach[:, C:]).clamp(0, 1), masks)
