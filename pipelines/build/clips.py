"""Frames and masks of a video into the payloads of its shards.

A video that several shards share is built in one go, with one shard at a time in memory. Two readers read it: one runs
ahead to the end of a shot and estimates its background; the other follows, and its frames and masks are kept. So even
for an hour of video, no more than one shot's samples and one shard are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import fit_background
from bgaug.background.align import FrameAligner, placed
from bgaug.background.image import view
from bgaug.masks import difference_mask, frame_mask, threshold_map
from bgaug.masks.segmenter import Segmenter
from bgaug.names import MasksFrom
from bgaug.pipelines.build.process_video import put_shot
from bgaug.shots.shot import Shot
from bgaug.sizing import Fit, Size, fit_frame, resize_area
from bgaug.store import Header, VideoPayload
from bgaug.store import Shot as ShotRow
from bgaug.store.format.layout import FRAMES_PER_CHUNK
from bgaug.video import DecodedFrame

_SLACK = 0.25  # of a part's length, by which it may be longer or shorter


def fitted_shot(header: Header, shot: Shot) -> Shot:
    """A shot with its backgrounds at the store's size; its canvas and its small masks keep the working size."""
    background = shot.background and fit_background(shot.background, header.size, header.fit)
    views = tuple(
        replace(view, background=fit_background(view.background, header.size, header.fit)) for view in shot.views
    )
    return replace(shot, background=background, views=views)


