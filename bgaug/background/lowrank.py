"""The background as the low-rank part of the samples: one image under a changing light.

Letters: S samples, H, W pixels, N pixels of a small image.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.gated import still_samples, weighted_median
from bgaug.background.samples import ShotSamples
from bgaug.sizing import Size, resize_area, working_size

_Floats = NDArray[np.float32]

_SIDE = 64  # short side of the images that the light is fitted on: thousands of pixels for two numbers
_ROUNDS = 2  # of light and image in turn; a third changes nothing
_REWEIGHTINGS = 6
_TUKEY, _LEAST_SPREAD = 4.685, 2.0  # in standard deviations; grey levels
_LIGHT_SAMPLES = 5  # around the middle of the shot, whose median light the result has
_MOST_GAIN, _MOST_OFFSET = 4.0, 80.0  # beyond them the fit failed, or the sample shows another scene
_MOST_LEFT = 0.5  # of the median difference
_NO_LIGHT = 2.0  # grey levels: smaller changes are noise, and a correction would only round twice


def low_rank_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The background in the light of the middle of the shot, from a robust low-rank fit.

    With the samples as rows of a matrix, each channel is modelled as ``a_s B + b_s``, of rank two, plus a sparse part:
    the foreground. Both parts are fitted in turn, starting from the median. Light: a robust line from B to each sample
    (iterated reweighting, Tukey's weights), on small images. Image: after the light is removed, the weighted median of
    each pixel, which minimises the absolute deviations of the sparse part; still samples weigh more, see
    `gated_median`.

    Principal component pursuit and GoDec fit the low rank by squares after removing large errors, so bodies that cover
    a pixel often bleed into the image; on generated scenes GoDec was up to five times as far off as the median. Here
    each pixel has only B, whose median does not bleed. So a light that changes in a part of the image only, such as the
    shadow of a cloud, is not followed.

    Without a change of light this is `gated_median`. About 25 times the CPU time of the plain median: .3 to .4 s for 51
    samples of 320x240. Automatic exposure that reacts to people who walk in is followed, too.

    Returns:
        The image, uint8 (H, W, 3), and where it was seen: everywhere, as far as a median shows.

    Reference: Candes, Li, Ma and Wright, Robust principal component analysis?, JACM 2011, arXiv:0912.3599; Zhou and
    Tao, GoDec, ICML 2011; weights by motion: Ye et al., Motion-assisted matrix restoration, IEEE TCSVT 2015. Ours: the
    rank serves the light only, and medians replace thresholds.
    """
    light = light_changes(shot)
    images = [_relit(image, own) for image, own in zip(shot.images, light, strict=True)]
    return weighted_median(images, still_samples(replace(shot, images=images))), np.ones(shot.size, np.bool_)


def light_changes(shot: ShotSamples) -> _Floats:
    """The light of each sample relative to that of the middle samples, by channel.

    Returns:
        float32 (S, 3, 2): gain and offset in grey levels from the image in the middle light to the sample. Exactly
        (1, 0) where the difference is below two grey levels, or a line does not remove half of it.
    """
    size = working_size(shot.size, _SIDE)
    small = np.stack([resize_area(image, size) for image in shot.images])
    S = len(small)
    rows = small.reshape(S, -1, 3).astype(np.float32)
    middle = slice(max(0, S // 2 - _LIGHT_SAMPLES // 2), S // 2 + _LIGHT_SAMPLES // 2 + 1)
    even, light = small, np.tile(np.array([1, 0], np.float32), (S, 3, 1))
    for _ in range(_ROUNDS):
        still = still_samples(replace(shot, images=list(even), changes=[_shrunk(c, size) for c in shot.changes]))
        middle_image = weighted_median(list(even), still).reshape(-1, 3).astype(np.float32)
        light = np.stack([robust_line(middle_image[:, c], rows[:, :, c]) for c in range(3)], axis=1)
        typical = np.median(light[middle], axis=0)
        light[..., 0] /= typical[:, 0]
        light[..., 1] -= light[..., 0] * typical[:, 1]
        middle_image = middle_image * typical[:, 0] + typical[:, 1]
        light[~_explains(light, middle_image, rows)] = (1, 0)
        even = np.stack([_relit(image, own) for image, own in zip(small, light, strict=True)])
    return light


def _explains(light: _Floats, middle_image: _Floats, rows: _Floats) -> NDArray[np.bool_]:
    """Whether there is a change of light that explains much of the difference to the image: bool (S,)."""
    lit = middle_image * light[:, None, :, 0] + light[:, None, :, 1]
    change = np.abs(lit - middle_image).mean((1, 2))
    before = np.median(np.abs(rows - middle_image).max(2), axis=1)
    left = np.median(np.abs(rows - lit).max(2), axis=1)
    return np.asarray((change >= _NO_LIGHT) & (left < _MOST_LEFT * before))


def _shrunk(change: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(change, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def robust_line(given: _Floats, target: _Floats) -> _Floats:
    """The lines ``target[s] = gain * given + offset`` that most pixels lie on.

    Starts from the median difference, at gain 1, and reweights by the distance (Tukey), so over half of the pixels must
    lie near that first line.

    Args:
        given: float32 (N,).
        target: float32 (S, N).

    Returns:
        float32 (S, 2), gain and offset; (1, 0) where the gain is beyond a factor of 4 or the offset beyond 80.
    """
    lines = np.stack([np.ones(len(target), np.float32), np.median(target - given, axis=1)], axis=1)
    for _ in range(_REWEIGHTINGS):
        error = target - lines[:, :1] * given - lines[:, 1:]
        spread = np.maximum(1.4826 * np.median(np.abs(error[:, ::4]), axis=1, keepdims=True), _LEAST_SPREAD)
        weights = np.square(np.maximum(0, 1 - np.square(error / (_TUKEY * spread))))
        total = np.maximum(weights.sum(1, keepdims=True), 1e-6)
        mean_given = (weights @ given)[:, None] / total
        mean_target = (weights * target).sum(1, keepdims=True) / total
        centred = given - mean_given
        variance = (weights * centred**2).sum(1, keepdims=True)
        slope = (weights * centred * target).sum(1, keepdims=True) / np.maximum(variance, 1e-6)
        # A flat image does not determine the gain.
        slope = np.where(variance / total > 1, slope, 1)
        lines = np.concatenate([slope, mean_target - slope * mean_given], axis=1)
    astray = (lines[:, 0] > _MOST_GAIN) | (lines[:, 0] < 1 / _MOST_GAIN) | (np.abs(lines[:, 1]) > _MOST_OFFSET)
    lines[astray] = (1, 0)
    return np.asarray(lines, np.float32)


def _relit(image: NDArray[np.uint8], light: _Floats) -> NDArray[np.uint8]:
    """A sample as it would look in the middle light."""
    if np.array_equal(light, [[1, 0]] * 3):
        return image
    levels = np.arange(256)[:, None]
    table = np.clip(np.rint((levels - light[:, 1]) / light[:, 0]), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)
