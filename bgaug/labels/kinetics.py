"""Kinetics: a CSV with the header label, youtube_id, time_start, time_end, split.

The file of a clip is `{youtube_id}_{time_start:06d}_{time_end:06d}` with any extension, in class folders or not; some
copies use only the id. Lists of the test split may lack the label. Splits are called train, val (also for validate or
validation) and test. The group is the recording, a YouTube video.

Reference: Kay et al., "The Kinetics human action video dataset", 2017, arXiv 1705.06950.
"""

from __future__ import annotations

import re
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.label import (
    Entry,
    ListFormat,
    ReadOptions,
    SplitList,
    files_to_read,
    lists_of,
    numbers_of,
    ordered,
    refuse_numbering,
    split_named,
    split_of,
)
from bgaug.labels.reading import header_in, read_table

_COLUMNS = ("youtube_id", "time_start", "time_end")


def _is_one(file: Path) -> bool:
    return "youtube_id" in map(str.casefold, header_in(file))


def _read(path: Path, options: ReadOptions) -> SplitList:
    refuse_numbering(path, options, "Kinetics")
    number, files = files_to_read(path, _is_one, options.split)
    entries = [entry for file in files for entry in _entries(file)]
    classes = ordered(entry.class_name for entry in entries)
    return SplitList("kinetics", number, tuple(entries), classes, tuple(files), "any")


def _entries(file: Path) -> list[Entry]:
    written, rows = read_table(file)
    header = [name.casefold() for name in written]
    lacking = [name for name in _COLUMNS if name not in header]
    if lacking:
        raise LabelsError(f"{file}: the header must name {', '.join(_COLUMNS)}, it has: {', '.join(header)}")
    found = []
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
        found.append(Entry(names, class_name, video, split, place))
    return found


def _seconds(text: str, column: str, place: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})(\.0*)?", text)
    if match is None:
        raise LabelsError(f"{place}: `{column}` must be whole seconds, got {text!r}")
    return int(match[1])


FORMAT = ListFormat(
    looked_for="Kinetics' CSV with a header that has youtube_id (in a folder: train.csv, val.csv, test.csv)",
    finds=lambda path: bool(lists_of(path, _is_one)),
    numbers=lambda path: numbers_of(path, _is_one),
    read=_read,
    by_name=False,
)
