"""Label files: lines, tables and JSON, bounded, in UTF-8 or UTF-16, with errors that name file and line."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError
from bgaug.files import MalformedFile, open_regular, read_regular

MAX_LINE = 2**13
"""Characters of a line: twice the longest path of Linux."""

_MAX_BYTES = 64 * 2**20  # the largest published lists have some 40 MB, or 800,000 rows
_HEAD = 1 << 16  # enough to recognise a format without reading a large file
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (BOM_UTF8, "utf-8"),
    (BOM_UTF32_LE, "utf-32-le"),
    (BOM_UTF32_BE, "utf-32-be"),
    (BOM_UTF16_LE, "utf-16-le"),
    (BOM_UTF16_BE, "utf-16-be"),
)


def check_readable(path: Path) -> None:
    """Refuse what cannot be opened as a regular file; opening a pipe or a device could block for ever.

    Raises:
        LabelsError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        open_regular(path).close()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> LabelsError:
    """The error for a file that the system does not open."""
    return LabelsError(f"{path}: cannot be read: {error.strerror}")


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        LabelsError: it cannot be read, is larger than 64 MiB, has another encoding, or holds a NUL character.
    """
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    except MalformedFile as error:
        raise LabelsError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB, the limit for a list; split it") from error
    mark, encoding = _encoding(data)
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = _line_of(error.object[: error.start].decode(encoding, "replace"))
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        fix = f"; save it as UTF-8, such as by `iconv -f LATIN1 -t UTF-8 {path.name}`" if not mark else ""
        raise LabelsError(f"{path}, line {line}: is not {name}: {error.reason} at byte {error.start}{fix}") from error
    if "\0" in text:
        line = _line_of(text[: text.index("\0")])
        raise LabelsError(
            f"{path}, line {line}: holds a NUL character: it is not text, or UTF-16 without a byte order mark; save it "
            "as UTF-8"
        )
    return text


def _encoding(data: bytes) -> tuple[bytes, str]:
    return next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))


def _line_of(before: str) -> int:
    return 1 + len(re.findall(r"\r\n|\r|\n", before))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are neither blank nor comments, stripped, each with its number from 1 on; any line ends.

    A comment begins with # and a blank: names of files may begin with # itself.

    Raises:
        LabelsError: the file cannot be read, or a line has more than `MAX_LINE` characters.
    """
    # Not splitlines: it would also split at characters that file names may contain.
    for number, raw in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        _check_line(path, number, raw)
        line = raw.strip()
        if line and not _is_comment(line):
            yield number, line


def _check_line(path: Path, number: int, line: str) -> None:
    if len(line) > MAX_LINE:
        raise LabelsError(
            f"{path}, line {number}: has {len(line)} characters, expected at most {MAX_LINE}: {shown(line)}"
        )


def _is_comment(line: str) -> bool:
    return re.match(r"\s*#(\s|$)", line) is not None


def first_lines(path: Path, count: int = 1) -> list[str]:
    """At most `count` lines that are neither blank nor comments, from the first 64 KiB; empty if it cannot be read."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except OSError:
        return []
    mark, encoding = _encoding(head)
    lines = io.StringIO(head[len(mark) :].decode(encoding, errors="replace"), newline=None)
    return [line.strip() for line in lines if line.strip() and not _is_comment(line)][:count]


def shown(text: object) -> str:
    """Text for a message: quoted, and no longer than a line of a terminal."""
    written = repr(text if not isinstance(text, str) or len(text) <= 100 else text[:100])
    return written if len(written) <= 120 and not (isinstance(text, str) and len(text) > 100) else f"{written[:116]}..."


def normal(name: str) -> str:
    """A name in Unicode's composed form (NFC); macOS decomposes é into two characters."""
    return unicodedata.normalize("NFC", name)


