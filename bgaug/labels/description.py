"""What a file or folder holds that is no list of a known format, and what to change, in one message."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from bgaug.errors import LabelsError
from bgaug.labels.reading import MAX_LINE, first_lines, read_json, shown
from bgaug.labels.table import CLASS_COLUMNS, FILE_COLUMNS, JSON_SUFFIXES, header_of, pick_column, separator_of
from bgaug.video import EXTENSIONS

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


def described(path: Path) -> str:
    """What stands in a file, or lies in a folder, and what bgaug would read instead."""
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return f"is empty; expected {_TABLE}, or {_LINES}"
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"is {what}"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"is a pickle of Python, which may run code; name it .pickle to have its plain rows read, or write it as {_TABLE}"
    if b"\0" in head and (encoding := _wide(head)):
        return f"is {encoding} without a byte order mark; save it as UTF-8, such as by `iconv -f {encoding} -t UTF-8 {path.name}`"
    if b"\0" in head and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return f"is no text: it begins with {head[:16]!r}; expected {_TABLE}, or {_LINES}"
    return _json(path) if path.suffix.lower() in JSON_SUFFIXES else _text(path)


def _wide(head: bytes) -> str | None:
    """The encoding of text that has a zero beside each letter."""
    pairs = head[: len(head) // 2 * 2]
    for encoding in ("UTF-16LE", "UTF-16BE"):
        text = pairs.decode(encoding, "replace")
        if sum(" " <= c <= "~" for c in text) > len(text) // 2:
            return encoding
    return None


def _folder(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    there = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "no files"
    return (
        f"no list of labels is recognised by its name. The folder has {there}. Name the file itself, or call it labels.csv or "
        "train.csv. Lists of data sets are known by the names they are published with, such as trainlist01.txt, "
        "wave_test_split1.txt, something-something-v2-labels.json or Diving48_V2_train.json"
    )


def _json(path: Path) -> str:
    expected = 'expected a list of objects such as {"file": "run/a.mp4", "label": "run"}, one for each video'
    try:
        found = read_json(path) if path.suffix.lower() == ".json" else first_lines(path)
    except LabelsError as error:
        return f"{str(error).removeprefix(str(path)).lstrip(':, ')}; {expected}"
    kind = "an object" if isinstance(found, dict) else "a list" if isinstance(found, list) else type(found).__name__
    inside = next(iter(found), None) if isinstance(found, dict | list) else found
    return f"is JSON: {kind} that begins with {shown(inside)}; {expected}"


def _text(path: Path) -> str:
    lines = first_lines(path, 50)
    if not lines:
        return f"holds no line but blank ones and comments; expected {_TABLE}, or {_LINES}"
    first = next((line for line in lines if not line.startswith("#")), lines[0])
    if len(first) > MAX_LINE:
        return f"begins with a line of over {MAX_LINE} characters: {shown(first)}; expected {_TABLE}, or {_LINES}"
    header = header_of(first)
    file_column, class_column = pick_column(header, FILE_COLUMNS), pick_column(header, CLASS_COLUMNS)
    if file_column or class_column:
        lacking = "the class of each video `label`" if file_column else "the path of each video `file`"
        return f"its first line names the columns {', '.join(header)[:200]}; call the one with {lacking}"
    if re.search(r"[^0-9][0-9]{6,}$", first):
        return f"its first line is {shown(first)}, and ends with a number that no class has; expected {_LINES}"
    if _path_and_name(first, separator_of(first)):
        return (
            f"its first line is {shown(first)}, and the class at its end is a name, not a number; put a line `file,label` before "
            "it, and a comma between path and class"
        )
    return f"its first line is {shown(first)}; expected {_TABLE}, or {_LINES}"


def _path_and_name(line: str, separator: str) -> bool:
    """Whether a line is the path of a video and something else."""
    cells = [cell.strip("\"' ") for cell in (line.split(separator) if separator in line else line.split())]
    return len(cells) > 1 and PurePosixPath(cells[0]).suffix.lower() in EXTENSIONS
