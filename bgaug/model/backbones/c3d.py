"""C3D with batch norm, under the parameter names of clip order prediction.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for what is left of them in a feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone
from bgaug.model.backbones.convolution import convolution, initialised, input_layer, padding_reach

# (kernel, stride) in time; a pool is not padded.
_HALVING = [(1, 2), (3, 1), (3, 1)]
_TEMPORAL_LAYERS = {"stage1": [(3, 1)] * 2, "stage2": _HALVING, "stage3": _HALVING, "stage4": _HALVING}
# Names of the convolutions with their channels, by stage.
_LAYERS = {
    "stage1": {"1": (3, 64), "2": (64, 128)},
    "stage2": {"3a": (128, 256), "3b": (256, 256)},
    "stage3": {"4a": (256, 512), "4b": (512, 512)},
    "stage4": {"5a": (512, 512), "5b": (512, 512)},
}


class C3D(Backbone):
    """C3D with batch norm, up to conv5b: 27,661,440 parameters.

    The convention of Xu et al. 2019 (VCOP), Pace prediction and RSPNet: eight 3x3x3 convolutions with bias, batch norm
    and ReLU, max pooling between the stages (the first in space alone), and in place of pool5 and the two fully
    connected layers of Tran et al. the mean over what conv5b gives, which is for the caller to take.
    (B, 3, 16, 112, 112) gives stages of (128, 16, 56, 56), (256, 8, 28, 28), (512, 4, 14, 14), (512, 2, 7, 7): conv2,
    conv3b, conv4b and conv5b, each before its pool.

    Args:
        temporal_padding: "replicate" repeats the end frames, so that a clip that stands still has features that do;
            "zeros" is what published weights were trained with.
        normalise: take mean and standard deviation of Kinetics off the clips first.

    Raises:
        ValueError: another padding.

    References: D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, "Learning spatiotemporal features with 3D
    convolutional networks", 2015, arXiv 1412.0767; D. Xu, J. Xiao, Z. Zhao, J. Shao, D. Xie, Y. Zhuang,
    "Self-supervised spatiotemporal learning via video clip order prediction", CVPR 2019 (batch norm, no pool5).
    """

    def __init__(self, temporal_padding: str = "replicate", normalise: bool = False) -> None:
        super().__init__()
        self.temporal_padding = temporal_padding
        self.dims = dict(zip(STAGES, (128, 256, 512, 512), strict=True))
        self.temporal_reach = padding_reach(temporal_padding, _TEMPORAL_LAYERS)
        self.saliency_stages = ("stage1",) if self.temporal_reach else None
        self.input = input_layer(normalise)
        for layers in _LAYERS.values():
            for name, (inputs, outputs) in layers.items():
                layer = convolution(inputs, outputs, (3, 3, 3), temporal_padding=temporal_padding, bias=True)
                self.add_module(f"conv{name}", initialised(layer))
                self.add_module(f"bn{name}", nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.first_pool = nn.MaxPool3d((1, 2, 2), (1, 2, 2))
        self.pool = nn.MaxPool3d(2, 2)

    def last_stage(self) -> nn.Module:
        """A new last stage, (B, 512, T', H', W') -> (B, 512, T'/2, H'/2, W'/2); see `Backbone.last_stage`."""
        layers: list[nn.Module] = [nn.MaxPool3d(2, 2)]
        for inputs, outputs in _LAYERS["stage4"].values():
            layer = convolution(inputs, outputs, (3, 3, 3), temporal_padding=self.temporal_padding, bias=True)
            layers += [layer, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
        return initialised(nn.Sequential(*layers))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        first = self._layer("2", self.first_pool(self._layer("1", self.input(clips))))
        second = self._layer("3b", self._layer("3a", self.pool(first)))
        third = self._layer("4b", self._layer("4a", self.pool(second)))
        fourth = self._layer("5b", self._layer("5a", self.pool(third)))
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": fourth}

    def _layer(self, name: str, clips: Tensor) -> Tensor:
        out: Tensor = self.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(clips)))
        return out
