"""Foreground by a segmentation network: any ONNX or TFLite model that OpenCV's DNN module runs.

Letters: C channels, H, W pixels; h, w pixels of the network's output.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import SegmenterError
from bgaug.files import MalformedFile, read_regular
from bgaug.masks.segmenter_settings import SegmenterSettings, settings_of
from bgaug.sizing import Size, resize_area

_MOST_BYTES = 1 << 30
_MOST_VALUES = 1 << 27  # of an output
_OUTSIDE = 0.1  # by which a probability may be outside [0, 1], as those of matting networks are
_SUM = 1e-3  # by which a sum of probabilities may differ from 1
_LARGEST = 1e30  # OpenCV cuts infinite values, and some that are no number, to the greatest number
_INPUTS = re.compile(r"main_graph: \{.*?inputs: \[\n(.*?)\n *\]", re.DOTALL)
_INPUT = re.compile(r"<Input> (CV_\w+?)C1 \[([^\]\n]*)\]")
_READERS = {".onnx": "readNetFromONNX", ".tflite": "readNetFromTFLite"}


class Segmenter:
    """A network that gives each pixel a probability of being foreground.

    It is for one thread at a time. A copy that was sent to another process reads the file again, and has to find the
    same bytes there. OpenCV parses the model in this process, and an odd file can crash it: use models from sources
    that you trust, or load them first in a process of their own.

    Attributes:
        path: the model.
        settings: of its input and output.
        sha256: of the bytes of the model, in hexadecimal.
    """

    def __init__(self, path: str | Path, data: bytes, settings: SegmenterSettings) -> None:
        self.path, self.settings = Path(path), settings
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._net = _read(self.path, data)
        self._check_input()
        self._names = [str(name) for name in self._net.getUnconnectedOutLayersNames()]
        self._output = self._output_place()

    @classmethod
    def load(
        cls, path: str | Path, settings: SegmenterSettings | None = None, *, sha256: str | None = None
    ) -> Segmenter:
        """Read a model.

        Args:
            path: a file that ends in .onnx or .tflite, of at most 1 GiB.
            settings: of its input and output; by default those of the TOML file next to it, or the preset for its name.
            sha256: that its bytes must have; by default any.

        Raises:
            SegmenterError: the model or its settings cannot be read, OpenCV cannot build the network, it has no such
                output, or the bytes have another sha256.
        """
        path = Path(path)
        if path.suffix.lower() not in _READERS:
            raise SegmenterError(path, "is no segmentation network: expected a model in a file .onnx or .tflite")
        try:
            data = read_regular(path, _MOST_BYTES)
        except MalformedFile as error:
            raise SegmenterError(path, str(error)) from error
        except OSError as error:
            raise SegmenterError(path, f"cannot be read: {error.strerror or error}") from error
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise SegmenterError(
                path, f"has changed: expected sha256 {sha256}, got {found}. Put the earlier model back, or begin again"
            )
        return cls(path, data, settings_of(path) if settings is None else settings)

    def __reduce__(self) -> tuple[Callable[..., Segmenter], tuple[Any, ...]]:
        return _load_same, (self.path, self.settings, self.sha256)

    @property
    def digest(self) -> str:
        """sha256 of the model and its settings together: equal if the results are."""
        text = json.dumps([self.sha256, self.settings.model_dump()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def share(self, image: NDArray[np.uint8], size: Size | None = None) -> NDArray[np.float32]:
        """Probability that a pixel is foreground.

        Args:
            image: uint8 (H, W, 3), RGB.
            size: (height, width) of the result; by default that of the image.

        Returns:
            float32 (height, width) in [0, 1].

        Raises:
            ValueError: an image of another shape or type.
            SegmenterError: OpenCV cannot run the network, or its output is no probability: of another shape, not
                finite, or outside [0, 1].
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
            raise ValueError(f"an image must be uint8 (H, W, 3), got {image.dtype} {image.shape = }")
        height, width = image.shape[:2] if size is None else size
        share = self._activated(self._channels(self._run(image)))
        share = np.ascontiguousarray(share, np.float32)
        return np.clip(cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)

    def _run(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """The output for an image, as the network gives it."""
        settings = self.settings
        scale = np.array(settings.scale, np.float32)
        values = resize_area(image, settings.size) * scale - np.array(settings.mean, np.float32) * scale
        if settings.channels == "bgr":
            values = values[..., ::-1]
        if settings.layout == "nchw":
            values = values.transpose(2, 0, 1)
        try:
            self._net.setInput(np.ascontiguousarray(values[None]))
            return np.asarray(self._net.forward(self._names)[self._output])  # it gives all outputs or none
        except (cv2.error, MemoryError) as error:
            raise SegmenterError(
                self.path,
                f"OpenCV {cv2.__version__} cannot run this network on an input {self._input}, {settings.layout}: "
                f"{_reason(error)}. Check size and layout in its settings; other versions of OpenCV run other layers",
            ) from error

    def _channels(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """An output as float32 (C, h, w)."""
        shape = output.shape
        if output.dtype.kind not in "fiub" or not 0 < output.size <= _MOST_VALUES:
            raise self._unexpected(f"{output.dtype} {shape}")
        if output.ndim == 4 and shape[0] == 1:
            output = output[0] if self.settings.layout == "nchw" else output[0].transpose(2, 0, 1)
        elif output.ndim == 2:
            output = output[None]
        elif output.ndim != 3:
            raise self._unexpected(f"the shape {shape}")
        if self.settings.channel >= len(output):
            raise self._unexpected(f"the shape {shape}, which has no channel {self.settings.channel}")
        values = np.asarray(output, np.float32)
        if not (np.abs(values) < _LARGEST).all():
            raise SegmenterError(self.path, f"output {self._name} contains values that are not finite numbers")
        return values

    def _activated(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of foreground (h, w) from an output (C, h, w)."""
        kind = self.settings.activation
        channel: NDArray[np.float32] = values[self.settings.channel]
        if kind == "sigmoid":
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * channel), np.float32)
        if kind == "softmax":
            if values.min() >= 0 and np.abs(values.sum(0) - 1).max() <= _SUM:
                return channel
            powers = np.exp(values - values.max(0))
            return np.asarray(powers[self.settings.channel] / powers.sum(0), np.float32)
        if kind == "minmax":
            least, greatest = channel.min(), channel.max()
            return (channel - least) / (greatest - least) if greatest > least else np.zeros_like(channel)
        if channel.min() < -_OUTSIDE or channel.max() > 1 + _OUTSIDE:
            raise SegmenterError(
                self.path,
                f"output {self._name} has values from {channel.min():.4g} to {channel.max():.4g}, and a probability "
                'is expected: set activation = "sigmoid" or "softmax" in its settings, or another output or channel',
            )
        return channel

    def _unexpected(self, got: str) -> SegmenterError:
        return SegmenterError(
            self.path,
            f"output {self._name}: expected numbers (1, channels, height, width), or (1, height, width, channels) "
            f'with layout = "nhwc", got {got}; set output, channel and layout in its settings',
        )

    @property
    def _name(self) -> str:
        return repr(self._names[self._output][:80])

    @property
    def _input(self) -> tuple[int, ...]:
        """Shape of the input."""
        height, width = self.settings.size
        return (1, 3, height, width) if self.settings.layout == "nchw" else (1, height, width, 3)

    def _output_place(self) -> int:
        """Number of the output."""
        requested = self.settings.output
        if isinstance(requested, int) and requested < len(self._names):
            return requested
        if requested in self._names:
            return self._names.index(str(requested))
        shown = ", ".join(f"{number} ({name[:80]})" for number, name in enumerate(self._names[:20])) or "none"
        raise SegmenterError(
            self.path, f"the network has no output {requested!r}; there are {shown}: set output in its settings"
        )

    def _check_input(self) -> None:
        """Compare the input with the declared one: OpenCV 5 reads beyond the end of an input that is too small."""
        declared = _INPUTS.search(_dumped(self._net))
        if declared is None:
            return  # an earlier OpenCV, which checks it
        inputs = _INPUT.findall(declared[1])
        if len(inputs) != 1:
            raise SegmenterError(self.path, f"the network has {len(inputs)} inputs; expected one, an image")
        kind, shape = inputs[0]
        sides = shape.split(" x ")
        expected = [str(side) for side in self._input]
        other = [side for side, ours in zip(sides, expected, strict=False) if side.isdigit() and side != ours]
        if kind not in ("CV_32F", "CV_16F") or len(sides) != len(expected) or other:
            raise SegmenterError(
                self.path,
                f"the network takes {kind} [{shape[:80]}], and its settings give CV_32F [{' x '.join(expected)}]: "
                "set size and layout in its settings, or export it for such an input",
            )


def _load_same(path: Path, settings: SegmenterSettings, sha256: str) -> Segmenter:
    return Segmenter.load(path, settings, sha256=sha256)


def _read(path: Path, data: bytes) -> Any:
    """The network in the bytes of a model."""
    read = getattr(cv2.dnn, _READERS[path.suffix.lower()])
    try:
        net = read(np.frombuffer(data, np.uint8))
        if not net.empty():
            return net
        reason = "it has no layers"
    except (cv2.error, MemoryError) as error:
        reason = _reason(error)
    raise SegmenterError(
        path,
        f"OpenCV {cv2.__version__} cannot read this model: {reason}. If the file is complete, export it with common "
        "layers only, or in the other of the two formats",
    )


def _dumped(net: Any) -> str:
    """The description that OpenCV writes of a network."""
    try:
        return str(net.dump())
    except (cv2.error, UnicodeDecodeError, MemoryError):
        return ""


def _reason(error: Exception) -> str:
    """The message of OpenCV without its places in the source."""
    return " ".join((getattr(error, "err", "") or str(error) or "out of memory").split())[:200]
