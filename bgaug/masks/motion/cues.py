"""What distinguishes a body from the scene in frames of a camera that may move: a stack of numbers for every pixel.

The first round looks at motion against the camera, at colours and at the place; the second round looks at the result of
the first. `bgaug.masks.motion.classifier` weighs them.

Letters: N frames of a window, H, W pixels, h, w half of them, S = min(h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.flow import WindowFlow, along_flow, camera_flow, pixel_grid, window_flow
from bgaug.masks.motion.consensus import COARSE, FINE, Colours, Consensus

_Floats = NDArray[np.float32]
_Images = NDArray[np.uint8]

FIRST = (
    "moves", "like moves", "colour", "texture", "x2", "y2", "y", "distance", "across", "down", "camera",
    "not rim", "change", "skin", "vote", "moves, scaled", "spread", "fastest", "lightness", "speed",
)  # fmt: skip
"""Cues of the first round, in order."""

SECOND = (
    "first", "first along", "surest", "like first", "like first, wide", "colour first", "near", "far", "moves",
    "colour", "not rim", "like moves", "texture", "x2", "y", "change", "above", "below", "left", "right",
)  # fmt: skip
"""Cues of the second round."""

PERSON = ("person", "person along", "like person", "person and first", "person near")
"""Cues that a segmentation network adds to the second round."""

_LONG, _SHORT = 0.9, 0.7  # decay per frame of means along the flow
_LEAST_SPEED, _OFFSET = 0.5, 0.02  # pixels
_RIM = 0.06  # of S
_SMOOTH = 9  # frames over which the place of the mover is smoothed
_NEAR, _FAR = 0.04, 0.12  # of S: blur


@dataclass(frozen=True)
class Window:
    """Frames of a shot, evenly spaced, with what the cues are computed from.

    Attributes:
        frames: N >= 2 of uint8 (H, W, 3), RGB.
        flow: between them.
    """

    frames: Sequence[_Images]
    flow: WindowFlow

    @classmethod
    def of(cls, frames: Sequence[_Images]) -> Window:
        """The window of some frames, with their flow."""
        return cls(frames, window_flow(frames))

    @cached_property
    def half(self) -> _Images:
        """The frames at half size, uint8 (N, h, w, 3), RGB."""
        height, width = self.flow.forward.shape[1:3]
        resized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in self.frames]
        return np.asarray(np.stack(resized), np.uint8)

    @cached_property
    def lab(self) -> _Images:
        """The same in OpenCV's Lab."""
        return np.asarray(np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in self.half]), np.uint8)

    @cached_property
    def colours(self) -> Colours:
        """Their colours in bins."""
        return Colours(self.lab)

    @cached_property
    def fine(self) -> Consensus:
        """Their pixels in fine cells."""
        return Consensus(self.lab, FINE)

    @cached_property
    def texture(self) -> _Floats:
        """Trust in the flow, .15 to 1.15, float32 (N, h, w): more where there is texture."""
        blurred = []
        for image in self.lab:
            across, down = (cv2.Sobel(image[..., 0], cv2.CV_32F, *way, scale=0.125) for way in ((1, 0), (0, 1)))
            blurred.append(cv2.GaussianBlur(np.hypot(across, down), (0, 0), 2))
        gradient = np.stack(blurred)
        return np.asarray(0.15 + gradient / (gradient + 4), np.float32)


def speed_against_camera(flow: WindowFlow) -> _Floats:
    """How far each pixel moves against the camera in one frame: float32 (N, h, w), pixels of half size.

    The smaller of the two directions of time, so that what a body hides or frees does not count as moving.
    """
    height, width = flow.forward.shape[1:3]

    def speeds(flows: _Floats, cameras: NDArray[np.float64]) -> _Floats:
        still = np.stack([camera_flow(camera, height, width) for camera in cameras])
        return np.asarray(np.linalg.norm(flows - still, axis=-1), np.float32)

    ahead, behind = speeds(flow.forward, flow.cameras), speeds(flow.backward, flow.cameras_back)
    return np.concatenate([ahead[:1], np.minimum(ahead[1:], behind[:-1]), behind[-1:]])


