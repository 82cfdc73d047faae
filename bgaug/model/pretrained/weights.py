"""Weights from elsewhere, and the options that they need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bgaug.errors import UsageError
from bgaug.model.backbones import BACKBONES
from bgaug.model.pretrained.builders import Builder, takes_options
from bgaug.model.pretrained.description import MARK, PUBLISHED, EncoderInfo
from bgaug.model.pretrained.safetensors_files import SUFFIX, read_metadata, read_safetensors
from bgaug.model.pretrained.torch_files import read_torch_file
from bgaug.untrusted import MalformedFile

STATIC_STAGE = "static_stage."
"""What the weights of an own last stage for the static code are called in a file."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights from a file, on the CPU: from parameter name to tensor. Nothing in the file is executed or imported.

    Args:
        path: .safetensors; or any other suffix: what `torch.save` wrote of a state dict, also under "state_dict".

    Raises:
        UsageError: there is no such file, it cannot be read, or holds something else.
    """
    path = Path(path)
    try:
        state: Any = read_safetensors(path)[0] if path.suffix.lower() == SUFFIX else read_torch_file(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file of weights") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read as weights: {error.strerror or error}") from error
    except MalformedFile as error:
        raise UsageError(f"{path} cannot be read as weights: it {error}") from error
    if isinstance(state, Mapping) and state.get("format") == "bgaug-checkpoint":
        raise UsageError(f"{path} is a checkpoint of a run: take its encoder out with `bgaug export-weights`")
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} must hold a state dict, from parameter name to tensor; got {type(state).__name__}")
    if not all(isinstance(name, str) for name in state):
        raise UsageError(f"{path} must hold a state dict, from parameter name to tensor; its names are no text")
    return dict(state)


def own_weights(path: str | Path) -> dict[str, Tensor]:
    """`read_weights` less a static stage that `export_encoder` put beside an encoder; errors as there."""
    return {name: value for name, value in read_weights(path).items() if not name.startswith(STATIC_STAGE)}


def backbone_options(path: str | Path, backbone: str | Builder | None = None) -> dict[str, float | str]:
    """Options of `build_backbone` that the weights of a file need: what a file from here says, else those of the field.

    They are as the file has them: check them by `bgaug.model.pretrained.builders.check_options`.

    Args:
        path: of the weights.
        backbone: what is built for them. An encoder that takes both of `PUBLISHED` needs those for weights from elsewhere; any
            other has no published weights, and is built as it is by default. None: one that needs them.

    Raises:
        UsageError: it is named .safetensors and cannot be read, its description is not whole, or it is of another encoder.
    """
    path = Path(path)
    metadata = _metadata(path) if path.suffix.lower() == SUFFIX else {}
    if MARK not in metadata:
        return dict(PUBLISHED) if backbone is None or takes_options(backbone, PUBLISHED) else {}
    try:
        info = EncoderInfo.parse(metadata)
    except ValueError as error:
        raise UsageError(f"{path}: its description is not whole ({error})") from error
    if backbone in BACKBONES and info.backbone != backbone:
        fix = f"; give --backbone {info.backbone}" if info.backbone in BACKBONES else ""
        raise UsageError(f"{path} holds the encoder {info.backbone!r}, not {backbone!r}{fix}")
    return dict(info.options)


def _metadata(path: Path) -> dict[str, str]:
    try:
        return read_metadata(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read as safetensors: {error.strerror or error}") from error
    except MalformedFile as error:
        raise UsageError(f"{path} cannot be read as safetensors: it {error}") from error
