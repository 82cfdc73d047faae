"""The world whose answers are known: actions x scenes x props.

A small sprite moves in one of eight ways over a textured scene, on top of a mat (the prop) that touches it and never
moves. Only the motion is the class; in biased splits the scene (wide bias) and, independently, the prop (micro bias)
agree with it in 95 videos of 100. Masks and backgrounds are known exactly, so everything that estimates them can be
scored here too. Flipping a video or reversing its time changes its class.

Letters: N videos, T frames, S pixels of a side, P = S + 2 margins: the side of the canvas on which a video is drawn
before the camera looks at it, 3 colours (RGB). Lengths below are for S = 40 and scale with S; positions are (x, y) in
pixels of the frame, its top left corner at (0, 0), while the camera is at rest.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Rng = np.random.Generator

ACTIONS = ("left", "right", "up", "down", "rotate", "zoom", "circle", "shake")
NUM_CLASSES = len(ACTIONS)
# All inside scikit-image's wheel, so nothing is downloaded.
PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "rocket")
FIRST_UNSEEN = 8  # scene families 0..7 are for training, 8..15 are unseen, 16..23 are the photographs
FIRST_PHOTO = 16
CORRELATION = 0.95  # probability that a biased factor equals the class; otherwise it is uniform over all eight
NOISE = 0.015  # standard deviation of the pixel noise, of full scale
MASK_LEVEL = 0.2  # a pixel is foreground if the sprite makes up more than this share of it
REFERENCE_SIZE = 40


@dataclass(frozen=True)
class Split:
    """How the videos of one split are drawn.

    Attributes:
        name: key in `SPLITS`.
        seed: of the split; together with the draw and the index it seeds each video.
        count: videos of the whole split.
        scene: "class" agrees with the class at `CORRELATION`; "other" is that of another class; "free" is any of the
            training families; "unseen" any of the others; "photo" a photograph.
        prop: "class", "other" or "free" likewise. Where scene and prop are both "other", it is the same other class.
        sprite: False leaves the mover out: nothing but bias is left to see.
    """

    name: str
    seed: int
    count: int
    scene: Literal["class", "other", "free", "unseen", "photo"] = "class"
    prop: Literal["class", "other", "free"] = "class"
    sprite: bool = True


SPLITS = {
    split.name: split
    for split in (
        Split("pretrain", 1, 2048),
        Split("probe_train", 11, 1024),
        Split("iid", 12, 400),
        Split("wide", 13, 400, scene="unseen"),
        Split("micro", 14, 400, prop="other"),
        Split("swap", 15, 400, scene="unseen", prop="free"),
        Split("photo", 16, 400, scene="photo", prop="free"),
        Split("conflict", 17, 400, scene="other", prop="other"),
        Split("bgonly", 18, 400, sprite=False),
        Split("unbiased_train", 19, 1024, scene="free", prop="free"),
        Split("unbiased_test", 20, 400, scene="free", prop="free"),
    )
}


class SyntheticVideo(NamedTuple):
    """One video and what is true of it; "plain" is without sprite and noise."""

    frames: Bytes  # (T, S, S, 3), RGB
    masks: Bools  # (T, S, S), where the sprite is
    plates: Bytes  # (T, S, S, 3), the plain frames, as the moving camera saw them
    background: Bytes  # (S, S, 3), the plain scene and prop, the camera at rest


@dataclass(frozen=True, eq=False)
class SyntheticSplit:
    """A range of videos of one split; the last three are None unless the truth was asked for.

    Attributes:
        name: of the split.
        start: index of the first video here in its split.
        frames: uint8 (N, T, S, S, 3), RGB.
        labels: int64 (N,), index into `ACTIONS`.
        scene: int64 (N,), scene family 0..15, or 16 + index into `PHOTOS`.
        prop: int64 (N,), 0..7.
        masks, plates, backgrounds: as in `SyntheticVideo`, N in front.
    """

    name: str
    start: int
    frames: Bytes
    labels: Ints
    scene: Ints
    prop: Ints
    masks: Bools | None = None
    plates: Bytes | None = None
    backgrounds: Bytes | None = None

    def __len__(self) -> int:
        return len(self.labels)


def make_split(
    name: str,
    *,
    size: int = REFERENCE_SIZE,
    num_frames: int = 12,
    count: int | None = None,
    start: int = 0,
    stop: int | None = None,
    draw: int = 0,
    truth: bool = False,
) -> SyntheticSplit:
    """Videos `start` to `stop` of a split.

    Every video has a generator of its own, seeded by (draw, split, index): a video is the same whatever the range it
    is asked for in, so the work can be cut up among processes. Labels are shuffled within each eight videos, so that
    whole eights (0..8, 8..16, ...) are exactly balanced. The same numpy on the same kind of CPU gives the same bytes;
    elsewhere a pixel may differ by one grey level.

    Args:
        name: key of `SPLITS`.
        size: S, as in `make_video`.
        num_frames: T, as in `make_video`.
        count: videos of the split; by default its own. A smaller split is the beginning of the larger.
        start: first video wanted.
        stop: one past the last video wanted; by default `count`.
        draw: another draw of all videos. The scene families stay, so splits of different draws can be mixed.
        truth: also return masks, plates and backgrounds.

    Raises:
        ValueError: unknown name, or a size, number of frames, range or draw that cannot be.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}; there are {', '.join(SPLITS)}")
    split = SPLITS[name]
    count = split.count if count is None else count
    stop = count if stop is None else stop
    if not 0 <= start < stop <= count:
        raise ValueError(f"videos must satisfy 0 <= start < stop <= count, got {start = }, {stop = }, {count = }")
    if draw < 0:
        raise ValueError(f"draw must be 0 or more, got {draw}")
    labels = _labels(split, draw, stop)[start:]
    N, T, S = stop - start, num_frames, size
    scene, prop = np.empty_like(labels), np.empty_like(labels)
    frames = np.empty((N, T, S, S, 3), np.uint8)
    known = (np.empty((N, T, S, S), np.bool_), np.empty_like(frames), np.empty((N, S, S, 3), np.uint8)) if truth else ()
    for n, label in enumerate(labels.tolist()):
        rng = np.random.default_rng((1, draw, split.seed, start + n))
        scene[n], prop[n] = _factors(rng, split, label)
        video = make_video(rng, label, int(scene[n]), int(prop[n]), size=S, num_frames=T, sprite=split.sprite)
        frames[n] = video.frames
        for kept, part in zip(known, video[1:], strict=False):
            kept[n] = part
    return SyntheticSplit(name, start, frames, labels, scene, prop, *known)


