"""The frames of a shot that its background is estimated from, collected in one pass.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.few import FEW_SAMPLES
from bgaug.background.image import NOISE_STEP, quantise_noise
from bgaug.background.median import NUM_SAMPLES, evenly_spaced, median_by_bits
from bgaug.sizing import Size, resize_area, working_size

SAMPLE_MEMORY = 256 * 2**20
"""Bytes of samples held at once, whatever the length of the video."""

Image = NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]
"""An image, uint8 (H, W, 3), or a function that returns it, such as `DecodedFrame.rgb`."""

_NOISE_LAG = 2
_MIN_FRAMES_FOR_NOISE = 12


@dataclass(frozen=True)
class ShotSamples:
    """Evenly spaced samples of one shot, all at one size.

    Attributes:
        images: S of uint8 (H, W, 3), RGB, in temporal order.
        changes: S of uint8 (ceil(H / 2), ceil(W / 2)), at every second pixel of every second row: largest channel
            difference of each image to the second frame after it, grey levels. Small where nothing moves at that
            moment, also on a person who stands, but not on one who walks.
        indices: int64 (S,), their frame numbers within the shot.
        num_frames: T, frames of the shot.
        noise: float32 (H, W), see `Background.noise`; blocks of 2x2 have one value.
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

    @cached_property
    def stack(self) -> NDArray[np.uint8]:
        """The images as one array, (S, H, W, 3)."""
        return np.stack(self.images)

    @cached_property
    def change_stack(self) -> NDArray[np.uint8]:
        """The changes as one array, (S, ceil(H / 2), ceil(W / 2))."""
        return np.stack(self.changes)

    @cached_property
    def median(self) -> NDArray[np.uint8]:
        """Their exact median, (H, W, 3), the mean of the middle two of an even number; do not write to it."""
        median = median_by_bits(self.images)
        if len(self.images) % 2:
            return median
        upper = ~median_by_bits([~image for image in self.images])
        return np.asarray((median.astype(np.uint16) + upper + 1) // 2, np.uint8)


class ShotSampler:
    """Collects evenly spaced samples of a shot in one pass, without knowing its length.

    Every `stride`-th frame is kept; when 2n + 1 are held, every second one is dropped and the stride doubles. So
    between n and 2n frames remain, evenly spaced, in bounded memory. With each sample its change to the second frame
    after it is kept, from which the noise is measured.

    Args:
        size: (height, width) of the frames.
        num_samples: n; fewer if `memory` does not hold 2n + 1 samples.
        memory: bytes of samples held at once.
        side: longest short side in pixels at which samples are kept.
        expected_frames: declared number of frames, for speed only: frames that a shot of this length would drop in the
            end are not converted unless the shot turns out to be shorter.
    """

    def __init__(
        self,
        size: Size,
        *,
        num_samples: int = NUM_SAMPLES,
        memory: int = SAMPLE_MEMORY,
        side: int = 360,
        expected_frames: int = 0,
    ) -> None:
        self.size = working_size(size, side)
        _keep_freed_memory()
        bytes_each = self.size[0] * self.size[1] * 4  # three channels, and the change, which is less than one
        self._num_samples = max(3, min(num_samples, (memory // bytes_each - 1) // 2))
        self._stride = self._last_stride = 1
        # A frame that is not converted yet may need twice the memory, and more if it will be resized.
        if self.size == size and (2 * self._num_samples + 1) * bytes_each <= memory // 2:
            while expected_frames > 2 * self._num_samples * self._last_stride:
                self._last_stride *= 2
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._changes: dict[int, NDArray[np.uint8]] = {}
        self._waiting: dict[int, list[Image]] = {}  # samples that may be dropped, each with the second frame after it
        self.num_frames = 0

    @property
    def num_held(self) -> int:
        """Number of samples held now."""
        return len(self._samples) + len(self._waiting)

    def wants(self, index: int) -> bool:
        """Whether the pixels of frame `index` are needed; must be called for every frame, in order."""
        self.num_frames = index + 1
        earlier = index - _NOISE_LAG
        return index % self._stride == 0 or earlier in self._samples or earlier in self._waiting

    def add(self, index: int, image: Image) -> None:
        """Add a frame that `wants` requested: uint8 (H, W, 3), or a function that returns it now or later."""
        earlier = index - _NOISE_LAG
        if earlier in self._waiting:
            self._waiting[earlier].append(image)
        elif earlier in self._samples:
            image = self._pixels(image)
            self._changes[earlier] = _change(self._samples[earlier], image)
        if index % self._stride:
            return
        if index % self._last_stride:
            self._waiting[index] = [image]
        else:
            self._samples[index] = self._pixels(image)
        if self.num_held > 2 * self._num_samples:
            self._stride *= 2
            self._last_stride = max(self._last_stride, self._stride)
            self._samples = {i: sample for i, sample in self._samples.items() if i % self._stride == 0}
            self._changes = {i: change for i, change in self._changes.items() if i % self._stride == 0}
            self._waiting = {i: images for i, images in self._waiting.items() if i % self._stride == 0}

    def end_at(self, stop: int) -> None:
        """Forget the frames from `stop` on, at least 1: the shot has ended there."""
        self._samples = {i: sample for i, sample in self._samples.items() if i < stop}
        self._changes = {i: change for i, change in self._changes.items() if i + _NOISE_LAG < stop}
        self._waiting = {
            i: images if i + _NOISE_LAG < stop else images[:1] for i, images in self._waiting.items() if i < stop
        }
        self.num_frames = min(self.num_frames, stop)

    def samples(self, count: int | None = None) -> list[NDArray[np.uint8]]:
        """Samples of the shot, uint8 (H, W, 3) each, evenly spaced.

        Args:
            count: largest number; by default the number that a background is estimated from.

        Raises:
            ValueError: no frame was sampled.
        """
        return [self._samples[index] for index in self._chosen(count)]

    def shot(self, count: int | None = None) -> ShotSamples:
        """The samples of the shot with their changes and noise; see `samples`."""
        chosen = self._chosen(count)
        still = np.zeros(self._half, np.uint8)
        changes: list[NDArray[np.uint8]] = []
        for index in chosen:  # the last frame has no later one
            changes.append(self._changes.get(index, changes[-1] if changes else still))
        return ShotSamples(
            [self._samples[i] for i in chosen], changes, np.array(chosen, np.int64), self.num_frames, self._noise()
        )

    def _chosen(self, count: int | None) -> list[int]:
        self._wait_no_longer()
        held = sorted(self._samples)
        if not held:
            raise ValueError("no frame was sampled")
        count = min(count or self._num_samples, self._num_samples)
        if len(held) <= min(count, FEW_SAMPLES):
            return held  # an odd number would leave one of few out
        return [held[i] for i in evenly_spaced(len(held), count)]

    def _wait_no_longer(self) -> None:
        """Convert the frames that are still waiting: the shot is shorter than expected."""
        for index, images in self._waiting.items():
            self._samples[index], *later = [self._pixels(image) for image in images]
            if later:
                self._changes[index] = _change(self._samples[index], later[0])
        self._waiting = {}
        self._last_stride = self._stride

    def _pixels(self, image: Image) -> NDArray[np.uint8]:
        return resize_area(image() if callable(image) else image, self.size)

    @property
    def _half(self) -> Size:
        return (self.size[0] + 1) // 2, (self.size[1] + 1) // 2

    def _noise(self) -> NDArray[np.float32]:
        changes = [self._changes[index] for index in sorted(self._changes)]
        if self.num_frames < _MIN_FRAMES_FOR_NOISE or not changes:
            return np.zeros(self.size, np.float32)
        chosen = [changes[i] for i in evenly_spaced(len(changes), self._num_samples)]
        # The change between two frames has sqrt(2) times the noise of one.
        noise = median_by_bits(chosen).astype(np.float32) / np.float32(np.sqrt(2))
        noise = quantise_noise(noise).astype(np.float32) * np.float32(NOISE_STEP)
        return np.ascontiguousarray(noise.repeat(2, 0).repeat(2, 1)[: self.size[0], : self.size[1]])


def _change(image: NDArray[np.uint8], later: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Neighbours have the same noise: a quarter of the pixels suffices, in a third of the time.
    return max_channel_difference(image[::2], later[::2], step=2)


@cache
def _keep_freed_memory() -> None:
    """Make the C library keep memory that one shot frees until the next shot needs it.

    By default glibc returns each shot's samples to the system, and fresh pages cost a tenth of the whole extraction.
    Allocating and freeing a block of its largest size makes it keep up to twice that (64 MiB); other libraries ignore
    it.
    """
    np.empty(2**25 - 2**16, np.uint8)


def max_channel_difference(a: NDArray[np.uint8], b: NDArray[np.uint8], step: int = 1) -> NDArray[np.uint8]:
    """Largest difference over the three channels, uint8 (H, W), of two uint8 (H, W, 3); of every `step`-th column."""
    difference = cv2.absdiff(a, b)
    if step > 1:
        red, green, blue = np.moveaxis(difference[:, ::step], 2, 0)
        return np.asarray(np.maximum(np.maximum(red, green), blue), np.uint8)
    red, green, blue = cv2.split(difference)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
