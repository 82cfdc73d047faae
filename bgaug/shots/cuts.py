"""Shots: hard cuts in a stream of frames, and the camera motion of a shot.

At a hard cut everything changes between two frames and stays changed; for fades and dissolves see `gradual`. The
thresholds come from 31 real videos with 13 cuts, from 800 more made by joining their frames at random, and from 60
clips of one shot.

Letters: T frames, S samples of a shot, K tiles of an image, N pixels of a tile's side, H, W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import evenly_spaced
from bgaug.shots.same_scene import is_same_scene
from bgaug.sizing import Size, resize_area

Verdict = Literal["static", "jitter", "moving", "unknown"]
_Floats = NDArray[np.float32]
_Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
_Frames = Sequence[tuple[NDArray[np.uint8], float]]

DELAY = 3
"""Frames that a `CutFinder` may wait before it decides; a change that ends within them is a flash."""

_THUMBNAIL: Size = (60, 80)
# A change is the mean absolute difference summed over the three channels, in grey levels.
_MIN_CHANGE, _MIN_LASTING = 12.0, 0.5  # cuts have 25 and more, between cameras at one place 15, and keep .8 of it
_MIN_RATIO, _QUIET_RATIO = 2.5, 5.0  # to the changes around; jerks of a hand-held camera have up to 3.9
# Remaining difference after each block is matched around its place, in the same unit: small for a jerk.
_MIN_LEFT, _MIN_LEFT_QUIET = 17.0, 12.0  # cuts 20 and more, a hand-held camera 15, a hand before a still camera 10
_MIN_LEFT_SHARE = 0.43  # of the difference in place: cuts .5 and more, jerks .38
_BLOCK, _NEAR, _REACH = (12, 16), (4, 4), (16, 24)
# What flow may explain as a jerk: motion does not start and end within a frame, unless frames are missing.
_MIN_AROUND = 0.3  # of the change: the largest change nearby; jump cuts mostly have less, jerks more
_REPEATED = 0.5  # grey levels: the change of a frame that a file or a camera repeats


class CutFinder:
    """Finds hard cuts in one pass, at most `DELAY` frames late.

    A cut lies before a frame if the change to it is larger than those around it, lasts for the frames that follow, and
    is not explained by motion of objects or of the camera. Motion needs more than one frame, unless frames are missing:
    where nothing else moves quickly and no image is repeated, a cut within a scene is found too. A light that goes on
    and stays on is a cut, because the background changes. A flash of at most `DELAY` frames is none, and neither are so
    few frames of another scene: of two changes at most `DELAY` frames apart the first is the cut, and the frames
    between belong to the shot that follows. So only the first and the last shot of a video can have so few frames.

    Nearly every frame is settled at once; only frames after a large change are held back for a while::

        for frame in reader.scan():
            cut = finder.feed(frame.thumbnail())
            held.append((frame.index, frame.rgb()))
            while held and held[0][0] < finder.num_settled:
                ...  # held.popleft() goes on with the shot, or begins a new one where its index is the cut
        cuts = finder.finish()  # for the frames still held
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[NDArray[np.uint8], float]] = deque(maxlen=2 * (DELAY + 1))
        self._suspects: deque[int] = deque()
        self._num_frames = 0
        self._last_cut = -DELAY - 1

    @property
    def num_settled(self) -> int:
        """All cuts at frames below this one have been returned."""
        return self._suspects[0] if self._suspects else self._num_frames

    def feed(self, thumbnail: NDArray[np.uint8]) -> int | None:
        """Process the next frame.

        Args:
            thumbnail: uint8 (60, 80, 3), as `DecodedFrame.thumbnail` gives it; kept, not copied, for a few frames.

        Returns:
            First frame of a new shot, at most `DELAY` frames back, in ascending order; None if there is no new cut.

        Raises:
            ValueError: a thumbnail of another shape or type.
        """
        if thumbnail.shape != (*_THUMBNAIL, 3) or thumbnail.dtype != np.uint8:
            raise ValueError(f"thumbnail must be uint8 (60, 80, 3), got {thumbnail.dtype} {thumbnail.shape = }")
        change = _change(self._recent[-1][0], thumbnail) if self._recent else -1.0  # the first frame has none
        if change > _MIN_CHANGE:
            before = [known for _, known in list(self._recent)[-DELAY - 1 :] if known >= 0]
            # Later changes cannot lower the mean of the surrounding changes below this.
            if change > _MIN_RATIO * sum(before) / (len(before) + DELAY):
                self._suspects.append(self._num_frames)
        self._recent.append((thumbnail, change))
        self._num_frames += 1
        return self._decide() if self.num_settled == self._num_frames - 1 - DELAY else None

    def finish(self) -> list[int]:
        """The cuts among the last frames that were not returned yet, ascending."""
        return [cut for _ in range(len(self._suspects)) if (cut := self._decide()) is not None]

    def _decide(self) -> int | None:
        index = self._suspects.popleft()
        if index - self._last_cut <= DELAY:
            return None
        recent = list(self._recent)
        here = index - (self._num_frames - len(recent))
        past, future = recent[max(0, here - DELAY - 1) : here], recent[here : here + DELAY + 1]
        around = [known for _, known in past + future[1:] if known >= 0]
        lasting = min(_change(old, new) for old, _ in past for new, _ in future)
        ratio = lasting / max(sum(around) / max(len(around), 1), 1e-6)
        if lasting <= max(_MIN_CHANGE, _MIN_LASTING * future[0][1]) or ratio <= _MIN_RATIO:
            return None
        enough = _MIN_LEFT_QUIET if ratio > _QUIET_RATIO else _MIN_LEFT
        if _is_motion(past[-1][0], future[0][0], enough):
            return None
        if _may_jerk(past, future) and is_same_scene(past[-1][0], future[0][0]):
            return None
        self._last_cut = index
        return index


