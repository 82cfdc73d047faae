"""Weights by name."""

from __future__ import annotations

from collections.abc import Mapping

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
        load_weights(backbone, torch.load("r3d_18.pth", weights_only=True))

    Args:
        backbone: changed in place, or not at all.
        state: from parameter and buffer name to tensor.

    Raises:
        ValueError: names or shapes do not fit; says which.
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
    backbone.load_state_dict(given, strict=False)
