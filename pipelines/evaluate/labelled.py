"""The labelled videos of an evaluation: their classes, groups and splits, from the store or from a list.

Letters: N videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.labels import labels_for, split_numbers
from bgaug.metrics import HeldOut, hold_out
from bgaug.pipelines.build.options import ListOptions
from bgaug.pipelines.evaluate.options import EvaluateOptions
from bgaug.store import Store


@dataclass(frozen=True, eq=False)
class LabelledVideos:
    """The labelled videos of a store.

    Attributes:
        videos: int64 (N,), index of each video in the store, ascending.
        ids: ids of the videos, N.
        labels: int64 (N,), places in `classes`.
        classes: names of the classes, also of those without videos.
        groups: group of each video, None where unknown.
        splits: split of each video, None where unknown.
        unlabelled: ids of the store's videos without a label.
        origin: origin of the labels.
        split: number of the split if a list has several; otherwise None.
        notes: guesses and omitted rows, for people.
    """

    videos: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    unlabelled: tuple[str, ...] = ()
    origin: str = "store"
    split: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def group_names(self) -> NDArray[np.str_]:
        """Group of each video, (N,); a video without a known group is a group of its own."""
        return np.array(
            [
                f"group {group}" if group is not None else f"video {name}"
                for group, name in zip(self.groups, self.ids, strict=True)
            ]
        )

    @property
    def num_classes(self) -> int:
        """Number of classes with videos."""
        return len(np.unique(self.labels))

    def only(self, places: NDArray[np.int64]) -> LabelledVideos:
        """Some of these videos, by their places: int64 (n,), ascending."""
        chosen = places.tolist()
        return replace(
            self,
            videos=self.videos[places],
            ids=tuple(self.ids[place] for place in chosen),
            labels=self.labels[places],
            groups=tuple(self.groups[place] for place in chosen),
            splits=tuple(self.splits[place] for place in chosen),
        )

    @cached_property
    def held_out(self) -> HeldOut:
        """Which videos are tested, and which are learnt from; see `bgaug.metrics.hold_out`.

        Raises:
            UsageError: all videos are of one class.
        """
        if self.num_classes < 2:
            raise UsageError(
                f"all {len(self.ids)} labelled videos are of one class, {self.classes[self.labels[0]]!r}; an "
                "evaluation needs two"
            )
        return hold_out(self.groups, self.splits)


def store_labels(store: Store) -> LabelledVideos:
    """Labels that the store was built with.

    Raises:
        UsageError: the store has no labels.
    """
    c, names = store.columns, store.names
    videos = np.flatnonzero(c.label >= 0).astype(np.int64)
    if not len(videos):
        raise UsageError(
            f"{store.path}: none of its {len(store)} videos has a label. Name a list with --labels PATH (a CSV with "
            "the columns file and class, or the lists of UCF101, HMDB51, Kinetics, Something-Something or Diving48), "
            "or build the store with --labels"
        )
    return LabelledVideos(
        videos=videos,
        ids=tuple(store.video_id(video) for video in videos.tolist()),
        labels=c.label[videos].astype(np.int64),
        classes=store.header.classes,
        groups=_named(c.group[videos], names.groups),
        splits=_named(c.split[videos], names.splits),
        unlabelled=tuple(store.video_id(video) for video in np.flatnonzero(c.label < 0).tolist()),
    )


def _list_labels(store: Store, path: Path, options: ListOptions, split: int | None) -> LabelledVideos:
    """Labels, groups and splits of a list, instead of those of the store.

    Raises:
        LabelsError: the list cannot be understood, or belongs to other videos.
        UsageError: no video gets a class.
    """
    ids = list(store.videos)
    o = options
    found = labels_for(path, ids, o.labels_format, split, o.class_names, o.first_class, o.columns)
    of = [found.of(name) for name in ids]
    places = {name: place for place, name in enumerate(found.classes)}
    videos = np.array([video for video, label in enumerate(of) if label.name is not None], np.int64)
    if not len(videos):
        raise UsageError(f"{path}: has no class for any of the {len(ids)} videos of {store.path}")
    known = [of[video] for video in videos.tolist()]
    return LabelledVideos(
        videos=videos,
        ids=tuple(ids[video] for video in videos.tolist()),
        labels=np.array([places[str(label.name)] for label in known], np.int64),
        classes=found.classes,
        groups=tuple(label.group for label in known),
        splits=tuple(label.split for label in known),
        unlabelled=tuple(name for name, label in zip(ids, of, strict=True) if label.name is None),
        origin=str(path),
        split=split,
        notes=(*found.notes, *_left_out(path, found.dropped)),
    )


def _left_out(path: Path, rows: Sequence[str]) -> tuple[str, ...]:
    more = "; ..." if len(rows) > 5 else ""
    return (f"{path.name}: {len(rows)} rows are left out: {'; '.join(rows[:5])}{more}",) if rows else ()


def find_labels(store: Store, options: EvaluateOptions | None = None) -> list[LabelledVideos]:
    """Labels of each requested split of a list, or the store's own labels.

    Raises:
        LabelsError: the list cannot be understood, has no such split, or belongs to other videos.
        UsageError: there are no labels, or options of a list without a list.
    """
    o = options or EvaluateOptions()
    path, splits = o.labels, o.splits
    if path is None:
        if any(one is not None for one in (splits, o.class_names, o.first_class, o.columns)):
            raise UsageError(
                "--labels-split, --class-names, --first-class and --columns are about a list: name it with --labels"
            )
        return [store_labels(store)]
    numbers = (None,) if splits is None else tuple(splits) or split_numbers(path, o.labels_format)
    read = [_list_labels(store, path, o, number) for number in numbers]
    return read if splits is None else _same_classes(read)


def _same_classes(parts: list[LabelledVideos]) -> list[LabelledVideos]:
    """The splits with one numbering of classes, also if a class is missing in some split."""
    if len({part.classes for part in parts}) == 1:
        return parts
    # One numbering lets tables by class join the splits.
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    place = {name: number for number, name in enumerate(classes)}
    renumbered = []
    for part in parts:
        numbers = np.array([place[name] for name in part.classes], np.int64)
        renumbered.append(replace(part, labels=numbers[part.labels], classes=classes))
    return renumbered


def _named(codes: NDArray[np.integer], names: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(names[code] if code >= 0 else None for code in codes.tolist())