def _change(old: NDArray[np.uint8], new: NDArray[np.uint8]) -> float:
    return float(cv2.norm(old, new, cv2.NORM_L1)) / (_THUMBNAIL[0] * _THUMBNAIL[1])


def _may_jerk(past: _Frames, future: _Frames) -> bool:
    """Whether the frames around a change suggest a jerk: they move quickly too, or an image next to it is repeated.

    Args:
        past: thumbnails before the change, and the change to each.
        future: the same for those after it; the first is the change in question.
    """
    before, after = [known for _, known in past[1:]], [known for _, known in future[1:]]
    repeated = min(before[-1:] + after[:1], default=0.0) < _REPEATED
    return repeated or max(before + after) > _MIN_AROUND * future[0][1]


def _is_motion(old: NDArray[np.uint8], new: NDArray[np.uint8], enough: float) -> bool:
    """Whether motion explains the difference of two thumbnails.

    It does if the mean difference (root mean square) of blocks to their best match in the other image is at most
    `enough`, or a small share of the mean difference in place. Most often a match close by suffices.
    """
    squares = np.square(new.astype(np.float32) - old).reshape(5, _BLOCK[0], 5, _BLOCK[1], 3).sum((1, 3, 4))
    left = np.sqrt(squares / (_BLOCK[0] * _BLOCK[1]))
    limit = max(enough, _MIN_LEFT_SHARE * float(left.mean()))
    for reach in (_NEAR, _REACH):
        for row, column in np.ndindex(left.shape):
            if left.mean() <= limit:
                return True
            # Blocks of both images in turn, as on a chess board: one image may show what the other hides.
            here, searched = (new, old) if (row + column) % 2 else (old, new)
            y, x = row * _BLOCK[0], column * _BLOCK[1]
            window = searched[
                max(0, y - reach[0]) : y + _BLOCK[0] + reach[0], max(0, x - reach[1]) : x + _BLOCK[1] + reach[1]
            ]
            best = cv2.matchTemplate(window, here[y : y + _BLOCK[0], x : x + _BLOCK[1]], cv2.TM_SQDIFF).min()
            left[row, column] = np.sqrt(max(best, 0.0) / (_BLOCK[0] * _BLOCK[1]))  # rounding goes below zero
    return bool(left.mean() <= limit)


