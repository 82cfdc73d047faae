"""Something-Something V2: something-something-v2-labels.json, -train.json, -validation.json, -test.json.

The class of a clip is its template without the brackets, numbered in labels.json; `label` in train and validation is a
sentence, not a class. The test list contains only ids: those videos get the split "test" and no class. The shorter
names labels.json, train.json, ... are accepted. Files are `{id}.webm`, or with another extension. The persons who
recorded the clips are not published, so there are no groups.

Reference: Goyal et al., "The something something video database for learning and evaluating visual common sense",
ICCV 2017, arXiv 1706.04261.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.class_names import read_class_names
from bgaug.labels.label import (
    SPLIT_NAMES,
    Entry,
    ListFormat,
    ReadOptions,
    SplitList,
    chosen_split,
    refuse_numbering,
)
from bgaug.labels.reading import read_json

_FILE = re.compile(r"(?:something-something-v2-)?(labels|train|validation|test)(?:\..+)?\.json")


def _files(path: Path) -> dict[str, Path]:
    """Files by their kind: labels, train, validation, test."""
    found: dict[str, Path] = {}
    for file in sorted(path.parent.iterdir() if path.is_file() else path.iterdir()):
        match = _FILE.fullmatch(file.name)
        if match is None or (path.is_file() and file != path and match[1] != "labels"):
            continue
        if match[1] in found:
            raise LabelsError(f"{path}: {found[match[1]].name} and {file.name} are both for {match[1]}; keep one")
        found[match[1]] = file
    return found


def _finds(path: Path) -> bool:
    if path.is_file():
        return _FILE.fullmatch(path.name) is not None
    names = [match[1] for file in path.iterdir() if (match := _FILE.fullmatch(file.name))]
    return "labels" in names and len(names) > 1


def _read(path: Path, options: ReadOptions) -> SplitList:
    refuse_numbering(path, options, "Something-Something")
    chosen_split(path, (1,), options.split)
    files = _files(path)
    labels = files.pop("labels", None)
    if not files:
        raise LabelsError(f"{path}: lists classes, but no videos; give its folder, or the file for train or validation")
    if labels is None and set(files) != {"test"}:
        raise LabelsError(f"{path}: expected something-something-v2-labels.json beside it, for the numbers of classes")
    names = _classes(labels) if labels else ()
    entries = [entry for name, file in files.items() for entry in _entries(file, SPLIT_NAMES[name], set(names))]
    read = (*files.values(), labels) if labels else tuple(files.values())
    return SplitList("ssv2", 1, tuple(entries), names, read, "any")


def _classes(file: Path) -> tuple[str, ...]:
    found = read_class_names(file)
    if not found.numbered:
        raise LabelsError(f"{file}: expected an object that has a number for each class")
    if sorted(found.by_number) != list(range(len(found.by_number))):
        count = len(found.by_number)
        raise LabelsError(f"{file}: the numbers of {count} classes must be 0 to {count - 1}, each once")
    return found.in_order


def _entries(file: Path, split: str, names: set[str]) -> list[Entry]:
    rows = read_json(file)
    if not isinstance(rows, list):
        raise LabelsError(f"{file}: expected a list of videos, got {type(rows).__name__}")
    found = []
    for number, row in enumerate(rows, start=1):
        place = f"{file}, entry {number}"
        if not isinstance(row, dict) or not str(row.get("id", "")).strip():
            raise LabelsError(f"{place}: expected an object with an `id`, got {row!r}")
        template = row.get("template")
        if template is None and split != "test":
            raise LabelsError(f"{place}: has no `template`, which contains its class")
        class_name = None if template is None else str(template).replace("[", "").replace("]", "")
        if class_name is not None and class_name not in names:
            raise LabelsError(f"{place}: the class {class_name!r} is not in labels.json")
        found.append(Entry((str(row["id"]),), class_name, None, split, place))
    return found


FORMAT = ListFormat(
    looked_for="Something-Something's something-something-v2-labels.json with -train, -validation or -test.json",
    finds=_finds,
    read=_read,
)
