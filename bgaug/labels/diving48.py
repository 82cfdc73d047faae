"""Diving48: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json.

Only version 2 is read: many labels of version 1 are wrong. Each entry has a `vid_name`, the number of its class and its
frames in the recording, which have no meaning for the published clips. A class name is the four words of the
vocabulary, joined by underscores, or the number if the vocabulary is missing. 47 of 48 numbers are used: number 30 has
no video in either list, and the others keep their numbers. The group is the recording, a competition: the name without
the number at its end.

Reference: Li, Li, Vasconcelos, "RESOUND: Towards action recognition without representation bias", ECCV 2018.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.label import Entry, ListFormat, ReadOptions, SplitList, chosen_split, ordered, refuse_numbering
from bgaug.labels.reading import read_json

_NUM_CLASSES = 48  # numbers of labels; one of them has no video
_FILE = re.compile(r"Diving48_V2_(train|test)\.json")
_NUMBERED = re.compile(r"(.+)_\d+")
_VOCABULARY = "Diving48_vocab.json"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _FILE.fullmatch(path.name) else []
    return sorted((file for file in path.iterdir() if _FILE.fullmatch(file.name)), reverse=True)


def _read(path: Path, options: ReadOptions) -> SplitList:
    refuse_numbering(path, options, "Diving48")
    chosen_split(path, (1,), options.split)
    files = _files(path)
    vocabulary = files[0].parent / _VOCABULARY
    names = _vocabulary(vocabulary) if vocabulary.is_file() else tuple(map(str, range(_NUM_CLASSES)))
    entries = [entry for file in files for entry in _entries(file, names)]
    read = (*files, vocabulary) if vocabulary.is_file() else tuple(files)
    return SplitList("diving48", 1, tuple(entries), names, read, "any")


def _vocabulary(file: Path) -> tuple[str, ...]:
    words = read_json(file)
    if not isinstance(words, list) or not all(isinstance(one, list) for one in words) or len(words) != _NUM_CLASSES:
        raise LabelsError(f"{file}: expected a list of {_NUM_CLASSES} lists of words, one for each class")
    names = tuple("_".join(map(str, one)) for one in words)
    if len(set(names)) != len(names):
        raise LabelsError(f"{file}: the class {ordered(n for n in names if names.count(n) > 1)[0]!r} occurs twice")
    return names


def _entries(file: Path, names: tuple[str, ...]) -> list[Entry]:
    rows = read_json(file)
    if not isinstance(rows, list):
        raise LabelsError(f"{file}: expected a list of videos, got {type(rows).__name__}")
    split = "train" if "_train" in file.name else "test"
    found = []
    for number, row in enumerate(rows, start=1):
        place = f"{file}, entry {number}"
        name, label = (row.get("vid_name"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not name or not isinstance(label, int):
            raise LabelsError(f"{place}: expected an object with a `vid_name` and the number of a `label`, got {row!r}")
        if not 0 <= label < len(names):
            raise LabelsError(f"{place}: the label {label} is not in 0 to {len(names) - 1}")
        match = _NUMBERED.fullmatch(name)
        found.append(Entry((name,), names[label], match[1] if match else None, split, place))
    return found


FORMAT = ListFormat(
    looked_for="Diving48's Diving48_V2_train.json and Diving48_V2_test.json (Diving48_vocab.json beside them)",
    finds=lambda path: bool(_files(path)),
    read=_read,
)
