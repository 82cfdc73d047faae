"""The background of a shot by whichever method the evidence favours, region by region.

Letters: S samples, H, W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.evidence import SHOWN, Witness, gradient, in_favour, regions
from bgaug.background.median import median_where
from bgaug.background.patches import patches_background
from bgaug.background.plate import active_region, plate_from, ring_error
from bgaug.background.samples import ShotSamples

_GRID = 4
_SUPPORT, _FEW = 0.7, 0.002
_PATCHES = ((11, 6), (7, 8), (5, 10), (5, 6), (3, 8))  # (keep, parts): from the usual to what shows seldom
_ROUNDS = 2  # of removing bodies: the second finds what stood beside the first
_MAX_PREDICTED = 0.2  # of a region: above it, the prediction needs evidence of its own
_MIN_OUTLINE = 0.22  # people who never leave have .3 and more, textures .15 and less
_SHAKES = 0.7  # cameras on stands have .5 and less behind people, one that shakes by a pixel .9
_PRIOR, _MIN_FAVOUR = 0.05, 0.6
_HALF, _STRONG = 0.5, 1.8  # textures have up to 1.7
_MAX_RING, _MAX_RING_SURE = 12.0, 13.0  # grey levels; plain ground has 3 to 12, textures 14 and more
_SURE_OUTLINE = 0.4
_FAINT, _REACH = 8, 31  # grey levels; pixels across
_MAX_AREA = 0.4  # of the picture, which no prediction can cross; people who fill a narrow one have .25


def auto_background(shot: ShotSamples) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The median, and where the evidence is against it, what least-moving patches or a predicted ground give.

    Each candidate in turn challenges what is held so far, region by region (`evidence`). A predicted ground must also
    have predicted the surroundings, and, unless most of it was seen, the outline of what it removes must move: else it
    is texture.

    Returns:
        uint8 (H, W, 3), and where it was seen, bool (H, W): elsewhere it is predicted.
    """
    held = shot.median
    valid = np.ones(shot.size, np.bool_)
    if median_suffices(shot, held):
        return held, valid
    witness = Witness(shot)
    for keep, parts in _PATCHES:
        held = _contest(witness, held, patches_background(shot, keep=keep, parts=parts)[0])
    changed = cv2.absdiff(shot.median, held).max(2) > 0
    held = _polished(shot, held, changed)
    active = active_region(shot)
    for _ in range(_ROUNDS):
        plate, seen = plate_from(shot, held, active)
        held, predicted = _ground_contest(witness, held, plate, seen)
        valid &= ~predicted
        if not predicted.any():
            break
    return held, valid


def median_suffices(shot: ShotSamples, median: NDArray[np.uint8]) -> bool:
    """Whether nearly every pixel shows the median nearly always: looked at on every fourth row and column."""
    coarse = median[::_GRID, ::_GRID]
    shown = sum(
        (cv2.absdiff(image[::_GRID, ::_GRID], coarse).max(2) <= SHOWN).astype(np.int32) for image in shot.images
    )
    return bool(np.mean(np.asarray(shown) < _SUPPORT * len(shot.images)) < _FEW)


def _contest(witness: Witness, held: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    slopes = gradient(held), gradient(other)
    result = held.copy()
    for region in regions(held, other):
        if in_favour(witness.look(held, slopes[0], region), witness.look(other, slopes[1], region)) > 0:
            taken = _around(region, held, other)
            result[taken] = other[taken]
    return result


def _ground_contest(
    witness: Witness, held: NDArray[np.uint8], plate: NDArray[np.uint8], seen: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What is held after it, and which pixels of that are predicted."""
    slopes = gradient(held), gradient(plate)
    found = list(regions(held, plate))
    doubtful = np.any(found, axis=0) if found else np.zeros(seen.shape, np.bool_)
    elsewhere = cv2.dilate(doubtful.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    shakes = witness.edges_move(slopes[0], elsewhere) > _SHAKES
    result, predicted = held.copy(), np.zeros(seen.shape, np.bool_)
    for region in found:
        views = witness.look(held, slopes[0], region), witness.look(plate, slopes[1], region)
        share = 1 - float(seen[region].mean())
        if share <= _MAX_PREDICTED:
            better = in_favour(*views) > 0
        elif shakes or region.mean() > _MAX_AREA:
            better = False
        else:
            moves = witness.outline_moves(held, slopes[0], region)
            error = ring_error(held, region, doubtful & ~region)
            better = _trusted(in_favour(*views, prior=_PRIOR), moves, error, share)
        if better:
            taken = _around(region, held, plate)
            result[taken], predicted[taken] = plate[taken], ~seen[taken]
    return result, predicted


def _trusted(favour: float, moves: float, error: float, share: float) -> bool:
    """Whether a ground of which a share is predicted is to be believed.

    Args:
        favour: evidence of seam and motion for it.
        moves: share of what it removes whose outline moves.
        error: on the ring around it, grey levels.
        share: of it that is predicted.
    """
    if share <= _HALF and favour > _STRONG and error <= _MAX_RING:
        return True  # most of it was seen, and it fits there
    limit = _MAX_RING_SURE if moves >= _SURE_OUTLINE else _MAX_RING
    with_outline = favour + float(np.log((moves + 0.05) / (_MIN_OUTLINE + 0.05)))
    return moves >= _MIN_OUTLINE and with_outline > _MIN_FAVOUR and error <= limit


def _around(region: NDArray[np.bool_], held: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The region, its rim, and what differs less near by: the soft edges of what was in the way."""
    solid = region.astype(np.uint8)
    faint = cv2.absdiff(cv2.blur(held, (3, 3)), cv2.blur(other, (3, 3))).max(2) > _FAINT
    near = cv2.dilate(solid, np.ones((_REACH, _REACH), np.uint8)) > 0
    return np.asarray((cv2.dilate(solid, np.ones((5, 5), np.uint8)) > 0) | (near & faint))


def _polished(shot: ShotSamples, held: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Few samples make a noisy picture: the median of all that show it."""
    if not where.any():
        return held
    values = np.stack([image[where] for image in shot.images])
    shown = np.stack([cv2.absdiff(one, held[where]).max(1) <= SHOWN for one in values])
    shown |= ~shown.any(0)
    result = held.copy()
    result[where] = median_where(values, shown)
    return result
