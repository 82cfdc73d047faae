"""Names of numbered classes from a file, and which class the numbers of a list mean.

A file of names has one name per line; a number and a name per line, in either order; or JSON: a list of names, or an
object of numbers by name or of names by number. Lists count from 0 or from 1, independently of the file of names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bgaug.errors import LabelsError
from bgaug.labels.reading import class_number, normal, read_json, read_lines, shown

LONGEST_NAME = 400  # characters; the longest published names have some 120

_FORMS = (
    re.compile(r"(?P<number>[0-9]{1,5})(?:\s*[,;:\t]\s*|\s+)(?P<name>\S.*)"),
    re.compile(r"(?P<name>.*[^\s,;:])(?:\s*[,;:\t]\s*|\s+)(?P<number>[0-9]{1,5})"),
)
_ITEM = r"""(?:[0-9]+|'[^']*'|"[^"]*")"""
_SEVERAL = re.compile(
    rf"\[.*,.*\]|[\[({{]\s*{_ITEM}(?:[\s,;|]+{_ITEM})+\s*[\])}}]|[({{][^(){{}}]*,[^(){{}}]*[)}}]"
    r"|[^|]+(?:\|[^|]+)+|[0-9]+(\s*[,;|:/+&\s]\s*[0-9]+)+"
)
_BETWEEN = re.compile(r"\s*[,;/+&]\s*")
_HEADERS = {"id", "name", "class", "label", "classid", "classname", "labelname", "labelid", "index", "number"}


@dataclass(frozen=True)
class _ClassNames:
    """Names of classes by number."""

    by_number: Mapping[int, str]  # name of each class
    numbered: bool  # whether the file contains the numbers; otherwise names were counted from 0
    file: Path  # the file of the names

    @property
    def in_order(self) -> tuple[str, ...]:
        """Names in the order of their numbers."""
        return tuple(self.by_number[number] for number in sorted(self.by_number))

    @property
    def with_gaps(self) -> tuple[str, ...]:
        """The same; numbers in between that have no name are their own name."""
        first, last = min(self.by_number), max(self.by_number)
        return tuple(self.by_number.get(number, str(number)) for number in range(first, last + 1))

    def __str__(self) -> str:
        first, last = min(self.by_number), max(self.by_number)
        gaps = " with gaps" if last - first + 1 != len(self.by_number) else ""
        return f"{first} to {last}{gaps}"


def refuse_several(rows: Sequence[tuple[str, str]]) -> None:
    """Refuse a row with several classes: numbers or a list, such as `0;3`, `(run, jump)`, or `run,jump` of two classes.

    Raises:
        LabelsError: a row has several classes.
    """
    known = {name for _, name in rows if name}
    for place, name in rows:
        parts = _BETWEEN.split(name)
        if _SEVERAL.fullmatch(name) or (len(parts) > 1 and known.issuperset(parts)):
            raise LabelsError(f"{place} has several labels, {shown(name)}, and a video has one; keep one of them")


def read_class_names(file: Path) -> _ClassNames:
    """Names of numbered classes. Raises LabelsError: the file cannot be read, or a name or number occurs twice."""
    if file.suffix.lower() == ".json":
        pairs, numbered = _from_json(file)
    else:
        pairs, numbered = _from_lines([_checked(file, *row) for row in read_lines(file)])
    names = [normal(name.strip().strip('"').strip()) for _, name in pairs]
    if not any(names):
        raise LabelsError(f"{file}: holds no class names")
    _refuse_twice(file, "class name", names)
    _refuse_twice(file, "number", [number for number, _ in pairs])
    return _ClassNames({number: name for (number, _), name in zip(pairs, names, strict=True)}, numbered, file)


def _checked(file: Path, number: int, line: str) -> str:
    if len(line) > LONGEST_NAME:
        raise LabelsError(
            f"{file}, line {number}: has {len(line)} characters, expected the name of a class: {shown(line)}"
        )
    return line


def _refuse_twice(file: Path, what: str, found: Sequence[Hashable]) -> None:
    twice = next((one for one, count in Counter(found).items() if count > 1), None)
    if twice is not None:
        raise LabelsError(f"{file}: the {what} {twice!r} occurs twice")


def _from_lines(lines: list[str]) -> tuple[list[tuple[int, str]], bool]:
    """Number and name of each line, and whether the file contains the numbers."""
    cells = {re.sub(r"\W|_", "", cell.casefold()) for cell in re.split(r"[,;\t]", lines[0])} if lines else set()
    if len(lines) > 1 and len(cells) > 1 and cells <= _HEADERS:
        lines = lines[1:]
    for form in _FORMS:
        found = [match for line in lines if (match := form.fullmatch(line))]
        if len(found) == len(lines) == len({match["name"] for match in found}) > 0:
            return [(int(match["number"]), match["name"]) for match in found], True
    return list(enumerate(lines)), False


