"""What a video of the synthetic world is drawn from: scenes, movers and props, on a canvas around the frame.

A mover performs one of eight motions. Its sprite does not depend on the class. A scene is a texture of sixteen
families, or a photograph. A prop has a hue and a pattern that may agree with the class: in the plain world it is a mat
that lies still under the mover; in the micro world it is larger, and a mat, a shadow that moves with the mover, or an
object that the mover holds. The last two move as the mover does, so no background shows them.

Letters: T frames, P pixels of the canvas' side, S pixels of the frame's. Lengths are for S = 40 and scale with S.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rng = np.random.Generator

REFERENCE_SIZE = 40


def margin_of(size: int) -> int:
    """Width of the canvas' margin around the frame, pixels."""
    return math.ceil(4 * size / REFERENCE_SIZE)


@lru_cache(maxsize=8)
def axis(size: int) -> Floats:
    """Centres of the canvas' pixels along one axis, in pixels of the frame: (P,)."""
    margin = margin_of(size)
    return np.arange(-margin, size + margin, dtype=np.float32) + np.float32(0.5)


def _hsv(hue: float, saturation: float, value: float) -> Floats:
    """RGB (3,) in [0, 1]; the hue in turns, any number."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    share: Floats = 0.5 + 0.5 * np.tanh(0.5 * x)  # unlike 1 / (1 + exp(-x)), never overflows
    return share


def blend(under: Floats, over: Floats, share: Floats) -> Floats:
    """``under + share * (over - under)`` of (..., 3) and a share (...)."""
    # numpy is faster channel by channel.
    blended = np.empty((*share.shape, 3), np.float32)
    for channel in range(3):
        below, above = under[..., channel], over[..., channel]
        blended[..., channel] = below + share * (above - below)
    return blended


# --- movers ---

ACTIONS = ("left", "right", "up", "down", "rotate", "zoom", "circle", "shake")
NUM_CLASSES = len(ACTIONS)


class _Track(NamedTuple):
    """Where a mover is, frame by frame."""

    xy: NDArray[np.float64]  # (T, 2), pixels of the frame
    angle: NDArray[np.float64]  # (T,), radians
    scale: NDArray[np.float64]  # (T,)

    def local(self, size: int) -> tuple[Floats, Floats]:
        """Coordinates of the canvas' pixels relative to the mover, pixels of the frame at scale 1: (T, P, P) each."""
        cx, cy, cos, sin, scale = (
            values.astype(np.float32)[:, None, None]
            for values in (*self.xy.T, np.cos(self.angle), np.sin(self.angle), self.scale)
        )
        dx, dy = (axis(size) - cx) / scale, (axis(size)[:, None] - cy) / scale
        return cos * dx + sin * dy, cos * dy - sin * dx


def draw_track(rng: Rng, action: int, size: int, num_frames: int, reach: float = 1.0) -> _Track:
    """The path of a mover through one video; `reach` scales every motion."""
    k, t = size / REFERENCE_SIZE, np.arange(num_frames) - (num_frames - 1) / 2
    xy = np.tile(size / 2 + rng.uniform(-5 * k, 5 * k, 2), (num_frames, 1))
    angle = np.full(num_frames, rng.uniform(0, 2 * math.pi))
    scale = np.ones(num_frames)
    sign, phase = 1 if rng.random() < 0.5 else -1, rng.uniform(0, 2 * math.pi)
    match ACTIONS[action]:
        case "left" | "right" | "up" | "down" as way:
            direction = -1 if way in ("left", "up") else 1
            xy[:, int(way in ("up", "down"))] += direction * rng.uniform(1.1, 2.0) * reach * k * t
        case "rotate":
            angle += sign * rng.uniform(0.35, 0.6) * reach * t
        case "zoom":
            scale += 0.45 * reach * np.sin(2 * math.pi * t / rng.uniform(5, 8) + phase)
        case "circle":
            turn = sign * 2 * math.pi * t / rng.uniform(8, 11) + phase
            xy += rng.uniform(5, 7) * reach * k * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        case "shake":
            xy[:, 0] += rng.uniform(4.5, 6.5) * reach * k * np.sin(2 * math.pi * t / rng.uniform(5, 7) + phase)
    return _Track(xy, angle, scale)


