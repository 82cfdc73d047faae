"""Counts of what a store holds, from the commits of its shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bgaug.store.format.layout import bytes_by_array, committed_shards, read_commit
from bgaug.store.format.records import Failure, VideoRow
from bgaug.store.index import parse_failures, parse_rows


@dataclass
class StoreCounts:
    """Counts over the shards that were added.

    Attributes:
        statuses: number of videos by status ("ok", "partial", "no_static_background").
        shots: number of shots.
        grades: number of shots by grade, A to F; shots too short to be graded have none.
        cameras: number of shots by camera motion ("static", "jitter", "moving", "unknown").
        masks_from: number of shots by where their masks come from; see `VideoRow.masks_from`.
        short_shots: shots of less than a second next to others: too short to be graded, they have no background.
        transitions: dissolves and fades between shots; each is a shot of its own, without a background or a grade.
        frames: number of frames.
        shards: number of shards.
        sizes: bytes of the files in the shards, by array.
        failures: videos that could not be used.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    shots: int = 0
    grades: Counter[str] = field(default_factory=Counter)
    cameras: Counter[str] = field(default_factory=Counter)
    masks_from: Counter[str] = field(default_factory=Counter)
    short_shots: int = 0
    transitions: int = 0
    frames: int = 0
    shards: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, commit: dict[str, Any]) -> list[VideoRow]:
        """Count the content of a shard by its commit record; returns the rows of its videos.

        Raises:
            StoreFormatError: they do not match the format.
        """
        rows = parse_rows(commit)
        self.shards += 1
        self.failures += parse_failures(commit)
        self.sizes.update(bytes_by_array(commit))
        for row in rows:
            self.statuses[row.status] += row.first == 0
            self.frames += row.num_frames
            self.shots += len(row.shots)
            for shot in row.shots:
                self.cameras[shot.camera] += 1
                self.masks_from[row.masks_from(shot)] += 1
                if shot.grade is not None:
                    self.grades[shot.grade] += 1
                elif shot.is_transition:
                    self.transitions += 1
                else:
                    self.short_shots += 1
        return rows


def summarise_store(root: Path) -> StoreCounts:
    """Counts over all complete shards of a store in a folder.

    Raises:
        StoreDamageError: a commit is damaged.
        StoreFormatError: a commit does not match the format.
    """
    counts = StoreCounts()
    for folder in committed_shards(root):
        counts.add(read_commit(folder))
    return counts
