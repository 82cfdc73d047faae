"""UCF101: classInd.txt, trainlist01.txt to trainlist03.txt, testlist01.txt to testlist03.txt.

The lists as they are published have CRLF line ends. Test lists carry no label: the class is the folder of the path.
The class HandstandPushups holds files that begin with v_HandStandPushups, so a class is never read off a file name.
Videos are cut from recordings, `gNN` within a class, and those of one recording resemble each other: each list keeps
them together, and so must any other split.

Reference: Soomro, Zamir, Shah, "UCF101: A dataset of 101 human actions classes from videos in the wild", 2012,
arXiv 1212.0402.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.annotations.entries import Entry, ListFormat, SplitList, chosen_split, no_class_names
from bgaug.annotations.label import ordered
from bgaug.annotations.reading import read_lines
from bgaug.errors import LabelsError

_LIST = re.compile(r"(train|test)list(\d+)\.txt")
_VIDEO = re.compile(r"v_(?P<prefix>\w+)_(?P<group>g\d+)_c\d+(\.\w+)?")
_INSIDE = "ucfTrainTestlist"


def _lists(path: Path) -> dict[int, list[Path]]:
    """Lists by the number of their split, those to train with first."""
    if path.is_dir() and not any(_LIST.fullmatch(file.name) for file in path.iterdir()):
        path = path / _INSIDE
    files = path.iterdir() if path.is_dir() else [path]
    found: dict[int, list[Path]] = {}
    for file in sorted(files, reverse=True):
        if match := _LIST.fullmatch(file.name):
            found.setdefault(int(match[2]), []).append(file)
    return dict(sorted(found.items()))


def _read(path: Path, split: int | None, class_names: Path | None) -> SplitList:
    no_class_names(path, class_names, "UCF101")
    lists = _lists(path)
    number = chosen_split(path, tuple(lists), split)
    files = lists[number]
    index = files[0].parent / "classInd.txt"
    names = _class_index(index) if index.is_file() else {}
    entries = [entry for file in files for entry in _entries(file, names)]
    classes = tuple(name for _, name in sorted(names.items())) or ordered(entry.class_name for entry in entries)
    read = (*files, index) if names else tuple(files)
    return SplitList("ucf101", number, tuple(entries), classes, read, "any")


def _class_index(file: Path) -> dict[int, str]:
    """Class names by their number, from 1 on."""
    names: dict[int, str] = {}
    for line_number, line in read_lines(file):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name or int(number) in names:
            raise LabelsError(f"{file}, line {line_number}: expected a new number and a class name, got {line!r}")
        names[int(number)] = name.strip()
    return names


def _entries(file: Path, names: dict[int, str]) -> list[Entry]:
    split = "train" if file.name.startswith("train") else "test"
    known = set(names.values())
    found = []
    for line_number, line in read_lines(file):
        place = f"{file}, line {line_number}"
        name, *label = line.split()
        class_name, _, video = name.rpartition("/")
        class_name = class_name.rpartition("/")[2]
        match = _VIDEO.fullmatch(video)
        if not class_name or match is None or match["prefix"].casefold() != class_name.casefold():
            raise LabelsError(f"{place}: expected Class/v_Class_gNN_cNN.avi, got {name!r}")
        if known and class_name not in known:
            raise LabelsError(f"{place}: the class {class_name!r} is not in classInd.txt")
        if len(label) > 1 or (split == "train" and not label):
            raise LabelsError(f"{place}: expected a path and the number of its class, got {line!r}")
        if names and label and (not label[0].isdecimal() or names.get(int(label[0])) != class_name):
            raise LabelsError(f"{place}: {label[0]} is not the number of {class_name!r} in classInd.txt")
        # A copy of the data set may have been renamed to the spelling of the class.
        renamed = name[: -len(video)] + f"v_{class_name}" + video[match.end("prefix") :]
        spellings = tuple(dict.fromkeys((name, renamed)))
        found.append(Entry(spellings, class_name, f"{class_name}_{match['group']}", split, place))
    return found


UCF101 = ListFormat(
    looked_for="UCF101's trainlist01.txt and testlist01.txt (classInd.txt beside them)",
    finds=lambda path: bool(_lists(path)),
    numbers=lambda path: tuple(_lists(path)),
    read=_read,
)
