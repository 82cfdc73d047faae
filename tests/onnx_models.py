"""Tiny ONNX models, written byte by byte: a protobuf message is a list of numbered fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

_FLOAT, _INT64, _INTS = 1, 7, 7  # types of tensors and of an attribute


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _all(number: int, values: Sequence[int | str | bytes]) -> bytes:
    return b"".join(_field(number, value) for value in values)


def tensor(name: str, values: ArrayLike, *, whole: bool = False) -> bytes:
    """A constant of floats, or of whole numbers."""
    array = np.asarray(values, np.int64 if whole else np.float32)
    return _all(1, array.shape) + _field(2, _INT64 if whole else _FLOAT) + _field(8, name) + _field(9, array.tobytes())


def ints(name: str, values: Sequence[int]) -> bytes:
    """An attribute of a node."""
    return _field(5, _field(1, name) + _all(8, values) + _field(20, _INTS))


def node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    """An operation with one output."""
    return _all(1, inputs) + _field(2, output) + _field(3, f"make {output}") + _field(4, kind) + attributes


def _described(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


def model(
    nodes: Sequence[bytes],
    constants: Sequence[bytes],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
) -> bytes:
    """A model; inputs and outputs are shapes by name, in which a text is a side of any length."""
    graph = _all(1, nodes) + _field(2, "graph") + _all(5, constants)
    graph += _all(11, [_described(name, sides) for name, sides in inputs.items()])
    graph += _all(12, [_described(name, sides) for name, sides in outputs.items()])
    return _field(1, 7) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def mixed(matrix: ArrayLike, bias: ArrayLike, size: tuple[int, int], activation: str | None = None) -> bytes:
    """A network whose output channels are sums of its input channels at each pixel.

    Args:
        matrix: weights, (channels of the output, 3).
        bias: added, (channels of the output,).
        size: (height, width) of input and output.
        activation: an operation after the sums.
    """
    weights = np.asarray(matrix, np.float32)
    nodes = [node("Conv", ["image", "weights", "bias"], "sum" if activation else "share", ints("kernel_shape", (1, 1)))]
    nodes += [node(activation, ["sum"], "share")] if activation else []
    constants = [tensor("weights", weights[:, :, None, None]), tensor("bias", bias)]
    return model(nodes, constants, {"image": (1, 3, *size)}, {"share": (1, len(weights), *size)})


def write_model(path: Path, data: bytes, settings: str) -> Path:
    """A model and its settings next to it."""
    path.write_bytes(data)
    path.with_suffix(".toml").write_text(settings)
    return path


def red_network(path: Path, size: tuple[int, int] = (24, 32), settings: str = "") -> Path:
    """A network whose share is the red channel: 0 for 0, 1 for 255."""
    height, width = size
    text = f'size = [{height}, {width}]\nscale = {1 / 255}\nactivation = "none"\n{settings}'
    return write_model(path, mixed([[1, 0, 0]], [0], size), text)
