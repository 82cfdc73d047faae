"""Lists of a path and a class per row: lines of a path and a number, as most training code has them, and pickles.

A line is `path label`, separated by blanks, a tab, a comma or a semicolon, or `folder frames label`, in which the
number before the label is the length of the video. Paths may contain blanks and be quoted. The first line determines
the separator; all lines together determine whether there are lengths. A label of -1 means no label.

A number that may be a label is not assumed to be a length: `video.mp4 3 7` may be a video with two classes, which is
not supported. Such a list is refused until its columns are named. Classes are named by their numbers, unless a file
contains their names: the given one, else the only label_map*.txt in the folder of the list. A list of lengths without
labels has the same form as one of labels; the two cannot be distinguished.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bgaug.errors import LabelsError
from bgaug.files import MalformedFile, read_regular
from bgaug.files.pickles import load_plain
from bgaug.labels.class_names import LONGEST_NAME, NumberedRow, name_classes, read_class_names, refuse_several
from bgaug.labels.label import (
    Entry,
    ListFormat,
    ReadOptions,
    SplitList,
    chosen_split,
    files_to_read,
    lists_of,
    numbers_of,
    split_of,
)
from bgaug.labels.reading import JSON_SUFFIXES, first_lines, read_lines, shown, unreadable
from bgaug.video import EXTENSIONS

_LEAST_FRAMES = 8  # a smaller number before the label is not assumed to be a length

_COLUMNS = ("path", "offset", "frames", "label")  # length and offset are recognised, but not used
_SEPARATORS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", " ": "a blank"}
_NUMBER = re.compile(r"-1|[0-9]{1,7}")
_LABEL = re.compile(r"-1|[0-9]{1,5}")
_MORE_NUMBERS = re.compile(
    rf"\.(?:{'|'.join(sorted(extension[1:] for extension in EXTENSIONS))})[\"']?[\s,;:|+][0-9\s,;:|+]*$", re.IGNORECASE
)
_MOST_NUMBERS = 64


@dataclass(frozen=True, slots=True)
class _Row:
    """A line, taken apart."""

    place: str  # file and line, for messages
    line: str  # the line as written
    paths: tuple[str, ...]  # text before the last n numbers, n from 1 on
    numbers: tuple[int, ...]  # numbers at the end of the line

    @property
    def path(self) -> str:
        """Text before all numbers."""
        return self.paths[-1]


def _is_one(file: Path) -> bool:
    return file.suffix.lower() not in JSON_SUFFIXES and _separator(_first_row(file)) is not None


def _first_row(file: Path) -> str:
    """The first line that is not a comment; a file name may begin with #."""
    lines = (line for line in first_lines(file, 50) if not line.startswith("#") or _separator(line))
    return next(lines, "")


def _separator(line: str) -> str | None:
    """The separator before the label at the end of a line; None if the line has another format."""
    return next((separator for separator in _SEPARATORS if _taken_apart(line, separator)[1]), None)


