"""Lists of a path and a number a line: what most training code of this field reads.

`path label`, separated by blanks, a tab or a comma, or `folder frames label`, in which the number before the label is the
length of the video. Paths may have blanks in them. What separates is what the first line is separated by; whether
lengths are given is decided over all lines. A label of -1 is none.

Classes are called by their numbers, unless a file names them: the one that is given, else the only label_map*.txt
beside the list. A list of lengths without labels looks just like one of labels, and cannot be told from it.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.annotations.class_names import read_class_names
from bgaug.annotations.entries import Entry, ListFormat, SplitList
from bgaug.annotations.reading import first_line, read_lines
from bgaug.annotations.roles import files_to_read, lists_of, numbers_of, split_of
from bgaug.errors import LabelsError

_SEPARATORS = ("\t", ",", " ")
_LABEL = re.compile(r"-1|[0-9]{1,5}")


def _separator(line: str) -> str | None:
    """What stands before the label at the end of a line; None where the line is not of this format."""
    for separator in _SEPARATORS:
        name, found, label = line.rpartition(separator)
        if found and name.strip() and _LABEL.fullmatch(label.strip()):
            return separator
    return None


def _is_one(file: Path) -> bool:
    return _separator(first_line(file)) is not None


def _read(path: Path, split: int | None, class_names: Path | None) -> SplitList:
    number, files = files_to_read(path, _is_one, split)
    named_by = class_names or _label_map(files[0].parent)
    names = read_class_names(named_by) if named_by else None
    entries = [entry for file in files for entry in _entries(file, names, named_by)]
    classes = _numbers_up_to(entries) if names is None else names
    read = tuple(files) if named_by is None else (*files, named_by)
    return SplitList("filelist", number, tuple(entries), classes, read, "tail")


def _numbers_up_to(entries: list[Entry]) -> tuple[str, ...]:
    """All numbers from 0 to the highest class, so that the place of each is the number itself."""
    highest = max((int(entry.class_name) for entry in entries if entry.class_name is not None), default=-1)
    return tuple(map(str, range(highest + 1)))


def _label_map(folder: Path) -> Path | None:
    maps = list(folder.glob("label_map*.txt"))
    return maps[0] if len(maps) == 1 else None


def _entries(file: Path, names: tuple[str, ...] | None, named_by: Path | None) -> list[Entry]:
    rows = _rows(file)
    lengths = bool(rows) and all(re.fullmatch(r".*\S[\s,]+\d+", name) for _, name, _ in rows)
    found = []
    for place, name, label in rows:
        if lengths:
            name = re.sub(r"[\s,]+\d+$", "", name)
        if names is not None and label >= len(names):
            raise LabelsError(f"{place}: the label {label} is not in 0 to {len(names) - 1}, which {named_by} names")
        class_name = None if label < 0 else str(label) if names is None else names[label]
        found.append(Entry((name,), class_name, None, split_of(file), place))
    return found


def _rows(file: Path) -> list[tuple[str, str, int]]:
    """Place, text before the label and label of each line."""
    separator = _separator(first_line(file)) or " "
    shown = {"\t": "a tab", ",": "a comma", " ": "a blank"}[separator]
    rows = []
    for number, line in read_lines(file):
        name, _, label = line.rpartition(separator)
        if not name.strip() or not _LABEL.fullmatch(label.strip()):
            raise LabelsError(
                f"{file}, line {number}: expected a path, {shown} and the number of a class, got {line!r}"
            )
        rows.append((f"{file}, line {number}", name.strip(), int(label)))
    return rows


FILELIST = ListFormat(
    looked_for="a list with a path and the number of its class on each line (in a folder: train.csv, val.txt, ...)",
    finds=lambda path: bool(lists_of(path, _is_one)),
    numbers=lambda path: numbers_of(path, _is_one),
    read=_read,
    by_name=False,
)
