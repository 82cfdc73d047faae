"""Which function builds the encoder of a file, and checks of its options.

A file may name one of bgaug's encoders, with options that its builder takes, of their types and within limits. A name
of the form module:function in a file is never imported, unless the user gives it, on the command line or in the call,
or trusts the file.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bgaug.errors import BgaugError, CheckpointError, UsageError
from bgaug.model.backbones import BACKBONES
from bgaug.model.backbones.registry import LARGEST, builder_of

Builder = Callable[..., object]


@dataclass(frozen=True)
class CodePermission:
    """Code that the user allows to be imported for an encoder in a file; nothing by default.

    Attributes:
        backbone: builder in place of the one that the file names: a name of `bgaug.names.BACKBONES`, "module:function",
            or the function.
        trust: import the function that the file names. Only for your own files.
    """

    backbone: str | Builder | None = None
    trust: bool = False

    def builder_for(self, name: str, path: object) -> str | Builder:
        """The builder for a file that names an encoder; the path is for messages.

        Raises:
            CheckpointError: the name is not one of bgaug's encoders, and the user gave no builder.
        """
        if self.backbone is not None:
            return self.backbone
        if name in BACKBONES or (self.trust and ":" in name):
            return name
        if ":" not in name:
            raise CheckpointError(
                f"{path} does not fit this bgaug: no backbone {name[:200]!r}; there are {', '.join(BACKBONES)}"
            )
        raise CheckpointError(
            f"{path} names the backbone {name[:200]!r}, which is none of {', '.join(BACKBONES)}. A name in a file "
            "is never imported. If it is your own, give --backbone MODULE:FUNCTION or --trust, in Python "
            "load_encoder(..., backbone=...)"
        )


NO_PERMISSION = CodePermission()


def check_options(builder: str | Builder, options: Mapping[str, Any], path: object) -> dict[str, float | str]:
    """Options from a file, after checks that the builder has each of them, of its type and within its limit.

    Args:
        builder: builder that is called with the options.
        options: options by name.
        path: path of the file, for messages.

    Raises:
        CheckpointError: an option is unknown, of another type or too large.
        UsageError: the builder cannot be found.
    """
    parameters = _parameters(builder)
    types = _annotations(builder_of(builder))
    registered = isinstance(builder, str) and builder in BACKBONES
    for name, value in options.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            known = ", ".join(parameters) or "none"
            raise CheckpointError(f"{path} has the backbone option {name[:100]!r}; the options are {known}")
        if not _is_of(value, types.get(name, _kind(parameter.default))):
            raise CheckpointError(f"{path}: the backbone option {name} must be {parameter}, got {str(value)[:100]!r}")
        if registered and not isinstance(value, str) and value > LARGEST.get(name, math.inf):
            raise CheckpointError(f"{path}: the backbone option {name} may be {LARGEST[name]} in a file, got {value}")
    return dict(options)


def takes_options(builder: str | Builder, names: Iterable[str]) -> bool:
    """Whether a builder has all of these parameters.

    Raises:
        UsageError: the builder cannot be found.
    """
    return set(names) <= set(_parameters(builder))


def _parameters(builder: str | Builder) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(builder_of(builder)).parameters
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _annotations(function: Builder) -> dict[str, Any]:
    """Types of the parameters whose annotations can be resolved."""
    target: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except (TypeError, NameError, AttributeError):
        return {}


def _kind(default: object) -> Any:
    # A parameter without annotation takes values of the type of its default, else any plain value.
    return type(default) if isinstance(default, (bool, int, float, str)) else bool | int | float | str


def _is_of(value: Any, kind: Any) -> bool:
    if not isinstance(value, (bool, int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except (ValidationError, PydanticSchemaGenerationError):
        return False
    return True


_Module = TypeVar("_Module", bound=nn.Module)


def check_fit(make: Callable[[], _Module], state: Mapping[str, Tensor]) -> _Module | None:
    """Check that a module has the shapes of a state, without allocating memory for it.

    So a file cannot cause a network larger than the weights it holds.

    Args:
        make: builds the module.
        state: weights by name; names that the module does not have are ignored.

    Returns:
        The module without memory, in evaluation mode; None if a builder of the user needs real numbers.

    Raises:
        ValueError: a parameter or buffer is missing, or has another shape, or the module cannot be built.
    """
    try:
        with torch.device("meta"), _Undrawn():
            module = make().eval()
    except (RuntimeError, NotImplementedError) as error:
        if "meta" in str(error).lower():
            return None
        raise ValueError(f"the network cannot be built: {str(error)[:200]}") from error
    for name, value in module.state_dict().items():
        if name not in state:
            # Batch norm's counter of batches is missing in old files, and is used only if momentum is None.
            if not name.endswith("num_batches_tracked"):
                raise ValueError(f"weights do not fit: {name} is missing")
        elif state[name].shape != value.shape:
            raise ValueError(f"weights do not fit: {name} is {tuple(state[name].shape)}, not {tuple(value.shape)}")
    return module


class _Undrawn(TorchFunctionMode):
    """Skips the drawing of weights: it has no effect without memory, but would load a compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and getattr(func, "__name__", "") in ("normal_", "uniform_", "random_"):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def own_clips(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of an encoder about clips of its run's own size into a CheckpointError.

    Raises:
        CheckpointError: the clips are too short, too small, or do not divide.
    """
    try:
        yield
    except BgaugError:
        raise
    except (ValueError, RuntimeError) as error:
        if "memory" in str(error).lower():
            raise
        clips = f"{config['num_frames']} frames of {config['crop']} x {config['crop']} pixels"
        raise CheckpointError(
            f"the run's encoder does not take its own clips of {clips}: {str(error)[:300]}"
        ) from error