def _distance(shape: int, ux: Floats, uy: Floats) -> Floats:
    """1 on the outline of a bar, an asymmetric cross or an ellipse, less inside; (ux, uy) in radii."""
    if shape == 2:
        oval: Floats = np.hypot(ux / 1.1, uy / 0.65)
        return oval
    across: Floats = np.maximum(abs(ux) / 1.1, abs(uy) / (0.5, 0.33)[shape])
    along = np.maximum(abs(uy - 0.1) / 0.8, abs(ux - 0.35) / 0.3)
    return across if shape == 0 else np.minimum(across, along, out=across)


def draw_sprite(rng: Rng, track: _Track, size: int) -> tuple[Floats, Floats]:
    """Share (T, P, P) and colour (T, P, P, 3) of a sprite whose appearance does not depend on the class."""
    shape, radius, hue = int(rng.integers(3)), rng.uniform(5, 7) * size / REFERENCE_SIZE, rng.random()
    light, dark = _hsv(hue, 0.25, 0.95), _hsv(hue + 0.5, 0.3, 0.12)
    unit = (track.scale * radius).astype(np.float32)[:, None, None]
    ux, uy = (local / np.float32(radius) for local in track.local(size))
    alpha = sigmoid(1.5 * (1 - _distance(shape, ux, uy)) * unit)
    stripes = sigmoid(8 * np.sin(4.5 * ux))
    return alpha, blend(dark, light, stripes)


# --- scenes ---

# They are part of scikit-image's wheel, so nothing is downloaded.
PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "rocket")
FIRST_UNSEEN = 8  # scene families 0..7 are for training, 8..15 are unseen, 16..23 are the photographs
FIRST_PHOTO = 16


class _Family(NamedTuple):
    amplitude: Floats  # (P, P // 2 + 1), of the half spectrum
    hues: tuple[float, float]
    saturation: float
    values: tuple[float, float]
    gradient: float
    num_rectangles: int


@lru_cache(maxsize=64)
def _family(scene: int, size: int) -> _Family:
    """Properties of all instances of one scene family; frequencies are in cycles per canvas."""
    rng = np.random.default_rng(1000 + scene)
    frequency, bandwidth = rng.uniform(2, 9), rng.uniform(0.5, 2)
    orientation, anisotropy = rng.uniform(0, math.pi), rng.uniform(0, 1)
    hues = (0.618 * scene % 1, rng.uniform(0, 1))
    saturation, value, gradient = rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.8), rng.uniform(0, 0.5)
    num_rectangles = int(rng.integers(0, 5))
    side = size + 2 * margin_of(size)
    fy, fx = np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)[None, :]
    radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    band = np.exp(-0.5 * ((radius - frequency) / bandwidth) ** 2)
    band *= 1 - anisotropy * np.sin(angle - orientation) ** 2
    amplitude = (band + 0.25 * np.exp(-radius / 2)).astype(np.float32)
    amplitude[0, 0] = 0  # the colours decide the mean
    return _Family(amplitude, hues, saturation, (value, 0.6 * value), gradient, num_rectangles)


def draw_scene(rng: Rng, scene: int, size: int) -> Floats:
    """A new instance of a scene family: float32 (P, P, 3) in [0, 1]."""
    family, side = _family(scene, size), size + 2 * margin_of(size)
    phase = rng.uniform(0, 2 * math.pi, family.amplitude.shape)
    noise = np.fft.irfft2(family.amplitude * np.exp(1j * phase), s=(side, side)).astype(np.float32)
    share = sigmoid(2 * noise / float(noise.std()))
    hues = family.hues + rng.uniform(-0.03, 0.03, 2)
    first, second = (_hsv(hues[i], family.saturation, family.values[i]) for i in (0, 1))
    plate = blend(second, first, share)
    line, way = axis(size) / size - np.float32(0.5), rng.uniform(0, 2 * math.pi)
    slope = math.cos(way) * line[None, :] + math.sin(way) * line[:, None]
    plate *= (1 + 2 * family.gradient * slope)[..., None]
    for _ in range(family.num_rectangles):
        _blend_rectangle(rng, plate, family)
    return plate.clip(0, 1, out=plate)


def _blend_rectangle(rng: Rng, plate: Floats, family: _Family) -> None:
    side = len(plate)
    height, width = (side * rng.uniform(0.15, 0.45, 2)).astype(int)
    top, left = rng.integers(side - np.array([height, width]))
    colour = _hsv(family.hues[int(rng.integers(2))], family.saturation, rng.uniform(0.2, 0.95))
    region = plate[top : top + height, left : left + width]
    region += 0.5 * (colour - region)


