"""Files of safetensors: the header is checked against the file's own size before the library reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from bgaug.untrusted import MalformedFile, open_regular

SUFFIX = ".safetensors"
_LONGEST_HEADER = 2 << 20  # some 20,000 tensors
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_METADATA = "__metadata__"


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU, and the metadata.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        MalformedFile: its header is no header, or does not describe exactly the bytes that follow.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    try:
        return dict(load_file(path)), metadata
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise MalformedFile(f"is no whole file of safetensors ({str(error)[:200]})") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata alone, once the whole header is checked; errors as `read_safetensors`."""
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
    """Every tensor lies behind the one before, and together they are all that follows the header."""
    spans = sorted(_span(name, about) for name, about in header.items() if name != _METADATA)
    place = 0
    for begin, end in spans:
        if begin != place:
            raise MalformedFile("its tensors overlap, or leave bytes between them")
        place = end
    if place != size:
        raise MalformedFile(f"is cut short or has bytes at its end: tensors of {place} bytes, {size} are there")


def _span(name: str, about: Any) -> tuple[int, int]:
    """Begin and end of a tensor, which are what its shape and type need."""
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
