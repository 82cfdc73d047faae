"""Matching the rows of a list with videos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bgaug.errors import LabelsError
from bgaug.labels.label import Entry, Folders, Label, Labels, SplitList, ordered
from bgaug.labels.reading import normal
from bgaug.video import EXTENSIONS


def match_entries(found: SplitList, ids: Iterable[str], paths: Mapping[str, Path] | None = None) -> Labels:
    """Labels of videos from the rows of a list.

    A row matches a video if their file names agree, with or without the extension of a video, and their folders do not
    contradict each other (see `SplitList.folders`). Among several candidates, the one with the same extension is
    preferred, then the one with most folders in common. Rows that still match several videos, and rows that contradict
    each other, are left out and reported in `Labels.dropped`.

    Args:
        found: the list.
        ids: ids of the videos: paths relative to a folder, with forward slashes.
        paths: paths of the videos by id, if the files are available: rows of a CSV are then paths relative to the CSV,
            or bare names.

    Raises:
        LabelsError: no usable row matches any video.
    """
    videos = _Videos(ids, paths)
    rows: dict[str, list[Entry]] = {}
    unmatched: list[str] = []
    dropped: list[str] = []
    for entry in found.entries:
        try:
            video = videos.of(entry, found)
        except LabelsError as error:  # one ambiguous row costs only itself
            dropped.append(str(error))
            continue
        if video is None:
            unmatched.append(entry.names[0])
        else:
            rows.setdefault(video, []).append(entry)
    labels: dict[str, Label] = {}
    for video, entries in rows.items():
        label, contrary = _one_label(video, entries, found.folders)
        dropped += contrary
        if label is not None:
            labels[video] = label
    if videos.ids and not labels and (unmatched or dropped):
        raise _nothing(found, videos.ids, unmatched, dropped)
    missing = tuple(sorted(videos.ids - labels.keys()))
    classes = found.classes or ordered(label.name for label in labels.values())
    origin = f"{found.files[0]} ({found.format})"
    return Labels(labels, classes, tuple(unmatched), missing, tuple(dropped), origin, found.notes)


def _one_label(video: str, entries: list[Entry], folders: Folders) -> tuple[Label | None, list[str]]:
    """The label on which the rows of a video agree, and messages for the rows that were left out.

    If file names are unique in the data set, rows in the folder of the video take precedence.
    """
    by_label: dict[Label, list[Entry]] = {}
    for entry in entries:
        by_label.setdefault(Label(entry.class_name, entry.group, entry.split), []).append(entry)
    if len(by_label) == 1:
        return next(iter(by_label)), []
    own = _parts(video)[:-1]  # its folders
    nearest = [
        label
        for label, rows in by_label.items()
        if folders == "any" and own and any(_agreeing(_parts(row.names[0])[:-1], own) for row in rows)
    ]
    kept = nearest[0] if len(nearest) == 1 else None
    other = by_label[kept][0] if kept is not None else entries[0]
    contrary = [
        f"{row.place}: {row.names[0]} has contradicting rows: {_described(row)}, "
        f"and {_described(other)} in {other.place}"
        for label, rows in by_label.items()
        for row in rows
        if label != kept and row is not other
    ]
    return kept, contrary


def _described(row: Entry) -> str:
    more = [f"{name} {value!r}" for name, value in (("group", row.group), ("split", row.split)) if value is not None]
    return ", ".join([repr(row.class_name) if row.class_name is not None else "no class", *more])


def _nothing(found: SplitList, ids: frozenset[str], unmatched: list[str], dropped: list[str]) -> LabelsError:
    """The error for the case that no video has a label."""
    if dropped:
        more = f"; {len(dropped)} rows are unusable, and no video has a label" if len(dropped) > 1 else ""
        return LabelsError(f"{dropped[0]}{more}")
    return LabelsError(
        f"{found.files[0]}: none of {len(unmatched)} rows matches any of {len(ids)} videos: rows are like "
        f"{unmatched[0][:200]!r}, videos like {min(ids)[:200]!r}"
    )


class _Videos:
    """Videos, found by the names in rows."""

    def __init__(self, ids: Iterable[str], paths: Mapping[str, Path] | None) -> None:
        self.ids = frozenset(ids)
        self.by_id = _ByPath({video_id: video_id for video_id in self.ids})
        self.by_path = None if paths is None else _ByPath({os.path.abspath(p): name for name, p in paths.items()})
        # For lists that contain the targets of links.
        self.by_target = None if paths is None else _ByPath({str(p.resolve()): name for name, p in paths.items()})
        self.by_stem: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for video_id in sorted(self.ids):
            parts = _parts(video_id)
            self.by_stem.setdefault(_stem(parts[-1]), []).append((video_id, parts))

    def of(self, entry: Entry, found: SplitList) -> str | None:
        """The video that a row matches; None if there is none. Raises LabelsError: there are several."""
        # Lists written on Windows; a name with a backslash in it was tried first.
        slashed = (name.replace("\\", "/") for name in entry.names if "\\" in name)
        for name in (*entry.names, *slashed):
            if found.folders == "path" and self.by_path is not None:
                video = self._by_path(name, found.files[0].parent, entry.place)
                if video is not None:
                    return video
                if "/" in name:
                    continue  # a path that leads nowhere: its bare name could be another video
            video = self._named(name, found.folders, entry.place)
            if video is not None:
                return video
        return None

    def _by_path(self, name: str, folder: Path, place: str) -> str | None:
        """The video at a path relative to the list, or with this id."""
        assert self.by_path is not None and self.by_target is not None
        inside = name.lstrip("/")
        for known, target in (
            (self.by_path, os.path.abspath(folder / name)),
            (self.by_path, os.path.abspath(folder / inside)),
            (self.by_target, str((folder / name).resolve())),
            (self.by_target, str((folder / inside).resolve())),
            (self.by_id, inside.removeprefix("./")),
        ):
            found = known.at(target)
            if len(found) > 1:
                raise LabelsError(
                    f"{place}: {name} matches {len(found)} videos ({found[0]}, {found[1]}, ...); give its path "
                    "relative to the CSV, with its extension"
                )
            if found:
                return found[0]
        return None

    def _named(self, name: str, folders: Folders, place: str) -> str | None:
        parts = _parts(name)
        ranked = []
        for video_id, own in self.by_stem.get(_stem(parts[-1]), []) if parts else []:
            agree = _agreeing(parts[:-1], own[:-1])
            shorter = min(len(parts), len(own)) - 1  # folders that both of them have
            if folders == "any" or agree == shorter:
                ranked.append(((parts[-1] == own[-1], agree, len(parts) == len(own)), video_id))
        first = max(ranked)[0] if ranked else None
        best = [video_id for rank, video_id in ranked if rank == first]
        if len(best) > 1:
            fix = "its path relative to the CSV" if folders == "path" else "more of its path"
            raise LabelsError(f"{place}: {name} matches {len(best)} videos ({best[0]}, {best[1]}, ...); give {fix}")
        return best[0] if best else None


class _ByPath:
    """Ids of videos by path, in any Unicode form, with or without the extension of a video."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self.ids = ids
        self.by_stem: dict[str, list[str]] = {}
        for path in sorted(ids):
            self.by_stem.setdefault(_without_suffix(normal(path)), []).append(path)

    def at(self, path: str) -> list[str]:
        """Ids of the videos that a path may mean."""
        if path in self.ids:
            return [self.ids[path]]  # equal to the byte, even if another name differs only in its Unicode form
        target = normal(path)
        stem = _without_suffix(target)
        paths = self.by_stem.get(stem, [])
        return [self.ids[one] for one in paths if stem == target or _same_case(normal(one), target)]


def _same_case(one: str, other: str) -> bool:
    """Whether two paths that are equal without their extensions have the same extension, ignoring case."""
    return one.rpartition(".")[2].casefold() == other.rpartition(".")[2].casefold()


def _parts(path: str) -> tuple[str, ...]:
    """Names in a path, normalised to NFC; without empty parts and dots."""
    return tuple(part for part in normal(path).split("/") if part not in ("", ".", ".."))


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{_stem(name)}"


def _stem(name: str) -> str:
    """A file name without the extension of a video; other dots belong to the name."""
    stem, point, extension = name.rpartition(".")
    return stem if point and stem and f".{extension.lower()}" in EXTENSIONS else name


def _agreeing(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Number of equal parts, counted from the end."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
