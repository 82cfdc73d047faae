"""A scenario from its scene, camera, light and people.

Letters: T frames, K shots, H, W pixels; P, Q pixels of the canvas, of which the camera sees a part. Positions are (x,
y) in pixels of the canvas.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Size
from bgaug.testing.scenarios.scenes import Stage, cast_of, dimmed_places, draw, smooth_ground, textured_scene
from bgaug.video import read_video, write_video

_Floats = NDArray[np.float32]
_Rng = np.random.Generator

_Shot = tuple[NDArray[np.uint8], NDArray[np.bool_], _Floats, _Floats, NDArray[np.uint8]]

SCENARIOS = (
    *("occ20", "occ40", "occ60", "multi", "noisy", "lowc", "shadow", "slow", "stop40", "stop60"),
    *("flicker", "jitter1", "jitter3", "pan", "cut", "stays", "tiny", "lights", "few", "rim"),
)

LENGTHS = {"few": 6}
"""Frames of the scenarios that do not have 250 by default."""

PAN = 120
"""Pixels that the camera of "pan" moves."""

_NOISE, _STRONG_NOISE = 2.0, 8.0  # standard deviation, grey levels
_FLICKER = 0.06
_MARGIN = 8  # pixels of canvas around the image, enough for any jitter


@dataclass(frozen=True, eq=False)
class Scenario:
    """A clip with its ground truth.

    Attributes:
        name: one of `SCENARIOS`.
        frames: uint8 (T, H, W, 3), RGB.
        masks: bool (T, H, W), pixels that walkers cover by more than half; shadows do not count.
        backgrounds: uint8 (K, H, W, 3), for each shot its reference frame without walkers, noise and flicker. The
            reference is the frame in the middle of the shot.
        moves: float32 (T, 2), (dx, dy) in pixels: motion of the camera to the right and down since the reference frame;
            the scene moves by as much to the left and up.
        gains: float32 (T,), brightness of each frame, 1 for that of the backgrounds.
        cuts: first frames of all shots but the first.
    """

    name: str
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    backgrounds: NDArray[np.uint8]
    moves: _Floats
    gains: _Floats
    cuts: tuple[int, ...]


def make_scenario(
    name: str, seed: int = 0, size: Size = (240, 320), num_frames: int | None = None, *, compress: bool = False
) -> Scenario:
    """One scenario, the same for the same arguments.

    Args:
        name: one of `SCENARIOS`.
        seed: determines the scene and the walkers.
        size: (H, W) in pixels, at least 96 each, even if `compress`.
        num_frames: T, at least 2; by default 250, or that of `LENGTHS`.
        compress: pass the frames through H.264 (crf 23, yuv420p), as in a common video file.

    Raises:
        ValueError: an unknown name, or an invalid size or number of frames.
    """
    if name not in SCENARIOS:
        raise ValueError(f"unknown scenario {name!r}; there are {', '.join(SCENARIOS)}")
    num_frames = LENGTHS.get(name, 250) if num_frames is None else num_frames
    if min(size) < 96 or num_frames < 2 or (compress and any(length % 2 for length in size)):
        raise ValueError(f"size must be at least 96x96, even to compress, and num_frames 2, got {size}, {num_frames}")
    rng = np.random.default_rng([seed, *name.encode()])
    half = num_frames // 2
    lengths = (half, num_frames - half) if name == "cut" else (num_frames,)
    shots = [_shot(rng, name, size, length) for length in lengths]
    frames, masks, moves, gains = (np.concatenate([shot[i] for shot in shots]) for i in range(4))
    if compress:
        frames = _compressed(frames)
    backgrounds = np.stack([shot[4] for shot in shots])
    return Scenario(name, frames, masks, backgrounds, moves, gains, (half,) if name == "cut" else ())


def _shot(rng: _Rng, name: str, size: Size, num_frames: int) -> _Shot:
    """Frames, masks, moves, gains and background of one shot."""
    moves, gains = _camera(rng, name, num_frames), _light(rng, name, num_frames)
    margins = (_MARGIN, _MARGIN + math.ceil(float(np.abs(moves[:, 0]).max())))
    canvas = (size[0] + 2 * margins[0], size[1] + 2 * margins[1])
    unit = size[0] / 240
    scene = smooth_ground(rng, canvas, unit) if name == "stays" else textured_scene(rng, canvas, unit)
    cast = cast_of(name, Stage(rng, scene, num_frames, unit))
    dimmed = dimmed_places(rng, canvas, num_frames) if name == "lights" else None
    noise = _STRONG_NOISE if name == "noisy" else _NOISE
    frames = np.empty((num_frames, *size, 3), np.uint8)
    masks = np.empty((num_frames, *size), np.bool_)
    for t in range(num_frames):
        image, covered = scene.copy(), np.zeros(canvas, np.float32)
        for mover in cast:
            draw(image, covered, mover, t)
        if dimmed is not None:
            image *= 1 - np.tensordot(dimmed[1][:, t], dimmed[0], 1)[..., None]
        view = _look(image, moves[t], margins, size)
        view *= gains[t]
        view += noise * rng.standard_normal(view.shape, dtype=np.float32)
        frames[t] = _to_bytes(view)
        masks[t] = _look(covered, moves[t], margins, size) > 0.5
    return frames, masks, moves, gains, _to_bytes(_look(scene, np.zeros(2, np.float32), margins, size))


def _look(canvas: _Floats, move: _Floats, margins: tuple[int, int], size: Size) -> _Floats:
    """The view of the camera on the canvas, bilinear: (H, W, ...)."""
    y, x = margins
    if not move.any():
        return canvas[y : y + size[0], x : x + size[1]].copy()
    way = np.array([[1, 0, x + move[0]], [0, 1, y + move[1]]], np.float32)
    seen = cv2.warpAffine(canvas, way, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(seen, np.float32)


def _to_bytes(image: _Floats) -> NDArray[np.uint8]:
    return (image + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _compressed(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.mp4"
        write_video(path, frames, options={"crf": "23"}, pixel_format="yuv420p")
        return read_video(path).frames


def _camera(rng: _Rng, name: str, num_frames: int) -> _Floats:
    """Moves of the camera (T, 2), zero in the middle frame."""
    moves = np.zeros((num_frames, 2), np.float32)
    if name == "pan":
        moves[:, 0] = PAN * (np.arange(num_frames) - num_frames // 2) / max(1, num_frames - 1)
    elif name.startswith("jitter"):
        # Within the circle of that radius; the root makes the density uniform.
        reach = int(name.removeprefix("jitter")) * np.sqrt(rng.random(num_frames))
        way = rng.uniform(0, 2 * math.pi, num_frames)
        moves[:] = np.stack([reach * np.cos(way), reach * np.sin(way)], 1)
        moves[num_frames // 2] = 0
    return moves


def _light(rng: _Rng, name: str, num_frames: int) -> _Floats:
    """Gain of each frame (T,)."""
    gains = np.ones(num_frames, np.float32)
    if name == "flicker":
        slow = np.sin(np.arange(num_frames) / 9 + rng.uniform(0, 2 * math.pi))
        gains += _FLICKER * np.clip(0.5 * slow + rng.normal(0, 0.4, num_frames), -1, 1).astype(np.float32)
    return gains
