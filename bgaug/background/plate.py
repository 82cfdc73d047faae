"""Backgrounds of shots in which people never leave: the ground predicted from their surroundings.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.median import median_where
from bgaug.background.samples import ShotSamples
from bgaug.sizing import resize_area

_SEED, _GROWN = 18, 9  # grey levels between the 5th and 95th percentile: where people pass; where they sway
_CLOSE, _DILATE, _RIM = 5, 3, 5  # pixels of half the size
_BODY = 26  # grey levels from the prediction
_BAND = 0.14  # of the height: how far from the active region a body may reach
_TOLERANCE, _TEXTURE = 16.0, 2.0  # grey levels; factor by which local texture adds to it
_MIN_SHARE = 0.08  # of the samples that must agree with the prediction


def plate_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The ground under people who never leave, from a prediction and the samples that agree with it.

    The region in which anything moves is filled from its surroundings, and extended over bodies that differ from that
    prediction. The result there is the median of the samples near the prediction, or the prediction if there are hardly
    any. Correct on plain ground, very wrong on textured ground: `auto` uses it only where the prediction is right
    around the region. About 0.5 s of CPU time at 320x240.

    Returns:
        uint8 (H, W, 3), and where it was seen, bool (H, W): elsewhere it is predicted.
    """
    return plate_from(shot, shot.median, active_region(shot))


def plate_from(
    shot: ShotSamples, start: NDArray[np.uint8], active: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The same, from a better image than the median, uint8 (H, W, 3), and the `active_region` of the shot."""
    small = resize_area(start, (active.shape[0], active.shape[1]))
    if active.all() or not active.any():
        return start, np.ones(shot.size, np.bool_)
    active = _with_bodies(small, active, fill(small, ~active))
    if active.all():
        return start, np.ones(shot.size, np.bool_)
    unknown = resize_area(active.astype(np.uint8), shot.size) > 0
    prediction = fill(start, ~unknown)
    return _agreeing(shot, start, prediction, unknown)


def fill(image: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Smooth continuation of the known part of an image into the rest: float32 (H, W, 3), grey levels.

    A pyramid of weighted means, expanded bilinearly: near the rim the colours come from there, far inside from the
    whole image.
    """
    return _fill(image.astype(np.float32), known.astype(np.float32))


def _fill(image: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = weight.shape
    if min(height, width) <= 2 or weight.min() > 0.999:
        mean = (image * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return np.asarray(weight[..., None] * image + (1 - weight[..., None]) * mean, np.float32)
    kernel = cv2.getGaussianKernel(5, 1.0, cv2.CV_32F)
    weighted = cv2.sepFilter2D(image * weight[..., None], -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)[::2, ::2]
    total = cv2.sepFilter2D(weight, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)[::2, ::2]
    mean = np.asarray(weighted / np.maximum(total, 1e-6)[..., None], np.float32)
    below = _fill(mean, np.asarray(np.minimum(1, 4 * total), np.float32))
    above = cv2.resize(below, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(weight[..., None] * image + (1 - weight[..., None]) * above, np.float32)


def ring_error(image: NDArray[np.uint8], region: NDArray[np.bool_], doubtful: NDArray[np.bool_]) -> float:
    """Error with which `fill` predicts the ring of 7 pixels around a region without seeing it.

    Args:
        image: uint8 (H, W, 3).
        region: bool (H, W).
        doubtful: bool (H, W), other pixels that are unreliable.

    Returns:
        75th percentile of the largest channel's error, grey levels; infinite if too little of a ring remains.
    """
    around = cv2.dilate(region.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    ring = around & ~region & ~doubtful
    if ring.sum() < 20:
        return float("inf")
    error = np.abs(image - fill(image, ~(around | doubtful))).max(2)
    return float(np.percentile(error[ring], 75))


def active_region(shot: ShotSamples) -> NDArray[np.bool_]:
    """Where anything moved in the shot, holes filled: bool, at half the size."""
    half = max(1, shot.size[0] // 2), max(1, shot.size[1] // 2)
    samples = np.sort(np.stack([resize_area(image, half) for image in shot.images]), axis=0)
    last = len(samples) - 1
    low, high = samples[int(0.05 * last)], samples[int(np.ceil(0.95 * last))]
    extent = cv2.absdiff(high, low).max(2)
    _, labels = cv2.connectedComponents((extent > _GROWN).astype(np.uint8))
    seen = np.zeros(labels.max() + 1, np.bool_)
    seen[labels[extent > _SEED]] = True
    seen[0] = False
    closed = _closed(seen[labels], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOSE, _CLOSE)))
    return np.asarray(cv2.dilate(closed, np.ones((_DILATE, _DILATE), np.uint8)) > 0)


def _closed(mask: NDArray[np.bool_], kernel: cv2.typing.MatLike) -> NDArray[np.uint8]:
    """Gaps closed and holes filled, uint8 0 or 1."""
    framed = np.pad(np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8), 1)
    cv2.floodFill(framed, None, (0, 0), 2)
    return np.asarray(framed[1:-1, 1:-1] != 2, np.uint8)


def _with_bodies(
    image: NDArray[np.uint8], active: NDArray[np.bool_], prediction: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """The active region with the parts of bodies that never move, segmented by the colours that differ there."""
    sure = active & (np.abs(image - prediction).max(2) > _BODY)
    if sure.sum() < 20:
        return active
    band = 2 * int(_BAND * image.shape[0]) + 1
    near = cv2.dilate(active.astype(np.uint8), np.ones((band, band), np.uint8)) > 0
    if near.all() and sure.all():
        return active
    from_afar = prediction if near.all() else fill(image, ~near)
    plan = np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    plan[near & (np.abs(image - from_afar).max(2) > _BODY)] = cv2.GC_PR_FGD
    plan[sure] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    cv2.grabCut(image, plan, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    bodies = active | np.isin(plan, (cv2.GC_FGD, cv2.GC_PR_FGD))
    closed = _closed(bodies, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.dilate(closed, np.ones((_RIM, _RIM), np.uint8)) > 0)


def _agreeing(
    shot: ShotSamples, start: NDArray[np.uint8], prediction: NDArray[np.float32], unknown: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """In the unknown part, the median of the samples that agree with the prediction, else the prediction."""
    texture = cv2.blur(cv2.absdiff(start, cv2.blur(start, (5, 5))).max(2), (5, 5))
    tolerance = _TOLERANCE + _TEXTURE * fill(np.repeat(texture[..., None], 3, 2), ~unknown)[unknown, 0]
    guess = np.clip(np.rint(prediction[unknown]), 0, 255).astype(np.uint8)
    values = np.stack([image[unknown] for image in shot.images])
    near = np.stack([cv2.absdiff(one, guess).max(1) <= tolerance for one in values])
    image = start.copy()
    image[unknown] = guess
    found = near.sum(0) >= max(2.0, _MIN_SHARE * len(values))
    valid = np.ones(shot.size, np.bool_)
    valid[unknown] = found
    image[valid & unknown] = median_where(values[:, found], near[:, found])
    return image, valid