def fitted_mask(mask: NDArray[np.bool_], size: Size, fit: Fit) -> NDArray[np.bool_]:
    """A small mask at a store's size: enlarged with its aspect, and fitted as the frames are.

    Args:
        mask: bool (h, w), with the aspect of the frames.
        size: (H, W).
        fit: of the store.

    Returns:
        bool (H, W).
    """
    height, width = mask.shape
    scale = max(1, -(-size[0] // height), -(-size[1] // width))
    shape = (width * scale, height * scale)
    enlarged = cv2.resize(mask.astype(np.uint8) * 255, shape, interpolation=cv2.INTER_LINEAR) > 127
    return fit_frame(enlarged.astype(np.uint8) * 255, size, fit) > 127


def masks_from(shot: Shot, network: Segmenter | None) -> MasksFrom | None:
    """Where the masks of a shot come from, if neither from its background nor from the differences between frames."""
    if network is not None:
        return "segmenter"
    return None if shot.masks is None else "motion"


def network_mask(header: Header, network: Segmenter, frame: DecodedFrame) -> NDArray[np.bool_]:
    """Mask of a frame by a segmentation network, which takes it as decoded: bool (H, W), at the store's size."""
    mask = network.share(frame.rgb()) > 0.5
    return fit_frame(mask.astype(np.uint8) * 255, header.size, header.fit, frame.display_size) > 127


class ShotMasks:
    """Masks of frames, in order, of shots in order.

    Args:
        header: of the store.
        shots: with their backgrounds at the store's size.
    """

    def __init__(self, header: Header, shots: Sequence[Shot]) -> None:
        self._header, self._shots = header, shots
        self._place = 0
        self._previous: NDArray[np.uint8] | None = None
        self._aligner: FrameAligner | None = None
        self._threshold = np.empty(0, np.uint8)
        self._begin(shots[0])

    def mask(self, index: int, image: NDArray[np.uint8], whole: NDArray[np.uint8] | None = None) -> NDArray[np.bool_]:
        """Mask of the next frame: bool (H, W).

        Args:
            index: number of the frame within the video.
            image: at the store's size.
            whole: as it was decoded; needed for the canvas of a moving camera.
        """
        while index >= self._shot.stop and self._place + 1 < len(self._shots):
            self._place += 1
            self._begin(self._shots[self._place])
        if self._shot.masks is not None:
            return fitted_mask(self._shot.masks.at(index - self._shot.start), self._header.size, self._header.fit)
        if self._aligner is not None and whole is not None:
            mask = self._mask_on_canvas(whole, index - self._shot.start)
            return fit_frame(mask.astype(np.uint8) * 255, self._header.size, self._header.fit) > 127
        if self._shot.background is not None:
            background = self._shot.background
            return frame_mask(image, background.image, self._threshold, shadows=background.shadows)
        previous, self._previous = self._previous, image
        return difference_mask(image, image if previous is None else previous)

    def _begin(self, shot: Shot) -> None:
        self._shot, self._previous, self._aligner = shot, None, None
        if shot.masks is not None:
            return
        if shot.canvas is not None:
            self._aligner = FrameAligner(shot.canvas.image, shot.canvas.valid, shot.canvas.size)
            self._threshold = threshold_map(shot.canvas.noise)
        elif shot.background is not None:
            self._threshold = threshold_map(shot.background.noise)

    def _mask_on_canvas(self, image: NDArray[np.uint8], frame: int) -> NDArray[np.bool_]:
        """Mask of a frame of a moving camera, bool, at the frame size of the canvas."""
        canvas = self._shot.canvas
        assert canvas is not None and self._aligner is not None
        image = resize_area(image, canvas.size)
        transform = placed(self._aligner, image, canvas.guess(frame)).transform
        seen, threshold = (view(layer, transform, canvas.size) for layer in (canvas.image, self._threshold))
        known: NDArray[np.bool_] = view(canvas.valid, transform, canvas.size)
        return frame_mask(image, seen, threshold) & known


@dataclass(frozen=True)
class Cutter:
    """Cuts a video into parts: between shots, where one ends near enough; else within one.

    Attributes:
        expected_frames: of the video, as far as is known.
        parts: their largest number; the last takes all frames beyond those expected.
    """

    expected_frames: int
    parts: int

    def cut(self, part: int, begun: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(part, start, stop) of the pieces of the next shot, where `part` began at frame `begun`."""
        length = self.expected_frames / self.parts
        while part < self.parts - 1:
            target = length * (part + 1)
            if start > begun and start >= target - _SLACK * length:
                part, begun = part + 1, start
                continue
            if stop <= target + _SLACK * length:
                break
            steps = max(1, round((target - start) / FRAMES_PER_CHUNK))
            middle = start + steps * FRAMES_PER_CHUNK
            if middle >= stop:
                break
            yield part, start, middle
            part, begun, start = part + 1, middle, middle
        yield part, start, stop


@dataclass
class _Part:
    """The share of one shard: first frame, counted within the video, payload, and shots as a row has them."""

    first: int
    payload: VideoPayload
    shots: list[ShotRow] = field(default_factory=list)


class LongVideo:
    """Cuts a video into parts while its frames come.

    Args:
        header: of the store.
        cutter: where to cut.
        put: called with each part when it is complete.
        network: makes the masks; None where the backgrounds do.

    Attributes:
        parts: first frame and shots of the parts that were put, in order.
    """

    def __init__(
        self, header: Header, cutter: Cutter, put: Callable[[VideoPayload], None], network: Segmenter | None = None
    ) -> None:
        self.parts: list[tuple[int, list[ShotRow]]] = []
        self._header, self._cutter, self._put, self._network = header, cutter, put, network
        self._part, self._number = _Part(0, VideoPayload(header)), 0
        self._pieces: list[tuple[int, int, int]] = []
        self._shot: Shot | None = None
        self._masks: ShotMasks | None = None

    def begin_shot(self, shot: Shot) -> None:
        """The next frames belong to this shot, whose background has the store's size."""
        self._shot, self._masks = shot, ShotMasks(self._header, [shot])
        self._pieces = list(self._cutter.cut(self._number, self._part.first, shot.start, shot.stop))

    def add(self, frame: DecodedFrame) -> None:
        """The next frame of the shot."""
        assert self._masks is not None
        if self._pieces and frame.index == self._pieces[0][1]:
            self._begin_piece(*self._pieces.pop(0))
        payload = self._part.payload
        fitted = fit_frame(frame.rgb(), self._header.size, self._header.fit, frame.display_size)
        payload.add_frame(frame.pts_seconds, fitted)
        if self._network is None:
            mask = self._masks.mask(frame.index, fitted, frame.rgb())
        else:
            mask = network_mask(self._header, self._network, frame)
        payload.add_masks(mask[None])

    def finish(self) -> None:
        """Put the last part."""
        if self._part.payload.pts_seconds:
            self._put(self._part.payload)
            self.parts.append((self._part.first, self._part.shots))

    def _begin_piece(self, part: int, start: int, stop: int) -> None:
        if part != self._number:
            self.finish()
            self._part, self._number = _Part(start, VideoPayload(self._header)), part
        assert self._shot is not None
        origin = masks_from(self._shot, self._network)
        self._part.shots.append(put_shot(self._part.payload, self._shot.part(start, stop), masks_from=origin))
