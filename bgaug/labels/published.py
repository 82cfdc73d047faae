"""The lists that data sets ship: UCF101, HMDB51, Kinetics, Something-Something V2, Diving48."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bgaug.errors import LabelsError
from bgaug.labels.class_names import read_class_names
from bgaug.labels.label import (
    SPLIT_NAMES,
    Entry,
    ListFormat,
    ReadOptions,
    SplitList,
    chosen_split,
    files_to_read,
    lists_of,
    numbers_of,
    ordered,
    refuse_numbering,
    split_named,
    split_of,
)
from bgaug.labels.reading import class_number, first_lines, header_in, read_json, read_lines, read_table


def _by_split(path: Path, pattern: re.Pattern[str], inside: str) -> dict[int, list[Path]]:
    """Lists by the number of their split: the file itself, or those in a folder or its folder `inside`."""
    if path.is_dir() and not any(pattern.fullmatch(file.name) for file in path.iterdir()):
        path = path / inside
    found: dict[int, list[Path]] = {}
    for file in sorted(path.iterdir() if path.is_dir() else [path]):
        if match := pattern.fullmatch(file.name):
            found.setdefault(int(match[2]), []).append(file)
    return dict(sorted(found.items()))


def _videos(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each entry of a JSON list."""
    rows = read_json(file)
    if not isinstance(rows, list):
        raise LabelsError(f"{file}: expected a list of videos, got {type(rows).__name__}")
    yield from ((f"{file}, entry {number}", row) for number, row in enumerate(rows, start=1))


# --- UCF101 -----------------------------------------------------------------------------------------------------------

_UCF_LIST = re.compile(r"(train|test)list(\d+)\.txt")
_UCF_VIDEO = re.compile(r"v_(?P<prefix>\w+)_(?P<group>g\d+)_c\d+(\.\w+)?")


def _ucf_lists(path: Path) -> dict[int, list[Path]]:
    return _by_split(path, _UCF_LIST, "ucfTrainTestlist")


def _read_ucf101(path: Path, options: ReadOptions) -> SplitList:
    """UCF101: classInd.txt, trainlist01.txt to trainlist03.txt, testlist01.txt to testlist03.txt.

    The published lists have CRLF line ends. Test lists contain no label: the class is the folder in the path. The class
    HandstandPushups contains files that begin with v_HandStandPushups, so the class is never taken from a file name.
    Videos are cut from recordings, `gNN` within a class; those of one recording are similar: each list keeps them
    together, and any other split must do the same.

    Reference: Soomro, Zamir, Shah, "UCF101: A dataset of 101 human actions classes from videos in the wild", 2012,
    arXiv 1212.0402.
    """
    refuse_numbering(path, options, "UCF101")
    by_split = _ucf_lists(path)
    number = chosen_split(path, tuple(by_split), options.split)
    files = by_split[number][::-1]  # training lists first
    index = files[0].parent / "classInd.txt"
    numbers = _ucf_classes(index) if index.is_file() else {}
    entries = [_ucf_entry(file, *row, numbers) for file in files for row in read_lines(file)]
    classes = tuple(sorted(numbers, key=numbers.__getitem__)) or ordered(entry.class_name for entry in entries)
    read = (*files, index) if numbers else tuple(files)
    return SplitList("ucf101", number, tuple(entries), classes, read, "any")


def _ucf_classes(file: Path) -> dict[str, int]:
    """Number of each class, from 1 on."""
    numbers: dict[str, int] = {}
    for line_number, line in read_lines(file):
        digits, _, name = line.partition(" ")
        number = class_number(digits)
        if number is None or not name or name in numbers or number in numbers.values():
            raise LabelsError(f"{file}, line {line_number}: expected a new number and a new class name, got {line!r}")
        numbers[name] = number
    return numbers


def _ucf_entry(file: Path, line_number: int, line: str, numbers: Mapping[str, int]) -> Entry:
    place = f"{file}, line {line_number}"
    split = "train" if file.name.startswith("train") else "test"
    name, *label = line.split()
    folder, _, video = name.rpartition("/")
    class_name = folder.rpartition("/")[2]
    match = _UCF_VIDEO.fullmatch(video)
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


UCF101 = ListFormat(
    looked_for="UCF101's trainlist01.txt and testlist01.txt (classInd.txt in the same folder)",
    finds=lambda path: bool(_ucf_lists(path)),
    numbers=lambda path: tuple(_ucf_lists(path)),
    read=_read_ucf101,
)

