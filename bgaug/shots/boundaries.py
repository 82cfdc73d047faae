"""The boundaries of the shots of a video: hard cuts, dissolves and fades, in one pass."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from bgaug.shots.cuts import DELAY, CutFinder
from bgaug.shots.gradual import HOLD, Boundary, GradualFinder

MAX_HELD = DELAY + HOLD + 1
"""Largest number of frames for which it is open whether a shot begins there."""

REASONS = {"dissolve": "a dissolve between two shots", "fade": "a fade between two shots"}
"""What a shot that consists of the frames of a transition gives as its reason."""


class ShotFinder:
    """Finds the boundaries between shots, at most `MAX_HELD` frames late.

    Hard cuts are those of `CutFinder`; gradual transitions are searched between them. A new shot never begins before
    `num_settled`, so only later frames need to be held; but that a shot has ended with the beginning of a transition
    is known once the transition is over::

        for frame in reader.scan():
            for found in finder.feed(frame.thumbnail()):
                ...  # the shot before ends at found.stop, the next one begins at found.start
    """

    def __init__(self) -> None:
        self._cuts = CutFinder()
        self._gradual = GradualFinder()
        self._waiting: deque[NDArray[np.uint8]] = deque()  # those that may still follow a hard cut
        self._cut: int | None = None
        self._num_passed = 0

    @property
    def num_settled(self) -> int:
        """All shots that begin at frames below this one are known."""
        return self._gradual.num_settled

    @property
    def fade_from(self) -> int | None:
        """First frame of a fade that is going on: it and all later frames so far belong to no shot; None otherwise."""
        return self._gradual.fade_from

    def feed(self, thumbnail: NDArray[np.uint8]) -> list[Boundary]:
        """Process the next frame.

        Args:
            thumbnail: uint8 (60, 80, 3), as `DecodedFrame.thumbnail` gives it; kept, not copied, for some seconds.

        Returns:
            The boundaries that are known now, in order.

        Raises:
            ValueError: a thumbnail of another shape or type.
        """
        cut = self._cuts.feed(thumbnail)
        self._cut = self._cut if cut is None else cut
        self._waiting.append(thumbnail)
        return self._pass_on(self._cuts.num_settled)

    def finish(self) -> list[Boundary]:
        """The boundaries that were not returned yet, in order; the last may end with the video."""
        found: list[Boundary] = []
        for cut in self._cuts.finish():
            self._cut = cut
            found += self._pass_on(cut + 1)
        found += self._pass_on(self._num_passed + len(self._waiting))
        last = self._gradual.finish()
        return found if last is None else [*found, last]

    def _pass_on(self, stop: int) -> list[Boundary]:
        """Search the frames below `stop`, which no unknown hard cut precedes, for gradual transitions."""
        found: list[Boundary | None] = []
        while self._num_passed < stop:
            if self._num_passed == self._cut:
                found += self._end_at_cut(self._cut)
            found.append(self._gradual.feed(self._waiting.popleft()))
            self._num_passed += 1
        return [each for each in found if each is not None]

    def _end_at_cut(self, cut: int) -> list[Boundary | None]:
        last = self._gradual.finish()
        self._gradual, self._cut = GradualFinder(cut), None
        # If a fade ends with the cut, there is no shot between the two.
        return [last] if last is not None and last.start == cut else [last, Boundary(cut, cut, "cut")]


def shots_between(boundaries: list[Boundary], num_frames: int) -> list[tuple[int, int]]:
    """First frame and one past the last of each shot, without the frames of transitions; none is empty."""
    starts, stops = [0, *(each.start for each in boundaries)], [*(each.stop for each in boundaries), num_frames]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
