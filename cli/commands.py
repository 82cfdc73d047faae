"""Commands whose options are the fields of records: from a function to typer's signature, and the help page."""

from __future__ import annotations

import inspect
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from bgaug.cli.console import panel, reported, stdout
from bgaug.errors import UsageError
from bgaug.pipelines.options import RUNNING, SHARED, Option, Options, checked, flag_of, options_of

_HELP_COLUMN = 30


@dataclass(frozen=True)
class Parameter:
    """One option as the command line has it.

    Attributes:
        name: typer's name, unlike any other of the command.
        flag: with its hyphens, or the metavar of an argument.
        off: flag that switches it off, where there is one.
        kind: type of one value: bool, int, float, str or Path.
        several: whether it may be repeated.
        literals: names that the value may have; none if it is free, or of a registry.
        default: the default as people read it; empty if there is none.
        required: whether it must be given.
        option: where it comes from.
    """

    name: str
    flag: str
    off: str
    kind: type
    several: bool
    literals: tuple[str, ...]
    default: str
    required: bool
    option: Option

    @property
    def choices(self) -> tuple[str, ...]:
        """Names that the value may have now; none if it is free."""
        return self.option.choices or self.literals

    @property
    def value(self) -> str:
        """Placeholder of its value on the help page."""
        if self.kind is bool:
            return ""
        if self.option.argument:
            return ""
        return self.option.metavar or {int: "N", float: "X", Path: "PATH"}.get(self.kind, "NAME")

    @property
    def sentence(self) -> str:
        """Help, choices and default."""
        parts = [self.option.help]
        if self.choices:
            own = ["MODULE:FUNCTION"] if self.option.own else []
            parts.append(f"One of: {', '.join([*self.choices, *own])}.")
        parts += [f"{key}: {', '.join(names)}." for key, names in self.option.keys.items()]
        if self.several and not self.option.argument:
            parts.append("Several with commas." if self.option.commas else "May be repeated.")
        if self.required:
            parts.append("Required.")
        if self.default:
            parts.append(f"Default: {self.default}.")
        return " ".join(parts)


def parameters_of(kind: type[Options], prefix: str = "") -> Iterator[Parameter]:
    """The parameters of a record and of the records in it."""
    hints, options = get_type_hints(kind), options_of(kind)
    for field in fields(kind):
        if _is_record(hints[field.name]):
            yield from parameters_of(hints[field.name], f"{prefix}{field.name}_")
        elif field.name in options:
            default = field.default if field.default_factory is MISSING else None
            yield _parameter(field.name, prefix, hints[field.name], options[field.name], default)


def _parameter(name: str, prefix: str, hint: Any, option: Option, default: Any) -> Parameter:
    kind, several, literals = _value_type(hint)
    kind = str if option.text else kind
    flag = f"--{flag_of(name, option)}"
    switches_off = kind is bool and (default is True or NoneType in get_args(hint))
    return Parameter(
        prefix + name,
        (option.metavar or name.upper()) if option.argument else flag,
        f"--no-{flag[2:]}" if switches_off else "",
        kind,
        several,
        literals,
        option.default or _shown(default, option),
        default is MISSING,
        option,
    )


def _value_type(hint: Any) -> tuple[type, bool, tuple[str, ...]]:
    """Type of one value, whether there may be several, and what it may be."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return _value_type(next(part for part in arguments if part is not NoneType))
    if get_origin(hint) is Literal:
        return str, False, arguments
    if get_origin(hint) in (Sequence, list) or (get_origin(hint) is tuple and arguments[1] is ...):
        one, _, choices = _value_type(arguments[0])
        return one, True, choices
    if get_origin(hint) is dict:
        return str, True, ()
    return (hint if hint in (bool, int, float, Path) else str), False, ()


def _shown(default: Any, option: Option) -> str:
    if default is None or default is False or default is MISSING or default == ():
        return ""
    if default is True:
        return "on"
    if isinstance(default, tuple):
        return ("x" if option.metavar == "HEIGHTxWIDTH" else ",").join(map(str, default))
    return str(default // option.factor if option.factor != 1 else default)


class Command(TyperCommand):
    """A command with its own help page, and errors that name an option's new spelling."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page in panels, the most common options first."""
        console = stdout()
        console.print(f"\n Usage: {ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}\n", soft_wrap=True)
        for line in _help_lines(self.help or "", console.width):
            console.print(f" {line}".rstrip(), soft_wrap=True)
        shown: dict[str, list[tuple[str, str]]] = {}
        hidden = 0
        for parameter in self.params:
            known: Parameter | None = getattr(self.callback, "parameters", {}).get(parameter.name)
            if known is None:
                continue
            if getattr(parameter, "hidden", False):
                hidden += 1
                continue
            heading = known.option.panel or ("Arguments" if known.option.argument else "Options")
            flags = f"{known.flag}/{known.off}" if known.off else known.flag
            shown.setdefault(heading, []).append((f"{flags} {known.value}".strip(), known.sentence))
        for heading in sorted(shown, key=lambda name: (name != "Arguments", name != "Options", name == RUNNING)):
            console.print(panel(heading, [line for row in shown[heading] for line in _row(*row, console.width - 4)]))
        if hidden:
            console.print(f" {hidden} more options: {ctx.command_path} --help-all", soft_wrap=True)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the words; a former name is answered with the new one."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            name = getattr(error, "option_name", None)
            renamed = {old: flag for old, flag in self.renamed().items() if f"--{old}" == name}
            if renamed and hasattr(error, "message"):
                error.message = f"{name} is now {renamed.popitem()[1]}"
                error.possibilities = None  # type: ignore[attr-defined]
            raise

    def renamed(self) -> dict[str, str]:
        """New flags by old names, without hyphens."""
        parameters: Mapping[str, Parameter] = getattr(self.callback, "parameters", {})
        return {old: one.flag for one in parameters.values() for old in one.option.old}