def _taken_apart(line: str, separator: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Text before the last n numbers, and the numbers; both empty if the line has none, or consists of them."""
    rest = line.rstrip(" \t,;")
    paths: list[str] = []
    numbers: list[int] = []
    while len(numbers) < _MOST_NUMBERS:
        before, found, last = rest.rpartition(separator)
        last = _unquoted(last.strip())
        if not found or not before.strip(" \t,;") or not (_NUMBER if numbers else _LABEL).fullmatch(last):
            break
        numbers.insert(0, int(last))
        rest = before.rstrip(" \t,;")
        paths.append(_unquoted(rest.strip()))
    return tuple(paths), tuple(numbers)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0]).strip()
    return text


def _read(path: Path, options: ReadOptions) -> SplitList:
    number, files = files_to_read(path, _is_one, options.split)
    rows: list[NumberedRow] = []
    splits: list[str | None] = []
    notes: dict[str, None] = {}
    for file in files:
        found, more = _numbered(file, options.columns)
        rows += found
        splits += [split_of(file)] * len(found)
        notes |= dict.fromkeys(more)
    named_by = options.class_names or _label_map(files[0].parent)
    if named_by is None:
        classes, names = _by_number(rows, options.first_class or 0)
        notes |= dict.fromkeys(_names_nearby(files[0].parent))
    else:
        known = read_class_names(named_by)
        names, more = name_classes(rows, known, options.first_class)
        classes = known.with_gaps
        notes |= dict.fromkeys(more)
    entries = [
        Entry((row.path,), name, None, split, row.place) for row, name, split in zip(rows, names, splits, strict=True)
    ]
    read = tuple(files) if named_by is None else (*files, named_by)
    return SplitList("filelist", number, tuple(entries), classes, read, "tail", tuple(notes))


def _by_number(rows: Sequence[NumberedRow], first: int) -> tuple[tuple[str, ...], list[str | None]]:
    """All numbers up to the highest class, so that each number is its own index; and the class of each row."""
    below = next((row for row in rows if row.number is not None and row.number < first), None)
    if below is not None:
        raise LabelsError(f"{below.place}: the label {below.number} is less than that of the first class, {first}")
    highest = max((row.number for row in rows if row.number is not None), default=-1)
    names = [None if row.number is None else str(row.number) for row in rows]
    return tuple(map(str, range(first, highest + 1))), names


def _label_map(folder: Path) -> Path | None:
    maps = list(folder.glob("label_map*.txt"))
    return maps[0] if len(maps) == 1 else None


def _names_nearby(folder: Path) -> tuple[str, ...]:
    found = [
        name
        for name in ("classInd.txt", "classes.txt", "class_names.txt", "categories.txt")
        if (folder / name).is_file()
    ]
    return tuple(
        f"classes are named by their numbers; {name} in the same folder may contain their names: --class-names {name}"
        for name in found[:1]
    )


def _numbered(file: Path, columns: tuple[str, ...] | None) -> tuple[list[NumberedRow], tuple[str, ...]]:
    """Rows of a file, and notes on what was guessed."""
    rows = _rows(file)
    notes: tuple[str, ...] = ()
    if columns is None:
        columns = _guess_columns(rows)
        if len(columns) > 2:
            notes = (f"{file.name}: the number before the label is assumed to be a length; change it with --columns",)
    return [_by_columns(row, columns) for row in rows], notes


def _by_columns(row: _Row, columns: tuple[str, ...]) -> NumberedRow:
    count = len(columns) - 1
    if len(row.numbers) < count:
        raise LabelsError(f"{row.place}: expected {' '.join(columns)}, got {shown(row.line)}")
    values = dict(zip(columns[1:], row.numbers[-count:], strict=True))
    if values.get("offset", 0) != 0:
        raise LabelsError(
            f"{row.place}: begins at frame {values['offset']} of its video; expected labels of whole videos"
        )
    return NumberedRow(row.place, row.paths[count - 1], None if values["label"] < 0 else values["label"])


def _guess_columns(rows: Sequence[_Row]) -> tuple[str, ...]:
    """The columns of a list. Raises LabelsError: a row may have several labels."""
    named = next((row for row in rows if _has_several(row)), None)
    if named is not None:
        raise _unclear(named)
    if min((len(row.numbers) for row in rows), default=1) == 1:
        return ("path", "label")
    doubtful = next((row for row in rows if len(row.numbers) > 2 or row.numbers[0] < _LEAST_FRAMES), None)
    if doubtful is not None:
        raise _unclear(doubtful)
    return ("path", "frames", "label")


def _has_several(row: _Row) -> bool:
    """Whether several numbers follow the name of a video, with any separator: `a.mp4 0 3`, `a.mp4 0,3`."""
    if PurePosixPath(row.path).suffix.lower() in EXTENSIONS:
        return len(row.numbers) > 1
    return _MORE_NUMBERS.search(row.path) is not None


def _unclear(row: _Row) -> LabelsError:
    return LabelsError(
        f"{row.place}: has {len(row.numbers)} numbers after the path: {shown(row.line)}. Expected one label per video: "
        "if these are several labels, keep one of them. If one is a length, name the columns: "
        "--columns path,frames,label or path,offset,frames,label"
    )


def parse_columns(text: str) -> tuple[str, ...]:
    """Columns of a list, from a text with commas or blanks.

    Raises:
        LabelsError: they are not a path first, a label last, and at most an offset and a length in between.
    """
    found = tuple(part for part in re.split(r"[,\s]+", text.strip().lower()) if part)
    if (
        len(found) < 2
        or found[0] != "path"
        or found[-1] != "label"
        or len(set(found)) < len(found)
        or not set(found) <= set(_COLUMNS)
    ):
        raise LabelsError(f"columns are path,label or path,frames,label or path,offset,frames,label; got {text!r}")
    return found


def _rows(file: Path) -> list[_Row]:
    """The lines of a file, taken apart."""
    separator = _separator(_first_row(file)) or " "
    rows = []
    for number, line in read_lines(file):
        paths, numbers = _taken_apart(line, separator)
        if numbers:
            rows.append(_Row(f"{file}, line {number}", line, paths, numbers))
        elif not line.startswith("#"):
            raise LabelsError(
                f"{file}, line {number}: expected a path, {_SEPARATORS[separator]} and the number of a class, "
                f"got {shown(line)}"
            )
    return rows


FILELIST = ListFormat(
    looked_for="lines of a path and the number of its class (in a folder: train.csv, val.txt, ...)",
    finds=lambda path: bool(lists_of(path, _is_one)),
    numbers=lambda path: numbers_of(path, _is_one),
    read=_read,
    by_name=False,
)

# --- pickles, such as the splits of HAT -------------------------------------------------------------------------------

# Accepted are rows of a path and a class, (path, label), (path, frames, label) or a mapping with such keys, and
# mappings from a path to a class or to (other, frames, label). The last form is that of HAT's pairs: the video of the
# background, its number of frames, and the label that HAT counts as correct. Nothing in the file is executed.

_PICKLES = (".pickle", ".pkl")
_LARGEST = 32 << 20
_OPERATIONS = 1_000_000
_PATH_KEYS = ("path", "file", "video", "name", "frame_dir", "filename")
_LABEL_KEYS = ("label", "class", "class_name", "class_id")


def _is_pickle(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in _PICKLES


def _read_pickle(path: Path, options: ReadOptions) -> SplitList:
    chosen_split(path, (1,), options.split)
    if options.columns is not None:
        raise LabelsError(f"{path}: --columns is for lists of lines; a pickle defines its rows itself")
    rows = [(f"{path}, row {place}", *row) for place, row in enumerate(_pickled_rows(path, _unpickled(path)), start=1)]
    if not rows:
        raise LabelsError(f"{path}: contains no rows")
    files: tuple[Path, ...] = (path,)
    notes: tuple[str, ...] = ()
    if any(isinstance(label, str) for _, _, label in rows):
        if options.class_names is not None or options.first_class is not None:
            raise LabelsError(f"{path}: contains class names; leave out --class-names and --first-class")
        classes: tuple[str, ...] = ()
        names = [_class_name(label, place) for place, _, label in rows]
        refuse_several([(f"{place}: the row", name or "") for (place, _, _), name in zip(rows, names, strict=True)])
    else:
        numbered = [
            NumberedRow(place, _path_of(name, place), _class_number(label, place)) for place, name, label in rows
        ]
        if options.class_names is None:
            classes, names = _by_number(numbered, options.first_class or 0)
        else:
            known = read_class_names(options.class_names)
            names, notes = name_classes(numbered, known, options.first_class)
            classes, files = known.with_gaps, (path, options.class_names)
    split = split_of(path)
    entries = [
        Entry((_path_of(name, place),), called, None, split, place)
        for (place, name, _), called in zip(rows, names, strict=True)
    ]
    return SplitList("pickle", 1, tuple(entries), classes, files, "tail", tuple(notes))


def _unpickled(path: Path) -> Any:
    try:
        return load_plain(read_regular(path, _LARGEST), operations=_OPERATIONS)
    except OSError as error:
        raise unreadable(path, error) from error
    except MalformedFile as error:
        raise LabelsError(
            f"{path}: cannot be read as a list: {error}. If you trust it, write it as a CSV with the "
            "columns file and label"
        ) from error


def _pickled_rows(path: Path, value: Any) -> Iterator[tuple[Any, Any]]:
    """Path and label of each row."""
    if isinstance(value, dict):
        yield from ((name, _label_of(path, label)) for name, label in value.items())
        return
    if not isinstance(value, (list, tuple)):
        raise LabelsError(f"{path}: expected rows, or labels by path, got {type(value).__name__}")
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            named = [next((row[key] for key in keys if key in row), None) for keys in (_PATH_KEYS, _LABEL_KEYS)]
            yield named[0], named[1]
        elif isinstance(row, (list, tuple)) and len(row) in (2, 3):
            if len(row) == 3 and (type(row[1]) is not int or row[1] < _LEAST_FRAMES):
                raise LabelsError(
                    f"{path}, row {number}: {_brief(row[1])} before the label is not a length in frames, and may be "
                    "another label; a video has one: make the rows (path, label)"
                )
            yield row[0], row[-1]
        else:
            raise LabelsError(
                f"{path}, row {number}: expected (path, label) or (path, frames, label), got {_brief(row)}"
            )


def _label_of(path: Path, value: Any) -> Any:
    """The label in a value of a mapping."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != 3 or isinstance(value[0], int):
        raise LabelsError(f"{path}: expected a label, or (other, frames, label), for each path, got {_brief(value)}")
    return value[2]


def _path_of(name: Any, place: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise LabelsError(f"{place}: expected the path of a video, got {_brief(name)}")
    return name.strip()


def _class_name(label: Any, place: str) -> str | None:
    """A class by its name; -1 is no class."""
    if label == -1:
        return None
    if not isinstance(label, str) or not label.strip():
        raise LabelsError(f"{place}: expected the name of a class, as other rows have, got {_brief(label)}")
    if len(label) > LONGEST_NAME:
        raise LabelsError(f"{place}: has {len(label)} characters, expected the name of a class")
    return label.strip()


def _class_number(label: Any, place: str) -> int | None:
    """A class by its number; -1 is no class."""
    if type(label) is not int or not -1 <= label < 100_000:
        raise LabelsError(f"{place}: expected the number or name of one class, got {_brief(label)}")
    return None if label < 0 else label


def _brief(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__


PICKLE = ListFormat(
    looked_for="a .pickle or .pkl file of paths and labels",
    finds=_is_pickle,
    read=_read_pickle,
)