def make_video(
    rng: Rng, action: int, scene: int, prop: int, *, size: int = 40, num_frames: int = 12, sprite: bool = True
) -> SyntheticVideo:
    """One video of the given factors, everything else about it drawn from `rng`.

    Args:
        rng: advanced by the call.
        action: index into `ACTIONS`.
        scene: family 0..15, or 16 + index into `PHOTOS`.
        prop: 0..7.
        size: side S of the frames in pixels, 16..4096 (at most 250 for the photographs).
        num_frames: frames T, 2..1000. Speeds are per frame: beyond about 20, straight movers leave.
        sprite: False leaves the mover out.

    Raises:
        ValueError: a factor, the size or the number of frames is out of range.
    """
    limits = {"action": (action, 0, NUM_CLASSES), "scene": (scene, 0, FIRST_PHOTO + len(PHOTOS)), "prop": (prop, 0, 8)}
    limits |= {"size": (size, 16, 4097), "num_frames": (num_frames, 2, 1001)}
    for what, (value, first, stop) in limits.items():
        if not first <= value < stop:
            raise ValueError(f"{what} must be {first}..{stop - 1}, got {value}")
    motion = _motion(rng, action, size, num_frames)
    plate = _photo(rng, scene - FIRST_PHOTO, size) if scene >= FIRST_PHOTO else _scene(rng, scene, size)
    _lay_prop(rng, plate, prop, motion[0].mean(axis=0), size)
    alpha, colour = _sprite(rng, motion, size)
    alpha *= sprite
    k, margin = size / REFERENCE_SIZE, _margin(size)
    camera = margin + np.cumsum(rng.normal(0, 0.5 * k, (num_frames, 2)), axis=0).clip(-1.5 * k, 1.5 * k)
    plates = _look(plate, camera, size)
    noise = NOISE * rng.standard_normal(plates.shape, dtype=np.float32)
    masks = _look(alpha[..., None], camera, size)[..., 0] > MASK_LEVEL
    frames = noise + _look(_blend(plate, colour, alpha), camera, size)
    background = plate[margin : margin + size, margin : margin + size]
    return SyntheticVideo(_to_bytes(frames), masks, _to_bytes(plates), _to_bytes(background))


def _blend(under: Floats, over: Floats, share: Floats) -> Floats:
    """``under + share * (over - under)`` of (..., 3) and a share (...); channel by channel, which numpy does faster."""
    blended = np.empty((*share.shape, 3), np.float32)
    for channel in range(3):
        below, above = under[..., channel], over[..., channel]
        blended[..., channel] = below + share * (above - below)
    return blended