def _help_lines(text: str, width: int) -> Iterator[str]:
    """Paragraphs filled to the width; examples, which are indented, as they are and close together."""
    was_example = False
    for paragraph in inspect.cleandoc(text).replace("Examples:\n    ", "Examples:\n\n    ").split("\n\n"):
        example = paragraph.startswith("    ")
        if was_example and not example:
            yield ""
        yield from [paragraph] if example else textwrap.wrap(paragraph, width - 2, break_on_hyphens=False)
        if not example and not paragraph.startswith("Examples:"):
            yield ""
        was_example = example
    yield ""


def _row(left: str, right: str, width: int) -> Iterator[tuple[str, str]]:
    """Lines of one option, as name and help."""
    column = min(_HELP_COLUMN, width // 2)
    lines = textwrap.wrap(right, width - column, break_on_hyphens=False, break_long_words=False)
    if len(left) >= column:
        yield left, ""
    else:
        yield f"{left:<{column}}", lines.pop(0) if lines else ""
    yield from ((" " * column, line) for line in lines)


def _flag(name: str, flag: str, help: str, kind: type = bool, panel: str = RUNNING) -> Parameter:
    return Parameter(name, flag, "", kind, False, (), "", False, Option(help, panel=panel))


JSON = _flag("as_json", "--json", "Print one JSON object as the last line of stdout.")
_DEBUG = _flag("debug", "--debug", "Show where an error came from.")
CONFIG = _flag("config", "--config", "TOML file of options by their names here; the command line has precedence.", Path)
_HELP_ALL = _flag("help_all", "--help-all", "Show this page with all options.")
_HELP = _flag("help", "--help", "Show this page.")
RUN_OPTIONS = (CONFIG, JSON, _DEBUG, _HELP, _HELP_ALL)
"""Options of every command."""


def parameters_of_command(function: Callable[..., Any]) -> list[Parameter]:
    """The parameters of a command: arguments first, then what is required."""
    signature = inspect.signature(function).parameters
    found: list[Parameter] = []
    for name, hint in get_type_hints(function, include_extras=True).items():
        if _is_record(hint):
            found += parameters_of(hint)
        for part in getattr(hint, "__metadata__", ()):
            if isinstance(part, Option):
                found.append(_parameter(name, "", hint.__origin__, part, _default(signature[name].default)))
    return sorted(found, key=lambda one: (not one.option.argument, not one.required))


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """A function for typer, whose parameters are the fields of the records that `function` takes.

    Args:
        function: its parameters are records (subclasses of `Options`), values annotated with `Option`, and `as_json`.
    """
    hints = get_type_hints(function, include_extras=True)

    def run(context: typer.Context, as_json: bool, debug: bool, config: None, help_all: None, **values: Any) -> None:
        with reported(debug):
            _check_sources(context, values)
            given: dict[str, Any] = {}
            for name, hint in hints.items():
                if _is_record(hint):
                    given[name] = _built(hint, values)
                elif _is_given(values.get(name)):
                    given[name] = checked(name, hint, values[name])
            function(**given, as_json=as_json)

    typed = [*((one, _annotation(one)) for one in parameters_of_command(function)), *_COMMON]
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__doc__, run.__name__ = function.__doc__, function.__name__
    run.__annotations__ = {"context": typer.Context, **{one.name: annotation for one, annotation in typed}}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("context", keyword, annotation=typer.Context)]
        + [
            inspect.Parameter(one.name, keyword, annotation=annotation, default=_typer_default(one))
            for one, annotation in typed
        ]
    )
    run.parameters = {one.name: one for one, _ in typed} | {"help": _HELP}  # type: ignore[attr-defined]
    return run


