"""One video of the synthetic world, drawn layer by layer, and degraded masks of it.

Letters: T frames, S pixels of a side, P = S + 2 margins: the side of the canvas on which a video is drawn before the
camera looks at it, 3 colours (RGB).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.testing.synthetic.drawing import (
    FIRST_PHOTO,
    KINDS,
    NUM_CLASSES,
    NUM_PROPS,
    PHOTOS,
    REFERENCE_SIZE,
    Floats,
    Rng,
    blend,
    draw_photo,
    draw_prop,
    draw_scene,
    draw_sprite,
    draw_track,
    margin_of,
)

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
World = Literal["plain", "micro"]

_NOISE = 0.015  # standard deviation of the pixel noise, of full scale
_MASK_LEVEL = 0.2  # a pixel is foreground if the sprite covers more than this share of it
_MICRO_REACH = 0.65  # share of the plain world's motions, so that motion is harder to see


class SyntheticVideo(NamedTuple):
    """One video and its truth; "plain" is without moving things and without noise."""

    frames: Bytes  # (T, S, S, 3), RGB
    masks: Bools  # (T, S, S), where the sprite is visible
    plates: Bytes  # (T, S, S, 3), the plain frames, from the moving camera
    background: Bytes  # (S, S, 3), the plain scene and the prop if it does not move, the camera at rest
    moving: Bools  # (T, S, S), where anything moves: the sprite, and a prop that moves with it
    kind: int  # kind of the prop, index into `KINDS`


def make_video(
    rng: Rng,
    action: int,
    scene: int,
    prop: int,
    *,
    size: int = REFERENCE_SIZE,
    num_frames: int = 12,
    sprite: bool = True,
    world: World = "plain",
) -> SyntheticVideo:
    """One video of the given factors; everything else is drawn from `rng`.

    Args:
        rng: advanced by the call.
        action: index into `ACTIONS`.
        scene: family 0..15, or 16 + index into `PHOTOS`.
        prop: 0..7.
        size: side S of the frames in pixels, 16..4096 (at most 250 for the photographs).
        num_frames: frames T, 2..1000. Speeds are per frame: beyond about 20, straight movers leave.
        sprite: False leaves the mover out; its shadow or the object it holds then rests at the middle of its path.
        world: "plain": the prop is a mat; "micro": larger, and of a kind drawn from `KINDS`.

    Raises:
        ValueError: a factor, the size, the number of frames or the world is out of range.
    """
    _check(action, scene, prop, size, num_frames, world)
    track = draw_track(rng, action, size, num_frames, _MICRO_REACH if world == "micro" else 1)
    plate = draw_photo(rng, scene - FIRST_PHOTO, size) if scene >= FIRST_PHOTO else draw_scene(rng, scene, size)
    kind = int(rng.integers(len(KINDS))) if world == "micro" else 0
    thing = draw_prop(rng, prop, kind, track, size, bold=world == "micro", still=not sprite)
    share, colour = draw_sprite(rng, track, size)
    share *= sprite
    canvas, seen, moving = plate, share, share
    if not thing.moves:
        canvas = plate = blend(plate, thing.colour[0], thing.share[0])
    elif not thing.above:
        canvas = blend(plate, thing.colour, thing.share)
    canvas = blend(canvas, colour, share)
    if thing.moves:
        moving = 1 - (1 - share) * (1 - thing.share)
        if thing.above:
            canvas, seen = blend(canvas, thing.colour, thing.share), share * (1 - thing.share)
    k, margin = size / REFERENCE_SIZE, margin_of(size)
    camera = margin + np.cumsum(rng.normal(0, 0.5 * k, (num_frames, 2)), axis=0).clip(-1.5 * k, 1.5 * k)
    plates = _look(plate, camera, size)
    noise = _NOISE * rng.standard_normal(plates.shape, dtype=np.float32)
    masks, moved = (_look(layer[..., None], camera, size)[..., 0] > _MASK_LEVEL for layer in (seen, moving))
    frames = noise + _look(canvas, camera, size)
    background = plate[margin : margin + size, margin : margin + size]
    return SyntheticVideo(_to_bytes(frames), masks, _to_bytes(plates), _to_bytes(background), moved, kind)


def _check(action: int, scene: int, prop: int, size: int, num_frames: int, world: str) -> None:
    limits = {"action": (action, 0, NUM_CLASSES), "scene": (scene, 0, FIRST_PHOTO + len(PHOTOS))}
    limits |= {"prop": (prop, 0, NUM_PROPS), "size": (size, 16, 4097), "num_frames": (num_frames, 2, 1001)}
    for what, (value, first, stop) in limits.items():
        if not first <= value < stop:
            raise ValueError(f"{what} must be {first}..{stop - 1}, got {value}")
    if world not in get_args(World):
        raise ValueError(f"world must be one of {', '.join(get_args(World))}, got {world!r}")


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


def degraded_masks(rng: Rng, moving: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True masks with the errors of estimated ones: a rim of background, a delay, and holes.

    The masks of each video are grown by 1, 2 or 3 pixels; those of half of the videos are one frame late; and each has
    one or two square holes of side U(2, 4), at a fixed place relative to the middle of its foreground.

    Args:
        rng: advanced by the call.
        moving: bool (T, S, S), as in `SyntheticVideo`.

    Returns:
        bool (T, S, S).
    """
    T, S, _ = moving.shape
    k = S / REFERENCE_SIZE
    radius = max(1, round(int(rng.integers(1, 4)) * k))
    late = rng.random() < 0.5
    holes = [(rng.uniform(-4, 4, 2) * k, rng.uniform(2, 4) * k) for _ in range(rng.integers(1, 3))]
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    degraded = np.zeros_like(moving)
    for t in range(T):
        source = moving[max(0, t - late)]
        if not source.any():
            continue
        degraded[t] = cv2.dilate(source.astype(np.uint8), kernel) > 0
        middle = np.argwhere(source).mean(axis=0)
        for offset, side in holes:
            top, left = np.rint(middle + offset - side / 2).astype(int).clip(0, S)
            degraded[t, top : top + round(side), left : left + round(side)] = False
    return degraded
