"""The background of a camera that shakes.

Letters: T frames, S samples, H, W pixels of a frame or of a canvas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.align import MIN_CONFIDENCE, FrameAligner, after, inverse, placed
from bgaug.background.image import NOISE_STEP, Background, Plane, quantise_noise, view
from bgaug.background.median import median_where
from bgaug.background.samples import ShotSamples, max_channel_difference
from bgaug.sizing import Size

_Image = NDArray[np.uint8]
_Floats = NDArray[np.float32]

MIN_SEEN = 3
"""Samples that must have seen a pixel for its median to be held for background."""

_MIN_SHARE = 0.5  # of the samples must be aligned
_MIN_FOR_NOISE = 12  # pairs of samples; over fewer, what passes is taken for noise
_ROUNDS = 2  # of background and alignment in turn


@dataclass(frozen=True)
class Canvas:
    """A background put together from samples of a camera that moved.

    Attributes:
        image: uint8 (H, W, 3), RGB; may be larger than a frame.
        noise: float32 (H, W), grey levels, as `Background.noise`, between samples that were aligned.
        valid: bool (H, W), where at least `MIN_SEEN` samples saw it.
        transforms: float32 (S, 2, 3), sample to canvas.
        confidence: float32 (S,), see `Alignment`; samples below `MIN_CONFIDENCE` have no part in the picture.
        usual: float32 (2, 3), to the canvas from the plane that the samples were given in: from the usual frame of a
            camera that shakes.
        indices: int64 (S,), frame numbers of the samples.
        size: (height, width) of a frame.
    """

    image: _Image
    noise: _Floats
    valid: NDArray[np.bool_]
    transforms: _Floats
    confidence: _Floats
    usual: _Floats
    indices: NDArray[np.int64]
    size: Size

    def guess(self, frame: int) -> _Floats:
        """The transform of a frame between those of the samples around it, float32 (2, 3)."""
        sure = self.confidence >= MIN_CONFIDENCE
        known = self.transforms[sure].reshape(-1, 6)
        between = [np.interp(frame, self.indices[sure], column) for column in known.T]
        return np.array(between, np.float32).reshape(2, 3)


def stabilise_samples(shot: ShotSamples, shifts: _Floats) -> Canvas | None:
    """The background of a camera that shakes, at the place where it mostly was.

    The samples, moved back by their shifts, give a first median; each is aligned to that to fractions of a pixel, which
    gives a sharper one, and so on. The canvas reaches as far beyond a frame as the samples do.

    Args:
        shot: the samples.
        shifts: float32 (S, 2), as `bgaug.shots.cuts.Camera.shifts`; NaN where not found.

    Returns:
        None where fewer than `MIN_SEEN` samples, or half of them, could be aligned.
    """
    transforms = np.tile(np.eye(2, 3, dtype=np.float32), (len(shot.images), 1, 1))
    transforms[:, :, 2] = -np.nan_to_num(shifts)
    confidence = np.asarray(np.isfinite(shifts).all(1), np.float32)
    for _ in range(_ROUNDS):
        canvas = put_together(shot, _centred(transforms, confidence), confidence)
        if canvas is None:
            return None
        aligner = FrameAligner(canvas.image, canvas.valid, shot.size)
        found = [aligner.align(image, start) for image, start in zip(shot.images, canvas.transforms, strict=True)]
        transforms = np.stack([alignment.transform for alignment in found])
        confidence = np.array([alignment.confidence for alignment in found], np.float32)
        if np.mean(confidence >= MIN_CONFIDENCE) < _MIN_SHARE:
            return None
    return put_together(shot, _centred(transforms, confidence), confidence)


def _centred(transforms: _Floats, confidence: _Floats) -> _Floats:
    """Transforms into the plane of the usual frame, whose own becomes the identity, float32 (S, 2, 3)."""
    sure = confidence >= MIN_CONFIDENCE
    if not sure.any():
        return transforms
    back = inverse(np.median(transforms[sure], axis=0))
    return np.stack([after(transform, back) for transform in transforms])


def put_together(shot: ShotSamples, transforms: _Floats, confidence: _Floats, most: float = 2.0) -> Canvas | None:
    """The canvas of samples whose places are known.

    Args:
        shot: the samples.
        transforms: float32 (S, 2, 3), sample to any common plane.
        confidence: float32 (S,); samples below `MIN_CONFIDENCE` are left out.
        most: height and width of the canvas, in those of a frame, above which there is none.
    """
    sure = np.flatnonzero(confidence >= MIN_CONFIDENCE)
    if len(sure) < MIN_SEEN:
        return None
    height, width = shot.size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], np.float32)
    reach = transforms[sure] @ corners.T  # (S, 2, 4)
    least, largest = np.floor(reach.min((0, 2)) + 1e-3), np.ceil(reach.max((0, 2)) - 1e-3)
    canvas_width, canvas_height = (largest - least + 1).astype(int)
    if canvas_width > most * width or canvas_height > most * height:
        return None
    placed = transforms.copy()
    placed[:, :, 2] -= least
    size = (int(canvas_height), int(canvas_width))
    images, seen = _on_canvas([shot.images[i] for i in sure], placed[sure], size)
    image = median_where(images, seen)
    valid = np.asarray(np.sum(seen, axis=0, dtype=np.uint16) >= MIN_SEEN)
    usual = np.eye(2, 3, dtype=np.float32)
    usual[:, 2] = -least
    noise = _noise_between(images, seen)
    return Canvas(_filled(image, valid), noise, valid, placed, confidence, usual, shot.indices, shot.size)


def _on_canvas(
    images: Sequence[_Image], transforms: _Floats, size: Size
) -> tuple[list[_Image], list[NDArray[np.bool_]]]:
    """Samples on the canvas, 255 where they do not reach, and where they do."""
    height, width = images[0].shape[:2]
    whole = np.full((height, width), 255, np.uint8)
    placed, seen = [], []
    for image, transform in zip(images, transforms, strict=True):
        # Cubic: medians of linearly interpolated pictures are blurred.
        there = cv2.warpAffine(image, transform, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        reach = cv2.warpAffine(whole, transform, size[::-1], flags=cv2.INTER_LINEAR) > 250
        there[~reach] = 255
        placed.append(np.asarray(there, np.uint8))
        seen.append(np.asarray(reach))
    return placed, seen


def _noise_between(images: Sequence[_Image], seen: Sequence[NDArray[np.bool_]]) -> _Floats:
    """Noise on the canvas from each sample to the next; `Background.noise` says what it is."""
    both = [a & b for a, b in pairwise(seen)]
    changes = [max_channel_difference(a, b) for a, b in pairwise(images)]
    for change, known in zip(changes, both, strict=True):
        change[~known] = 255
    noise = median_where(changes, both).astype(np.float32) / np.float32(np.sqrt(2))
    noise[np.sum(both, axis=0, dtype=np.uint16) < _MIN_FOR_NOISE] = 0
    return quantise_noise(noise).astype(np.float32) * np.float32(NOISE_STEP)


def _filled(image: _Image, valid: NDArray[np.bool_]) -> _Image:
    """Where nothing is known: what is nearest."""
    if valid.all() or not valid.any():
        return image
    unknown = np.asarray(~valid, np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[valid]] = image[valid]
    return np.where(valid[..., None], image, colours[nearest])


def background_on(canvas: Canvas, frames: Iterable[_Image], still: tuple[_Image, _Floats] | None = None) -> Background:
    """A canvas as the background of a shot, and where each frame lies in it.

    Args:
        canvas: of samples of the shot.
        frames: T of uint8 (H, W, 3), RGB, all of the shot's, in order; an array or one at a time.
        still: picture and noise to give for the usual frame, instead of what it sees of the canvas.
    """
    transforms, _ = align_frames(frames, canvas)
    image, noise = still or (
        view(canvas.image, canvas.usual, canvas.size),
        view(canvas.noise, canvas.usual, canvas.size),
    )
    valid = view(canvas.valid, canvas.usual, canvas.size)
    return Background(image, noise, valid, transforms, Plane(canvas.image, canvas.noise, canvas.valid))


def steadied(shot: ShotSamples, canvas: Canvas) -> ShotSamples:
    """The samples that could be aligned, each moved to where the usual frame would have seen it."""
    sure = np.flatnonzero(canvas.confidence >= MIN_CONFIDENCE)
    back = [after(canvas.transforms[i], inverse(canvas.usual)) for i in sure]
    images = [
        np.asarray(cv2.warpAffine(shot.images[i], move, shot.size[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
        for i, move in zip(sure, back, strict=True)
    ]
    # The changes between frames were those of the camera; what is left of them lies between samples.
    changes = [max_channel_difference(a, b) for a, b in pairwise(images)]
    noise = view(canvas.noise, canvas.usual, canvas.size)
    return ShotSamples(images, [*changes, changes[-1]], shot.indices[sure], shot.num_frames, noise)


def painted(canvas: Canvas, usual: Background, where: NDArray[np.bool_]) -> Canvas:
    """The canvas with what a picture of its usual frame shows in a part of it, bool (H, W)."""
    size = (canvas.image.shape[1], canvas.image.shape[0])
    image = cv2.warpAffine(usual.image, canvas.usual, size, borderMode=cv2.BORDER_REPLICATE)
    part, known = (cv2.warpAffine(layer.astype(np.uint8), canvas.usual, size) > 0 for layer in (where, usual.valid))
    return replace(
        canvas,
        image=np.where(part[..., None], image, canvas.image).astype(np.uint8),
        valid=canvas.valid & (known | ~part),
    )


def align_frames(frames: Iterable[_Image], canvas: Canvas) -> tuple[_Floats, _Floats]:
    """Transforms of frames in order, float32 (T, 2, 3), and their confidence, float32 (T,)."""
    aligner = FrameAligner(canvas.image, canvas.valid, canvas.size)
    transforms, confidence = [], []
    for index, image in enumerate(frames):
        found = placed(aligner, image, canvas.guess(index))
        transforms.append(found.transform)
        confidence.append(found.confidence)
    return np.array(transforms, np.float32).reshape(-1, 2, 3), np.array(confidence, np.float32)
