"""Prompts for a segmentation model, made from the masks of a clip: boxes and points of the objects of one frame.

The frame is the one whose objects are, together, large, compact and stable over time. An object is a connected part of
its mask; parts that lie within a gap of each other count as one.

Letters: T frames, H, W pixels, P points of an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Fit, Size, shown_box

POSITIVE, NEGATIVE = 1, 0
CORNERS = (2, 3)
"""Labels of points: on the object, off it, and the two corners of its box, in the code of the published models."""

_MIN_AREA = 0.001  # of the image: smaller parts are mostly noise
_MAX_AREA = 0.8  # of the image: larger ones are changes of the light or of the camera
_GAP = 1 / 32  # of the short side: a body whose belt is not in the mask is still one object
_MAX_COVERED = 0.25  # of an object by objects that are known already; above, it is one of them
_FRAMES_TRIED = 64
_MOST_PARTS = 32  # per frame
_LEAST_RADIUS = 0.5  # of a further point, relative to the first


@dataclass(frozen=True)
class ObjectPrompt:
    """One object of a frame, in pixels of its mask; the image is [0, W] x [0, H].

    Attributes:
        box: left, top, right, bottom.
        points: float32 (P, 2), x and y; the first is the one farthest from the rim of the object.
        labels: int32 (P,), `POSITIVE` or `NEGATIVE`.
    """

    box: tuple[float, float, float, float]
    points: NDArray[np.float32]
    labels: NDArray[np.int32]

    def fractions(self, source: Size, size: Size, fit: Fit, display_size: Size | None = None) -> NDArray[np.float32]:
        """Corners of the box, then the points, as fractions of the image that the mask was fitted from.

        Args:
            source: (height, width) of that image.
            size: (height, width) of the mask.
            fit: how the image was fitted; see `bgaug.sizing.fit_frame`.
            display_size: as there.

        Returns:
            float32 (2 + P, 2), x and y in [0, 1].
        """
        left, top, width, height = shown_box(source, size, fit, display_size)
        pixels = np.concatenate([np.array(self.box, np.float32).reshape(2, 2), self.points])
        return np.clip(pixels / (size[1], size[0]) * (width, height) + (left, top), 0, 1).astype(np.float32)

    @property
    def all_labels(self) -> NDArray[np.int32]:
        """Labels of `fractions`: int32 (2 + P,)."""
        return np.concatenate([np.array(CORNERS, np.int32), self.labels])


@dataclass(frozen=True)
class FramePrompts:
    """The objects of a frame, the most certain first.

    Attributes:
        frame: number of the frame in its clip.
        objects: one or more.
    """

    frame: int
    objects: tuple[ObjectPrompt, ...]


@dataclass(frozen=True)
class _Part:
    """A part of a mask that may be an object.

    Attributes:
        mask: bool (h, w), inside its box.
        left: of its box.
        top: of its box.
        score: large, compact and stable: square root of the area, times solidity, times share found in the frames next
            to it.
    """

    mask: NDArray[np.bool_]
    left: int
    top: int
    score: float


def choose_prompts(
    masks: NDArray[np.bool_],
    *,
    objects: int = 4,
    points: int = 3,
    negative_points: int = 0,
    known: NDArray[np.bool_] | None = None,
) -> FramePrompts | None:
    """The frame of a clip with the most certain objects, and a prompt for each of them.

    Args:
        masks: bool (T, H, W), masks of successive frames of one shot.
        objects: largest number of objects.
        points: largest number of points on an object; see `inner_points`.
        negative_points: points in an object's box that no mask covers, likewise.
        known: bool (T, H, W), objects that need no prompt; an object that they cover by a quarter is left out.

    Returns:
        None if no frame has an object.

    Raises:
        ValueError: masks are not (T, H, W), or `known` has another shape.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_ or (known is not None and known.shape != masks.shape):
        other = "" if known is None else f", {known.shape = }"
        raise ValueError(f"masks must be bool (T, H, W), got {masks.dtype} {masks.shape = }{other}")
    best: tuple[float, int, list[_Part]] | None = None
    for frame in range(0, len(masks), max(1, -(-len(masks) // _FRAMES_TRIED))):
        parts = sorted(_parts(masks, frame, known), key=lambda part: -part.score)[:objects]
        total = sum(part.score for part in parts)
        if parts and (best is None or total > best[0]):
            best = total, frame, parts
    if best is None:
        return None
    _, frame, parts = best
    return FramePrompts(frame, tuple(_prompt(part, masks[frame], points, negative_points) for part in parts))


def _parts(masks: NDArray[np.bool_], frame: int, known: NDArray[np.bool_] | None) -> Iterator[_Part]:
    """The parts of a frame's mask that have the size of an object."""
    mask = masks[frame]
    if not mask.any():
        return
    gap = max(1, round(min(mask.shape) * _GAP / 2))
    joined = cv2.dilate(mask.astype(np.uint8), np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    near = [masks[other] for other in (frame - 1, frame + 1) if 0 <= other < len(masks)]
    largest = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:_MOST_PARTS] + 1
    for number in largest.tolist():
        left, top, width, height = stats[number, :4].tolist()
        box = slice(top, top + height), slice(left, left + width)
        part = mask[box] & (labels[box] == number)
        area = int(part.sum())
        if not _MIN_AREA * mask.size <= area <= _MAX_AREA * mask.size:
            continue
        if known is not None and (part & known[frame][box]).sum() > _MAX_COVERED * area:
            continue
        stable = float(np.mean([(part & other[box]).sum() / area for other in near])) if near else 1.0
        yield _Part(part, left, top, area**0.5 * _solidity(part, area) * stable)


def _solidity(part: NDArray[np.bool_], area: int) -> float:
    """Area relative to that of the convex hull, at most 1."""
    hull = cv2.convexHull(cv2.findNonZero(part.astype(np.uint8)))
    # The hull leads through centres of pixels; by Pick's theorem, this is the number of pixels in it.
    return min(1.0, area / (cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1))


def _prompt(part: _Part, mask: NDArray[np.bool_], points: int, negative_points: int) -> ObjectPrompt:
    rows, columns = np.flatnonzero(part.mask.any(1)), np.flatnonzero(part.mask.any(0))
    top, bottom = part.top + int(rows[0]), part.top + int(rows[-1]) + 1
    left, right = part.left + int(columns[0]), part.left + int(columns[-1]) + 1
    on = inner_points(part.mask, points) + (part.left, part.top)
    off = inner_points(~mask[top:bottom, left:right], negative_points) + (left, top)
    labels = [POSITIVE] * len(on) + [NEGATIVE] * len(off)
    found = np.concatenate([on, off]).astype(np.float32)
    return ObjectPrompt((left, top, right, bottom), found, np.array(labels, np.int32))


def inner_points(mask: NDArray[np.bool_], count: int) -> NDArray[np.float32]:
    """Points deep inside a mask: maxima of the distance to its rim, the rim of the image included.

    Around each point lies the largest disc inside the mask. A further point lies outside twice the disc of each earlier
    one, and its own disc has at least half the radius of the first.

    Args:
        mask: bool (H, W).
        count: largest number of points.

    Returns:
        float32 (P, 2), x and y of the centres of pixels, which are at .5; no point if the mask is empty.
    """
    found: list[tuple[float, float]] = []
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    left, first = distance.copy(), float(distance.max(initial=0))
    while len(found) < count:
        radius = float(left.max(initial=0))
        if radius <= 0 or radius < _LEAST_RADIUS * first:
            break
        tops = np.argwhere(left >= radius - 1e-4)
        # A long object has many such pixels: take the one nearest to their middle.
        row, column = tops[np.argmin(((tops - tops.mean(0)) ** 2).sum(1))].tolist()
        found.append((column + 0.5, row + 0.5))
        left[(x - column) ** 2 + (y - row) ** 2 <= 4 * radius**2] = 0
    return np.array(found, np.float32).reshape(-1, 2)
