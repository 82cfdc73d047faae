"""Which class the numbers of a list mean: lists count from 0 or from 1, whatever the file of their names does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bgaug.errors import LabelsError
from bgaug.labels.class_names import ClassNames
from bgaug.labels.reading import normal, shown


@dataclass(frozen=True)
class NumberedRow:
    """A row whose class is a number.

    Attributes:
        place: of the row, for messages.
        path: of its video.
        number: of its class; None for none.
    """

    place: str
    path: str
    number: int | None


def name_classes(
    rows: Sequence[NumberedRow], names: ClassNames, first_class: int | None
) -> tuple[list[str | None], tuple[str, ...]]:
    """Class name of each row, and what was guessed.

    The list's numbers mean those of the names, unless that cannot be: names that count from 1 are those of a list that
    has a 0 (or whose folders are called by the classes so), likewise the other way round.

    Args:
        rows: the list.
        names: of the classes.
        first_class: number that the list has for the first class; None to find out.

    Raises:
        LabelsError: a number has no name.
    """
    used = {row.number for row in rows if row.number is not None}
    first = min(names.by_number)
    shifts = (0, {0: -1, 1: 1}.get(first, 0)) if first_class is None else (first - first_class,)
    fitting = [s for s in dict.fromkeys(shifts) if all(number + s in names.by_number for number in used)]
    agreeing = [s for s in fitting if _folders_agree(rows, names, s)]
    # That a list counts from 1 is not guessed from a number that is too high: it may be a wrong row.
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
            f"{len(contrary)} rows lie in a folder that is called by another class than theirs, such as {contrary[0]}; "
            "do the names belong to this list? --first-class 0 or 1 says from where it counts"
        )
    return found, tuple(notes)


def _guess(used: set[int], names: ClassNames, shift: int, by_folders: bool) -> str:
    first = min(names.by_number) - shift
    why = "its folders agree" if by_folders else f"its numbers are {min(used)} to {max(used)}"
    return (
        f"the list is taken to count classes from {first} ({why}; {names.file.name} has {names}), so {first} is "
        f"{names.in_order[0]!r}; --first-class says otherwise"
    )


def _refuse(rows: Sequence[NumberedRow], names: ClassNames, shift: int, fitting: Sequence[int]) -> NoReturn:
    """Name the first row whose number has no name."""
    known = {number - shift for number in names.by_number}
    row = next(row for row in rows if row.number is not None and row.number not in known)
    gaps = ", with gaps" if "gaps" in str(names) else ""
    mend = "" if not fitting else "; if the list counts from 1, say --first-class 1"
    raise LabelsError(
        f"{row.place}: the label {row.number} is not in {min(known)} to {max(known)}{gaps}, which {names.file} names{mend}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", normal(name).casefold())


def _folder(path: str) -> str:
    return _plain(path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2])


def _folders_agree(rows: Sequence[NumberedRow], names: ClassNames, shift: int) -> bool:
    """Whether rows lie in folders that are called by classes, and each in that of its own."""
    named = {_plain(name): number - shift for number, name in names.by_number.items()}
    pairs = [
        (row.number, named[folder]) for row in rows if (folder := _folder(row.path)) in named and row.number is not None
    ]
    return bool(pairs) and all(number == own for number, own in pairs)


def _contrary(rows: Sequence[NumberedRow], found: Sequence[str | None], names: ClassNames) -> list[str]:
    """Rows in a folder that is called by another class."""
    plain = {_plain(name) for name in names.by_number.values()}
    return [
        f"{row.place}: {shown(row.path)} is {name!r}"
        for row, name in zip(rows, found, strict=True)
        if name is not None and (folder := _folder(row.path)) in plain and folder != _plain(name)
    ]
