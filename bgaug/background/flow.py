"""Dense optical flow between frames, and the motion of the camera in it as homographies.

Letters: N frames of a window, H, W pixels of a frame, h, w of half of it (H // 2, W // 2), P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Points = NDArray[np.float64]

FLOW_SIDE = 240
"""Short side in pixels of the frames between which flow is measured."""

FLOW_RATE = 15.0
"""Frames per second between which flow is measured, approximately."""

_FINEST = 1  # with 2, OpenCV's default, flow takes a quarter of the time, and masks lose .03 of their IoU
_STEP = 8  # half-size pixels between the points that a camera is fitted to
_ROUNDS = 6
_INNER = 0.7  # share of the points, those with the smallest errors, that the spread is measured on
_SPREADS = 0.1, 1.5  # least and largest spread of the errors in pixels
_MIN_POINTS = 8


@dataclass(frozen=True)
class WindowFlow:
    """Flow between successive frames of a window, at half size, in pixels of that size.

    Attributes:
        forward: float32 (N - 1, h, w, 2), (dx, dy) of each pixel from frame t to frame t + 1.
        backward: float32 (N - 1, h, w, 2), from frame t + 1 to frame t.
        cameras: float64 (N - 1, 3, 3), homographies of the camera, from frame t to frame t + 1, in pixels of half size.
        cameras_back: float64 (N - 1, 3, 3), from frame t + 1 to frame t, fitted to the backward flow.
    """

    forward: _Floats
    backward: _Floats
    cameras: _Points
    cameras_back: _Points

    def moved(self, layer: _Floats, start: int, stop: int) -> _Floats:
        """A layer (h, w) of frame `start` as its neighbour `stop` = `start` +- 1 sees it."""
        return sampled(layer, self.backward[start] if stop > start else self.forward[stop])


def stride_of(fps: float) -> int:
    """Every so manieth frame is used, so that there are about `FLOW_RATE` per second: at least 1."""
    return max(1, round(fps / FLOW_RATE))


def window_flow(frames: Sequence[NDArray[np.uint8]]) -> WindowFlow:
    """Flow and camera between successive frames: about 10 ms per frame of 320x240.

    Args:
        frames: N >= 2 of uint8 (H, W, 3), RGB, with a short side of about `FLOW_SIDE`, evenly spaced.

    Reference: Kroeger, Timofte, Dai, Van Gool, Fast optical flow using dense inverse search, ECCV 2016 (OpenCV's DIS).
    """
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    pairs = list(pairwise(greys))
    forward = np.stack([half_flow(one, other) for one, other in pairs])
    backward = np.stack([half_flow(other, one) for one, other in pairs])
    return WindowFlow(
        forward,
        backward,
        np.stack([camera_between(flow) for flow in forward]),
        np.stack([camera_between(flow) for flow in backward]),
    )


@cache
def _estimator() -> cv2.DISOpticalFlow:
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    estimator.setFinestScale(_FINEST)
    return estimator


def half_flow(one: cv2.typing.MatLike, other: cv2.typing.MatLike) -> _Floats:
    """Flow from one grey image, uint8 (H, W), to another: float32 (h, w, 2), pixels of half size."""
    flow = _estimator().calc(one, other, None)  # type: ignore[call-overload]
    height, width = one.shape
    halved = cv2.resize(flow, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    return np.asarray(halved / 2, np.float32)


@cache
def pixel_grid(height: int, width: int) -> tuple[_Floats, _Floats]:
    """Columns and rows of every pixel, float32 (height, width) each; do not write to them."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y


def sampled(layer: _Floats, flow: _Floats) -> _Floats:
    """A layer at the places that a flow points to; beyond the image its rim is repeated.

    Args:
        layer: float32 (h, w).
        flow: float32 (h, w, 2), pixels.
    """
    x, y = pixel_grid(*flow.shape[:2])
    places = x + flow[..., 0], y + flow[..., 1]
    return np.asarray(cv2.remap(layer, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def along_flow(layers: _Floats, flow: WindowFlow, decay: float) -> _Floats:
    """Mean of each pixel over time along the flow, with weights that fall exponentially in both directions.

    Args:
        layers: float32 (N, h, w).
        flow: of the same frames.
        decay: factor in (0, 1) of the weight per frame.
    """
    total, weights = layers.copy(), np.ones(len(layers), np.float32)
    for order in (range(len(layers)), range(len(layers) - 1, -1, -1)):
        carried, weight, before = np.zeros_like(layers[0]), 0.0, -1
        for place in order:
            if before >= 0:
                carried = decay * flow.moved(carried + layers[before], before, place)
                weight = decay * (weight + 1)
            total[place] += carried
            weights[place] += weight
            before = place
    total /= weights[:, None, None]
    return total


def camera_between(flow: _Floats, known: NDArray[np.bool_] | None = None) -> _Points:
    """The homography that most of a flow follows, float64 (3, 3): the motion of the camera, if it turns or zooms.

    Points every 8 pixels start from an affine map by RANSAC; then least squares with weights that fall with the error,
    six times. Points on moving bodies have large errors and lose their weight.

    Args:
        flow: float32 (h, w, 2), pixels.
        known: bool (h, w), where the flow may be used; everywhere by default.
    """
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[min(_STEP, height) // 2 : height : _STEP, min(_STEP, width) // 2 : width : _STEP]
    here = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
    there = here + flow[rows, columns].reshape(-1, 2)
    if known is not None:
        here, there = here[known[rows, columns].ravel()], there[known[rows, columns].ravel()]
    homography = np.eye(3)
    if len(here) < _MIN_POINTS:
        return homography
    cv2.setRNGSeed(0)
    some, others = (np.ascontiguousarray(points[::2], np.float32) for points in (here, there))
    affine, _ = cv2.estimateAffine2D(some, others, method=cv2.RANSAC, ransacReprojThreshold=0.5, maxIters=200)
    if affine is not None:
        homography[:2] = affine
    for _ in range(_ROUNDS):
        error = np.hypot(*(mapped(homography, here) - there).T)
        inner = np.sort(error)[: max(_MIN_POINTS, int(_INNER * len(error)))]
        spread = np.clip(2 * 1.4826 * np.median(inner), *_SPREADS)
        fitted = _homography(here, there, (1 + np.square(error / spread)) ** -2)
        if not np.isfinite(fitted).all():
            break
        homography = fitted
    return homography


def _homography(here: _Points, there: _Points, weights: NDArray[np.float64]) -> _Points:
    """The direct linear transform with weights (P,)."""
    centre = here.mean(0)
    unit = np.abs(here - centre).max()
    (x, y), (u, v) = ((points - centre).T / unit for points in (here, there))
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate(
        [
            np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], 1),
            np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], 1),
        ]
    )
    normal = (rows * np.concatenate([weights, weights])[:, None]).T @ rows
    plain = np.linalg.eigh(normal)[1][:, 0].reshape(3, 3)
    to_unit = np.array([[1 / unit, 0, -centre[0] / unit], [0, 1 / unit, -centre[1] / unit], [0, 0, 1]])
    found = np.linalg.inv(to_unit) @ plain @ to_unit
    with np.errstate(divide="ignore", invalid="ignore"):  # a degenerate one is not finite, and is refused
        return np.asarray(found / found[2, 2])


def mapped(homography: _Points, points: _Points) -> _Points:
    """Points (P, 2) mapped by a homography."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:])


def camera_flow(homography: _Points, height: int, width: int) -> _Floats:
    """The flow of a static scene, float32 (height, width, 2), pixels."""
    x, y = pixel_grid(height, width)
    h = homography.astype(np.float32)
    depth = h[2, 0] * x + h[2, 1] * y + h[2, 2]
    across = (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / depth - x
    down = (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / depth - y
    return np.stack([across, down], 2)
