"""Video encoders by name. Each returns the feature maps of its four stages.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for what is left of them in a feature map.

`r3d18` and `r2plus1d18` carry torchvision's parameter names and shapes, so its published weights load.

References: D. Tran, H. Wang, L. Torresani, J. Ray, Y. LeCun, M. Paluri, "A closer look at spatiotemporal convolutions
for action recognition", 2018, arXiv 1711.11248 (both 18-layer networks, and the split of a 3-D convolution into space
and time that `tiny` takes too). The size of `tiny` is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ("stage1", "stage2", "stage3", "stage4")


class Backbone(nn.Module):
    """What the library asks of an encoder; inherit from it to bring your own.

    ``forward`` maps float clips in [0, 1], (B, 3, T, H, W), to a dict from stage name to features (B, C, T', H', W'), in the
    order they are computed; the last one is the output.

    Attributes:
        dims: channels of each stage.
        head: (hidden, out, batch_norm) of the projection heads that suit it.
    """

    dims: dict[str, int]
    head: ClassVar[tuple[int, int, bool]] = (512, 128, False)

    def last_stage(self) -> nn.Module:
        """A new, independent last stage: a map from the features of the stage before it to its own output's shape."""
        raise NotImplementedError(f"{type(self).__name__} has no last_stage(), which the static stream needs")


class Tiny(Backbone):
    """A split-convolution network for clips of about 8 frames at 32 pixels: 124,144 parameters at width 16.

    Four stages of a spatial convolution (5x5, then 3x3; stride 2, 2, 2, 1) and a temporal one (3, stride 1), each with
    batch norm and ReLU; (B, 3, 8, 32, 32) leaves as (B, 96, 8, 4, 4). Time is never strided.

    Args:
        width: channels of the first stage; the others have 2, 4 and 6 times as many.
        temporal_padding: "replicate" repeats the end frames, so that a clip that stands still has features that do;
            "zeros" makes the ends differ from the middle whatever the clip shows.

    Raises:
        ValueError: width below 1 or another padding.
    """

    head: ClassVar[tuple[int, int, bool]] = (128, 64, True)

    def __init__(self, width: int = 16, temporal_padding: str = "replicate") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is a number of channels, at least 1, got {width = }")
        if temporal_padding not in ("replicate", "zeros"):
            raise ValueError(f"temporal_padding must be replicate or zeros, got {temporal_padding!r}")
        self.temporal_padding = temporal_padding
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
        first = self.stage1(clips)
        second = self.stage2(first)
        third = self.stage3(second)
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": self.stage4(third)}


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
            lines = F.pad(lines, (0, 0, 1, 1), mode="replicate")
        lines = torch.relu_(self.temporal_norm(self.temporal(lines)))
        return lines.view(B, C, T, H, W)


class ResNet18(Backbone):
    """The 18-layer video residual networks of Tran et al. 2018, without the classifier.

    (B, 3, 16, 112, 112) gives stages of (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7). Time is
    padded with zeros, as the published weights expect.

    Args:
        split: False for `r3d18`: full 3-D convolutions, 33,166,272 parameters. True for `r2plus1d18`: each split into
            space and time with as many parameters, 31,300,125 in all.
    """

    def __init__(self, split: bool = False) -> None:
        super().__init__()
        self.split = split
        self.dims = dict(zip(STAGES, (64, 128, 256, 512), strict=True))
        self.stem = _split_stem() if split else _full_stem()
        self.layer1 = _residual_stage(64, 64, 1, split)
        self.layer2 = _residual_stage(64, 128, 2, split)
        self.layer3 = _residual_stage(128, 256, 2, split)
        self.layer4 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage; see `Backbone.last_stage`."""
        return _residual_stage(256, 512, 2, self.split)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages."""
        first = self.layer1(self.stem(clips))
        second = self.layer2(first)
        third = self.layer3(second)
        return {"stage1": first, "stage2": second, "stage3": third, "stage4": self.layer4(third)}


class _Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, split: bool) -> None:
        super().__init__()
        # As many parameters as the full 3x3x3 convolution; both halves of the block take the first one's number.
        middle = (inputs * outputs * 27) // (inputs * 9 + 3 * outputs) if split else None
        first, second = _convolution(inputs, outputs, stride, middle), _convolution(outputs, outputs, 1, middle)
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


def _convolution(inputs: int, outputs: int, stride: int, middle: int | None) -> nn.Module:
    if middle is None:
        return nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


def _residual_stage(inputs: int, outputs: int, stride: int, split: bool) -> nn.Module:
    stage = nn.Sequential(_Residual(inputs, outputs, stride, split), _Residual(outputs, outputs, 1, split))
    return _initialised(stage)


def _full_stem() -> nn.Module:
    convolution = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
    return _initialised(nn.Sequential(convolution, nn.BatchNorm3d(64), nn.ReLU(inplace=True)))


def _split_stem() -> nn.Module:
    space = nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
    time = nn.Conv3d(45, 64, (3, 1, 1), 1, (1, 0, 0), bias=False)
    layers = [space, nn.BatchNorm3d(45), nn.ReLU(inplace=True), time, nn.BatchNorm3d(64), nn.ReLU(inplace=True)]
    return _initialised(nn.Sequential(*layers))


def _initialised(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


def _r3d18() -> Backbone:
    return ResNet18(split=False)


def _r2plus1d18() -> Backbone:
    return ResNet18(split=True)


BACKBONES: dict[str, Callable[..., Backbone]] = {"tiny": Tiny, "r3d18": _r3d18, "r2plus1d18": _r2plus1d18}


def build_backbone(name: str, **options: int | str) -> Backbone:
    """An encoder with fresh weights, drawn from torch's generator.

    Args:
        name: "tiny", "r3d18" or "r2plus1d18".
        options: of that encoder: `Tiny` takes width and temporal_padding, the others none.

    Raises:
        ValueError: no such name.
        TypeError: no such option.
    """
    if name not in BACKBONES:
        raise ValueError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name](**options)


def load_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Weights by name, as torchvision's state dicts carry them; the classifier (``fc.*``) is left out.

    Args:
        backbone: changed in place, or not at all.
        state: from parameter and buffer name to tensor.

    Raises:
        ValueError: names or shapes do not fit; says which.
    """
    own = backbone.state_dict()
    given = {name: value for name, value in state.items() if not name.startswith("fc.")}
    # Batch norm's counter of batches is missing from old files, and matters only where momentum is None.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own]
    shapes = [
        f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}"
        for name, value in given.items()
        if name in own and value.shape != own[name].shape
    ]
    lists = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    faults = [f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in lists if names]
    if faults:
        raise ValueError(f"weights do not fit {type(backbone).__name__}; {'; '.join(faults)}")
    backbone.load_state_dict(given, strict=False)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
