"""Where a frame of a moving camera lies in a background.

A transform, float32 (2, 3), maps (x, y) of a frame to (x, y) of its canvas.

Letters: N points, H, W pixels of a frame or of a canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.image import MIN_CONFIDENCE, Canvas, view
from bgaug.background.median import evenly_spaced
from bgaug.sizing import Size

_Image = NDArray[np.uint8]
_Floats = NDArray[np.float32]

_PLACES, _LIKELY = 9, 0.6  # transforms of a shot that a search starts from; confidence at which it stops
_NUM_POINTS, _CELL = 1000, 16  # points, spread over cells of so many pixels: one sharp object must not get all of them
_MIN_GRADIENT = 3.0  # grey levels per pixel: less is noise
_MIN_POINTS = 16
_TRANSLATION, _AFFINE = np.array([0, 1, 6, 7]), np.arange(8)  # of the columns: x, y, linear part, gain, offset
_BETTER = 0.02  # of the points: for a camera that only shakes sideways, an affine map would follow moving bodies
_MOST_STEPS, _SETTLED = 12, 0.02  # iterations; step size at convergence, in pixels at the rim of the image
_SPREAD_STEPS = 4  # iterations that update the spread of the errors
_TUKEY, _LEAST_SPREAD = 4.685, 1.5  # in standard deviations; grey levels
_EXPLAINED, _NEAR = 6.0, 0.7  # a point fits within so many grey levels, or so many pixels along its gradient
_COARSE = 4
_MOST_STRETCH, _MOST_GAIN = 1.5, 2.0
_CONTRAST = 64.0  # unit of the gain in grey levels: it gives all columns one order of magnitude


class Alignment(NamedTuple):
    """Where a frame lies in a canvas.

    Attributes:
        transform: float32 (2, 3), frame to canvas.
        confidence: share in [0, 1] of the textured points in view at which frame and canvas agree.
    """

    transform: _Floats
    confidence: float


class FrameAligner:
    """Finds where frames lie in a background.

    About 1000 points of strong gradient, spread over the image, are fitted by an affine map, the light by a gain and an
    offset. Points that do not fit, on bodies that move or hide the background, lose their weight (Tukey). Build one
    aligner per background; aligning a frame of 320x240 costs 1 to 1.5 ms.

    Args:
        canvas: uint8 (H, W, 3), RGB, the background.
        valid: bool (H, W), where it was seen; everywhere by default.
        size: (height, width) of the frames; that of the canvas by default.

    Reference: Baker and Matthews, Lucas-Kanade 20 years on: a unifying framework, IJCV 2004: the inverse compositional
    algorithm. The gradients are those of the background, so each frame costs only the residual.
    """

    def __init__(self, canvas: _Image, valid: NDArray[np.bool_] | None = None, size: Size | None = None) -> None:
        self.size: Size = size or (canvas.shape[0], canvas.shape[1])
        self._grey = _smooth_grey(canvas)
        gx, gy = (np.asarray(cv2.Sobel(self._grey, cv2.CV_32F, *d, ksize=3, scale=0.125)) for d in ((1, 0), (0, 1)))
        strength = np.hypot(gx, gy)
        inside = np.zeros(strength.shape, np.uint8)
        inside[2:-2, 2:-2] = 1 if valid is None else valid[2:-2, 2:-2]
        strength[cv2.erode(inside, np.ones((5, 5), np.uint8)) == 0] = 0
        self._y, self._x = _spread_points(strength, self.size)
        # An error below this can come from a position that is wrong by less than a pixel.
        self._tolerance = np.maximum(_EXPLAINED, _NEAR * strength[self._y, self._x])
        self._expected = self._grey[self._y, self._x]
        # Coordinates relative to the middle, in half frames, give all columns one order of magnitude.
        self._half = 0.5 * max(self.size)
        self._middle = np.array([self._x.mean(), self._y.mean()]) if len(self._x) else np.zeros(2)
        u, v = (self._x - self._middle[0]) / self._half, (self._y - self._middle[1]) / self._half
        gx, gy = gx[self._y, self._x], gy[self._y, self._x]
        contrast = (self._expected - 128) / _CONTRAST
        self._columns = np.stack(
            [gx, gy, u * gx, v * gx, u * gy, v * gy, -contrast, -np.ones_like(u)], axis=1, dtype=np.float32
        )

    @property
    def num_points(self) -> int:
        """Textured points of the background; with fewer than about 100, alignments are unreliable."""
        return len(self._x)

    def align(self, image: _Image, start: _Floats | None = None) -> Alignment:
        """Align a frame.

        Args:
            image: uint8 (h, w, 3), RGB, of the aligner's size.
            start: first guess, right within a tenth of the frame; the corner of the canvas by default.

        Returns:
            `start` with a confidence of 0 if the background has too few textured points.
        """
        if image.shape[:2] != self.size or image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 {(*self.size, 3)}, got {image.dtype} {image.shape = }")
        start = np.eye(2, 3, dtype=np.float32) if start is None else np.asarray(start, np.float32)
        grey = _smooth_grey(image)
        if self.num_points < _MIN_POINTS:
            return Alignment(start, 0.0)
        guesses = [start, self._shifted(grey, start)]
        likely = [self._looks_right(grey, guess) for guess in guesses]
        found = self._refined(grey, guesses[int(likely[1] > likely[0])])
        if found.confidence < MIN_CONFIDENCE:
            found = max(found, self._refined(grey, guesses[int(likely[1] <= likely[0])]), key=lambda a: a.confidence)
        return found

    def _looks_right(self, grey: _Floats, guess: _Floats) -> float:
        """Share of the points that fit if the guess is right within about a pixel."""
        looks, inside = self._seen_points(grey, inverse(guess))
        error = looks - self._expected
        near = np.abs(error - _middle_of(error)) < 2 * self._tolerance
        return _share(near, inside)

    def _seen_points(self, grey: _Floats, to_frame: NDArray[np.float64]) -> tuple[_Floats, NDArray[np.bool_]]:
        """Grey levels of the frame at the points, and which points are in view."""
        x = (to_frame[0, 0] * self._x + to_frame[0, 1] * self._y + to_frame[0, 2]).astype(np.float32)
        y = (to_frame[1, 0] * self._x + to_frame[1, 1] * self._y + to_frame[1, 2]).astype(np.float32)
        inside = (x > 1) & (y > 1) & (x < self.size[1] - 2) & (y < self.size[0] - 2)
        looks = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(looks, np.float32).reshape(-1), np.asarray(inside)

    def _shifted(self, grey: _Floats, start: _Floats) -> _Floats:
        """The start, moved by the shift that phase correlation of coarse images finds."""
        small = (self.size[1] // _COARSE, self.size[0] // _COARSE)
        if min(small) < 8:
            return start
        coarse = np.array([[_COARSE, 0, 0.5 * (_COARSE - 1)], [0, _COARSE, 0.5 * (_COARSE - 1)], [0, 0, 1]])
        there = view(self._grey, (start @ coarse).astype(np.float32), (small[1], small[0]))
        here = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        there = np.asarray(cv2.blur(there, (3, 3)), np.float32)
        here = np.asarray(cv2.blur(here, (3, 3)), np.float32)
        window = cv2.createHanningWindow(small, cv2.CV_32F)
        (dx, dy), _ = cv2.phaseCorrelate(here.copy(), there.copy(), window)  # it may write into its inputs
        if max(abs(dx) / small[0], abs(dy) / small[1]) > 0.25:
            return start
        moved = start.copy()
        moved[:, 2] += start[:, :2] @ np.array([dx * _COARSE, dy * _COARSE], np.float32)
        return moved

    def _refined(self, grey: _Floats, start: _Floats) -> Alignment:
        """Fitted by a translation, and from there by an affine map if that fits clearly better."""
        moved, light, fits = self._fitted(grey, inverse(start), np.zeros(2), _TRANSLATION)
        bent, _, fits_bent = self._fitted(grey, moved, light, _AFFINE)
        if fits_bent > fits + _BETTER:
            moved, fits = bent, fits_bent
        return Alignment(inverse(moved).astype(np.float32), fits)

    def _fitted(
        self, grey: _Floats, to_frame: NDArray[np.float64], light: NDArray[np.float64], free: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Map from the canvas and light after fitting the columns `free`; share of the points that fit."""
        start, fits = to_frame, 0.0
        columns = np.ascontiguousarray(self._columns[:, free])
        change, spread = np.zeros(8), _LEAST_SPREAD
        for step in range(_MOST_STEPS + 1):
            looks, inside = self._seen_points(grey, to_frame)
            if np.count_nonzero(inside) < _MIN_POINTS:
                return start, light, 0.0
            error = looks - self._expected + self._columns[:, 6:] @ light.astype(np.float32)
            distance = np.abs(error)
            if step == _MOST_STEPS or (step and np.abs(change[:6]).max() < _SETTLED):
                fits = _share(distance < self._tolerance, inside)
                break
            if step < _SPREAD_STEPS:
                spread = max(1.4826 * _middle_of(distance[inside]), _LEAST_SPREAD)
            weights = np.square(np.maximum(0, 1 - np.square(error / (_TUKEY * spread)))) * inside
            weighted = columns * weights[:, None]
            normal = (weighted.T @ columns).astype(np.float64)
            # Keeps parameters that the points in view do not determine, without moving those that they do.
            normal[np.diag_indices(len(free))] += 1e-3 * np.trace(normal) / len(free) + 1e-6
            change[free] = np.linalg.solve(normal, weighted.T @ error)
            light = light - change[6:]
            to_frame = self._composed(to_frame, change[:6])
        gain = 1 + light[0] / _CONTRAST  # a blank frame fits any background at a gain of 0
        if not 1 / _MOST_GAIN < gain < _MOST_GAIN:
            return start, np.zeros(2), 0.0
        stretch = np.linalg.svd(to_frame[:, :2], compute_uv=False)
        if not np.isfinite(to_frame).all() or stretch[0] > _MOST_STRETCH or stretch[1] < 1 / _MOST_STRETCH:
            return start, light, 0.0
        return to_frame, light, fits

    def _composed(self, to_frame: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
        """The map from the canvas after undoing a small change, which is relative to the middle."""
        linear = np.array([[change[2], change[3]], [change[4], change[5]]]) / self._half
        offset = change[:2] - linear @ self._middle
        # To first order the inverse of a small step is its negative; the next iterations correct the rest.
        composed = to_frame.copy()
        composed[:, :2] -= to_frame[:, :2] @ linear
        composed[:, 2] -= to_frame[:, :2] @ offset
        return composed


def placed(aligner: FrameAligner, image: _Image, guess: _Floats) -> Alignment:
    """The alignment of a frame; `guess`, interpolated from its neighbours, if it could not be aligned."""
    found = aligner.align(image, guess)
    return found if found.confidence >= MIN_CONFIDENCE else Alignment(guess, found.confidence)


def locate_frames(canvas: Canvas, frames: Sequence[_Image] | _Image) -> Canvas:
    """The canvas with the places of any frames of its shot, which may be in any order.

    Args:
        canvas: of the shot, with the places of all its frames.
        frames: T of uint8 (H, W, 3); all frames of the shot keep the places that the canvas has for them.
    """
    known = canvas.transforms
    if len(known) == len(frames):
        return canvas
    aligner = FrameAligner(canvas.image, canvas.valid, canvas.size)
    places = known[evenly_spaced(len(known), _PLACES)]
    transforms = [places[len(places) // 2]]
    for image in frames:
        found = aligner.align(image, transforms[-1])
        if found.confidence < _LIKELY:
            found = max((aligner.align(image, place) for place in places), key=lambda other: other.confidence)
        transforms.append(found.transform)
    return replace(canvas, transforms=np.stack(transforms[1:]) if len(frames) else known[:0])


def _share(flags: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(flags & of)) / max(1, int(np.count_nonzero(of)))


def _middle_of(values: _Floats) -> float:
    """The upper median; `numpy.median` takes longer than the rest of an iteration."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def _smooth_grey(image: _Image) -> _Floats:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (5, 5), 1.0), np.float32)


def inverse(transform: NDArray[Any]) -> NDArray[np.float64]:
    """The inverse transform, float64 (2, 3)."""
    whole = np.eye(3)
    whole[:2] = transform
    return np.asarray(np.linalg.inv(whole)[:2], np.float64)


def _spread_points(strength: _Floats, size: Size) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the strongest pixels of each cell, about `_NUM_POINTS` for the area of a frame."""
    each = min(_CELL**2 // 2, max(4, _NUM_POINTS * _CELL**2 // (size[0] * size[1])))
    height, width = (n // _CELL * _CELL for n in strength.shape)
    if not height or not width:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = height // _CELL, width // _CELL
    blocks = strength[:height, :width].reshape(rows, _CELL, columns, _CELL)
    cells = blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    chosen = np.argpartition(-cells, each, axis=2)[..., :each]
    strong = np.take_along_axis(cells, chosen, 2) > _MIN_GRADIENT
    row, column, _ = np.nonzero(strong)
    within = chosen[strong]
    return row * _CELL + within // _CELL, column * _CELL + within % _CELL


def after(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    """The transform that applies `first` and then `second`, float32 (2, 3)."""
    whole = np.eye(3)
    whole[:2] = first
    return np.asarray(second @ whole, np.float32)
