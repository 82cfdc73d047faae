"""The background of a shot by the method that the evidence favours, region by region.

Two candidate backgrounds mostly agree. Where they differ, each connected region is judged by itself: one of them shows
a body or a blur there, and the other the ground. Two kinds of evidence identify the wrong one:

- its *seam*: the outline of the region is the outline of a body in the wrong image, and no edge in the other;
- *motion while it shows*: a body moves while its colours show, the ground does not.

Letters: S samples, H, W pixels, N pixels of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.few import FEW_SAMPLES, consensus
from bgaug.background.median import median_where
from bgaug.background.methods import patches_background
from bgaug.background.plate import active_region, plate_from, ring_error
from bgaug.background.relit import is_relit
from bgaug.background.samples import ShotSamples

_SHOWN = 20  # grey levels: a sample shows an image where no channel differs by more
_DIFFERENT = 20  # grey levels, after a 3x3 blur
_MIN_REGION = 30  # pixels; smaller ones change no mask
_MOVES = 10  # grey levels to the second next frame; noise of compressed video has 3 to 6
_MAX_PIXELS = 1500  # of a region that are compared
_SEAM_OFFSET = 2.0  # grey levels per pixel: gradients of noise carry no information
_SHARE_OFFSET = 0.02
_PRIOR = 0.02  # of the samples
_PARTS = 6  # of the height and of the width
_EDGE, _SWAYS = 20, 18  # grey levels per pixel; grey levels between the 10th and 90th percentile


@dataclass(frozen=True)
class Shown:
    """What the samples show of an image in one region.

    Attributes:
        seam: mean gradient along the outline of the region, grey levels per pixel.
        moving: share in [0, 1] of the samples showing it that move.
        support: share in [0, 1] of all samples that show it.
    """

    seam: float
    moving: float
    support: float


def regions(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    """Connected regions, bool (H, W), in which two images differ."""
    differs = cv2.absdiff(cv2.blur(one, (3, 3)), cv2.blur(other, (3, 3))).max(2) > _DIFFERENT
    opened = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] >= _MIN_REGION:
            yield labels == label


def gradient(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Largest gradient of the three channels, float32 (H, W), grey levels per pixel."""
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.asarray(np.sqrt(np.square(across) + np.square(down)).max(2) / 4, np.float32)


def outline(region: NDArray[np.bool_], reach: int = 1) -> NDArray[np.bool_]:
    """Pixels within `reach` of the rim of a region, bool (H, W), without the border of the image."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    rim = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    rim[[0, -1]] = False
    rim[:, [0, -1]] = False
    return rim


def _samples_showing(shot: ShotSamples, image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which samples show an image at (some of) the pixels of a region: bool (S, N)."""
    rows, columns = _some(region)
    difference = np.abs(shot.stack[:, rows, columns].astype(np.int16) - image[rows, columns])
    return np.asarray(difference.max(2) <= _SHOWN)


