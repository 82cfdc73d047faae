"""The scenes of scenarios, textured or plain, and the people who walk, stand or pass in them.

Letters: T frames, H, W pixels; P, Q pixels of the canvas, of which the camera sees a part. Positions are (x, y) in
pixels of the canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size

_Floats = NDArray[np.float32]
_Rng = np.random.Generator

_SPEED = 1.6  # pixels a frame
_SHADE = 0.45
_FINE = 4  # factor by which silhouettes are drawn larger


def colour(rng: _Rng, low: float = 40, high: float = 215) -> _Floats:
    """A muted colour (3,), grey levels."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 14, 3), 15, 240).astype(np.float32)


def cloud(rng: _Rng, size: Size, scales: tuple[float, ...]) -> _Floats:
    """Noise (H, W) with features of several sizes in pixels, standard deviation about 1."""
    total = np.zeros(size, np.float32)
    for scale in scales:
        coarse = [max(2, round(length / scale)) for length in size]
        total += cv2.resize(rng.standard_normal(coarse, dtype=np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return total / np.float32(math.sqrt(len(scales)))


def textured_scene(rng: _Rng, size: Size, unit: float) -> _Floats:
    """A brick wall with doors and windows above paved ground: (P, Q, 3), grey levels."""
    height, width = size
    scene = np.empty((*size, 3), np.float32)
    wall, ground = colour(rng, 90, 170), colour(rng, 80, 160)
    horizon = round(height * rng.uniform(0.4, 0.55))
    slope = np.linspace(0.85, 1.15, width, dtype=np.float32)[:, None]
    scene[:horizon], scene[horizon:] = wall * slope, ground / slope
    _lay_bricks(rng, scene[:horizon], unit)
    scene += 14 * cloud(rng, size, (60 * unit, 22 * unit, 7 * unit))[..., None]
    for _ in range(7):
        _fit_window(rng, scene, horizon, unit)
    for x in range(-height, width + height, round(30 * unit)):
        tone = float(rng.uniform(-35, 25))
        line = np.zeros(size, np.uint8)
        cv2.line(line, (x, horizon), (x + round(40 * unit * rng.uniform(-1, 1)), height), 1, max(1, round(unit)))
        scene[line > 0] += tone
    scene += rng.normal(0, 5, (*size, 1)).astype(np.float32)  # grain of the ground, not camera noise
    return scene.clip(12, 243, out=scene)


def _lay_bricks(rng: _Rng, wall: _Floats, unit: float) -> None:
    """Draw bricks of one tone each, with mortar between them, onto the wall."""
    tall, long = max(4, round(10 * unit)), max(8, round(24 * unit))
    y, x = np.indices(wall.shape[:2])
    row = y // tall
    x = x + long // 2 * (row % 2)
    tones = rng.normal(0, 12, (row.max() + 1, x.max() // long + 1)).astype(np.float32)
    wall += tones[row, x // long][..., None]
    wall[(y % tall == 0) | (x % long == 0)] += 30


def _fit_window(rng: _Rng, scene: _Floats, horizon: int, unit: float) -> None:
    """Draw a window, door or board with a frame on the wall or at its foot."""
    tall, wide = (round(unit * rng.uniform(20, 62)) for _ in range(2))
    top = int(rng.integers(0, max(1, horizon + round(15 * unit) - tall)))
    left = int(rng.integers(0, scene.shape[1] - wide))
    rim = max(1, round(3 * unit))
    scene[top : top + tall, left : left + wide] = colour(rng, 30, 225)
    pane = scene[top + rim : top + tall - rim, left + rim : left + wide - rim]
    pane[:] = colour(rng, 30, 225)
    pane += 10 * cloud(rng, (pane.shape[0], pane.shape[1]), (12 * unit,))[..., None]


def smooth_ground(rng: _Rng, size: Size, unit: float) -> _Floats:
    """Asphalt, a little lighter to one side, with four painted lines: (P, Q, 3), grey levels."""
    height, width = size
    slope = np.linspace(-14, 14, height, dtype=np.float32)[:, None] + np.linspace(-9, 9, width, dtype=np.float32)
    tone = slope + 3 * cloud(rng, size, (80 * unit, 30 * unit)) + rng.normal(0, 2, size).astype(np.float32)
    scene = colour(rng, 110, 150) + tone[..., None]
    for _ in range(4):
        left, right = (round(height * float(end)) for end in rng.uniform(0.1, 1, 2))
        line = np.zeros(size, np.uint8)
        cv2.line(line, (0, left), (width, right), 1, max(2, round(3 * unit)))
        scene[line > 0] += 55
    return scene.clip(12, 243, out=scene)


@dataclass(frozen=True)
class _Mover:
    """A person or box: texture (h, w, 3), and for each frame feet (T, 2), gait and arms (T,) in radians."""

    look: _Floats
    feet: _Floats
    gait: _Floats
    arms: _Floats
    is_box: bool = False
    has_shadow: bool = False


@dataclass(frozen=True)
class Stage:
    """Where the movers are placed: random generator, scene (P, Q, 3), T, and image height / 240."""

    rng: _Rng
    scene: _Floats
    num_frames: int
    unit: float


def cast_of(name: str, stage: Stage) -> list[_Mover]:
    """The movers in the scenario of that name."""
    match name:
        case "multi" | "cut":
            return _four_walkers(stage)
        case "slow":
            return [_slow_box(stage)]
        case "stop40" | "stop60":
            return [_stopping_walker(stage, int(name[-2:]) / 100)]
        case "stays":
            return [_standing_person(stage, 0.36, 1), _standing_person(stage, 0.6, -1)]
        case "tiny" | "lights":
            return _distant_walkers(stage)
        case "few":
            return [_elsewhere(stage) for _ in range(12)]
        case "rim":
            return _crowd_at_the_rim(stage)
        case _:
            share = int(name[-2:]) / 100 if name.startswith("occ") else 0.2
            movers = _stream(stage, share)
            if name == "lowc":
                return [replace(mover, look=_faint(stage, mover.look)) for mover in movers]
            return [replace(mover, has_shadow=name == "shadow") for mover in movers]


def _look_of(stage: Stage, height: int) -> _Floats:
    """Texture of a person: hair, face, a patterned shirt of two colours, trousers; one colour comes from the scene."""
    rng = stage.rng
    width = 2 * _half_width(height) + 1
    y, x = np.indices((height, width))
    colours = np.stack([colour(rng, 20, 235) for _ in range(3)])
    row, column = (rng.integers(length) for length in stage.scene.shape[:2])
    colours[rng.integers(3)] = stage.scene[row, column]
    look = np.empty((height, width, 3), np.float32)
    look[:] = (205, 160, 130)
    period = rng.uniform(5, 9) * stage.unit
    pattern = np.sin(2 * math.pi * (x * rng.choice([0, 0.5, 1]) + y) / period) > 0
    head, waist = round(0.16 * height), round(0.54 * height)
    look[: round(0.05 * height)] = (50, 38, 30)
    look[head:waist] = np.where(pattern[..., None], colours[0], colours[1])[head:waist]
    look[waist:] = colours[2]
    look += 9 * cloud(rng, (height, width), (6 * stage.unit, 2.5 * stage.unit))[..., None]
    return look.clip(5, 250, out=look)


def _faint(stage: Stage, look: _Floats) -> _Floats:
    """A texture with little contrast to the scene."""
    ground = stage.scene[stage.scene.shape[0] // 2 :].mean((0, 1))
    side = 1 if stage.rng.random() < 0.5 else -1
    faint: _Floats = (ground + 34 * side + 0.25 * (look - look.mean((0, 1)))).astype(np.float32)
    return faint


def _half_width(height: int) -> int:
    return math.ceil(0.42 * height)


def _walker(stage: Stage, x: _Floats, foot: float, height: int) -> _Mover:
    """A person who walks along x (T,), with legs that swing with the distance."""
    walked = np.cumsum(np.abs(np.diff(x, prepend=x[:1]))) / (0.9 * height)
    gait = (2 * math.pi * (walked + stage.rng.random())).astype(np.float32)
    feet = np.stack([x, np.full_like(x, foot)], 1).astype(np.float32)
    return _Mover(_look_of(stage, height), feet, gait, np.zeros(len(gait), np.float32))


def _body_width(height: int) -> float:
    """Mean width in pixels of a walker between hip and armpit during a step."""
    rows = slice(round(0.3 * height), round(0.5 * height))
    steps = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    widths = [(_person(height, (0.0, 0.0), float(step), 0.0)[rows] > 0.5).sum(1).mean() for step in steps]
    return float(np.mean(widths))


def _stream(stage: Stage, share: float) -> list[_Mover]:
    """Walkers one after another, at the distance at which they cover `share` of the time where their bodies pass."""
    rng, width = stage.rng, stage.scene.shape[1]
    height, speed = round(rng.uniform(48, 60) * stage.unit), _SPEED * stage.unit
    distance = _body_width(height) / share
    way = 1 if rng.random() < 0.5 else -1
    foot = stage.scene.shape[0] * rng.uniform(0.66, 0.76)
    t = np.arange(stage.num_frames, dtype=np.float32)
    movers = []
    first = width + height - distance * rng.random()
    for number in range(math.ceil((width + 2 * height + speed * stage.num_frames) / distance) + 1):
        x = first - (number + rng.uniform(-0.12, 0.12)) * distance + speed * t
        x = x if way > 0 else width - x
        movers.append(_walker(stage, x.astype(np.float32), foot + rng.uniform(-2, 2) * stage.unit, height))
    return [mover for mover in movers if (np.abs(mover.feet[:, 0] - width / 2) < width / 2 + height).any()]


def _four_walkers(stage: Stage) -> list[_Mover]:
    rng, width = stage.rng, stage.scene.shape[1]
    movers = []
    for foot in (0.58, 0.68, 0.8, 0.93):
        height = round(rng.uniform(40, 60) * stage.unit)
        length = width * rng.uniform(0.6, 1.0)
        gone = rng.uniform(0, 2 * length) + rng.uniform(1.1, 2.2) * stage.unit * np.arange(stage.num_frames)
        x = rng.uniform(0, width - length) + length - np.abs(gone % (2 * length) - length)  # to and fro
        movers.append(_walker(stage, x.astype(np.float32), foot * stage.scene.shape[0], height))
    return movers


def _distant_walkers(stage: Stage) -> list[_Mover]:
    rng, (scene_height, width) = stage.rng, stage.scene.shape[:2]
    t = np.arange(stage.num_frames, dtype=np.float32)
    movers = []
    for number in range(6):
        height = round(rng.uniform(14, 24) * stage.unit)
        standing = stage.num_frames // 3 * (number % 2)
        coming = rng.uniform(0.1, 0.9) * (stage.num_frames - standing)
        walked = np.minimum(t, coming) + np.maximum(t - coming - standing, 0)
        place, speed = rng.uniform(0.1, 0.9) * width, rng.uniform(0.3, 0.9) * stage.unit * rng.choice([-1, 1])
        x = (place + speed * (walked - coming)).astype(np.float32)
        movers.append(_walker(stage, x, scene_height * rng.uniform(0.5, 0.9), height))
    return movers


def _elsewhere(stage: Stage) -> _Mover:
    """A person who is elsewhere in every frame."""
    rng, (scene_height, width) = stage.rng, stage.scene.shape[:2]
    x = rng.uniform(0, width, stage.num_frames).astype(np.float32)
    return _walker(stage, x, scene_height * rng.uniform(0.5, 0.95), round(rng.uniform(45, 75) * stage.unit))


def _crowd_at_the_rim(stage: Stage) -> list[_Mover]:
    rng, (scene_height, width) = stage.rng, stage.scene.shape[:2]
    movers = []
    for _ in range(8):
        height, speed = round(rng.uniform(60, 80) * stage.unit), rng.uniform(0.8, 1.6) * stage.unit
        gone = rng.uniform(0, 2 * width) + speed * np.arange(stage.num_frames)
        x = width - np.abs(gone % (2 * width) - width)  # to and fro
        movers.append(_walker(stage, x.astype(np.float32), scene_height + rng.uniform(0.2, 0.4) * height, height))
    return movers


def dimmed_places(rng: _Rng, size: Size, num_frames: int) -> tuple[_Floats, _Floats]:
    """Two places (2, P, Q) whose light is dimmed, share of the light that is lost, and when (2, T), in [0, 1]."""
    height, width = size
    places, times = np.zeros((2, *size), np.float32), np.zeros((2, num_frames), np.float32)
    period = num_frames / 4
    for place, time in zip(places, times, strict=True):
        tall, wide = height // 5, width // 5
        top, left = int(rng.integers(0, height - tall)), int(rng.integers(0, width - wide))
        place[top : top + tall, left : left + wide] = 0.35
        place[:] = cv2.GaussianBlur(place, (0, 0), height / 60)
        time[:] = (np.arange(num_frames) + rng.uniform(0, period)) % period < period / 3
    return places, times


def _slow_box(stage: Stage) -> _Mover:
    """A box that passes its own width in two thirds of the clip."""
    rng, (height, width) = stage.rng, stage.scene.shape[:2]
    tall = round(60 * stage.unit)
    wide = 2 * _half_width(tall) + 1
    look = np.empty((tall, wide, 3), np.float32)
    unlike = float(rng.uniform(45, 65)) * (1 if rng.random() < 0.5 else -1)
    look[:] = stage.scene[round(0.6 * height) : round(0.75 * height)].mean((0, 1)) + unlike
    look += np.linspace(8, -8, tall, dtype=np.float32)[:, None, None]
    way = 1 if rng.random() < 0.5 else -1
    x = width * rng.uniform(0.4, 0.6) + way * 1.5 * wide * np.linspace(-0.5, 0.5, stage.num_frames)
    feet = np.stack([x, np.full(stage.num_frames, 0.75 * height)], 1).astype(np.float32)
    still = np.zeros(stage.num_frames, np.float32)
    return _Mover(look, feet, still, still, is_box=True)


def _stopping_walker(stage: Stage, share: float) -> _Mover:
    rng, (height, width) = stage.rng, stage.scene.shape[:2]
    tall = round(rng.uniform(50, 60) * stage.unit)
    standing = round(share * stage.num_frames)
    coming = (stage.num_frames - standing) // 2
    place, outside = width * rng.uniform(0.22, 0.32), -0.4 * tall
    x = np.full(stage.num_frames, place)
    x[:coming] = np.linspace(outside, place, coming)
    x[coming + standing :] = np.linspace(place, outside, stage.num_frames - coming - standing)
    mover = _walker(stage, x.astype(np.float32), 0.72 * height, tall)
    sway = 0.7 * np.sin(np.arange(stage.num_frames) / 11).astype(np.float32)
    feet = mover.feet.copy()
    feet[coming : coming + standing, 0] += sway[coming : coming + standing]
    return replace(mover, feet=feet)


def _standing_person(stage: Stage, place: float, side: int) -> _Mover:
    rng, (height, width) = stage.rng, stage.scene.shape[:2]
    tall = round(rng.uniform(82, 94) * stage.unit)
    t = np.arange(stage.num_frames, dtype=np.float32)
    sway = stage.unit * (1.8 * np.sin(t / rng.uniform(14, 22) + rng.uniform(0, 6)) + 0.8 * np.sin(t / 5))
    feet = np.stack([width * place + side * sway, np.full_like(t, 0.78 * height)], 1).astype(np.float32)
    raised = np.sin(t / rng.uniform(13, 18) + rng.uniform(0, 6))
    return _Mover(
        _look_of(stage, tall), feet, np.full_like(t, 0.3), (side * 1.6 * raised.clip(0, 1)).astype(np.float32)
    )


def draw(image: _Floats, covered: _Floats, mover: _Mover, t: int) -> None:
    """Draw a mover and its shadow onto the canvas, and add it to the covered share of each pixel."""
    height = len(mover.look)
    half = _half_width(height)
    x, y = mover.feet[t].tolist()
    left, top = math.floor(x) - half, math.floor(y) - height
    if left >= image.shape[1] or left + 2 * half + 2 <= 0:
        return
    offset = (x - math.floor(x), y - math.floor(y))
    if mover.has_shadow:
        _lay_shadow(image, x, y, height)
    if mover.is_box:
        alpha = _box(height, offset)
    else:
        alpha = _person(height, offset, float(mover.gait[t]), float(mover.arms[t]))
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    colour = cv2.warpAffine(mover.look, shift, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    y0, x0 = max(0, -top), max(0, -left)
    region = image[max(0, top) : top + alpha.shape[0], max(0, left) : left + alpha.shape[1]]
    y1, x1 = y0 + region.shape[0], x0 + region.shape[1]
    part = alpha[y0:y1, x0:x1]
    region += part[..., None] * (colour[y0:y1, x0:x1] - region)
    below = covered[max(0, top) : top + alpha.shape[0], max(0, left) : left + alpha.shape[1]]
    np.maximum(below, part, out=below)


def _person(height: int, offset: tuple[float, float], gait: float, arms: float) -> _Floats:
    """Share of each pixel that a person covers: (height + 1, 2 half + 2), with feet at (half, height) + offset."""
    half = _half_width(height)
    fine = np.zeros(((height + 1) * _FINE, (2 * half + 2) * _FINE), np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((half + offset[0] + x * height) * _FINE), round((offset[1] + y * height) * _FINE)

    def thick(share: float) -> int:
        return max(1, round(share * height * _FINE))

    def limb(root: tuple[float, float], angle: float, length: float, width: float) -> None:
        end = (root[0] + length * math.sin(angle), root[1] + length * math.cos(angle))
        cv2.line(fine, at(*root), at(*end), 255, thick(width))

    cv2.circle(fine, at(0, 0.08), thick(0.07), 255, -1)
    cv2.ellipse(fine, at(0, 0.34), (thick(0.12), thick(0.22)), 0, 0, 360, 255, -1)
    swing = math.sin(gait)
    for sign in (1, -1):
        limb((0.04 * sign, 0.5), 0.45 * sign * swing, 0.44, 0.09)
        limb((0.0, 0.24), -0.6 * sign * swing + arms * (1 if sign > 0 else 0.4), 0.32, 0.065)
    return _shrunk(fine)


def _box(height: int, offset: tuple[float, float]) -> _Floats:
    """Share of each pixel that a box with round corners covers; see `_person`."""
    half = _half_width(height)
    fine = np.zeros(((height + 1) * _FINE, (2 * half + 2) * _FINE), np.uint8)
    corner = round(0.1 * height * _FINE)
    left, top = (round(part * _FINE) + corner for part in offset)
    right, bottom = left + (2 * half + 1) * _FINE - 2 * corner, top + height * _FINE - 2 * corner
    cv2.rectangle(fine, (left, top), (right, bottom), 255, -1)
    cv2.rectangle(fine, (left, top), (right, bottom), 255, 2 * corner)  # thick lines have round corners
    return _shrunk(fine)


def _shrunk(fine: NDArray[np.uint8]) -> _Floats:
    """The share of each pixel that a silhouette of 0 and 255, drawn `_FINE` times larger, covers."""
    size = (fine.shape[1] // _FINE, fine.shape[0] // _FINE)
    return cv2.resize(fine, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


def _lay_shadow(image: _Floats, x: float, y: float, height: int) -> None:
    """Draw a soft oval shadow next to the feet."""
    long, flat = 0.45 * height, 0.09 * height
    top, bottom = max(0, math.floor(y - 2 * flat)), math.ceil(y + 2 * flat)
    left, right = max(0, math.floor(x - long)), max(0, math.ceil(x + 2 * long))
    region = image[top:bottom, left:right]
    rows, columns = np.indices(region.shape[:2], np.float32)
    distance = np.hypot((columns + left - x - 0.7 * long) / long, (rows + top - y) / flat)
    region *= 1 - np.float32(_SHADE) * np.clip(1.5 - distance, 0, 1)[..., None]
