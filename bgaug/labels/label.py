"""Labels of videos, and the lists they come from: what all formats of lists share."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bgaug.errors import LabelsError
from bgaug.labels.reading import normal, shown
from bgaug.names import Registry

FORMATS = Registry(
    {
        "csv": "bgaug.labels.labels_csv:FORMAT",
        "ucf101": "bgaug.labels.published:UCF101",
        "hmdb51": "bgaug.labels.published:HMDB51",
        "kinetics": "bgaug.labels.published:KINETICS",
        "ssv2": "bgaug.labels.published:SSV2",
        "diving48": "bgaug.labels.published:DIVING48",
        "filelist": "bgaug.labels.filelist:FILELIST",
        "pickle": "bgaug.labels.filelist:PICKLE",
    }
)
"""Formats of lists by name, each a `ListFormat`."""

_MOST_LISTED = 1000  # classes in a summary


@dataclass(frozen=True)
class Label:
    """What is known about one video; None where a value is not known."""

    name: str | None = None  # name of the class
    group: str | None = None  # videos of one group must stay in one split: a recording, a subject
    split: str | None = None  # "train", "val", "test", ...


@dataclass(frozen=True)
class Labels:
    """Labels matched with videos."""

    by_id: Mapping[str, Label]  # label of each video that a row belongs to
    # class names in the order of their numbers. Where the data set numbers its classes, all of them, even those
    # without videos; else those of the videos, by number where all names are numbers, else by name
    classes: tuple[str, ...]
    rows_without_file: tuple[str, ...] = ()  # rows of the label file that no video belongs to
    files_without_row: tuple[str, ...] = ()  # ids of videos that no row belongs to; empty if no label file was given
    # rows that were left out because they contradict others or match several videos; each with the reason
    dropped: tuple[str, ...] = ()
    origin: str = "none"  # where the labels come from, as text
    notes: tuple[str, ...] = ()  # what was guessed, as text

    def of(self, video_id: str) -> Label:
        """Label of a video; an empty one for a video without a row."""
        return self.by_id.get(video_id, Label())

    def summary(self, ids: Collection[str]) -> dict[str, Any]:
        """Origin, classes and splits of these videos with their numbers of videos, and what was guessed.

        At most 1,000 classes are listed, in their order, including those without videos.
        """
        labels = [self.of(video_id) for video_id in ids]
        classes = Counter(label.name for label in labels if label.name is not None)
        splits = Counter(label.split for label in labels if label.split is not None)
        return {
            "origin": self.origin,
            "videos": len(labels),
            "labelled": classes.total(),
            "num_classes": sum(count > 0 for count in classes.values()),
            "classes": {name: classes[name] for name in self.classes[:_MOST_LISTED]},
            "splits": dict(sorted(splits.items())),
            "rows_without_video": len(self.rows_without_file),
            "videos_without_row": len(self.files_without_row),
            "rows_dropped": len(self.dropped),
            "notes": list(self.notes),
        }

    def digest(self) -> str:
        """sha256 over all labels."""
        lines = [f"{i}\t{v.name}\t{v.group}\t{v.split}" for i, v in sorted(self.by_id.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def ordered(names: Iterable[str | None]) -> tuple[str, ...]:
    """Different names in order: by number if all are numbers, else by name. None is left out."""
    different = {name for name in names if name is not None}
    if all(name.isdecimal() and len(name) < 100 for name in different):  # int() refuses thousands of digits
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


# --- lists, before they are matched with videos ------------------------------------------------------------------

Folders = Literal["path", "tail", "any"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a list. Class, group and split are normalised to NFC.

    Raises:
        LabelsError: class, group or split cannot be written as UTF-8.
    """

    # path of the video, with or without folders and extension; then other names that it may have
    names: tuple[str, ...]
    class_name: str | None  # None if the row has no class, as in a test list with secret labels
    group: str | None  # videos of one group must stay in one split; None if unknown
    split: str | None  # "train", "val", "test", "unused", ...; None if unknown
    place: str  # file and line of the row, for messages: "trainlist01.txt, line 3"

    def __post_init__(self) -> None:
        for name in ("class_name", "group", "split"):
            text = getattr(self, name)
            if text is None or text.isascii():
                continue
            if text != text.encode("utf-8", "replace").decode():
                raise LabelsError(
                    f"{self.place}: the {name.partition('_')[0]} {shown(text)} is not valid text (it contains a lone "
                    "surrogate); write it as UTF-8"
                )
            object.__setattr__(self, name, normal(text))


