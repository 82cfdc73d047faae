"""Lines and JSON of label files: bounded, in UTF-8 or UTF-16, with errors that give file and line."""

from __future__ import annotations

import io
import json
import re
import stat
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError

MAX_BYTES = 64 * 2**20
"""Size of a label file. The largest published ones that are read have some 40 MB, or 800,000 rows."""

MAX_LINE = 2**13
"""Characters of a line: two of the longest paths that Linux has."""

_HEAD = 1 << 16
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (BOM_UTF8, "utf-8"),
    (BOM_UTF32_LE, "utf-32-le"),
    (BOM_UTF32_BE, "utf-32-be"),
    (BOM_UTF16_LE, "utf-16-le"),
    (BOM_UTF16_BE, "utf-16-be"),
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_kind(mode: int) -> str | None:
    """What a file is by its mode, in words; None for a regular file."""
    return next((name for is_one, name in _KINDS if is_one(mode)), None)


def check_regular(path: Path) -> None:
    """Refuse what would block or never end when it is read.

    Raises:
        LabelsError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        kind = file_kind(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if kind is not None:
        raise LabelsError(f"{path}: is {kind}, expected a regular file")


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        LabelsError: it cannot be read, is no regular file, or is larger than `MAX_BYTES`.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise LabelsError(
            f"{path}: is larger than {MAX_BYTES >> 20} MiB, which no list of labels is; split it if it is one"
        )
    return data


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, or in what its byte order mark says: UTF-16 or UTF-32.

    Raises:
        LabelsError: it cannot be read, has another encoding, or holds a NUL character.
    """
    data = read_bytes(path)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = _line_of(error.object[: error.start].decode(encoding, "replace"))
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        mend = f"; save it as UTF-8, such as by `iconv -f LATIN1 -t UTF-8 {path.name}`" if not mark else ""
        raise LabelsError(f"{path}, line {line}: is not {name}: {error.reason} at byte {error.start}{mend}") from error
    if "\0" in text:
        line = _line_of(text[: text.index("\0")])
        raise LabelsError(
            f"{path}, line {line}: holds a NUL character: it is no text, or UTF-16 without a byte order mark; save it "
            "as UTF-8"
        )
    return text


def _line_of(before: str) -> int:
    return 1 + len(re.findall(r"\r\n|\r|\n", before))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank and no comments, each with its number from 1 on, without blanks around it; any line ends.

    A comment begins with # and a blank: names of files may begin with # alone.

    Raises:
        LabelsError: the file cannot be read, or a line has more than `MAX_LINE` characters.
    """
    # Not splitlines: it would also split at characters that file names may hold.
    for number, raw in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        check_line(path, number, raw)
        line = raw.strip()
        if line and not is_comment(line):
            yield number, line


def check_line(path: Path, number: int, line: str) -> None:
    """Refuse a line that is longer than any row of a list.

    Raises:
        LabelsError: it has more than `MAX_LINE` characters.
    """
    if len(line) > MAX_LINE:
        raise LabelsError(
            f"{path}, line {number}: has {len(line)} characters, expected at most {MAX_LINE}: {shown(line)}"
        )


def is_comment(line: str) -> bool:
    """Whether a line is a comment: # alone, or # and a blank."""
    return re.match(r"\s*#(\s|$)", line) is not None


def shown(text: object) -> str:
    """Text for a message: quoted, and no longer than a line of a terminal."""
    written = repr(text if not isinstance(text, str) or len(text) <= 100 else text[:100])
    return written if len(written) <= 120 and not (isinstance(text, str) and len(text) > 100) else f"{written[:116]}..."


def first_lines(path: Path, count: int = 1) -> list[str]:
    """The first lines that are not blank and no comments, of the first 64 kB, to see what a file is; fewer if there are fewer."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, LabelsError):
        return []
    mark, encoding = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
    lines = io.StringIO(head[len(mark) :].decode(encoding, errors="replace"), newline=None)
    return [line.strip() for line in lines if line.strip() and not is_comment(line)][:count]


def first_line(path: Path) -> str:
    """The first of `first_lines`; empty where there is none."""
    return next(iter(first_lines(path)), "")


def normal(name: str) -> str:
    """A name in the one normal form of its characters (NFC): macOS writes é as two."""
    return unicodedata.normalize("NFC", name)


def class_number(text: str) -> int | None:
    """The number of a class, at most five digits; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        LabelsError: it cannot be read, or is no JSON.
    """
    return parse_json(read_text(path), f"{path}", lambda error: f"{path}, line {error.lineno}")


def parse_json(text: str, place: str, place_of: Any = None) -> Any:
    """JSON in a text.

    Args:
        text: to be parsed.
        place: of the text, for messages.
        place_of: gives the place of an error in it; by default `place`.

    Raises:
        LabelsError: it is no JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = place_of(error) if place_of else place
        raise LabelsError(f"{where}: is no JSON, or not all of it: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise LabelsError(f"{place}: is no JSON in UTF-8 that can be read: {error}") from error
