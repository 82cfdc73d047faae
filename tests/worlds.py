"""Worlds whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import ShotSampler, ShotSamples
from bgaug.progress import Silent


class Recorder(Silent):
    """Keeps what a pipeline warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def textured(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """An image with structure of all sizes: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48):
        coarse = rng.normal(0, 1, (cells, max(2, cells * width // height), 3))
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(120 + 30 * total, 0, 255).astype(np.uint8)


def shot_of(frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> ShotSamples:
    height, width = frames[0].shape[:2]
    sampler = ShotSampler((height, width), side=min(height, width))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def scene(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth coloured image, uint8 (H, W, 3), brightness 60 to 150."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.05, 0.3) + y * rng.uniform(0.05, 0.3) + rng.uniform(0, 6)) for _ in range(3)]
    return (105 + 45 * np.stack(waves, axis=-1)).astype(np.uint8)


def moving_square(
    seed: int = 0, num_frames: int = 40, height: int = 48, width: int = 64, side: int = 12
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]:
    """A bright square that crosses a scene: frames (T, H, W, 3), its true masks (T, H, W), the scene."""
    background = scene(seed, height, width)
    frames = np.repeat(background[None], num_frames, 0)
    masks = np.zeros(frames.shape[:3], np.bool_)
    for t in range(num_frames):
        left = round((width - side) * t / max(1, num_frames - 1))
        top = (height - side) // 2
        masks[t, top : top + side, left : left + side] = True
        frames[t][masks[t]] = (250, 240, 30)
    return frames, masks, background