def first_cues(window: Window, background: _Images | None = None) -> _Floats:
    """The cues of the first round, float32 (N, h, w, len(FIRST)).

    Args:
        window: the frames.
        background: uint8 (h, w, 3), of a static camera; by default the median of the window's frames.
    """
    speed = speed_against_camera(window.flow)
    vote, spread, fastest = _votes(speed)
    moves = along_flow(vote, window.flow, _LONG)
    scaled = _scaled(moves, 0.98, 0.15)
    alike = _scaled(window.fine.mean(moves, window.texture, 3), 0.97, 0.1)
    likely = np.asarray(np.clip((scaled + alike) / 2, 0, 1), np.float32)
    weights = window.texture
    colour = window.colours.log_ratio(weights * likely**2, weights * (1 - likely**2))
    camera = np.median(np.linalg.norm(window.flow.forward, axis=-1), axis=(1, 2))
    camera = np.append(camera, camera[-1])
    layers: list[_Floats] = [_logit(moves), alike, colour, weights]
    layers += _places(moves)
    layers += [_per_frame(np.log(camera + 0.05)), _unlike_rim(window), _change(window, background), _skin(window.half)]
    layers += [_logit(vote), scaled, _per_frame(np.log(spread + _OFFSET)), _per_frame(np.log(fastest + _OFFSET))]
    layers += [_lightness(window), np.log(speed + np.float32(_OFFSET))]
    return _stacked(layers, speed.shape)


def second_cues(window: Window, first: _Floats, scores: _Floats, person: _Floats | None = None) -> _Floats:
    """The cues of the second round, float32 (N, h, w, len(SECOND)), or with those of `PERSON`.

    Args:
        window: the frames.
        first: cues of the first round.
        scores: float32 (N, h, w), log odds after the first round.
        person: float32 (N, h, w) in [0, 1], from a segmentation network.
    """
    share = np.asarray(1 / (1 + np.exp(-np.clip(scores, -30, 30))), np.float32)
    surest = _quantile(share, 0.97)
    share = np.asarray(np.clip(share * np.float32(min(1 / max(surest, 0.2), 2)), 0, 1), np.float32)
    named = dict(zip(FIRST, np.moveaxis(first, -1, 0), strict=True))
    along = along_flow(scores, window.flow, _SHORT)
    wide = Consensus(window.lab, COARSE)
    layers = [
        scores,
        along,
        np.full((1, 1, 1), np.log(surest / (1 - surest + 1e-6) + 1e-6), np.float32),
        _logit(window.fine.mean(share, window.texture, 2)),
        _logit(wide.mean(share, window.texture, 2)),
        window.colours.log_ratio(share**2, 1 - share**2),
        _logit(_blurred(share, _NEAR)),
        _logit(_blurred(share, _FAR)),
        *(named[name] for name in ("moves", "colour", "not rim", "like moves", "texture", "x2", "y", "change")),
        *_around(share),
    ]
    if person is not None:
        odds = _logit(person)
        odds_along = along_flow(odds, window.flow, _SHORT)
        alike = _logit(wide.mean(person, np.ones_like(person), 2))
        together = odds_along * np.clip(along + 1, -3, 3) / 3
        layers += [odds, odds_along, alike, together, _logit(_blurred(person, _NEAR))]
    return _stacked(layers, scores.shape)


def _votes(speed: _Floats) -> tuple[_Floats, NDArray[np.floating], NDArray[np.floating]]:
    """Votes in [0, 1) for "moves against the camera", and per frame the spread of the errors and the fastest speed."""
    plain = speed.reshape(len(speed), -1)
    spread = 1.4826 * np.median(plain, axis=1)
    fastest = np.quantile(plain[:, ::4], 0.97, axis=1)
    usual = np.maximum(fastest, np.median(fastest) / 2)
    scale = np.maximum(np.maximum(3 * spread, 0.25 * usual), _LEAST_SPEED).astype(np.float32)
    squares = np.square(speed / scale[:, None, None])
    return squares / (1 + squares), spread, fastest


