"""Makes pairs from a batch of uint8 clips: two views of each, one of them composed by a policy.

Letters: B clips, V views, T frames, H, W pixels of the stored frame, h, w pixels of the crop, K images of a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bgaug.pairs.augmentation import Augmentation, colour_jitter
from bgaug.pairs.crops import crop_boxes, crop_resize, crop_resize_images, crop_resize_masks, flips
from bgaug.pairs.donors import derangement, fill_foreground, permutation, similar_backgrounds
from bgaug.pairs.draws import uniform
from bgaug.pairs.masks import area_weight, box_masks, fame_masks, motion_masks, random_boxes, soften, unpack_masks
from bgaug.pairs.policy import GRADE_WEIGHTS, Composition

MOTION_BETA, FAME_BETA = 0.35, 0.5
_REFERENCE_CROP = 112  # `grow` and `sigma` are pixels of such a crop
ANCHOR, SEMI, DONOR = 0, 1, 2  # views that draw their own crops


@dataclass
class Pairs:
    """Two views of every clip of a batch, ready for an encoder.

    Attributes:
        anchor: float32 in [0, 1], (B, 3, T, h, w): the first view, only its colours are changed. Of samples with one
            view it is `semi`.
        semi: float32 in [0, 1], (B, 3, T, h, w): the second view over its donor's background.
        donor: int64 (B,), place in the batch of the clip whose background `semi` shows: itself where no other video
            was left, -1 where nothing was composed or no background of a clip in the batch is shown (an image of a
            bank, a blend).
        weight: float32 (B,), weight of the pair in the loss: 0 where no donor was left, else by the policy.
        mask: float32 in [0, 1], (B, 1, T, h, w): the share of `semi` that is the clip's own.
        video: int64 (B,), index of the clip's video.
        provenance: explains and replays each pair, every tensor with leading B: video; donor_video (-1 for none);
            donor_key, the key of the donor's sample, donor_frame and bank_image (-1 for none); mask_area (share of the
            clip); key; anchor_crop, semi_crop and donor_crop ((top, left, height, width) in pixels of the stored
            frame); anchor_flip, semi_flip, donor_flip; and shot and start if the batch has them.
        positive: float32 (B, 3, T, h, w): the second view without a donor, if `plain_positive`.
        label: int64 (B,), class of the clip, that of its foreground, -1 where unknown; None if the batch has none.
    """

    anchor: Tensor
    semi: Tensor
    donor: Tensor
    weight: Tensor
    mask: Tensor
    video: Tensor
    provenance: dict[str, Tensor]
    positive: Tensor | None = None
    label: Tensor | None = None


class _View(NamedTuple):
    """A crop of each clip and whether it is flipped."""

    crop: Tensor  # (B, 4)
    flip: Tensor  # bool (B,)


class _Layers(NamedTuple):
    """Parts of a composite."""

    mask: Tensor  # (B, 1, T or 1, h or 1, w or 1)
    donor: Tensor  # (B, 3, T or 1, h, w)
    frame: Tensor  # int64 (B,), frame of the donor, -1 for all or none
    image: Tensor  # int64 (B,), image of the bank, -1 for none


class _Second(NamedTuple):
    """The second view and how it was made."""

    clips: Tensor  # (B, 3, T, h, w)
    mask: Tensor  # (B, 1, T, h, w)
    place: Tensor  # int64 (B,), of the donor
    valid: Tensor  # bool (B,), whether a donor was left
    composed: Tensor  # bool (B,)
    donor_view: _View
    frame: Tensor  # int64 (B,), as in _Layers
    image: Tensor


def _plain(clips: Tensor, view: _View) -> _Second:
    """A second view without a donor."""
    valid = torch.ones_like(view.flip)
    places = torch.arange(len(clips), device=clips.device)
    none = torch.full_like(places, -1)
    mask = clips.new_ones(()).expand_as(clips[:, :1])
    return _Second(clips, mask, places, valid, ~valid, view, none, none)


def composite(foreground: Tensor, mask: Tensor, donor_background: Tensor) -> Tensor:
    """``mask * foreground + (1 - mask) * donor_background``, exact where the mask is 0 or 1.

    Args:
        foreground: float (B, 3, T, h, w).
        mask: float in [0, 1], (B, 1, T, h, w), or 1 for any of the last three.
        donor_background: float (B, 3, 1, h, w) for an image, or (B, 3, T, h, w).

    Returns:
        float (B, 3, T, h, w).
    """
    return torch.lerp(donor_background, foreground, mask)


class SemiNegativePairs(nn.Module):
    """Makes semi-negative pairs from a batch of uint8 clips, masks and backgrounds, on the batch's device.

    ``anchor_i = J(v1_i)`` and ``semi_i = J(m v2_i + (1 - m) S_pi(i))``: v1 and v2 are the two views of a video, each
    with its own crop, J the colour jitter, drawn for each view, and S the background of the donor's second view, under
    the donor's own crop. The composite is made before the jitter, so both sides of its seam get the same colours.
    Samples with one view, as supervised methods take them, have only the second.
    Published alternatives are policies of the same form: see `bgaug.pairs.POLICIES`.

    All randomness comes from the batch's keys: the same batch gives the same pairs, to the bit on the same device and
    build, and permuting the batch permutes them.

    Passes over memory: each byte of the uint8 frames is read once, by the crop; each view is then written once at the
    crop's size, and read and written once by the composite (only the second view) and once by the colours. Masks and
    backgrounds are read once, packed.

    Args:
        augmentation: geometry and colour of both views.
        policy: how the second view is composed: a key of `POLICIES`, or a `Composition`.
        plain_positive: also return the second view without a donor, under its own colours.
        views: clips of one video per sample: 2, or 1 for supervised methods, which have no anchor.
        bank: uint8 (K, H, W, 3), RGB: images for the donor "bank", kept on the module's device; not part of its state.
        options: fields of `Composition` to replace, such as ``mask="motion"``, ``donor="frame"``, ``grow=0``,
            ``probability=0.5``.

    Raises:
        ValueError: no such policy, a value out of range, or a bank that is missing or not of that shape.
        TypeError: no such option.
    """

    bank: Tensor | None

    def __init__(
        self,
        augmentation: Augmentation,
        policy: str | Composition = "background",
        *,
        plain_positive: bool = False,
        views: int = 2,
        bank: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.policy = Composition.resolve(policy, **options)
        self.plain_positive = plain_positive
        if views not in (1, 2):
            raise ValueError(f"views must be 1 or 2, got {views}")
        self.views = views
        if bank is not None and (bank.dtype != torch.uint8 or bank.ndim != 4 or bank.shape[3] != 3 or not len(bank)):
            raise ValueError(f"a bank is uint8 (K, H, W, 3) of one image or more, got {bank.dtype} {bank.shape = }")
        if bank is None and self.policy.donor == "bank" and self.policy.composes:
            raise ValueError(
                "donors from a bank need bank=, uint8 images (K, H, W, 3); see `bgaug import --backgrounds`"
            )
        self.register_buffer("bank", bank, persistent=False)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor], donor: Tensor | None = None) -> Pairs:
        """Pairs of one batch.

        Args:
            batch: a `bgaug.data.batch.Batch` of `views` clips each, or a mapping with the same names: frames, video,
                key, box, and backgrounds, masks and grade if the policy needs them.
            donor: int64 (B,), places of the donors, in place of drawn places. Replays pairs from their clips and the
                clips of their donors (`provenance`), whatever batch they were in.

        Raises:
            ValueError: a field is missing, or frames are not uint8 (B, V, T, H, W, 3) with V = `views`.
        """
        self._check(batch)
        config, key, video = self.augmentation, batch["key"], batch["video"]
        numbers = (ANCHOR, SEMI)[-self.views :]
        views = [_View(crop_boxes(key, batch["box"], config, v), flips(key, config, v)) for v in numbers]
        cropped = [
            crop_resize(batch["frames"][:, v], view.crop, config.size, view.flip) for v, view in enumerate(views)
        ]
        first, second = cropped[0], cropped[-1]
        made = self._compose(batch, second, views[-1], donor) if self.policy.composes else _plain(second, views[-1])
        area = made.mask.mean(dim=(1, 2, 3, 4))
        positive = colour_jitter(second, key, config, view=DONOR) if self.plain_positive else None
        # Views are coloured in place: on a CPU fresh memory for them costs more than their colours. The plain positive
        # comes first, because `second` may be overwritten.
        semi = colour_jitter(made.clips, key, config, view=SEMI, out=made.clips)
        return Pairs(
            anchor=semi if len(views) == 1 else colour_jitter(first, key, config, view=ANCHOR, out=first),
            semi=semi,
            donor=self._shown(made),
            weight=self._weight(batch, area, made.composed) * made.valid,
            mask=made.mask,
            video=video,
            provenance=self._provenance(batch, views, made, area),
            positive=positive,
            label=batch.get("label"),
        )

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"{self.policy}, plain_positive={self.plain_positive}"

    def _compose(self, batch: Mapping[str, Tensor], clips: Tensor, view: _View, given: Tensor | None) -> _Second:
        """The second view over its donors; clips that are not composed stay as they are."""
        key, video, policy = batch["key"], batch["video"], self.policy
        place, valid = self._donors(batch, view) if given is None else (given, video[given] != video)
        if policy.donor in ("own_frame", "bank") or policy.pairing == "permutation":
            valid = torch.ones_like(valid)
        composed = valid & (uniform(key, "compose/probability", 1).squeeze(1) < policy.probability)
        donor_view = self._donor_view(batch, place, view)
        layers = self._layers(batch, clips, place, view, donor_view)
        mask = layers.mask.masked_fill_(~composed.view(-1, 1, 1, 1, 1), 1)
        # In the clips' own memory, unless they are also needed plain; see `composite`.
        merged = torch.lerp(layers.donor, clips, mask, out=None if self.plain_positive else clips)
        mask = mask.expand_as(clips[:, :1])
        return _Second(merged, mask, place, valid, composed, donor_view, layers.frame, layers.image)

    def _shown(self, made: _Second) -> Tensor:
        """Place of the clip whose background each second view shows; see `Pairs.donor`."""
        none = torch.full_like(made.place, -1)
        shown = torch.where(made.composed, made.place, none) if self.policy.donor_shows else none
        return torch.where(made.valid, shown, torch.arange(len(none), device=none.device))

    def _provenance(
        self, batch: Mapping[str, Tensor], views: Sequence[_View], made: _Second, area: Tensor
    ) -> dict[str, Tensor]:
        key, video = batch["key"], batch["video"]
        none = torch.full_like(key, -1)
        borrowed = made.composed if self.policy.donor != "bank" else torch.zeros_like(made.composed)
        return {
            "video": video,
            "donor_video": torch.where(borrowed, video[made.place], none),
            "donor_key": torch.where(borrowed, key[made.place], none),
            "donor_frame": torch.where(made.composed, made.frame, none),
            "bank_image": torch.where(made.composed, made.image, none),
            "mask_area": area,
            "key": key,
            "anchor_crop": views[0].crop,
            "semi_crop": views[-1].crop,
            "donor_crop": made.donor_view.crop,
            "anchor_flip": views[0].flip,
            "semi_flip": views[-1].flip,
            "donor_flip": made.donor_view.flip,
            **{name: batch[name] for name in ("shot", "start") if name in batch},
        }

    def _donors(self, batch: Mapping[str, Tensor], view: _View) -> tuple[Tensor, Tensor]:
        """The place of each clip's donor in the batch, and whether that is another video."""
        video, key, policy = batch["video"], batch["key"], self.policy
        places = torch.arange(len(key), device=key.device)
        if policy.donor in ("own_frame", "bank"):
            return places, torch.ones_like(view.flip)
        images = None
        if policy.donor in ("near", "far"):
            images = crop_resize_images(batch["backgrounds"], batch["box"].to(torch.float32), 32)
        drawn = []
        for part in torch.chunk(places, policy.donor_groups):
            if images is not None:
                donor, valid = similar_backgrounds(images[part], video[part], far=policy.donor == "far")
            elif policy.pairing == "permutation":
                donor = permutation(key[part])
                valid = video[part][donor] != video[part]
            else:
                donor, valid = derangement(video[part], key[part])
            drawn.append((part[donor], valid))
        return torch.cat([donor for donor, _ in drawn]), torch.cat([valid for _, valid in drawn])

    def _donor_view(self, batch: Mapping[str, Tensor], place: Tensor, view: _View) -> _View:
        """Crop and flip of each clip's donor: those of the donor's own second view, or new ones."""
        key, config = batch["key"], self.augmentation
        if self.policy.donor == "bank":
            assert self.bank is not None
            box = torch.zeros_like(batch["box"])
            box[:, 2], box[:, 3] = self.bank.shape[1], self.bank.shape[2]
            return _View(crop_boxes(key, box, config, DONOR), flips(key, config, DONOR))
        if self.policy.donor_crop == "own":
            return _View(crop_boxes(key, batch["box"][place], config, DONOR), flips(key, config, DONOR))
        return _View(view.crop[place], view.flip[place])

    def _layers(
        self, batch: Mapping[str, Tensor], clips: Tensor, place: Tensor, view: _View, donor_view: _View
    ) -> _Layers:
        """Mask and donor of each clip's composite."""
        policy, key, size = self.policy, batch["key"], self.augmentation.size
        none = torch.full_like(key, -1)
        mask = self._mask(batch, clips, view)
        if policy.donor in ("background", "near", "far"):
            image = crop_resize_images(batch["backgrounds"][place], donor_view.crop, size, donor_view.flip)
            return _Layers(mask, image, none, none)
        if policy.donor == "bank":
            assert self.bank is not None
            number = (uniform(key, "compose/bank", 1).squeeze(1).double() * len(self.bank)).long()
            image = crop_resize_images(self.bank[number], donor_view.crop, size, donor_view.flip)
            return _Layers(mask, image, none, number)
        if policy.donor in ("clip", "scene", "scene-published"):
            return _Layers(mask, self._moving_donor(batch, clips, place, donor_view), none, none)
        T = clips.shape[2]
        frame = (uniform(key, "compose/frame", 1).squeeze(1) * T).long().clamp(max=T - 1)
        if policy.donor_crop == "own":
            images = batch["frames"][place, -1, frame]
            donor = crop_resize_images(images, donor_view.crop, size, donor_view.flip)
        else:
            donor = clips[place, :, frame].unsqueeze(2)
        if policy.donor == "inpainted":
            packed = batch["masks"][place, -1, frame]
            bits = unpack_masks(packed, *batch["frames"].shape[3:5]).unsqueeze(1)
            bits = crop_resize_masks(bits, donor_view.crop, size, donor_view.flip)
            donor = fill_foreground(donor, soften(bits, 2 * policy.grow * size / _REFERENCE_CROP, 0))
        return _Layers(mask, donor, frame, none)

    def _moving_donor(self, batch: Mapping[str, Tensor], clips: Tensor, place: Tensor, donor_view: _View) -> Tensor:
        """The donors' clips, with or without their own actors."""
        size = self.augmentation.size
        if self.policy.donor_crop == "own":
            clips = crop_resize(batch["frames"][place, -1], donor_view.crop, size, donor_view.flip)
        else:
            clips = clips[place]
        if self.policy.donor == "clip":
            return clips
        boxes = box_masks(self._stored(batch["masks"][place, -1], batch, donor_view))
        if self.policy.donor == "scene-published":
            return clips * (1 - boxes)
        image = crop_resize_images(batch["backgrounds"][place], donor_view.crop, size, donor_view.flip)
        return torch.lerp(clips, image, boxes)

    def _mask(self, batch: Mapping[str, Tensor], clips: Tensor, view: _View) -> Tensor:
        """The clip's own share: (B, 1, T or 1, h or 1, w or 1)."""
        policy, size = self.policy, self.augmentation.size
        match policy.mask:
            case "motion":
                image = crop_resize_images(batch["backgrounds"], view.crop, size, view.flip)
                return motion_masks(clips, image, policy.beta or MOTION_BETA)
            case "fame" | "fame-published":
                return fame_masks(clips, policy.beta or FAME_BETA, policy.mask == "fame-published")
            case "boxes":
                return box_masks(self._stored(batch["masks"][:, -1], batch, view))
            case "random_box":
                return 1 - random_boxes(batch["key"], self._share(batch["key"]), (size, size))
            case "blend":
                return 1 - self._share(batch["key"]).view(-1, 1, 1, 1, 1)
        scale = size / _REFERENCE_CROP
        stored = self._stored(batch["masks"][:, -1], batch, view)
        return soften(stored, policy.grow * scale, policy.sigma * scale, out=stored)

    def _stored(self, packed: Tensor, batch: Mapping[str, Tensor], view: _View) -> Tensor:
        """Stored masks under a crop: (B, T, P) to (B, 1, T, h, w)."""
        bits = unpack_masks(packed, *batch["frames"].shape[3:5])
        return crop_resize_masks(bits, view.crop, self.augmentation.size, view.flip)

    def _share(self, key: Tensor) -> Tensor:
        """The donor's share of each clip, drawn from the policy's `blend`: (B,)."""
        kind, first, second = self.policy.blend
        if kind == "uniform":
            return first + (second - first) * uniform(key, "compose/blend", 1).squeeze(1)
        # Beta(n, n) is the middle one of 2n - 1 uniform draws.
        whole = int(first)
        share = uniform(key, "compose/blend", 2 * whole - 1).kthvalue(whole, dim=1).values
        return torch.minimum(share, 1 - share) if self.policy.majority else share

    def _weight(self, batch: Mapping[str, Tensor], area: Tensor, composed: Tensor) -> Tensor:
        """Weight of each pair that has a donor: float32 (B,)."""
        if self.policy.weight == "area":
            return torch.where(composed, area_weight(area), torch.ones_like(area))
        if self.policy.weight == "grade":
            grade = batch["grade"]
            table = torch.stack([area.new_full((), value) for value in GRADE_WEIGHTS])
            return torch.where(composed, table[grade], torch.ones_like(area))
        return torch.ones_like(area)

    def _check(self, batch: Mapping[str, Tensor]) -> None:
        missing = [name for name in ("frames", "video", "key", "box", *self.policy.needs) if name not in batch]
        if missing:
            raise ValueError(f"the batch has no {', '.join(missing)}; it has {', '.join(batch)}")
        frames = batch["frames"]
        if frames.dtype != torch.uint8 or frames.ndim != 6 or frames.shape[5] != 3:
            raise ValueError(f"frames must be uint8 (B, V, T, H, W, 3), got {frames.dtype} of {tuple(frames.shape)}")
        if frames.shape[1] != self.views:
            raise ValueError(f"expected {self.views} views (clips of one video) per sample, got V = {frames.shape[1]}")
