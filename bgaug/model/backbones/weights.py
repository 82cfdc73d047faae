"""Weights by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# As torchvision, its S3D, clip order prediction and PySlowFast name them.
CLASSIFIERS = ("fc.", "classifier.", "linear.", "head.")


def load_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Weights by name, as published state dicts carry them.

    A classifier that the encoder lacks is left out: ``fc.*``, ``classifier.*``, ``linear.*`` and ``head.*``.
    Torchvision's `r3d_18`, `r2plus1d_18` and `s3d` fit `r3d18`, `r2plus1d18` and `s3d`. They were trained on clips
    normalised by Kinetics' mean (0.43216, 0.394666, 0.37645) and standard deviation (0.22803, 0.22145, 0.216989), and
    with zeros around them in time; clips here lie in [0, 1]. Build the encoder for them so::

        backbone = build_backbone("r3d18", normalise=True, temporal_padding="zeros")
        load_weights(backbone, bgaug.model.pretrained.read_weights("r3d_18.pth"))

    Args:
        backbone: changed in place, or not at all.
        state: from parameter and buffer name to tensor.

    Raises:
        ValueError: names or shapes do not fit, or a number is not finite; says which.
    """
    own = backbone.state_dict()
    given = {name: value for name, value in state.items() if name in own or not name.startswith(CLASSIFIERS)}
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
    check_finite(given)
    backbone.load_state_dict(given, strict=False)


def check_finite(state: Mapping[str, Tensor]) -> None:
    """See that weights are numbers: a diverged training leaves others, and every feature by them is none.

    Args:
        state: from parameter and buffer name to tensor.

    Raises:
        ValueError: one is infinite or not a number; says which.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weight {name} has numbers that are not finite; was the training's loss finite?")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"the weight {name} has a negative variance")
