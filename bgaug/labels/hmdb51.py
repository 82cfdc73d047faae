"""HMDB51: a file for each class and split, brush_hair_test_split1.txt to wave_test_split3.txt.

A line contains a file name, 1 (train), 2 (test) or 0 (neither), and a blank at its end. Class names contain
underscores: the class is everything before `_test_split`. File names contain &, #, !, ;, brackets and parentheses.
Videos marked 0 keep their class and get the split "unused": the protocol does not use them, but they are available for
training without labels.

Reference: Kuehne, Jhuang, Garrote, Poggio, Serre, "HMDB: a large video database for human motion recognition",
ICCV 2011.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.label import Entry, ListFormat, ReadOptions, SplitList, chosen_split, ordered, refuse_numbering
from bgaug.labels.reading import first_lines, read_lines

_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
# Visible body, camera motion, number of people, camera's direction, quality; then the number of the clip.
_META = re.compile(r"_[hufl]_(cm|nm)_np\d+_(fr|ba|le|ri)_(goo|med|bad)_\d+(\.\w+)?$")
_SPLITS = {"0": "unused", "1": "train", "2": "test"}
_INSIDE = "testTrainMulti_7030_splits"


def _lists(path: Path) -> dict[int, dict[str, Path]]:
    """Lists by the number of their split, then by class."""
    if path.is_dir() and not any(_LIST.fullmatch(file.name) for file in path.iterdir()):
        path = path / _INSIDE
    files = path.iterdir() if path.is_dir() else [path]
    found: dict[int, dict[str, Path]] = {}
    for file in sorted(files):
        if match := _LIST.fullmatch(file.name):
            found.setdefault(int(match[2]), {})[match[1]] = file
    return dict(sorted(found.items()))


def _finds(path: Path) -> bool:
    files = [file for by_class in _lists(path).values() for file in by_class.values()]
    # Lists of paths may have such names, too: ucf101_test_split1.txt.
    return bool(files) and not any("/" in line for line in first_lines(files[0]))


def _read(path: Path, options: ReadOptions) -> SplitList:
    refuse_numbering(path, options, "HMDB51")
    lists = _lists(path)
    number = chosen_split(path, tuple(lists), options.split)
    missing = {name for files in lists.values() for name in files} - set(lists[number])
    if missing:
        raise LabelsError(f"{path}: split {number} lacks {min(missing)}_test_split{number}.txt, other splits have it")
    entries = [entry for name, file in lists[number].items() for entry in _entries(file, name)]
    return SplitList("hmdb51", number, tuple(entries), ordered(lists[number]), tuple(lists[number].values()), "any")


def _entries(file: Path, class_name: str) -> list[Entry]:
    found = []
    for line_number, line in read_lines(file):
        name, _, mark = line.rpartition(" ")
        place = f"{file}, line {line_number}"
        if not name or mark not in _SPLITS:
            raise LabelsError(f"{place}: expected a file's name and 0, 1 or 2, got {line!r}")
        name = name.strip()
        found.append(Entry((f"{class_name}/{name}",), class_name, _recording(name), _SPLITS[mark], place))
    return found


def _recording(name: str) -> str | None:
    """The recording, and class, that a clip of HMDB51 was cut from: its name without description and number.

    This is a guess: names are `RECORDING_class_h_cm_np1_fr_goo_0.avi`, but it is not documented that a recording has
    one name. The three splits agree with it: none has clips of one such group in both train and test. Clips of the same
    film in other classes form groups of their own, and the splits do separate those.

    Returns:
        None if the name has another form.
    """
    stem = _META.sub("", name)
    return stem if stem != name else None


FORMAT = ListFormat(
    looked_for="HMDB51's brush_hair_test_split1.txt, ...",
    finds=_finds,
    numbers=lambda path: tuple(_lists(path)),
    read=_read,
)
