"""Filters in space as banded matrices: each output pixel is a weighted sum of a few neighbouring inputs, its taps.

Letters: B clips, C channels, T frames, h, w pixels; N outputs, P inputs, K taps, L numbers in a row, n images of a
clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes that one step may write. On a CPU that is one frame of each of 64 clips of 128x171, which stays in the last
# level of cache. Other devices are faster with few and large steps; there it limits the memory.
_CPU_CHUNK_BYTES = 8 << 20
_DEVICE_CHUNK_BYTES = 512 << 20
_TAIL = 1e-6  # share of its peak at which a Gaussian ends
_TAIL_SIGMAS = math.sqrt(-2 * math.log(_TAIL))


class Taps(NamedTuple):
    """The matrices of a batch.

    Attributes:
        first: int64 (B, N), the first input of each output; the others follow it.
        weights: float32 (B, N, K).
    """

    first: Tensor
    weights: Tensor

    def of(self, clips: slice) -> Taps:
        """The matrices of some clips."""
        return Taps(self.first[clips], self.weights[clips])

    def dense(self, inputs: int) -> Tensor:
        """The same as dense matrices: float32 (B, N, P)."""
        B, N, K = self.weights.shape
        return self.weights.new_zeros(B, N, inputs).scatter_(2, self._inputs(), self.weights)

    def sum_rows(self, rows: Tensor) -> Tensor:
        """Weighted sums of rows: float32 (B, n, P, L) -> (B, n, N, L)."""
        # The CPU kernel of an embedding's lookup costs a tenth of a matrix product in which most factors are 0.
        B, n, P, L = rows.shape
        N, K = self.weights.shape[1:]
        start = torch.arange(B * n, device=rows.device).view(B, n, 1, 1) * P
        places = (start + self._inputs().unsqueeze(1)).view(B * n * N, K)
        weights = self.weights.unsqueeze(1).expand(B, n, N, K).reshape(B * n * N, K)
        summed = F.embedding_bag(places, rows.reshape(B * n * P, L), per_sample_weights=weights, mode="sum")
        return summed.view(B, n, N, L)

    def _inputs(self) -> Tensor:
        return self.first.unsqueeze(2) + torch.arange(self.weights.shape[2], device=self.first.device)


def resize_taps(start: Tensor, length: Tensor, size: int, pixels: int, flip: Tensor | None = None) -> Taps:
    """A triangle filter over [start, start + length) of P pixels, wider for smaller outputs; weights add up to one.

    Args:
        start: float32 (B,), at least 0.
        length: float32 (B,), start + length at most P.
        size: outputs N.
        pixels: inputs P.
        flip: bool (B,), reverses the outputs.
    """
    taps = min(pixels, math.ceil(2 * max(1.0, pixels / size)))
    scale = (length / size).unsqueeze(1)
    out = (torch.arange(size, device=start.device) + 0.5).unsqueeze(0)
    if flip is not None:
        out = torch.where(flip.unsqueeze(1), size - out, out)
    centre = start.unsqueeze(1) + out * scale
    reach = scale.clamp(min=1)
    first = (centre - reach + 0.5).floor().clamp(0, pixels - taps)
    grid = first.unsqueeze(2) + torch.arange(taps, device=start.device) + 0.5
    weights = (1 - (grid - centre.unsqueeze(2)).abs() / reach.unsqueeze(2)).clamp(min=0)
    begin, end = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
    covered = (torch.minimum(grid + 0.5, end) - torch.maximum(grid - 0.5, begin)).clamp(0, 1)
    weights = weights * covered
    return Taps(first.to(torch.int64), weights / weights.sum(dim=2, keepdim=True))


def blur_taps(sigma: Tensor, pixels: int, radius: int | None) -> Taps:
    """Gaussian weights over P pixels that add up to one: P outputs, each of up to 2 radius + 1 inputs.

    Args:
        sigma: float32 (B,), pixels; 0 for no blur.
        pixels: inputs and outputs.
        radius: the kernel ends this many pixels from its centre; if None, where its weight falls below 1e-6 of its
            peak.
    """
    reach = pixels if radius is None else radius
    taps = min(pixels, 2 * reach + 1)
    grid = torch.arange(pixels, device=sigma.device)
    first = (grid - reach).clamp(0, pixels - taps)
    inputs = first.unsqueeze(1) + torch.arange(taps, device=sigma.device)
    distance = (inputs - grid.unsqueeze(1)).to(torch.float32)
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-2).view(-1, 1, 1)) ** 2)
    # The tails are cut because they hold denormal numbers, which slow a CPU down several times.
    weights = weights * (weights > _TAIL) * (distance.abs() <= reach)
    return Taps(first.expand(len(sigma), pixels), weights / weights.sum(dim=2, keepdim=True))


def blur_radius(sigma: float) -> int:
    """Pixels from the centre beyond which `blur_taps` gives no weight."""
    return math.ceil(_TAIL_SIGMAS * sigma)


def frames_at_once(frame: int, num_frames: int, device: torch.device) -> int:
    """Number of frames per step, when `frame` is the bytes of one frame of all clips and a clip has `num_frames`."""
    return _part(frame, num_frames, _CPU_CHUNK_BYTES if device.type == "cpu" else _DEVICE_CHUNK_BYTES)


def clips_at_once(frame: int, num_clips: int) -> list[slice]:
    """Clips per step on a CPU, when `frame` is the bytes of one frame of one clip: all if one frame fits."""
    count = _part(frame, num_clips, _CPU_CHUNK_BYTES)
    return [slice(first, first + count) for first in range(0, num_clips, count)]


def _part(size: int, count: int, limit: int) -> int:
    """Number of items per step, so that steps are of about equal size and within `limit` bytes."""
    # One step only while a compiler traces: its trace would hold every step.
    parts = 1 if torch.compiler.is_compiling() else math.ceil(size * count / limit)
    return max(1, math.ceil(count / max(1, min(count, parts))))


def each_step(change: Callable[[Tensor], Tensor], clips: Tensor, out: Tensor | None) -> Tensor:
    """Apply a function of single frames to a few frames at a time.

    Args:
        change: float32 (B, C, t, h, w) -> the same shape, in other memory.
        clips: float32 (B, C, T, h, w).
        out: memory for the results, (B, C, T, h, w) of any floating type, perhaps `clips` itself; new memory if None.

    Raises:
        ValueError: out has another shape.
    """
    B, C, T, h, w = clips.shape
    if out is not None and out.shape != clips.shape:
        raise ValueError(f"out must have the clips' shape {tuple(clips.shape)}, got {tuple(out.shape)}")
    step = frames_at_once(4 * B * C * h * w, T, clips.device)
    if out is None and step >= T:
        return change(clips)
    if out is None:
        out = clips.new_empty(clips.shape)
    for part, place in zip(torch.split(clips, step, dim=2), torch.split(out, step, dim=2), strict=True):
        place.copy_(change(part))
    return out


def gaussian_blur(clips: Tensor, sigma: Tensor | float, radius: int | None = None, out: Tensor | None = None) -> Tensor:
    """Blur every frame, rows, then columns; near the border the kernel is cut to the image and renormalised.

    On a CPU one pass over the clips; on other devices three, one per product and one that orders the result.

    Args:
        clips: float32 (B, C, T, h, w).
        sigma: pixels, 0 leaves a clip as it is; float32 (B,), or one number for all, which is faster, because the
            kernel's size is then known on the host.
        radius: the kernel ends this many pixels from its centre; not limited if None.
        out: memory for the result, (B, C, T, h, w), perhaps `clips` itself; new memory if None.

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
        down: taps of B clips, or of one for all.
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
    # Each product transposes its result, so that the axis to be summed next comes last without a copy.
    B, C, T, h, w = clips.shape
    lines = torch.bmm(across, clips.reshape(B, C * T * h, w).transpose(1, 2))
    columns = torch.bmm(lines.view(B, w * C * T, h), down.dense(h).transpose(1, 2))
    return columns.view(B, w, C, T, h).permute(0, 2, 3, 4, 1).contiguous()


def dilate(masks: Tensor, radius: float, out: Tensor | None = None) -> Tensor:
    """The largest value of the square around each pixel, in every frame.

    On a CPU one pass over the masks; on other devices about three for each doubling of the square's side.

    Args:
        masks: float32, at least 0, (B, C, T, h, w).
        radius: pixels on each side. A fraction blends the two whole dilations around it, so 0.57 gives the next ring of
            pixels the weight 0.57.
        out: memory for the result, (B, C, T, h, w), perhaps `masks` itself; new memory if None.

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
    if radius == 0:
        return masks.clone()
    # Rows, then columns: several times faster on a CPU than pooling.
    return _largest_ahead(_largest_ahead(F.pad(masks, (radius,) * 4), -1, 2 * radius + 1), -2, 2 * radius + 1)


def _largest_ahead(values: Tensor, dim: int, window: int) -> Tensor:
    """The largest of each `window` neighbours."""
    width = 1  # the window doubles: log2(window) steps
    while width < window:
        step = min(width, window - width)
        length = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
        width += step
    return values
