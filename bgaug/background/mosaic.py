"""The background of a camera that pans: samples joined to one larger picture, or a reason why there is none.

A wrong background is worse than none: every frame would be foreground where it is off. So a mosaic must prove itself.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.align import MIN_CONFIDENCE, Alignment, FrameAligner
from bgaug.background.image import view
from bgaug.background.samples import ShotSamples, max_channel_difference
from bgaug.background.stabilise import Canvas, put_together

_Floats = NDArray[np.float32]

MIN_SAMPLES = 9
"""Samples below which halves of them cannot check each other."""

_ROUNDS = 3  # of mosaic and alignment in turn, after the chain from neighbour to neighbour
_LARGEST = 2.0  # height and width of a canvas, in those of a frame
_MIN_ALIGNED = 0.8  # of the samples
_MIN_FITS = 0.75  # median confidence: chance has a half and less
_MOST_OFF, _OFF = 0.15, 26  # of what a sample shows, so many grey levels off: all that moves, and all that is wrong
_MOST_APART = 0.03  # of the pixels that both halves of the shot saw, `_OFF` apart
_MIN_SHARED = 0.2  # of a frame must have been seen in both halves
_MIN_LINK = 0.35  # confidence of neighbours, of which both show what moves; a wrong link is found out later
_FEATURES = 500


class Mosaic(NamedTuple):
    """A canvas, or why there is none.

    Attributes:
        canvas: its noise is 0; None where the shot has no background that could be verified.
        reason: why; empty where there is a canvas.
    """

    canvas: Canvas | None
    reason: str


def mosaic_samples(shot: ShotSamples) -> Mosaic:
    """Join the samples of a camera that pans, if that can be verified.

    Each sample is aligned to its neighbour, first by features (ORB, an affine map by RANSAC), then by
    `FrameAligner`; chained from the middle one, they give a first median, to which each is aligned again. What moves
    is in the median of a pixel only if it stays there for half of the time that the pixel is in view, which in a pan
    is short.

    Refused are: too few samples, a chain that breaks, a canvas of over twice a frame's height or width, too many
    samples that do not fit, or show more than 15 % that is off, and halves of the shot whose mosaics differ where both
    saw the same. So zooms, cameras that walk or turn about (parallax; one affine map cannot say it), and shots that
    are mostly foreground have none.
    """
    if len(shot.images) < MIN_SAMPLES:
        return Mosaic(None, f"{len(shot.images)} samples, {MIN_SAMPLES} are needed")
    chain = chained(shot.images)
    if chain is None:
        return Mosaic(None, "neighbouring samples could not be aligned")
    transforms, confidence = chain, np.ones(len(chain), np.float32)
    for _ in range(_ROUNDS):
        canvas = put_together(shot, transforms, confidence, _LARGEST)
        if canvas is None:
            return Mosaic(None, f"the canvas would be over {_LARGEST:g} frames high or wide")
        aligner = FrameAligner(canvas.image, canvas.valid, shot.size)
        found = [aligner.align(image, start) for image, start in zip(shot.images, canvas.transforms, strict=True)]
        transforms = np.stack([alignment.transform for alignment in found])
        confidence = np.array([alignment.confidence for alignment in found], np.float32)
        if np.mean(confidence >= MIN_CONFIDENCE) < _MIN_ALIGNED:
            return Mosaic(None, f"{np.mean(confidence >= MIN_CONFIDENCE):.0%} of the samples fit the mosaic")
    canvas = put_together(shot, transforms, confidence, _LARGEST)
    if canvas is None:
        return Mosaic(None, f"the canvas would be over {_LARGEST:g} frames high or wide")
    reason = doubt(shot, canvas)
    # Few samples saw a pixel, and one in step with the pan hides it for most of them: no noise is better than theirs.
    still = replace(canvas, noise=np.zeros_like(canvas.noise))
    return Mosaic(None if reason else still, reason)


def doubt(shot: ShotSamples, canvas: Canvas) -> str:
    """Why a mosaic of these samples is not to be trusted; empty if it is."""
    sure = np.flatnonzero(canvas.confidence >= MIN_CONFIDENCE)
    if (typical := float(np.median(canvas.confidence))) < _MIN_FITS:
        return f"{typical:.0%} of the texture fits the mosaic"
    if (off := float(np.median([share_off(shot.images[i], canvas, canvas.transforms[i]) for i in sure]))) > _MOST_OFF:
        return f"{off:.0%} of a sample differs from the mosaic"
    shared, apart = halves_apart(shot, canvas)
    if shared < _MIN_SHARED:
        return "no part was seen in both halves of the shot"
    if apart > _MOST_APART:
        return f"the halves of the shot differ in {apart:.0%} of what both saw"
    return ""


def share_off(image: NDArray[np.uint8], canvas: Canvas, transform: _Floats) -> float:
    """Share in [0, 1] of a frame's pixels that are off from the mosaic, of those whose background is known."""
    known = np.asarray(view(canvas.valid.astype(np.uint8), transform, canvas.size) > 0)
    off = max_channel_difference(image, np.asarray(view(canvas.image, transform, canvas.size), np.uint8)) > _OFF
    return int(np.count_nonzero(off & known)) / max(1, int(np.count_nonzero(known)))


