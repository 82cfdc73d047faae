"""Our own tables, and those of others that have a column for the file and one for the class."""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.class_names import LONGEST_NAME, read_class_names, refuse_several
from bgaug.labels.entries import Entry, ListFormat, ReadOptions, SplitList, chosen_split
from bgaug.labels.numbering import NumberedRow, name_classes
from bgaug.labels.reading import class_number, normal, shown
from bgaug.labels.roles import split_named
from bgaug.labels.table import (
    CLASS_COLUMNS,
    FILE_COLUMNS,
    GROUP_COLUMNS,
    SPLIT_COLUMNS,
    Row,
    header_in,
    pick_column,
    plain_column,
    read_table,
)

_INSIDE = ("labels.csv", "metadata.csv", "metadata.jsonl")
_FLOAT = re.compile(r"(-1|[0-9]{1,5})\.0+")


def _file(path: Path) -> Path:
    """The table itself, or the one of a folder.

    Raises:
        LabelsError: a folder has several.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in _INSIDE if (path / name).is_file()]
    if len(found) > 1:
        raise LabelsError(f"{path}: has {' and '.join(file.name for file in found)}; name one of them")
    return found[0] if found else path / _INSIDE[0]


def _finds(path: Path) -> bool:
    if path.is_dir() and not any((path / name).is_file() for name in _INSIDE):
        return False
    return is_table(header_in(_file(path)))


def is_table(header: list[str]) -> bool:
    """Whether a header has a column for the file and one for the class."""
    return bool(pick_column(header, FILE_COLUMNS)) and bool(pick_column(header, CLASS_COLUMNS))


def _read(path: Path, options: ReadOptions) -> SplitList:
    if options.columns is not None:
        raise LabelsError(f"{path}: columns are about lists without a header, and this is a table; change its header")
    file = _file(path)
    header, rows = read_table(file)
    file_column, class_column = _columns(file, header)
    group, split = (pick_column(header, names) for names in (GROUP_COLUMNS, SPLIT_COLUMNS))
    notes = []
    if plain_column(file_column) != "file" or plain_column(class_column) not in (
        "classname",
        "class",
        "label",
        "classid",
    ):
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
    """Classes in order (empty where they have none), that of each row, and what was guessed."""
    for place, row in rows:
        if len(row[class_column]) > LONGEST_NAME:
            raise LabelsError(
                f"{place}: `{class_column}` has {len(row[class_column])} characters, expected the name of a class"
            )
    written = _whole([row[class_column] for _, row in rows])
    refuse_several([(f"{place}: `{class_column}`", name) for (place, _), name in zip(rows, written, strict=True)])
    if options.class_names is None:
        if options.first_class is not None:
            raise LabelsError("a first class is about class names that are numbered elsewhere: give --class-names too")
        return (), _as_written([normal(name) for name in written]), ()
    numbered = []
    for (place, row), name in zip(rows, written, strict=True):
        number = class_number(name)
        if number is None and name not in ("", "-1"):
            raise LabelsError(
                f"{place}: `{class_column}` is {shown(name)} and no number: such lists name their classes themselves; "
                f"leave out {options.class_names}"
            )
        numbered.append(NumberedRow(place, row[file_column], number))
    names = read_class_names(options.class_names)
    found, notes = name_classes(numbered, names, options.first_class)
    return names.with_gaps, found, notes


def _whole(names: list[str]) -> list[str]:
    """Numbers without the point that tables get where a number is missing: 3 for 3.0, if all are numbers."""
    found = [_FLOAT.fullmatch(name) for name in names]
    if all(
        match or name == "" or class_number(name.removeprefix("-")) is not None
        for match, name in zip(found, names, strict=True)
    ):
        return [match[1] if match else name for match, name in zip(found, names, strict=True)]
    return names


def _as_written(names: list[str]) -> list[str | None]:
    """Classes by what stands in the table: nothing, and -1 among numbers, is none."""
    numbers = all(re.fullmatch(r"-1|[0-9]*", name) for name in names)
    return [None if not name or (numbers and name == "-1") else name for name in names]


CSV = ListFormat(
    looked_for="a table with a header that has `file` and `class` (in a folder: labels.csv, metadata.csv)",
    finds=_finds,
    numbers=lambda path: (1,),
    read=_read,
    by_name=False,
)
