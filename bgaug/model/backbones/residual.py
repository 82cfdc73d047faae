"""Residual networks of 18 layers or fewer: R3D, R(2+1)D, the network of clip order prediction, the slow pathway.

Each has the parameter names of the code that published its weights.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the size of a feature map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from bgaug.model.backbones.convolution import ConvolutionalBackbone, convolution, initialised, unit

_WIDTHS = (64, 128, 256, 512)


def _temporal_layers(first: int, halving: int) -> dict[str, list[tuple[int, int]]]:
    """(kernel, stride) in time, when the first stage has `first` layers and the others `halving`, the first strided."""
    later = [(3, 2)] + [(3, 1)] * (halving - 1)
    return {"stage1": [(3, 1)] * first, "stage2": later, "stage3": later, "stage4": later}


class ResNet18(ConvolutionalBackbone):
    """The 18-layer video residual networks R3D and R(2+1)D, without the classifier.

    (B, 3, 16, 112, 112) gives stages of (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7).
    Parameters have torchvision's names and shapes, so its `r3d_18` and `r2plus1d_18` weights load.

    Args:
        split: False for `r3d18`: full 3-D convolutions, 33,166,272 parameters. True for `r2plus1d18`: each is split
            into space and time with as many parameters, 31,300,125 in all.
        temporal_padding: see `ConvolutionalBackbone`.
        normalise: see `ConvolutionalBackbone`.

    Reference: D. Tran, H. Wang, L. Torresani, J. Ray, Y. LeCun, M. Paluri, "A closer look at spatiotemporal
    convolutions for action recognition", 2018, arXiv 1711.11248.
    """

    widths: ClassVar[Sequence[int]] = _WIDTHS
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]] = _temporal_layers(5, 4)

    def __init__(self, split: bool = False, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__(temporal_padding, normalise)
        self.split = split
        if split:
            space = unit(3, 45, (1, 7, 7), (1, 2, 2), temporal_padding)
            self.stem = initialised(nn.Sequential(*space, *unit(45, 64, (3, 1, 1), (1, 1, 1), temporal_padding)))
        else:
            self.stem = initialised(unit(3, 64, (3, 7, 7), (1, 2, 2), temporal_padding))
        self.layer1 = _resnet_stage(64, 64, 1, split, temporal_padding)
        self.layer2 = _resnet_stage(64, 128, 2, split, temporal_padding)
        self.layer3 = _resnet_stage(128, 256, 2, split, temporal_padding)
        self.layer4 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        return _resnet_stage(256, 512, 2, self.split, self.temporal_padding)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """See `ConvolutionalBackbone.stages`."""
        return (self.stem, self.layer1), (self.layer2,), (self.layer3,), (self.layer4,)


def r3d18(temporal_padding: str = "replicate", normalise: bool = False) -> ResNet18:
    """`ResNet18` with full convolutions."""
    return ResNet18(False, temporal_padding, normalise)


def r2plus1d18(temporal_padding: str = "replicate", normalise: bool = False) -> ResNet18:
    """`ResNet18` with split convolutions."""
    return ResNet18(True, temporal_padding, normalise)


class _ResNetBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, split: bool, temporal_padding: str) -> None:
        super().__init__()
        # As many parameters as the full 3x3x3 convolution; both halves of the block have the first one's number.
        middle = (inputs * outputs * 27) // (inputs * 9 + 3 * outputs) if split else None
        first = _maybe_split(inputs, outputs, stride, middle, temporal_padding)
        second = _maybe_split(outputs, outputs, 1, middle, temporal_padding)
        self.conv1 = nn.Sequential(first, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, clips: Tensor) -> Tensor:
        residual: Tensor = self.conv2(self.conv1(clips))
        out: Tensor = self.relu(residual + self.downsample(clips))
        return out


def _maybe_split(inputs: int, outputs: int, stride: int, middle: int | None, temporal_padding: str) -> nn.Module:
    if middle is None:
        return convolution(inputs, outputs, (3, 3, 3), (stride, stride, stride), temporal_padding=temporal_padding)
    space = unit(inputs, middle, (1, 3, 3), (1, stride, stride), temporal_padding)
    return nn.Sequential(
        *space, convolution(middle, outputs, (3, 1, 1), (stride, 1, 1), temporal_padding=temporal_padding)
    )


def _resnet_stage(inputs: int, outputs: int, stride: int, split: bool, temporal_padding: str) -> nn.Module:
    first = _ResNetBlock(inputs, outputs, stride, split, temporal_padding)
    return initialised(nn.Sequential(first, _ResNetBlock(outputs, outputs, 1, split, temporal_padding)))


class ShallowR2Plus1D(ConvolutionalBackbone):
    """R(2+1)D with one residual block per stage, 14,365,303 parameters: the network of Xu et al. 2019 (VCOP).

    Papers also call it R(2+1)D-18, hence the name `r2plus1d18-14m`: do not compare it with the 31.3 M of `r2plus1d18`
    without saying so. Pace prediction and RSPNet use the same network. The predictor of Li et al. 2023 (FGKVMemPred)
    differs in its three shortcuts, whole 1x1x1 convolutions (14,365,477); the dual contrastive network of Ding et al.
    2022 (DCLR) follows torchvision's rule with one block per stage, and is still smaller.

    (B, 3, 16, 112, 112) gives stages of (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7).
    Every convolution of kernel t x s x s from i to o channels, also of stem and shortcuts, is split over as many
    channels as keep its number of parameters, floor(t s s i o / (s s i + t o)): 83 in the stem.

    Args:
        temporal_padding: see `ConvolutionalBackbone`.
        normalise: see `ConvolutionalBackbone`.

    References: D. Xu, J. Xiao, Z. Zhao, J. Shao, D. Xie, Y. Zhuang, "Self-supervised spatiotemporal learning via video
    clip order prediction", CVPR 2019 (the network); D. Tran et al., 2018, arXiv 1711.11248, section 3.5 (the rule);
    P. Chen et al., "RSPNet", 2021, arXiv 2011.07949.
    """

    widths: ClassVar[Sequence[int]] = _WIDTHS
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]] = _temporal_layers(3, 2)

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__(temporal_padding, normalise)
        self.conv1 = initialised(_SplitConvolution(3, 64, (3, 7), (1, 2), temporal_padding))
        self.bn1 = nn.BatchNorm3d(64)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _split_stage(64, 64, 1, temporal_padding)
        self.conv3 = _split_stage(64, 128, 2, temporal_padding)
        self.conv4 = _split_stage(128, 256, 2, temporal_padding)
        self.conv5 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        return _split_stage(256, 512, 2, self.temporal_padding)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """See `ConvolutionalBackbone.stages`."""
        return (self.conv1, self.bn1, self.relu1, self.conv2), (self.conv3,), (self.conv4,), (self.conv5,)


class _SplitConvolution(nn.Module):
    """A convolution over space, then one over time. Kernel and stride are (in time, in space)."""

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


class _SplitBlock(nn.Module):
    """Two split convolutions and a shortcut, which is also split where the grid changes."""

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


def _split_stage(inputs: int, outputs: int, stride: int, temporal_padding: str) -> nn.Module:
    block = _SplitBlock(inputs, outputs, stride, temporal_padding)
    return initialised(nn.Sequential(OrderedDict(block1=block)))


class SlowR18(ConvolutionalBackbone):
    """Only the slow pathway of SlowFast, as an 18-layer residual network: 20,023,872 parameters.

    2-D convolutions in the stem and the first two stages; in the last two the first convolution of each block spans
    three frames. Time is never strided: (B, 3, 16, 112, 112) gives stages of (64, 16, 28, 28), (128, 16, 14, 14),
    (256, 16, 7, 7), (512, 16, 4, 4). It was made for few frames far apart: 8 frames, stride 8, 224 pixels. The slow
    pathway of the paper has 50 layers; with 18 it is a backbone of Li et al. 2023, who count 20.2 M.

    Args:
        temporal_padding: see `ConvolutionalBackbone`.
        normalise: see `ConvolutionalBackbone`.

    References: C. Feichtenhofer, H. Fan, J. Malik, K. He, "SlowFast networks for video recognition", 2019, arXiv
    1812.03982; X. Li, J. Wu, S. He, S. Kang, Y. Yu, L. Nie, M. Zhang, "Fine-grained key-value memory enhanced predictor
    for video representation learning", ACM Multimedia 2023.
    """

    widths: ClassVar[Sequence[int]] = _WIDTHS
    # A temporal convolution in each of the two blocks of the last two stages.
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]] = {
        "stage1": [],
        "stage2": [],
        "stage3": [(3, 1)] * 2,
        "stage4": [(3, 1)] * 2,
    }
    last_untouched: ClassVar[str] = "stage2"

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__(temporal_padding, normalise)
        stem = OrderedDict(
            conv=nn.Conv3d(3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            bn=nn.BatchNorm3d(64),
            relu=nn.ReLU(inplace=True),
            pool_layer=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.s1 = initialised(nn.Sequential(OrderedDict(pathway0_stem=nn.Sequential(stem))))
        self.s2 = _slow_stage(64, 64, 1, 1, temporal_padding)
        self.s3 = _slow_stage(64, 128, 1, 2, temporal_padding)
        self.s4 = _slow_stage(128, 256, 3, 2, temporal_padding)
        self.s5 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T, H', W') -> (B, 512, T, H'/2, W'/2); see `Backbone.last_stage`."""
        return _slow_stage(256, 512, 3, 2, self.temporal_padding)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """See `ConvolutionalBackbone.stages`."""
        return (self.s1, self.s2), (self.s3,), (self.s4,), (self.s5,)


class _SlowBlock(nn.Module):
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


def _slow_stage(inputs: int, outputs: int, taps: int, stride: int, temporal_padding: str) -> nn.Module:
    first = _SlowBlock(inputs, outputs, taps, stride, temporal_padding)
    second = _SlowBlock(outputs, outputs, taps, 1, temporal_padding)
    return initialised(nn.Sequential(OrderedDict(pathway0_res0=first, pathway0_res1=second)))
