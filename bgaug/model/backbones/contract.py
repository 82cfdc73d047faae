"""The interface of an encoder, checks of encoders that users bring, and weights by name.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

STAGES = ("stage1", "stage2", "stage3", "stage4")
# Classifiers as torchvision, its S3D, clip order prediction and PySlowFast name them.
_CLASSIFIERS = ("fc.", "classifier.", "linear.", "head.")


class Backbone(nn.Module):
    """The interface of an encoder; inherit from it to bring your own.

    ``forward`` maps float clips in [0, 1], (B, 3, T, H, W), to a dict from stage name to features (B, C, T', H', W'),
    in the order in which they are computed; the last one is the output.

    Attributes:
        dims: channels of each stage, in the order of ``forward``.
        head: (hidden, out, batch_norm) of the projection heads for this encoder.
        saliency_stages: stages in which motion is read; None follows the rule of
            `bgaug.model.decomposition.MotionAwareDecomposition`.
        temporal_reach: by stage, the number of frames at each end of its features that depend on padding in time, so
            that they differ from the others in a clip without motion. No entry means none.
    """

    dims: dict[str, int]
    head: ClassVar[tuple[int, int, bool]] = (512, 128, False)
    saliency_stages: tuple[str, ...] | None = None
    temporal_reach: Mapping[str, int] = MappingProxyType({})

    def last_stage(self) -> nn.Module:
        """A new, independent last stage: a map from the features of the stage before it to its own output's shape.

        Raises:
            NotImplementedError: an encoder of a user does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no last_stage(), which the static stream needs")


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights by name, as in published state dicts.

    A classifier is left out if the encoder has none: ``fc.*``, ``classifier.*``, ``linear.*`` and ``head.*``.
    Torchvision's `r3d_18`, `r2plus1d_18` and `s3d` fit `r3d18`, `r2plus1d18` and `s3d`. They were trained on clips
    normalised by the mean and standard deviation of Kinetics, and padded with zeros in time; clips here are in [0, 1].
    Build the encoder for them like this::

        backbone = build_backbone("r3d18", normalise=True, temporal_padding="zeros")
        load_weights(backbone, bgaug.model.pretrained.read_weights("r3d_18.pth"))

    Args:
        backbone: encoder that is changed in place; it stays unchanged if there is an error.
        state: from parameter and buffer name to tensor.

    Raises:
        ValueError: names or shapes do not fit, or a number is not finite; the message names them.
    """
    own = backbone.state_dict()
    given = {name: value for name, value in state.items() if name in own or not name.startswith(_CLASSIFIERS)}
    # Batch norm's counter of batches is missing in old files, and is used only if momentum is None.
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
    """Check that all weights are finite: a diverged training leaves some that are not, and no feature is usable.

    Raises:
        ValueError: a weight is infinite or not a number, or a variance is negative; the message names it.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weight {name} has numbers that are not finite; was the training's loss finite?")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"the weight {name} has a negative variance")


def checked_backbone(module: object, origin: str) -> Backbone:
    """An encoder that a user brings, after checks that it has the attributes of `Backbone`.

    The result of ``forward`` is checked by a hook at each call.

    Args:
        module: the encoder.
        origin: where it came from, for messages.

    Returns:
        The same module; missing ``saliency_stages`` and ``temporal_reach`` are set as in `Backbone`.

    Raises:
        TypeError: it is not a module, or an attribute is missing or has another form.
        ValueError: ``saliency_stages`` names something that is not a stage.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"{origin} must return a torch.nn.Module, returned {type(module).__name__}")
    dims, head = getattr(module, "dims", None), getattr(module, "head", None)
    if not _is_dims(dims):
        raise TypeError(f"{origin}: dims must be a dict from at least two stage names to channels, got {dims!r}")
    if not _is_head(head):
        raise TypeError(f"{origin}: head must be (hidden, out, batch_norm) such as (512, 128, False), got {head!r}")
    if not callable(getattr(module, "last_stage", None)):
        raise TypeError(f"{origin}: last_stage() is missing; it must make a new last stage for the static stream")
    backbone = cast(Backbone, module)
    backbone.saliency_stages = getattr(module, "saliency_stages", None)
    backbone.temporal_reach = getattr(module, "temporal_reach", {})
    unknown = [name for name in backbone.saliency_stages or () if name not in backbone.dims]
    if unknown:
        raise ValueError(f"{origin}: saliency_stages has {', '.join(unknown)}; dims has {', '.join(backbone.dims)}")
    backbone.register_forward_hook(_check_stages)
    return backbone


def _is_dims(dims: object) -> bool:
    if not isinstance(dims, Mapping) or len(dims) < 2:
        return False
    return all(isinstance(name, str) and isinstance(width, int) and width > 0 for name, width in dims.items())


def _is_head(head: object) -> bool:
    if not isinstance(head, tuple) or len(head) != 3:
        return False
    return all(isinstance(part, int) for part in head) and isinstance(head[2], bool)


def _check_stages(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
    """Forward hook: checks that the output has the form that `Backbone` describes."""
    dims = cast(Mapping[str, int], module.dims)
    origin = f"forward of {type(module).__name__}"
    if not isinstance(output, Mapping):
        raise TypeError(f"{origin} must return a dict from stage name to features, returned {type(output).__name__}")
    if list(output) != list(dims):
        raise ValueError(
            f"{origin} must return the stages of dims, {list(dims)}, in that order; returned {list(output)}"
        )
    for name, value in output.items():
        if not isinstance(value, Tensor) or value.ndim != 5 or value.shape[1] != dims[name]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{origin} must return {name} as (B, {dims[name]}, T', H', W'), returned {got}")
