"""Lists that ship as pickles, such as the splits of HAT: only containers, text and numbers; nothing is executed.

Accepted are rows of a path and a class (`(path, label)`, `(path, frames, label)`, or a mapping with such keys), and
mappings from a path to a class or to `(other, frames, label)`. The last form is that of HAT's pairs: the video of the
background, its number of frames, and the label that HAT counts as correct. Numbered classes are named by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError
from bgaug.files.pickles import load_plain
from bgaug.files.regular import MalformedFile, read_regular
from bgaug.labels.class_names import LONGEST_NAME, NumberedRow, name_classes, read_class_names, refuse_several
from bgaug.labels.filelist import LEAST_FRAMES, by_number
from bgaug.labels.label import Entry, ListFormat, ReadOptions, SplitList, chosen_split, split_of
from bgaug.labels.reading import unreadable

_SUFFIXES = (".pickle", ".pkl")
_LARGEST = 32 << 20
_OPERATIONS = 1_000_000
_PATHS = ("path", "file", "video", "name", "frame_dir", "filename")
_LABELS = ("label", "class", "class_name", "class_id")


def _is_one(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in _SUFFIXES


def _read(path: Path, options: ReadOptions) -> SplitList:
    chosen_split(path, (1,), options.split)
    if options.columns is not None:
        raise LabelsError(f"{path}: --columns is for lists of lines; a pickle defines its rows itself")
    rows = [(f"{path}, row {place}", *row) for place, row in enumerate(_rows(path, _value(path)), start=1)]
    if not rows:
        raise LabelsError(f"{path}: contains no rows")
    files: tuple[Path, ...] = (path,)
    notes: tuple[str, ...] = ()
    if any(isinstance(label, str) for _, _, label in rows):
        if options.class_names is not None or options.first_class is not None:
            raise LabelsError(f"{path}: contains class names; leave out --class-names and --first-class")
        classes: tuple[str, ...] = ()
        names = [_name(label, place) for place, _, label in rows]
        refuse_several([(f"{place}: the row", name or "") for (place, _, _), name in zip(rows, names, strict=True)])
    else:
        numbered = [NumberedRow(place, _text(name, place), _number(label, place)) for place, name, label in rows]
        if options.class_names is None:
            classes, names = by_number(numbered, options.first_class or 0)
        else:
            known = read_class_names(options.class_names)
            names, notes = name_classes(numbered, known, options.first_class)
            classes, files = known.with_gaps, (path, options.class_names)
    split = split_of(path)
    entries = [
        Entry((_text(name, place),), called, None, split, place)
        for (place, name, _), called in zip(rows, names, strict=True)
    ]
    return SplitList("pickle", 1, tuple(entries), classes, files, "tail", tuple(notes))


def _value(path: Path) -> Any:
    try:
        return load_plain(read_regular(path, _LARGEST), operations=_OPERATIONS)
    except OSError as error:
        raise unreadable(path, error) from error
    except MalformedFile as error:
        raise LabelsError(
            f"{path}: cannot be read as a list: {error}. If you trust it, write it as a CSV with the "
            "columns file and label"
        ) from error


def _rows(path: Path, value: Any) -> Iterator[tuple[Any, Any]]:
    """Path and label of each row."""
    if isinstance(value, dict):
        yield from ((name, _label(path, label)) for name, label in value.items())
        return
    if not isinstance(value, (list, tuple)):
        raise LabelsError(f"{path}: expected rows, or labels by path, got {type(value).__name__}")
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            named = [next((row[key] for key in keys if key in row), None) for keys in (_PATHS, _LABELS)]
            yield named[0], named[1]
        elif isinstance(row, (list, tuple)) and len(row) in (2, 3):
            if len(row) == 3 and (type(row[1]) is not int or row[1] < LEAST_FRAMES):
                raise LabelsError(
                    f"{path}, row {number}: {_shown(row[1])} before the label is not a length in frames, and may be "
                    "another label; a video has one: make the rows (path, label)"
                )
            yield row[0], row[-1]
        else:
            raise LabelsError(
                f"{path}, row {number}: expected (path, label) or (path, frames, label), got {_shown(row)}"
            )


def _label(path: Path, value: Any) -> Any:
    """The label in a value of a mapping."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != 3 or isinstance(value[0], int):
        raise LabelsError(f"{path}: expected a label, or (other, frames, label), for each path, got {_shown(value)}")
    return value[2]


def _text(name: Any, place: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise LabelsError(f"{place}: expected the path of a video, got {_shown(name)}")
    return name.strip()


def _name(label: Any, place: str) -> str | None:
    """A class by its name; -1 is no class."""
    if label == -1:
        return None
    if not isinstance(label, str) or not label.strip():
        raise LabelsError(f"{place}: expected the name of a class, as other rows have, got {_shown(label)}")
    if len(label) > LONGEST_NAME:
        raise LabelsError(f"{place}: has {len(label)} characters, expected the name of a class")
    return label.strip()


def _number(label: Any, place: str) -> int | None:
    """A class by its number; -1 is no class."""
    if type(label) is not int or not -1 <= label < 100_000:
        raise LabelsError(f"{place}: expected the number or name of one class, got {_shown(label)}")
    return None if label < 0 else label


def _shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__


FORMAT = ListFormat(
    looked_for="a .pickle or .pkl file of paths and labels",
    finds=_is_one,
    read=_read,
)
