"""Times of frames, strictly ascending, from the stamps that a file gives them.

A stamp is taken as it is wherever stamps ascend. Where they begin again, the next frame follows one step after the last,
and all after it are moved by as much. A frame without a stamp of its own is one step after the last; one whose stamp is
not after the last frame's is one unit after it.
"""

from __future__ import annotations

from fractions import Fraction

LONGEST_GAP_SECONDS = 10
"""Transport and program streams alone: a longer gap is not one, but a clock that was set anew, as in FFmpeg."""


class Clock:
    """Times of the frames of one pass, in order of presentation.

    Args:
        unit: seconds that a stamp counts in.
        step: usual seconds from one frame to the next.
        seams: how often times begin again, as far as the packets show.
        closes_gaps: whether gaps of more than `LONGEST_GAP_SECONDS` are such places too.
    """

    def __init__(self, unit: Fraction, step: Fraction, seams: int = 0, closes_gaps: bool = False) -> None:
        self._unit, self._step = unit, step
        self._seams_left, self._closes_gaps = seams, closes_gaps
        self._last_stamp = self._offset = Fraction(0)
        self._now: Fraction | None = None
        self._count = 0
        self.seams: list[int] = []

    def time(self, stamp: int | None) -> float:
        """Seconds at which the next frame is shown. `seams` then has the numbers of frames where times began again."""
        if self._now is None:
            now = Fraction(0) if stamp is None else stamp * self._unit
            self._last_stamp = now
        elif stamp is None:
            now = self._now + self._step
        else:
            shown = stamp * self._unit
            if self._seams_left and self._begins_again(shown):
                self._seams_left -= 1
                self.seams.append(self._count)
                self._offset = self._now + self._step - shown
            self._last_stamp = shown
            now = shown + self._offset
            if now <= self._now:
                now = self._now + self._unit
        self._now = now
        self._count += 1
        return float(now)

    def _begins_again(self, shown: Fraction) -> bool:
        return shown < self._last_stamp or (self._closes_gaps and shown - self._last_stamp > LONGEST_GAP_SECONDS)
