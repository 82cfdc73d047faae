"""The separable Inception network S3D, under torchvision's parameter names.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bgaug.model.backbones.convolution import ConvolutionalBackbone, initialised, unit


class _Widths(NamedTuple):
    """Channels of an Inception block: input, plain branch, two branches before and in their 3x3x3, pooled branch."""

    inputs: int
    plain: int
    before1: int
    middle1: int
    before2: int
    middle2: int
    pooled: int


# The Inception blocks between the pools, as in the first Inception network.
_EARLY = (_Widths(192, 64, 96, 128, 16, 32, 32), _Widths(256, 128, 128, 192, 32, 96, 64))
_MIDDLE = (
    _Widths(480, 192, 96, 208, 16, 48, 64),
    _Widths(512, 160, 112, 224, 24, 64, 64),
    _Widths(512, 128, 128, 256, 24, 64, 64),
    _Widths(512, 112, 144, 288, 32, 64, 64),
    _Widths(528, 256, 160, 320, 32, 128, 128),
)
_LATE = (_Widths(832, 256, 160, 320, 32, 128, 128), _Widths(832, 384, 192, 384, 48, 128, 128))


class S3D(ConvolutionalBackbone):
    """The separable Inception network S3D, without gating and classifier: 7,910,048 parameters.

    (B, 3, 16, 112, 112) gives stages of (192, 8, 28, 28), (480, 8, 14, 14), (832, 4, 7, 7), (1024, 2, 3, 3): a stage
    ends before each of its pools except the first. Its stem halves the frame rate. Clips need 5 frames and 17 pixels
    per side, and 7 frames for motion to be read. Parameters have torchvision's names and shapes, so its `s3d` weights
    load.

    Its batch norms have the published epsilon, 0.001, and torch's momentum, 0.1. With the published momentum, 0.001 in
    torch's convention, running statistics need thousands of steps, which a short run does not have.

    Args:
        temporal_padding: see `ConvolutionalBackbone`.
        normalise: see `ConvolutionalBackbone`.

    Reference: S. Xie, C. Sun, J. Huang, Z. Tu, K. Murphy, "Rethinking spatiotemporal feature learning: speed-accuracy
    trade-offs in video classification", 2018, arXiv 1712.04851.
    """

    widths: ClassVar[Sequence[int]] = (192, 480, 832, 1024)
    # (kernel, stride) in time; the last pool is not padded.
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]] = {
        "stage1": [(7, 2), (3, 1)],
        "stage2": [(3, 1)] * 2,
        "stage3": [(3, 2)] + [(3, 1)] * 5,
        "stage4": [(1, 2)] + [(3, 1)] * 2,
    }

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__(temporal_padding, normalise)
        early = [
            _separable(3, 64, 7, 2, temporal_padding),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            _unit(64, 64, (1, 1, 1), 1, temporal_padding),
            _separable(64, 192, 3, 1, temporal_padding),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *(_Inception(widths, temporal_padding) for widths in _EARLY),
            nn.MaxPool3d(3, 2, 1),
            *(_Inception(widths, temporal_padding) for widths in _MIDDLE),
        ]
        self.features = initialised(nn.Sequential(*early, *self._late()))

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 832, T', H', W') -> (B, 1024, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        return initialised(nn.Sequential(*self._late()))

    def _late(self) -> list[nn.Module]:
        return [nn.MaxPool3d(2, 2), *(_Inception(widths, self.temporal_padding) for widths in _LATE)]

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """See `ConvolutionalBackbone.stages`."""
        layers = list(self.features.children())
        return [layers[begin:end] for begin, end in pairwise((0, 4, 7, 13, 16))]


class _Inception(nn.Module):
    """Four branches side by side: 1x1x1, twice 1x1x1 then separable 3x3x3, and pooled then 1x1x1."""

    def __init__(self, widths: _Widths, temporal_padding: str) -> None:
        super().__init__()
        inputs, plain, before1, middle1, before2, middle2, pooled = widths

        def point(inputs: int, outputs: int) -> nn.Module:
            return _unit(inputs, outputs, (1, 1, 1), 1, temporal_padding)

        def separable(inputs: int, outputs: int) -> nn.Module:
            return _separable(inputs, outputs, 3, 1, temporal_padding)

        self.branch0 = point(inputs, plain)
        self.branch1 = nn.Sequential(point(inputs, before1), separable(before1, middle1))
        self.branch2 = nn.Sequential(point(inputs, before2), separable(before2, middle2))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), point(inputs, pooled))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.cat([branch(clips) for branch in self.children()], dim=1)


def _separable(inputs: int, outputs: int, size: int, stride: int, temporal_padding: str) -> nn.Module:
    space = _unit(inputs, outputs, (1, size, size), stride, temporal_padding)
    return nn.Sequential(space, _unit(outputs, outputs, (size, 1, 1), stride, temporal_padding))


def _unit(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, temporal_padding: str) -> nn.Module:
    """A unit with the published epsilon, strided where the kernel is wider than 1."""
    time, height, width = (stride if size > 1 else 1 for size in kernel)
    return unit(inputs, outputs, kernel, (time, height, width), temporal_padding, eps=1e-3)
