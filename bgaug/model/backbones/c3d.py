"""C3D with batch norm, under the parameter names of clip order prediction.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from bgaug.model.backbones.convolution import ConvolutionalBackbone, initialised, unit

# (kernel, stride) in time; a pool is not padded.
_HALVING = [(1, 2), (3, 1), (3, 1)]
# Names of the convolutions with their channels.
_LAYERS = {
    "1": (3, 64),
    "2": (64, 128),
    "3a": (128, 256),
    "3b": (256, 256),
    "4a": (256, 512),
    "4b": (512, 512),
    "5a": (512, 512),
    "5b": (512, 512),
}


class C3D(ConvolutionalBackbone):
    """C3D with batch norm, up to conv5b: 27,661,440 parameters.

    The convention of Xu et al. 2019 (VCOP), Pace prediction and RSPNet: eight 3x3x3 convolutions with bias, batch norm
    and ReLU, max pooling between the stages (the first one only in space), and in place of pool5 and the two fully
    connected layers of Tran et al. the mean over the output of conv5b, which the caller takes.
    (B, 3, 16, 112, 112) gives stages of (128, 16, 56, 56), (256, 8, 28, 28), (512, 4, 14, 14), (512, 2, 7, 7): conv2,
    conv3b, conv4b and conv5b, each before its pool.

    Args:
        temporal_padding: see `ConvolutionalBackbone`.
        normalise: see `ConvolutionalBackbone`.

    References: D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, "Learning spatiotemporal features with 3D
    convolutional networks", 2015, arXiv 1412.0767; D. Xu, J. Xiao, Z. Zhao, J. Shao, D. Xie, Y. Zhuang,
    "Self-supervised spatiotemporal learning via video clip order prediction", CVPR 2019 (batch norm, no pool5).
    """

    widths: ClassVar[Sequence[int]] = (128, 256, 512, 512)
    temporal_layers: ClassVar[Mapping[str, Sequence[tuple[int, int]]]] = {
        "stage1": [(3, 1)] * 2,
        "stage2": _HALVING,
        "stage3": _HALVING,
        "stage4": _HALVING,
    }

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__(temporal_padding, normalise)
        for name, (inputs, outputs) in _LAYERS.items():
            layer, norm, _ = initialised(
                unit(inputs, outputs, (3, 3, 3), (1, 1, 1), temporal_padding, bias=True)
            ).children()
            self.add_module(f"conv{name}", layer)
            self.add_module(f"bn{name}", norm)
        self.relu = nn.ReLU(inplace=True)
        self.first_pool = nn.MaxPool3d((1, 2, 2), (1, 2, 2))
        self.pool = nn.MaxPool3d(2, 2)

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 512, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        units = [unit(512, 512, (3, 3, 3), (1, 1, 1), self.temporal_padding, bias=True) for _ in range(2)]
        return initialised(nn.Sequential(nn.MaxPool3d(2, 2), *units[0], *units[1]))

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """See `ConvolutionalBackbone.stages`."""
        later = [[self.pool, *self._layer(f"{n}a"), *self._layer(f"{n}b")] for n in (3, 4, 5)]
        return [[*self._layer("1"), self.first_pool, *self._layer("2")], *later]

    def _layer(self, name: str) -> list[nn.Module]:
        return [self.get_submodule(f"conv{name}"), self.get_submodule(f"bn{name}"), self.relu]
