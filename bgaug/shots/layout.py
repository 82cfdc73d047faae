"""What else than the scene an image shows: black bars, and still parts next to a video.

A camera that moves inside a rectangle, next to a still image, a plot or a page, looks static as a whole. The rectangle
is found from pixels that change: nearly all of those inside, next to none outside, and its four edges are sharp. A
person in front of a still camera does not fill a rectangle.

Letters: S samples of a shot, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import evenly_spaced, max_channel_difference
from bgaug.sizing import working_size

_SAMPLES, _SIDE = 11, 120
_MIN_SAMPLES = 9
_CHANGES, _STILL = 16, 10  # grey levels between the highest and the lowest value of all samples
_INSIDE, _EDGE, _OUTSIDE = 0.85, 0.7, 0.05  # shares of the pixels that change; a cursor may cross a still plot
_LINE = 0.5  # of the share of the line that changes most: less outside the rectangle
_MIN_CHANGING = 0.5  # share of the rectangle that changes between two samples
_MIN_AREA, _MAX_AREA = 0.2, 0.8  # of the image; a screen in a room is smaller
_BLACK, _NEXT_TO_BLACK = 24, 40  # grey levels: largest of a bar; least of most pixels next to it
_MIN_EDGE = 0.5  # share of these pixels
_MIN_BAR = 0.03  # of the height or width

_Images = Sequence[NDArray[np.uint8]]


class Box(NamedTuple):
    """A rectangle of an image: first row and column, one past the last."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of an image, (H, W, ...), inside."""
        return image[self.top : self.bottom, self.left : self.right]

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def moving_box(samples: _Images) -> Box | None:
    """The rectangle in which everything changes while nothing around it does; None if there is none.

    Args:
        samples: S images, uint8 (H, W, 3), RGB, of one shot.
    """
    if len(samples) < _MIN_SAMPLES:
        return None
    small = _small(samples)
    ranges = _ranges(small)
    changes = ranges > _CHANGES
    rows, columns = (
        np.flatnonzero(share > _LINE * max(share.max(), 1e-6)) for share in (changes.mean(1), changes.mean(0))
    )
    if not len(rows) or not len(columns):
        return None
    box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    if not _MIN_AREA * changes.size < box.area < _MAX_AREA * changes.size:
        return None
    inside = box.of(changes)
    outside = (ranges > _STILL).sum() - box.of(ranges > _STILL).sum()
    # An edge may lie within a pixel of the small image.
    edges = (inside[:2].max(0), inside[-2:].max(0), inside[:, :2].max(1), inside[:, -2:].max(1))
    if (
        inside.mean() < _INSIDE
        or outside > _OUTSIDE * (changes.size - box.area)
        or min(float(edge.mean()) for edge in edges) < _EDGE
        or not _changes_always(small, box)
    ):
        return None
    height, width = samples[0].shape[:2]
    down, across = height / changes.shape[0], width / changes.shape[1]
    # One pixel of the small image less at each edge.
    return Box(*(round(scale * at) for scale, at in zip((down, across, down, across), _shrunk(box), strict=True)))


def black_bars(samples: _Images) -> Box | None:
    """The part of the images between black bars; None if they have none.

    Args:
        samples: S images, uint8 (H, W, 3), RGB, of one shot.
    """
    one = samples[len(samples) // 2]
    if all(line.max() > _BLACK for line in (one[0], one[-1], one[:, 0], one[:, -1])):
        return None  # nearly always
    highest = samples[0]
    for i in evenly_spaced(len(samples), _SAMPLES)[1:]:
        highest = np.maximum(highest, samples[i])
    high = np.asarray(cv2.max(cv2.max(highest[..., 0], highest[..., 1]), highest[..., 2]), np.uint8)
    (top, bottom), (left, right) = _between_bars(high), _between_bars(high.T)
    box = Box(top, left, bottom, right)
    return None if box.area in (0, high.size) else box


def bars_reason(box: Box, height: int, width: int) -> str:
    """Black bars in words."""
    sizes = {
        "above": box.top / height,
        "below": (height - box.bottom) / height,
        "on the left": box.left / width,
        "on the right": (width - box.right) / width,
    }
    parts = [f"{100 * size:.0f} % {place}" for place, size in sizes.items() if size]
    return f"black bars: {', '.join(parts)}"


def box_reason(box: Box, height: int, width: int) -> str:
    """A camera that moves inside a rectangle, in words."""
    still = 1 - box.area / (height * width)
    return f"{100 * still:.0f} % of the image never changes, and the camera moves in the rest"


def _shrunk(box: Box) -> Box:
    return Box(box.top + 1, box.left + 1, box.bottom - 1, box.right - 1)


def _small(samples: _Images) -> list[NDArray[np.uint8]]:
    """Some of the samples at the small size."""
    height, width = working_size((samples[0].shape[0], samples[0].shape[1]), _SIDE)
    return [
        np.asarray(cv2.resize(samples[i], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        for i in evenly_spaced(len(samples), _SAMPLES)
    ]


def _ranges(images: _Images) -> NDArray[np.uint8]:
    """Largest channel range of each pixel over all images, uint8 (H, W)."""
    low, high = images[0], images[0]
    for image in images[1:]:
        low, high = np.minimum(low, image), np.maximum(high, image)
    return max_channel_difference(high, low)


def _changes_always(images: _Images, box: Box) -> bool:
    """Whether most of the rectangle changes from image to image: what crosses it changes only parts at a time."""
    parts = [box.of(image) for image in images]
    shares = [(max_channel_difference(a, b) > _STILL).mean() for a, b in pairwise(parts)]
    return bool(np.median(shares) >= _MIN_CHANGING)


def _between_bars(highest: NDArray[np.uint8]) -> tuple[int, int]:
    """First line that is not black and one past the last, from the highest values of all samples, (lines, pixels)."""
    bright = np.flatnonzero(highest.max(1) > _BLACK)
    count, least = len(highest), _MIN_BAR * len(highest)
    if not len(bright):
        return 0, 0

    def begins(lines: NDArray[np.uint8]) -> bool:
        # Next to a bar the image begins at once and along the whole edge; a dark scene does not.
        return bool((lines.max(0) > _NEXT_TO_BLACK).mean() >= _MIN_EDGE)

    first, stop = int(bright[0]), int(bright[-1]) + 1
    first = first if first >= least and begins(highest[first : first + 3]) else 0
    stop = stop if count - stop >= least and begins(highest[stop - 3 : stop]) else count
    return first, stop
