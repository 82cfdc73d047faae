"""Our own CSV: a header, a row a video."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bgaug.annotations.entries import Entry, ListFormat, SplitList, chosen_split, no_class_names
from bgaug.annotations.reading import first_line, read_bytes
from bgaug.errors import LabelsError

_CLASS_COLUMNS = ("class_name", "class", "label", "class_id")
_INSIDE = "labels.csv"

Row = tuple[str, dict[str, str]]


def read_table(file: Path) -> tuple[list[str], list[Row]]:
    """Header and rows of a CSV; each row with its place, cells without blanks around them.

    Raises:
        LabelsError: the file cannot be read, or is no CSV in UTF-8.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(file).decode(), newline=""), restval="")
        rows = []
        for row in reader:
            cells = {k.strip(): (v or "").strip() for k, v in row.items() if isinstance(k, str)}
            if any(cells.values()):
                rows.append((f"{file}, line {reader.line_num}", cells))
        return [name.strip() for name in reader.fieldnames or []], rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"{file}: is not a CSV in UTF-8: {error}") from error


def _file(path: Path) -> Path:
    return path / _INSIDE if path.is_dir() else path


def _finds(path: Path) -> bool:
    file = _file(path)
    header = {name.strip().strip('"') for name in first_line(file).split(",")}
    return file.is_file() and "file" in header and bool(header & set(_CLASS_COLUMNS))


def _read(path: Path, split: int | None, class_names: Path | None) -> SplitList:
    no_class_names(path, class_names, "CSV")
    file = _file(path)
    header, rows = read_table(file)
    if "file" not in header:
        raise LabelsError(f"{file}: the header must name a column `file`, it has: {', '.join(header)}")
    column = next((name for name in _CLASS_COLUMNS if name in header), None)
    if column is None:
        raise LabelsError(
            f"{file}: the header must name one of {', '.join(_CLASS_COLUMNS)}, it has: {', '.join(header)}"
        )
    entries = []
    for place, row in rows:
        if not row["file"]:
            raise LabelsError(f"{place}: the column `file` is empty")
        class_name, group, in_split = (row.get(name) or None for name in (column, "group", "split"))
        entries.append(Entry((row["file"],), class_name, group, in_split, place))
    return SplitList("csv", chosen_split(file, (1,), split), tuple(entries), (), (file,), "path")


CSV = ListFormat(
    looked_for=f"a CSV with a header that has `file` and one of {', '.join(_CLASS_COLUMNS)} (in a folder: {_INSIDE})",
    finds=_finds,
    numbers=lambda path: (1,),
    read=_read,
    by_name=False,
)