_NUM_PROBES = 17  # samples that a verdict is based on; 25 give the same verdicts on real shots at half more cost
_SMALL: Size = (96, 128)
_TILE, _TILE_TOPS, _TILE_LEFTS = 40, (0, 28, 56), (0, 29, 59, 88)
_TO_160 = 160 / _SMALL[1]
_STILL, _FAR = 0.8, 8.0  # spread: cameras on stands have .4 and less, one that shakes in the wind 4
_TOGETHER, _MIN_TILES = 0.8, 3  # pixels of `_SMALL` between tiles of one motion; three rarely agree by chance
_MIN_SEEN_STATIC, _MIN_SEEN_JITTER = 0.4, 0.75  # cameras on stands behind people or leaves have .55 and more
_MIN_TEXTURE, _BLACK = 1.0, 32  # grey levels: root mean square under the window; bars are darker
_WHITENING = 0.03  # of the mean amplitude: weaker frequencies are mostly noise and compression


@dataclass(frozen=True)
class Camera:
    """Motion of the camera of a shot.

    Attributes:
        verdict: "static": it does not move. "jitter": it moves little, and sideways only (shakes, slow short pans), so
            samples moved back by `shifts` coincide. "moving": it pans, zooms or travels, or too little of the
            background is visible. "unknown": fewer than three samples, or no texture.
        shifts: float32 (S, 2), (dx, dy) in pixels of the samples: offset of the background to the right of and below
            its place in the reference, a twentieth less if blurred. NaN if not found; only "jitter" needs all samples.
        response: float32 (S,), share in [0, 1] of the textured tiles that agree on the shift; 0 where it is NaN.
        reference: index of the middle sample, to which all are compared.
        seen: share in [0, 1] of the probes whose shift was found.
        spread: 75th percentile of the probes' distances to their median shift, in pixels of a 160x120 image, or NaN.
    """

    verdict: Verdict
    shifts: NDArray[np.float32]
    response: NDArray[np.float32]
    reference: int
    seen: float
    spread: float


def camera_motion(samples: _Images) -> Camera:
    """Motion of the camera of one shot.

    Twelve tiles of the image are compared to those of the middle sample by phase correlation. A sample's shift is one
    that at least three tiles in two rows and two columns agree on: zero if so many agree on that, else the one of most
    tiles. A moving body affects only its own tiles, and in a zoom no three tiles agree.

    Args:
        samples: S images, uint8 (H, W, 3) each, RGB, or one array of them, evenly spaced over the shot, such as
            `ShotSampler.samples`.

    Raises:
        ValueError: samples of another shape or type, or none.
    """
    _check_images(samples)
    num_samples, reference = len(samples), len(samples) // 2
    shifts, response = np.full((num_samples, 2), np.nan, np.float32), np.zeros(num_samples, np.float32)
    inside = _without_bars(samples, samples[reference])
    middle = _tiles(_small_grey([inside[reference]]))
    textured = np.sqrt(np.mean(middle[0] ** 2, (1, 2))) > _MIN_TEXTURE
    if num_samples < 3 or not _spread_out(textured[None, textured], textured)[0]:
        return Camera("unknown", shifts, response, reference, 0.0, float("nan"))
    spectra = _spectra(middle[:, textured])

    def look(at: NDArray[np.intp]) -> None:
        tiles = _tiles(_small_grey([inside[i] for i in at]))[:, textured]
        shifts[at], response[at] = _common_shifts(tiles, spectra, textured)

    probes = np.union1d(evenly_spaced(num_samples, _NUM_PROBES), reference)
    half = probes[::2] if len(probes) >= _NUM_PROBES else probes
    look(half)
    seen, spread = _summary(shifts, response, half[half != reference])
    if len(half) < len(probes) and not (spread < _STILL / 2 and seen >= _MIN_SEEN_JITTER):
        look(np.setdiff1d(probes, half))
        seen, spread = _summary(shifts, response, probes[probes != reference])
    still = spread < _STILL and seen >= _MIN_SEEN_STATIC
    shaking = not still and spread < _FAR and seen >= _MIN_SEEN_JITTER
    if shaking and len(probes) < num_samples:
        look(np.setdiff1d(np.arange(num_samples), probes))
    shifts *= np.array([inside[0].shape[1] / _SMALL[1], inside[0].shape[0] / _SMALL[0]], np.float32)
    verdict: Verdict = "static" if still else "jitter" if shaking else "moving"
    return Camera(verdict, shifts, response, reference, seen, spread)


