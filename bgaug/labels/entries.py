"""What a list says, before any video is looked for: one entry a row, whatever the format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bgaug.errors import LabelsError
from bgaug.labels.label import ordered
from bgaug.labels.reading import normal, shown

Folders = Literal["path", "tail", "any"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a list.

    Attributes:
        names: what the row calls its video, a path with or without folders and extension; where there is more than
            one, later ones are what the video may be called as well.
        class_name: None where the row has no class, as in a test list whose labels are secret.
        group: what a split must not tear apart; None where it is not known.
        split: "train", "val", "test", "unused", ...; None where it is not known.
        place: where the row stands, for messages: "trainlist01.txt, line 3".

    Class, group and split are kept in the one normal form of their characters.

    Raises:
        LabelsError: one of them cannot be written as UTF-8.
    """

    names: tuple[str, ...]
    class_name: str | None
    group: str | None
    split: str | None
    place: str

    def __post_init__(self) -> None:
        for name in ("class_name", "group", "split"):
            text = getattr(self, name)
            if text is None or text.isascii():
                continue
            if text != text.encode("utf-8", "replace").decode():
                raise LabelsError(
                    f"{self.place}: the {name.partition('_')[0]} {shown(text)} is no text: it has half a character in it; "
                    "write it as UTF-8"
                )
            object.__setattr__(self, name, normal(text))


@dataclass(frozen=True)
class ReadOptions:
    """How a list is read, where it does not say so itself.

    Attributes:
        split: number of the split, where a data set has several; None is the number in the name of a single file,
            else 1.
        class_names: file with the names of numbered classes, for formats that do not bring them.
        first_class: number that the list has for the first class, 0 or 1; None to find out.
        columns: what stands on each line of a list without header, such as ("path", "frames", "label"); None to find out.
    """

    split: int | None = None
    class_names: Path | None = None
    first_class: int | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SplitList:
    """A list, or one split of a set of lists.

    Attributes:
        format: its name, one of `FORMATS`.
        split: its number; 1 where a format has but one.
        entries: in the order of the files.
        classes: names in the order of the numbers that the data set gives them, also those that no row has. Empty
            where the format knows no order.
        files: that were read.
        folders: how folders of a row are held against those of a video. "path": the row is a path relative to the
            list. "tail": from the file's name upwards they agree as far as both reach. "any": the data set gives
            no file name twice; folders only decide where videos have the same name nevertheless.
        notes: what was guessed while it was read, for people.
    """

    format: str
    split: int
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    folders: Folders
    notes: tuple[str, ...] = ()

    @property
    def used_classes(self) -> tuple[str, ...]:
        """Classes that some row has, in the order of `classes`."""
        used = {entry.class_name for entry in self.entries}
        return tuple(name for name in self.classes if name in used) if self.classes else ordered(used)

    @property
    def sizes(self) -> Mapping[str | None, int]:
        """Rows of each split."""
        return Counter(entry.split for entry in self.entries)


@dataclass(frozen=True)
class ListFormat:
    """How lists of one format are found and read.

    Attributes:
        looked_for: what makes a file or folder one of these, in words.
        finds: whether a file or folder is one; true only where `read` would understand it or say what is wrong.
        numbers: of the splits that are there.
        read: one split of it.
        by_name: whether the names of the files tell, rather than what is in them.
    """

    looked_for: str
    finds: Callable[[Path], bool]
    numbers: Callable[[Path], tuple[int, ...]]
    read: Callable[[Path, ReadOptions], SplitList]
    by_name: bool = True


def chosen_split(path: Path, numbers: tuple[int, ...], split: int | None) -> int:
    """The number of the split to read.

    Raises:
        LabelsError: there is none of that number.
    """
    if split is None:
        return numbers[0] if path.is_file() or 1 not in numbers else 1
    if split in numbers:
        return split
    there = ", ".join(map(str, numbers))
    mend = "; name its folder to choose among all" if path.is_file() and len(numbers) == 1 else ""
    raise LabelsError(f"{path}: has no split {split}, only {there}{mend}")


def refuse_numbering(path: Path, options: ReadOptions, format_name: str) -> None:
    """Refuse options that are for numbered classes and lists without header, where the format has neither.

    Raises:
        LabelsError: one was given.
    """
    if options.class_names is not None:
        raise LabelsError(f"{path}: {format_name} lists name their classes themselves; leave out {options.class_names}")
    if options.first_class is not None or options.columns is not None:
        raise LabelsError(
            f"{path}: a first class and columns are about lists of a path and a number, not {format_name}"
        )
