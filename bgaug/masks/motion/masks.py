"""Foreground masks of a shot from motion: for cameras that move, and for people who never leave.

Letters: T frames of a shot, N frames of a window, H, W pixels, h, w half of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.flow import sampled
from bgaug.masks.bits import SmallMasks, pack_mask
from bgaug.masks.motion.classifier import THRESHOLD, window_scores
from bgaug.masks.motion.cues import Window
from bgaug.sizing import resize_area

_Floats = NDArray[np.float32]
_Images = NDArray[np.uint8]

WINDOW, OVERLAP = 40, 10
"""Frames of a window, and those that it shares with the next: two and a half seconds bound the memory."""

_LEAST_PART = 0.12  # of the largest part: smaller ones are dropped
_LARGEST_HOLE = 0.01  # of the image: enclosed holes up to it are filled
_LEAST_SIDE = 32  # pixels: flow needs more than a few


class PersonNetwork(Protocol):
    """What is needed of a segmentation network; see `bgaug.masks.segmenter.Segmenter`."""

    def share(self, image: _Images, size: tuple[int, int] | None = None) -> _Floats:
        """Share of foreground, float32 in [0, 1], at `size` (height, width)."""
        ...


@dataclass(frozen=True)
class WindowMasks:
    """Foreground in a window of a shot.

    Attributes:
        window: its frames and their flow.
        odds: float32 (N, h, w), log odds of foreground.
        start: number of its first frame among the frames that were given.
        first: position in the window of the first frame that no earlier window has covered.
        last: one past the last frame that this window covers; later ones are covered by the next window.
    """

    window: Window
    odds: _Floats
    start: int
    first: int
    last: int


@dataclass(frozen=True)
class MotionMasks:
    """Masks of a shot.

    Attributes:
        masks: of all frames, at (h, w).
        expected: expected IoU of each mask by the classifier's own probabilities, float32 (T,); 0 for an empty mask.
    """

    masks: SmallMasks
    expected: NDArray[np.float32]


def motion_masks(
    frames: Iterable[_Images],
    num_frames: int,
    stride: int,
    background: _Images | None = None,
    network: PersonNetwork | None = None,
    on_window: Callable[[WindowMasks], None] | None = None,
) -> MotionMasks | None:
    """Masks of all frames of a shot from every `stride`-th of them.

    What moves against the camera votes for foreground; votes are collected along the flow, shared among pixels of like
    colour and place, and weighed with colours, place and texture by a small fitted classifier, in two rounds. Bodies
    that do not move at all are not found without a network.

    Args:
        frames: every `stride`-th frame of the shot, from its first: uint8 (H, W, 3), RGB, with a short side of about
            240 pixels.
        num_frames: T.
        stride: distance between the frames.
        background: uint8 (H, W, 3), of a static camera; None for others.
        network: segmentation network whose output is one more cue.
        on_window: called with each window and its masks, in order.

    Returns:
        None for a shot of fewer than two such frames, or of frames of a few pixels.
    """
    packed: list[NDArray[np.uint8]] = []
    expected: list[float] = []
    size = (0, 0)
    for scores in islice(_every_frame(_scores(frames, background, network, on_window), stride), num_frames):
        mask = _cleaned(scores > THRESHOLD)
        size = (mask.shape[0], mask.shape[1])
        packed.append(pack_mask(mask))
        expected.append(_expected_iou(scores, mask))
    if not packed:
        return None
    missing = num_frames - len(packed)
    packed += packed[-1:] * missing
    expected += expected[-1:] * missing
    return MotionMasks(SmallMasks(np.stack(packed), size), np.array(expected, np.float32))


def _scores(
    frames: Iterable[_Images],
    background: _Images | None,
    network: PersonNetwork | None,
    on_window: Callable[[WindowMasks], None] | None,
) -> Iterator[tuple[_Floats, _Floats | None]]:
    """Log odds (h, w) of each frame, with its flow (h, w, 2) to the next frame, None after the last one."""
    for held, start, first, last in _parts(frames):
        window = Window.of(held)
        height, width = window.half.shape[1:3]
        still = None if background is None else resize_area(background, (height, width))
        person = None if network is None else np.stack([network.share(frame, (height, width)) for frame in held])
        scores = window_scores(window, still, person)
        if on_window is not None:
            on_window(WindowMasks(window, scores, start, first, last))
        for place in range(first, last):
            yield scores[place], window.flow.forward[place] if place + 1 < len(held) else None


def _parts(frames: Iterable[_Images]) -> Iterator[tuple[list[_Images], int, int, int]]:
    """Frames of each window, with the numbers `start`, `first` and `last` of `WindowMasks`."""
    held: list[_Images] = []
    start, first = 0, 0
    for frame in frames:
        if len(held) == WINDOW:
            yield held, start, first, WINDOW - OVERLAP // 2
            held, start, first = held[-OVERLAP:], start + WINDOW - OVERLAP, OVERLAP // 2
        held.append(frame)
    if len(held) > 1 and min(held[0].shape[:2]) >= _LEAST_SIDE:
        yield held, start, first, len(held)


def _every_frame(found: Iterator[tuple[_Floats, _Floats | None]], stride: int) -> Iterator[_Floats]:
    """Log odds of all frames: between two that were looked at, both are moved along the flow and mixed."""
    before, flow = next(found, (None, None))
    if before is None:
        return
    yield before
    for after, flow_after in found:
        assert flow is not None
        for step in range(1, stride):
            share = step / stride
            yield (1 - share) * sampled(before, -share * flow) + share * sampled(after, (1 - share) * flow)
        yield after
        before, flow = after, flow_after


def _cleaned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without parts that are small compared with its largest, and without small enclosed holes."""
    plain = mask.astype(np.uint8)
    _, parts, areas, _ = cv2.connectedComponentsWithStats(plain, connectivity=8)
    sizes = areas[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    if sizes.max() == 0:
        return mask
    kept = (sizes >= _LEAST_PART * sizes.max())[parts]
    _, parts, areas, _ = cv2.connectedComponentsWithStats(np.asarray(~kept, np.uint8), connectivity=4)
    left, top, wide, tall = (areas[:, column] for column in range(4))
    inside = (left > 0) & (top > 0) & (left + wide < mask.shape[1]) & (top + tall < mask.shape[0])
    holes = inside & (areas[:, cv2.CC_STAT_AREA] <= _LARGEST_HOLE * mask.size)
    holes[0] = False
    return np.asarray(kept | holes[parts], np.bool_)


def _expected_iou(scores: _Floats, mask: NDArray[np.bool_]) -> float:
    share = 1 / (1 + np.exp(-np.clip(scores, -30, 30)))
    inside = float(share[mask].sum())
    return inside / max(1.0, int(mask.sum()) + float(share.sum()) - inside)
