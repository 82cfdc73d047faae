"""Boxes, flips, and frames cut and resized by them.

Letters: B clips, T frames, C channels, H, W pixels of the stored frame, S side of a square crop.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bgaug.pairs.augmentation import Augmentation, Colour, channels, check_normalisation
from bgaug.pairs.draws import between, uniform
from bgaug.pairs.filters import Taps, clips_at_once, frames_at_once, resize_taps

_ATTEMPTS = 10


def crop_boxes(key: Tensor, box: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """Random resized crops, one per clip, with fractional edges.

    Area and log-ratio are drawn until the crop fits, at most ten times; after that it is the largest centred crop of an
    allowed ratio.

    Args:
        key: int64 (B,).
        box: (B, 4), (top, left, height, width) of the image inside the frame, pixels.
        config: gives `scale` and `ratio`.
        view: number of the view; each draws its own crops.

    Returns:
        float32 (B, 4), (top, left, height, width), inside `box`.
    """
    top, left, height, width = box.to(torch.float32).unbind(1)
    draws = uniform(key, f"crop/{view}", 2 * _ATTEMPTS + 2)
    area, ratio = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS:-2]
    area = (height * width).unsqueeze(1) * between(area, *config.scale)
    ratio = torch.exp(between(ratio, math.log(config.ratio[0]), math.log(config.ratio[1])))
    heights, widths = (area / ratio).sqrt(), (area * ratio).sqrt()
    fits = (heights <= height.unsqueeze(1)) & (widths <= width.unsqueeze(1))
    first = fits.to(torch.int32).argmax(dim=1, keepdim=True)
    whole = (width / height).clamp(*config.ratio)
    found = fits.any(dim=1)
    h = torch.where(found, heights.gather(1, first).squeeze(1), torch.minimum(height, width / whole))
    w = torch.where(found, widths.gather(1, first).squeeze(1), torch.minimum(width, height * whole))
    spread = torch.where(found.unsqueeze(1), draws[:, -2:], torch.full_like(draws[:, -2:], 0.5))
    return torch.stack([top + spread[:, 0] * (height - h), left + spread[:, 1] * (width - w), h, w], dim=1)


def flips(key: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """Which clips are flipped left to right: bool (B,)."""
    return uniform(key, f"flip/{view}", 1).squeeze(1) < config.flip


def crop_resize(frames: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut one box out of all frames of a clip and resize it to a square, antialiased.

    A triangle filter, wider for smaller outputs, along rows, then along columns: equal to
    ``interpolate(mode="bilinear", antialias=True)`` of the cut image, but boxes may have fractional edges.

    One pass over the frames, which reads each byte once; a CPU then only writes the result. Other devices write the
    frames as float32 in that pass, and two matrix products, for rows and for columns, are a pass each.

    Args:
        frames: uint8 (B, T, H, W, C).
        boxes: float (B, 4), (top, left, height, width), pixels, inside the frame, each side at least 1.
        size: side S of the output.
        flip: bool (B,), clips to flip left to right.

    Returns:
        float32 in [0, 1], (B, C, T, S, S).

    Raises:
        ValueError: frames is not uint8 (B, T, H, W, C).
    """
    return _crop_resize(frames, boxes, size, flip, gain=1 / 255)


