"""Filters in space, the same for all frames of a clip.

Letters: B clips, C channels, T frames, h, w pixels.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs.taps import Taps, blur_radius, blur_taps, each_step


def gaussian_blur(clips: Tensor, sigma: Tensor | float, radius: int | None = None, out: Tensor | None = None) -> Tensor:
    """Blur every frame; near the border the kernel keeps to the picture and is renormalised.

    Rows, then columns. On a CPU one pass over the clips; elsewhere three, a product each and one that puts the result in
    order.

    Args:
        clips: float32 (B, C, T, h, w).
        sigma: pixels, 0 leaves a clip as it is; float32 (B,), or one number for all, which is faster: the kernel's end
            is known then without asking the device.
        radius: the kernel ends this many pixels from its centre; not at all if None.
        out: where the result goes, (B, C, T, h, w), perhaps `clips` itself; new memory if None.

    Returns:
        float32 (B, C, T, h, w), or `out`.

    Raises:
        ValueError: out has another shape.
    """
    h, w = clips.shape[3:]
    if not isinstance(sigma, Tensor):
        radius = blur_radius(sigma) if radius is None else min(radius, blur_radius(sigma))
        sigma = clips.new_full((1,), sigma, dtype=torch.float32)
    with torch.autocast(clips.device.type, enabled=False):
        down, across = blur_taps(sigma, h, radius), blur_taps(sigma, w, radius)
        return each_step(partial(blur_frames, down=down, across=across.dense(w)), clips, out)


def blur_frames(clips: Tensor, down: Taps, across: Tensor) -> Tensor:
    """Blur by the taps of `blur_taps` along columns, and by a dense matrix along rows.

    Args:
        clips: float32 (B, C, T, h, w).
        down: of B clips or of one for all.
        across: float32 (B, w, w), or (1, w, w) for all.
    """
    B, C, T, h, w = clips.shape
    down = Taps(down.first.expand(B, -1), down.weights.expand(B, -1, -1))
    blur = _by_taps if clips.device.type == "cpu" else _by_products
    return blur(clips, down, across.expand(B, w, w))


def _by_taps(clips: Tensor, down: Taps, across: Tensor) -> Tensor:
    B, C, T, h, w = clips.shape
    rows = down.sum_rows(clips.reshape(B, C * T, h, w))
    return torch.bmm(rows.view(B, C * T * h, w), across.transpose(1, 2)).view(B, C, T, h, w)


def _by_products(clips: Tensor, down: Taps, across: Tensor) -> Tensor:
    """Each product leaves its result turned, so that the side to be summed next comes last by itself."""
    B, C, T, h, w = clips.shape
    lines = torch.bmm(across, clips.reshape(B, C * T * h, w).transpose(1, 2))
    columns = torch.bmm(lines.view(B, w * C * T, h), down.dense(h).transpose(1, 2))
    return columns.view(B, w, C, T, h).permute(0, 2, 3, 4, 1).contiguous()


def dilate(masks: Tensor, radius: float, out: Tensor | None = None) -> Tensor:
    """The largest value of the square around each pixel, in every frame.

    On a CPU one pass over the masks; elsewhere about three for each doubling of the square's side.

    Args:
        masks: float32, at least 0, (B, C, T, h, w).
        radius: pixels on each side. A fraction blends the two whole dilations around it, so 0.57 gives the next ring of
            pixels the weight 0.57.
        out: where the result goes, (B, C, T, h, w), perhaps `masks` itself; new memory if None.

    Returns:
        float32 (B, C, T, h, w), or `out`.

    Raises:
        ValueError: radius is negative, or out has another shape.
    """
    if radius < 0:
        raise ValueError(f"radius is pixels, at least 0, got {radius = }")
    whole = math.floor(radius)

    def grow(part: Tensor) -> Tensor:
        grown = _largest_around(part, whole)
        return grown if radius == whole else torch.lerp(grown, _largest_around(grown, 1), radius - whole)

    return each_step(grow, masks, out)


def _largest_around(masks: Tensor, radius: int) -> Tensor:
    """By rows, then by columns; several times faster on a CPU than pooling."""
    if radius == 0:
        return masks.clone()
    return _largest_ahead(_largest_ahead(F.pad(masks, (radius,) * 4), -1, 2 * radius + 1), -2, 2 * radius + 1)


def _largest_ahead(values: Tensor, dim: int, window: int) -> Tensor:
    """The largest of each `window` neighbours, from windows that double: log2(window) steps."""
    width = 1
    while width < window:
        step = min(width, window - width)
        length = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
        width += step
    return values
