"""Lists by their format: which one lies there, what it says, and what that means for videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.description import described
from bgaug.labels.diving48 import DIVING48
from bgaug.labels.entries import ListFormat, ReadOptions, SplitList
from bgaug.labels.filelist import FILELIST, parse_columns
from bgaug.labels.hmdb51 import HMDB51
from bgaug.labels.kinetics import KINETICS
from bgaug.labels.label import Labels
from bgaug.labels.labels_csv import CSV
from bgaug.labels.match import match_entries
from bgaug.labels.pickled import PICKLED
from bgaug.labels.reading import check_regular
from bgaug.labels.ssv2 import SSV2
from bgaug.labels.ucf101 import UCF101

FORMATS: Mapping[str, ListFormat] = {
    "csv": CSV,
    "ucf101": UCF101,
    "hmdb51": HMDB51,
    "kinetics": KINETICS,
    "ssv2": SSV2,
    "diving48": DIVING48,
    "filelist": FILELIST,
    "pickle": PICKLED,
}


def find_format(path: str | Path) -> str:
    """Name of the format of a list, or of the lists in a folder.

    Raises:
        LabelsError: there is no such file or folder, none is recognised, or lists of several formats lie there.
    """
    path = _existing(path)
    for by_name in (True, False):
        found = [name for name, known in FORMATS.items() if known.by_name == by_name and known.finds(path)]
        if len(found) > 1:
            raise LabelsError(f"{path}: may be of the formats {', '.join(found)}; name one of them, or a single file")
        if found:
            return found[0]
    raise LabelsError(f"{path}: {described(path)}")


def read_list(
    path: str | Path,
    format: str = "auto",
    split: int | None = None,
    class_names: str | Path | None = None,
    first_class: int | None = None,
    columns: str | None = None,
) -> SplitList:
    """What a list says, without any video.

    Args:
        path: the file, or the folder that a data set ships.
        format: one of `FORMATS`, or "auto" for what lies there.
        split: number of the split, where a data set has several. None is the number in the name of a single file,
            else 1.
        class_names: file with the names of numbered classes, for formats that do not bring them.
        first_class: number that the list has for the first of these classes, 0 or 1; None to find out.
        columns: what stands on each line of a list without header, such as "path,frames,label"; None to find out.

    Raises:
        LabelsError: nothing is recognised, or a file cannot be understood; the message has file and line.
    """
    path, known = _known(path, format)
    options = ReadOptions(
        split,
        None if class_names is None else Path(class_names),
        first_class,
        None if columns is None else parse_columns(columns),
    )
    return known.read(path, options)


def split_numbers(path: str | Path, format: str = "auto") -> tuple[int, ...]:
    """Numbers of the splits that a file or folder holds; (1,) where a format has only one.

    Raises:
        LabelsError: nothing is recognised.
    """
    path, known = _known(path, format)
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
    """Labels, groups and split of videos that are known by their ids alone, as those of a store are.

    Args:
        path: the file, or the folder that a data set ships.
        ids: of the videos.
        format: one of `FORMATS`, or "auto" for what lies there.
        split: number of the split; see `read_list`.
        class_names: see `read_list`.
        first_class: see `read_list`.
        columns: see `read_list`.

    Returns:
        Labels whose `by_id` has a `Label(name, group, split)` for each video that a row belongs to.

    Raises:
        LabelsError: as `read_list`, and where rows and videos do not go together: see `match_entries`.
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
    """Labels of videos whose files are at hand, by default from a CSV with a header.

    Its columns: `file`, a path relative to the CSV (a bare name is matched where it is unique among the videos); one of
    `class_name`, `class`, `label`, `class_id`; optionally `group` and `split`. Other columns are ignored, and other names
    of these columns are known (`bgaug.labels.table`).

    Args:
        file: the list, UTF-8, or UTF-16 with a byte order mark; or the folder that a data set ships.
        videos: path of each video by id.
        format: one of `FORMATS`, or "auto" for what lies there.
        split: number of the split; see `read_list`.
        class_names: see `read_list`.
        first_class: see `read_list`.
        columns: see `read_list`.

    Raises:
        LabelsError: the file cannot be read, a column is missing, or no row that could be used belongs to any video.
    """
    return match_entries(read_list(file, format, split, class_names, first_class, columns), videos, videos)


def _known(path: str | Path, format: str) -> tuple[Path, ListFormat]:
    path = Path(path)
    if format == "auto":
        return path, FORMATS[find_format(path)]
    if format not in FORMATS:
        raise LabelsError(f"formats of lists are auto, {', '.join(FORMATS)}; got {format!r}")
    known = FORMATS[format]
    if format != "csv" and not known.finds(_existing(path)):
        raise LabelsError(f"{path}: is not of the format {format}. Looked for: {known.looked_for}. {described(path)}")
    return path, known


def _existing(path: str | Path) -> Path:
    """The path, which can be read.

    Raises:
        LabelsError: it cannot, or it is neither a file nor a folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            return path
        check_regular(path)
        path.open("rb").close()
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read: {error.strerror}") from error
    return path
