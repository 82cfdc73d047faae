"""Lists of labels: find their format, read them, match them with videos; what a file is that is no such list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from bgaug.errors import LabelsError
from bgaug.labels.filelist import parse_columns
from bgaug.labels.label import FORMATS, Labels, ListFormat, ReadOptions, SplitList
from bgaug.labels.match import match_entries
from bgaug.labels.reading import (
    CLASS_COLUMNS,
    FILE_COLUMNS,
    JSON_SUFFIXES,
    MAX_LINE,
    check_readable,
    first_lines,
    header_of,
    pick_column,
    read_json,
    separator_of,
    shown,
    unreadable,
)
from bgaug.video import EXTENSIONS


def _find_format(path: str | Path) -> str:
    """Name of the format of a list, or of the lists in a folder.

    Raises:
        LabelsError: there is no such file or folder, no format is recognised, or there are lists of several formats.
    """
    path = _existing(path)
    # Published names first: their content may also pass for one of the general formats.
    for by_name in (True, False):
        found = [name for name, known in FORMATS.items() if known.by_name == by_name and known.finds(path)]
        if len(found) > 1:
            raise LabelsError(f"{path}: may be of the formats {', '.join(found)}; name one of them, or a single file")
        if found:
            return found[0]
    raise LabelsError(f"{path}: {_described(path)}")


def read_list(
    path: str | Path,
    format: str = "auto",
    split: int | None = None,
    class_names: str | Path | None = None,
    first_class: int | None = None,
    columns: str | None = None,
) -> SplitList:
    """Read a list, without any video.

    Args:
        path: the file, or the folder that a data set ships.
        format: one of `FORMATS`, or "auto" to detect it.
        split: number of the split, for data sets with several. None is the number in the name of a single file, else 1.
        class_names: file with the names of numbered classes, for formats that do not contain them.
        first_class: number of the first of these classes in the list, 0 or 1; None to guess it.
        columns: columns of a list without a header, such as "path,frames,label"; None to guess them.

    Raises:
        LabelsError: no format is recognised, or a file cannot be understood; the message names file and line.
    """
    path, known = _path_and_format(path, format)
    names = None if class_names is None else Path(class_names)
    parsed = None if columns is None else parse_columns(columns)
    return known.read(path, ReadOptions(split, names, first_class, parsed))


def split_numbers(path: str | Path, format: str = "auto") -> tuple[int, ...]:
    """Numbers of the splits of a file or folder; (1,) for a format with only one.

    Raises:
        LabelsError: no format is recognised.
    """
    path, known = _path_and_format(path, format)
    return known.numbers(path)


def labels_for(
    path: str | Path,
    ids: Sequence[str],
    format: str = "auto",
    split: int | None = None,
    class_names: str | Path | None = None,
    first_class: int | None = None,
    columns: str | None = None,
) -> Labels:
    """Labels, groups and splits of videos whose files are not available, such as those of a store, by their ids.

    The other arguments are those of `read_list`.

    Raises:
        LabelsError: as `read_list`, and if rows and videos do not match: see `match_entries`.
    """
    return match_entries(read_list(path, format, split, class_names, first_class, columns), ids)


def read_labels(
    file: str | Path,
    videos: Mapping[str, Path],
    format: str = "csv",
    split: int | None = None,
    class_names: str | Path | None = None,
    first_class: int | None = None,
    columns: str | None = None,
) -> Labels:
    """Labels of videos whose files are available, by default from a CSV with a header.

    Columns of the CSV: `file`, a path relative to the CSV (a bare name, if it is unique among the videos); one of
    `class_name`, `class`, `label`, `class_id`; optionally `group` and `split`. Other columns are ignored; see
    `bgaug.labels.reading` for other accepted names of these columns. `videos` contains the path of each video by id;
    the other arguments are those of `read_list`.

    Raises:
        LabelsError: the file cannot be read, a column is missing, or no usable row matches any video.
    """
    return match_entries(read_list(file, format, split, class_names, first_class, columns), videos, videos)


def _path_and_format(path: str | Path, format: str) -> tuple[Path, ListFormat]:
    path = Path(path)
    if format == "auto":
        return path, FORMATS[_find_format(path)]
    if format not in FORMATS:
        raise LabelsError(f"formats of lists are auto, {', '.join(FORMATS)}; got {format!r}")
    known: ListFormat = FORMATS[format]
    # A CSV that was requested by name has errors of its own, which name the missing column.
    if format != "csv" and not known.finds(_existing(path)):
        raise LabelsError(f"{path}: is not of the format {format}. Looked for: {known.looked_for}. {_described(path)}")
    return path, known


def _existing(path: str | Path) -> Path:
    """The path, if it is a file or folder that can be read. Raises LabelsError: it is not."""
    path = Path(path)
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # fails if the folder cannot be listed
            return path
    except OSError as error:
        raise unreadable(path, error) from error
    check_readable(path)
    return path


# --- messages for files of unknown formats --------------------------------------------------------

_MAGIC = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx); save its sheet as CSV in UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (.xls); save its sheet as CSV in UTF-8",
    b"\x1f\x8b": "packed with gzip; unpack it",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"PAR1": "a Parquet file; write it as CSV with the columns file and label",
    b"\x93NUMPY": "a NumPy array; write it as CSV with the columns file and label",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch it with `git lfs pull`",
}
_TABLE = "a table whose first line names the columns, such as `file,label`"
_LINES = "lines of a path and the number of its class, such as `run/a.mp4 0`"


def _described(path: Path) -> str:
    """What a file or folder contains, and what to change so that it is read."""
    if path.is_dir():
        return _described_folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return f"is empty; expected {_TABLE}, or {_LINES}"
    # From the certain to the likely: magic numbers, then zero bytes, then text.
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"is {what}"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return (
            "is a pickle of Python, which may run code; name it .pickle to have its plain rows read, or write it as "
            f"{_TABLE}"
        )
    if b"\0" in head and (encoding := _wide_encoding(head)):
        return (
            f"is {encoding} without a byte order mark; save it as UTF-8, such as by "
            f"`iconv -f {encoding} -t UTF-8 {path.name}`"
        )
    if b"\0" in head and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return f"is not text: it begins with {head[:16]!r}; expected {_TABLE}, or {_LINES}"
    return _described_json(path) if path.suffix.lower() in JSON_SUFFIXES else _described_text(path)


def _wide_encoding(head: bytes) -> str | None:
    """The encoding of text that has a zero byte next to each letter."""
    pairs = head[: len(head) // 2 * 2]
    for encoding in ("UTF-16LE", "UTF-16BE"):
        text = pairs.decode(encoding, "replace")
        if sum(" " <= c <= "~" for c in text) > len(text) // 2:
            return encoding
    return None


def _described_folder(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    there = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "no files"
    return (
        f"no list of labels is recognised by its name. The folder has {there}. Name the file itself, or call it "
        "labels.csv or train.csv. Lists of data sets are recognised by their published names, such as trainlist01.txt, "
        "wave_test_split1.txt, something-something-v2-labels.json or Diving48_V2_train.json"
    )


def _described_json(path: Path) -> str:
    expected = 'expected a list of objects such as {"file": "run/a.mp4", "label": "run"}, one for each video'
    try:
        found = read_json(path) if path.suffix.lower() == ".json" else first_lines(path)
    except LabelsError as error:
        return f"{str(error).removeprefix(str(path)).lstrip(':, ')}; {expected}"
    kind = "an object" if isinstance(found, dict) else "a list" if isinstance(found, list) else type(found).__name__
    inside = next(iter(found), None) if isinstance(found, dict | list) else found
    return f"is JSON: {kind} that begins with {shown(inside)}; {expected}"


def _described_text(path: Path) -> str:
    lines = first_lines(path, 50)
    if not lines:
        return f"has only blank lines and comments; expected {_TABLE}, or {_LINES}"
    first = next((line for line in lines if not line.startswith("#")), lines[0])
    if len(first) > MAX_LINE:
        return f"begins with a line of over {MAX_LINE} characters: {shown(first)}; expected {_TABLE}, or {_LINES}"
    header = header_of(first)
    file_column, class_column = pick_column(header, FILE_COLUMNS), pick_column(header, CLASS_COLUMNS)
    if file_column or class_column:
        lacking = "the class of each video `label`" if file_column else "the path of each video `file`"
        return f"its first line names the columns {', '.join(header)[:200]}; call the one with {lacking}"
    if re.search(r"[^0-9][0-9]{6,}$", first):
        return f"its first line is {shown(first)}, and ends with a number too large for a class; expected {_LINES}"
    separator = separator_of(first)
    cells = [cell.strip("\"' ") for cell in (first.split(separator) if separator in first else first.split())]
    if len(cells) > 1 and PurePosixPath(cells[0]).suffix.lower() in EXTENSIONS:
        return (
            f"its first line is {shown(first)}, and the class at its end is a name, not a number; put a line "
            "`file,label` before it, and a comma between path and class"
        )
    return f"its first line is {shown(first)}; expected {_TABLE}, or {_LINES}"