# --- HMDB51 -----------------------------------------------------------------------------------------------------------

_HMDB_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
# Visible body, camera motion, number of people, camera's direction, quality; then the number of the clip.
_HMDB_META = re.compile(r"_[hufl]_(cm|nm)_np\d+_(fr|ba|le|ri)_(goo|med|bad)_\d+(\.\w+)?$")
_HMDB_SPLITS = {"0": "unused", "1": "train", "2": "test"}


def _hmdb_lists(path: Path) -> dict[int, dict[str, Path]]:
    """Lists by the number of their split, then by class; class names contain underscores."""
    by_split = _by_split(path, _HMDB_LIST, "testTrainMulti_7030_splits")
    return {n: {file.name.rpartition("_test_split")[0]: file for file in files} for n, files in by_split.items()}


def _finds_hmdb51(path: Path) -> bool:
    files = [file for by_class in _hmdb_lists(path).values() for file in by_class.values()]
    # Lists of paths may have such names, too: ucf101_test_split1.txt.
    return bool(files) and not any("/" in line for line in first_lines(files[0]))


def _read_hmdb51(path: Path, options: ReadOptions) -> SplitList:
    """HMDB51: a file for each class and split, brush_hair_test_split1.txt to wave_test_split3.txt.

    A line contains a file name, 1 (train), 2 (test) or 0 (neither), and a blank at its end. File names contain &, #, !,
    ;, brackets and parentheses. Videos marked 0 keep their class and get the split "unused": the protocol does not use
    them, but they are available for training without labels.

    Reference: Kuehne, Jhuang, Garrote, Poggio, Serre, "HMDB: a large video database for human motion recognition",
    ICCV 2011.
    """
    refuse_numbering(path, options, "HMDB51")
    by_split = _hmdb_lists(path)
    number = chosen_split(path, tuple(by_split), options.split)
    files = by_split[number]
    missing = {name for others in by_split.values() for name in others} - set(files)
    if missing:
        raise LabelsError(f"{path}: split {number} lacks {min(missing)}_test_split{number}.txt, other splits have it")
    entries = [entry for name, file in files.items() for entry in _hmdb_entries(file, name)]
    return SplitList("hmdb51", number, tuple(entries), ordered(files), tuple(files.values()), "any")


def _hmdb_entries(file: Path, class_name: str) -> Iterator[Entry]:
    for line_number, line in read_lines(file):
        name, _, mark = line.rpartition(" ")
        place = f"{file}, line {line_number}"
        if not name or mark not in _HMDB_SPLITS:
            raise LabelsError(f"{place}: expected a file's name and 0, 1 or 2, got {line!r}")
        name = name.strip()
        # The group is a guess: names are RECORDING_class_h_cm_np1_fr_goo_0.avi, but it is not documented that a
        # recording has one name. The three splits agree with it: none has clips of one such group in both train and
        # test. Clips of the same film in other classes form groups of their own, and the splits do separate those.
        recording = _HMDB_META.sub("", name)
        group = recording if recording != name else None
        yield Entry((f"{class_name}/{name}",), class_name, group, _HMDB_SPLITS[mark], place)


HMDB51 = ListFormat(
    looked_for="HMDB51's brush_hair_test_split1.txt, ...",
    finds=_finds_hmdb51,
    numbers=lambda path: tuple(_hmdb_lists(path)),
    read=_read_hmdb51,
)

# --- Kinetics ---------------------------------------------------------------------------------------------------------

_KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")


def _is_kinetics(file: Path) -> bool:
    return "youtube_id" in map(str.casefold, header_in(file))


def _read_kinetics(path: Path, options: ReadOptions) -> SplitList:
    """Kinetics: a CSV with the header label, youtube_id, time_start, time_end, split.

    The file of a clip is `{youtube_id}_{time_start:06d}_{time_end:06d}` with any extension, in class folders or not;
    some copies use only the id. Lists of the test split may lack the label. Splits are called train, val (also for
    validate or validation) and test. The group is the recording, a YouTube video.

    Reference: Kay et al., "The Kinetics human action video dataset", 2017, arXiv 1705.06950.
    """
    refuse_numbering(path, options, "Kinetics")
    number, files = files_to_read(path, _is_kinetics, options.split)
    entries = [entry for file in files for entry in _kinetics_entries(file)]
    classes = ordered(entry.class_name for entry in entries)
    return SplitList("kinetics", number, tuple(entries), classes, tuple(files), "any")


