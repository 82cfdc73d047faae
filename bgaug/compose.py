"""Semi-negative pairs: clips over the static background of another video, composed on the device of the batch.

The terms, as this library uses them:

- **donor**: the video whose static background another clip borrows. Within a batch the donors are a derangement by
  video, ``pi``: no clip borrows from its own video.
- **composite**: ``m * x + (1 - m) * S[pi]``: the moving foreground of a clip (its pixels under the mask ``m``) over the
  background *image* of its donor. An image, because a donor's moving clip would bring a second mover along.
- **semi-negative**: a composite, seen from its anchor, another view of the same video: same motion, foreign
  background. It is a positive for what moves and a negative for what stands still; hence "semi".

Letters: B clips, V views, T frames, H, W pixels of the stored frame, h, w pixels of the crop.

Reference: "Solution of wide and micro background bias in contrastive action representation learning", Engineering
Applications of Artificial Intelligence, 2024, of which only the abstract is public: the dynamic factor of a video is
fused with other static factors, "a random background image where the foreground is more similar than the background".
The formulas here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgaug.augment import (
    Augmentation,
    colour_jitter,
    crop_boxes,
    crop_resize,
    crop_resize_images,
    crop_resize_masks,
    flips,
    gaussian_blur,
    random_bits,
)
from bgaug.batch import unpack_masks

MASKS = ("stored", "motion")


@dataclass
class Pairs:
    """Two views of every clip of a batch, ready for an encoder.

    Attributes:
        anchor: float32 in [0, 1], (B, 3, T, h, w): the first view, untouched but for colour.
        semi: float32 in [0, 1], (B, 3, T, h, w): the second view over its donor's background.
        donor: int64 (B,), place of the donor in the batch; itself where no other video was left, -1 where nothing was
            composed.
        weight: float32 (B,), what the pair counts in the loss: 0 where no donor was left, else 1.
        mask: float32 in [0, 1], (B, 1, T, h, w): the share of `semi` that is the clip's own.
        video: int64 (B,), index of the clip's video.
        provenance: what replays and explains each pair, every tensor with leading B: video, donor_video (-1 where
            none), mask_area (share of the clip), key, anchor_crop and semi_crop ((top, left, height, width) in pixels
            of the stored frame), anchor_flip, semi_flip.
        positive: float32 (B, 3, T, h, w): the second view without a donor, where it was asked for.
    """

    anchor: Tensor
    semi: Tensor
    donor: Tensor
    weight: Tensor
    mask: Tensor
    video: Tensor
    provenance: dict[str, Tensor]
    positive: Tensor | None = None


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


def soften(mask: Tensor, grow: float, sigma: float) -> Tensor:
    """A mask grown and feathered, so that its rim carries some of the clip's own background.

    Args:
        mask: float32 in [0, 1], (B, 1, T, h, w).
        grow: dilation by a square, pixels on each side. A fraction blends the two whole dilations around it, so 0.57
            gives the next ring of pixels the weight 0.57.
        sigma: Gaussian feather, pixels; 0 for none.

    Returns:
        float32 in [0, 1], (B, 1, T, h, w).

    Raises:
        ValueError: grow or sigma is negative.
    """
    if grow < 0 or sigma < 0:
        raise ValueError(f"grow and sigma are pixels, at least 0, got {grow = }, {sigma = }")
    whole = math.floor(grow)
    for _ in range(whole):
        mask = _dilate(mask)
    if grow > whole:
        mask = torch.lerp(mask, _dilate(mask), grow - whole)
    if sigma == 0:
        return mask
    return gaussian_blur(mask, mask.new_full((mask.shape[0],), sigma)).clamp_(0, 1)


def motion_masks(clips: Tensor, background: Tensor, beta: float = 0.35) -> Tensor:
    """Soft foreground masks of clips that come without stored ones: what differs from the background or moves.

    The larger of the difference from the background and the difference from the previous frame, blurred (5x5, sigma
    5/3 at 32 pixels, scaled with the height), through a sigmoid at the quantile ``1 - 0.6 beta`` over the clip. Ours,
    by experiment.

    Args:
        clips: float32 in [0, 1], (B, 3, T, h, w), T at least 2.
        background: float32 in [0, 1], (B, 3, 1, h, w), the same crop of the static background.
        beta: how much of the clip to keep, in (0, 1]; 0.35 keeps about a quarter.

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


def composite(foreground: Tensor, mask: Tensor, donor_background: Tensor) -> Tensor:
    """``mask * foreground + (1 - mask) * donor_background``, exact where the mask is 0 or 1.

    Args:
        foreground: float (B, 3, T, h, w).
        mask: float in [0, 1], (B, 1, T, h, w).
        donor_background: float (B, 3, 1, h, w) for an image, or (B, 3, T, h, w).

    Returns:
        float (B, 3, T, h, w).
    """
    return torch.lerp(donor_background, foreground, mask)


