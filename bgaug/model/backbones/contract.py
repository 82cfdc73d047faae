"""What the library asks of an encoder, and how an encoder of one's own is checked.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for what is left of them in a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast

from torch import Tensor, nn

STAGES = ("stage1", "stage2", "stage3", "stage4")


class Backbone(nn.Module):
    """What the library asks of an encoder; inherit from it to bring your own.

    ``forward`` maps float clips in [0, 1], (B, 3, T, H, W), to a dict from stage name to features (B, C, T', H', W'), in
    the order they are computed; the last one is the output.

    Attributes:
        dims: channels of each stage, in the order of ``forward``.
        head: (hidden, out, batch_norm) of the projection heads that suit it.
        saliency_stages: stages in which motion is read, where the rule of `bgaug.model.decomposition.MotionAwareDecomposition` does
            not suit it; None: that rule.
        temporal_reach: by stage, the frames at each end of its features that padding in time has touched, so that they
            differ from the others in a clip that stands still. No entry: none.
    """

    dims: dict[str, int]
    head: ClassVar[tuple[int, int, bool]] = (512, 128, False)
    saliency_stages: tuple[str, ...] | None = None
    temporal_reach: Mapping[str, int] = MappingProxyType({})

    def last_stage(self) -> nn.Module:
        """A new, independent last stage: a map from the features of the stage before it to its own output's shape.

        Raises:
            NotImplementedError: an encoder of one's own did not say.
        """
        raise NotImplementedError(f"{type(self).__name__} has no last_stage(), which the static stream needs")


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def checked_backbone(module: object, origin: str) -> Backbone:
    """An encoder made elsewhere, once it is sure to have what `Backbone` names.

    What ``forward`` returns shows only with a clip, so a hook looks at it each time one has passed.

    Args:
        module: what should be an encoder.
        origin: where it came from, for messages.

    Returns:
        The same module; what it lacks of ``saliency_stages`` and ``temporal_reach`` is as in `Backbone`.

    Raises:
        TypeError: it is no module, or lacks something, or has it in another form.
        ValueError: ``saliency_stages`` names no stage.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"{origin} must return a torch.nn.Module, returned {type(module).__name__}")
    dims, head = getattr(module, "dims", None), getattr(module, "head", None)
    if not _is_dims(dims):
        raise TypeError(f"{origin}: dims must be a dict from at least two stage names to channels, got {dims!r}")
    if not _is_head(head):
        raise TypeError(f"{origin}: head must be (hidden, out, batch_norm) such as (512, 128, False), got {head!r}")
    if not callable(getattr(module, "last_stage", None)):
        raise TypeError(f"{origin}: last_stage() is missing; it makes a new last stage for the static stream")
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
    """Forward hook: the output is what `Backbone` promises."""
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
