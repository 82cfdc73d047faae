"""Lines and JSON of label files, with errors that say where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError

_BOM = b"\xef\xbb\xbf"


def read_bytes(path: Path) -> bytes:
    """Content of a file, without a byte order mark.

    Raises:
        LabelsError: it cannot be read.
    """
    try:
        return path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, each with its number from 1 on, without blanks around it; any line ends.

    Raises:
        LabelsError: the file cannot be read, or a line is no UTF-8.
    """
    # Lines of bytes: those of text would also end at characters that file names may hold.
    for number, raw in enumerate(read_bytes(path).splitlines(), start=1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError as error:
            raise LabelsError(f"{path}, line {number}: is not UTF-8: {error}") from error
        if line:
            yield number, line


def first_line(path: Path) -> str:
    """The first line that is not blank, of the first 64 kB, to see what a file is; empty where there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16).removeprefix(_BOM)
    except OSError:
        return ""
    line = next((line for line in head.splitlines() if line.strip()), b"")
    return line.decode(errors="replace").strip()


def class_number(text: str) -> int | None:
    """The number of a class, at most five digits; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        LabelsError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        raise LabelsError(f"{path}, line {error.lineno}: is no JSON, or not all of it: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of thousands of digits, lists in lists in lists
        raise LabelsError(f"{path}: is no JSON in UTF-8: {error}") from error
