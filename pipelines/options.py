"""What an option is: a field of a record, with its type, bounds and help in one place.

The command line, `--config`, the configuration kept with a run, and the tables of the documentation are made from these
records. Nothing here imports numpy or torch, so that help answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, dataclass_transform, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from bgaug.errors import UsageError

if TYPE_CHECKING:
    from bgaug.model.pretrained import CodePermission

SHARED = "shared"
"""Annotation of a field of an inner record: the command line gives it the value of the outer record's field."""

R = TypeVar("R", bound="Options")


@dataclass(frozen=True)
class Option(GroupedMetadata):
    """One option, in the annotation of a record's field. A field without one is available in Python only.

    Attributes:
        help: one sentence.
        flag: name on the command line and in files of options; by default the field's with hyphens.
        panel: heading under which it is shown.
        metavar: placeholder of the value.
        default: what the help shows as the default, where it is not the field's.
        names: names that the value may have; read again for each check, so that a registry may grow.
        also: further names that the value may have.
        own: the value may also be "module:function".
        keys: for values of the form KEY=NAME, the names that some keys may have.
        rare: shown by --help-all only.
        old: the spellings that it had.
        ge: least value.
        gt: the value is greater.
        le: greatest value.
        lt: the value is less.
        factor: the command line counts in units of this.
        argument: a positional argument.
        commas: several values may be separated by commas.
        text: the command line takes text, which the record reads.
    """

    help: str
    flag: str | None = None
    panel: str | None = None
    metavar: str | None = None
    default: str | None = None
    names: Collection[str] | None = None
    also: tuple[str, ...] = ()
    own: bool = False
    keys: Mapping[str, Collection[str]] = field(default_factory=dict)
    rare: bool = False
    old: tuple[str, ...] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    factor: int = 1
    argument: bool = False
    commas: bool = False
    text: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """All names that the value may have; empty if it is free."""
        return (*self.also, *(self.names or ()))

    def __iter__(self) -> Iterator[Any]:
        for bound, kind in ((self.ge, Ge), (self.gt, Gt), (self.le, Le), (self.lt, Lt)):
            if bound is not None:
                yield kind(bound)
        if self.names is not None:
            yield AfterValidator(partial(_known, self))


def _known(option: Option, value: Any) -> Any:
    for name in value if isinstance(value, tuple) else () if value is None else (value,):
        if name not in option.choices and not (option.own and ":" in name):
            own = ", or module:function for your own" if option.own else ""
            raise ValueError(f"there is no {name!r}; there are {', '.join(option.choices)}{own}")
    return value


class Options:
    """Base of the records."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def to_toml(options: Options, leave_out: Collection[str] = ()) -> str:
    """Options as a file for `--config`, with the command line's names."""
    lines = []
    for name, option in options_of(type(options)).items():
        value = getattr(options, name)
        if isinstance(value, Mapping):
            value = [f"{key}={json.dumps(part)}" for key, part in value.items()]
        if value not in (None, [], ()) and not option.argument and name not in leave_out:
            lines.append(f"{flag_of(name, option)} = {json.dumps(plain(value))}\n")
    return "".join(lines)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def record(kind: type[R]) -> type[R]:
    """Make a class of annotated fields a frozen, keyword-only, validated dataclass.

    Its constructor raises `UsageError`, with every option that is not valid, what was expected and what came.
    """
    made: Any = validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(kind)
    validate = made.__init__

    def __init__(self: Any, **values: Any) -> None:
        try:
            validate(self, **values)
        except ValidationError as error:
            raise UsageError(f"invalid options: {'; '.join(_described(made, e) for e in error.errors())}") from error

    made.__init__ = __init__
    return kind


def _described(kind: type[Options], error: Any) -> str:
    message = _message(error)
    name = str(error["loc"][0]) if error["loc"] else ""
    if not name:
        return message
    option = options_of(kind).get(name)
    shown = name if option is None else f"--{flag_of(name, option)}"
    return f"{shown}: {message}"


def _message(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{error['msg']}, got {error['input']!r}"


def checked(name: str, hint: Any, value: Any) -> Any:
    """A value of an annotated parameter, validated.

    Raises:
        UsageError: it is not valid.
    """
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        option = next(part for part in hint.__metadata__ if isinstance(part, Option))
        raise UsageError(f"--{flag_of(name, option)}: {_message(error.errors()[0])}") from error


def options_of(kind: type[Options]) -> dict[str, Option]:
    """The options of a record by field, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for one in fields(kind):
        for part in getattr(hints[one.name], "__metadata__", ()):
            if isinstance(part, Option):
                found[one.name] = part
    return found


def flag_of(name: str, option: Option) -> str:
    """Name of an option on the command line, without its hyphens."""
    return option.flag or name.replace("_", "-")


RUNNING = "Running"


@record
class DeviceOptions(Options):
    """Where a job computes."""

    device: Annotated[
        str | None, Option("Device of torch, such as cpu or cuda:1; by default CUDA if there is one.", panel=RUNNING)
    ] = None


StorePath = Annotated[Path, Option("A store.", argument=True, metavar="STORE")]
RunPath = Annotated[Path, Option("A run that train made, or one checkpoint of it.", argument=True, metavar="RUN")]
Jobs = Annotated[int, Option("Worker processes; 0 for one per processor.", panel=RUNNING, ge=0)]
Best = Annotated[bool, Option("Use the run's best checkpoint instead of the last.")]
Trust = Annotated[
    bool,
    Option("Import the MODULE:FUNCTION that a file names: only for files of your own.", panel=RUNNING, rare=True),
]


@record
class EncoderOptions(DeviceOptions):
    """What builds the encoder of a run."""

    backbone: Annotated[
        str | Callable[..., object] | None,
        Option(
            "MODULE:FUNCTION that builds the encoder of a run with one of your own; a name inside a file is never "
            "imported.",
            panel=RUNNING,
            metavar="NAME",
        ),
    ] = None
    trust: Trust = False

    @property
    def permission(self) -> CodePermission:
        """Code that the user allows to be imported for an encoder in a file."""
        from bgaug.model.pretrained import CodePermission

        return CodePermission(self.backbone, self.trust)
