"""The shots of a store that clips are drawn from, and why others are left out.

Letters: N videos, S shots of all videos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bgaug.store import Store
from bgaug.store.format.records import GRADES, MASKS_FROM, STATUSES

if TYPE_CHECKING:
    from bgaug.data.dataset import ClipOptions

TOLERANCE_SECONDS = 1e-6
"""Rounding of times of frames."""

_REASONS = ("fragments", "no_background", "too_short", "fragments", "grade")
"""Why shots are left out, in the order in which they are counted; see `ShotsLeftOut`."""

_MANY_TIMES = 4
"""A shot that is this many times as long as a clip, by its mean frame rate, holds it; its times are not read."""


@dataclass(frozen=True)
class ShotsLeftOut:
    """What a `ClipDataset` leaves out, by reason.

    The reasons are "fragments" between cuts, and transitions between shots; "no_background"; "too_short", shorter than
    a clip, with `short="skip"`; and "grade", a worse one than `min_grade`.

    Attributes:
        num_videos: videos to begin with.
        num_shots: their shots.
        videos: number of videos that lost their last shot for a reason; reasons without any are absent.
        shots: number of shots that were left out for a reason; likewise.
    """

    num_videos: int
    num_shots: int
    videos: Mapping[str, int]
    shots: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "videos": sum(self.videos.values()),
            "of_videos": self.num_videos,
            "shots": sum(self.shots.values()),
            "of_shots": self.num_shots,
            "videos_by_reason": dict(self.videos),
            "shots_by_reason": dict(self.shots),
        }


class UsableShots:
    """Chooses the shots of a store that clips are drawn from.

    Args:
        store: the store.
        options: of the clips.
        backgrounds: whether only shots with a static background count.
    """

    def __init__(self, store: Store, options: ClipOptions, *, backgrounds: bool) -> None:
        self.store, self.options, self.needs_background = store, options, backgrounds

    def weights(self, keep: NDArray[np.bool_], min_grade: str | None) -> tuple[NDArray[np.int64], ShotsLeftOut]:
        """Frames of each shot that clips may be drawn from, 0 for all other shots: int64 (S,); and what is left out."""
        c = self.store.columns
        lengths = (c.shot_stop - c.shot_start).astype(np.int64)
        per_video = np.diff(c.shot_offsets)
        usable = lengths > 0
        steps = [usable]
        if self.needs_background:
            usable = usable & (c.shot_background >= 0)
            usable &= np.repeat(c.status != STATUSES.index("no_static_background"), per_video)
        steps.append(usable)
        if self.options.short == "skip":
            usable = usable & self._holds_a_clip(lengths, usable & np.repeat(keep, per_video))
        steps.append(usable)
        fragment = lengths < self.options.min_shot_seconds * np.repeat(c.fps, per_video)
        # Without a grade are fragments, and transitions between two shots: even a long one is no shot to draw from.
        transition = (c.shot_grade == 0) & (c.shot_background < 0) & (lengths >= np.repeat(c.fps, per_video))
        if not self.needs_background:
            transition |= self._among_fragments(usable & np.repeat(keep, per_video))
        for kind in (transition, fragment | transition):
            usable = usable & ~(kind & np.repeat(self._any_shot(usable & ~kind), per_video))
        steps.append(usable)
        # Last: a fragment does not take the place of a longer shot with a bad grade.
        if min_grade is not None:
            usable = usable & ~(self._judged_by_grade() & (c.shot_grade > GRADES.index(min_grade)))
        steps.append(usable)
        return np.where(usable, lengths, 0), self._left_out(keep, steps)

    def _any_shot(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether any shot of each video has its flag set: (S,) to (N,)."""
        counts = np.concatenate([[0], np.cumsum(flags)])
        return np.diff(counts[self.store.columns.shot_offsets]) > 0

    def _among_fragments(self, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Transitions of videos that have nothing but fragments and transitions, which only rows distinguish: (S,)."""
        c = self.store.columns
        found = np.zeros(len(asked), np.bool_)
        ungraded = asked & (c.shot_grade == 0) & (c.shot_background < 0)
        several = np.diff(c.shot_offsets) > 1
        for video in np.flatnonzero(self._any_shot(ungraded) & ~self._any_shot(asked & ~ungraded) & several).tolist():
            first, last = c.shot_offsets[video : video + 2].tolist()
            found[first:last] = [shot.is_transition for shot in self.store.row(video).shots]
        return found

    def _judged_by_grade(self) -> NDArray[np.bool_]:
        """Shots whose grade predicts the quality of their masks: bool (S,)."""
        elsewhere = [MASKS_FROM.index(name) for name in ("segmenter", "imported")]
        return ~np.isin(self.store.columns.shot_masks_from, elsewhere)

    def _left_out(self, keep: NDArray[np.bool_], steps: Sequence[NDArray[np.bool_]]) -> ShotsLeftOut:
        """What each step leaves out of the videos to keep; `steps` are the shots (S,) that are left after each."""
        c = self.store.columns
        asked = np.repeat(keep, np.diff(c.shot_offsets))
        # That fragments and transitions have no background is not why they are left out.
        ungraded = (c.shot_grade == 0) & (c.shot_background < 0) & ~steps[-1]
        steps = [steps[0] & asked, *(step & asked & ~ungraded for step in steps)]
        shots, videos = Counter[str](), Counter[str]()
        for reason, (before, after) in zip(_REASONS, pairwise(steps), strict=True):
            shots[reason] += int((before & ~after).sum())
            videos[reason] += int((self._any_shot(before) & ~self._any_shot(after)).sum())
        return ShotsLeftOut(int(keep.sum()), int(asked.sum()), dict(+videos), dict(+shots))

    def _holds_a_clip(self, lengths: NDArray[np.int64], asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the shots `asked` hold a whole clip: (S,)."""
        if self.options.stride_seconds is None:
            return lengths >= self.options.span
        c = self.store.columns
        # By seconds the first and last times of a shot are read, but only where the mean frame rate leaves a doubt: all
        # of them would take seconds for a large store. If a long shot is too short after all, it is padded.
        needed = (self.options.num_frames - 1) * self.options.stride_seconds - TOLERANCE_SECONDS
        holds = lengths - 1 > _MANY_TIMES * needed * np.repeat(c.fps, np.diff(c.shot_offsets))
        asked = asked & ~holds
        for video in np.flatnonzero(self._any_shot(asked)).tolist():
            first, last = c.shot_offsets[video : video + 2].tolist()
            shots = first + np.flatnonzero(asked[first:last])
            ends = np.stack([c.shot_start[shots], c.shot_stop[shots] - 1], axis=1).astype(np.int64)
            times = self.store.pts_at(video, ends.ravel()).reshape(-1, 2)
            holds[shots] = times[:, 1] - times[:, 0] >= needed
        return holds