def _kinetics_entries(file: Path) -> Iterator[Entry]:
    written, rows = read_table(file)
    header = [name.casefold() for name in written]
    if not set(_KINETICS_COLUMNS) <= set(header):
        columns = ", ".join(_KINETICS_COLUMNS)
        raise LabelsError(f"{file}: the header must name {columns}, it has: {', '.join(header)}")
    for place, cells in rows:
        row = {name.casefold(): cell for name, cell in cells.items()}
        video, class_name = row["youtube_id"], row.get("label") or None
        if not video:
            raise LabelsError(f"{place}: the column `youtube_id` is empty")
        if "label" in header and class_name is None and "test" not in (row.get("split"), split_of(file)):
            raise LabelsError(f"{place}: the column `label` is empty")
        start, end = (_seconds(row[name], name, place) for name in ("time_start", "time_end"))
        folder = f"{class_name}/" if class_name else ""
        names = (f"{folder}{video}_{start:06d}_{end:06d}", f"{folder}{video}")
        split = split_named(row["split"]) if row.get("split") else split_of(file)
        yield Entry(names, class_name, video, split, place)


def _seconds(text: str, column: str, place: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})(\.0*)?", text)
    if match is None:
        raise LabelsError(f"{place}: `{column}` must be whole seconds, got {text!r}")
    return int(match[1])


KINETICS = ListFormat(
    looked_for="Kinetics' CSV with a header that has youtube_id (in a folder: train.csv, val.csv, test.csv)",
    finds=lambda path: bool(lists_of(path, _is_kinetics)),
    numbers=lambda path: numbers_of(path, _is_kinetics),
    read=_read_kinetics,
    by_name=False,
)

# --- Something-Something V2 -------------------------------------------------------------------------------------------

_SSV2_FILE = re.compile(r"(?:something-something-v2-)?(labels|train|validation|test)(?:\..+)?\.json")


def _ssv2_files(path: Path) -> dict[str, Path]:
    """Files by their kind: labels, train, validation, test."""
    found: dict[str, Path] = {}
    for file in sorted(path.parent.iterdir() if path.is_file() else path.iterdir()):
        match = _SSV2_FILE.fullmatch(file.name)
        if match is None or (path.is_file() and file != path and match[1] != "labels"):
            continue
        if match[1] in found:
            raise LabelsError(f"{path}: {found[match[1]].name} and {file.name} are both for {match[1]}; keep one")
        found[match[1]] = file
    return found


def _finds_ssv2(path: Path) -> bool:
    if path.is_file():
        return _SSV2_FILE.fullmatch(path.name) is not None
    names = [match[1] for file in path.iterdir() if (match := _SSV2_FILE.fullmatch(file.name))]
    return "labels" in names and len(names) > 1


def _read_ssv2(path: Path, options: ReadOptions) -> SplitList:
    """Something-Something V2: something-something-v2-labels.json, -train.json, -validation.json, -test.json.

    The class of a clip is its template without the brackets, numbered in labels.json; `label` in train and validation
    is a sentence, not a class. The test list contains only ids: those videos get the split "test" and no class. The
    shorter names labels.json, train.json, ... are accepted. Files are `{id}.webm`, or with another extension. The
    persons who recorded the clips are not published, so there are no groups.

    Reference: Goyal et al., "The something something video database for learning and evaluating visual common sense",
    ICCV 2017, arXiv 1706.04261.
    """
    refuse_numbering(path, options, "Something-Something")
    chosen_split(path, (1,), options.split)
    files = _ssv2_files(path)
    labels = files.pop("labels", None)
    if not files:
        raise LabelsError(f"{path}: lists classes, but no videos; give its folder, or the file for train or validation")
    if labels is None and set(files) != {"test"}:
        raise LabelsError(
            f"{path}: expected something-something-v2-labels.json in the same folder, for the numbers of classes"
        )
    names = _ssv2_classes(labels) if labels else ()
    entries = [entry for name, file in files.items() for entry in _ssv2_entries(file, SPLIT_NAMES[name], set(names))]
    read = (*files.values(), labels) if labels else tuple(files.values())
    return SplitList("ssv2", 1, tuple(entries), names, read, "any")


