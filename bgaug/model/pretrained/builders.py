"""Whose word it is that builds an encoder.

A file may name an encoder of bgaug's, with options that its builder takes, of their types and of a sane size. A name of the
form module:function inside a file is never imported: the user says it, on the command line or in the call, or says that the
file is to be trusted.
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
class Word:
    """What the user says about the encoder in a file.

    Attributes:
        backbone: what builds it, in place of the file's own word: a name of `bgaug.model.backbones.BACKBONES`, "module:function",
            or the function.
        trust: import what the file names. Only for files of one's own.
    """

    backbone: str | Builder | None = None
    trust: bool = False

    def over(self, name: str, path: object) -> str | Builder:
        """What to build where a file names an encoder.

        Args:
            name: the file's word.
            path: of the file, for messages.

        Raises:
            CheckpointError: it is none of bgaug's, and the user did not say so.
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
            f"{path} names the backbone {name[:200]!r}, which is none of {', '.join(BACKBONES)}. A name inside a file is never "
            "imported. If it is yours, say so: --backbone MODULE:FUNCTION or --trust, in Python load_encoder(..., "
            "backbone=...)"
        )


NOTHING_SAID = Word()


def check_options(builder: str | Builder, options: Mapping[str, Any], path: object) -> dict[str, float | str]:
    """Options from a file, once each is one that the builder names, of its type, and no larger than is sane.

    Args:
        builder: what will be called with them.
        options: by name.
        path: of the file, for messages.

    Raises:
        CheckpointError: one is not.
        UsageError: the builder itself cannot be found.
    """
    try:
        function = builder_of(builder)
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    types = _annotations(function)
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
    """Whether a builder names all of these among its parameters.

    Raises:
        UsageError: it cannot be found.
    """
    try:
        return set(names) <= set(inspect.signature(builder_of(builder)).parameters)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _annotations(function: Builder) -> dict[str, Any]:
    """Types of the parameters, those that can be told."""
    target: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except (TypeError, NameError, AttributeError):
        return {}


def _kind(default: object) -> Any:
    """The type of a parameter that is not annotated: that of its default, else any plain value."""
    return type(default) if isinstance(default, (bool, int, float, str)) else bool | int | float | str


def _is_of(value: Any, kind: Any) -> bool:
    if not isinstance(value, (bool, int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except (ValidationError, PydanticSchemaGenerationError):
        return False
    return True


Module = TypeVar("Module", bound=nn.Module)


def check_fit(make: Callable[[], Module], state: Mapping[str, Tensor]) -> Module | None:
    """See that a module has the shapes of a state, without any memory for it.

    So a file cannot ask for a network larger than what it brings.

    Args:
        make: builds it.
        state: by name; what the module does not have is left to whoever loads it.

    Returns:
        The module without memory, in evaluation mode; None where a builder of one's own needs real numbers.

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
            # Batch norm's counter of batches is missing from old files, and matters only where momentum is None.
            if not name.endswith("num_batches_tracked"):
                raise ValueError(f"weights do not fit: {name} is missing")
        elif state[name].shape != value.shape:
            raise ValueError(f"weights do not fit: {name} is {tuple(state[name].shape)}, not {tuple(value.shape)}")
    return module


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing weights, which without memory has no effect but to load a compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and getattr(func, "__name__", "") in ("normal_", "uniform_", "random_"):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def own_clips(config: Mapping[str, Any]) -> Iterator[None]:
    """What an encoder says of clips as its own run describes them becomes an error of ours.

    Args:
        config: of the run.

    Raises:
        CheckpointError: in place of an error inside: they are too short, too small, or do not divide.
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
