"""The background of a camera that moves: samples put together on a canvas.

A camera that shakes is stabilised from the shifts of its samples. The samples of a camera that pans are joined to a
mosaic, if that can be verified: a wrong background is worse than none, because every frame would be foreground there.

Letters: T frames, S samples, H, W pixels of a frame or of a canvas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.align import Alignment, FrameAligner, after, inverse, placed
from bgaug.background.image import MIN_CONFIDENCE, NOISE_STEP, Background, Canvas, quantise_noise, view
from bgaug.background.median import median_where
from bgaug.background.samples import ShotSamples, max_channel_difference
from bgaug.sizing import Size

_Image = NDArray[np.uint8]
_Floats = NDArray[np.float32]
_Bools = NDArray[np.bool_]

_MIN_SEEN = 3  # samples that must have seen a pixel before their median counts as background
_MIN_FOR_NOISE = 12  # pairs of samples; with fewer, passing bodies look like noise
_MIN_STEADY, _STEADY_ROUNDS = 0.5, 2  # share of aligned samples; rounds of background and alignment in turn

_MIN_SAMPLES = 9  # of a mosaic: with fewer, its halves cannot check each other
_MOSAIC_ROUNDS = 3  # of mosaic and alignment in turn, after the chain from neighbour to neighbour
_LARGEST = 2.0  # height and width of a mosaic, in those of a frame
_MIN_ALIGNED = 0.8  # of the samples
_MIN_FITS = 0.75  # median confidence; by chance it is a half or less
_MOST_OFF, _OFF = 0.15, 26  # share of a sample that may differ, and from how many grey levels on it does
_MOST_APART = 0.03  # of the pixels that both halves of the shot saw
_MIN_SHARED = 0.2  # of a frame must have been seen in both halves
_MIN_LINK = 0.35  # confidence of neighbours, which both show what moves; later checks find a wrong link
_FEATURES = 500


def stabilise_samples(shot: ShotSamples, shifts: _Floats) -> Canvas | None:
    """The background of a camera that shakes, at the place where it mostly was.

    The samples, moved back by their shifts, give a first median. Each sample is aligned to it to fractions of a pixel,
    which gives a sharper median, and so on. The canvas reaches as far beyond a frame as the samples do.

    Args:
        shot: the samples.
        shifts: float32 (S, 2), as `bgaug.shots.cuts.Camera.shifts`; NaN where not found.

    Returns:
        None if fewer than three samples, or fewer than half of them, could be aligned.
    """
    transforms = np.tile(np.eye(2, 3, dtype=np.float32), (len(shot.images), 1, 1))
    transforms[:, :, 2] = -np.nan_to_num(shifts)
    confidence = np.asarray(np.isfinite(shifts).all(1), np.float32)
    for _ in range(_STEADY_ROUNDS):
        canvas = put_together(shot, _centred(transforms, confidence), confidence)
        if canvas is None:
            return None
        transforms, confidence = _aligned(shot, canvas)
        if np.mean(confidence >= MIN_CONFIDENCE) < _MIN_STEADY:
            return None
    return put_together(shot, _centred(transforms, confidence), confidence)


def mosaic_samples(shot: ShotSamples) -> Canvas | None:
    """Join the samples of a camera that pans, if the result can be verified.

    Each sample is aligned to its neighbour, first by features (ORB, an affine map by RANSAC), then by `FrameAligner`.
    Chained from the middle sample, they give a first median, to which each sample is aligned again. A moving body is in
    the median of a pixel only if it covers it for half of the time that the pixel is in view, which a pan keeps short.

    Returns:
        None for too few samples, a chain that breaks, a canvas of over twice a frame's height or width, too many
        samples that do not fit or differ in more than 15 %, and halves of the shot whose mosaics differ where both saw
        the same. So zooms, cameras that walk (parallax needs more than one affine map), and shots that are mostly
        foreground have none. The noise of the canvas is 0: few samples saw each pixel, so it could not be measured.
    """
    chain = _chained(shot.images) if len(shot.images) >= _MIN_SAMPLES else None
    if chain is None:
        return None
    transforms, confidence = chain, np.ones(len(chain), np.float32)
    for _ in range(_MOSAIC_ROUNDS):
        canvas = put_together(shot, transforms, confidence, _LARGEST)
        if canvas is None:
            return None
        transforms, confidence = _aligned(shot, canvas)
        if np.mean(confidence >= MIN_CONFIDENCE) < _MIN_ALIGNED:
            return None
    canvas = put_together(shot, transforms, confidence, _LARGEST)
    if canvas is None or not _is_sound(shot, canvas):
        return None
    return replace(canvas, noise=np.zeros_like(canvas.noise))


def _aligned(shot: ShotSamples, canvas: Canvas) -> tuple[_Floats, _Floats]:
    """Transforms of the samples, float32 (S, 2, 3), and their confidence, float32 (S,)."""
    aligner = FrameAligner(canvas.image, canvas.valid, shot.size)
    found = [aligner.align(image, start) for image, start in zip(shot.images, canvas.transforms, strict=True)]
    confidence = np.array([alignment.confidence for alignment in found], np.float32)
    return np.stack([alignment.transform for alignment in found]), confidence


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
        most: largest height and width of the canvas, in those of a frame.

    Returns:
        None if fewer than three samples are sure, or the canvas would be larger.
    """
    sure = np.flatnonzero(confidence >= MIN_CONFIDENCE)
    if len(sure) < _MIN_SEEN:
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
    valid = np.asarray(np.sum(seen, axis=0, dtype=np.uint16) >= _MIN_SEEN)
    usual = np.eye(2, 3, dtype=np.float32)
    usual[:, 2] = -least
    noise = _noise_between(images, seen)
    return Canvas(_filled(image, valid), noise, valid, placed, confidence, usual, shot.indices, shot.size)


