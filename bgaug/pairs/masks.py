"""Foreground masks on the device: stored masks made soft, and masks that are computed from the clip.

Letters: B clips, T frames, h, w pixels of the crop.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs.draws import uniform
from bgaug.pairs.filters import dilate, gaussian_blur

_BINS = 10
_FOREGROUND, _BACKGROUND = 0.5, 0.1  # FAME: shares of the image that move most and least


def unpack_masks(packed: Tensor, height: int, width: int) -> Tensor:
    """Foreground bits to one byte a pixel.

    Args:
        packed: uint8 (..., P) with P = ceil(height * width / 8), most significant bit first.
        height: pixels H.
        width: pixels W.

    Returns:
        uint8 (..., H, W), 0 or 1, on the device of `packed`.

    Raises:
        ValueError: P does not fit height and width.
    """
    expected = (height * width + 7) // 8
    if packed.shape[-1] != expected:
        raise ValueError(f"masks of {height}x{width} pack into {expected} bytes a frame, got {packed.shape = }")
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) >> shifts) & 1
    return bits.flatten(-2)[..., : height * width].reshape(*packed.shape[:-1], height, width)


def soften(mask: Tensor, grow: float, sigma: float, out: Tensor | None = None) -> Tensor:
    """A mask grown and feathered, so that its border keeps some of the clip's own background.

    Args:
        mask: float32 in [0, 1], (B, 1, T, h, w).
        grow: radius of the dilation, see `bgaug.pairs.dilate`.
        sigma: Gaussian feather, pixels; 0 for none.
        out: memory for the result, perhaps `mask` itself; new memory if None.

    Returns:
        float32 in [0, 1], (B, 1, T, h, w).

    Raises:
        ValueError: grow or sigma is negative.
    """
    if grow < 0 or sigma < 0:
        raise ValueError(f"grow and sigma are pixels, at least 0, got {grow = }, {sigma = }")
    grown = dilate(mask, grow, out=out) if grow else mask
    if sigma == 0:
        return grown
    return gaussian_blur(grown, sigma, out=grown if grow else out).clamp_(0, 1)


def motion_masks(clips: Tensor, background: Tensor, beta: float = 0.35) -> Tensor:
    """Soft foreground masks of clips without stored masks, from their difference from the background and their motion.

    The larger of the difference from the background and the difference from the previous frame, blurred (5x5, sigma
    5/3 at 32 pixels, scaled with the height), goes through a sigmoid at its quantile ``1 - 0.6 beta`` over the clip.
    The constants are ours, found by experiment.

    Args:
        clips: float32 in [0, 1], (B, 3, T, h, w), T at least 2.
        background: float32 in [0, 1], (B, 3, 1, h, w), the same crop of the static background.
        beta: share of the clip to keep, in (0, 1]; 0.35 keeps about a quarter.

    Returns:
        float32 in (0, 1), (B, 1, T, h, w).

    Raises:
        ValueError: fewer than two frames, or beta out of range.
    """
    B, C, T, h, w = clips.shape
    if T < 2:
        raise ValueError(f"motion needs at least 2 frames, got {T = }")
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be in (0, 1], got {beta = }")
    step = (clips[:, :, 1:] - clips[:, :, :-1]).abs().sum(dim=1, keepdim=True)
    step = torch.cat([step[:, :, :1], step], dim=2)
    difference = torch.maximum((clips - background).abs().sum(dim=1, keepdim=True), step)
    sigma = difference.new_full((B,), 5 / 3 * h / 32)
    difference = gaussian_blur(difference, sigma, radius=max(1, round(2 * h / 32)))
    rank = 1 + round((1 - 0.6 * beta) * (T * h * w - 1))
    threshold = difference.flatten(1).kthvalue(rank, dim=1).values.view(B, 1, 1, 1, 1)
    return torch.sigmoid((difference - threshold) / (0.15 * threshold + 1e-3))


def fame_masks(clips: Tensor, share: float = 0.5, published: bool = False) -> Tensor:
    """FAME's mask: the share of the image that most likely belongs to the foreground, one mask for all frames.

    The pixels whose mean difference between frames is largest and smallest give two colour histograms of the mean
    frame. The likelihood of a pixel is the share of its colour that was seen among the moving pixels. Differences and
    likelihood are blurred by a Gaussian.

    Args:
        clips: float in [0, 1], (B, 3, T, h, w), T at least 2, before any change of colour.
        share: share of the image that the mask covers, in (0, 1]; the paper's beta, there 0.5.
        published: multiply the hue in radians by 2 pi once more, as the published code does. Everything else is as
            published in both cases.

    Returns:
        float32, 0 or 1, (B, 1, 1, h, w): `int(share * h * w)` ones a clip, at least one.

    Raises:
        ValueError: fewer than two frames, or a share out of range.

    Reference: S. Ding et al., "Motion-aware contrastive video representation learning via foreground-background
        merging", CVPR 2022, arXiv 2109.15130, section 3.2.
    """
    B, C, T, h, w = clips.shape
    if T < 2:
        raise ValueError(f"motion needs at least 2 frames, got {T = }")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share = }")
    clips = clips.float()
    length = 2 * (int(0.1 * min(h, w)) // 2) + 1
    motion = (clips[:, :, 1:] - clips[:, :, :-1]).abs().mean(dim=2).sum(dim=1)
    motion = _reflecting_blur(motion, length)
    colours = _colour_bins(clips.mean(dim=2), published)
    moving, still = _largest(motion, _FOREGROUND), _largest(-motion, _BACKGROUND)
    among_moving, among_still = (_histogram(colours, seeds) for seeds in (moving, still))
    # The paper also stretches the likelihood to [0, 1], which changes no order and so no mask.
    among_still = among_still + 1  # no colour gets the probability 0
    among_moving = among_moving / among_moving.sum(dim=1, keepdim=True)
    among_still = among_still / among_still.sum(dim=1, keepdim=True)
    likelihood = (among_moving / (among_moving + among_still)).gather(1, colours)
    return _largest(_reflecting_blur(likelihood.view(B, h, w), length), share).view(B, 1, 1, h, w)


def box_masks(mask: Tensor) -> Tensor:
    """The bounding box of each frame's mask: 0 or 1, (B, 1, T, h, w); 0 everywhere if the mask is empty."""
    inside = mask > 0.5
    rows, columns = _span(inside.any(dim=4)), _span(inside.any(dim=3))
    return (rows.unsqueeze(4) & columns.unsqueeze(3)).to(torch.float32)


