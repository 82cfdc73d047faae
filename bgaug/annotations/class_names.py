"""Names of numbered classes, from a file: a name a line, a number and a name a line, or a JSON object."""

from __future__ import annotations

from pathlib import Path

from bgaug.annotations.reading import class_number, read_json, read_lines
from bgaug.errors import LabelsError


def read_class_names(file: Path) -> tuple[str, ...]:
    """Names in the order of their numbers.

    Three forms are told apart: a JSON object of numbers by name; lines of a number and a name, where every line begins
    with the next number, from 0 or 1 on; else lines that are names, the first of which is number 0.

    Raises:
        LabelsError: the file cannot be read, a name is there twice, or numbers are not 0 to n - 1.
    """
    if file.suffix.lower() == ".json":
        names = _numbered(file)
    else:
        names = [line for _, line in read_lines(file)]
        numbered = [line.split(maxsplit=1) for line in names]
        for first in (0, 1):
            wanted = [str(first + place) for place in range(len(names))]
            if all(len(parts) == 2 for parts in numbered) and [parts[0] for parts in numbered] == wanted:
                names = [parts[1] for parts in numbered]
    if not names:
        raise LabelsError(f"{file}: holds no class names")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabelsError(f"{file}: the class name {twice[0]!r} is there twice")
    return tuple(names)


def _numbered(file: Path) -> list[str]:
    found = read_json(file)
    if not isinstance(found, dict) or any(class_number(str(number)) is None for number in found.values()):
        raise LabelsError(f"{file}: expected an object that has a number for each class name")
    by_number = {int(number): name.strip('"') for name, number in found.items()}
    if sorted(by_number) != list(range(len(found))):
        raise LabelsError(f"{file}: the numbers of {len(found)} classes must be 0 to {len(found) - 1}, each once")
    return [by_number[number] for number in range(len(found))]
