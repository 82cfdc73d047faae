"""The description of an encoder in a run or a file, checked: names, sizes, method. None of it is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from bgaug import __version__
from bgaug.errors import CheckpointError
from bgaug.model import Method
from bgaug.model.decomposition import OLD_FEATURES
from bgaug.pairs import Composition

MARK = "bgaug_encoder"
FORM = "1"
"""Version of the description in a file. Files without `feature` were written by 0.1.0 and mean the global code."""

PUBLISHED: dict[str, float | str] = {"temporal_padding": "zeros", "normalise": True}
"""Options of `build_backbone` for the weights that torchvision published."""

_MOST_PIXELS = 1 << 25  # limit for a clip: 16 frames of 1,448 x 1,448
_DECOMPOSITION = ("stages", "pool")
"""Fields of `bgaug.model.Method` that decide how codes are made of features."""
_REMOVED = {"stretch": "minmax", "per_channel": False, "normalise": False, "compensate": False}
"""Fields of a method of 0.1.0 that no longer exist, with the values that still mean the same."""

_T = TypeVar("_T")
_Name = Annotated[str, Field(max_length=200)]


class _Clips(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    num_frames: Annotated[int, Field(ge=1, le=4096)]
    stride: Annotated[int, Field(ge=1, le=100_000)]


class _Config(_Clips):
    backbone: _Name
    method: _Name
    crop: Annotated[int, Field(ge=1, le=4096)]
    resolved_method: dict[str, Any]
    weights: str | None = None
    backbone_options: dict[str, Any] | None = None
    flip: Annotated[float, Field(ge=0, le=1)] | None = None
    classes: list[str] | None = None


class _Info(_Clips):
    backbone: _Name
    options: dict[str, Any]
    size: Annotated[int, Field(ge=1, le=4096)]
    normalisation: _Name
    temporal_padding: _Name
    dim: Annotated[int, Field(ge=0, le=1 << 20)]
    method: _Name
    checkpoint_sha256: _Name
    bgaug_version: _Name
    feature: Annotated[
        Literal["global", "dynamic", "static", "dynamic+static"],
        BeforeValidator(lambda name: OLD_FEATURES.get(name, name)),
    ] = "global"
    decomposition: dict[str, Any] = {}
    static_stage: bool = False


@dataclass(frozen=True)
class EncoderInfo:
    """Description of an encoder and of the clips it was trained on; stored as text in the metadata of a file.

    Attributes:
        backbone: name for `bgaug.model.backbones.build_backbone`.
        options: options of `build_backbone`.
        size: side of the square crops, pixels.
        num_frames: frames of a clip, T.
        stride: distance of the frames.
        normalisation: "none" or "kinetics", applied by the encoder itself. Its input is in [0, 1] in both cases.
        temporal_padding: "replicate" or "zeros"; "none" if the encoder has no padding in time.
        dim: dimension D of a feature.
        method: training method.
        checkpoint_sha256: hash of the checkpoint's bytes.
        bgaug_version: version that wrote the description.
        feature: the feature of its method, which `bgaug evaluate` and `bgaug embed` take.
        decomposition: how the codes are made of features, by fields of `bgaug.model.Method`; the default where one is
            missing.
        static_stage: whether the static code has a last stage of its own.
    """

    backbone: str
    options: Mapping[str, float | str]
    size: int
    num_frames: int
    stride: int
    normalisation: str
    temporal_padding: str
    dim: int
    method: str
    checkpoint_sha256: str
    bgaug_version: str = __version__
    feature: str = "global"
    decomposition: Mapping[str, Any] = field(default_factory=dict)
    static_stage: bool = False

    def metadata(self) -> dict[str, str]:
        """All values as text, for safetensors; mappings and booleans as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["options"], values["decomposition"] = dict(self.options), dict(self.decomposition)
        text = {name: v if isinstance(v, str) else json.dumps(v) for name, v in values.items()}
        return {"format": "pt", MARK: FORM, **text}

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> EncoderInfo:
        """The reverse of `metadata`; raises ValueError if a value is missing, of another type or out of its range."""
        values: dict[str, Any] = {f.name: metadata[f.name] for f in fields(cls) if f.name in metadata}
        try:
            for name in ("size", "num_frames", "stride", "dim", "options", "decomposition", "static_stage"):
                if name in values:
                    values[name] = json.loads(values[name])
        except RecursionError as error:
            raise ValueError(f"{name} is nested too deep") from error
        except ValueError as error:
            raise ValueError(f"{name} is {values[name][:100]!r}") from error
        found = _checked(_Info, values).model_dump()
        _check_pixels(found["num_frames"], found["size"])
        method_for(found["decomposition"])
        return cls(**found)


