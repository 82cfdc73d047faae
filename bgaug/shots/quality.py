"""The quality of a shot's background and masks, predicted without ground truth.

The score predicts the F1 of the masks. It is a product of terms that are 1 where their signal is ideal:

- *edges*: the outline of a mask should be an edge in the frame and none in the background. A person left in the
  background, a ghost, reverses that. This is the strongest term.
- *unsure*: differences just below the threshold: faint bodies, noise, a trembling camera.
- *frozen*: outlines at which nothing ever changes belong to errors of the background, not to bodies.
- *area*, *unseen* and the camera.

Signals that did not help in addition: flicker of the area or of the masks between samples, number and roundness of the
components, medians of the two halves of the shot, how often each pixel shows the background, how long masks stay, and
how much of the motion they cover.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, ShotSamples, evenly_spaced, max_channel_difference
from bgaug.masks import frame_mask, threshold_map
from bgaug.masks.light import lit_as
from bgaug.shots.cuts import Camera
from bgaug.sizing import Size, working_size

GRADES = {"A": 0.9, "B": 0.8, "C": 0.65, "D": 0.5, "E": 0.35, "F": 0.0}
"""Least score of each grade. Of real shots with an F1 below .5 none is C or better."""

_NOTHING_MOVES = 0.7  # score if nothing moves and all masks are empty: a correct background, but no foreground
_SAMPLES, _SIDE = 11, 120
_NEAR = 11  # pixels: side of the square whose mean contrast is the reference
_MOVES = 12  # grey levels to the second next frame, or three times the noise
_CHANGES = 24  # grey levels between the highest and the lowest value of all samples
_FAINT, _CLEAR = 0.6, 26  # unsure: differences of that share of the threshold and more, and of these grey levels
_OFFSET = 40.0  # grey levels times pixels: masks of a few pixels carry no information
_NOTHING = 0.0005  # of the image

# Least squares over 36 real and 32 generated shots, with backgrounds of all four methods, rounded.
_EDGES_HALF, _EDGES_WIDTH = 0.0, 0.16
_UNSURE, _UNSEEN = 0.5, 0.2  # largest loss
_FROZEN_HALF, _AREA_HALF, _WIDTH = 0.57, 0.6, 0.07
_CAMERA = {"jitter": 0.95, "moving": 0.5}

# Least squares of the true F1 on the expected IoU of masks from motion, over 140 clips of JHMDB and six of DAVIS.
_MOTION_OFFSET, _MOTION_SLOPE = 0.27, 0.83
_MOST_APART = 0.4  # share at which the backgrounds of a moving camera count as wrong

_MENTIONED = {"edges": 0.9, "frozen": 0.9, "unsure": 0.9}
_MENTIONED_ELSE = 0.97  # terms below these are given as reasons
_GHOST = 0.12  # of the edges along the masks; correct masks before a textured background have .1

_Bytes = NDArray[np.uint8]
_NEXT = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Quality:
    """Predicted quality of a background and its masks.

    Attributes:
        grade: "A" to "F", see `GRADES`.
        score: predicted F1 of the masks, in [0, 1].
        reasons: what lowered the score, the worst first; empty if nothing did.
        signals: measurements. In [0, 1]: "area", median share of the image that masks cover; "ghost", share of the
            contrast along their outlines that lies in the background; "unsure", share of the differences to the
            background that are too faint to decide; "frozen", share of the outlines at which nothing ever changes;
            "unseen", share of the background never seen; "moving", share of the image that moves. "edges": contrast
            along the outlines in the frames minus that in the background, relative to that around; .4 and more for
            clean masks, 0 where both are equal. "noise": median over the image, grey levels.
    """

    grade: str
    score: float
    reasons: tuple[str, ...]
    signals: dict[str, float]


def grade_shot(shot: ShotSamples, background: Background, camera: Camera | None = None) -> Quality:
    """Grade of a background and of its masks, from 11 samples at a short side of 120 pixels.

    A prediction, not a measurement: it ranks backgrounds of real shots well, but single scores are off by .1 and more.
    Limits: people who never move and shadows in the masks are not detected, and correct masks score low in scenes with
    many edges.

    Args:
        shot: the samples that the background was estimated from.
        background: of that shot, at the size of the samples.
        camera: motion of the camera; None where it was not examined.

    Raises:
        ValueError: the background has another size than the samples.
    """
    if background.image.shape != shot.images[0].shape:
        raise ValueError(
            f"the background must have the samples' size {shot.images[0].shape}, got {background.image.shape = }"
        )
    signals, is_empty = _measure(shot, background)
    verdict = "static" if camera is None else camera.verdict
    terms = {"camera": _CAMERA.get(verdict, 1.0), "unseen": 1 - _UNSEEN * signals["unseen"]}
    if is_empty:
        terms["nothing"] = _NOTHING_MOVES
    else:
        terms |= _terms(signals)
    score = float(np.prod(list(terms.values())))
    worst_first = sorted(terms, key=terms.__getitem__)
    mentioned = [name for name in worst_first if terms[name] < _MENTIONED.get(name, _MENTIONED_ELSE)]
    return Quality(_grade(score), score, tuple(_reason(name, signals, verdict) for name in mentioned), signals)


def grade_by_motion(expected_iou: float, apart: float, unseen: float, camera: str) -> Quality:
    """Grade of masks from motion and of the backgrounds that were made with them.

    Args:
        expected_iou: in [0, 1], mean expected IoU of the masks; see `bgaug.masks.motion.MotionMasks`.
        apart: in [0, 1], share of the pixels outside masks at which frames that were aligned differ.
        unseen: in [0, 1], share of the backgrounds that no frame saw.
        camera: verdict on the camera.
    """
    masks = min(1.0, max(0.0, _MOTION_OFFSET + _MOTION_SLOPE * expected_iou))
    terms = {"masks": masks, "apart": 1 - min(1.0, apart / _MOST_APART) / 2, "unseen": 1 - _UNSEEN * unseen}
    score = float(np.prod(list(terms.values())))
    moves = {"jitter": ", and the camera shakes", "moving": ", and the camera moves"}.get(camera, "")
    reasons = [f"no static background is right{moves}: the masks come from motion (expected IoU {expected_iou:.2f})"]
    if terms["apart"] < _MENTIONED_ELSE:
        reasons.append(f"{100 * apart:.0f} % of the background differs between frames that were aligned")
    if terms["unseen"] < _MENTIONED_ELSE:
        reasons.append(f"{100 * unseen:.0f} % of the background was never seen")
    signals = {"expected_iou": expected_iou, "apart": apart, "unseen": unseen}
    return Quality(_grade(score), score, tuple(reasons), signals)


def _grade(score: float) -> str:
    return next(grade for grade, least in GRADES.items() if score >= least)


def _terms(signals: dict[str, float]) -> dict[str, float]:
    """Factor of the score for each signal, in [0, 1]."""
    return {
        "edges": _step((signals["edges"] - _EDGES_HALF) / _EDGES_WIDTH),
        "frozen": _step((_FROZEN_HALF - signals["frozen"]) / _WIDTH),
        "area": _step((_AREA_HALF - signals["area"]) / _WIDTH),
        "unsure": 1 - _UNSURE * signals["unsure"],
    }


def _step(distance: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, distance))))


def _reason(name: str, signals: dict[str, float], verdict: str) -> str:
    ghost = f"{100 * signals['ghost']:.0f} % of the edges along the masks are the background's: it may hold a ghost"
    faint = f"the masks' outlines hardly stand out ({signals['edges']:.2f}; those of clean masks by 0.4 and more)"
    sentences = {
        "edges": ghost if signals["ghost"] >= _GHOST else faint,
        "nothing": "nothing moves: the masks are empty",
        "camera": "the camera shakes" if verdict == "jitter" else "the camera moves",
        "area": f"masks cover {100 * signals['area']:.0f} % of the picture",
        "frozen": f"{100 * signals['frozen']:.0f} % of the masks' outlines never change",
        "unsure": f"{100 * signals['unsure']:.0f} % of what differs from the background is too faint to be called",
        "unseen": f"{100 * signals['unseen']:.0f} % of the background was never seen",
    }
    return sentences[name]


@dataclass(frozen=True)
class _Comparison:
    """One sample (H, W, 3) next to the background (H, W, 3), and its change (H, W), all at the working size."""

    image: _Bytes
    background: _Bytes
    contrast_behind: tuple[_Bytes, _Bytes]
    change: _Bytes


@dataclass(frozen=True)
class _Levels:
    """Differences in grey levels, uint8 (H, W), above which a pixel is in a mask, is clear, is faint, or moves."""

    threshold: _Bytes
    clear: _Bytes
    faint: _Bytes
    moves: _Bytes

    @classmethod
    def of(cls, noise: NDArray[np.float32]) -> _Levels:
        threshold = threshold_map(noise)
        clear = np.maximum(threshold, np.uint8(_CLEAR))
        faint = (np.float32(_FAINT) * clear).astype(np.uint8)
        return cls(threshold, clear, faint, np.clip(np.rint(3 * noise), _MOVES, 255).astype(np.uint8))


def _comparisons(shot: ShotSamples, background: Background, size: Size) -> Iterator[_Comparison]:
    behind = _small(background.image, size)
    contrast = _contrast(behind)
    for i in evenly_spaced(len(shot.images), _SAMPLES):
        yield _Comparison(_small(shot.images[i], size), behind, contrast, _small(shot.changes[i], size))


def _small(image: Any, size: Size) -> Any:
    """An image (H, W, ...) at the working size."""
    height, width = size
    if image.shape[:2] == size:
        return image
    if image.shape[:2] != (2 * height, 2 * width):
        # Twice the size first: averaging 2x2 blocks is several times faster than an area filter by other factors.
        image = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


class _Counts(NamedTuple):
    """Counts of pixels, and contrast summed over the pixels of the outline, of one sample or of all."""

    mask: float
    faint: float
    outline: float
    frozen: float
    frame_edge: float
    frame_near: float
    behind_edge: float
    behind_near: float
    moving: float


def _measure(shot: ShotSamples, background: Background) -> tuple[dict[str, float], bool]:
    """The signals, and whether nothing moves."""
    size = working_size(shot.size, _SIDE)
    noise = np.asarray(_small(background.noise, size), np.float32)
    levels = _Levels.of(noise)
    looks = list(_comparisons(shot, background, size))
    frozen = _unchanging([look.image for look in looks])
    counts = [_count(look, levels, frozen) for look in looks]
    total = _Counts(*np.sum(counts, axis=0).tolist())
    least = _NOTHING * noise.size * len(looks)
    here, there = total.frame_edge - total.frame_near, total.behind_edge - total.behind_near
    signals = {
        "area": float(np.median([count.mask for count in counts])) / noise.size,
        "edges": (here - there) / (total.frame_near + total.behind_near + 2 * _OFFSET),
        "ghost": max(0.0, there) / (max(0.0, here) + max(0.0, there) + 2 * _OFFSET),
        "unsure": total.faint / (total.faint + total.mask + 1),
        "frozen": total.frozen / max(1.0, total.outline),
        "unseen": float(1 - background.valid.mean()),
        "moving": total.moving / (noise.size * len(looks)),
        "noise": float(np.median(noise)),
    }
    return signals, total.mask < least and total.moving < least


def _count(look: _Comparison, levels: _Levels, frozen: _Bytes) -> _Counts:
    mask = frame_mask(look.image, look.background, levels.threshold).view(np.uint8)
    area, faint = cv2.countNonZero(mask), _num_faint(look, levels)
    moving = cv2.countNonZero(
        cv2.morphologyEx(cv2.compare(look.change, levels.moves, cv2.CMP_GT), cv2.MORPH_OPEN, _NEXT)
    )
    rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _NEXT)
    rim[[0, -1]] = 0  # the border of the image is no outline of a mask
    rim[:, [0, -1]] = 0
    outline = cv2.countNonZero(rim)
    if outline == 0:
        return _Counts(area, faint, 0, 0, 0, 0, 0, 0, moving)
    layers = (frozen, *_contrast(look.image), *look.contrast_behind)
    still, edge, near, edge_behind, near_behind = (outline * cv2.mean(layer, rim)[0] for layer in layers)
    return _Counts(area, faint, outline, still, edge, near, edge_behind, near_behind, moving)


def _unchanging(images: list[_Bytes]) -> _Bytes:
    """1 where a pixel keeps its colour over all samples, uint8 (H, W)."""
    low, high = images[0], images[0]
    for image in images[1:]:
        low, high = np.minimum(low, image), np.maximum(high, image)
    return np.asarray(max_channel_difference(high, low) <= _CHANGES, np.bool_).view(np.uint8)


def _contrast(image: _Bytes) -> tuple[_Bytes, _Bytes]:
    """Range of each pixel's 3x3 neighbourhood, largest channel, and the mean of that nearby: uint8 (H, W) each."""
    red, green, blue = cv2.split(cv2.morphologyEx(image, cv2.MORPH_GRADIENT, _NEXT))
    edge = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
    return edge, np.asarray(cv2.blur(edge, (_NEAR, _NEAR)), np.uint8)


def _num_faint(look: _Comparison, levels: _Levels) -> int:
    """Pixels that differ from the background, in the frame's light, but not clearly."""
    difference = max_channel_difference(look.image, lit_as(look.image, look.background))
    clear = cv2.countNonZero(cv2.compare(difference, levels.clear, cv2.CMP_GT))
    return int(cv2.countNonZero(cv2.compare(difference, levels.faint, cv2.CMP_GT)) - clear)