def _typer_default(one: Parameter) -> Any:
    """None for an option that is not given: its default is the record's."""
    return inspect.Parameter.empty if one.required else False if one in (JSON, _DEBUG) else None


def _default(default: Any) -> Any:
    return MISSING if default is inspect.Parameter.empty else default


def _is_given(value: Any) -> bool:
    return value is not None and value != [] and value != ()


def _is_record(hint: Any) -> bool:
    """Whether a type is a record of options."""
    return inspect.isclass(hint) and issubclass(hint, Options)


def _annotation(one: Parameter) -> Any:
    kind: Any = one.kind
    if one.several:
        kind = list[Path] if kind is Path else list[str]  # the record reads numbers
    if one.option.argument:
        argument = typer.Argument(metavar=one.flag, help=one.option.help, show_default=False)
        return Annotated[kind if one.required else kind | None, argument]
    flags = [f"{one.flag}/{one.off}" if one.off else one.flag]

    def complete(incomplete: str) -> list[str]:
        pairs = [f"{key}={name}" for key, names in one.option.keys.items() for name in names]
        return [name for name in (*(one.choices), *pairs) if name.startswith(incomplete)]

    option = typer.Option(
        *flags,
        help=one.option.help,
        metavar=one.value or None,
        show_default=False,
        hidden=one.option.rare,
        autocompletion=complete if one.choices or one.option.keys else None,
    )
    return Annotated[kind if one.required else kind | None, option]


def _built(kind: type[Options], values: Mapping[str, Any], prefix: str = "") -> Options:
    """The record with the options that were given; the others keep their defaults."""
    hints, options = get_type_hints(kind, include_extras=True), options_of(kind)
    given: dict[str, Any] = {}
    for field in fields(kind):
        if _is_record(hints[field.name]):
            given[field.name] = _built(hints[field.name], values, f"{prefix}{field.name}_")
        elif SHARED in getattr(hints[field.name], "__metadata__", ()) and values.get(field.name) is not None:
            given[field.name] = values[field.name]
        elif field.name in options:
            option, value = options[field.name], values.get(prefix + field.name)  # type: Option, Any
            if option.commas and value:
                value = [part.strip() for text in value for part in text.split(",") if part.strip()]
            if _is_given(value):
                given[field.name] = value * option.factor if option.factor != 1 else value
    return kind(**given)


def _check_sources(context: typer.Context, values: Mapping[str, Any]) -> None:
    """Refuse a file of options that has code imported: see `bgaug.model.pretrained.CodePermission`."""
    for name, value in values.items():
        source = getattr(context.get_parameter_source(name), "name", "")
        imports = name.endswith("backbone") and isinstance(value, str) and ":" in value
        if imports and source != "COMMANDLINE" and not values.get("trust"):
            raise UsageError(
                f"the file of options names the backbone {value[:200]!r}, and a name inside a file is never imported; "
                "give --backbone on the command line, or --trust"
            )


def _from_file(context: typer.Context, file: Path | None) -> None:
    """Options of a TOML file become the command's defaults.

    Raises:
        typer.BadParameter: the file cannot be read, or names an option that the command does not have.
    """
    if file is None:
        return
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read as TOML: {error}") from error
    known: Mapping[str, Parameter] = getattr(context.command.callback, "parameters", {})
    left_out = (CONFIG, _HELP, _HELP_ALL)
    options = {
        flag.removeprefix("--"): one
        for one in known.values()
        for flag in (one.flag, one.off)
        if flag.startswith("--") and one not in left_out
    }
    if "trust" in given:
        raise typer.BadParameter(
            f"{file}: --trust is for the command line; a file cannot say that files are to be trusted"
        )
    renamed = context.command.renamed() if isinstance(context.command, Command) else {}
    defaults: dict[str, Any] = {}
    for name, value in given.items():
        word = name.replace("_", "-")
        if word in renamed and word not in options:
            raise typer.BadParameter(f"{file}: {name} is now {renamed[word].removeprefix('--')}")
        if word not in options:
            raise typer.BadParameter(f"{file}: no option {name} here; there are {', '.join(sorted(options))}")
        one = options[word]
        defaults[one.name] = [value] if one.several and not isinstance(value, list) else value
        if one.off == f"--{word}":
            defaults[one.name] = not value
    context.default_map = {**(context.default_map or {}), **defaults}


def _help_all(context: typer.Context, requested: bool) -> None:
    if requested:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        context.get_help()
        raise typer.Exit


_COMMON: tuple[tuple[Parameter, Any], ...] = (
    (CONFIG, Annotated[Path | None, typer.Option("--config", is_eager=True, callback=_from_file)]),
    (JSON, Annotated[bool, typer.Option("--json")]),
    (_DEBUG, Annotated[bool, typer.Option("--debug")]),
    (_HELP_ALL, Annotated[bool | None, typer.Option("--help-all", is_eager=True, callback=_help_all)]),
)
