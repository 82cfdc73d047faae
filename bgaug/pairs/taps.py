"""Banded matrices, one a clip: each output is a weighted sum of a few neighbouring inputs, its taps.

Letters: B clips, N outputs, P inputs, K taps, L numbers in a row, n pictures of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# What one step of a CPU may write: a frame each of 64 clips of 128x171, well within the last level of cache. Other
# devices would rather have few and large steps; there it bounds the memory.
CPU_CHUNK_BYTES = 8 << 20
DEVICE_CHUNK_BYTES = 512 << 20
TAIL = 1e-6  # of the peak: where a Gaussian ends
_TAIL_SIGMAS = math.sqrt(-2 * math.log(TAIL))


class Taps(NamedTuple):
    """The matrices of a batch.

    Attributes:
        first: int64 (B, N), the first input of each output; the others follow it.
        weights: float32 (B, N, K).
    """

    first: Tensor
    weights: Tensor

    def of(self, clips: slice) -> Taps:
        """Those of some clips."""
        return Taps(self.first[clips], self.weights[clips])

    def dense(self, inputs: int) -> Tensor:
        """The same as whole matrices: float32 (B, N, P)."""
        B, N, K = self.weights.shape
        return self.weights.new_zeros(B, N, inputs).scatter_(2, self._inputs(), self.weights)

    def sum_rows(self, rows: Tensor) -> Tensor:
        """Each output the weighted sum of its rows: float32 (B, n, P, L) -> (B, n, N, L).

        An embedding's lookup, whose kernel for CPUs costs a tenth of the matrix product, in which most factors are 0.
        """
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
    """A triangle filter over [start, start + length) of P pixels, whose width follows the scale; weights add up to one.

    Args:
        start: float32 (B,), at least 0.
        length: float32 (B,), start + length at most P.
        size: outputs N.
        pixels: inputs P.
        flip: bool (B,), outputs in reverse.
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
    """Gaussian weights over P pixels, adding up to one: a pixel each out, up to 2 radius + 1 of them in.

    Args:
        sigma: float32 (B,), pixels; 0 for no blur.
        pixels: inputs and outputs.
        radius: the kernel ends this many pixels from its centre; where `TAIL` says if None.
    """
    reach = pixels if radius is None else radius
    taps = min(pixels, 2 * reach + 1)
    grid = torch.arange(pixels, device=sigma.device)
    first = (grid - reach).clamp(0, pixels - taps)
    inputs = first.unsqueeze(1) + torch.arange(taps, device=sigma.device)
    distance = (inputs - grid.unsqueeze(1)).to(torch.float32)
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-2).view(-1, 1, 1)) ** 2)
    # Tails nobody can see, but for the denormal numbers in them, which slow a CPU down several times.
    weights = weights * (weights > TAIL) * (distance.abs() <= reach)
    return Taps(first.expand(len(sigma), pixels), weights / weights.sum(dim=2, keepdim=True))


def blur_radius(sigma: float) -> int:
    """Pixels from the centre beyond which `blur_taps` gives no weight."""
    return math.ceil(_TAIL_SIGMAS * sigma)


def frames_at_once(frame: int, num_frames: int, device: torch.device) -> int:
    """Frames of all clips to take in one step.

    Args:
        frame: bytes of one frame of every clip.
        num_frames: frames of a clip, T.
        device: where they are.
    """
    limit = CPU_CHUNK_BYTES if device.type == "cpu" else DEVICE_CHUNK_BYTES
    return _part(frame, num_frames, limit)


def clips_at_once(frame: int, num_clips: int) -> list[slice]:
    """Clips to take together on a CPU: all of them, unless a frame of each is more than a step may write.

    Args:
        frame: bytes of one frame of one clip.
        num_clips: of the batch, B.
    """
    count = _part(frame, num_clips, CPU_CHUNK_BYTES)
    return [slice(first, first + count) for first in range(0, num_clips, count)]


def _part(size: int, count: int, limit: int) -> int:
    """How many of `count` things of some bytes to take together, so that parts are alike and within a limit."""
    # A compiler's trace would hold every step.
    parts = 1 if torch.compiler.is_compiling() else math.ceil(size * count / limit)
    return max(1, math.ceil(count / max(1, min(count, parts))))


def each_step(change: Callable[[Tensor], Tensor], clips: Tensor, out: Tensor | None) -> Tensor:
    """A function of single frames, a few frames at a time.

    Args:
        change: float32 (B, C, t, h, w) -> the same shape, in other memory.
        clips: float32 (B, C, T, h, w).
        out: where the results go, (B, C, T, h, w) of any floating type, `clips` itself included; new memory if None.

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
