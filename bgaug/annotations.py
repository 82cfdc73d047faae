"""Labels of videos: a CSV with a header, or class folders."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bgaug.errors import LabelsError

_CLASS_COLUMNS = ("class_name", "class", "label", "class_id")


@dataclass(frozen=True)
class Label:
    """What is known of one video; None where it is not.

    Attributes:
        name: of the class.
        group: what a split must not tear apart: a recording, a subject.
        split: "train", "test", ...
    """

    name: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Labels:
    """Labels matched with videos.

    Attributes:
        by_id: label of each labelled video.
        classes: class names; by number where all are numbers, else by name.
        rows_without_file: rows of the label file that no video belongs to.
        files_without_row: ids of videos that no row belongs to; empty where no label file was given.
    """

    by_id: Mapping[str, Label]
    classes: tuple[str, ...]
    rows_without_file: tuple[str, ...] = ()
    files_without_row: tuple[str, ...] = ()

    def of(self, video_id: str) -> Label:
        """Label of a video."""
        return self.by_id.get(video_id, Label())

    def digest(self) -> str:
        """sha256 of all labels: two stores differ in it if a label differs."""
        lines = [f"{i}\t{v.name}\t{v.group}\t{v.split}" for i, v in sorted(self.by_id.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_labels(file: str | Path, videos: Mapping[str, Path]) -> Labels:
    """Labels from a CSV with a header.

    Columns: `file`, a path relative to the CSV (a bare name is matched where it is unique among the videos); one of
    `class_name`, `class`, `label`, `class_id`; optionally `group` and `split`. Other columns are ignored.

    Args:
        file: the CSV; UTF-8, with or without a byte order mark.
        videos: path of each video by id.

    Raises:
        LabelsError: the file cannot be read, a column is missing, a file has two rows that disagree, or a bare name
            stands for several videos.
    """
    file = Path(file)
    header, rows = _read_rows(file)
    if "file" not in header:
        raise LabelsError(f"{file}: the header must name a column `file`, it has: {', '.join(header)}")
    column = next((name for name in _CLASS_COLUMNS if name in header), None)
    if column is None:
        raise LabelsError(
            f"{file}: the header must name one of {', '.join(_CLASS_COLUMNS)}, it has: {', '.join(header)}"
        )
    by_path = {path.resolve(): video_id for video_id, path in videos.items()}
    by_name: dict[str, list[str]] = {}
    for video_id, path in videos.items():
        by_name.setdefault(path.name, []).append(video_id)
    labels: dict[str, Label] = {}
    unmatched: list[str] = []
    for number, row in enumerate(rows, start=2):
        found = _match(file, number, row["file"], by_path, by_name, videos)
        if found is None:
            unmatched.append(row["file"])
            continue
        label = Label(row[column] or None, row.get("group") or None, row.get("split") or None)
        if labels.get(found, label) != label:
            raise LabelsError(f"{file}, line {number}: {row['file']} has a second row that says something else")
        labels[found] = label
    missing = tuple(sorted(set(videos) - set(labels)))
    return Labels(labels, _classes(labels.values()), tuple(unmatched), missing)


def _read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, restval="")
            rows = [{k.strip(): (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
            return [name.strip() for name in reader.fieldnames or []], rows
    except OSError as error:
        raise LabelsError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"{file}: is not a CSV in UTF-8: {error}") from error


def _match(
    file: Path,
    number: int,
    name: str,
    by_path: Mapping[Path, str],
    by_name: Mapping[str, list[str]],
    videos: Mapping[str, Path],
) -> str | None:
    found = by_path.get((file.parent / name).resolve())
    if found is not None:
        return found
    if name in videos:
        return name
    candidates = by_name.get(name, []) if "/" not in name else []
    if len(candidates) > 1:
        raise LabelsError(
            f"{file}, line {number}: {name} stands for {len(candidates)} videos ({candidates[0]}, {candidates[1]}, ...); "
            "give its path relative to the CSV"
        )
    return candidates[0] if candidates else None


def labels_from_folders(video_ids: Iterable[str]) -> Labels:
    """Class folders: the first folder of each id is its class, where every video lies in one and there are two or more.

    Returns:
        No labels at all where the folders do not look like classes.
    """
    parents = {video_id: PurePosixPath(video_id).parts for video_id in video_ids}
    folders = {parts[0] for parts in parents.values() if len(parts) > 1}
    if len(folders) < 2 or any(len(parts) == 1 for parts in parents.values()):
        return Labels({}, ())
    labels = {video_id: Label(parts[0]) for video_id, parts in parents.items()}
    return Labels(labels, _classes(labels.values()))


def _classes(labels: Iterable[Label]) -> tuple[str, ...]:
    names = {label.name for label in labels if label.name is not None}
    if all(name.isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
