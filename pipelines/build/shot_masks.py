"""What is known of a shot, and the masks of its frames as they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, fit_background
from bgaug.background.align import FrameAligner, placed
from bgaug.background.image import view
from bgaug.background.stabilise import Canvas
from bgaug.masks import difference_mask, frame_mask, threshold_map
from bgaug.pipelines.build.process_video import WatchedShot
from bgaug.sizing import fit_frame, resize_area
from bgaug.store import Header, Shot, VideoPayload


@dataclass(frozen=True)
class KnownShot:
    """A shot whose masks can be made.

    Attributes:
        shot: as a row has it; its background counts within the video, -1 for none.
        background: at the store's size, where it has one.
        canvas: of a camera that shakes: what its frames are held against.
    """

    shot: Shot
    background: Background | None
    canvas: Canvas | None = None


def known_shot(header: Header, seen: WatchedShot) -> KnownShot:
    """A shot that was seen, with its background at the store's size."""
    background = None
    if seen.background is not None:
        background = fit_background(seen.background, header.size, header.fit)
    shot = Shot(
        start=seen.start,
        stop=seen.stop,
        background=-1,
        camera=seen.camera,
        grade=seen.grade,
        reasons=list(seen.reasons),
    )
    return KnownShot(shot, background, seen.canvas)


def placed_shots(payload: VideoPayload, known: list[KnownShot]) -> list[Shot]:
    """The backgrounds into the payload; the shots, as a row has them."""
    return [
        one.shot.model_copy(
            update={"background": -1 if one.background is None else payload.add_background(one.background)}
        )
        for one in known
    ]


class ShotMasker:
    """Masks of one shot's frames, in order.

    Args:
        header: of the store.
        known: the shot.
    """

    def __init__(self, header: Header, known: KnownShot) -> None:
        self._header = header
        self._start = known.shot.start
        self._background = known.background
        self._threshold = None if known.background is None else threshold_map(known.background.noise)
        self._steady = None if known.canvas is None else _Steady(known.canvas)
        self._previous: NDArray[np.uint8] | None = None

    def mask(self, index: int, image: NDArray[np.uint8], whole: NDArray[np.uint8] | None = None) -> NDArray[np.bool_]:
        """Mask of the next frame: bool (H, W).

        Args:
            index: the frame, counted within the video.
            image: at the store's size.
            whole: as it was, for a camera that shakes.
        """
        if self._steady is not None and whole is not None:
            mask = self._steady.mask(whole, index - self._start)
            return fit_frame(mask.astype(np.uint8) * 255, self._header.size, self._header.fit) > 127
        if self._background is not None and self._threshold is not None:
            return frame_mask(image, self._background.at(index - self._start), self._threshold)
        previous, self._previous = self._previous, image
        return difference_mask(image, image if previous is None else previous)


class _Steady:
    """Masks of the frames of a camera that shakes, each against what it sees of the canvas."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._aligner = FrameAligner(canvas.image, canvas.valid, canvas.size)
        self._threshold = threshold_map(canvas.noise)

    def mask(self, image: NDArray[np.uint8], frame: int) -> NDArray[np.bool_]:
        """Mask of a frame of the shot, bool, at the size of the canvas's frames."""
        canvas = self._canvas
        image = resize_area(image, canvas.size)
        transform = placed(self._aligner, image, canvas.guess(frame)).transform
        seen, threshold = (view(layer, transform, canvas.size) for layer in (canvas.image, self._threshold))
        known: NDArray[np.bool_] = view(canvas.valid, transform, canvas.size)
        return frame_mask(image, seen, threshold) & known