def _places(moves: _Floats) -> list[_Floats]:
    """Where each pixel lies: in the image, and relative to what moves."""
    _, height, width = moves.shape
    side = min(height, width)
    x, y = pixel_grid(height, width)
    weights = np.square(moves)
    total = weights.sum((1, 2)) + 1e-6

    def mean(values: _Floats) -> NDArray[np.floating]:
        return np.asarray((weights * values).sum((1, 2)) / total)

    middle_x, middle_y = mean(x), mean(y)
    wide = np.sqrt(mean(np.square(x - middle_x[:, None, None]))) + 0.06 * side
    tall = np.sqrt(mean(np.square(y - middle_y[:, None, None]))) + 0.06 * side
    middle_x, middle_y, wide, tall = (_per_frame(_smooth(own)) for own in (middle_x, middle_y, wide, tall))
    from_x, from_y = (x - middle_x), (y - middle_y)
    distance = np.square(np.clip(from_x / wide, -4, 4)) + np.square(np.clip(from_y / tall, -4, 4))
    right, down = ((2 * x / width - 1)[None], (2 * y / height - 1)[None])
    return [
        np.square(right),
        np.square(down),
        down,
        np.minimum(distance, 9),
        np.minimum(np.abs(from_x) * 4 / side, 4),
        np.clip(from_y * 2.5 / side, -2, 2),
    ]


def _smooth(values: NDArray[np.floating]) -> NDArray[np.floating]:
    padded = np.pad(values, _SMOOTH // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid")


def _unlike_rim(window: Window) -> _Floats:
    """How much more common a colour is inside than at the upper and the side rims of the image."""
    num_frames, height, width = window.lab.shape[:3]
    rim = np.zeros((height, width), np.float32)
    band = max(2, int(_RIM * min(height, width)))
    rim[:band] = rim[:, :band] = rim[:, -band:] = 1
    everywhere = np.broadcast_to(rim, (num_frames, height, width))
    return window.colours.log_ratio(1 - everywhere, everywhere)


def _change(window: Window, background: _Images | None) -> _Floats:
    """Logarithm of the largest channel difference to the background, grey levels."""
    still = np.median(window.half[:: max(1, len(window.half) // 25)], axis=0) if background is None else background
    change = np.abs(window.half.astype(np.float32) - still.astype(np.float32)).max(-1)
    return np.asarray(np.log(change + 4), np.float32)


def _lightness(window: Window) -> _Floats:
    return window.lab[..., 0].astype(np.float32) / np.float32(128) - np.float32(1)


def _skin(half: _Images) -> _Floats:
    """At most 0, and 0 for the colours of skin: minus the squared distance to them in OpenCV's YCrCb."""
    planes = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 1:] for image in half]).astype(np.float32)
    red = np.clip(np.square((planes[..., 0] - 150) / 14), 0, 4)
    blue = np.square(np.clip((planes[..., 1] - 110) / 14, -2, 2))
    return np.asarray(-red - blue, np.float32)


def _around(share: _Floats) -> list[_Floats]:
    """Share of foreground above, below, left and right of each pixel, in heights and widths of the image."""
    _, height, width = share.shape
    above, left = np.cumsum(share, 1) / height, np.cumsum(share, 2) / width
    return [above, above[:, -1:] - above, left, left[:, :, -1:] - left]


def _blurred(layers: _Floats, amount: float) -> _Floats:
    sigma = amount * min(layers.shape[1:])
    return np.stack([np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma), np.float32) for layer in layers])


def _logit(share: _Floats) -> _Floats:
    return np.asarray(np.log((share + np.float32(_OFFSET)) / (np.float32(1 + _OFFSET) - share)), np.float32)


def _quantile(layers: _Floats, share: float) -> float:
    return float(np.quantile(layers[:, ::3, ::3], share))


def _scaled(layers: _Floats, share: float, least: float) -> _Floats:
    """Layers relative to their quantile, which counts as `least` at least, up to 1.5."""
    unit = max(_quantile(layers, share), least)
    return np.asarray(np.minimum(layers / unit, 1.5), np.float32)


def _per_frame(values: NDArray[np.floating]) -> _Floats:
    return values.astype(np.float32)[:, None, None]


def _stacked(layers: Sequence[_Floats], shape: tuple[int, ...]) -> _Floats:
    stack = np.empty((*shape, len(layers)), np.float32)
    for place, layer in enumerate(layers):
        stack[..., place] = layer
    return stack
