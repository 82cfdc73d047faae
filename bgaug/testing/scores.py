"""Errors of backgrounds and masks against the ground truth.

Letters: H, W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_FAR_OFF = 20  # grey levels: a background pixel with a larger error counts as wrong in `peps` and `ghost_share`

FOREGROUND, SHADOW, BACKGROUND = 255, 50, 0
"""Scored values of a truth mask; a shadow is background. Others (85 outside, 170 unknown) are not scored."""

_Bools = NDArray[np.bool_]
_Bytes = NDArray[np.uint8]
_Floats = NDArray[np.float32]

_WINDOW, _SIGMA = 11, 1.5
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_BOUNDARY_TOLERANCE = 0.008  # largest distance of two matching boundaries, of the diagonal, rounded up to whole pixels


@dataclass(frozen=True)
class _BackgroundScores:
    """Errors of an estimated background.

    Attributes:
        age: mean absolute error of the luminance, grey levels 0 to 255; the measure of SBMnet.
        age_rgb: the same over the three channels; a little larger if colours are wrong.
        peps: percentage of pixels with an error of the luminance above 20.
        ms_ssim: multi-scale structural similarity of the luminance, 1 for equal images, see `ms_ssim`.
    """

    age: float
    age_rgb: float
    peps: float
    ms_ssim: float


def background_scores(image: _Bytes, truth: _Bytes, valid: _Bools | None = None) -> _BackgroundScores:
    """Scores of a background.

    Args:
        image: uint8 (H, W, 3), RGB.
        truth: uint8 (H, W, 3), RGB.
        valid: bool (H, W), where the truth is known; everywhere by default.

    Raises:
        ValueError: the shapes do not fit, or no pixel is valid.

    Reference: Jodoin, Maddalena, Petrosino, Wang, Extensive benchmark and survey of modeling methods for scene
    background initialization, IEEE Transactions on Image Processing, 2017: AGE, pEPs, MS-SSIM.
    """
    valid = _check_images(image, truth, valid)
    error = cv2.absdiff(luminance(image), luminance(truth))[valid]
    return _BackgroundScores(
        age=float(error.mean()),
        age_rgb=float(cv2.absdiff(image, truth)[valid].mean()),
        peps=100.0 * float((error > _FAR_OFF).mean()),
        ms_ssim=ms_ssim(image, truth, valid),
    )


def ghost_share(image: _Bytes, truth: _Bytes, person_mask: _Bools) -> float:
    """Share in [0, 1] of the persons' area in which the error of a background's luminance is above 20.

    Args:
        image: uint8 (H, W, 3), RGB, the estimated background.
        truth: uint8 (H, W, 3), RGB.
        person_mask: bool (H, W), where a person ever stood.

    Raises:
        ValueError: the shapes do not fit, or the mask is empty.
    """
    person_mask = _check_images(image, truth, person_mask)
    error = cv2.absdiff(luminance(image), luminance(truth))[person_mask]
    return float((error > _FAR_OFF).mean())


def luminance(image: _Bytes) -> _Bytes:
    """Luminance of ITU-R BT.601: uint8 (H, W) from RGB (H, W, 3)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def ms_ssim(image: _Bytes, truth: _Bytes, valid: _Bools | None = None) -> float:
    """Multi-scale structural similarity of the luminance, 1 for equal images.

    Contrast and structure are compared at each scale, brightness only at the last one. The scales are those of the five
    at which the 11-pixel window fits (all five from a short side of 176 pixels on), with weights scaled to a sum of
    one. Invalid pixels count as correct, and only windows with a valid centre count.

    Args:
        image: uint8 (H, W, 3), RGB, at least 11x11.
        truth: uint8 (H, W, 3), RGB.
        valid: bool (H, W); everywhere by default.

    Raises:
        ValueError: the shapes do not fit, the images are smaller than a window, or no pixel is valid.

    Reference: Wang, Simoncelli, Bovik, Multi-scale structural similarity for image quality assessment, Asilomar
    Conference on Signals, Systems and Computers, 2003; equation 7 and the weights of section 3.2.
    """
    valid = _check_images(image, truth, valid)
    if min(valid.shape) < _WINDOW:
        raise ValueError(f"images must be at least {_WINDOW}x{_WINDOW}, got {image.shape = }")
    true = luminance(truth).astype(np.float32)
    seen = np.where(valid, luminance(image), true).astype(np.float32)
    known = valid.astype(np.float32)
    num_scales = max(1, min(len(_WEIGHTS), 1 + int(math.log2(min(valid.shape) / _WINDOW))))
    weights = np.array(_WEIGHTS[:num_scales]) / sum(_WEIGHTS[:num_scales])
    score = 1.0
    for scale, weight in enumerate(weights):
        similar = _similarity(seen, true, known > 0.5, with_brightness=scale == num_scales - 1)
        score *= max(similar, 0.0) ** float(weight)  # for inverted images it is below zero and has no root
        seen, true, known = _halve(seen), _halve(true), _halve(known)
    return score


def _similarity(seen: _Floats, true: _Floats, valid: _Bools, with_brightness: bool) -> float:
    """Mean similarity of contrast and structure, and optionally brightness, over all windows inside the image."""
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))

    def average(image: _Floats) -> _Floats:
        return np.asarray(cv2.GaussianBlur(image, (_WINDOW, _WINDOW), _SIGMA), np.float32)[inside, inside]

    mean_seen, mean_true = average(seen), average(true)
    product, power = mean_seen * mean_true, mean_seen**2 + mean_true**2
    similar = (2 * (average(seen * true) - product) + _C2) / (average(seen**2 + true**2) - power + _C2)
    if with_brightness:
        similar *= (2 * product + _C1) / (power + _C1)
    centres = valid[inside, inside]
    return float(similar[centres].mean()) if centres.any() else 1.0