def _look(shot: ShotSamples, image: NDArray[np.uint8], slope: NDArray[np.float32], region: NDArray[np.bool_]) -> Shown:
    """Evidence about an image in a region; `slope` is its gradient."""
    rim = outline(region)
    shown = _samples_showing(shot, image, region)
    rows, columns = _some(region)
    height, width = region.shape
    half_height, half_width = shot.changes[0].shape
    changes = shot.change_stack[:, rows * half_height // height, columns * half_width // width]
    return Shown(
        float(slope[rim].mean()) if rim.any() else 0.0,
        float(((changes > _MOVES) & shown).sum() / max(1, shown.sum())),
        float(shown.mean()),
    )


def outline_moves(
    shot: ShotSamples, image: NDArray[np.uint8], slope: NDArray[np.float32], region: NDArray[np.bool_]
) -> float:
    """Share in [0, 1] of the edges along the outline that move while the region itself shows the image.

    A person who never leaves sways: the edge moves, though the body inside is as constant as the ground. The outline of
    a texture of the ground never moves.
    """
    whole = _samples_showing(shot, image, region).mean(1)
    showing = whole >= 0.8
    if showing.sum() < 4:
        showing = whole >= max(0.6, 0.9 * float(np.percentile(whole, 60)))
    return _moving_share(shot, outline(region, 3) & (slope > _EDGE), showing)


def _edges_move(shot: ShotSamples, slope: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Share in [0, 1] of the edges in `where` that move in the quieter parts of an image: all if the camera shakes."""
    height, width = slope.shape
    edges = where & (slope > _EDGE)
    everywhere = np.ones(len(shot.images), np.bool_)
    shares = []
    for row, column in np.ndindex(_PARTS, _PARTS):
        part = np.zeros(edges.shape, np.bool_)
        block = (
            slice(row * height // _PARTS, (row + 1) * height // _PARTS),
            slice(column * width // _PARTS, (column + 1) * width // _PARTS),
        )
        part[block] = edges[block]
        if part.sum() >= 10:
            rows, columns = np.nonzero(part)
            part[rows[100:], columns[100:]] = False  # 100 pixels are enough
            shares.append(_moving_share(shot, part, everywhere))
    return float(np.percentile(shares, 25)) if shares else 0.0


def _moving_share(shot: ShotSamples, edges: NDArray[np.bool_], showing: NDArray[np.bool_]) -> float:
    if showing.sum() < 3 or edges.sum() < 10:
        return 0.0
    rim = shot.stack[showing][:, edges]
    low, high = np.percentile(rim, [10, 90], axis=0, method="nearest").astype(np.int16)
    return float(((high - low).max(1) > _SWAYS).mean())


def in_favour(holder: Shown, challenger: Shown, prior: float = _PRIOR) -> float:
    """Evidence for the challenger against the holder, log odds: above zero the challenger is the better background.

    The motion of a challenger that few samples show is measured badly. It is drawn towards the holder's share, as if
    `prior` of all samples had shown that share.
    """
    seam = np.log((holder.seam + _SEAM_OFFSET) / (challenger.seam + _SEAM_OFFSET))
    known = challenger.support / (challenger.support + prior)
    moving = known * challenger.moving + (1 - known) * holder.moving
    return float(seam + _log_odds(holder.moving) - _log_odds(moving))


def _log_odds(share: float) -> float:
    share = (share + _SHARE_OFFSET) / (1 + 2 * _SHARE_OFFSET)
    return float(np.log(share / (1 - share)))


def _some(region: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.nonzero(region)
    step = max(1, -(-len(rows) // _MAX_PIXELS))
    return rows[::step], columns[::step]


_GRID = 4
_SUPPORT, _FEW = 0.7, 0.002
_PATCHES = ((11, 6), (7, 8), (5, 10), (5, 6), (3, 8))  # (keep, parts): the later ones find what shows rarely
_ROUNDS = 2  # of removing bodies: the second finds bodies next to those of the first
_MAX_PREDICTED = 0.2  # of a region: a larger predicted share needs evidence of its own
_MIN_OUTLINE = 0.22  # people who never leave have .3 and more, textures .15 and less
_SHAKES = 0.7  # still cameras have .5 and less behind people, one that shakes by a pixel .9
_PRIOR, _MIN_FAVOUR = 0.05, 0.6
_MIN_FAVOUR_OF_FEW = 2.0  # six or ten frames far apart: wrong ones have up to 1.9
_HALF, _STRONG = 0.5, 1.8  # textures have up to 1.7
_MAX_RING, _MAX_RING_SURE = 12.0, 13.0  # grey levels; plain ground has 3 to 12, textures 14 and more
_SURE_OUTLINE = 0.4
_FAINT, _REACH = 8, 31  # grey levels; pixels across
_MAX_AREA = 0.4  # of the image, too large to predict; people who fill a narrow image have .25
_AREA_OF_FEW = 0.005, 0.25  # in few frames, small outlines "move" wherever a person passed


def auto_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The median, replaced by the least moving patches or a predicted ground where the evidence is against it.

    Few samples start from their consensus instead, and need more evidence. Where only the light changes, nothing is
    replaced. Each candidate in turn challenges the current image, region by region. A predicted ground must also
    predict the surroundings correctly, and unless most of it was seen, the outline of the body that it removes must
    move: otherwise it is texture.

    Returns:
        uint8 (H, W, 3), and where it was seen, bool (H, W): elsewhere it is predicted.
    """
    held = shot.median
    valid = np.ones(shot.size, np.bool_)
    if median_suffices(shot, held):
        return held, valid
    few = len(shot.images) <= FEW_SAMPLES
    if few:
        held = consensus(shot.images)
    start = held
    for keep, parts in _PATCHES:
        other = patches_background(shot, keep=keep, parts=parts)[0]
        held = _contest(shot, held, other, _MIN_FAVOUR_OF_FEW if few else 0.0)
    held = _polished(shot, held, cv2.absdiff(start, held).max(2) > 0)
    active = active_region(shot)
    for _ in range(_ROUNDS):
        plate, seen = plate_from(shot, held, active)
        held, predicted = _ground_contest(shot, held, plate, seen)
        valid &= ~predicted
        if not predicted.any():
            break
    return held, valid


def median_suffices(shot: ShotSamples, median: NDArray[np.uint8]) -> bool:
    """Whether nearly every pixel shows the median nearly always, measured on every fourth row and column."""
    coarse = median[::_GRID, ::_GRID]
    shown = sum(
        (cv2.absdiff(image[::_GRID, ::_GRID], coarse).max(2) <= _SHOWN).astype(np.int32) for image in shot.images
    )
    return bool(np.mean(np.asarray(shown) < _SUPPORT * len(shot.images)) < _FEW)


def _contest(shot: ShotSamples, held: NDArray[np.uint8], other: NDArray[np.uint8], least: float) -> NDArray[np.uint8]:
    """The image held, with the other one where the evidence for it is above `least`."""
    slopes = gradient(held), gradient(other)
    result = held.copy()
    for region in regions(held, other):
        better = in_favour(_look(shot, held, slopes[0], region), _look(shot, other, slopes[1], region)) > least
        if better and not is_relit(shot, held, region):
            taken = _around(region, held, other)
            result[taken] = other[taken]
    return result


def _ground_contest(
    shot: ShotSamples, held: NDArray[np.uint8], plate: NDArray[np.uint8], seen: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image after the contest, and which of its pixels are predicted."""
    slopes = gradient(held), gradient(plate)
    found = list(regions(held, plate))
    doubtful = np.any(found, axis=0) if found else np.zeros(seen.shape, np.bool_)
    elsewhere = cv2.dilate(doubtful.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    shakes = _edges_move(shot, slopes[0], elsewhere) > _SHAKES
    smallest, largest = _AREA_OF_FEW if len(shot.images) <= FEW_SAMPLES else (0.0, _MAX_AREA)
    result, predicted = held.copy(), np.zeros(seen.shape, np.bool_)
    for region in found:
        views = _look(shot, held, slopes[0], region), _look(shot, plate, slopes[1], region)
        share = 1 - float(seen[region].mean())
        if share <= _MAX_PREDICTED:
            better = in_favour(*views) > 0
        elif shakes or not smallest <= region.mean() <= largest:
            better = False
        else:
            moves = outline_moves(shot, held, slopes[0], region)
            error = ring_error(held, region, doubtful & ~region)
            better = _trusted(in_favour(*views, prior=_PRIOR), moves, error, share)
        if better and not is_relit(shot, held, region):
            taken = _around(region, held, plate)
            result[taken], predicted[taken] = plate[taken], ~seen[taken]
    return result, predicted


def _trusted(favour: float, moves: float, error: float, share: float) -> bool:
    """Whether a partly predicted ground can be trusted.

    Args:
        favour: evidence of seam and motion for it.
        moves: share of the outline of the removed body that moves.
        error: of the prediction on the ring around it, grey levels.
        share: predicted share of the ground.
    """
    if share <= _HALF and favour > _STRONG and error <= _MAX_RING:
        return True  # most of it was seen, and fits
    limit = _MAX_RING_SURE if moves >= _SURE_OUTLINE else _MAX_RING
    with_outline = favour + float(np.log((moves + 0.05) / (_MIN_OUTLINE + 0.05)))
    return moves >= _MIN_OUTLINE and with_outline > _MIN_FAVOUR and error <= limit


def _around(region: NDArray[np.bool_], held: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The region, its rim, and fainter differences nearby: the soft edges of the removed body."""
    solid = region.astype(np.uint8)
    faint = cv2.absdiff(cv2.blur(held, (3, 3)), cv2.blur(other, (3, 3))).max(2) > _FAINT
    near = cv2.dilate(solid, np.ones((_REACH, _REACH), np.uint8)) > 0
    return np.asarray((cv2.dilate(solid, np.ones((5, 5), np.uint8)) > 0) | (near & faint))


def _polished(shot: ShotSamples, held: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with less noise: the median of all samples that show it, not only of the few that were chosen."""
    if not where.any():
        return held
    values = np.stack([image[where] for image in shot.images])
    shown = np.stack([cv2.absdiff(one, held[where]).max(1) <= _SHOWN for one in values])
    shown |= ~shown.any(0)
    result = held.copy()
    result[where] = median_where(values, shown)
    return result
