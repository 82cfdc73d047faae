"""Tables with a column for the file and one for the class: the CSV of bgaug, and those of others."""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.class_names import LONGEST_NAME, NumberedRow, name_classes, read_class_names, refuse_several
from bgaug.labels.label import Entry, ListFormat, ReadOptions, SplitList, chosen_split, split_named
from bgaug.labels.reading import (
    CLASS_COLUMNS,
    FILE_COLUMNS,
    GROUP_COLUMNS,
    SPLIT_COLUMNS,
    Row,
    class_number,
    header_in,
    normal,
    pick_column,
    plain_column,
    read_table,
    shown,
)

_INSIDE = ("labels.csv", "metadata.csv", "metadata.jsonl")
_FLOAT = re.compile(r"(-1|[0-9]{1,5})\.0+")  # as pandas writes whole numbers of a column with empty cells


def _file(path: Path) -> Path:
    """The table itself, or the one in a folder. Raises LabelsError: a folder has several."""
    if not path.is_dir():
        return path
    found = [path / name for name in _INSIDE if (path / name).is_file()]
    if len(found) > 1:
        raise LabelsError(f"{path}: has {' and '.join(file.name for file in found)}; name one of them")
    return found[0] if found else path / _INSIDE[0]


def _finds(path: Path) -> bool:
    if path.is_dir() and not any((path / name).is_file() for name in _INSIDE):
        return False
    header = header_in(_file(path))
    return bool(pick_column(header, FILE_COLUMNS)) and bool(pick_column(header, CLASS_COLUMNS))


def _read(path: Path, options: ReadOptions) -> SplitList:
    if options.columns is not None:
        raise LabelsError(f"{path}: columns are for lists without a header, and this is a table; change its header")
    file = _file(path)
    header, rows = read_table(file)
    file_column, class_column = _columns(file, header)
    group, split = (pick_column(header, names) for names in (GROUP_COLUMNS, SPLIT_COLUMNS))
    notes = []
    usual = ("classname", "class", "label", "classid")  # any other column is a guess, and reported
    if plain_column(file_column) != "file" or plain_column(class_column) not in usual:
        notes.append(f"{file.name}: files are taken from its column {file_column!r}, classes from {class_column!r}")
    classes, names, more = _class_names(rows, file_column, class_column, options)
    notes += more
    if (without := names.count(None)) and without < len(names):
        notes.append(f"{file.name}: {without} of {len(names)} rows have no class")
    entries = []
    for (place, row), name in zip(rows, names, strict=True):
        if not row[file_column]:
            raise LabelsError(f"{place}: the column `{file_column}` is empty")
        in_split = split_named(row[split]) if split and row[split] else None
        entries.append(Entry((row[file_column],), name, row[group] or None if group else None, in_split, place))
    number = chosen_split(file, (1,), options.split)
    files = (file,) if options.class_names is None else (file, options.class_names)
    return SplitList("csv", number, tuple(entries), classes, files, "path", tuple(notes))


def _columns(file: Path, header: list[str]) -> tuple[str, str]:
    file_column, class_column = pick_column(header, FILE_COLUMNS), pick_column(header, CLASS_COLUMNS)
    there = ", ".join(header)[:200] or "nothing"
    if file_column is None:
        raise LabelsError(f"{file}: the header must name a column `file` (or file_name, path, video), it has: {there}")
    if class_column is None:
        raise LabelsError(f"{file}: the header must name one of class_name, class, label, class_id, it has: {there}")
    return file_column, class_column


def _class_names(
    rows: list[Row], file_column: str, class_column: str, options: ReadOptions
) -> tuple[tuple[str, ...], list[str | None], tuple[str, ...]]:
    """Classes in order (empty if the table defines none), the class of each row, and notes on what was guessed."""
    for place, row in rows:
        if len(row[class_column]) > LONGEST_NAME:
            raise LabelsError(
                f"{place}: `{class_column}` has {len(row[class_column])} characters, expected the name of a class"
            )
    written = _whole([row[class_column] for _, row in rows])
    refuse_several([(f"{place}: `{class_column}`", name) for (place, _), name in zip(rows, written, strict=True)])
    if options.class_names is None:
        if options.first_class is not None:
            raise LabelsError("a first class is for names of numbered classes: give --class-names too")
        return (), _as_written([normal(name) for name in written]), ()
    numbered = []
    for (place, row), name in zip(rows, written, strict=True):
        number = class_number(name)
        if number is None and name not in ("", "-1"):  # both mean: no class
            raise LabelsError(
                f"{place}: `{class_column}` is {shown(name)}, not a number: the list contains its class names; "
                f"leave out {options.class_names}"
            )
        numbered.append(NumberedRow(place, row[file_column], number))
    names = read_class_names(options.class_names)
    found, notes = name_classes(numbered, names, options.first_class)
    return names.with_gaps, found, notes


def _whole(names: list[str]) -> list[str]:
    """Numbers without a decimal point: 3 for 3.0, if all classes are numbers."""
    found = [_FLOAT.fullmatch(name) for name in names]
    if all(
        match or name == "" or class_number(name.removeprefix("-")) is not None
        for match, name in zip(found, names, strict=True)
    ):
        return [match[1] if match else name for match, name in zip(found, names, strict=True)]
    return names


def _as_written(names: list[str]) -> list[str | None]:
    """Classes as written; an empty cell, and -1 among numbers, is no class."""
    numbers = all(re.fullmatch(r"-1|[0-9]*", name) for name in names)
    return [None if not name or (numbers and name == "-1") else name for name in names]


FORMAT = ListFormat(
    looked_for="a table with a header that has `file` and `class` (in a folder: labels.csv, metadata.csv)",
    finds=_finds,
    read=_read,
    by_name=False,
)
