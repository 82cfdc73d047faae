"""The frames of a shot that its background is estimated from, kept in one pass.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import NUM_SAMPLES, evenly_spaced, median_by_bits
from bgaug.background.picture import NOISE_STEP, quantise_noise
from bgaug.sizing import Size, resize_area, working_size

SAMPLE_MEMORY = 256 * 2**20
"""Bytes of samples held at once, whatever the length of the video."""

_NOISE_LAG = 2
_MIN_FRAMES_FOR_NOISE = 12


@dataclass(frozen=True)
class ShotSamples:
    """Evenly spaced samples of one shot, all at one size.

    Attributes:
        images: S of uint8 (H, W, 3), RGB, in order of time.
        changes: S of uint8 (H, W): largest channel difference of each to the second frame after it, grey levels. Small
            where nothing moved just then; that of a person who stands is small too, but not of one who walks.
        indices: int64 (S,), their frame numbers within the shot.
        num_frames: T, frames of the shot.
        noise: float32 (H, W), see `Background.noise`.
    """

    images: list[NDArray[np.uint8]]
    changes: list[NDArray[np.uint8]]
    indices: NDArray[np.int64]
    num_frames: int
    noise: NDArray[np.float32]

    @property
    def size(self) -> Size:
        """(H, W)."""
        height, width = self.images[0].shape[:2]
        return height, width


class ShotSampler:
    """Samples of a shot, kept evenly spaced in one pass whose length is not known beforehand.

    Every `stride`-th frame is kept; when 2n + 1 are held, every second one is dropped and the stride doubles. So
    between n and 2n frames remain, evenly spaced, in bounded memory. Beside each sample its change to the second
    frame after it is kept, which is where the noise comes from.

    Args:
        size: (height, width) of the frames that will come.
        num_samples: n; less where `memory` does not hold 2n + 1 samples.
        memory: bytes of samples held at once.
        side: longest short side in pixels at which samples are kept.
    """

    def __init__(
        self,
        size: Size,
        *,
        num_samples: int = NUM_SAMPLES,
        memory: int = SAMPLE_MEMORY,
        side: int = 360,
    ) -> None:
        self.size = working_size(size, side)
        bytes_each = self.size[0] * self.size[1] * 4  # three channels and the change
        self._num_samples = max(3, min(num_samples, (memory // bytes_each - 1) // 2))
        self._capacity = 2 * self._num_samples + 1
        self._stride = 1
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._changes: dict[int, NDArray[np.uint8]] = {}
        self.num_frames = 0

    @property
    def num_held(self) -> int:
        """Samples held now."""
        return len(self._samples)

    @property
    def num_wanted(self) -> int:
        """Samples that a long enough shot is estimated from."""
        return self._num_samples

    def wants(self, index: int) -> bool:
        """Whether the pixels of frame `index` are needed; to be asked for every frame, in order."""
        self.num_frames = index + 1
        return index % self._stride == 0 or (index - _NOISE_LAG) in self._samples

    def add(self, index: int, image: NDArray[np.uint8]) -> None:
        """Take in a frame that was wanted: uint8 (H, W, 3)."""
        image = resize_area(image, self.size)
        earlier = self._samples.get(index - _NOISE_LAG)
        if earlier is not None:
            self._changes[index - _NOISE_LAG] = max_channel_difference(image, earlier)
        if index % self._stride:
            return
        self._samples[index] = image
        if len(self._samples) >= self._capacity:
            self._stride *= 2
            self._samples = {i: sample for i, sample in self._samples.items() if i % self._stride == 0}
            self._changes = {i: change for i, change in self._changes.items() if i % self._stride == 0}

    def samples(self, count: int | None = None) -> list[NDArray[np.uint8]]:
        """Samples of the shot, uint8 (H, W, 3) each, evenly spaced.

        Args:
            count: at most so many; by default those that a background is estimated from.

        Raises:
            ValueError: no frame was sampled.
        """
        return [self._samples[index] for index in self._chosen(count)]

    def shot(self, count: int | None = None) -> ShotSamples:
        """What a background is estimated from; see `samples`."""
        chosen = self._chosen(count)
        still = np.zeros(self.size, np.uint8)
        changes: list[NDArray[np.uint8]] = []
        for index in chosen:  # the last frame has none after it
            changes.append(self._changes.get(index, changes[-1] if changes else still))
        return ShotSamples(
            [self._samples[i] for i in chosen], changes, np.array(chosen, np.int64), self.num_frames, self._noise()
        )

    def _chosen(self, count: int | None) -> list[int]:
        held = list(self._samples)
        if not held:
            raise ValueError("no frame was sampled")
        return [held[i] for i in evenly_spaced(len(held), min(count or self._num_samples, self._num_samples))]

    def _noise(self) -> NDArray[np.float32]:
        changes = list(self._changes.values())
        if self.num_frames < _MIN_FRAMES_FOR_NOISE or not changes:
            return np.zeros(self.size, np.float32)
        chosen = [changes[i] for i in evenly_spaced(len(changes), self._num_samples)]
        # The change between two frames has sqrt(2) times the noise of one.
        noise = median_by_bits(chosen).astype(np.float32) / np.float32(np.sqrt(2))
        return quantise_noise(noise).astype(np.float32) * np.float32(NOISE_STEP)


def max_channel_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest difference over the three channels, uint8 (H, W), of two uint8 (H, W, 3)."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