@dataclass(frozen=True)
class SplitList:
    """A list, or one split of a set of lists."""

    format: str  # name of the format, one of `FORMATS`
    split: int  # number of the split; 1 for a format with only one
    entries: tuple[Entry, ...]  # rows in the order of the files
    # all class names in the order of the data set's numbers; empty if the format defines no order
    classes: tuple[str, ...]
    files: tuple[Path, ...]  # files that were read
    # how folders of a row are compared with those of a video. "path": the row is a path relative to the list. "tail":
    # the shorter path must be the end of the longer one. "any": file names are unique in the data set; folders only
    # decide between videos of the same name
    folders: Folders
    notes: tuple[str, ...] = ()  # what was guessed while reading, as text

    @property
    def sizes(self) -> Mapping[str | None, int]:
        """Number of rows of each split."""
        return Counter(entry.split for entry in self.entries)


@dataclass(frozen=True)
class ReadOptions:
    """Options for lists that do not define them; the arguments of `bgaug.labels.read_list`."""

    split: int | None = None
    class_names: Path | None = None
    first_class: int | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ListFormat:
    """How lists of one format are found and read."""

    looked_for: str  # description of the files, for messages
    # whether a file or folder has this format; `read` either understands such a file or raises a clear error
    finds: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], SplitList]  # read one split
    numbers: Callable[[Path], tuple[int, ...]] = lambda path: (1,)  # numbers of the splits that exist
    by_name: bool = True  # whether file names identify the format, rather than the content


def chosen_split(path: Path, numbers: tuple[int, ...], split: int | None) -> int:
    """The number of the split to read. Raises LabelsError: there is no split of that number."""
    if split is None:
        return numbers[0] if path.is_file() or 1 not in numbers else 1
    if split in numbers:
        return split
    there = ", ".join(map(str, numbers))
    fix = "; name its folder to choose among all" if path.is_file() and len(numbers) == 1 else ""
    raise LabelsError(f"{path}: has no split {split}, only {there}{fix}")


def refuse_numbering(path: Path, options: ReadOptions, format_name: str) -> None:
    """Refuse options for numbered classes and lists without a header, for formats that have neither.

    Raises:
        LabelsError: one was given.
    """
    if options.class_names is not None:
        raise LabelsError(f"{path}: {format_name} lists contain their class names; leave out {options.class_names}")
    if options.first_class is not None or options.columns is not None:
        raise LabelsError(
            f"{path}: a first class and columns are options for lists of a path and a number, not for {format_name}"
        )


# --- splits in names: train.csv, kinetics-600_val.csv, ucf101_train_split_2.txt ----------------------------------

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "valset", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Splits by the words that lists and folders use for them, in lower case."""

_SUFFIXES = (".csv", ".txt", ".list", ".tsv")
_NUMBER = re.compile(r"split[_-]?0*(\d+)")


def split_named(written: str) -> str:
    """The standard name of a split; unknown words are kept."""
    return SPLIT_NAMES.get(written.strip().casefold(), written.strip())


def split_of(file: Path) -> str | None:
    """The split in a file's name; None if the name contains none, or several."""
    words = re.split(r"[^a-z]+", file.name.lower())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES and not word.startswith("eval")}
    return named.pop() if len(named) == 1 else None


def _number_of(file: Path) -> int:
    match = _NUMBER.search(file.name.lower())
    return int(match[1]) or 1 if match else 1


def lists_of(path: Path, is_one: Callable[[Path], bool]) -> list[Path]:
    """The file itself, or the files of a folder whose names contain a split, as far as `is_one` accepts them."""
    if path.is_file():
        return [path] if is_one(path) else []
    files = (file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _SUFFIXES)
    return sorted(file for file in files if split_of(file) and is_one(file))


def numbers_of(path: Path, is_one: Callable[[Path], bool]) -> tuple[int, ...]:
    """Numbers of the splits in the names of these lists; (1,) if there are none."""
    return tuple(sorted({_number_of(file) for file in lists_of(path, is_one)}))


def files_to_read(path: Path, is_one: Callable[[Path], bool], split: int | None) -> tuple[int, list[Path]]:
    """The number of the split to read, and its files: one each for train, val and test.

    If the lists for val and test are equal to the byte, as in data sets without a test list, only the latter is read.

    Raises:
        LabelsError: there is no such split, or a folder has two lists for one purpose.
    """
    number = chosen_split(path, numbers_of(path, is_one), split)
    if path.is_file():
        return number, [path]
    by_split: dict[str, Path] = {}
    for file in lists_of(path, is_one):
        name = split_of(file)
        if name is None or _number_of(file) != number:
            continue
        if name in by_split:
            raise LabelsError(f"{path}: {by_split[name].name} and {file.name} are both for {name}; name a single file")
        by_split[name] = file
    if {"val", "test"} <= by_split.keys() and by_split["val"].read_bytes() == by_split["test"].read_bytes():
        del by_split["val"]
    return number, [by_split[name] for name in ("train", "val", "test") if name in by_split]
