"""One shot of a video, as it is handed on: from its estimate to stores and masks.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bgaug.background import Background, BackgroundView, Canvas
from bgaug.masks.bits import SmallMasks
from bgaug.shots.cuts import Verdict


@dataclass(frozen=True)
class Shot:
    """One shot of a video, with what masks are made from.

    Attributes:
        start: first frame, counted within the video.
        stop: one past the last frame.
        camera: "static", "jitter", "moving", or "unknown" where it was not examined or could not be determined.
        background: as a static camera sees it; None if the shot is too short or its camera moves, unless a
            mosaic could be verified.
        canvas: what the frames of a moving camera are aligned to; None for a still camera, or if alignment failed.
        views: backgrounds of a moving camera that has no single one, each as one frame sees it, in order of frames;
            `background` is then None.
        masks: masks of all frames at a small size, if they do not come from a background; they then take precedence.
        grade: A to F; None for a shot too short to be graded.
        reasons: what lowered the grade, and black bars; of a transition, its kind.
    """

    start: int
    stop: int
    camera: Verdict = "unknown"
    background: Background | None = None
    canvas: Canvas | None = None
    grade: str | None = None
    reasons: tuple[str, ...] = ()
    views: tuple[BackgroundView, ...] = ()
    masks: SmallMasks | None = None

    def part(self, start: int, stop: int) -> Shot:
        """The shot as its frames `start` to `stop`, counted within the video, need it, without its masks.

        Of its views it keeps those of these frames, and one before and behind them.
        """
        moved = start - self.start
        before = [view for view in self.views if view.frame < moved][-1:]
        behind = [view for view in self.views if view.frame >= stop - self.start][:1]
        inside = [view for view in self.views if moved <= view.frame < stop - self.start]
        views = tuple(replace(view, frame=view.frame - moved) for view in (*before, *inside, *behind))
        canvas = self.canvas and replace(self.canvas, indices=self.canvas.indices - moved)
        return replace(self, start=start, stop=stop, views=views, canvas=canvas, masks=None)