def _summary(shifts: _Floats, response: _Floats, probes: NDArray[np.intp]) -> tuple[float, float]:
    """Share of the probes whose shift was found, and the spread of all shifts found; see `Camera`."""
    found = shifts[response > 0]
    if not len(found):
        return 0.0, float("inf")
    distances = np.hypot(*(found - np.median(found, 0)).T)
    return float(np.mean(response[probes] > 0)), float(np.percentile(distances, 75)) * _TO_160


def _without_bars(samples: _Images, reference: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The samples without black bars around the reference, which stand still in a pan."""
    bright = np.asarray(cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY) > _BLACK, np.uint8)
    left, top, width, height = cv2.boundingRect(bright)
    if 4 * width * height <= bright.size:
        return list(samples)
    return [sample[top : top + height, left : left + width] for sample in samples]


def _small_grey(samples: Sequence[NDArray[np.uint8]]) -> _Floats:
    """The samples in grey at `_SMALL`, float32 (S, 96, 128)."""
    # Twice the size first: averaging 2x2 blocks is several times faster than an area filter by any other factor.
    height, width = _SMALL
    grey = [cv2.resize(cv2.cvtColor(sample, cv2.COLOR_RGB2GRAY), (2 * width, 2 * height)) for sample in samples]
    return np.stack([resize_area(np.asarray(image, np.uint8), _SMALL) for image in grey]).astype(np.float32)


def _tiles(images: _Floats) -> _Floats:
    """Windowed tiles of small images, float32 (S, K, N, N), row by row."""
    tiles = np.stack([images[:, y : y + _TILE, x : x + _TILE] for y in _TILE_TOPS for x in _TILE_LEFTS], 1)
    tiles -= tiles.mean((2, 3), keepdims=True)
    hann = np.hanning(_TILE + 2)[1:-1].astype(np.float32)  # OpenCV's Hann window is its square root
    tiles *= np.outer(hann, hann)
    return tiles


def _common_shifts(
    tiles: _Floats, middle: tuple[_Floats, _Floats], textured: NDArray[np.bool_]
) -> tuple[_Floats, _Floats]:
    """The shift that the k textured tiles of a sample agree on, (S, 2), and the share of tiles that agree, (S,)."""
    shifts, heights = _phase_shifts(tiles, middle)
    near = np.square(shifts[:, :, None] - shifts[:, None]).sum(-1) < _TOGETHER**2
    most = near[np.arange(len(tiles)), (near * (1 + heights[:, None])).sum(2).argmax(1)]
    size = np.hypot(*np.moveaxis(shifts, -1, 0))
    agreed = np.where(_spread_out(size < _TOGETHER / 2, textured)[:, None], size < _TOGETHER, most)
    agreed &= _spread_out(agreed, textured)[:, None]
    common = [
        np.median(one[own], 0) if own.any() else (np.nan, np.nan) for one, own in zip(shifts, agreed, strict=True)
    ]
    return np.array(common, np.float32), agreed.mean(1, dtype=np.float32)


def _spread_out(members: NDArray[np.bool_], textured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a set of textured tiles, bool (S, k), is large enough and spans two rows and two columns."""
    grid = np.zeros((len(members), len(_TILE_TOPS), len(_TILE_LEFTS)), np.bool_)
    grid[:, textured.reshape(grid.shape[1:])] = members
    return np.asarray((members.sum(1) >= _MIN_TILES) & (grid.any(2).sum(1) >= 2) & (grid.any(1).sum(1) >= 2))


@cache
def _transform() -> tuple[_Floats, _Floats]:
    """Cosines and sines of the Fourier transform: side by side for rows, (N, N + 2), stacked for columns, (2 N, N)."""
    half = _TILE // 2 + 1
    turns = np.outer(np.arange(_TILE), np.arange(_TILE)) * (2 * np.pi / _TILE)
    cos, sin = np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)
    return np.hstack([cos[:, :half], -sin[:, :half]]), np.vstack([cos, -sin])