def halves_apart(shot: ShotSamples, canvas: Canvas) -> tuple[float, float]:
    """How much the mosaics of the first and of the second half of the shot share, in frames, and the share apart."""
    first = np.arange(len(shot.images)) < len(shot.images) // 2
    H, W = canvas.valid.shape
    pictures, known = [], []
    for half in (first, ~first):
        own = put_together(shot, canvas.transforms, np.where(half, canvas.confidence, 0).astype(np.float32), 9.0)
        if own is None:
            return 0.0, 1.0
        pictures.append(np.asarray(view(own.image, own.usual, (H, W)), np.uint8))
        known.append(_known(own, (H, W)))
    both = known[0] & known[1]
    first_picture, second = (np.asarray(cv2.medianBlur(picture, 3), np.uint8) for picture in pictures)
    apart = max_channel_difference(first_picture, second) > _OFF
    count = int(np.count_nonzero(both))
    return count / (canvas.size[0] * canvas.size[1]), int(np.count_nonzero(apart & both)) / max(1, count)


def _known(own: Canvas, size: tuple[int, int]) -> NDArray[np.bool_]:
    left, top = (round(float(x)) for x in -own.usual[:, 2])
    known = np.zeros(size, np.bool_)
    height, width = own.valid.shape
    part = own.valid[max(0, -top) : size[0] - top, max(0, -left) : size[1] - left]
    top, left = max(0, top), max(0, left)
    known[top : top + part.shape[0], left : left + part.shape[1]] = part
    return known


def chained(images: Sequence[NDArray[np.uint8]]) -> _Floats | None:
    """Where samples lie in the plane of the middle one, from neighbour to neighbour: float32 (S, 2, 3), or None."""
    middle = len(images) // 2
    places = [np.eye(3) for _ in images]
    for step, far in ((1, len(images)), (-1, -1)):
        for index in range(middle + step, far, step):
            found = between(images[index], images[index - step])
            if found.confidence < _MIN_LINK:
                return None
            own = np.eye(3)
            own[:2] = found.transform
            places[index] = places[index - step] @ own
    return np.array([place[:2] for place in places], np.float32)


def between(image: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> Alignment:
    """The map from a picture to its neighbour."""
    aligner = FrameAligner(neighbour)
    found = aligner.align(image)
    if found.confidence >= _MIN_FITS:
        return found
    by_features = _by_features(image, neighbour)
    if by_features is None:
        return found
    return max(found, aligner.align(image, by_features), key=lambda alignment: alignment.confidence)


def _by_features(image: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> _Floats | None:
    finder = cv2.ORB.create(_FEATURES, fastThreshold=8)
    (points, about), (others, about_others) = (
        finder.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None) for picture in (image, neighbour)
    )
    if about is None or about_others is None:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(about, about_others)
    if len(pairs) < 12:
        return None
    here = np.array([points[pair.queryIdx].pt for pair in pairs], np.float32)
    there = np.array([others[pair.trainIdx].pt for pair in pairs], np.float32)
    cv2.setRNGSeed(0)
    found, inliers = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=2.0)
    return None if found is None or np.count_nonzero(inliers) < 8 else np.asarray(found, np.float32)
