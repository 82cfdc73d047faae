"""Heat maps of an encoder's features, and how much of their energy falls on the foreground.

Letters: B clips, C channels, T frames, H, W pixels, S side of a square crop; primes for the grid of a feature map.

Maps: the activation, whatever the class (`activation_map`); the evidence for a class in any stage, for a code of means
(`grad_cam`) or of deviations over time (`hires_cam`); and where features change
(`bgaug.model.decomposition.saliency_map`). A map explains the code that its score was computed from.

Numbers (`localisation`): a map and a mask of one shape, (B, H, W) or (B, T, H, W), give one value per clip. The energy
is divided into that of the mask, of a ring around it, which holds the prop, the shadow and the rim (micro bias), and of
all that is far (wide bias); the three add up to 1. The result is nan if the map is 0 everywhere or the mask is empty.

References: B. Zhou et al., "Learning deep features for discriminative localization", 2016, arXiv 1512.04150 (class
activation maps, which Grad-CAM gives in the last stage). H. Wang et al., "Score-CAM", 2020, arXiv 1910.01279 (energy in
a region). J. Zhang et al., "Top-down neural attention by excitation backprop", 2016, arXiv 1608.00507 (pointing game).
Ring, far and ratios are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.model.decomposition import FLAT
from bgaug.model.decomposition import stretch as stretch_maps
from bgaug.pairs import centre_crop, crop_resize_masks

_Encoder = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor]]
"""From clips to feature maps by stage, in order, and the saliency."""


# --- maps ---------------------------------------------------------------------------------------------------------


def activation_map(features: Tensor) -> Tensor:
    """The sum of all channels above zero: float (B, C, T', H', W') to float32, 0 or more, (B, T', H', W').

    Raises:
        ValueError: features are not (B, C, T', H', W').
    """
    return _checked_features(features).relu().sum(dim=1)


def grad_cam(features: Tensor, score: Tensor) -> Tensor:
    """Evidence for a score in any stage: the channels, weighted by the mean gradient of the score, where above zero.

    Args:
        features: float (B, C, T', H', W') of a stage that `score` was computed from, with gradient.
        score: float (B,), such as each clip's logit of one class. It may depend on the clip's own features only, so
            batch norm must be in evaluation mode.

    Returns:
        float32, 0 or more, (B, T', H', W').

    Raises:
        ValueError: features are not (B, C, T', H', W').

    Reference: R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
        ICCV 2017, arXiv 1610.02391, equations 1 and 2.
    """
    values = _checked_features(features).detach()
    (gradient,) = torch.autograd.grad(score.sum(), features, retain_graph=True)
    weight = gradient.mean(dim=(2, 3, 4)).float()
    return torch.einsum("bcthw,bc->bthw", values, weight).relu()


def hires_cam(features: Tensor, score: Tensor, *, about_mean: bool = True) -> Tensor:
    """Evidence for a score, cell by cell: its gradient times the features, summed over channels, where above zero.

    For scores of the dynamic code, where `grad_cam` is 0: a deviation over time does not change when a channel rises by
    the same amount in all frames, so its gradient sums to zero over time, and Grad-CAM averages the gradient. In the
    last stage the map, summed over time before the cut at zero, is the class activation map of the code.

    Args:
        features: float (B, C, T', H', W') of a stage that `score` was computed from, with gradient.
        score: float (B,), see `grad_cam`.
        about_mean: subtract the mean over time from the features, because a deviation does not depend on it; False for
            a score that depends on means.

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
        ValueError: the map and the size have different numbers of dimensions.
    """
    if heat.ndim not in (3, 4) or heat.ndim != len(size) + 1:
        raise ValueError(f"a map (B, *) needs a size of as many numbers, got {tuple(heat.shape)} and {size}")
    mode = "bilinear" if heat.ndim == 3 else "trilinear"
    return F.interpolate(heat.unsqueeze(1), size=size, mode=mode, align_corners=False).squeeze(1)


def stretch(heat: Tensor) -> Tensor:
    """Each clip's map stretched to [0, 1]: float (B, ...) to float32 of the same shape.

    A flat map, whose range is under 1e-3 of its mean size, becomes 1/2 everywhere, as in
    `bgaug.model.decomposition.saliency_map`. Stretching removes what is equal everywhere and so changes energies:
    compare stretched maps with stretched maps.
    """
    heat = heat.float()
    return stretch_maps(heat, FLAT * heat.flatten(1).abs().mean(dim=1, keepdim=True))


def _checked_features(features: Tensor) -> Tensor:
    if features.ndim != 5:
        raise ValueError(f"features must be (B, C, T', H', W'), got {tuple(features.shape)}")
    return features.float()


# --- numbers ------------------------------------------------------------------------------------------------------


def localisation(
    heat: Tensor, mask: Tensor, width: int, tolerance: int = 1, *, known: Tensor | None = None
) -> dict[str, Tensor]:
    """How much of a map lies on a mask: float32 (B,) by name, nan where undefined.

    - "energy", "ring", "far": shares of the map's sum in the mask, in the ring around it, and elsewhere.
    - "energy_ratio", "ring_ratio", "far_ratio": the same divided by the region's share of the area; 1 is chance.
    - "pointing": how often the hottest pixel of a frame lies in the mask or near it. Equally hot pixels count by their
      share in the mask, so that a uniform map scores chance. Frames without a mask, or where the map is 0, do not
      count.
    - "iou": intersection over union of the mask and as many of the clip's hottest pixels as the mask has. Pixels as hot
      as the last one are included, those that are 0 never.

    Args:
        heat: float, 0 or more, (B, H, W) or (B, T, H, W).
        mask: bool, of the same shape.
        width: width of the ring, pixels: it holds the pixels from which a square of side 2 `width` + 1 reaches the
            mask.
        tolerance: pixels around the mask in which the hottest pixel still counts.
        known: bool, of the same shape: pixels where the mask is known. The others count neither as energy nor as area.

    Raises:
        ValueError: shapes or types do not fit, the map is negative somewhere, or a number of pixels is negative.
    """
    _check(heat, mask)
    heat = heat.float()
    ring = _widened(mask, width) & ~mask
    regions = {"energy": mask, "ring": ring, "far": ~(mask | ring)}
    if known is not None:
        if known.shape != mask.shape or known.dtype != torch.bool:
            raise ValueError(f"known must be bool {tuple(mask.shape)}, got {known.dtype} {tuple(known.shape)}")
        heat, mask = heat * known, mask & known
        regions = {name: region & known for name, region in regions.items()}
    pixels = (torch.ones_like(mask) if known is None else known).flatten(1).sum(dim=1)
    found: dict[str, Tensor] = {}
    for name, region in regions.items():
        found[name] = _energy(heat, region, mask)
        found[f"{name}_ratio"] = found[name] / (region.flatten(1).sum(dim=1) / pixels)
    return found | {"pointing": _pointing(heat, mask, tolerance), "iou": _iou(heat, mask)}


def _energy(heat: Tensor, region: Tensor, mask: Tensor) -> Tensor:
    heat, region = heat.flatten(1), region.flatten(1)
    total = heat.sum(dim=1)
    share = (heat * region).sum(dim=1) / total
    return torch.where((total > 0) & mask.flatten(1).any(dim=1), share, torch.nan)


def _pointing(heat: Tensor, mask: Tensor, tolerance: int) -> Tensor:
    frames, target, near = (x.flatten(-2) for x in (heat, mask, _widened(mask, tolerance)))
    hottest = frames == frames.amax(dim=-1, keepdim=True)
    hits = (hottest & near).sum(dim=-1) / hottest.sum(dim=-1)
    counted = target.any(dim=-1) & (frames > 0).any(dim=-1)
    return torch.where(counted, hits, torch.nan).view(len(heat), -1).nanmean(dim=1)


def _iou(heat: Tensor, mask: Tensor) -> Tensor:
    flat, target = heat.flatten(1), mask.flatten(1)
    order = flat.sort(dim=1, descending=True).values
    threshold = order.gather(1, target.sum(dim=1).clamp(min=1).unsqueeze(1) - 1)
    hottest = (flat >= threshold) & (flat > 0)
    iou = (hottest & target).sum(dim=1) / (hottest | target).sum(dim=1).clamp(min=1)
    return torch.where(hottest.any(dim=1) & target.any(dim=1), iou, torch.nan)


def _widened(mask: Tensor, width: int) -> Tensor:
    if width < 0:
        raise ValueError(f"a number of pixels is 0 or more, got {width}")
    frames = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return (F.max_pool2d(frames, 2 * width + 1, stride=1, padding=width) > 0).view(mask.shape)


def _check(heat: Tensor, mask: Tensor) -> None:
    if heat.ndim not in (3, 4) or heat.shape != mask.shape or mask.dtype != torch.bool or not heat.is_floating_point():
        raise ValueError(
            "a map must be float (B, H, W) or (B, T, H, W) and its mask bool of the same shape, "
            f"got {heat.dtype} {tuple(heat.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    # This waits for the device; none of it is for training.
    if bool((heat < 0).any()):
        raise ValueError(f"a map must be 0 or more, its least value is {heat.min().item():.3g}; stretch() it")


# --- an encoder on clips with known masks -------------------------------------------------------------------------


@torch.no_grad()
def score_heatmaps(
    encoder: _Encoder,
    frames: Tensor,
    masks: Tensor,
    size: int,
    *,
    stage: str | None = None,
    width: int | None = None,
    tolerance: int = 1,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """How much of an encoder's maps lies on the foreground, averaged over clips with known masks.

    Every map is upsampled to the pixels of the crop and then stretched, as it is drawn. Three maps are scored:
    "activation", frame by frame against the mask of each frame; "activation_mean" and "saliency", which have no time,
    against the union of all masks of the clip.

    Args:
        encoder: from float32 clips in [0, 1], (B, 3, T, S, S), to features (B, C, T', H', W') by stage, in order, and
            the saliency (B, H', W'). Bring the network into evaluation mode first.
        frames: uint8 (N, T, H, W, 3), on the device to work on.
        masks: bool (N, T, H, W), foreground; cropped and resized as the frames are.
        size: S, side of the centre crop.
        stage: stage of the activation; the last by default.
        width: width of the ring, pixels of the crop; by default a sixteenth of its side.
        tolerance: see `localisation`.
        batch_size: clips encoded at once; does not change the result.

    Returns:
        By map, means of the numbers of `localisation` over the clips that have a value, nan if none has, and "clips",
        their number.

    Raises:
        ValueError: shapes or types do not fit, or there is no such stage.
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
        for name, heat in _maps(encoder, part, size, stage).items():
            mask = known if heat.ndim == 4 else covered
            for number, values in localisation(stretch(heat), mask, width, tolerance).items():
                found.setdefault(name, {}).setdefault(number, []).append(values)
    means: dict[str, dict[str, float]] = {}
    for name, numbers in found.items():
        joined = {number: torch.cat(values) for number, values in numbers.items()}
        means[name] = {number: float(values.nanmean()) for number, values in joined.items()}
        means[name]["clips"] = float(joined["energy"].isfinite().sum())
    return means


def centre_crop_masks(masks: Tensor, size: int, box: Tensor | None = None) -> Tensor:
    """Masks cropped as by `bgaug.pairs.centre_crop`: bool (B, T, H, W) to bool (B, T, S, S), True if covered by half.

    `box`, (B, 4), is the content inside the frame: (top, left, height, width), pixels; the whole frame if None.
    """
    B, T, H, W = masks.shape
    box = torch.tensor([[0, 0, H, W]], device=masks.device).expand(B, -1) if box is None else box
    top, left, height, width = box.to(torch.float32).unbind(1)
    side = torch.minimum(height, width)
    square = torch.stack([top + (height - side) / 2, left + (width - side) / 2, side, side], dim=1)
    return crop_resize_masks(masks.to(torch.uint8), square, size).squeeze(1) >= 0.5


def _maps(encoder: _Encoder, frames: Tensor, size: int, stage: str | None) -> dict[str, Tensor]:
    B, T, H, W, _ = frames.shape
    box = torch.tensor([[0, 0, H, W]], device=frames.device).expand(B, -1)
    features, saliency = encoder(centre_crop(frames, box, size))
    stage = list(features)[-1] if stage is None else stage
    if stage not in features:
        raise ValueError(f"no stage {stage!r}; the encoder has {', '.join(features)}")
    active = activation_map(features[stage])
    return {
        "activation": upsample(active, (T, size, size)),
        "activation_mean": upsample(active.mean(dim=1), (size, size)),
        "saliency": upsample(saliency.float(), (size, size)),
    }
