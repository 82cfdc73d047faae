"""Labels of videos, as everything else sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """What is known of one video; None where it is not.

    Attributes:
        name: of the class.
        group: what a split must not tear apart: a recording, a subject.
        split: "train", "val", "test", ...
    """

    name: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Labels:
    """Labels matched with videos.

    Attributes:
        by_id: label of each video that a row belongs to.
        classes: class names in the order of their numbers: as the data set numbers them, also those that no video
            has; where it does not number them, those of the videos, by number where all are numbers, else by name.
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


def ordered(names: Iterable[str | None]) -> tuple[str, ...]:
    """Different names in order: by number where all are numbers, else by name. None is no name."""
    different = {name for name in names if name is not None}
    if all(name.isdecimal() for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))