def _on_canvas(images: Sequence[_Image], transforms: _Floats, size: Size) -> tuple[list[_Image], list[_Bools]]:
    """Samples on the canvas, 255 where they do not reach, and where they do."""
    height, width = images[0].shape[:2]
    whole = np.full((height, width), 255, np.uint8)
    placed, seen = [], []
    for image, transform in zip(images, transforms, strict=True):
        # Cubic: medians of linearly interpolated images are blurred.
        there = cv2.warpAffine(image, transform, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        reach = cv2.warpAffine(whole, transform, size[::-1], flags=cv2.INTER_LINEAR) > 250
        there[~reach] = 255
        placed.append(np.asarray(there, np.uint8))
        seen.append(np.asarray(reach))
    return placed, seen


def _noise_between(images: Sequence[_Image], seen: Sequence[_Bools]) -> _Floats:
    """Noise on the canvas, see `Background.noise`, from each sample to the next."""
    both = [a & b for a, b in pairwise(seen)]
    changes = [max_channel_difference(a, b) for a, b in pairwise(images)]
    for change, known in zip(changes, both, strict=True):
        change[~known] = 255
    noise = median_where(changes, both).astype(np.float32) / np.float32(np.sqrt(2))
    noise[np.sum(both, axis=0, dtype=np.uint16) < _MIN_FOR_NOISE] = 0
    return quantise_noise(noise).astype(np.float32) * np.float32(NOISE_STEP)


def _filled(image: _Image, valid: _Bools) -> _Image:
    """The image with the nearest valid pixel where nothing is known."""
    if valid.all() or not valid.any():
        return image
    unknown = np.asarray(~valid, np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[valid]] = image[valid]
    return np.where(valid[..., None], image, colours[nearest])


def align_frames(canvas: Canvas, frames: Iterable[_Image]) -> Canvas:
    """The canvas with the places of all frames of its shot instead of the samples'.

    Args:
        canvas: of samples of the shot.
        frames: T of uint8 (H, W, 3), RGB, in order; an array or one at a time.
    """
    aligner = FrameAligner(canvas.image, canvas.valid, canvas.size)
    found = [placed(aligner, image, canvas.guess(index)) for index, image in enumerate(frames)]
    return replace(
        canvas,
        transforms=np.array([alignment.transform for alignment in found], np.float32).reshape(-1, 2, 3),
        confidence=np.array([alignment.confidence for alignment in found], np.float32),
        indices=np.arange(len(found)),
    )


def steadied(shot: ShotSamples, canvas: Canvas) -> ShotSamples:
    """The samples that could be aligned, each moved to where the usual frame would have seen it."""
    sure = np.flatnonzero(canvas.confidence >= MIN_CONFIDENCE)
    back = [after(canvas.transforms[i], inverse(canvas.usual)) for i in sure]
    images = [
        np.asarray(cv2.warpAffine(shot.images[i], move, shot.size[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
        for i, move in zip(sure, back, strict=True)
    ]
    # The changes between frames come from the camera; between the moved samples only those of the scene remain.
    changes = [max_channel_difference(a, b) for a, b in pairwise(images)]
    noise = view(canvas.noise, canvas.usual, canvas.size)
    return ShotSamples(images, [*changes, changes[-1]], shot.indices[sure], shot.num_frames, noise)


def painted(canvas: Canvas, usual: Background, where: _Bools) -> Canvas:
    """The canvas with a part, bool (H, W), of a background of its usual frame painted over it."""
    size = (canvas.image.shape[1], canvas.image.shape[0])
    image = cv2.warpAffine(usual.image, canvas.usual, size, borderMode=cv2.BORDER_REPLICATE)
    part, known = (cv2.warpAffine(layer.astype(np.uint8), canvas.usual, size) > 0 for layer in (where, usual.valid))
    return replace(
        canvas,
        image=np.where(part[..., None], image, canvas.image).astype(np.uint8),
        valid=canvas.valid & (known | ~part),
    )


def _is_sound(shot: ShotSamples, canvas: Canvas) -> bool:
    """Whether a mosaic can be trusted: the samples fit it, and so do mosaics of its halves."""
    sure = np.flatnonzero(canvas.confidence >= MIN_CONFIDENCE)
    if float(np.median(canvas.confidence)) < _MIN_FITS:
        return False
    if float(np.median([_share_off(shot.images[i], canvas, int(i)) for i in sure])) > _MOST_OFF:
        return False
    shared, apart = _halves_apart(shot, canvas)
    return shared >= _MIN_SHARED and apart <= _MOST_APART


def _share_off(image: _Image, canvas: Canvas, place: int) -> float:
    """Share in [0, 1] of a sample's pixels that differ from the mosaic, of those whose background is known."""
    known = np.asarray(canvas.layer_at(canvas.valid.astype(np.uint8), place) > 0)
    off = max_channel_difference(image, canvas.layer_at(canvas.image, place)) > _OFF
    return int(np.count_nonzero(off & known)) / max(1, int(np.count_nonzero(known)))


def _halves_apart(shot: ShotSamples, canvas: Canvas) -> tuple[float, float]:
    """What the mosaics of both halves of the shot share, in frames, and the share of that in which they differ."""
    first = np.arange(len(shot.images)) < len(shot.images) // 2
    size = canvas.valid.shape[0], canvas.valid.shape[1]
    images, known = [], []
    for half in (first, ~first):
        own = put_together(shot, canvas.transforms, np.where(half, canvas.confidence, 0).astype(np.float32), 9.0)
        if own is None:
            return 0.0, 1.0
        images.append(view(own.image, own.usual, size))
        known.append(_known(own, size))
    both = known[0] & known[1]
    one, other = (np.asarray(cv2.medianBlur(image, 3), np.uint8) for image in images)
    apart = max_channel_difference(one, other) > _OFF
    count = int(np.count_nonzero(both))
    return count / (canvas.size[0] * canvas.size[1]), int(np.count_nonzero(apart & both)) / max(1, count)


def _known(own: Canvas, size: Size) -> _Bools:
    left, top = (round(float(x)) for x in -own.usual[:, 2])
    known = np.zeros(size, np.bool_)
    part = own.valid[max(0, -top) : size[0] - top, max(0, -left) : size[1] - left]
    top, left = max(0, top), max(0, left)
    known[top : top + part.shape[0], left : left + part.shape[1]] = part
    return known


def _chained(images: Sequence[_Image]) -> _Floats | None:
    """Places of samples in the plane of the middle one, from neighbour to neighbour: float32 (S, 2, 3), or None."""
    middle = len(images) // 2
    places = [np.eye(3) for _ in images]
    for step, far in ((1, len(images)), (-1, -1)):
        for index in range(middle + step, far, step):
            found = _between(images[index], images[index - step])
            if found.confidence < _MIN_LINK:
                return None
            own = np.eye(3)
            own[:2] = found.transform
            places[index] = places[index - step] @ own
    return np.array([place[:2] for place in places], np.float32)


def _between(image: _Image, neighbour: _Image) -> Alignment:
    """The map from an image to its neighbour."""
    aligner = FrameAligner(neighbour)
    found = aligner.align(image)
    if found.confidence >= _MIN_FITS:
        return found
    by_features = _by_features(image, neighbour)
    if by_features is None:
        return found
    return max(found, aligner.align(image, by_features), key=lambda alignment: alignment.confidence)


def _by_features(image: _Image, neighbour: _Image) -> _Floats | None:
    finder = cv2.ORB.create(_FEATURES, fastThreshold=8)
    (points, about), (others, about_others) = (
        finder.detectAndCompute(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), None) for one in (image, neighbour)
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
