"""What the terminal sees: progress, tables, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import typer
from rich.console import Console
from rich.table import Table

from bgaug.errors import BgaugError, StoreOptionsError, UsageError

FAILED = 1
WRONG_USAGE = 2


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False)


def stderr() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False)


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turns expected errors into one line and an exit code; `debug` shows where they came from instead."""
    try:
        yield
    except BgaugError as error:
        if debug:
            raise
        stderr().print(f"[red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        raise typer.Exit(WRONG_USAGE if isinstance(error, UsageError | StoreOptionsError) else FAILED) from error
    except KeyboardInterrupt as error:
        stderr().print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from error


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


class TerminalProgress:
    """One bar a stage, on stderr; none where stderr is not a terminal. Use it in a `with` block."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        console = stderr()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Remaining(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, task: str, total: int | None) -> None:
        """See `bgaug.pipelines.progress.Progress`."""
        self._task = self._bars.add_task(_escaped(task), total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """See `bgaug.pipelines.progress.Progress`."""
        fields: dict[str, Any] = {"note": _escaped(note)} if note else {}
        self._bars.update(self._task, advance=count, **fields)

    def warn(self, message: str) -> None:
        """See `bgaug.pipelines.progress.Progress`."""
        self._bars.console.print(f"[yellow]warning:[/] {_escaped(message)}", soft_wrap=True)


def show(result: Mapping[str, Any], as_json: bool, table: Callable[[], Table | str]) -> None:
    """The result on stdout: as one line of JSON, or as a table for people."""
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        stdout().print(table())


def rows_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table, numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    return table


def pairs_table(title: str, values: Mapping[str, Any]) -> Table:
    """Names and values, one a row."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column("name")
    table.add_column("value", overflow="fold")
    for name, value in values.items():
        table.add_row(_escaped(name.replace("_", " ")), _escaped(str(value)))
    return table


def human_seconds(seconds: float) -> str:
    """A duration as people read it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def human_bytes(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