def _labels(split: Split, draw: int, stop: int) -> Ints:
    blocks = -(-stop // NUM_CLASSES)
    # The leading number tells the streams apart: a trailing zero would not, numpy pads seeds with zeros.
    keys = np.random.default_rng((2, draw, split.seed)).random((blocks, NUM_CLASSES))
    return keys.argsort(axis=1).astype(np.int64).ravel()[:stop]


def _factors(rng: Rng, split: Split, label: int) -> tuple[int, int]:
    """Scene and prop of one video; the same number of draws whatever the split."""
    agree = rng.random(2) < CORRELATION
    any_scene, any_prop = rng.integers(NUM_CLASSES, size=2).tolist()
    other = (label + int(rng.integers(1, NUM_CLASSES))) % NUM_CLASSES
    trained = {"class": label if agree[0] else any_scene, "other": other, "free": any_scene}
    scenes = trained | {"unseen": FIRST_UNSEEN + any_scene, "photo": FIRST_PHOTO + any_scene}
    props = {"class": label if agree[1] else any_prop, "other": other, "free": any_prop}
    return scenes[split.scene], props[split.prop]


def _look(canvas: Floats, camera: NDArray[np.float64], size: int) -> Floats:
    """The camera's bilinear view of a canvas, (P, P, C) or (T, P, P, C): float32 (T, S, S, C)."""
    corner = camera.astype(np.int64)
    x, y = ((camera - corner).astype(np.float32)[:, i, None, None, None] for i in (0, 1))
    still = np.broadcast_to(canvas, (len(camera), *canvas.shape[-3:]))
    near: Floats = np.stack([c[v : v + size + 1, u : u + size + 1] for c, (u, v) in zip(still, corner, strict=True)])
    near = near[:, :-1] + y * (near[:, 1:] - near[:, :-1])
    near = near[:, :, :-1] + x * (near[:, :, 1:] - near[:, :, :-1])
    return near


def _to_bytes(image: Floats) -> Bytes:
    return (image * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _margin(size: int) -> int:
    return math.ceil(4 * size / REFERENCE_SIZE)


@lru_cache(maxsize=8)
def _axis(size: int) -> Floats:
    """Centres of the canvas' pixels along one axis, in pixels of the frame: (P,)."""
    margin = _margin(size)
    return np.arange(-margin, size + margin, dtype=np.float32) + np.float32(0.5)


def _hsv(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _sigmoid(x: Floats) -> Floats:
    share: Floats = 0.5 + 0.5 * np.tanh(0.5 * x)  # unlike 1 / (1 + exp(-x)), never overflows
    return share


# Of a mover: positions (T, 2), angles (T,) in radians and scales (T,).
_Motion = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _motion(rng: Rng, action: int, size: int, num_frames: int) -> _Motion:
    k, t = size / REFERENCE_SIZE, np.arange(num_frames) - (num_frames - 1) / 2
    xy = np.tile(size / 2 + rng.uniform(-5 * k, 5 * k, 2), (num_frames, 1))
    angle = np.full(num_frames, rng.uniform(0, 2 * math.pi))
    scale = np.ones(num_frames)
    sign, phase = 1 if rng.random() < 0.5 else -1, rng.uniform(0, 2 * math.pi)
    match ACTIONS[action]:
        case "left" | "right" | "up" | "down" as way:
            direction = -1 if way in ("left", "up") else 1
            xy[:, int(way in ("up", "down"))] += direction * rng.uniform(1.1, 2.0) * k * t
        case "rotate":
            angle += sign * rng.uniform(0.35, 0.6) * t
        case "zoom":
            scale += 0.45 * np.sin(2 * math.pi * t / rng.uniform(5, 8) + phase)
        case "circle":
            turn = sign * 2 * math.pi * t / rng.uniform(8, 11) + phase
            xy += rng.uniform(5, 7) * k * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        case "shake":
            xy[:, 0] += rng.uniform(4.5, 6.5) * k * np.sin(2 * math.pi * t / rng.uniform(5, 7) + phase)
    return xy, angle, scale


def _distance(shape: int, ux: Floats, uy: Floats) -> Floats:
    """1 on the outline of a bar, a lopsided cross or an ellipse, less inside; (ux, uy) in radii."""
    if shape == 2:
        oval: Floats = np.hypot(ux / 1.1, uy / 0.65)
        return oval
    across: Floats = np.maximum(abs(ux) / 1.1, abs(uy) / (0.5, 0.33)[shape])
    along = np.maximum(abs(uy - 0.1) / 0.8, abs(ux - 0.35) / 0.3)
    return across if shape == 0 else np.minimum(across, along, out=across)


def _sprite(rng: Rng, motion: _Motion, size: int) -> tuple[Floats, Floats]:
    """Share (T, P, P) and colour (T, P, P, 3) of a sprite whose looks say nothing about the class."""
    shape, radius, hue = int(rng.integers(3)), rng.uniform(5, 7) * size / REFERENCE_SIZE, rng.random()
    light, dark = _hsv(hue, 0.25, 0.95), _hsv(hue + 0.5, 0.3, 0.12)
    xy, angle, scale = motion
    columns = (*xy.T, np.cos(angle), np.sin(angle), scale * radius)
    cx, cy, cos, sin, unit = (values.astype(np.float32)[:, None, None] for values in columns)
    dx, dy = (_axis(size) - cx) / unit, (_axis(size)[:, None] - cy) / unit
    ux, uy = cos * dx + sin * dy, cos * dy - sin * dx
    alpha = _sigmoid(1.5 * (1 - _distance(shape, ux, uy)) * unit)
    stripes = _sigmoid(8 * np.sin(4.5 * ux))
    return alpha, _blend(dark, light, stripes)


def _lay_prop(rng: Rng, plate: Floats, prop: int, xy: NDArray[np.float64], size: int) -> None:
    """Draw the mat onto the plate, centred under the mover's mean position."""
    k = size / REFERENCE_SIZE
    half, wave = rng.uniform(5, 7) * k, math.pi / (2 * k)
    bright = _hsv(0.02 + prop / 8 + rng.uniform(-0.02, 0.02), 0.85, 0.9)
    dx, dy = _axis(size)[None, :] - float(xy[0]), _axis(size)[:, None] - float(xy[1])
    alpha = 0.85 * (half + 0.5 - abs(dx)).clip(0, 1) * (half + 0.5 - abs(dy)).clip(0, 1)
    across, along = np.sin(wave * dx), np.sin(wave * dy)
    patterns = (across + 0 * along, along + 0 * across, np.sin(wave * np.hypot(dx, dy)), across * along)
    tone = 0.45 + 0.55 * _sigmoid(6 * patterns[prop % 4])
    plate += alpha[..., None] * (tone[..., None] * bright - plate)


class _Family(NamedTuple):
    amplitude: Floats  # (P, P // 2 + 1), of the half spectrum
    hues: tuple[float, float]
    saturation: float
    values: tuple[float, float]
    gradient: float
    num_rectangles: int


@lru_cache(maxsize=64)
def _family(scene: int, size: int) -> _Family:
    """What all instances of one scene family share; frequencies are in cycles per canvas."""
    rng = np.random.default_rng(1000 + scene)
    frequency, bandwidth = rng.uniform(2, 9), rng.uniform(0.5, 2)
    orientation, anisotropy = rng.uniform(0, math.pi), rng.uniform(0, 1)
    hues = (0.618 * scene % 1, rng.uniform(0, 1))
    saturation, value, gradient = rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.8), rng.uniform(0, 0.5)
    num_rectangles = int(rng.integers(0, 5))
    side = size + 2 * _margin(size)
    fy, fx = np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)[None, :]
    radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    band = np.exp(-0.5 * ((radius - frequency) / bandwidth) ** 2)
    band *= 1 - anisotropy * np.sin(angle - orientation) ** 2
    amplitude = (band + 0.25 * np.exp(-radius / 2)).astype(np.float32)
    amplitude[0, 0] = 0  # the mean is the colours' business
    return _Family(amplitude, hues, saturation, (value, 0.6 * value), gradient, num_rectangles)


def _scene(rng: Rng, scene: int, size: int) -> Floats:
    """A new instance of a scene family: float32 (P, P, 3) in [0, 1]."""
    family, side = _family(scene, size), size + 2 * _margin(size)
    phase = rng.uniform(0, 2 * math.pi, family.amplitude.shape)
    noise = np.fft.irfft2(family.amplitude * np.exp(1j * phase), s=(side, side)).astype(np.float32)
    share = _sigmoid(2 * noise / float(noise.std()))
    hues = family.hues + rng.uniform(-0.03, 0.03, 2)
    first, second = (_hsv(hues[i], family.saturation, family.values[i]) for i in (0, 1))
    plate = _blend(second, first, share)
    axis, way = _axis(size) / size - np.float32(0.5), rng.uniform(0, 2 * math.pi)
    slope = math.cos(way) * axis[None, :] + math.sin(way) * axis[:, None]
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


def _photo(rng: Rng, index: int, size: int) -> Floats:
    """A random crop of a photograph, of half its short side or more: float32 (P, P, 3) in [0, 1]."""
    side = size + 2 * _margin(size)
    largest = min(_photograph(index, 1).shape[:2]) // side
    if largest < 1:
        raise ValueError(f"{PHOTOS[index]} is too small a photograph for {size = }; 250 is the largest")
    image = _photograph(index, int(rng.integers((largest + 1) // 2, largest + 1)))
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    return image[top : top + side, left : left + side].copy()
