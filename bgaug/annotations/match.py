"""Rows of a list joined with videos."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from bgaug.annotations.entries import Entry, Folders, SplitList
from bgaug.annotations.label import Label, Labels, ordered
from bgaug.errors import LabelsError
from bgaug.video import EXTENSIONS


def match_entries(found: SplitList, ids: Iterable[str], paths: Mapping[str, Path] | None = None) -> Labels:
    """Labels of videos from the rows of a list.

    A row and a video belong together where the names of their files agree, with or without the extension of a
    video, and their folders do not contradict each other (see `SplitList.folders`). Where several videos would do, it
    is the one of the same extension, then the one with which most folders agree.

    Args:
        found: the list.
        ids: of the videos: paths relative to a folder, with forward slashes.
        paths: of the videos by id, where the files are at hand: rows of a CSV are then paths relative to it, or bare
            names.

    Raises:
        LabelsError: a row stands for several videos, a video has two rows that disagree, or no row belongs to any
            video at all.
    """
    videos = _Videos(ids, paths)
    labels: dict[str, Label] = {}
    unmatched: list[str] = []
    for entry in found.entries:
        video = videos.of(entry, found)
        if video is None:
            unmatched.append(entry.names[0])
            continue
        label = Label(entry.class_name, entry.group, entry.split)
        if labels.setdefault(video, label) != label:
            raise LabelsError(f"{entry.place}: {entry.names[0]} has a second row that says something else")
    if videos.ids and unmatched and not labels:
        raise LabelsError(
            f"{found.files[0]}: none of {len(unmatched)} rows belongs to any of {len(videos.ids)} videos: rows are like "
            f"{unmatched[0]!r}, videos like {min(videos.ids)!r}"
        )
    missing = tuple(sorted(videos.ids - labels.keys()))
    classes = found.classes or ordered(label.name for label in labels.values())
    return Labels(labels, classes, tuple(unmatched), missing)


class _Videos:
    """Videos to be found by what rows call them."""

    def __init__(self, ids: Iterable[str], paths: Mapping[str, Path] | None) -> None:
        self.ids = frozenset(ids)
        self.by_path = None if paths is None else {path.resolve(): video_id for video_id, path in paths.items()}
        self.by_stem: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for video_id in sorted(self.ids):
            parts = _parts(video_id)
            self.by_stem.setdefault(_stem(parts[-1]), []).append((video_id, parts))

    def of(self, entry: Entry, found: SplitList) -> str | None:
        """The video that a row belongs to, None where there is none."""
        for name in entry.names:
            if found.folders == "path" and self.by_path is not None:
                video = self.by_path.get((found.files[0].parent / name).resolve())
                if video is not None or name in self.ids:
                    return video or name
                if "/" in name:
                    continue
            video = self._named(name, found.folders, entry.place)
            if video is not None:
                return video
        return None

    def _named(self, name: str, folders: Folders, place: str) -> str | None:
        parts = _parts(name)
        ranked = []
        for video_id, own in self.by_stem.get(_stem(parts[-1]), []) if parts else []:
            agree = _agreeing(parts[:-1], own[:-1])
            shorter = min(len(parts), len(own)) - 1
            if folders == "any" or agree == shorter:
                ranked.append(((parts[-1] == own[-1], agree, len(parts) == len(own)), video_id))
        first = max(ranked)[0] if ranked else None
        best = [video_id for rank, video_id in ranked if rank == first]
        if len(best) > 1:
            mend = "its path relative to the CSV" if folders == "path" else "more of its path"
            raise LabelsError(f"{place}: {name} stands for {len(best)} videos ({best[0]}, {best[1]}, ...); give {mend}")
        return best[0] if best else None


def _parts(path: str) -> tuple[str, ...]:
    """Parts of a path that name something, each in the one normal form of its characters."""
    normal = unicodedata.normalize("NFC", path)
    return tuple(part for part in normal.split("/") if part not in ("", ".", ".."))


def _stem(name: str) -> str:
    """A file's name without the extension of a video; names without one may have points in them."""
    stem, point, extension = name.rpartition(".")
    return stem if point and stem and f".{extension.lower()}" in EXTENSIONS else name


def _agreeing(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts agree, from the last one on."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
