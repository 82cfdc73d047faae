"""UCF101: classInd.txt, trainlist01.txt to trainlist03.txt, testlist01.txt to testlist03.txt.

The published lists have CRLF line ends. Test lists contain no label: the class is the folder in the path. The class
HandstandPushups contains files that begin with v_HandStandPushups, so the class is never taken from a file name. Videos
are cut from recordings, `gNN` within a class; those of one recording are similar: each list keeps them together, and
any other split must do the same.

Reference: Soomro, Zamir, Shah, "UCF101: A dataset of 101 human actions classes from videos in the wild", 2012,
arXiv 1212.0402.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.label import Entry, ListFormat, ReadOptions, SplitList, chosen_split, ordered, refuse_numbering
from bgaug.labels.reading import class_number, read_lines

_LIST = re.compile(r"(train|test)list(\d+)\.txt")
_VIDEO = re.compile(r"v_(?P<prefix>\w+)_(?P<group>g\d+)_c\d+(\.\w+)?")
_INSIDE = "ucfTrainTestlist"


def _lists(path: Path) -> dict[int, list[Path]]:
    """Lists by the number of their split, training lists first."""
    if path.is_dir() and not any(_LIST.fullmatch(file.name) for file in path.iterdir()):
        path = path / _INSIDE
    files = path.iterdir() if path.is_dir() else [path]
    found: dict[int, list[Path]] = {}
    for file in sorted(files, reverse=True):
        if match := _LIST.fullmatch(file.name):
            found.setdefault(int(match[2]), []).append(file)
    return dict(sorted(found.items()))


def _read(path: Path, options: ReadOptions) -> SplitList:
    refuse_numbering(path, options, "UCF101")
    lists = _lists(path)
    number = chosen_split(path, tuple(lists), options.split)
    files = lists[number]
    index = files[0].parent / "classInd.txt"
    numbers = _class_index(index) if index.is_file() else {}
    entries = [_entry(file, *row, numbers) for file in files for row in read_lines(file)]
    classes = tuple(sorted(numbers, key=numbers.__getitem__)) or ordered(entry.class_name for entry in entries)
    read = (*files, index) if numbers else tuple(files)
    return SplitList("ucf101", number, tuple(entries), classes, read, "any")


def _class_index(file: Path) -> dict[str, int]:
    """Number of each class, from 1 on."""
    numbers: dict[str, int] = {}
    for line_number, line in read_lines(file):
        digits, _, name = line.partition(" ")
        number = class_number(digits)
        if number is None or not name or name in numbers or number in numbers.values():
            raise LabelsError(f"{file}, line {line_number}: expected a new number and a new class name, got {line!r}")
        numbers[name] = number
    return numbers


def _entry(file: Path, line_number: int, line: str, numbers: Mapping[str, int]) -> Entry:
    place = f"{file}, line {line_number}"
    split = "train" if file.name.startswith("train") else "test"
    name, *label = line.split()
    folder, _, video = name.rpartition("/")
    class_name = folder.rpartition("/")[2]
    match = _VIDEO.fullmatch(video)
    if not class_name or match is None or match["prefix"].casefold() != class_name.casefold():
        raise LabelsError(f"{place}: expected Class/v_Class_gNN_cNN.avi, got {name!r}")
    if len(label) > 1 or (split == "train" and not label):
        raise LabelsError(f"{place}: expected a path and the number of its class, got {line!r}")
    if numbers and class_name not in numbers:
        raise LabelsError(f"{place}: the class {class_name!r} is not in classInd.txt")
    if numbers and label and class_number(label[0]) != numbers[class_name]:
        raise LabelsError(f"{place}: {label[0]} is not the number of {class_name!r} in classInd.txt")
    # Some copies of the data set rename files to the spelling of the class.
    renamed = f"{folder}/v_{class_name}{video[match.end('prefix') :]}"
    return Entry(tuple(dict.fromkeys((name, renamed))), class_name, f"{class_name}_{match['group']}", split, place)


FORMAT = ListFormat(
    looked_for="UCF101's trainlist01.txt and testlist01.txt (classInd.txt beside them)",
    finds=lambda path: bool(_lists(path)),
    numbers=lambda path: tuple(_lists(path)),
    read=_read,
)