def random_boxes(key: Tensor, area: Tensor, size: tuple[int, int]) -> Tensor:
    """One box per clip, with the image's aspect, at a random place; it is cut at the border.

    Args:
        key: int64 (B,).
        area: float (B,), share of the image that a whole box covers.
        size: (h, w), pixels.

    Returns:
        float32, 0 or 1, (B, 1, 1, h, w): 1 inside.

    Reference: S. Yun et al., "CutMix", ICCV 2019, arXiv 1905.04899, equation 2.
    """
    half = area.clamp(0, 1).sqrt() / 2
    centre = uniform(key, "random_boxes", 2)
    spans = []
    for axis, pixels in enumerate(size):
        grid = (torch.arange(pixels, device=key.device) + 0.5) / pixels
        spans.append((grid - centre[:, axis : axis + 1]).abs() < half.unsqueeze(1))
    rows, columns = spans
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).to(torch.float32)[:, None, None]


def area_weight(area: Tensor) -> Tensor:
    """Weight of a pair of which the share r is the clip's own: 1 - (1 - r)^4.

    Reference: Y. Zou et al., "Learning representational invariances for data-efficient action recognition", 2021,
        arXiv 2103.16565 (ActorCutMix), where it is the weight of labels.
    """
    return 1 - (1 - area.clamp(0, 1)) ** 4


def _span(flags: Tensor) -> Tensor:
    """True from the first to the last True along the last axis."""
    ahead = flags.to(torch.int8).cummax(dim=-1).values
    behind = flags.to(torch.int8).flip(-1).cummax(dim=-1).values.flip(-1)
    return (ahead & behind).bool()


def _reflecting_blur(score: Tensor, length: int) -> Tensor:
    """Gaussian blur of (B, h, w) by an odd length, sigma a third of it; the border is reflected without its pixel."""
    half = length // 2
    if half == 0:
        return score
    offsets = torch.arange(-half, half + 1, device=score.device, dtype=score.dtype)
    weights = torch.exp(-0.5 * (offsets / (length / 3)) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(score.unsqueeze(1), (half, half, half, half), mode="reflect")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).squeeze(1)


def _largest(score: Tensor, share: float) -> Tensor:
    """The share of pixels with the largest score, 0 or 1, (B, h w); of equal scores the first in reading order."""
    B, h, w = score.shape
    flat = score.flatten(1)
    count = max(1, int(share * h * w))  # rounded down, as published
    first = torch.argsort(-flat, dim=1, stable=True)[:, :count]
    return torch.zeros_like(flat).scatter_(1, first, 1.0)


def _histogram(colours: Tensor, seeds: Tensor) -> Tensor:
    """Number of seeds of each colour: (B, bins)."""
    return seeds.new_zeros(len(seeds), _BINS**3).scatter_add_(1, colours, seeds)


def _colour_bins(image: Tensor, published: bool) -> Tensor:
    """Number of each pixel's colour bin, int64 (B, h w): ten by ten of the hue-saturation disc, ten values."""
    high, low = image.amax(dim=1), image.amin(dim=1)
    spread = high - low
    red, green, blue = image.unbind(1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = torch.where(spread > 0, hue, torch.zeros_like(hue)) * (math.pi / 3)
    angle = torch.remainder(angle, 2 * math.pi)
    if published:
        angle = angle * (2 * math.pi)
    saturation = torch.where(high > 0, spread / torch.where(high > 0, high, torch.ones_like(high)), high)
    parts = ((saturation * angle.cos() + 1) / 2, (saturation * angle.sin() + 1) / 2, high)
    # As published: bins are centred on multiples of a ninth, and counted from 1 before rounding. That matters for grey,
    # where both parts are exactly 0.5: a tie, which rounds to the even number.
    bins = [(part * (_BINS - 1) + 1).round().long() - 1 for part in parts]
    return ((bins[0] * _BINS + bins[1]) * _BINS + bins[2]).flatten(1)
