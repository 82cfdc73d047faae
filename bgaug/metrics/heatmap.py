"""Where an encoder looks: heat maps of its features, and how much of their energy falls on what moves.

Letters: B clips, C channels, T frames, H, W pixels, S side of a square crop; primes for the grid of a feature map.

Five maps: what is active (`activation_map`); what speaks for a class in the last stage (`class_activation_map`) and in
earlier, finer ones, by a code of means (`grad_cam`) or of deviations over time (`hires_cam`); and where features change
(`bgaug.model.decomposition.saliency_map`). A map explains the code that its score was computed from. The numbers take a map and a mask of one shape, (B, H, W) or (B, T, H, W), and give
one value a clip. Energy is shared out between the mask, a ring about it, where the prop, the shadow and the rim are
(micro bias), and all that is far (wide bias): the three add up to 1. A map that is 0 everywhere or a clip whose mask is
empty has no answer: nan. None of it is for training; checking a map waits for the device.

References: B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba, "Learning deep features for discriminative
localization", 2016, arXiv 1512.04150 (class activation maps; for a linear layer on averaged features the map of Grad-CAM,
arXiv 1610.02391, too). H. Wang et al., "Score-CAM", 2020, arXiv 1910.01279 (energy in a region). J. Zhang et al., "Top-down
neural attention by excitation backprop", 2016, arXiv 1608.00507 (pointing game). Ring, far and ratios are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.model.decomposition import FLAT
from bgaug.model.decomposition import stretch as stretch_maps
from bgaug.pairs import centre_crop, crop_resize_masks

Encode = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor]]


# --- maps ---------------------------------------------------------------------------------------------------------


def activation_map(features: Tensor, *, mean_over_time: bool = False) -> Tensor:
    """What is active, whatever the class: the sum of all channels above zero.

    Args:
        features: float (B, C, T', H', W').
        mean_over_time: average the frames.

    Returns:
        float32, 0 or more, (B, T', H', W'), or (B, H', W') if averaged.
    """
    heat = _checked_features(features).relu().sum(dim=1)
    return heat.mean(dim=1) if mean_over_time else heat


def class_activation_map(features: Tensor, weight: Tensor, *, mean_over_time: bool = False) -> Tensor:
    """What speaks for a class, by a linear layer on the features' mean: the weighted sum of channels, where above zero.

    Args:
        features: float (B, C, T', H', W') of the stage whose mean the layer reads.
        weight: float (C,) of one class, or (B, C) of each clip's; of a probe on standardised features, its weights
            divided by the features' deviation.
        mean_over_time: average the frames, before what is below zero is cut off.

    Returns:
        float32, 0 or more, (B, T', H', W'), or (B, H', W') if averaged.

    Raises:
        ValueError: the shapes do not fit.
    """
    features = _checked_features(features)
    B, C, T, H, W = features.shape
    if weight.shape not in ((C,), (B, C)):
        raise ValueError(f"weight must be (C,) or (B, C) with {B = }, {C = }, got {tuple(weight.shape)}")
    heat = torch.einsum("bcthw,bc->bthw", features, weight.float().expand(B, C))
    return (heat.mean(dim=1) if mean_over_time else heat).relu()


def grad_cam(features: Tensor, score: Tensor) -> Tensor:
    """What speaks for a score in any stage: its channels weighted by the score's mean gradient, where above zero.

    Args:
        features: float (B, C, T', H', W') of a stage that `score` was computed from, with gradient.
        score: float (B,), such as each clip's logit of one class; a clip's may depend on its own features alone, so
            bring batch norm into evaluation mode.

    Returns:
        float32, 0 or more, (B, T', H', W').

    Raises:
        ValueError: features are not (B, C, T', H', W').

    Reference: R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
        ICCV 2017, arXiv 1610.02391, equations 1 and 2.
    """
    _checked_features(features)
    (gradient,) = torch.autograd.grad(score.sum(), features, retain_graph=True)
    weight = gradient.mean(dim=(2, 3, 4)).float()
    return class_activation_map(features.detach(), weight)


def hires_cam(features: Tensor, score: Tensor, *, about_mean: bool = True) -> Tensor:
    """What speaks for a score, place by place: its gradient times the features, summed over channels, where above zero.

    For scores of the dynamic code, where `grad_cam` gives nothing. A deviation over time does not change when a channel
    rises by the same amount in all frames, so its gradient sums to zero over time, and Grad-CAM averages the gradient.
    In the last stage the map, summed over time before the cut, is the class activation map of the code: the deviation of
    each cell, weighted by the saliency and by what the channel counts for the class.

    Args:
        features: float (B, C, T', H', W') of a stage that `score` was computed from, with gradient.
        score: float (B,), as of `grad_cam`.
        about_mean: take features less their mean over time, which is all that a deviation depends on; False for a score
            that means count for.

    Returns:
        float32, 0 or more, (B, T', H', W').

    Raises:
        ValueError: features are not (B, C, T', H', W').

    Reference: R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
        networks", 2020, arXiv 2011.08891. Features about their mean are ours.
    """
    values = _checked_features(features).detach()
    (gradient,) = torch.autograd.grad(score.sum(), features, retain_graph=True)
    if about_mean:
        values = values - values.mean(dim=2, keepdim=True)
    return (gradient.float() * values).sum(dim=1).relu()


def upsample(heat: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map at the size of pixels: (B, H', W') to size (H, W), bilinear, or (B, T', H', W') to (T, H, W), trilinear.

    Raises:
        ValueError: the map has another number of dimensions than the size asks for.
    """
    if heat.ndim not in (3, 4) or heat.ndim != len(size) + 1:
        raise ValueError(f"a map (B, *) is brought to a size of as many numbers, got {tuple(heat.shape)} and {size}")
    mode = "bilinear" if heat.ndim == 3 else "trilinear"
    return F.interpolate(heat.unsqueeze(1), size=size, mode=mode, align_corners=False).squeeze(1)


def stretch(heat: Tensor) -> Tensor:
    """Each clip's map stretched to [0, 1]: float (B, ...) to float32 of the same shape.

    A map that is flat (its range is under 1e-3 of its mean size) says nothing, and becomes 1/2 everywhere, as in
    `bgaug.model.decomposition.saliency_map`. Stretching takes what is everywhere away, so it changes energies: compare like with like.
    """
    heat = heat.float()
    return stretch_maps(heat, FLAT * heat.flatten(1).abs().mean(dim=1, keepdim=True))


def _checked_features(features: Tensor) -> Tensor:
    if features.ndim != 5:
        raise ValueError(f"features must be (B, C, T', H', W'), got {tuple(features.shape)}")
    return features.float()


# --- numbers ------------------------------------------------------------------------------------------------------


def energy_in_mask(heat: Tensor, mask: Tensor) -> Tensor:
    """Share of a map's sum that lies in the mask, in [0, 1]; a uniform map gives the mask's share of the area.

    Args:
        heat: float, 0 or more, (B, H, W) or (B, T, H, W).
        mask: bool, of the same shape.

    Returns:
        float32 (B,); nan where the map is 0 everywhere or the mask is empty.

    Raises:
        ValueError: shapes or types do not fit, or the map is negative somewhere.
    """
    heat, mask = _checked(heat, mask)
    return _energy(heat, mask, mask)


def energy_ratio(heat: Tensor, mask: Tensor) -> Tensor:
    """`energy_in_mask` over the mask's share of the area: 1 is chance, the most is 1 over that share.

    Of any region of its own, such as `ring`, too. Arguments, result and errors as `energy_in_mask`.
    """
    return energy_in_mask(heat, mask) / mask.flatten(1).float().mean(dim=1)


def ring(mask: Tensor, width: int) -> Tensor:
    """Pixels outside of a mask from which a square of side 2 `width` + 1 reaches it, frame by frame.

    Args:
        mask: bool (B, H, W) or (B, T, H, W).
        width: pixels, 0 or more.

    Returns:
        bool, of the same shape.

    Raises:
        ValueError: another shape or type, or a negative width.
    """
    return _widened(mask, width) & ~mask


def ring_energy(heat: Tensor, mask: Tensor, width: int) -> Tensor:
    """Share of a map's sum that lies in the `ring` about the mask; arguments, result and errors as there and above."""
    heat, mask = _checked(heat, mask)
    return _energy(heat, ring(mask, width), mask)


def far_energy(heat: Tensor, mask: Tensor, width: int) -> Tensor:
    """Share of a map's sum that lies neither in the mask nor in its `ring`; with these two it adds up to 1."""
    heat, mask = _checked(heat, mask)
    return _energy(heat, ~_widened(mask, width), mask)


def pointing_game(heat: Tensor, mask: Tensor, tolerance: int = 0) -> Tensor:
    """How often a frame's hottest pixel lies in the mask, or not more than `tolerance` pixels beside it.

    Of several equally hot ones the share that does: a uniform map scores chance, whatever the order of pixels. Frames
    whose mask is empty or whose map is 0 are left out.

    Args:
        heat: float, 0 or more, (B, H, W) or (B, T, H, W).
        mask: bool, of the same shape.
        tolerance: pixels, as the width of a `ring`.

    Returns:
        float32 in [0, 1], (B,), the mean over the frames; nan where none is left.

    Raises:
        ValueError: as `energy_in_mask`, or a negative tolerance.
    """
    heat, mask = _checked(heat, mask)
    frames, target, near = (x.flatten(-2) for x in (heat, mask, _widened(mask, tolerance)))
    hottest = frames == frames.amax(dim=-1, keepdim=True)
    hits = (hottest & near).sum(dim=-1) / hottest.sum(dim=-1)
    counted = target.any(dim=-1) & (frames > 0).any(dim=-1)
    return torch.where(counted, hits, torch.nan).view(len(heat), -1).nanmean(dim=1)


def iou_at_top(heat: Tensor, mask: Tensor, share: float | None = None) -> Tensor:
    """Intersection over union of the mask and the hottest pixels of the clip.

    Pixels as hot as the last one taken are taken too, those that are 0 never: a uniform map gives the mask's share of
    the area.

    Args:
        heat: float, 0 or more, (B, H, W) or (B, T, H, W).
        mask: bool, of the same shape.
        share: of the clip's pixels that are taken, in (0, 1]; None takes as many as the mask has, so that 1 is possible.

    Returns:
        float32 in [0, 1], (B,); nan where the map is 0 everywhere or the mask is empty.

    Raises:
        ValueError: as `energy_in_mask`, or a share out of range.
    """
    heat, mask = _checked(heat, mask)
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    flat, target = heat.flatten(1), mask.flatten(1)
    pixels = flat.shape[1]
    taken = (
        target.sum(dim=1) if share is None else torch.full_like(target[:, 0], round(share * pixels), dtype=torch.int64)
    )
    order = flat.sort(dim=1, descending=True).values
    threshold = order.gather(1, taken.clamp(min=1).unsqueeze(1) - 1)
    hottest = (flat >= threshold) & (flat > 0)
    iou = (hottest & target).sum(dim=1) / (hottest | target).sum(dim=1).clamp(min=1)
    return torch.where(hottest.any(dim=1) & target.any(dim=1), iou, torch.nan)


def _energy(heat: Tensor, region: Tensor, mask: Tensor) -> Tensor:
    heat, region = heat.flatten(1), region.flatten(1)
    total = heat.sum(dim=1)
    share = (heat * region).sum(dim=1) / total
    return torch.where((total > 0) & mask.flatten(1).any(dim=1), share, torch.nan)


def _widened(mask: Tensor, width: int) -> Tensor:
    if mask.dtype != torch.bool or mask.ndim not in (3, 4):
        raise ValueError(f"mask must be bool (B, H, W) or (B, T, H, W), got {mask.dtype} {tuple(mask.shape)}")
    if width < 0:
        raise ValueError(f"a number of pixels is 0 or more, got {width}")
    frames = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return (F.max_pool2d(frames, 2 * width + 1, stride=1, padding=width) > 0).view(mask.shape)


def _checked(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if heat.ndim not in (3, 4) or heat.shape != mask.shape or mask.dtype != torch.bool or not heat.is_floating_point():
        raise ValueError(
            "a map must be float (B, H, W) or (B, T, H, W) and its mask bool of the same shape, "
            f"got {heat.dtype} {tuple(heat.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    if bool((heat < 0).any()):
        raise ValueError(f"a map must be 0 or more, its least value is {heat.min().item():.3g}; stretch() it")
    return heat.float(), mask


# --- an encoder on clips whose masks are known --------------------------------------------------------------------


@torch.no_grad()
def score_heatmaps(
    encode: Encode,
    frames: Tensor,
    masks: Tensor,
    size: int,
    *,
    stage: str | None = None,
    width: int | None = None,
    tolerance: int = 1,
    share: float | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """How much of an encoder's maps falls on what moves, averaged over clips whose masks are known.

    Every map is upsampled to the pixels of the crop and then stretched, which is what a picture of it shows. Three are
    scored: "activation", frame by frame against the mask of each frame; "activation_mean" and "saliency", which have no
    time, against all that was covered at any time.

    Args:
        encode: from float32 clips in [0, 1], (B, 3, T, S, S), to features (B, C, T', H', W') by stage, in order, and the
            saliency (B, H', W'). Without gradient; bring the network into evaluation mode.
        frames: uint8 (N, T, H, W, 3), on the device to work on.
        masks: bool (N, T, H, W), where the foreground is; cropped and resized as the frames are.
        size: side S of the centre crop.
        stage: whose activation is scored; the last by default.
        width: of the ring, pixels of the crop; by default a sixteenth of its side.
        tolerance: of the pointing game, pixels of the crop.
        share: see `iou_at_top`.
        batch_size: clips encoded at once; does not change the result.

    Returns:
        By map, means of "energy", "energy_ratio", "ring", "ring_ratio", "far", "far_ratio", "pointing" and "iou" over the
        clips that have an answer, nan if none has, and "clips", their number. A ratio of 1 is chance.

    Raises:
        ValueError: shapes or types do not fit, or no such stage.
    """
    if masks.dtype != torch.bool or frames.ndim != 5 or masks.shape != frames.shape[:4]:
        raise ValueError(
            "frames must be uint8 (N, T, H, W, 3) and masks bool (N, T, H, W), "
            f"got {frames.dtype} {tuple(frames.shape)} and {masks.dtype} {tuple(masks.shape)}"
        )
    width = max(1, round(size / 16)) if width is None else width
    found: dict[str, dict[str, list[Tensor]]] = {}
    for part, known in zip(torch.split(frames, batch_size), torch.split(masks, batch_size), strict=True):
        known = centre_crop_masks(known, size)
        covered = known.any(dim=1)
        for name, heat in _maps(encode, part, size, stage).items():
            mask = known if heat.ndim == 4 else covered
            for number, values in localisation(stretch(heat), mask, width, tolerance, share).items():
                found.setdefault(name, {}).setdefault(number, []).append(values)
    means: dict[str, dict[str, float]] = {}
    for name, numbers in found.items():
        joined = {number: torch.cat(values) for number, values in numbers.items()}
        means[name] = {number: float(values.nanmean()) for number, values in joined.items()}
        means[name]["clips"] = float(joined["energy"].isfinite().sum())
    return means


def centre_crop_masks(masks: Tensor, size: int, box: Tensor | None = None) -> Tensor:
    """Masks as `bgaug.pairs.centre_crop` sees them: bool (B, T, H, W) to bool (B, T, S, S), on if covered by half.

    `box`, (B, 4), is where the picture lies inside the frame: (top, left, height, width), pixels; all of it if None.
    """
    B, T, H, W = masks.shape
    box = torch.tensor([[0, 0, H, W]], device=masks.device).expand(B, -1) if box is None else box
    top, left, height, width = box.to(torch.float32).unbind(1)
    side = torch.minimum(height, width)
    square = torch.stack([top + (height - side) / 2, left + (width - side) / 2, side, side], dim=1)
    return crop_resize_masks(masks.to(torch.uint8), square, size).squeeze(1) >= 0.5


def _maps(encode: Encode, frames: Tensor, size: int, stage: str | None) -> dict[str, Tensor]:
    B, T, H, W, _ = frames.shape
    box = torch.tensor([[0, 0, H, W]], device=frames.device).expand(B, -1)
    features, saliency = encode(centre_crop(frames, box, size))
    stage = list(features)[-1] if stage is None else stage
    if stage not in features:
        raise ValueError(f"no stage {stage!r}; the encoder has {', '.join(features)}")
    active = activation_map(features[stage])
    return {
        "activation": upsample(active, (T, size, size)),
        "activation_mean": upsample(active.mean(dim=1), (size, size)),
        "saliency": upsample(saliency.float(), (size, size)),
    }


def localisation(
    heat: Tensor,
    mask: Tensor,
    width: int,
    tolerance: int = 1,
    share: float | None = None,
    *,
    known: Tensor | None = None,
) -> dict[str, Tensor]:
    """All numbers of a map: "energy", "ring" and "far", each also as a ratio to chance, "pointing" and "iou", (B,) each.

    Arguments and errors as of `ring_energy`, `pointing_game` and `iou_at_top`.

    Args:
        heat: the map.
        mask: what it is held against.
        width: of the ring.
        tolerance: of the pointing game.
        share: of `iou_at_top`.
        known: bool, of the mask's shape: pixels of which the truth says something. The others count nowhere, neither
            as energy nor as area. None: all are known.
    """
    around, far = ring(mask, width), ~_widened(mask, width)
    if known is not None:
        if known.shape != mask.shape or known.dtype != torch.bool:
            raise ValueError(f"known must be bool {tuple(mask.shape)}, got {known.dtype} {tuple(known.shape)}")
        heat, mask, around, far = heat * known, mask & known, around & known, far & known
    whole = torch.ones_like(mask) if known is None else known
    heat, mask = _checked(heat, mask)
    energy, ringed, beyond = (_energy(heat, region, mask) for region in (mask, around, far))
    return {
        "energy": energy,
        "energy_ratio": energy / _share(mask, whole),
        "ring": ringed,
        "ring_ratio": ringed / _share(around, whole),
        "far": beyond,
        "far_ratio": beyond / _share(far, whole),
        "pointing": pointing_game(heat, mask, tolerance),
        "iou": iou_at_top(heat, mask, share),
    }


def _share(region: Tensor, whole: Tensor) -> Tensor:
    return region.flatten(1).sum(dim=1) / whole.flatten(1).sum(dim=1)
