"""The encoder for small clips, tests and slow machines: space, then time, in four stages.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the size of a feature map.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.model.backbones.convolution import padding_reach


class Tiny(Backbone):
    """A split-convolution network for clips of about 8 frames at 32 pixels: 124,144 parameters at width 16.

    Four stages of a spatial convolution (5x5, then 3x3; stride 2, 2, 2, 1) and a temporal one (3, stride 1), each with
    batch norm and ReLU; (B, 3, 8, 32, 32) becomes (B, 96, 8, 4, 4). Time is never strided.

    Args:
        width: channels of the first stage; the others have 2, 4 and 6 times as many.
        temporal_padding: "replicate" repeats the end frames, so that a clip without motion has features without motion;
            with "zeros" the ends differ from the middle in every clip.

    Raises:
        ValueError: width below 1 or another padding.

    Reference: D. Tran, H. Wang, L. Torresani, J. Ray, Y. LeCun, M. Paluri, "A closer look at spatiotemporal
    convolutions for action recognition", 2018, arXiv 1711.11248, for the split of a 3-D convolution into space and
    time. The size is ours.
    """

    head: ClassVar[tuple[int, int, bool]] = (128, 64, True)

    def __init__(self, width: int = 16, temporal_padding: str = "replicate") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is a number of channels, at least 1, got {width = }")
        self.temporal_padding = temporal_padding
        self.temporal_reach = padding_reach(temporal_padding, {stage: [(3, 1)] for stage in STAGES})
        self.saliency_stages = ("stage1",) if self.temporal_reach else None
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.dims = dict(zip(STAGES, widths, strict=True))
        self.stage1 = _SplitStage(3, widths[0], 5, 2, temporal_padding)
        self.stage2 = _SplitStage(widths[0], widths[1], 3, 2, temporal_padding)
        self.stage3 = _SplitStage(widths[1], widths[2], 3, 2, temporal_padding)
        self.stage4 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage; see `Backbone.last_stage`."""
        return _SplitStage(self.dims["stage3"], self.dims["stage4"], 3, 1, self.temporal_padding)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        features = {}
        for name in STAGES:
            features[name] = clips = self.get_submodule(name)(clips)
        return features


class _SplitStage(nn.Module):
    """Space, then time, as 2-D convolutions over (B T, C, H, W) and (B, C, T, H W).

    In the channels-last layout all these shapes, and (B, C, T, H, W) itself, are views of one memory: (B, T, H, W, C).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, temporal_padding: str) -> None:
        super().__init__()
        self.replicate = temporal_padding == "replicate"
        self.spatial = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.spatial_norm = nn.BatchNorm2d(outputs)
        self.temporal = nn.Conv2d(outputs, outputs, (3, 1), padding=(0 if self.replicate else 1, 0), bias=False)
        self.temporal_norm = nn.BatchNorm2d(outputs)
        for convolution in (self.spatial, self.temporal):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        B, C, T, H, W = clips.shape
        frames = clips.permute(0, 2, 3, 4, 1).reshape(B * T, H, W, C).permute(0, 3, 1, 2)
        maps = torch.relu_(self.spatial_norm(self.spatial(frames)))
        C, H, W = maps.shape[1:]
        lines = maps.permute(0, 2, 3, 1).reshape(B, T, H * W, C).permute(0, 3, 1, 2)
        if self.replicate:
            # Not F.pad: inductor on a CPU gives its gradient other strides than it expects (torch 2.13).
            lines = torch.cat([lines[:, :, :1], lines, lines[:, :, -1:]], dim=2)
        lines = torch.relu_(self.temporal_norm(self.temporal(lines)))
        return lines.view(B, C, T, H, W)