def _halve(image: _Floats) -> _Floats:
    """Mean of each 2x2 block; an odd last row or column is left out."""
    height, width = (length // 2 * 2 for length in image.shape)
    halved: _Floats = image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return halved


class MaskScores:
    """Scores of masks over the frames of one sequence.

    Pixels are counted over the whole sequence, so a frame with a large foreground weighs more; boundaries are scored
    in each frame and averaged. Only pixels whose truth is `FOREGROUND`, `SHADOW` or `BACKGROUND` count. A score with a
    divisor of 0 (no foreground, and none found) is 1.

    Attributes:
        num_frames: frames added.
        true_positives, false_positives, false_negatives, true_negatives: scored pixels.
    """

    def __init__(self) -> None:
        self.num_frames = 0
        self.true_positives = 0
        self.false_positives = 0
        self.false_negatives = 0
        self.true_negatives = 0
        self._boundary_total = 0.0

    def add(self, mask: _Bools, truth: _Bytes) -> None:
        """Count one frame.

        Args:
            mask: bool (H, W), the predicted foreground.
            truth: uint8 (H, W).

        Raises:
            ValueError: the shapes or types do not fit.
        """
        if mask.ndim != 2 or mask.shape != truth.shape or mask.dtype != np.bool_ or truth.dtype != np.uint8:
            raise ValueError(
                f"mask must be bool (H, W) and truth uint8 of its shape, "
                f"got {mask.dtype} {mask.shape = }, {truth.dtype} {truth.shape = }"
            )
        foreground, background = truth == FOREGROUND, (truth == BACKGROUND) | (truth == SHADOW)
        hits, wrong = int((mask & foreground).sum()), int((mask & background).sum())
        self.true_positives += hits
        self.false_positives += wrong
        self.false_negatives += int(foreground.sum()) - hits
        self.true_negatives += int(background.sum()) - wrong
        self._boundary_total += boundary_f(mask, truth)
        self.num_frames += 1

    @property
    def precision(self) -> float:
        """Share in [0, 1] of the predicted foreground that is correct."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share in [0, 1] of the foreground that was found."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def iou(self) -> float:
        """Intersection of mask and foreground over their union."""
        return _share(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)

    @property
    def boundary_f(self) -> float:
        """Mean over the frames of `boundary_f`."""
        return self._boundary_total / self.num_frames if self.num_frames else 1.0


def boundary_f(mask: _Bools, truth: _Bytes) -> float:
    """Agreement of the outline of a mask with the true one: harmonic mean of boundary precision and recall, in [0, 1].

    A boundary pixel agrees if the other boundary is within 0.8 % of the diagonal. The truth often has an unknown rim
    around each body: the true boundary is then the middle of it, if both sides lie within the tolerance. Wider unknown
    zones have no boundary, and outlines in or at the edge of them do not count.

    Args:
        mask: bool (H, W), the predicted foreground.
        truth: uint8 (H, W), 255 foreground, 0 and 50 background, other values unknown.

    Returns:
        1 if neither has a boundary, 0 if only one has.

    Reference: Perazzi et al., A benchmark dataset and evaluation methodology for video object segmentation (DAVIS),
    CVPR 2016, after Martin, Fowlkes, Malik, Learning to detect natural image boundaries, TPAMI 2004. Boundaries are
    matched by dilation instead of one to one, as usual; the treatment of unknown rims is ours.
    """
    reach = max(1, math.ceil(_BOUNDARY_TOLERANCE * math.hypot(*mask.shape)))
    foreground, background = truth == FOREGROUND, (truth == BACKGROUND) | (truth == SHADOW)
    to_foreground, to_background = _distance(foreground), _distance(background)
    known = foreground | background
    unclear = ~known & (to_foreground + to_background > 2 * (reach + 1))
    outline = _outline(to_foreground < to_background)
    true = outline & (np.maximum(to_foreground, to_background) <= reach + 1)
    found, near_true = _outline(mask), _widen(true, reach)
    counted = found & (near_true | (known & ~_widen(unclear, reach)))
    precision = _share(int((counted & near_true).sum()), int(counted.sum()))
    recall = _share(int((true & _widen(found, reach)).sum()), int(true.sum()))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _distance(mask: _Bools) -> _Floats:
    """Distance of each pixel to the nearest pixel of a mask, float32 (H, W); very large for an empty mask."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.minimum(distance, np.float32(1e6), dtype=np.float32)


def _outline(mask: _Bools) -> _Bools:
    """Pixels of a mask with a neighbour outside it; beyond the border of the image everything counts as inside."""
    plain = mask.astype(np.uint8)
    return np.asarray(mask & (cv2.erode(plain, np.ones((3, 3), np.uint8)) == 0))


def _widen(mask: _Bools, reach: int) -> _Bools:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _check_images(image: _Bytes, truth: _Bytes, valid: _Bools | None) -> _Bools:
    if image.ndim != 3 or image.shape[2:] != (3,) or image.shape != truth.shape:
        raise ValueError(f"image and truth must be (H, W, 3) of one size, got {image.shape = }, {truth.shape = }")
    if image.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"image and truth must be uint8, got {image.dtype = }, {truth.dtype = }")
    if valid is None:
        return np.ones(image.shape[:2], np.bool_)
    if valid.shape != image.shape[:2] or valid.dtype != np.bool_ or not valid.any():
        raise ValueError(
            f"a mask must be bool {image.shape[:2]} and not empty, got {valid.dtype} {valid.shape}, {valid.sum()} set"
        )
    return valid
