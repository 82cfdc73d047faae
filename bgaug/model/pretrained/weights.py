"""Weights from elsewhere and the options that they need; safetensors, whose header is checked before they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from bgaug.errors import UsageError
from bgaug.files import MalformedFile, open_regular
from bgaug.model.backbones import BACKBONES
from bgaug.model.pretrained.builders import Builder, takes_options
from bgaug.model.pretrained.description import MARK, PUBLISHED, EncoderInfo
from bgaug.model.pretrained.torch_files import read_errors, read_torch_file

SUFFIX = ".safetensors"
_LONGEST_HEADER = 2 << 20  # some 20,000 tensors
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_METADATA = "__metadata__"
STATIC_STAGE = "static_stage."
"""Prefix of the weights of the static code's own last stage in a file."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights from a file, on the CPU: from parameter name to tensor. Nothing in the file is executed or imported.

    Args:
        path: file of safetensors, or of `torch.save` for any other suffix: a state dict, also under "state_dict".

    Raises:
        UsageError: there is no such file, it cannot be read, or it is not a state dict.
    """
    path = Path(path)
    with read_errors(path, "weights", UsageError, missing="no such file of weights"):
        state: Any = read_safetensors(path)[0] if path.suffix.lower() == SUFFIX else read_torch_file(path)
    if isinstance(state, Mapping) and state.get("format") == "bgaug-checkpoint":
        raise UsageError(f"{path} is a checkpoint of a run; export its encoder with `bgaug export-weights`")
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UsageError(f"{path} must hold a state dict, from parameter name to tensor; got {type(state).__name__}")
    return dict(state)


def own_weights(path: str | Path) -> dict[str, Tensor]:
    """`read_weights` without a static stage that `export_encoder` wrote; errors as there."""
    return {name: value for name, value in read_weights(path).items() if not name.startswith(STATIC_STAGE)}


def backbone_options(path: str | Path, backbone: str | Builder | None = None) -> dict[str, float | str]:
    """Options of `build_backbone` for the weights of a file: those in its description, else those of published weights.

    They are not checked; see `bgaug.model.pretrained.builders.check_options`.

    Args:
        path: file of weights.
        backbone: encoder that is built for them. It needs the options of `PUBLISHED` for weights from elsewhere if it
            has all of them; otherwise no weights are published for it. None: an encoder that needs them.

    Raises:
        UsageError: the file is named .safetensors and cannot be read, its description is incomplete, or it belongs to
            another encoder.
    """
    path = Path(path)
    metadata: dict[str, str] = {}
    if path.suffix.lower() == SUFFIX:
        with read_errors(path, "safetensors", UsageError, missing="no such file of weights"):
            metadata = _read_metadata(path)
    if MARK not in metadata:
        return dict(PUBLISHED) if backbone is None or takes_options(backbone, PUBLISHED) else {}
    try:
        info = EncoderInfo.parse(metadata)
    except ValueError as error:
        raise UsageError(f"{path}: its description is invalid ({error})") from error
    if backbone in BACKBONES and info.backbone != backbone:
        fix = f"; give --backbone {info.backbone}" if info.backbone in BACKBONES else ""
        raise UsageError(f"{path} holds the encoder {info.backbone!r}, not {backbone!r}{fix}")
    return dict(info.options)


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU, and the metadata.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        MalformedFile: its header is invalid, or does not describe exactly the bytes that follow.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = _read_metadata(path)
    try:
        return dict(load_file(path)), metadata
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise MalformedFile(f"is no whole file of safetensors ({str(error)[:200]})") from error


def check_safetensors(path: str | Path) -> None:
    """Check the whole header of a file against its size, without reading tensors; errors as `read_safetensors`."""
    _read_metadata(path)


def _read_metadata(path: str | Path) -> dict[str, str]:
    """Only the metadata, after checks of the whole header; errors as `read_safetensors`."""
    with open_regular(path) as file:
        header = _header(file)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise MalformedFile("its header has metadata that is not text by name")
    return metadata


def _header(file: BinaryIO) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8 or length > _LONGEST_HEADER:
        raise MalformedFile(f"is no file of safetensors: a header of {length} bytes in a file of {size}")
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except MalformedFile:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"is no file of safetensors: its header is no JSON ({str(error)[:200]})") from error
    if not isinstance(header, dict):
        raise MalformedFile("is no file of safetensors: its header is no JSON object")
    _check_tensors(header, size - 8 - length)
    return header


def _check_tensors(header: Mapping[str, Any], size: int) -> None:
    """Check that tensors follow one another without gaps, up to the end of the file."""
    spans = sorted(_span(name, about) for name, about in header.items() if name != _METADATA)
    place = 0
    for begin, end in spans:
        if begin != place:
            raise MalformedFile("its tensors overlap, or leave bytes between them")
        place = end
    if place != size:
        raise MalformedFile(f"is cut short or has bytes at its end: tensors of {place} bytes, {size} are there")


def _span(name: str, about: Any) -> tuple[int, int]:
    """Begin and end of a tensor, after checks against its shape and type."""
    shown = repr(name[:100])
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise MalformedFile(f"describes {shown} by something else than dtype, shape and data_offsets")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _WIDTHS:
        raise MalformedFile(f"has {shown} of the type {str(dtype)[:50]!r}; there are {', '.join(_WIDTHS)}")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if (
        not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers)
        or len(shape) > 8
        or len(offsets) != 2
    ):
        raise MalformedFile(f"has {shown} with a shape or offsets that are no small whole numbers")
    if offsets[1] - offsets[0] != prod(shape) * _WIDTHS[dtype]:
        raise MalformedFile(f"has {shown} of shape {shape} in other bytes than {offsets} hold")
    return offsets[0], offsets[1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise MalformedFile("its header has a name twice")
    return names


def _no_constant(text: str) -> Any:
    raise MalformedFile(f"its header has {text}, which is no JSON")
