"""What the 3-D convolutional encoders share: padding in time, initial weights, input normalisation, stages in a row.

Letters: B clips, C, D channels, T frames, H, W pixels; K temporal taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.pairs.augmentation import KINETICS_MEAN, KINETICS_STD


class ReplicatedConv3d(nn.Conv3d):
    """A 3-D convolution that is padded in time with the end frames, and in space with zeros.

    Parameters and their names are those of `torch.nn.Conv3d`. A clip without motion has an output without motion, up to
    rounding. (B, C, T, H, W) -> (B, D, T', H', W'), as the layer of torch.
    """

    def forward(self, clips: Tensor) -> Tensor:
        """The convolution of clips extended by their first and last frames."""
        # Outputs are computed in three parts: those that reach before the first frame, those of real frames only, and
        # those that reach past the last one. A padded copy of the clip would be kept for the backward pass, half as
        # much memory again; correcting the ends of a convolution padded with zeros would round them differently from
        # the middle in half precision, and a clip without motion would get some.
        T, (K, _, _), stride, pad = clips.shape[2], self.kernel_size, self.stride[0], cast(int, self.padding[0])
        total = (T + 2 * pad - K) // stride + 1
        begin = min(total, -(-pad // stride))
        end = max(begin, min(total, (T + pad - K) // stride + 1))
        parts = [self._outputs(clips, *part) for part in ((0, begin), (begin, end), (end, total)) if part[0] < part[1]]
        return torch.cat(parts, dim=2)

    def _outputs(self, clips: Tensor, begin: int, end: int) -> Tensor:
        """Outputs from `begin` to before `end`."""
        T, K, stride = clips.shape[2], self.kernel_size[0], self.stride[0]
        pad, height, width = cast(tuple[int, int, int], self.padding)
        first, last = begin * stride - pad, (end - 1) * stride - pad + K
        before, after = [clips[:, :, :1]] * max(0, -first), [clips[:, :, -1:]] * max(0, last - T)
        frames = clips[:, :, max(0, first) : min(T, last)]
        if before or after:
            frames = torch.cat([*before, frames, *after], dim=2)
        return F.conv3d(frames, self.weight, self.bias, self.stride, (0, height, width))


class KineticsNormalisation(nn.Module):
    """(v - mean) / std by channel, as torchvision's published video weights expect clips: (B, 3, T, H, W) -> the same.

    Mean and standard deviation are buffers that are not part of a state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", KINETICS_MEAN), ("std", KINETICS_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips."""
        return (clips - self.mean) / self.std


class ConvolutionalBackbone(Backbone):
    """A 3-D convolutional encoder whose stages follow one another.

    Args:
        temporal_padding: "replicate" repeats the end frames, so that a clip without motion has features without motion;
            "zeros" is what published weights were trained with.
        normalise: normalise clips by the mean and standard deviation of Kinetics first, as published weights expect.

    Attributes:
        widths: channels of each stage.
        temporal_layers: by stage, (kernel, stride) in time of its layers; see `padding_reach`.
        last_untouched: stage from which motion is read when padding with zeros touches the ends of all later ones.

    Raises:
        ValueError: another padding.
    """

    widths: ClassVar[Sequence[int]]
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]]
    last_untouched: ClassVar[str] = "stage1"

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__()
        self.temporal_padding = temporal_padding
        self.dims = dict(zip(STAGES, self.widths, strict=True))
        self.temporal_reach = padding_reach(temporal_padding, self.temporal_layers)
        self.saliency_stages = (self.last_untouched,) if self.temporal_reach else None
        self.input: nn.Module = KineticsNormalisation() if normalise else nn.Identity()

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The modules of each stage, in the order in which they are applied."""
        raise NotImplementedError

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        value, features = self.input(clips), {}
        for name, modules in zip(STAGES, self.stages(), strict=True):
            for module in modules:
                value = module(value)
            features[name] = value
        return features


def convolution(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int] = (1, 1, 1),
    *,
    temporal_padding: str,
    bias: bool = False,
) -> nn.Conv3d:
    """A 3-D convolution padded by half of its kernel.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: size in time, height, width; odd.
        stride: stride in time, height, width.
        temporal_padding: "replicate" or "zeros"; see `ReplicatedConv3d`.
        bias: add a bias.

    Raises:
        ValueError: another padding.
    """
    _check_padding(temporal_padding)
    time, height, width = (size // 2 for size in kernel)
    kind = ReplicatedConv3d if time and temporal_padding == "replicate" else nn.Conv3d
    return kind(inputs, outputs, kernel, stride, (time, height, width), bias=bias)


def unit(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    temporal_padding: str,
    *,
    bias: bool = False,
    eps: float = 1e-5,
) -> nn.Sequential:
    """`convolution`, batch norm, ReLU."""
    layer = convolution(inputs, outputs, kernel, stride, temporal_padding=temporal_padding, bias=bias)
    return nn.Sequential(layer, nn.BatchNorm3d(outputs, eps=eps), nn.ReLU(inplace=True))


def initialised(module: nn.Module) -> nn.Module:
    """The same module; weights of its 3-D convolutions are drawn by He's rule over the outputs, biases are zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def padding_reach(temporal_padding: str, layers: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, int]:
    """By stage, the number of frames at each end of its features that depend on padding in time.

    Args:
        temporal_padding: "replicate", for which there are none, or "zeros".
        layers: by stage, in order, (kernel, stride) in time of the layers on its longest path. Each is padded by half
            of its kernel; a layer without padding, such as a pool over two frames, counts as kernel 1.

    Returns:
        From stage to frames, as `Backbone.temporal_reach`; empty for "replicate".

    Raises:
        ValueError: another padding.
    """
    _check_padding(temporal_padding)
    reach, reached = 0, {}
    for stage, kinds in layers.items():
        for kernel, stride in kinds:
            reach = -(-(reach + kernel // 2) // stride)
        reached[stage] = reach
    return reached if temporal_padding == "zeros" else {}


def _check_padding(temporal_padding: str) -> None:
    if temporal_padding not in ("replicate", "zeros"):
        raise ValueError(f"temporal_padding must be replicate or zeros, got {temporal_padding!r}")
