"""Which of two pictures shows the background, told without knowing it.

Two candidates mostly agree. Where they do not, each connected region is judged by itself: one of them shows somebody
there, or a blur, and the other the ground. What gives the wrong one away:

- its *seam*: the outline of the region is the outline of a body in the one picture, and nothing in the other;
- *motion while it shows*: a body moves while its colours show, the ground does not.

Letters: S samples, H, W pixels, N pixels of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.samples import ShotSamples

SHOWN = 20
"""A sample shows a picture where no channel differs by more grey levels."""

_DIFFERENT = 20  # grey levels, after a 3x3 blur
_MIN_REGION = 30  # pixels; smaller ones change no mask
_MOVES = 10  # grey levels to the second next frame; noise of compressed video has 3 to 6
_MAX_PIXELS = 1500  # of a region that are looked at
_SEAM_OFFSET = 2.0  # grey levels a pixel: gradients of noise tell nothing
_SHARE_OFFSET = 0.02
_PRIOR = 0.02  # of the samples
_PARTS = 6  # of the height and of the width
_EDGE, _SWAYS = 20, 18  # grey levels a pixel; grey levels between the 10th and 90th percentile


@dataclass(frozen=True)
class Shown:
    """How a picture looks in one region.

    Attributes:
        seam: mean gradient along the outline of the region, grey levels a pixel.
        moving: share in [0, 1] of the samples showing it that move.
        support: share in [0, 1] of all samples that show it.
    """

    seam: float
    moving: float
    support: float


def regions(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    """Connected regions, bool (H, W), in which two pictures differ."""
    differs = cv2.absdiff(cv2.blur(one, (3, 3)), cv2.blur(other, (3, 3))).max(2) > _DIFFERENT
    opened = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] >= _MIN_REGION:
            yield labels == label


def gradient(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Largest gradient of the three channels, float32 (H, W), grey levels a pixel."""
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.asarray(np.sqrt(np.square(across) + np.square(down)).max(2) / 4, np.float32)


def outline(region: NDArray[np.bool_], reach: int = 1) -> NDArray[np.bool_]:
    """Pixels within `reach` of the rim of a region, bool (H, W), the picture's own border left out."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    rim = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    rim[[0, -1]] = False
    rim[:, [0, -1]] = False
    return rim


class Witness:
    """What the samples say of regions of a picture.

    Args:
        shot: the samples.
    """

    def __init__(self, shot: ShotSamples) -> None:
        self._images = shot.stack
        self._changes = np.stack(shot.changes)

    def shown(self, image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which samples show a picture at (some of) the pixels of a region: bool (S, N)."""
        rows, columns = _some(region)
        difference = np.abs(self._images[:, rows, columns].astype(np.int16) - image[rows, columns])
        return np.asarray(difference.max(2) <= SHOWN)

    def look(self, image: NDArray[np.uint8], slope: NDArray[np.float32], region: NDArray[np.bool_]) -> Shown:
        """A picture in a region; `slope` is its gradient."""
        rim = outline(region)
        shown = self.shown(image, region)
        rows, columns = _some(region)
        height, width = region.shape
        rows = rows * self._changes.shape[1] // height
        columns = columns * self._changes.shape[2] // width
        moving = (self._changes[:, rows, columns] > _MOVES) & shown
        return Shown(
            float(slope[rim].mean()) if rim.any() else 0.0,
            float(moving.sum() / max(1, shown.sum())),
            float(shown.mean()),
        )

    def outline_moves(self, image: NDArray[np.uint8], slope: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
        """Share in [0, 1] of the edges along the outline that move while the region itself shows the picture.

        A person who never leaves sways: the edge moves, though what it encloses is as constant as the ground. A texture
        of the ground has an outline that never moves.
        """
        whole = self.shown(image, region).mean(1)
        showing = whole >= 0.8
        if showing.sum() < 4:
            showing = whole >= max(0.6, 0.9 * float(np.percentile(whole, 60)))
        return self._moving(outline(region, 3) & (slope > _EDGE), showing)

    def edges_move(self, slope: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
        """Share in [0, 1] of the edges that move in the quieter parts of a picture: all do if the camera shakes.

        Args:
            slope: gradient of the picture.
            where: bool (H, W), which edges to look at.
        """
        height, width = slope.shape
        edges = where & (slope > _EDGE)
        everywhere = np.ones(len(self._images), np.bool_)
        shares = []
        for row, column in np.ndindex(_PARTS, _PARTS):
            part = np.zeros(edges.shape, np.bool_)
            block = (
                slice(row * height // _PARTS, (row + 1) * height // _PARTS),
                slice(column * width // _PARTS, (column + 1) * width // _PARTS),
            )
            part[block] = edges[block]
            if part.sum() >= 10:
                rows, columns = np.nonzero(part)
                part[rows[100:], columns[100:]] = False  # enough to tell
                shares.append(self._moving(part, everywhere))
        return float(np.percentile(shares, 25)) if shares else 0.0

    def _moving(self, edges: NDArray[np.bool_], showing: NDArray[np.bool_]) -> float:
        if showing.sum() < 3 or edges.sum() < 10:
            return 0.0
        rim = self._images[showing][:, edges]
        low, high = np.percentile(rim, [10, 90], axis=0, method="nearest").astype(np.int16)
        return float(((high - low).max(1) > _SWAYS).mean())


def in_favour(holder: Shown, challenger: Shown, prior: float = _PRIOR) -> float:
    """Evidence for the challenger against the holder, log odds: above zero it is the better background.

    How much a challenger moves that hardly any sample shows is not known well: it is drawn to the holder's share, by
    as much as if `prior` of all samples had shown that.
    """
    seam = np.log((holder.seam + _SEAM_OFFSET) / (challenger.seam + _SEAM_OFFSET))
    known = challenger.support / (challenger.support + prior)
    moving = known * challenger.moving + (1 - known) * holder.moving
    return float(seam + _log_odds(holder.moving) - _log_odds(moving))


def _log_odds(share: float) -> float:
    share = (share + _SHARE_OFFSET) / (1 + 2 * _SHARE_OFFSET)
    return float(np.log(share / (1 - share)))


def _some(region: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.nonzero(region)
    step = max(1, -(-len(rows) // _MAX_PIXELS))
    return rows[::step], columns[::step]
