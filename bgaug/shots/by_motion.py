"""A shot without a background that is right: masks from motion, and the background as frames around them show it.

The camera moves, or people never leave. The evidence for the latter needs no truth: the shot is too short for anybody
to leave and its median is poor, or its background seems to hold a ghost.

Letters: T frames, N frames of a window, S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgaug.background import BackgroundView, ShotSamples, background_of
from bgaug.background.flow import FLOW_SIDE, stride_of
from bgaug.background.views import SeenBackground, background_view, masked_background
from bgaug.masks.motion import MotionMasks, PersonNetwork, WindowMasks, motion_masks
from bgaug.shots.cuts import Camera
from bgaug.shots.quality import GRADES, Quality, grade_by_motion, grade_shot
from bgaug.shots.shot import Shot
from bgaug.sizing import Size, resize_area, working_size

_Image = NDArray[np.uint8]

VIEW_EVERY, MOST_VIEWS = 16, 64
"""Frames with flow between the backgrounds of a moving camera, about a second; of a long shot, further apart."""

_FEWEST = 6
_LEAST_SIDE = 96  # pixels: in smaller images a background, where there is one, finds more
_SHORT_SECONDS = 1.5  # people seldom leave in that time; two seconds would lose backgrounds that are right
_POOR = 0.7  # score of a median: 95 % of short clips with people have less than .6, scenes with a right median .7
_LEAST_EXPECTED = 0.3  # expected IoU: movers of a few pixels have less, and a background finds them
_GHOST, _UNSURE = 0.32, 0.25  # signals of clips in which people stay; cluttered rooms with a right background have .22


class FlowFrames:
    """The frames of a shot that flow is measured between, collected in one pass in bounded memory.

    Args:
        size: (H, W) of the frames.
        fps: of the video.
        memory: bytes of frames held at once. If a shot needs more, they are dropped, and `read_again` delivers them.

    Attributes:
        read_again: function that returns the requested frames of the shot once more; None if they cannot be had.
    """

    def __init__(self, size: Size, fps: float, *, memory: int) -> None:
        self.size = working_size(size, FLOW_SIDE)
        self.fps = fps
        self.stride = stride_of(fps)
        self.num_frames = 0
        self._most = max(2, memory // (self.size[0] * self.size[1] * 3))
        self._held: list[_Image] = []
        self._dropped = False
        self.read_again: Callable[[], Iterator[_Image]] | None = None

    def wants(self, index: int) -> bool:
        """Whether the pixels of frame `index` of the shot are needed; must be called for every frame, in order."""
        self.num_frames = index + 1
        return index % self.stride == 0 and not self._dropped

    def add(self, image: _Image) -> None:
        """Add a frame that `wants` requested: uint8 (H, W, 3)."""
        if len(self._held) == self._most:
            self._held, self._dropped = [], True
        else:
            self._held.append(resize_area(image, self.size))

    def __len__(self) -> int:
        """N, frames of the whole shot that are looked at."""
        return (self.num_frames + self.stride - 1) // self.stride

    @property
    def seconds(self) -> float:
        """Duration of the shot at the frame rate of the video."""
        return self.num_frames / self.fps

    @property
    def are_enough(self) -> bool:
        """Whether the frames can be had, and are enough, and large enough, to tell motion from noise."""
        at_hand = not self._dropped or self.read_again is not None
        return at_hand and min(self.size) >= _LEAST_SIDE and len(self) >= _FEWEST

    def end_at(self, stop: int) -> None:
        """Forget the frames from `stop` on, at least 1: the shot has ended there."""
        self.num_frames = min(self.num_frames, stop)
        del self._held[len(self) :]

    def __iter__(self) -> Iterator[_Image]:
        if not self._dropped:
            yield from self._held
        elif self.read_again is not None:
            for image in self.read_again():
                yield resize_area(image, self.size)


@dataclass(frozen=True)
class ByMotion:
    """Masks of a shot from motion, and its backgrounds.

    Attributes:
        masks: of all frames.
        backgrounds: (number of a frame within the shot, background that it sees), in order.
    """

    masks: MotionMasks
    backgrounds: list[tuple[int, SeenBackground]]

    @property
    def expected_iou(self) -> float:
        """Mean expected IoU of the masks."""
        return float(self.masks.expected.mean())


def by_motion(
    frames: FlowFrames, *, still: _Image | None = None, network: PersonNetwork | None = None, views: bool = True
) -> ByMotion | None:
    """Masks from motion of all frames of a shot.

    Args:
        frames: of the shot.
        still: uint8 (H, W, 3), background of a static camera, as a cue; None for others.
        network: a segmentation network, as a cue.
        views: also estimate backgrounds, as single frames see them.

    Returns:
        None if the shot has too few frames, or they are too small.
    """
    every = max(VIEW_EVERY, -(-len(frames) // MOST_VIEWS))
    places = set(range(every // 2, len(frames), every)) or {len(frames) // 2}
    found: list[tuple[int, SeenBackground]] = []

    def look(part: WindowMasks) -> None:
        for place in range(part.first, part.last):
            if part.start + place in places:
                seen = background_view(part.window.frames, part.window.flow, part.odds, place)
                found.append(((part.start + place) * frames.stride, seen))

    masks = motion_masks(frames, frames.num_frames, frames.stride, still, network, look if views else None)
    return None if masks is None else ByMotion(masks, found)


def is_doubtful(quality: Quality) -> bool:
    """Whether a background seems to hold people who never leave: a ghost, or differences too faint to decide.

    The grade does not suffice: in cluttered rooms it is low for backgrounds that are right.
    """
    ghost, unsure = quality.signals["ghost"] >= _GHOST, quality.signals["unsure"] >= _UNSURE
    return quality.score < GRADES["C"] and (ghost or unsure)


@dataclass
class MotionPath:
    """Masks from motion for a shot, where its background is not right.

    Attributes:
        shot_so_far: the shot with its camera.
        samples: of the shot.
        camera: its motion.
        frames: of the shot.
        network: a segmentation network, or None.
        is_tried: whether masks were made.
    """

    shot_so_far: Shot
    samples: ShotSamples
    camera: Camera
    frames: FlowFrames
    network: PersonNetwork | None
    is_tried: bool = False

    @property
    def shows_no_ground(self) -> bool:
        """Whether the shot is too short for people to leave, and its median is poor: then no method is better."""
        if self.frames.seconds >= _SHORT_SECONDS:
            return False
        return grade_shot(self.samples, background_of(self.samples, "median"), self.camera).score < _POOR

    def shot(self) -> Shot | None:
        """The shot with masks from motion; None if they find hardly anything before a camera that does not move."""
        self.is_tried = True
        moves = self.camera.verdict in ("jitter", "moving")
        still = None if moves else self.samples.median
        found = by_motion(self.frames, still=still, network=self.network, views=moves)
        if found is None or (self.camera.verdict != "moving" and found.expected_iou < _LEAST_EXPECTED):
            return None
        shot = replace(self.shot_so_far, masks=found.masks.masks)
        if moves:
            seen = [own for _, own in found.backgrounds]
            views = tuple(BackgroundView(frame, own.background) for frame, own in found.backgrounds)
            shot = replace(shot, views=views)
        else:
            masks = [found.masks.masks.at(int(frame)) for frame in self.samples.indices]
            seen = [masked_background(self.samples, masks)]
            shot = replace(shot, background=seen[0].background)
        apart = float(np.median([own.apart for own in seen])) if seen else 0.0
        unseen = float(np.mean([1 - own.background.valid.mean() for own in seen])) if seen else 1.0
        quality = grade_by_motion(found.expected_iou, apart if moves else 0.0, unseen, self.camera.verdict)
        return replace(shot, grade=quality.grade, reasons=quality.reasons)
