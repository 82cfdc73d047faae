"""Files of a folder by what their names say they are for: train.csv, kinetics-600_val.csv, ucf101_train_split_2.txt."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.entries import chosen_split

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "valset", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Splits by the words that lists and folders have for them, in lower case."""

_SUFFIXES = (".csv", ".txt", ".list", ".tsv")
_NUMBER = re.compile(r"split[_-]?0*(\d+)")


def split_named(written: str) -> str:
    """A split by one name, whatever word a list has for it; words that are not known stay as they are."""
    return SPLIT_NAMES.get(written.strip().casefold(), written.strip())


def split_of(file: Path) -> str | None:
    """The split that a file's name tells; None where it tells none, or several."""
    words = re.split(r"[^a-z]+", file.name.lower())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES and not word.startswith("eval")}
    return named.pop() if len(named) == 1 else None


def number_of(file: Path) -> int | None:
    """The number of the split that a file's name tells, None where it tells none."""
    match = _NUMBER.search(file.name.lower())
    return int(match[1]) if match else None


def lists_of(path: Path, is_one: Callable[[Path], bool]) -> list[Path]:
    """The file itself, or the files of a folder whose names tell their split, where they are of a format."""
    if path.is_file():
        return [path] if is_one(path) else []
    files = (file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _SUFFIXES)
    return sorted(file for file in files if split_of(file) and is_one(file))


def numbers_of(path: Path, is_one: Callable[[Path], bool]) -> tuple[int, ...]:
    """Numbers of the splits that these lists have; (1,) where their names tell none."""
    return tuple(sorted({number_of(file) or 1 for file in lists_of(path, is_one)}))


def files_to_read(path: Path, is_one: Callable[[Path], bool], split: int | None) -> tuple[int, list[Path]]:
    """The number of the split to read, and its files: one for train, val and test each.

    Where the lists for val and test are the same to the byte, as they are in sets without a test list of their own,
    that for test alone is read.

    Raises:
        LabelsError: there is no such split, or a folder has two lists for one purpose.
    """
    number = chosen_split(path, numbers_of(path, is_one), split)
    if path.is_file():
        return number, [path]
    by_split: dict[str, Path] = {}
    for file in lists_of(path, is_one):
        name = split_of(file)
        if name is None or (number_of(file) or 1) != number:
            continue
        if name in by_split:
            raise LabelsError(f"{path}: {by_split[name].name} and {file.name} are both for {name}; name a single file")
        by_split[name] = file
    if {"val", "test"} <= by_split.keys() and by_split["val"].read_bytes() == by_split["test"].read_bytes():
        del by_split["val"]
    return number, [by_split[name] for name in ("train", "val", "test") if name in by_split]
