"""What the terminal sees: progress, tables, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Self

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bgaug.errors import BgaugError, StoreOptionsError, UsageError
from bgaug.text import json_text, printable

FAILED = 1
_WRONG_USAGE = 2
INTERRUPTED = 130
_LONGEST_NOTE = 100
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_OF_SPEED = 600.0  # the time left is estimated from the speed of so many seconds: videos may take a minute each


# Neither console reads markup or names of emoji: whatever is printed may hold names from outside.
def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def write_lines(*lines: str) -> None:
    """Results on stdout, line by line."""
    for line in lines:
        stdout().print(printable(line), soft_wrap=True)


def note(message: str) -> None:
    """Print one line on stderr."""
    stderr().print(printable(message), soft_wrap=True)


def _marked(mark: str, style: str, message: str) -> Text:
    return Text.assemble((mark, style), " ", printable(message))


def show_usage_error(error: Any) -> int:
    """Show an error of typer about the arguments, which it repeats; returns the exit code."""
    from typer.rich_utils import rich_format_error

    message = printable(error.format_message())
    error.format_message = lambda: message
    rich_format_error(error)
    return int(error.exit_code)


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turns expected errors into one line and an exit code; `debug` shows where they came from instead."""
    try:
        yield
    except BgaugError as error:
        if debug:
            raise
        stderr().print(_marked("error:", "red", str(error)), soft_wrap=True)
        raise typer.Exit(_WRONG_USAGE if isinstance(error, UsageError | StoreOptionsError) else FAILED) from error
    except (OSError, MemoryError) as error:
        # What no pipeline expected of the system: still a line, and no pages that say the same.
        if debug:
            raise
        stderr().print(_marked("error:", "red", _system_error(error)), soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        note("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from error


def _system_error(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; use fewer jobs or smaller batches, or close other programs (--debug shows where)"
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error} (--debug shows where)"


class TerminalProgress:
    """A progress bar per stage and a table of its state, on stderr; where that is no terminal, a line now and then.

    Use it in a `with`.

    Args:
        every: seconds between the lines.
    """

    def __init__(self, every: float = _SECONDS_BETWEEN_LINES) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        console = stderr()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Remaining(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            auto_refresh=False,  # the live display below does
            speed_estimate_period=_SECONDS_OF_SPEED,
        )
        self._task: Any = None
        self._state: Mapping[str, str] = {}
        self._shown = console.is_terminal
        self._live = Live(get_renderable=self._rendered, console=console, refresh_per_second=4)
        self._every, self._ended = every, threading.Event()
        self._lines = threading.Thread(target=self._write_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._shown:
            self._live.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._live.stop()
        else:
            self._ended.set()
            self._lines.join()

    def _write_lines(self) -> None:
        while not self._ended.wait(self._every):
            if self._task is not None:
                note(self._line())

    def _line(self) -> str:
        """The stage as text: `clips: 120 of 743 (16 %), 2 min, about 9 min left, loss 2.31`."""
        task = self._bars.tasks[self._task]
        elapsed, done = task.elapsed or 0.0, int(task.completed)
        if task.total is None:
            parts = [f"{done} done" if done else "working", human_seconds(elapsed)]
        else:
            parts = [f"{done} of {int(task.total)} ({100 * done / max(task.total, 1):.0f} %)", human_seconds(elapsed)]
            if task.time_remaining:
                parts.append(f"about {human_seconds(task.time_remaining)} left")
        parts += [f"{name} {value}" for name, value in self._state.items()]
        parts += [task.fields["note"]] if task.fields["note"] else []
        return f"{task.description}: {', '.join(parts)}"

    def _rendered(self) -> Any:
        """The bars, and under them what is known of the stage, two names a row."""
        from rich.console import Group

        if not self._state:
            return self._bars
        table = Table.grid(padding=(0, 2))
        pairs = [(printable(name), printable(value)) for name, value in self._state.items()]
        half = (len(pairs) + 1) // 2
        for _ in range(2):
            table.add_column(style="dim")
            table.add_column(justify="right", min_width=10)
        for left, right in zip_longest(pairs[:half], pairs[half:], fillvalue=("", "")):
            table.add_row(*left, *right)
        return Group(self._bars, table)

    def start(self, task: str, total: int | None) -> None:
        """See `bgaug.progress.Progress`."""
        self._task = self._bars.add_task(printable(task), total=total, note="")
        self._state = {}

    def advance(self, count: int = 1, note: str = "") -> None:
        """See `bgaug.progress.Progress`."""
        fields: dict[str, Any] = {"note": printable(note, _LONGEST_NOTE)} if note else {}
        self._bars.update(self._task, advance=count, **fields)

    def state(self, values: Mapping[str, str]) -> None:
        """See `bgaug.progress.Progress`."""
        self._state = dict(values)

    def warn(self, message: str) -> None:
        """See `bgaug.progress.Progress`."""
        self._live.console.print(_marked("warning:", "yellow", message), soft_wrap=True)


def show(result: Mapping[str, Any], as_json: bool, table: Callable[[], Table | str]) -> None:
    """The result on stdout: as one line of JSON, or as a table for people."""
    if as_json:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        sys.stdout.write(json_text(result, ascii_only=not utf8) + "\n")
        sys.stdout.flush()
        return
    shown = table()
    if isinstance(shown, str):
        write_lines(shown)
    else:
        stdout().print(shown)


def rows_table(title: str | Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table, numbers to the right; a title may have several lines."""
    table = Table(title=_title(title), title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        table.add_column(printable(name), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    return table


def pairs_table(title: str, values: Mapping[str, Any]) -> Table:
    """Names and values, one a row."""
    table = Table(title=_title(title), title_justify="left", title_style="bold", show_header=False)
    table.add_column("name")
    table.add_column("value", overflow="fold")
    for name, value in values.items():
        table.add_row(printable(name.replace("_", " ")), printable(value))
    return table


def lines_table(rows: Sequence[Sequence[str]]) -> Table:
    """Rows without header or frame; the last column is wrapped."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    return table


def panel(title: str, rows: Sequence[tuple[str, str]]) -> Panel:
    """Lines of a name and a text in a frame, neither wrapped."""
    text = Text(no_wrap=True, overflow="ignore")
    for number, (name, rest) in enumerate(rows):
        text.append("\n" if number else "")
        text.append(name, "cyan")
        text.append(rest)
    return Panel(text, title=title, title_align="left", border_style="dim")


def _title(title: str | Sequence[str]) -> Text:
    lines = [title] if isinstance(title, str) else title
    # Not wrapped: the rest of a long name would stand as a line of its own.
    return Text("\n".join(printable(line) for line in lines), no_wrap=True, overflow="ignore")


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
