"""Parts of the 3-D convolutional encoders: padding in time, fresh weights, published input normalisation.

Letters: B clips, C, D channels, T frames, H, W pixels; K temporal taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDINGS = ("replicate", "zeros")
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class ReplicatedConv3d(nn.Conv3d):
    """A 3-D convolution that repeats the end frames where it is padded in time, and pads with zeros in space.

    Parameters and their names are those of `torch.nn.Conv3d`. A clip that stands still has an output that does, up to
    rounding. (B, C, T, H, W) -> (B, D, T', H', W'), as the layer of torch.
    """

    def forward(self, clips: Tensor) -> Tensor:
        """The convolution of clips whose first and last frames went on."""
        # Outputs by whether they look past the start, at real frames alone, or past the end. A padded copy of the whole
        # would be kept for the backward pass, half as much memory again; adding what zeros left out to the ends would
        # round them unlike the middle in half precision, and stillness with them.
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
    """Clips in [0, 1] as torchvision's published video weights expect them: (v - mean) / std, by channel.

    Mean and standard deviation are buffers that a state dict leaves out. (B, 3, T, H, W) -> the same.
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


def input_layer(normalise: bool) -> nn.Module:
    """What clips pass first: `KineticsNormalisation`, or nothing."""
    return KineticsNormalisation() if normalise else nn.Identity()


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
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: in time, height, width; odd.
        stride: in time, height, width.
        temporal_padding: "replicate" or "zeros"; see `ReplicatedConv3d`.
        bias: add one.

    Raises:
        ValueError: another padding.
    """
    check_padding(temporal_padding)
    time, height, width = (size // 2 for size in kernel)
    kind = ReplicatedConv3d if time and temporal_padding == "replicate" else nn.Conv3d
    return kind(inputs, outputs, kernel, stride, (time, height, width), bias=bias)


def initialised(module: nn.Module) -> nn.Module:
    """The same module, the weights of its 3-D convolutions drawn by He's rule over the outputs, its biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def padding_reach(temporal_padding: str, layers: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, int]:
    """By stage, the frames at each end of its features that padding in time has touched.

    Args:
        temporal_padding: "replicate", which touches none, or "zeros".
        layers: by stage, in order, (kernel, stride) in time of the layers on its longest path. Each is padded by half of
            its kernel; one that is not padded, such as a pool over two frames, counts as kernel 1.

    Returns:
        From stage to frames, as `Backbone.temporal_reach`; empty for "replicate".

    Raises:
        ValueError: another padding.
    """
    check_padding(temporal_padding)
    reach, reached = 0, {}
    for stage, kinds in layers.items():
        for kernel, stride in kinds:
            reach = -(-(reach + kernel // 2) // stride)
        reached[stage] = reach
    return reached if temporal_padding == "zeros" else {}


def check_padding(temporal_padding: str) -> None:
    """Raise ValueError unless it is one of `PADDINGS`."""
    if temporal_padding not in PADDINGS:
        raise ValueError(f"temporal_padding must be replicate or zeros, got {temporal_padding!r}")
