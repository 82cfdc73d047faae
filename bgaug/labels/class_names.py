"""Names of numbered classes, from a file.

A file of names has one name a line; a number and a name a line, in either order; or JSON: a list of names, or an object of
numbers by name or of names by number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.reading import class_number, normal, read_json, read_lines, shown

LONGEST_NAME = 400
"""Characters of a class name. The longest published ones have some 120."""

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
class ClassNames:
    """Names of classes by number.

    Attributes:
        by_number: name of each class.
        numbered: whether the file itself has the numbers; else names were counted from 0 on.
        file: that has the names.
    """

    by_number: Mapping[int, str]
    numbered: bool
    file: Path

    @property
    def in_order(self) -> tuple[str, ...]:
        """Names in the order of their numbers."""
        return tuple(self.by_number[number] for number in sorted(self.by_number))

    @property
    def with_gaps(self) -> tuple[str, ...]:
        """The same, in which a number without a name, between others, is its own name."""
        first, last = min(self.by_number), max(self.by_number)
        return tuple(self.by_number.get(number, str(number)) for number in range(first, last + 1))

    def __str__(self) -> str:
        first, last = min(self.by_number), max(self.by_number)
        gaps = " with gaps" if last - first + 1 != len(self.by_number) else ""
        return f"{first} to {last}{gaps}"


def refuse_several(rows: Sequence[tuple[str, str]]) -> None:
    """Refuse a class that is several: numbers or a list, such as `0;3` or `(run, jump)`, or `run,jump` where both are classes.

    Args:
        rows: place of each row, for messages, and its class as it is written.

    Raises:
        LabelsError: a row has several.
    """
    known = {name for _, name in rows if name}
    for place, name in rows:
        parts = _BETWEEN.split(name)
        if _SEVERAL.fullmatch(name) or (len(parts) > 1 and known.issuperset(parts)):
            raise LabelsError(f"{place} has several labels, {shown(name)}, and a video has one; keep one of them")


def read_class_names(file: Path) -> ClassNames:
    """Names of numbered classes.

    Raises:
        LabelsError: the file cannot be read, a name is there twice, or a number is.
    """
    if file.suffix.lower() == ".json":
        pairs, numbered = _from_json(file)
    else:
        pairs, numbered = _from_lines([_checked(file, *row) for row in read_lines(file)])
    names = [normal(name.strip().strip('"').strip()) for _, name in pairs]
    if not any(names):
        raise LabelsError(f"{file}: holds no class names")
    _refuse_twice(file, "class name", names)
    _refuse_twice(file, "number", [number for number, _ in pairs])
    return ClassNames({number: name for (number, _), name in zip(pairs, names, strict=True)}, numbered, file)


def _checked(file: Path, number: int, line: str) -> str:
    if len(line) > LONGEST_NAME:
        raise LabelsError(
            f"{file}, line {number}: has {len(line)} characters, expected the name of a class: {shown(line)}"
        )
    return line


def _refuse_twice(file: Path, what: str, found: Sequence[Hashable]) -> None:
    twice = next((one for one, count in Counter(found).items() if count > 1), None)
    if twice is not None:
        raise LabelsError(f"{file}: the {what} {twice!r} is there twice")


def _from_lines(lines: list[str]) -> tuple[list[tuple[int, str]], bool]:
    """Number and name of each line, and whether the numbers are the file's own."""
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
