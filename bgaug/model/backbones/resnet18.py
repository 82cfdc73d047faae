"""The 18-layer video residual networks, under torchvision's parameter names.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for what is left of them in a feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.model.backbones.convolution import convolution, initialised, input_layer, padding_reach

# (kernel, stride) in time: stem and two blocks of two, then two blocks a stage.
_HALVING = [(3, 2), (3, 1), (3, 1), (3, 1)]
_TEMPORAL_LAYERS = {"stage1": [(3, 1)] * 5, "stage2": _HALVING, "stage3": _HALVING, "stage4": _HALVING}


class ResNet18(Backbone):
    """The 18-layer video residual networks R3D and R(2+1)D, without the classifier.

    (B, 3, 16, 112, 112) gives stages of (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7).
    Parameters have torchvision's names and shapes, so its `r3d_18` and `r2plus1d_18` weights load.

    Args:
        split: False for `r3d18`: full 3-D convolutions, 33,166,272 parameters. True for `r2plus1d18`: each split into
            space and time with as many parameters, 31,300,125 in all.
        temporal_padding: "replicate" repeats the end frames, so that a clip that stands still has features that do;
            "zeros" is what published weights were trained with.
        normalise: take mean and standard deviation of Kinetics off the clips first, as published weights expect.

    Raises:
        ValueError: another padding.

    Reference: D. Tran, H. Wang, L. Torresani, J. Ray, Y. LeCun, M. Paluri, "A closer look at spatiotemporal
    convolutions for action recognition", 2018, arXiv 1711.11248.
    """

    def __init__(self, split: bool = False, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__()
        self.split = split
        self.temporal_padding = temporal_padding
        self.dims = dict(zip(STAGES, (64, 128, 256, 512), strict=True))
        self.temporal_reach = padding_reach(temporal_padding, _TEMPORAL_LAYERS)
        self.saliency_stages = ("stage1",) if self.temporal_reach else None
        self.input = input_layer(normalise)
        self.stem = _split_stem(temporal_padding) if split else _full_stem(temporal_padding)
        self.layer1 = _stage(64, 64, 1, split, temporal_padding)
        self.layer2 = _stage(64, 128, 2, split, temporal_padding)
        self.layer3 = _stage(128, 256, 2, split, temporal_padding)
        self.layer4 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 256, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        return _stage(256, 512, 2, self.split, self.temporal_padding)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        first = self.layer1(self.stem(self.input(clips)))
        second = self.layer2(first)
        third = self.layer3(second)
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": self.layer4(third)}


class _Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, split: bool, temporal_padding: str) -> None:
        super().__init__()
        # As many parameters as the full 3x3x3 convolution; both halves of the block take the first one's number.
        middle = (inputs * outputs * 27) // (inputs * 9 + 3 * outputs) if split else None
        first = _convolution(inputs, outputs, stride, middle, temporal_padding)
        second = _convolution(outputs, outputs, 1, middle, temporal_padding)
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


def _convolution(inputs: int, outputs: int, stride: int, middle: int | None, temporal_padding: str) -> nn.Module:
    if middle is None:
        return convolution(inputs, outputs, (3, 3, 3), (stride, stride, stride), temporal_padding=temporal_padding)
    return nn.Sequential(
        convolution(inputs, middle, (1, 3, 3), (1, stride, stride), temporal_padding=temporal_padding),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        convolution(middle, outputs, (3, 1, 1), (stride, 1, 1), temporal_padding=temporal_padding),
    )


def _stage(inputs: int, outputs: int, stride: int, split: bool, temporal_padding: str) -> nn.Module:
    first = _Residual(inputs, outputs, stride, split, temporal_padding)
    return initialised(nn.Sequential(first, _Residual(outputs, outputs, 1, split, temporal_padding)))


def _full_stem(temporal_padding: str) -> nn.Module:
    layer = convolution(3, 64, (3, 7, 7), (1, 2, 2), temporal_padding=temporal_padding)
    return initialised(nn.Sequential(layer, nn.BatchNorm3d(64), nn.ReLU(inplace=True)))


def _split_stem(temporal_padding: str) -> nn.Module:
    space = convolution(3, 45, (1, 7, 7), (1, 2, 2), temporal_padding=temporal_padding)
    time = convolution(45, 64, (3, 1, 1), temporal_padding=temporal_padding)
    layers = [space, nn.BatchNorm3d(45), nn.ReLU(inplace=True), time, nn.BatchNorm3d(64), nn.ReLU(inplace=True)]
    return initialised(nn.Sequential(*layers))


def r3d18(temporal_padding: str = "replicate", normalise: bool = False) -> ResNet18:
    """R3D-18, with 3-D convolutions."""
    return ResNet18(False, temporal_padding, normalise)


def r2plus1d18(temporal_padding: str = "replicate", normalise: bool = False) -> ResNet18:
    """R(2+1)D-18, whose convolutions are split into space and time."""
    return ResNet18(True, temporal_padding, normalise)