def checked_config(config: object, path: object) -> tuple[dict[str, Any], Method]:
    """A run's configuration and its method, after checks of all values that are used to build anything.

    Args:
        config: configuration in the checkpoint.
        path: path of the checkpoint, for messages.

    Raises:
        CheckpointError: a value is missing, of another type or out of its range.
    """
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} has no configuration, but {type(config).__name__}")
    try:
        found = _checked(_Config, config).model_dump(exclude_unset=True)
        _check_pixels(found["num_frames"], found["crop"])
        found["resolved_method"] = present_fields(found["resolved_method"])
        method = _as_method(found["resolved_method"])
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
    return {**config, **found}, method


def present_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a method, read from a file, by their present names.

    Raises:
        ValueError: a field that was removed has a value that is no longer supported.
    """
    for name, default in _REMOVED.items():
        if values.get(name, default) != default:
            raise ValueError(f"{name} = {str(values[name])[:50]!r} is supported by bgaug 0.1.0 only; use that version")
    present = {name: value for name, value in values.items() if name not in _REMOVED}
    if "w_motion" in present:
        present.setdefault("w_dynamic", present.pop("w_motion"))
    return present


def _as_method(values: Mapping[str, Any]) -> Method:
    """A method from its fields; raises ValueError if a field is unknown or a value is invalid."""
    composition = values.get("composition", {})
    if isinstance(composition, Mapping):
        _dataclass(Composition, asdict(Composition()) | dict(composition))
    return _dataclass(Method, values)


def method_for(decomposition: Mapping[str, Any]) -> Method:
    """A method with this decomposition; errors as `_as_method`."""
    decomposition = present_fields(decomposition)
    unknown = [name for name in decomposition if name not in _DECOMPOSITION]
    if unknown:
        raise ValueError(f"the decomposition has {', '.join(unknown)[:200]}; it may have {', '.join(_DECOMPOSITION)}")
    return _as_method({"name": "", **decomposition})


def check_stages(method: Method, known: Iterable[str]) -> None:
    """Raise ValueError if a method reads motion in a stage that an encoder does not have."""
    unknown = [name for name in method.stages or () if name not in known]
    if unknown:
        raise ValueError(f"no stage {', '.join(unknown)[:200]}; there are {', '.join(known)}")


def _check_pixels(num_frames: int, size: int) -> None:
    """Raise ValueError if a clip would have more pixels than the limit."""
    if num_frames * size * size > _MOST_PIXELS:
        raise ValueError(f"clips of {num_frames} frames of {size} x {size} pixels are more than {_MOST_PIXELS} pixels")


_Model = TypeVar("_Model", bound=BaseModel)


def _checked(kind: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(_messages(error)) from error


def _dataclass(kind: type[_T], values: Mapping[str, Any]) -> _T:
    assert is_dataclass(kind)
    known = [field.name for field in fields(kind)]
    unknown = [str(name)[:50] for name in values if name not in known]
    if unknown:
        raise ValueError(f"there is no {', '.join(unknown[:5])}; there are {', '.join(known)}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if any(isinstance(value, float) and not math.isfinite(value) for value in plain.values()):
        raise ValueError("a number is not finite")
    for name, adapter in _adapters(kind).items():
        if name in plain:
            try:
                plain[name] = adapter.validate_python(plain[name], strict=True)
            except ValidationError as error:
                raise ValueError(f"{name} {_messages(error)}") from error
    try:
        return kind(**plain)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)[:200]) from error


@cache
def _adapters(kind: type) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(kind).items()}


def _messages(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))[:100]}: {fault['msg'][:200]}, got {_shown(fault['input'])}"
        for fault in error.errors()[:3]
    )


def _shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