def _spectra(tiles: _Floats) -> tuple[_Floats, _Floats]:
    """Half of the Fourier transforms of tiles (S, K, N, N): real and imaginary parts, (S, K, N, N // 2 + 1) each.

    At this size the products with the matrices of the transform take a third of the time of numpy's.
    """
    half = _TILE // 2 + 1
    along, across = _transform()
    both = across @ (tiles.reshape(-1, _TILE) @ along).reshape(-1, _TILE, 2 * half)
    real = both[:, :_TILE, :half] - both[:, _TILE:, half:]
    imaginary = both[:, _TILE:, :half] + both[:, :_TILE, half:]
    shape = (*tiles.shape[:2], _TILE, half)
    return real.reshape(shape), imaginary.reshape(shape)


def _phase_shifts(tiles: _Floats, middle: tuple[_Floats, _Floats]) -> tuple[_Floats, _Floats]:
    """Shifts of tiles (S, K, N, N) from the reference's spectra (1, K, ...): (S, K, 2), (dx, dy) in pixels; peaks.

    Only strong frequencies are whitened: `cv2.phaseCorrelate` also follows compression noise, which is often static.
    """
    (real, imaginary), (real_0, imaginary_0) = _spectra(tiles), middle
    cross = np.empty(real.shape, np.complex64)
    cross.real = real * real_0 + imaginary * imaginary_0
    cross.imag = imaginary * real_0 - real * imaginary_0
    power = np.sqrt(np.square(cross.real) + np.square(cross.imag))
    power += _WHITENING * power.mean((2, 3), keepdims=True) + np.float32(1e-3)
    cross *= 1 / power
    surface = np.fft.irfft2(cross, s=(_TILE, _TILE)).reshape(*tiles.shape[:2], -1)
    y, x = np.divmod(surface.argmax(2), _TILE)
    peak = np.maximum(surface.max(2), np.float32(1e-6))

    def offset(dy: int, dx: int) -> _Floats:
        # The top of a Gaussian through three points: that of a parabola is biased towards whole pixels.
        places = [(y + sign * dy) % _TILE * _TILE + (x + sign * dx) % _TILE for sign in (-1, 1)]
        sides = np.array([np.take_along_axis(surface, place[..., None], 2)[..., 0] for place in places])
        before, after = np.log(np.maximum(sides / peak, 0.01))
        return np.asarray(0.5 * (before - after) / np.minimum(before + after, -1e-6))

    whole = (np.stack([x, y], -1) + _TILE // 2) % _TILE - _TILE // 2
    return (whole + np.stack([offset(0, 1), offset(1, 0)], -1)).astype(np.float32), peak


def _check_images(images: _Images) -> None:
    shapes = {image.shape for image in images}
    shape = (len(images), *min(shapes, default=()))
    dtype = images[0].dtype if len(images) else np.uint8
    if len(shapes) != 1 or len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or 0 in shape:
        raise ValueError(f"samples must be uint8 (T, H, W, 3), none empty, got {np.dtype(dtype)} {shape}")