def _from_json(file: Path) -> tuple[list[tuple[int, str]], bool]:
    found = read_json(file)
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        return list(enumerate(found)), False
    if isinstance(found, dict):
        for pairs in (list(found.items()), [(name, number) for number, name in found.items()]):
            numbers = [class_number(str(number)) for _, number in pairs]
            if all(number is not None for number in numbers) and all(isinstance(name, str) for name, _ in pairs):
                return [
                    (number, name) for (name, _), number in zip(pairs, numbers, strict=True) if number is not None
                ], True
    raise LabelsError(f"{file}: expected an object that has a number for each class, or a list of names")


# --- which class the numbers of a list mean ----------------------------------------------------------------------


@dataclass(frozen=True)
class NumberedRow:
    """A row whose class is a number."""

    place: str  # file and line of the row, for messages
    path: str  # path of its video
    number: int | None  # number of its class; None for no class


def name_classes(
    rows: Sequence[NumberedRow], names: _ClassNames, first_class: int | None
) -> tuple[list[str | None], tuple[str, ...]]:
    """Class name of each row, and notes on what was guessed.

    The numbers of the list are those of the file of names unless that is impossible: if the names count from 1 and the
    list contains a 0 (or lies in folders named after the classes that show it), the list counts from 0, and vice versa.
    `first_class` is the number of the first class in the list; None to guess it.

    Raises:
        LabelsError: a number has no name.
    """
    used = {row.number for row in rows if row.number is not None}
    first = min(names.by_number)
    shifts = (0, {0: -1, 1: 1}.get(first, 0)) if first_class is None else (first - first_class,)
    fitting = [s for s in dict.fromkeys(shifts) if all(number + s in names.by_number for number in used)]
    agreeing = [s for s in fitting if _folders_agree(rows, names, s)]
    # A number that is too high does not show that the list counts from 1: the row may be wrong.
    if not fitting or (first_class is None and not agreeing and fitting[0] == -1):
        _refuse(rows, names, shifts[0], fitting)
    shift = (agreeing or fitting)[0]
    notes = []
    if first_class is None and used and (shift or (len(fitting) > 1 and not agreeing)):
        notes.append(_guess(used, names, shift, bool(agreeing)))
    found = [None if row.number is None else names.by_number[row.number + shift] for row in rows]
    contrary = _contrary(rows, found, names)
    if contrary:
        notes.append(
            f"{len(contrary)} rows are in a folder named after another class, such as {contrary[0]}; "
            "do the names belong to this list? --first-class 0 or 1 sets where it starts"
        )
    return found, tuple(notes)


def _guess(used: set[int], names: _ClassNames, shift: int, by_folders: bool) -> str:
    first = min(names.by_number) - shift
    why = "its folders agree" if by_folders else f"its numbers are {min(used)} to {max(used)}"
    return (
        f"the list is assumed to count classes from {first} ({why}; {names.file.name} has {names}), so {first} is "
        f"{names.in_order[0]!r}; change it with --first-class"
    )


def _refuse(rows: Sequence[NumberedRow], names: _ClassNames, shift: int, fitting: Sequence[int]) -> NoReturn:
    """Raise the error for the first row whose number has no name."""
    known = {number - shift for number in names.by_number}
    row = next(row for row in rows if row.number is not None and row.number not in known)
    gaps = ", with gaps" if "gaps" in str(names) else ""
    fix = "" if not fitting else "; if the list counts from 1, use --first-class 1"
    raise LabelsError(
        f"{row.place}: the label {row.number} is not in {min(known)} to {max(known)}{gaps}, "
        f"the numbers of {names.file}{fix}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", normal(name).casefold())


def _folder(path: str) -> str:
    return _plain(path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2])


def _folders_agree(rows: Sequence[NumberedRow], names: _ClassNames, shift: int) -> bool:
    """Whether some rows are in folders named after classes, each of those in that of its own class."""
    named = {_plain(name): number - shift for number, name in names.by_number.items()}
    pairs = [
        (row.number, named[folder]) for row in rows if (folder := _folder(row.path)) in named and row.number is not None
    ]
    return bool(pairs) and all(number == own for number, own in pairs)


def _contrary(rows: Sequence[NumberedRow], found: Sequence[str | None], names: _ClassNames) -> list[str]:
    """Descriptions of rows in a folder named after another class."""
    plain = {_plain(name) for name in names.by_number.values()}
    return [
        f"{row.place}: {shown(row.path)} is {name!r}"
        for row, name in zip(rows, found, strict=True)
        if name is not None and (folder := _folder(row.path)) in plain and folder != _plain(name)
    ]