@lru_cache(maxsize=64)
def _photograph(index: int, factor: int) -> Floats:
    """A photograph shrunk by a whole factor: float32 (height, width, 3) in [0, 1]."""
    from skimage import data  # only this split needs it

    image = getattr(data, PHOTOS[index])() / np.float32(255) if factor == 1 else _photograph(index, 1)
    height, width = (length // factor for length in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return np.broadcast_to(blocks.mean(axis=(1, 3)), (height, width, 3))


def draw_photo(rng: Rng, index: int, size: int) -> Floats:
    """A random crop of a photograph, of half its short side or more: float32 (P, P, 3) in [0, 1]."""
    side = size + 2 * margin_of(size)
    largest = min(_photograph(index, 1).shape[:2]) // side
    if largest < 1:
        raise ValueError(f"{PHOTOS[index]} is too small a photograph for {size = }; 250 is the largest")
    image = _photograph(index, int(rng.integers((largest + 1) // 2, largest + 1)))
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    return image[top : top + side, left : left + side].copy()


# --- props ---

KINDS = ("mat", "shadow", "held")
NUM_PROPS = 8


class _Layer(NamedTuple):
    """A layer that is drawn over the earlier ones."""

    share: Floats  # (T, P, P), or (1, P, P) if it does not move
    colour: Floats  # as share, 3 colours
    moves: bool
    above: bool  # above the mover, else below it


def draw_prop(rng: Rng, prop: int, kind: int, track: _Track, size: int, *, bold: bool, still: bool) -> _Layer:
    """A prop of a kind, for the path of a mover.

    Args:
        rng: advanced by the call.
        prop: hue and pattern, 0..7.
        kind: index into `KINDS`.
        track: path of the mover.
        size: S.
        bold: larger, in a pattern of higher contrast, which is coarser for props 4..7.
        still: a prop that moves with the mover rests at the middle of its path.
    """
    k = size / REFERENCE_SIZE
    moves = kind > 0 and not still
    x, y = _local(track, size, turning=KINDS[kind] == "held", moves=moves)
    match KINDS[kind]:
        case "mat":
            half, opacity = rng.uniform(10, 13) if bold else rng.uniform(5, 7), 0.85
        case "shadow":
            half, opacity = rng.uniform(9, 11), 0.75
            x, y = x - np.float32(rng.uniform(-2, 2) * k), y - np.float32(rng.uniform(2, 4) * k)
        case "held":
            half, opacity = rng.uniform(4.5, 6), 0.95
            way = rng.uniform(0, 2 * math.pi)
            x, y = x - np.float32(7 * k * math.cos(way)), y - np.float32(7 * k * math.sin(way))
    bright = _hsv(0.02 + prop / 8 + rng.uniform(-0.02, 0.02), 0.85, 0.9)
    above = KINDS[kind] == "held" and rng.random() < 0.5
    share, tone = (
        _square(x, y, half * k, k),
        _pattern(x, y, prop, 2 * k if bold and prop >= 4 else k, 0.1 if bold else 0.45),
    )
    return _Layer(np.float32(opacity) * share, tone[..., None] * bright, moves, above)


def _local(track: _Track, size: int, *, turning: bool, moves: bool) -> tuple[Floats, Floats]:
    """Coordinates of the canvas' pixels relative to the prop: (T, P, P) each, or (1, P, P) if it does not move."""
    if not moves:
        x, y = track.xy.mean(axis=0)
        dx, dy = axis(size)[None, None, :] - np.float32(x), axis(size)[None, :, None] - np.float32(y)
        return dx + 0 * dy, dy + 0 * dx
    return track.local(size) if turning else track._replace(angle=np.zeros_like(track.angle)).local(size)


def _square(x: Floats, y: Floats, half: float, k: float) -> Floats:
    """1 inside a square, 0 outside, with an edge of one pixel of the reference size."""
    edge = np.float32(half + 0.5)
    share: Floats = (edge - abs(x)).clip(0, 1) * (edge - abs(y)).clip(0, 1)
    return share


def _pattern(x: Floats, y: Floats, prop: int, k: float, dark: float) -> Floats:
    """Vertical stripes, horizontal stripes, rings or checks, in [dark, 1]."""
    wave = np.float32(math.pi / (2 * k))
    match prop % 4:
        case 0:
            value = np.sin(wave * x)
        case 1:
            value = np.sin(wave * y)
        case 2:
            value = np.sin(wave * np.hypot(x, y))
        case _:
            value = np.sin(wave * x) * np.sin(wave * y)
    tone: Floats = np.float32(dark) + np.float32(1 - dark) * sigmoid(6 * value)
    return tone
