"""The static background of a shot: what the camera sees where nothing moves.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.sizing import Fit, Size, fit_frame, resize_area, working_size

Method = Literal["auto", "median"]
METHODS: tuple[str, ...] = ("auto", "median")

NUM_SAMPLES = 51
"""Samples of a shot. 51 evenly spaced frames measured as accurate as all 250 of a clip; odd, so the median is a sample."""

SAMPLE_MEMORY = 256 * 2**20
"""Bytes of samples held at once, whatever the length of the video."""

NOISE_STEP = 0.125
"""Noise is kept in eighths of a grey level."""

_NOISE_LAG = 2
_MIN_FRAMES_FOR_NOISE = 12


@dataclass(frozen=True)
class Background:
    """The static background of one shot.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        noise: float32 (H, W), grey levels: how much a still pixel changes from frame to frame; 0 where the shot was
            too short to tell.
        valid: bool (H, W), where the background was really seen. A median holds every pixel for seen.
        transforms: float32 (T, 2, 3), frame to background, for a stabilised shot; None where the camera stands still.
        grade: A to F, how far to trust it; None where it was not graded.
    """

    image: NDArray[np.uint8]
    noise: NDArray[np.float32]
    valid: NDArray[np.bool_]
    transforms: NDArray[np.float32] | None = None
    grade: str | None = None

    def at(self, frame: int) -> NDArray[np.uint8]:
        """The background as frame number `frame` of the shot sees it, uint8 (H, W, 3)."""
        if self.transforms is None:
            return self.image
        height, width = self.image.shape[:2]
        seen = cv2.warpAffine(
            self.image,
            self.transforms[frame],
            (width, height),
            flags=cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(seen, np.uint8)


def fit_background(background: Background, size: Size, fit: Fit) -> Background:
    """A background brought to a store's size, exactly as the frames are.

    Raises:
        ValueError: it is of a stabilised shot: its transforms hold for its own size alone.
    """
    if background.transforms is not None:
        raise ValueError("a stabilised background cannot be brought to another size")
    noise = fit_frame(quantise_noise(background.noise), size, fit).astype(np.float32) * np.float32(NOISE_STEP)
    valid = fit_frame(background.valid.astype(np.uint8) * 255, size, fit) > 127
    return Background(fit_frame(background.image, size, fit), noise, valid, None, background.grade)


def estimate_background(frames: NDArray[np.uint8], method: Method = "auto") -> Background:
    """Static background of one shot that is in memory.

    Args:
        frames: uint8 (T, H, W, 3), RGB, from a camera that stands still.
        method: "median": exact temporal median of `NUM_SAMPLES` evenly spaced frames. "auto" picks the method by what
            the shot shows; the median is what there is to pick.

    Returns:
        The background at the size of the frames.

    Raises:
        ValueError: frames of another shape or type, none at all, or an unknown method.
    """
    _check_frames(frames)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    height, width = frames.shape[1:3]
    sampler = ShotSampler((height, width), side=min(height, width))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.background()


def temporal_median(frames: NDArray[np.uint8], *, num_samples: int = NUM_SAMPLES) -> NDArray[np.uint8]:
    """Per-pixel median over time.

    Right where a pixel shows background in over half of the sampled frames and the camera is still. Equal to
    ``numpy.median`` to the bit for an odd number of samples; the lower of the middle two for an even one, where
    ``numpy.median`` averages them.

    Args:
        frames: uint8 (T, ...), for pictures (T, H, W, 3).
        num_samples: frames used, evenly spaced over T; all of them if T is smaller.

    Returns:
        uint8 (...), one value a pixel and channel.

    Raises:
        ValueError: no frames, or not uint8.
    """
    if frames.ndim < 2 or len(frames) == 0 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (T, ...) with T >= 1, got {frames.dtype} {frames.shape = }")
    chosen = evenly_spaced(len(frames), num_samples)
    return median_by_bits(frames if len(chosen) == len(frames) else frames[chosen])


def evenly_spaced(num_frames: int, num_samples: int) -> NDArray[np.int64]:
    """Indices of at most `num_samples` of `num_frames` frames, both ends included; an odd number of them if possible."""
    count = min(num_frames, num_samples)
    if count > 2 and count % 2 == 0:
        count -= 1
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def median_by_bits(samples: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Exact (lower) median along the first axis by a search from the highest bit down.

    The median is the largest value v with at most (S - 1) // 2 samples below it. Eight rounds of comparing and
    counting in bytes replace a sort: memory-bound, and several times faster than selection.

    Args:
        samples: S arrays of one shape, uint8, or one array (S, ...) of them.

    Returns:
        uint8, of the shape of a sample.
    """
    num_samples = len(samples)
    rows = [np.ascontiguousarray(sample).reshape(-1) for sample in samples]
    num_values = rows[0].size
    # A chunk is gone through eight times: it should stay in the second-level cache. Gathering it there, too, spares
    # a copy of all samples in fresh memory.
    chunk = max(1024, min(32768, 2**20 // num_samples))
    median = np.empty(num_values, np.uint8)
    part = np.empty((num_samples, chunk), np.uint8)
    below = np.empty((num_samples, chunk), np.bool_)
    for left in range(0, num_values, chunk):
        width = min(chunk, num_values - left)
        for place, row in zip(part, rows, strict=True):
            place[:width] = row[left : left + width]
        found = _median_of_chunk(part[:, :width], below[:, :width], (num_samples - 1) // 2)
        median[left : left + width] = found
    return median.reshape(np.shape(samples[0]))


def _median_of_chunk(part: NDArray[np.uint8], below: NDArray[np.bool_], rank: int) -> NDArray[np.uint8]:
    found = np.zeros(part.shape[1], np.uint8)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        candidate = found | np.uint8(bit)
        np.less(part, candidate, out=below)
        np.copyto(found, candidate, where=_count(below) <= rank)
    return found


def _count(flags: NDArray[np.bool_]) -> NDArray[np.integer]:
    # Byte counters are exact up to 255 samples; beyond that they are summed by blocks.
    counts: NDArray[np.integer]
    if len(flags) <= 255:
        counts = np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8)
        return counts
    blocks = [
        np.add.reduce(flags[i : i + 255].view(np.uint8), axis=0, dtype=np.uint8) for i in range(0, len(flags), 255)
    ]
    counts = np.sum(blocks, axis=0, dtype=np.uint32)
    return counts


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
        held = list(self._samples.values())
        if not held:
            raise ValueError("no frame was sampled")
        return [held[i] for i in evenly_spaced(len(held), min(count or self._num_samples, self._num_samples))]

    def background(self) -> Background:
        """The median background of what was sampled, at the working size.

        Raises:
            ValueError: no frame came.
        """
        image = median_by_bits(self.samples())
        return Background(image, self._noise(), np.ones(self.size, np.bool_))

    def _noise(self) -> NDArray[np.float32]:
        changes = list(self._changes.values())
        if self.num_frames < _MIN_FRAMES_FOR_NOISE or not changes:
            return np.zeros(self.size, np.float32)
        chosen = [changes[i] for i in evenly_spaced(len(changes), self._num_samples)]
        # The change between two frames has sqrt(2) times the noise of one.
        noise = median_by_bits(chosen).astype(np.float32) / np.float32(np.sqrt(2))
        return quantise_noise(noise).astype(np.float32) * np.float32(NOISE_STEP)


def quantise_noise(noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Noise in grey levels as whole eighths, saturating at 255 of them: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(noise / np.float32(NOISE_STEP)), 0, 255), np.uint8)


def max_channel_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest difference over the three channels, uint8 (H, W), of two uint8 (H, W, 3)."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape = }")
