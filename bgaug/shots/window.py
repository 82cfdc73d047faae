"""The last frames of a stream on a coarse grid, and how they are related to each other.

Motion hardly changes a coarse grid, and all distances follow from inner products, which are computed once they are
needed: as long as nothing changes, a frame costs a resize and three distances.

Letters: W frames kept, G numbers of the grid (cells and channels), K tiles of an image.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

FRAMES = 112
"""Largest number of frames kept."""

_GRID, _TILES = (15, 20), (3, 4)
_NUMBERS = 3 * _GRID[0] * _GRID[1]
_ZERO = 128.0  # grey level that is 0 in products: they are rounded less
_DETAIL = (5, 5)  # pixels of a thumbnail around which its mean is subtracted

Floats = NDArray[np.float32]


class Window:
    """The last frames, counted from 0.

    Attributes:
        first: number of frame 0 within the video.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self._thumbnails: list[NDArray[np.uint8]] = []
        self._grids = np.empty((FRAMES, *_GRID, 3), np.uint8)
        self._vectors = np.empty((FRAMES, _NUMBERS), np.float32)  # the grids around 0, in grey levels
        self._products = np.empty((FRAMES, FRAMES), np.float32)
        self._means: list[tuple[float, float, float]] = []  # of the channels, around 0
        self._spreads: list[float] = []
        self._num_products = 0
        self._detail: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self._thumbnails)

    def add(self, thumbnail: NDArray[np.uint8]) -> None:
        """The next frame, uint8 (60, 80, 3); kept, not copied. A full window loses its oldest quarter first."""
        if len(self) == FRAMES:
            self.drop(FRAMES // 4)
        grid = cv2.resize(thumbnail, _GRID[::-1], interpolation=cv2.INTER_AREA)
        (y, u, v), deviations = (each.ravel().tolist() for each in cv2.meanStdDev(grid))
        self._grids[len(self)] = grid
        self._means.append((y - _ZERO, u - _ZERO, v - _ZERO))
        self._spreads.append(math.sqrt(sum(deviation**2 for deviation in deviations) / 3))
        self._thumbnails.append(thumbnail)

    def drop(self, count: int) -> None:
        """Forget the oldest frames."""
        left, known = len(self) - count, max(0, self._num_products - count)
        for each in (self._thumbnails, self._means, self._spreads):
            del each[:count]
        self._grids[:left] = self._grids[count : count + left].copy()
        self._vectors[:known] = self._vectors[count : count + known].copy()
        self._products[:known, :known] = self._products[count : count + known, count : count + known].copy()
        self._detail = {i - count: detail for i, detail in self._detail.items() if i >= count}
        self.first, self._num_products = self.first + count, known

    def distance(self, i: int, j: int) -> float:
        """Root mean square difference of two grids, grey levels."""
        return float(cv2.norm(self._grids[i], self._grids[j], cv2.NORM_L2)) / math.sqrt(_NUMBERS)

    def median_change(self, i: int, j: int) -> float:
        """Median over the cells of the largest channel difference of two grids, grey levels."""
        return float(np.median(cv2.absdiff(self._grids[i], self._grids[j]).max(axis=2)))

    def spread(self, i: int) -> float:
        """Standard deviation of a grid, root mean square of the three channels; 0 for a flat image."""
        return self._spreads[i]

    def correlation(self, i: int, j: int) -> float:
        """Correlation of two grids that are not flat, after subtraction of the mean of each channel."""
        self._multiply()
        of_means = sum(a * b for a, b in zip(self._means[i], self._means[j], strict=True)) / 3
        return (float(self._products[i, j]) / _NUMBERS - of_means) / (self._spreads[i] * self._spreads[j])

    def mixture(self, i: int, j: int) -> tuple[Floats, Floats]:
        """Frames i to j as mixtures (1 - a) P + a Q of the grids P = i and Q = j, which must differ.

        Returns:
            The share a of each frame, float32 (j - i + 1,): 0 for P, 1 for Q. Square of what no mixture explains,
            relative to the squared distance of P and Q, float32 (j - i + 1,).
        """
        self._multiply()
        products, span = self._products, slice(i, j + 1)
        square = products[i, i] + products[j, j] - 2 * products[i, j]
        share = (products[span, j] - products[span, i] - products[i, j] + products[i, i]) / square
        from_p = products.diagonal()[span] - 2 * products[span, i] + products[i, i]
        return share, np.maximum(from_p / square - share * share, 0, dtype=np.float32)

    def detail(self, i: int) -> Floats:
        """Energy of the fine detail of a frame's luma in each tile, float32 (K,), squared grey levels."""
        if i not in self._detail:
            luma = self._thumbnails[i][..., 0].astype(np.float32)
            fine = luma - cv2.blur(luma, _DETAIL)
            tiles = cv2.resize(fine * fine, _TILES[::-1], interpolation=cv2.INTER_AREA)
            self._detail[i] = np.asarray(tiles, np.float32).ravel()
        return self._detail[i]

    def _multiply(self) -> None:
        """Inner products with the frames that came since the last call."""
        known, count = self._num_products, len(self)
        if known == count:
            return
        new = self._vectors[known:count]
        np.subtract(self._grids[known:count].reshape(count - known, -1), np.float32(_ZERO), out=new)
        products = self._vectors[:count] @ new.T
        self._products[:count, known:count] = products
        self._products[known:count, :count] = products.T
        self._num_products = count