def crop_resize_masks(masks: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """`crop_resize` for masks: uint8 (B, T, H, W) of 0 and 1 -> float32 in [0, 1], (B, 1, T, S, S)."""
    return _crop_resize(masks.unsqueeze(-1), boxes, size, flip, gain=1.0)


def crop_resize_images(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """`crop_resize` for images: uint8 (B, H, W, C) -> float32 in [0, 1], (B, C, 1, S, S)."""
    return _crop_resize(images.unsqueeze(1), boxes, size, flip, gain=1 / 255)


def centre_crop(
    frames: Tensor, box: Tensor, size: int, mean: Colour = (0.0, 0.0, 0.0), std: Colour = (1.0, 1.0, 1.0)
) -> Tensor:
    """The evaluation view: the centre square, resized to `size`.

    The passes are those of `crop_resize`, and one more over the result if it is normalised.

    Args:
        frames: uint8 (B, T, H, W, 3).
        box: (B, 4), (top, left, height, width) of the image inside the frame, pixels.
        size: side S of the output.
        mean: mean of R, G, B in the `Augmentation` that the network was trained with.
        std: standard deviation of R, G, B in that `Augmentation`.

    Returns:
        float32 (B, 3, T, S, S), in [0, 1] unless normalised.

    Raises:
        ValueError: frames is not uint8 (B, T, H, W, C), or mean and std are out of range.
    """
    check_normalisation(mean, std)
    top, left, height, width = box.to(torch.float32).unbind(1)
    side = torch.minimum(height, width)
    boxes = torch.stack([top + (height - side) / 2, left + (width - side) / 2, side, side], dim=1)
    clips = crop_resize(frames, boxes, size)
    if any(mean) or any(value != 1 for value in std):
        clips = clips.sub_(channels(mean, clips)).div_(channels(std, clips))
    return clips


def _crop_resize(frames: Tensor, boxes: Tensor, size: int, flip: Tensor | None, gain: float) -> Tensor:
    if frames.dtype != torch.uint8 or frames.ndim != 5:
        raise ValueError(f"expected uint8 (B, T, H, W, C), got {frames.dtype} of shape {tuple(frames.shape)}")
    B, T, H, W, C = frames.shape
    if boxes.shape != (B, 4):
        raise ValueError(f"boxes must be (B, 4) = {(B, 4)}, got {tuple(boxes.shape)}")
    top, left, height, width = boxes.to(torch.float32).unbind(1)
    down = resize_taps(top, height, size, H)
    down = Taps(down.first, down.weights * gain)
    across = resize_taps(left, width, size, W, flip)
    with torch.autocast(frames.device.type, enabled=False):
        if frames.device.type == "cpu":
            out = frames.new_empty((B, C, T, size, size), dtype=torch.float32)
            for part in clips_at_once(4 * H * W * C, B):
                _by_taps(frames[part], down.of(part), across.of(part), out[part])
            return out
        step = frames_at_once(4 * B * H * W * C, T, frames.device)
        parts = [_by_products(part, down.dense(H), across.dense(W)) for part in torch.split(frames, step, dim=1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _by_taps(frames: Tensor, down: Taps, across: Taps, out: Tensor) -> None:
    """uint8 (B, T, H, W, C) to float32 (B, C, T, S, S), a few frames at a time, rows summed only by their taps."""
    B, T, H, W, C = frames.shape
    size = out.shape[4]
    step = frames_at_once(4 * B * H * W * C, T, frames.device)
    # The same memory in every step stays in the cache and needs no fresh pages.
    floats = frames.new_empty(B * step * H * W * C, dtype=torch.float32)
    turned = frames.new_empty(B * step * W * C * size, dtype=torch.float32)
    for part, place in zip(torch.split(frames, step, dim=1), torch.split(out, step, dim=2), strict=True):
        t = part.shape[1]
        lines = floats[: B * t * H * W * C].view(B, t, H, W, C)
        lines.copy_(part)
        rows = down.sum_rows(lines.view(B, t, H, W * C)).view(B, t, size, W, C)
        columns = turned[: B * t * W * C * size].view(B, t, W, C, size)
        columns.copy_(rows.permute(0, 1, 3, 4, 2))
        pixels = across.sum_rows(columns.view(B, t, W, C * size)).view(B, t, size, C, size)
        place.copy_(pixels.permute(0, 3, 1, 4, 2))


def _by_products(frames: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """uint8 (B, T, H, W, C) by (B, S, H) and (B, S, W) -> float32 (B, C, T, S, S)."""
    B, T, H, W, C = frames.shape
    size = down.shape[1]
    lines = frames.permute(0, 2, 3, 4, 1).to(torch.float32, memory_format=torch.contiguous_format)
    # Each product transposes its result, so that the axis to be summed next comes last without a copy.
    rows = torch.bmm(lines.view(B, H, W * C * T).transpose(1, 2), down.transpose(1, 2))
    pixels = torch.bmm(rows.view(B, W, C * T * size).transpose(1, 2), across.transpose(1, 2))
    return pixels.view(B, C, T, size, size)
