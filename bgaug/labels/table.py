"""Tables: rows of cells by the names of a header, from CSV and the like, or from JSON."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError
from bgaug.labels.reading import (
    MAX_LINE,
    check_line,
    first_lines,
    is_comment,
    normal,
    parse_json,
    read_json,
    read_lines,
    read_text,
    shown,
)

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
"""Names of columns, best first, without case, blanks, hyphens and underscores."""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

_SEPARATORS = (",", ";", "\t", "|", " ")
_KNOWN = {*FILE_COLUMNS, *CLASS_COLUMNS, *GROUP_COLUMNS, *SPLIT_COLUMNS, "youtubeid", "timestart", "timeend"}
_KNOWN |= {"frames", "numframes", "totalframes"}

Row = tuple[str, dict[str, str]]
Table = tuple[list[str], list[Row]]


def plain_column(name: str) -> str:
    """Name of a column for comparing: `Video Path` and `video_path` are one."""
    return re.sub(r"[\s_\-]+", "", normal(name).casefold())


def pick_column(header: list[str], wanted: tuple[str, ...]) -> str | None:
    """The column of a header that has the best of these names; None where it has none."""
    by_name = {plain_column(name): name for name in reversed(header)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def header_of(line: str) -> list[str]:
    """Names of columns in the first line of a table, by the separator that makes the most of them known names."""
    return _cells(line, separator_of(line))


def header_in(file: Path) -> list[str]:
    """Names of columns: in the first line of a file that is no comment (see `header_of`), or in the first object of JSON.

    Empty where there are none, as in JSON that cannot be read.
    """
    if file.suffix.lower() not in JSON_SUFFIXES:
        return header_of(next((line for line in first_lines(file, 50) if not line.startswith("#")), ""))
    try:
        _, first = next(_records(file), ("", None))
    except LabelsError:
        return []
    return list(first) if isinstance(first, dict) else []


def separator_of(line: str) -> str:
    """What separates the cells of a header. Blanks only where every word is the name of a column."""
    best, most = ",", (0, 0)
    for separator in _SEPARATORS:
        cells = _cells(line, separator)
        known = sum(plain_column(cell) in _KNOWN for cell in cells)
        if separator == " " and known < len(cells):
            continue
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
    """Header and rows of a table; each row with its place, cells by the name of their column as it is written, without blanks around them.

    Raises:
        LabelsError: the file cannot be read, is no table, or a row has more cells than the header.
    """
    if file.suffix.lower() in JSON_SUFFIXES:
        return _json_table(file)
    lines = list(_lines(file))
    first = next((line.strip() for line in lines if line.strip()), "")
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


def _lines(file: Path) -> Iterator[str]:
    """Lines with their ends; blank ones for comments, so that they count. Before the header # is enough for one."""
    begun = False
    for number, line in enumerate(io.StringIO(read_text(file), newline=""), start=1):
        check_line(file, number, line)
        comment = is_comment(line) or (not begun and line.lstrip().startswith("#"))
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
            f"{file}: the header has several columns of labels, one of them {numbered[0]!r}, and a video has one label; keep one "
            "of them"
        )
    return cells


def _row(place: str, header: list[str], cells: list[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise LabelsError(
            f"{place}: has {len(cells)} cells, and the header {len(header)}; put what has the separator in it in quotes: "
            f"{shown(cells)}"
        )
    cells = cells + [""] * (len(header) - len(cells))
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json_table(file: Path) -> Table:
    header: dict[str, None] = {}
    rows = []
    for place, record in _records(file):
        if not isinstance(record, dict):
            raise LabelsError(f"{place}: expected an object of columns, got {shown(record)}")
        header |= dict.fromkeys(record)
        rows.append((place, {name: _cell(place, name, value) for name, value in record.items()}))
    names = list(header)
    return names, [(place, dict.fromkeys(names, "") | row) for place, row in rows]


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix.lower() != ".json":
        for number, line in read_lines(file):
            place = f"{file}, line {number}"
            yield place, parse_json(line, place)
        return
    found = read_json(file)
    if isinstance(found, dict) and all(isinstance(value, str | int) for value in found.values()):
        found = [{"file": name, "label": value} for name, value in found.items()]
    if not isinstance(found, list):
        raise LabelsError(f"{file}: expected a list of objects, one for each video, got {type(found).__name__}")
    yield from ((f"{file}, entry {number}", record) for number, record in enumerate(found, start=1))


def _cell(place: str, name: str, value: object) -> str:
    if plain_column(name) not in _KNOWN or value is None:
        return ""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LabelsError(
            f"{place}: `{name}` must be one text or whole number, got {shown(value)}; a video has one label"
        )
    text = str(value).strip()
    if len(text) > MAX_LINE or "\0" in text or not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise LabelsError(f"{place}: `{name}` is no text that a file or class may be called by: {shown(text)}")
    return text
