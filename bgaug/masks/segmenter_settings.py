"""How a segmentation network takes its input and gives its output: a TOML file next to the model, or a preset."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bgaug.errors import SegmenterError, UsageError
from bgaug.files import MalformedFile, read_regular

_MOST_BYTES = 1 << 16  # of the TOML file
_SHOWN = 60  # characters of a wrong value in a message

_Side = Annotated[int, Field(strict=True, ge=8, le=2048)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e6, le=1e6)]
_Three = tuple[_Number, _Number, _Number]

EXAMPLE = """\
size = [256, 256]      # height and width of the input, in pixels
mean = 0               # subtracted from the values 0 to 255: a number, or three for red, green and blue
scale = 0.0039215686   # the factor after that: a number, or three
channels = "rgb"       # or "bgr"
layout = "nchw"        # or "nhwc"
output = 0             # number or name of the output
channel = 0            # of the output: the foreground
activation = "none"    # or "sigmoid", "softmax", "minmax": what turns the output into a probability
"""
"""A complete file of settings."""


class SegmenterSettings(BaseModel):
    """Input and output of a segmentation network.

    Attributes:
        size: (height, width) of the input; the image is stretched to it.
        mean: of red, green and blue, subtracted from the grey levels 0 to 255.
        scale: factors of red, green and blue after that.
        channels: order of the colours in the input.
        layout: of the input and of an output with four axes: "nchw" (batch, channel, height, width) or "nhwc". OpenCV
            gives every TFLite model the layout "nchw".
        output: number or name of the output.
        channel: channel of the output that is the foreground.
        activation: what turns the output into the probability of foreground: "none" for an output that is one,
            "sigmoid" of the channel, "softmax" over all channels, unless they are non-negative and sum to one already,
            or "minmax", which moves the least value to 0 and the greatest to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[_Side, _Side]
    scale: _Three
    activation: Literal["none", "sigmoid", "softmax", "minmax"]
    mean: _Three = (0.0, 0.0, 0.0)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    output: Annotated[int, Field(strict=True, ge=0, le=255)] | Annotated[str, Field(min_length=1, max_length=500)] = 0
    channel: Annotated[int, Field(strict=True, ge=0, le=4095)] = 0

    @field_validator("mean", "scale", mode="before")
    @classmethod
    def _of_each_colour(cls, value: Any) -> Any:
        return (value,) * 3 if isinstance(value, int | float) else value

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, value: _Three) -> _Three:
        if 0 in value:
            raise ValueError("a scale of 0 makes every image black")
        return value


def _from_255(**others: Any) -> SegmenterSettings:
    return SegmenterSettings(scale=(1 / 255,) * 3, **others)


def _around_zero(**others: Any) -> SegmenterSettings:
    return SegmenterSettings(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3, **others)


PRESETS: dict[str, SegmenterSettings] = {
    "mediapipe-selfie": _from_255(size=(256, 256), activation="none"),
    "mediapipe-selfie-landscape": _from_255(size=(144, 256), activation="none"),
    "pp-humanseg": _around_zero(size=(192, 192), activation="softmax", channel=1),
    "modnet": _around_zero(size=(512, 512), activation="none"),
    "u2net": SegmenterSettings(
        size=(320, 320),
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
        scale=(1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255)),
        activation="minmax",
    ),
}
"""Published forms of input and output, by the name that a file of settings gives as `preset`."""

_PRESET_OF = {
    "selfie_segmentation": "mediapipe-selfie",
    "selfie_segmentation_landscape": "mediapipe-selfie-landscape",
    "selfie_segmenter": "mediapipe-selfie",
    "selfie_segmenter_landscape": "mediapipe-selfie-landscape",
    "human_segmentation_pphumanseg_2021oct": "pp-humanseg",
    "human_segmentation_pphumanseg_2023mar": "pp-humanseg",
    "human_segmentation_pphumanseg_2023mar_int8": "pp-humanseg",
    "human_segmentation_pphumanseg_2023mar_int8bq": "pp-humanseg",
    "modnet": "modnet",
    "modnet_photographic_portrait_matting": "modnet",
    "modnet_webcam_portrait_matting": "modnet",
    "u2net": "u2net",
    "u2netp": "u2net",
    "u2net_human_seg": "u2net",
}
"""Presets of models with the file names under which they are published."""


def settings_of(model: Path) -> SegmenterSettings:
    """The settings of a model: of the TOML file next to it, else of the preset for its file name.

    Args:
        model: the model; the settings of `a/net.onnx` are `a/net.toml`.

    Raises:
        SegmenterError: the file cannot be read, or a key is missing, unknown or wrong; or there is no such file, and
            no preset for the name.
    """
    path = model.with_suffix(".toml")
    try:
        data = read_regular(path, _MOST_BYTES)
    except FileNotFoundError:
        if model.stem.lower() in _PRESET_OF:
            return PRESETS[_PRESET_OF[model.stem.lower()]]
        raise SegmenterError(
            model,
            f"has no settings, and its name is not one of {', '.join(sorted(_PRESET_OF))}: write {path}, with a line "
            f'preset = "NAME" ({", ".join(PRESETS)}), or with all of its settings, such as:\n{EXAMPLE}',
        ) from None
    except (OSError, MalformedFile) as error:
        raise SegmenterError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _parse(tomllib.loads(data.decode()))
    except ValidationError as error:
        raise _wrong(path, "; ".join(_described(one) for one in error.errors()[:5])) from error
    except RecursionError as error:
        raise _wrong(path, "its values are nested too deeply") from error
    except UsageError as error:
        raise _wrong(path, str(error)) from error
    except ValueError as error:  # of tomllib, and bytes that are no text
        raise _wrong(path, f"it is not TOML: {str(error)[:200]}") from error


def _parse(given: dict[str, Any]) -> SegmenterSettings:
    preset = given.pop("preset", None)
    if preset is None:
        return SegmenterSettings.model_validate(given)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UsageError(f"there is no preset {_short(preset)}; there are {', '.join(PRESETS)}")
    return SegmenterSettings.model_validate({**PRESETS[preset].model_dump(), **given})


def _described(error: Any) -> str:
    name = ".".join(str(part)[:_SHOWN] for part in error["loc"] if part not in ("int", "constrained-str"))
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no setting {name}; there are preset, {', '.join(SegmenterSettings.model_fields)}"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}, got {_short(error['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _wrong(path: Path, message: str) -> SegmenterError:
    return SegmenterError(path, f"are no valid settings of a segmentation network: {message}. An example:\n{EXAMPLE}")