def _ssv2_classes(file: Path) -> tuple[str, ...]:
    found = read_class_names(file)
    if not found.numbered:
        raise LabelsError(f"{file}: expected an object that has a number for each class")
    if sorted(found.by_number) != list(range(len(found.by_number))):
        count = len(found.by_number)
        raise LabelsError(f"{file}: the numbers of {count} classes must be 0 to {count - 1}, each once")
    return found.in_order


def _ssv2_entries(file: Path, split: str, names: set[str]) -> Iterator[Entry]:
    for place, row in _videos(file):
        if not isinstance(row, dict) or not str(row.get("id", "")).strip():
            raise LabelsError(f"{place}: expected an object with an `id`, got {row!r}")
        template = row.get("template")
        if template is None and split != "test":
            raise LabelsError(f"{place}: has no `template`, which contains its class")
        class_name = None if template is None else str(template).replace("[", "").replace("]", "")
        if class_name is not None and class_name not in names:
            raise LabelsError(f"{place}: the class {class_name!r} is not in labels.json")
        yield Entry((str(row["id"]),), class_name, None, split, place)


SSV2 = ListFormat(
    looked_for="Something-Something's something-something-v2-labels.json with -train, -validation or -test.json",
    finds=_finds_ssv2,
    read=_read_ssv2,
)

# --- Diving48 ---------------------------------------------------------------------------------------------------------

_DIVING_FILE = re.compile(r"Diving48_V2_(train|test)\.json")
_DIVING_CLASSES = 48  # numbers of labels; number 30 has no video in either list, and the others keep their numbers


def _diving_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else path.iterdir()
    return sorted((file for file in files if _DIVING_FILE.fullmatch(file.name)), reverse=True)


def _read_diving48(path: Path, options: ReadOptions) -> SplitList:
    """Diving48: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json.

    Only version 2 is read: many labels of version 1 are wrong. Each entry has a `vid_name`, the number of its class and
    its frames in the recording, which have no meaning for the published clips. A class name is the four words of the
    vocabulary, joined by underscores, or the number if the vocabulary is missing. The group is the recording, a
    competition: the name without the number at its end.

    Reference: Li, Li, Vasconcelos, "RESOUND: Towards action recognition without representation bias", ECCV 2018.
    """
    refuse_numbering(path, options, "Diving48")
    chosen_split(path, (1,), options.split)
    files = _diving_files(path)
    vocabulary = files[0].parent / "Diving48_vocab.json"
    names = _diving_classes(vocabulary) if vocabulary.is_file() else tuple(map(str, range(_DIVING_CLASSES)))
    entries = [entry for file in files for entry in _diving_entries(file, names)]
    read = (*files, vocabulary) if vocabulary.is_file() else tuple(files)
    return SplitList("diving48", 1, tuple(entries), names, read, "any")


def _diving_classes(file: Path) -> tuple[str, ...]:
    words = read_json(file)
    if not isinstance(words, list) or not all(isinstance(one, list) for one in words) or len(words) != _DIVING_CLASSES:
        raise LabelsError(f"{file}: expected a list of {_DIVING_CLASSES} lists of words, one for each class")
    names = tuple("_".join(map(str, one)) for one in words)
    if len(set(names)) != len(names):
        raise LabelsError(f"{file}: the class {ordered(n for n in names if names.count(n) > 1)[0]!r} occurs twice")
    return names


def _diving_entries(file: Path, names: tuple[str, ...]) -> Iterator[Entry]:
    split = "train" if "_train" in file.name else "test"
    for place, row in _videos(file):
        name, label = (row.get("vid_name"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not name or not isinstance(label, int):
            raise LabelsError(f"{place}: expected an object with a `vid_name` and the number of a `label`, got {row!r}")
        if not 0 <= label < len(names):
            raise LabelsError(f"{place}: the label {label} is not in 0 to {len(names) - 1}")
        match = re.fullmatch(r"(.+)_\d+", name)
        yield Entry((name,), names[label], match[1] if match else None, split, place)


DIVING48 = ListFormat(
    looked_for="Diving48's Diving48_V2_train.json and Diving48_V2_test.json (Diving48_vocab.json in the same folder)",
    finds=lambda path: bool(_diving_files(path)),
    read=_read_diving48,
)