class SemiNegativePairs(nn.Module):
    """From a batch of uint8 clips, masks and backgrounds to semi-negative pairs, in one pass on the batch's device.

    ``anchor_i = J(v1_i)`` and ``semi_i = J(m v2_i + (1 - m) S_pi(i))``: v1 and v2 are the two views of a video, each
    with its own crop, J the colour jitter, drawn for each view, and S the background of the donor's second view, under
    the donor's own crop. The composite is made before the jitter, so both sides of the seam get the same colours.

    All randomness comes from the batch's keys: the same batch gives the same pairs, to the bit on the same device and
    build, and permuting the batch permutes them.

    Args:
        augmentation: geometry and colour of both views.
        masks: "stored" takes the batch's masks, grown and feathered; "motion" computes them, see `motion_masks`.
        composite: False leaves the second view plain, for methods without donors.
        grow: dilation of stored masks, pixels of a crop of 112; scales with the crop.
        sigma: feather of stored masks, pixels of a crop of 112; scales with the crop.
        plain_positive: also return the second view without a donor, under its own colours.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        masks: str = "stored",
        composite: bool = True,
        grow: float = 2.0,
        sigma: float = 2.0,
        plain_positive: bool = False,
    ) -> None:
        super().__init__()
        if masks not in MASKS:
            raise ValueError(f"masks must be one of {', '.join(MASKS)}, got {masks!r}")
        if grow < 0 or sigma < 0:
            raise ValueError(f"grow and sigma are pixels, at least 0, got {grow = }, {sigma = }")
        self.augmentation = augmentation
        self.masks = masks
        self.composite = composite
        self.grow = grow
        self.sigma = sigma
        self.plain_positive = plain_positive

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> Pairs:
        """Pairs of one batch.

        Args:
            batch: a `bgaug.batch.Batch` with two views, or a mapping with the same names: frames, video, key, box,
                and where composites are made backgrounds and (for stored masks) masks.

        Raises:
            ValueError: a field is missing, or frames are not uint8 (B, 2, T, H, W, 3).
        """
        self._check(batch)
        frames, key, config = batch["frames"], batch["key"], self.augmentation
        crops = [crop_boxes(key, batch["box"], config, view) for view in (0, 1)]
        flip = [flips(key, config, view) for view in (0, 1)]
        first, second = (crop_resize(frames[:, view], crops[view], config.size, flip[view]) for view in (0, 1))
        if self.composite:
            semi, mask, donor, valid = self._compose(batch, second, crops[1], flip[1])
        else:
            semi, mask = second, second.new_ones(()).expand_as(second[:, :1])
            donor, valid = torch.full_like(key, -1), torch.ones_like(flip[1])
        video = batch["video"]
        foreign = valid if self.composite else ~valid
        return Pairs(
            anchor=colour_jitter(first, key, config, view=0),
            semi=colour_jitter(semi, key, config, view=1),
            donor=donor,
            weight=valid.to(torch.float32),
            mask=mask,
            video=video,
            provenance={
                "video": video,
                "donor_video": torch.where(foreign, video[donor], torch.full_like(video, -1)),
                "mask_area": mask.mean(dim=(1, 2, 3, 4)),
                "key": key,
                "anchor_crop": crops[0],
                "semi_crop": crops[1],
                "anchor_flip": flip[0],
                "semi_flip": flip[1],
            },
            positive=colour_jitter(second, key, config, view=2) if self.plain_positive else None,
        )

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"masks={self.masks!r}, composite={self.composite}, grow={self.grow}, sigma={self.sigma}"

    def _compose(
        self, batch: Mapping[str, Tensor], clips: Tensor, crop: Tensor, flip: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Composites of the second view, their masks, donors and whether each donor is another video's."""
        donor, valid = derangement(batch["video"], batch["key"])
        background = crop_resize_images(batch["backgrounds"], crop, self.augmentation.size, flip)
        mask = self._mask(batch, clips, background, crop, flip)
        mask = torch.where(valid.view(-1, 1, 1, 1, 1), mask, torch.ones_like(mask))
        return composite(clips, mask, background[donor]), mask, donor, valid

    def _mask(
        self, batch: Mapping[str, Tensor], clips: Tensor, background: Tensor, crop: Tensor, flip: Tensor
    ) -> Tensor:
        if self.masks == "motion":
            return motion_masks(clips, background)
        size = self.augmentation.size
        height, width = batch["frames"].shape[3:5]
        bits = unpack_masks(batch["masks"][:, 1], height, width)
        return soften(crop_resize_masks(bits, crop, size, flip), self.grow * size / 112, self.sigma * size / 112)

    def _check(self, batch: Mapping[str, Tensor]) -> None:
        needed = ["frames", "video", "key", "box"]
        if self.composite:
            needed += ["backgrounds", "masks"] if self.masks == "stored" else ["backgrounds"]
        missing = [name for name in needed if name not in batch]
        if missing:
            raise ValueError(f"the batch lacks {', '.join(missing)}; it has {', '.join(batch)}")
        frames = batch["frames"]
        if frames.dtype != torch.uint8 or frames.ndim != 6 or frames.shape[5] != 3:
            raise ValueError(f"frames must be uint8 (B, 2, T, H, W, 3), got {frames.dtype} of {tuple(frames.shape)}")
        if frames.shape[1] != 2:
            raise ValueError(f"pairs need 2 views (clips of one video) a sample, got V = {frames.shape[1]}")


def _dilate(mask: Tensor) -> Tensor:
    """Largest of each pixel's 3x3, by rows, then by columns; several times faster on a CPU than pooling."""
    padded = F.pad(mask, (1, 1))
    mask = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 2:]), mask)
    padded = F.pad(mask, (0, 0, 1, 1))
    return torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 2:, :]), mask)
