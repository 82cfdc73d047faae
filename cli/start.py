"""Where `bgaug` begins and ends: streams that are closed or full, Ctrl-C at any time, and what other libraries print.

Nothing heavy is imported before `main` has prepared for these.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import TracebackType
from typing import Any, TextIO

INTERRUPTED = 130
_PIPE_CLOSED = 141  # what a shell reports of a program that SIGPIPE ended


class _OutputLost(SystemExit):
    """The results cannot be written: their reader has closed the pipe, or the disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(_PIPE_CLOSED if isinstance(error, BrokenPipeError) else 1)
        self.reason = error.strerror


class _Results(io.TextIOWrapper):
    """stdout: what it refuses ends the program, with one line at most."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _OutputLost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _OutputLost(error) from error


class _Messages(io.TextIOWrapper):
    """stderr: work goes on when messages cannot be written."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _silence(self)


def main() -> None:
    """The program `bgaug`."""
    code = INTERRUPTED
    try:
        _prepare_streams()
        _prepare_messages()
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except _OutputLost as error:
        code = int(error.code or 1)
        if code != _PIPE_CLOSED:
            _write_error(f"error: the results cannot be written to stdout: {error.reason}\n")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # from here on nothing is left to be tidied
        _end_stream(sys.stdout)
        _end_stream(sys.stderr)
    sys.exit(code)


def _run() -> int:
    """Run the command; its exit code."""
    from bgaug.cli.main import app

    try:
        app()
    except _OutputLost:
        raise
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except Exception as error:  # noqa: BLE001
        from bgaug.text import printable_traceback

        _write_error(printable_traceback(error) + "\n")
        return 1
    return 0


def _write_error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _prepare_streams() -> None:
    """Streams that are there, that carry any character, and whose errors are expected."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: else the next file would become stdout
    # Ctrl-C between taking a stream apart and wrapping it again would leave Python without stdout.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        sys.stdout = _wrapped(sys.stdout, 1, _Results)
        sys.stderr = _wrapped(sys.stderr, 2, _Messages)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wrapped(stream: TextIO | None, number: int, kind: type[io.TextIOWrapper]) -> TextIO:
    if stream is None:
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    options: dict[str, Any] = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    return kind(stream.detach(), encoding=stream.encoding, errors="backslashreplace", **options)


def _end_stream(stream: TextIO) -> None:
    """Whatever is left in a stream that cannot be written goes nowhere, so that Python does not complain of it."""
    try:
        stream.flush()
    except (_OutputLost, OSError, ValueError):
        _silence(stream)


def _silence(stream: TextIO) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _prepare_messages() -> None:
    """Warnings, logs and tracebacks of others carry names from outside, too: see `bgaug.text`."""
    import logging
    import threading
    import warnings

    from bgaug.text import printable, printable_lines, printable_traceback

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable_lines(super().format(record))

        def formatMessage(self, record: logging.LogRecord) -> str:
            return printable(super().formatMessage(record))

    def warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return printable(f"{filename}:{lineno}: {category.__name__}: {message}") + "\n"

    def unraisable(event: Any) -> None:
        if isinstance(event.exc_value, KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # it came where it could not be raised, and would be lost
        elif event.exc_value is not None:
            _write_error(printable_traceback(event.exc_value) + "\n")

    def in_thread(event: threading.ExceptHookArgs) -> None:
        if event.exc_value is not None and not isinstance(event.exc_value, SystemExit | KeyboardInterrupt):
            _write_error(printable_traceback(event.exc_value) + "\n")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _write_error(printable_traceback(error) + "\n")

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Formatter())
    warnings.formatwarning = warning
    sys.unraisablehook, threading.excepthook, sys.excepthook = unraisable, in_thread, uncaught


if __name__ == "__main__":
    main()
