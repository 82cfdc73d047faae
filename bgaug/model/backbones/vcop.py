"""The shallow R(2+1)D network of clip order prediction, under its own parameter names.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for what is left of them in a feature map.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.model.backbones.convolution import convolution, initialised, input_layer, padding_reach

# (kernel, stride) in time: stem and a block of two, then a block a stage.
_HALVING = [(3, 2), (3, 1)]
_TEMPORAL_LAYERS = {"stage1": [(3, 1)] * 3, "stage2": _HALVING, "stage3": _HALVING, "stage4": _HALVING}


class ShallowR2Plus1D(Backbone):
    """R(2+1)D with one residual block a stage, 14,365,303 parameters: the network of Xu et al. 2019 (VCOP).

    Often called R(2+1)D-18 as well, hence the name `r2plus1d18-14m`: never compare it with the 31.3 M of `r2plus1d18`
    unsaid. Pace prediction and RSPNet take the same network. The predictor of Li et al. 2023 (FGKVMemPred) differs in
    its three shortcuts, whole 1x1x1 convolutions (14,365,477); the dual contrastive network of Ding et al. 2022 (DCLR)
    is torchvision's rule with one block a stage, and smaller still.

    (B, 3, 16, 112, 112) gives stages of (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7).
    Every convolution of kernel t x s x s from i to o channels, stem and shortcuts too, is split over as many channels
    as keep its number of parameters, floor(t s s i o / (s s i + t o)): 83 in the stem.

    Args:
        temporal_padding: "replicate" repeats the end frames, so that a clip that stands still has features that do;
            "zeros" is what published weights were trained with.
        normalise: take mean and standard deviation of Kinetics off the clips first.

    Raises:
        ValueError: another padding.

    References: D. Xu, J. Xiao, Z. Zhao, J. Shao, D. Xie, Y. Zhuang, "Self-supervised spatiotemporal learning via video
    clip order prediction", CVPR 2019 (the network); D. Tran et al., 2018, arXiv 1711.11248, section 3.5 (the rule);
    P. Chen et al., "RSPNet", 2021, arXiv 2011.07949.
    """

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__()
        self.temporal_padding = temporal_padding
        self.dims = dict(zip(STAGES, (64, 128, 256, 512), strict=True))
        self.temporal_reach = padding_reach(temporal_padding, _TEMPORAL_LAYERS)
        self.saliency_stages = ("stage1",) if self.temporal_reach else None
        self.input = input_layer(normalise)
        self.conv1 = initialised(_SplitConvolution(3, 64, (3, 7), (1, 2), temporal_padding))
        self.bn1 = nn.BatchNorm3d(64)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _stage(64, 64, 1, temporal_padding)
        self.conv3 = _stage(64, 128, 2, temporal_padding)
        self.conv4 = _stage(128, 256, 2, temporal_padding)
        self.conv5 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        return _stage(256, 512, 2, self.temporal_padding)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        first = self.conv2(self.relu1(self.bn1(self.conv1(self.input(clips)))))
        second = self.conv3(first)
        third = self.conv4(second)
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": self.conv5(third)}


class _SplitConvolution(nn.Module):
    """Space, then time. Kernel and stride are (in time, in space)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int], temporal_padding: str
    ) -> None:
        super().__init__()
        (t, s), (time_stride, space_stride) = kernel, stride
        middle = (t * s * s * inputs * outputs) // (s * s * inputs + t * outputs)
        self.spatial_conv = convolution(
            inputs, middle, (1, s, s), (1, space_stride, space_stride), temporal_padding=temporal_padding
        )
        self.bn = nn.BatchNorm3d(middle)
        self.relu = nn.ReLU(inplace=True)
        self.temporal_conv = convolution(
            middle, outputs, (t, 1, 1), (time_stride, 1, 1), temporal_padding=temporal_padding
        )

    def forward(self, clips: Tensor) -> Tensor:
        out: Tensor = self.temporal_conv(self.relu(self.bn(self.spatial_conv(clips))))
        return out


class _Residual(nn.Module):
    """Two split convolutions and a shortcut, split as well where the grid changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, temporal_padding: str) -> None:
        super().__init__()
        self.changes = stride != 1
        if self.changes:
            self.downsampleconv = _SplitConvolution(inputs, outputs, (1, 1), (stride, stride), temporal_padding)
            self.downsamplebn = nn.BatchNorm3d(outputs)
        self.conv1 = _SplitConvolution(inputs, outputs, (3, 3), (stride, stride), temporal_padding)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _SplitConvolution(outputs, outputs, (3, 3), (1, 1), temporal_padding)
        self.bn2 = nn.BatchNorm3d(outputs)

    def forward(self, clips: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(clips)))))
        shortcut = self.downsamplebn(self.downsampleconv(clips)) if self.changes else clips
        out: Tensor = self.relu(residual + shortcut)
        return out


def _stage(inputs: int, outputs: int, stride: int, temporal_padding: str) -> nn.Module:
    block = _Residual(inputs, outputs, stride, temporal_padding)
    return initialised(nn.Sequential(OrderedDict(block1=block)))