def class_number(text: str) -> int | None:
    """The number of a class, at most five digits; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None


def read_json(path: Path) -> Any:
    """A JSON file. Raises LabelsError: it cannot be read, or is not JSON."""
    return _parse_json(read_text(path), f"{path}", one_line=False)


def _parse_json(text: str, place: str, *, one_line: bool = True) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = place if one_line else f"{place}, line {error.lineno}"
        raise LabelsError(f"{where}: is not JSON, or not complete: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise LabelsError(f"{place}: is not JSON in UTF-8 that can be read: {error}") from error


# --- tables: rows of cells by the names of a header, from CSV and the like, or from JSON -------------------------

FILE_COLUMNS = (
    *("file", "filename", "filepath", "path", "videopath", "videofile", "clippath", "video", "videoname", "name"),
    *("clip", "clipname", "videoid", "id"),
)
CLASS_COLUMNS = (
    *("classname", "class", "labelname", "actionname", "label", "labels", "action", "activity", "category", "tag"),
    *("target", "classid", "labelid", "categoryid", "actionid", "classindex", "labelindex"),
)
GROUP_COLUMNS = ("group",)
SPLIT_COLUMNS = ("split", "subset")
"""Names of columns, best first, as `plain_column` gives them."""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

_SEPARATORS = (",", ";", "\t", "|", " ")
_KNOWN = {*FILE_COLUMNS, *CLASS_COLUMNS, *GROUP_COLUMNS, *SPLIT_COLUMNS, "youtubeid", "timestart", "timeend"}
_KNOWN |= {"frames", "numframes", "totalframes"}

Row = tuple[str, dict[str, str]]
Table = tuple[list[str], list[Row]]


def plain_column(name: str) -> str:
    """Name of a column without case, blanks, hyphens and underscores: `Video Path` and `video_path` are the same."""
    return re.sub(r"[\s_\-]+", "", normal(name).casefold())


def pick_column(header: list[str], names: tuple[str, ...]) -> str | None:
    """The column of a header that has the best of these names; None if there is none."""
    by_name = {plain_column(name): name for name in reversed(header)}
    return next((by_name[name] for name in names if name in by_name), None)


def header_of(line: str) -> list[str]:
    """Names of columns in the first line of a table."""
    return _cells(line, separator_of(line))


def header_in(file: Path) -> list[str]:
    """Names of columns in the first line of a file that is not a comment, or in the first object of JSON.

    Empty if there are none, as in JSON that cannot be read.
    """
    if file.suffix.lower() not in JSON_SUFFIXES:
        return header_of(next((line for line in first_lines(file, 50) if not line.startswith("#")), ""))
    try:
        _, first = next(_records(file), ("", None))
    except LabelsError:
        return []
    return list(first) if isinstance(first, dict) else []


def separator_of(line: str) -> str:
    """The separator of a header: the one that yields the most known column names."""
    best, most = ",", (0, 0)
    for separator in _SEPARATORS:
        cells = _cells(line, separator)
        known = sum(plain_column(cell) in _KNOWN for cell in cells)
        if separator == " " and known < len(cells):
            continue  # a blank separates only where every word is the name of a column
        if (known, len(cells)) > most and len(cells) > 1:
            best, most = separator, (known, len(cells))
    return best


def _cells(line: str, separator: str) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in row if cell.strip()]


def read_table(file: Path) -> Table:
    """Header and rows of a table; each row with its place and its stripped cells by the name of their column.

    Raises:
        LabelsError: the file cannot be read, is not a table, or a row has more cells than the header.
    """
    if file.suffix.lower() in JSON_SUFFIXES:
        return _json_table(file)
    lines = list(_table_lines(file))
    first = next((line.strip() for line in lines if line.strip()), "")
    # Strict: an open quote would otherwise swallow the rest of the file as one cell.
    reader = csv.reader(lines, delimiter=separator_of(first), strict=True, skipinitialspace=True)
    header: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header = _checked_header(file, cells)
            else:
                place = f"{file}, line {reader.line_num}"
                rows.append((place, _row(place, header, cells)))
    except csv.Error as error:
        raise LabelsError(f"{file}, line {reader.line_num}: is not a CSV: {error}; is a quote not closed?") from error
    return [name for name in header if name], rows


def _table_lines(file: Path) -> Iterator[str]:
    """Lines with their ends; comments become blank lines, so that line numbers stay right."""
    begun = False
    for number, line in enumerate(io.StringIO(read_text(file), newline=""), start=1):
        _check_line(file, number, line)
        comment = _is_comment(line) or (not begun and line.lstrip().startswith("#"))  # before the header, # is enough
        begun |= bool(line.strip()) and not comment
        yield "\n" if comment else line


def _checked_header(file: Path, cells: list[str]) -> list[str]:
    plain = Counter(map(plain_column, cells))
    twice = [name for name in cells if plain_column(name) in _KNOWN and plain[plain_column(name)] > 1]
    if twice:
        raise LabelsError(f"{file}: the header has the column {twice[0]!r} twice")
    numbered = [
        name
        for name in cells
        if plain_column(name).rstrip("0123456789") in CLASS_COLUMNS and plain_column(name) not in _KNOWN
    ]
    if numbered and pick_column(cells, CLASS_COLUMNS):
        raise LabelsError(
            f"{file}: the header has several columns of labels, one of them {numbered[0]!r}, and a video has one "
            "label; keep one of them"
        )
    return cells


def _row(place: str, header: list[str], cells: list[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise LabelsError(
            f"{place}: has {len(cells)} cells, the header has {len(header)}; quote cells that contain the separator: "
            f"{shown(cells)}"
        )
    cells = cells + [""] * (len(header) - len(cells))
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


def _json_table(file: Path) -> Table:
    header: dict[str, None] = {}
    rows = []
    for place, record in _records(file):
        if not isinstance(record, dict):
            raise LabelsError(f"{place}: expected an object of columns, got {shown(record)}")
        header |= dict.fromkeys(record)
        rows.append((place, {name: _json_cell(place, name, value) for name, value in record.items()}))
    names = list(header)
    return names, [(place, dict.fromkeys(names, "") | row) for place, row in rows]


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix.lower() != ".json":
        for number, line in read_lines(file):
            place = f"{file}, line {number}"
            yield place, _parse_json(line, place)
        return
    found = read_json(file)
    if isinstance(found, dict) and all(isinstance(value, str | int) for value in found.values()):
        found = [{"file": name, "label": value} for name, value in found.items()]
    if not isinstance(found, list):
        raise LabelsError(f"{file}: expected a list of objects, one for each video, got {type(found).__name__}")
    yield from ((f"{file}, entry {number}", record) for number, record in enumerate(found, start=1))


def _json_cell(place: str, name: str, value: object) -> str:
    if plain_column(name) not in _KNOWN or value is None:
        return ""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    # A bool is an int in Python, and `true` is no class.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LabelsError(f"{place}: `{name}` must be one text or whole number, got {shown(value)}")
    text = str(value).strip()
    if len(text) > MAX_LINE or "\0" in text or not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise LabelsError(f"{place}: `{name}` cannot be the name of a file or class: {shown(text)}")
    return text
