"""Agreement of pixels that look alike: a value averaged over pixels of like colour, place and time.

Letters: N frames, h, w pixels, K cells that hold a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgaug.background.flow import pixel_grid

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """Size of a cell: lightness and colour in levels of OpenCV's Lab, place in short sides, time in frames."""

    lightness: float
    colour: float
    place: float
    frames: float


FINE, COARSE = Cells(22, 9, 1 / 6, 8), Cells(14, 6, 1 / 4, 16)


class Consensus:
    """Averages layers over cells of like colour, place and time, and over the cells next to each.

    Args:
        lab: uint8 (N, h, w, 3), OpenCV's Lab.
        cells: their size.

    Reference: Chen, Paris, Durand, Real-time edge-aware image processing with the bilateral grid, SIGGRAPH 2007; here
    with two axes of colour and one of time.
    """

    def __init__(self, lab: NDArray[np.uint8], cells: Cells) -> None:
        num_frames, height, width, _ = self._shape = lab.shape
        x, y = pixel_grid(height, width)
        side = cells.place * min(height, width)
        axes = [
            np.rint(lab[..., 0] / np.float32(cells.lightness)),
            np.rint(lab[..., 1] / np.float32(cells.colour)),
            np.rint(lab[..., 2] / np.float32(cells.colour)),
            np.rint(x / np.float32(side))[None],
            np.rint(y / np.float32(side))[None],
            np.rint(np.arange(num_frames, dtype=np.float32) / np.float32(cells.frames))[:, None, None],
        ]
        key, step, steps = np.zeros(lab.shape[:3], np.int64), 1, []
        for axis in axes:
            whole = axis.astype(np.int64)
            whole -= whole.min() - 1  # a free cell on both sides: neighbours never wrap around
            key += whole * step
            steps.append(step)
            step *= int(whole.max()) + 2
        known, self._cell_of = np.unique(key.ravel(), return_inverse=True)
        self._count = len(known)
        self._neighbours = np.stack([self._places(known, known + way * step) for step in steps for way in (-1, 1)])

    @staticmethod
    def _places(known: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of each cell by its key; K where no pixel lies in it."""
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, place, len(known))

    def mean(self, layers: _Floats, weights: _Floats, rounds: int) -> _Floats:
        """Weighted mean of layers (N, h, w) over each pixel's cell, spread over the cells next to it some times."""
        total = np.bincount(self._cell_of, (layers * weights).ravel(), self._count)
        weight = np.bincount(self._cell_of, weights.ravel(), self._count)
        for _ in range(rounds):
            total, weight = (2 * own + np.append(own, 0)[self._neighbours].sum(0) for own in (total, weight))
        mean = (total / np.maximum(weight, 1e-12)).astype(np.float32)
        return mean[self._cell_of].reshape(self._shape[:3])


class Colours:
    """Colours of the pixels of a window in coarse bins, to compare two groups of pixels.

    Args:
        lab: uint8 (N, h, w, 3), OpenCV's Lab.
    """

    _BINS = (16, 24, 24)
    _LEAST, _MOST = 2e-5, 4.0

    def __init__(self, lab: NDArray[np.uint8]) -> None:
        place = np.zeros(lab.shape[:3], np.int32)
        for axis, bins in enumerate(self._BINS):
            place = place * bins + (lab[..., axis].astype(np.int32) * bins >> 8)
        self._place = place

    def log_ratio(self, inside: _Floats, outside: _Floats) -> _Floats:
        """How much more common each pixel's colour is inside than outside: logarithm, within +-4, (N, h, w).

        Args:
            inside: float32 (N, h, w), weight of each pixel in the first group.
            outside: float32 (N, h, w), in the second.
        """
        first, second = self._histogram(inside), self._histogram(outside)
        ratio = np.log((first + self._LEAST) / (second + self._LEAST)).clip(-self._MOST, self._MOST)
        return ratio.astype(np.float32)[self._place]

    def _histogram(self, weights: _Floats) -> NDArray[np.float64]:
        flat = np.bincount(self._place.ravel(), weights.ravel(), int(np.prod(self._BINS)))
        count: NDArray[np.float64] = flat.astype(np.float64).reshape(self._BINS)
        for axis in range(3):
            count = _smoothed(count, axis)
        return np.asarray(count.ravel() / max(float(count.sum()), 1e-6))


_KERNEL = np.exp(-0.5 * np.square(np.arange(-3, 4) / 0.8))
_KERNEL /= _KERNEL.sum()


def _smoothed(count: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """A histogram blurred by .8 bins along an axis."""
    padded = np.pad(count, [(3, 3) if own == axis else (0, 0) for own in range(count.ndim)], mode="symmetric")
    length = count.shape[axis]
    return np.asarray(
        sum(weight * padded.take(range(at, at + length), axis) for at, weight in enumerate(_KERNEL.tolist()))
    )
