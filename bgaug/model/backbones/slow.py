"""The slow pathway of SlowFast at 18 layers, under PySlowFast's parameter names.

Letters: B clips, C channels, T frames, H, W pixels; primes (H', W') for what is left of them in a feature map.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.model.backbones.convolution import convolution, initialised, input_layer, padding_reach

# (kernel, stride) in time: a convolution in each of the two blocks of the last two stages.
_TEMPORAL_LAYERS = {"stage1": [(1, 1)], "stage2": [(1, 1)], "stage3": [(3, 1)] * 2, "stage4": [(3, 1)] * 2}


class SlowR18(Backbone):
    """The slow pathway alone, as an 18-layer residual network: 20,023,872 parameters.

    2-D convolutions in the stem and the first two stages; in the last two the first convolution of each block spans
    three frames. Time is never strided: (B, 3, 16, 112, 112) gives stages of (64, 16, 28, 28), (128, 16, 14, 14),
    (256, 16, 7, 7), (512, 16, 4, 4). Made for few frames far apart: 8 frames, stride 8, 224 pixels. The slow pathway of
    the paper has 50 layers; at 18 it is a backbone of Li et al. 2023, who count 20.2 M.

    Args:
        temporal_padding: "replicate" repeats the end frames, so that a clip that stands still has features that do;
            "zeros" is what published weights were trained with.
        normalise: take mean and standard deviation of Kinetics off the clips first.

    Raises:
        ValueError: another padding.

    References: C. Feichtenhofer, H. Fan, J. Malik, K. He, "SlowFast networks for video recognition", 2019, arXiv
    1812.03982; X. Li, J. Wu, S. He, S. Kang, Y. Yu, L. Nie, M. Zhang, "Fine-grained key-value memory enhanced predictor
    for video representation learning", ACM Multimedia 2023.
    """

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__()
        self.temporal_padding = temporal_padding
        self.dims = dict(zip(STAGES, (64, 128, 256, 512), strict=True))
        self.temporal_reach = padding_reach(temporal_padding, _TEMPORAL_LAYERS)
        self.saliency_stages = ("stage2",) if self.temporal_reach else None
        self.input = input_layer(normalise)
        self.s1 = _stem()
        self.s2 = _stage(64, 64, 1, 1, temporal_padding)
        self.s3 = _stage(64, 128, 1, 2, temporal_padding)
        self.s4 = _stage(128, 256, 3, 2, temporal_padding)
        self.s5 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T, H', W') -> (B, 512, T, H'/2, W'/2); see `Backbone.last_stage`."""
        return _stage(256, 512, 3, 2, self.temporal_padding)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        first = self.s2(self.s1(self.input(clips)))
        second = self.s3(first)
        third = self.s4(second)
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": self.s5(third)}


class _Residual(nn.Module):
    """A convolution of `taps` frames, one of a single frame, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int, temporal_padding: str) -> None:
        super().__init__()
        self.changes = stride != 1 or inputs != outputs
        if self.changes:
            self.branch1 = nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(outputs)
        first = convolution(inputs, outputs, (taps, 3, 3), (1, stride, stride), temporal_padding=temporal_padding)
        second = convolution(outputs, outputs, (1, 3, 3), temporal_padding=temporal_padding)
        self.branch2 = nn.Sequential(
            OrderedDict(
                a=first,
                a_bn=nn.BatchNorm3d(outputs),
                a_relu=nn.ReLU(inplace=True),
                b=second,
                b_bn=nn.BatchNorm3d(outputs),
            )
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, clips: Tensor) -> Tensor:
        shortcut = self.branch1_bn(self.branch1(clips)) if self.changes else clips
        out: Tensor = self.relu(self.branch2(clips) + shortcut)
        return out


def _stage(inputs: int, outputs: int, taps: int, stride: int, temporal_padding: str) -> nn.Module:
    first = _Residual(inputs, outputs, taps, stride, temporal_padding)
    second = _Residual(outputs, outputs, taps, 1, temporal_padding)
    return initialised(nn.Sequential(OrderedDict(pathway0_res0=first, pathway0_res1=second)))


def _stem() -> nn.Module:
    stem = OrderedDict(
        conv=nn.Conv3d(3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        bn=nn.BatchNorm3d(64),
        relu=nn.ReLU(inplace=True),
        pool_layer=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    return initialised(nn.Sequential(OrderedDict(pathway0_stem=nn.Sequential(stem))))
