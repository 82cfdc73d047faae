"""FAME's masks against the published description, computed pixel by pixel in plain Python.

Nothing here is shared with the implementation: means, differences, colours (`colorsys`), Gaussian weights, histograms
and the choice of pixels are written out. H, W pixels, T frames.
"""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from bgaug.pairs import fame_masks

Grid = list[list[float]]


def blurred(grid: Grid) -> Grid:
    """Gaussian of a tenth of the short side, made odd, sigma a third of it; the border mirrors, its own pixel once."""
    H, W = len(grid), len(grid[0])
    length = int(0.1 * min(H, W)) // 2 * 2 + 1
    half, sigma = length // 2, length / 3
    weight = [math.exp(-((k - half) ** 2) / (2 * sigma**2)) for k in range(length)]

    def mirrored(place: int, size: int) -> int:
        return -place if place < 0 else (2 * (size - 1) - place if place >= size else place)

    def value(y: int, x: int) -> float:
        total = 0.0
        for i in range(length):
            for j in range(length):
                total += weight[i] * weight[j] * grid[mirrored(y + i - half, H)][mirrored(x + j - half, W)]
        return total / sum(weight) ** 2

    return [[value(y, x) for x in range(W)] for y in range(H)]


def most(grid: Grid, share: float, *, least: bool = False) -> set[tuple[int, int]]:
    """As many pixels as the share comes to, rounded down, those of the largest (or least) value."""
    H, W = len(grid), len(grid[0])
    places = [(y, x) for y in range(H) for x in range(W)]
    places.sort(key=lambda place: grid[place[0]][place[1]] * (1 if least else -1))
    return set(places[: int(share * H * W)])


def colour(rgb: tuple[float, float, float], published: bool) -> tuple[int, int, int]:
    """Which of 10 x 10 x 10 bins, numbered 1 to 10 each: hue and saturation as a place on the disc, and the value."""
    turns, saturation, value = colorsys.rgb_to_hsv(*rgb)
    angle = turns * 2 * math.pi
    if published:
        angle *= 2 * math.pi
    x, y = ((saturation * f(angle) + 1) / 2 for f in (math.cos, math.sin))
    return round(9 * x + 1), round(9 * y + 1), round(9 * value + 1)


def reference(frames: np.ndarray, share: float, published: bool) -> np.ndarray:
    """bool (H, W) of uint8 (T, H, W, 3)."""
    T, H, W, _ = frames.shape
    values = (frames / 255).tolist()
    motion = [[0.0] * W for _ in range(H)]
    colours = {}
    for y in range(H):
        for x in range(W):
            pixel = [values[t][y][x] for t in range(T)]
            for before, after in pairwise(pixel):
                motion[y][x] += sum(abs(a - b) for a, b in zip(before, after, strict=True)) / (T - 1)
            # Sums of whole numbers: a grey pixel's mean is grey to the last bit.
            total = frames[:, y, x].astype(int).sum(axis=0).tolist()
            colours[y, x] = colour((total[0] / T / 255, total[1] / T / 255, total[2] / T / 255), published)
    motion = blurred(motion)
    moving, still = most(motion, 0.5), most(motion, 0.1, least=True)
    among_moving = Counter(colours[place] for place in moving)
    among_still = Counter(colours[place] for place in still)

    def likelihood(y: int, x: int) -> float:
        seen = among_moving[colours[y, x]] / len(moving)
        not_moving = (among_still[colours[y, x]] + 1) / (len(still) + 1000)
        return seen / (seen + not_moving)

    scores = blurred([[likelihood(y, x) for x in range(W)] for y in range(H)])
    mask = np.zeros((H, W), np.bool_)
    for place in most(scores, share):
        mask[place] = True
    return mask


def clip(number: int, height: int, width: int) -> np.ndarray:
    """A textured patch crosses a textured scene whose lower third is exactly grey: uint8 (6, H, W, 3)."""
    rng = np.random.default_rng(number)

    def texture(side: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)

    scene, patch = texture(64)[:height, :width], texture(14)
    frames = []
    for t in range(6):
        frame = scene.copy()
        frame[10 : 10 + 14, 4 + 2 * t : 18 + 2 * t] = patch
        frame = np.clip(frame + rng.integers(-5, 6, frame.shape), 0, 255).astype(np.uint8)
        frame[-height // 3 :] = frame[-height // 3 :].mean(2, keepdims=True).astype(np.uint8)
        frames.append(frame)
    return np.stack(frames)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("height", "width", "share"), [(37, 41, 0.35), (40, 40, 0.5)])
def test_the_mask_is_the_published_one(height: int, width: int, share: float, published: bool) -> None:
    for number in range(3):
        frames = clip(number, height, width)
        expected = reference(frames, share, published)
        tensor = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
        mask = fame_masks(tensor, share, published)[0, 0, 0].bool().numpy()
        assert mask.sum() == expected.sum() == int(share * height * width)
        # Colours at the edge of a bin may round to either side. With floor(10 x) 1 to 17 % of the pixels differ.
        assert (mask != expected).mean() < 0.01
