"""The page docs/commands.md: `python -m bgaug.cli.reference > docs/commands.md`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable

from bgaug.cli.commands import RUN_OPTIONS, Parameter, parameters_of_command
from bgaug.cli.main import COMMANDS

_HEAD = """# Commands and their options

`python -m bgaug.cli.reference` writes this page from the records that declare the options. Every option may also be
given in a TOML file with `--config`, under its name without the leading hyphens: `batch-size = 32`.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for name, function in COMMANDS.items():
        text = inspect.cleandoc(function.__doc__ or "").split("\n\nExamples:")[0]
        parts.append(f"## {name}\n\n{text}\n\n{_listed(parameters_of_command(function))}")
    parts.append(f"## Options of every command\n\n{_listed(RUN_OPTIONS)}")
    return "\n".join(parts)


def _listed(parameters: Iterable[Parameter]) -> str:
    entries = []
    for one in parameters:
        flags = f"`{one.flag} {one.value}".strip() + "`" + (f", `{one.off}`" if one.off else "")
        text = f"- {flags}: {one.sentence.replace('*', chr(92) + '*')}"
        entries.append(textwrap.fill(text, 119, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False))
    return "\n".join(entries) + "\n"


if __name__ == "__main__":
    print(page(), end="")
