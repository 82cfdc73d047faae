"""Encoders by name, and encoders of users by "module:function" or by the function itself.

A new encoder is one module and one entry of `bgaug.names.BACKBONES`. A name that was read from a file must not come
here unchecked: see `bgaug.model.pretrained.builders`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import cast

from bgaug.model.backbones.contract import Backbone, checked_backbone
from bgaug.names import BACKBONES

LARGEST = {"width": 512, "dim": 2048, "depth": 64, "num_heads": 64, "patch": 64, "tubelet": 16}
"""Largest values of these encoders' options in a file; a caller may give larger ones."""


def build_backbone(name: str | Callable[..., object], **options: float | str) -> Backbone:
    """An encoder with fresh weights, drawn from torch's generator.

    Args:
        name: a key of `BACKBONES`; or "module:function" for your own encoder: the module is imported, and the function
            is called with the options; or that function. Its result must have the attributes of `Backbone`, but need
            not inherit from it.
        options: options of that encoder. `tiny` takes width and temporal_padding; `vit` takes dim, depth, num_heads,
            patch and tubelet; the others take temporal_padding and normalise.

    Returns:
        The encoder, in training mode, on torch's default device.

    Raises:
        ValueError: no such name, module or function, or an option out of range.
        TypeError: no such option, or your own encoder does not have the attributes of `Backbone`.
    """
    if isinstance(name, str) and name in BACKBONES:
        return cast(Backbone, _call(BACKBONES[name], f"backbone {name!r}", options))
    origin = name if isinstance(name, str) else getattr(name, "__qualname__", type(name).__name__)
    return checked_backbone(_call(builder_of(name), origin, options), origin)


def builder_of(name: str | Callable[..., object]) -> Callable[..., object]:
    """The function that makes an encoder; imports the module of "module:function".

    Raises:
        ValueError: no such name, module or function.
        TypeError: the name is not that of a function.
    """
    if not isinstance(name, str):
        return name
    if ":" in name:
        return _imported(name)
    if name not in BACKBONES:
        raise ValueError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}, and module:function for your own")
    return cast(Callable[..., object], BACKBONES[name])


def _call(function: Callable[..., object], origin: str, options: dict[str, float | str]) -> object:
    signature = inspect.signature(function)
    try:
        signature.bind(**options)
    except TypeError as error:
        taken = ", ".join(signature.parameters) or "none"
        raise TypeError(f"{origin}: {error}; its options are: {taken}; got {options}") from None
    return function(**options)


def _imported(name: str) -> Callable[..., object]:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name.isidentifier():
        raise ValueError(f"expected module:function for a backbone of your own, such as my.nets:build, got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module was found, and imports another that was not
        raise ValueError(
            f"backbone {name!r}: no module {error.name!r}; install it, or name its folder in PYTHONPATH"
        ) from error
    if not hasattr(module, function_name):
        raise ValueError(f"backbone {name!r}: {module_name} has no {function_name!r}")
    function = getattr(module, function_name)
    if not callable(function):
        raise TypeError(f"backbone {name!r} must be a function that returns an encoder, got {type(function).__name__}")
    return cast(Callable[..., object], function)
