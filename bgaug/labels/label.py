"""Labels of videos, as everything else sees them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_LISTED = 1000
"""Classes in a summary."""


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
        dropped: rows that were left out because they contradict others, or may mean several videos; why, for people.
        origin: where labels come from, for people.
        notes: what was guessed, for people.
    """

    by_id: Mapping[str, Label]
    classes: tuple[str, ...]
    rows_without_file: tuple[str, ...] = ()
    files_without_row: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    origin: str = "none"
    notes: tuple[str, ...] = ()

    def of(self, video_id: str) -> Label:
        """Label of a video."""
        return self.by_id.get(video_id, Label())

    def summary(self, ids: Collection[str]) -> dict[str, Any]:
        """What these videos are labelled by: origin, classes and splits with their numbers of videos, what was guessed.

        Classes come in their order, those without videos too, at most `MOST_LISTED` of them.
        """
        labels = [self.of(video_id) for video_id in ids]
        classes = Counter(label.name for label in labels if label.name is not None)
        splits = Counter(label.split for label in labels if label.split is not None)
        return {
            "origin": self.origin,
            "videos": len(labels),
            "labelled": classes.total(),
            "num_classes": sum(count > 0 for count in classes.values()),
            "classes": {name: classes[name] for name in self.classes[:MOST_LISTED]},
            "splits": dict(sorted(splits.items())),
            "rows_without_video": len(self.rows_without_file),
            "videos_without_row": len(self.files_without_row),
            "rows_dropped": len(self.dropped),
            "notes": list(self.notes),
        }

    def digest(self) -> str:
        """sha256 of all labels: two stores differ in it if a label differs."""
        lines = [f"{i}\t{v.name}\t{v.group}\t{v.split}" for i, v in sorted(self.by_id.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def ordered(names: Iterable[str | None]) -> tuple[str, ...]:
    """Different names in order: by number where all are numbers, else by name. None is no name."""
    different = {name for name in names if name is not None}
    if all(name.isdecimal() and len(name) < 100 for name in different):  # Python reads no number of thousands of digits
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))
