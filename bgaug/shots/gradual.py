"""Gradual transitions in a stream of frames: dissolves and fades.

In a dissolve every frame is a mixture (1 - a) P + a Q of the images before and after it, and a rises from 0 to 1. Three
consequences are tested. On a coarse grid, which motion hardly changes, the frames lie on the line from P to Q. And the
energy of fine detail is (1 - a)^2 that of P plus a^2 that of Q, so it dips in the middle in nearly every part of the
image: a pan, a zoom, a wipe or a person close to the camera leaves it as it is. And most of the image
changes. A fade is a dissolve from or to a flat image. The thresholds come from films made of folds 0 to 2 of JHMDB, see
`benchmarks/cuts.py`.

Letters: M frames from P to Q, K tiles of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bgaug.shots.window import Floats, Window

Kind = Literal["cut", "dissolve", "fade"]

HOLD = 8
"""Frames that a `GradualFinder` may hold back before it decides whether a shot begins there."""

_LENGTHS = (7, 8, 9, 11, 13, 15, 18, 21, 25, 30, 36, 43, 51, 61, 73, 87)  # frames from P to Q, a fifth more each
_SUSPECT_LAGS = (4, 12, 36)  # frames
# Distances of grids and their spread, in grey levels.
_MIN_DISTANCE, _MIN_SUSPECT, _FLAT = 11.0, 5.0, 3.0
_MAX_CORRELATION = 0.6  # of P and Q; a light that changes, or little motion, leaves more
_MIN_MEDIAN = 0.2  # of the distance: of the changes of all cells; a mover changes few cells, another scene nearly all
_END = 0.12  # share of the other image, in the frames at either end
_EARLY, _LATE = 0.1, 0.9  # frames with a share a between them are mixtures, of which there must be so many
_MIN_MIXTURES = 3
_MAX_LEFT, _MAX_LEFT_SHORT, _LONG = 0.22, 0.12, 40  # of the squared distance: what motion explains grows with time
_MAX_BEND = 0.12  # root mean square of a around its line
_MIN_DIP, _MIN_TILE_DIP, _MIN_TILES = 0.6, 0.4, 0.6  # of the dip of a dissolve; share of the tiles that have it
_GROWS, _PATIENCE = 1.02, 4  # a transition is over if the distance from P has not grown so much in so many frames
_MOST_PATIENCE = 12  # frames for which it may grow without being that of a mixture


class Boundary(NamedTuple):
    """The end of a shot and the start of the next one.

    Attributes:
        stop: one past the last frame of the shot before.
        start: first frame of the shot after; the frames in between belong to the transition.
        kind: "cut", where `stop` is `start`; "dissolve"; "fade", from or to a flat image, such as black.
    """

    stop: int
    start: int
    kind: Kind


@dataclass
class _Candidate:
    """A transition that may still go on.

    Attributes:
        before: number of the frame P within the video.
        share: a of the frames from P to Q, float32 (M + 1,).
        distance: of P and Q, grey levels.
        flat: whether P and Q are flat images.
        seen: number of frames that had come when it was found.
        farthest: largest distance from P since then.
        grown: number of frames that had come when that grew.
    """

    before: int
    share: Floats
    distance: float
    flat: tuple[bool, bool]
    seen: int
    farthest: float
    grown: int


class GradualFinder:
    """Finds dissolves and fades in one pass over the frames between two hard cuts.

    A dissolve takes 5 to 75 frames, and so does each half of a fade. Wipes are not found. `num_settled` is as that of
    `CutFinder`: no new shot begins before that frame; but the end of the shot before may lie further back.

    Args:
        first: number of the first frame within the video.
    """

    def __init__(self, first: int = 0) -> None:
        self.num_settled = first
        self._begin = first  # of the shot
        self._window = Window(first)
        self._flat = (-1, -1)  # first and one past the last frame of the last flat images
        self._candidate: _Candidate | None = None
        self.fade_from: int | None = None

    @property
    def num_frames(self) -> int:
        """Number of the next frame within the video."""
        return self._window.first + len(self._window)

    def feed(self, thumbnail: NDArray[np.uint8]) -> Boundary | None:
        """Process the next frame.

        Args:
            thumbnail: uint8 (60, 80, 3), as `DecodedFrame.thumbnail` gives it; kept, not copied, for some seconds.

        Returns:
            A transition that is over, else None. Its `start` is at most `HOLD` frames back.
        """
        self._window.add(thumbnail)
        last = len(self._window) - 1
        if self._window.spread(last) < _FLAT:
            begin = self._flat[0] if self._flat[1] == self.num_frames - 1 else self.num_frames - 1
            self._flat = (begin, self.num_frames)
        if not self._is_suspect(last):
            self.num_settled = self.num_frames
            return None
        found = self._look(last) if self.num_frames % 2 == 0 else None
        if found is None and self.fade_from is not None and self.num_frames - self._flat[1] > _LENGTHS[-1]:
            found = Boundary(self.fade_from, self._flat[1], "fade")  # what came out of the flat image is no fade
        if found is not None:
            found = found._replace(start=max(found.start, self.num_settled))
            self._begin_shot(found.start)
        self.num_settled = max(self.num_settled, self.num_frames - HOLD)
        return found

    def finish(self) -> Boundary | None:
        """The transition among the last frames that was not returned yet, if there is one."""
        found = self._look(len(self._window) - 1) if len(self._window) else None
        found = found or self._end_candidate()
        if found is None and self.fade_from is not None:
            found = Boundary(self.fade_from, self.num_frames, "fade")
        return None if found is None else found._replace(start=max(found.start, self.num_settled))

    def _begin_shot(self, start: int) -> None:
        self._window.drop(start - self._window.first)
        self._begin = self.num_settled = start
        self._candidate = self.fade_from = None

    def _is_suspect(self, last: int) -> bool:
        """Whether the image has changed at all, slowly or not."""
        if self.fade_from is not None:
            return True
        for lag in _SUSPECT_LAGS:  # a generator that is left early needs memory to end
            if self._window.distance(max(0, last - lag), last) > _MIN_SUSPECT:
                return True
        return False

    def _look(self, last: int) -> Boundary | None:
        """Compare the last frame with earlier ones, and end a transition that goes on no longer."""
        starts = [last - length for length in _LENGTHS]
        others = [self._flat[1] - 1] + ([self._candidate.before] if self._candidate else [])
        starts += [number - self._window.first for number in others]
        best: _Candidate | None = None
        for start in starts:
            if start < 0 or last - start < _LENGTHS[0]:
                continue
            distance = self._window.distance(start, last)
            if distance >= max(_MIN_DISTANCE, best.distance if best else 0.0):
                best = self._judge(start, last, distance) or best
        if best is not None and (self._candidate is None or best.distance > _GROWS * self._candidate.distance):
            self._candidate = best
        return self._end_candidate() if self._candidate is not None and self._is_over(self._candidate, last) else None

    def _is_over(self, found: _Candidate, last: int) -> bool:
        """Whether a transition goes on no longer."""
        number = found.before - self._window.first
        distance = self._window.distance(number, last) if number >= 0 else 0.0
        if distance > _GROWS * found.farthest:
            found.farthest, found.grown = distance, self.num_frames
        at_rest = self.num_frames - found.grown >= _PATIENCE or self.num_frames - found.seen >= _MOST_PATIENCE
        return found.flat[1] or at_rest

    def _judge(self, i: int, j: int, distance: float) -> _Candidate | None:
        """Whether the frames between frames i and j of the window are mixtures of the two, and rise from i to j."""
        window, count = self._window, j - i
        flat = window.spread(i) < _FLAT, window.spread(j) < _FLAT
        within_fade = self.fade_from is not None or window.first + i < self._flat[0] <= window.first + j
        if all(flat) or (within_fade and not any(flat)) or (self.fade_from is not None and not flat[0]):
            return None
        if not any(flat) and (
            window.correlation(i, j) > _MAX_CORRELATION or window.median_change(i, j) < _MIN_MEDIAN * distance
        ):
            return None
        share, left = window.mixture(i, j)
        before = 0 if flat[0] else max(2, count // 8)
        after = 0 if flat[1] else max(3, count // 8)
        if share[before] > _END or share[count - after] < 1 - _END:
            return None
        middle = (share > _EARLY) & (share < _LATE)
        if middle.sum() < _MIN_MIXTURES:
            return None
        slope, offset = _line(share)
        if slope <= 0:
            return None
        bend = share - np.clip(offset + slope * np.arange(count + 1), 0, 1)
        around = slice(max(0, int(np.flatnonzero(middle)[0]) - 2), int(np.flatnonzero(middle)[-1]) + 3)
        growth = min(1.0, 1 / (slope * _LONG))
        most = _MAX_LEFT_SHORT + growth * (_MAX_LEFT - _MAX_LEFT_SHORT)
        if np.median(left[middle]) > most or np.sqrt(np.mean(np.square(bend[around]))) > _MAX_BEND:
            return None
        if not self._detail_dips(i, j, share, middle):
            return None
        seen = self.num_frames
        return _Candidate(window.first + i, share, distance, flat, seen, distance, seen)

    def _detail_dips(self, i: int, j: int, share: Floats, middle: NDArray[np.bool_]) -> bool:
        """Whether the fine detail is as weak in the middle as that of a mixture of frames i and j."""
        of_p, of_q = self._window.detail(i), self._window.detail(j)
        seen = np.stack([self._window.detail(i + k) for k in np.flatnonzero(middle).tolist()])
        a = share[middle][:, None]
        between = (1 - a) * of_p + a * of_q
        expected = (between - ((1 - a) ** 2 * of_p + a * a * of_q)).sum(0)
        dip = (between - seen).sum(0)
        weight = np.sqrt(expected)  # tiles of much detail count more, but not all
        enough = float(weight[dip > _MIN_TILE_DIP * expected].sum()) >= _MIN_TILES * float(weight.sum())
        return enough and float(dip.sum()) > _MIN_DIP * float(expected.sum())

    def _end_candidate(self) -> Boundary | None:
        """The boundary of a transition; None if there is none, or if it is the first half of a fade, which goes on."""
        found, self._candidate = self._candidate, None
        if found is None:
            return None
        begin, end = _extent(found.share)
        stop, start = max(self._begin, found.before + begin), found.before + end
        if found.flat[1]:
            self.fade_from = stop
            return None
        if self.fade_from is not None:
            stop = self.fade_from
        elif found.flat[0]:
            stop = max(self._begin, self._flat[0])
        return Boundary(stop, start, "fade" if found.flat[0] else "dissolve")


def _line(share: Floats) -> tuple[float, float]:
    """Slope and offset of a line through the rising part of a share, float32 (M + 1,); zeros if there is none."""
    rising = np.flatnonzero((share > 0.15) & (share < 0.85))
    if len(rising) < 2:
        return 0.0, 0.0
    x, y = rising - rising.mean(), share[rising]
    slope = float(x @ y / (x @ x))
    return slope, float(y.mean() - slope * rising.mean())


def _extent(share: Floats) -> tuple[int, int]:
    """First frame of a transition and one past the last, counted from P: where the line through its share ends.

    A transition that begins or ends softly is longer, by a fifth at each end at most.
    """
    slope, offset = _line(share)
    begin, end = round(-offset / slope) + 1, round((1 - offset) / slope)
    soft = int((end - begin) / 5)
    middle = int(np.flatnonzero(share >= 0.5)[0])
    pure_before = np.flatnonzero(share[:middle] < 0.04)
    pure_after = np.flatnonzero(share[middle:] > 0.96)
    if len(pure_before):
        begin = max(min(begin, int(pure_before[-1]) + 1), begin - soft)
    if len(pure_after):
        end = min(max(end, middle + int(pure_after[0])), end + soft)
    return max(1, begin), min(len(share) - 1, end)
