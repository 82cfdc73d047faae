"""The background of a camera that moves, as single frames see it, from frames around them and where bodies are.

Letters: N frames of a window, H, W pixels, h, w half of them, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background.flow import WindowFlow, camera_between, half_flow, mapped
from bgaug.background.image import Background
from bgaug.background.median import evenly_spaced, median_where
from bgaug.background.plate import fill
from bgaug.background.samples import ShotSamples, max_channel_difference
from bgaug.background.shown import BEYOND, GENEROUS, where_shown
from bgaug.sizing import Size, resize_area

_Image = NDArray[np.uint8]
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]
_Homography = NDArray[np.float64]

_REACH, _MOST = 40, 16  # frames to both sides that are looked at, and how many of them are used
_GROWN = 6  # pixels that masks are grown by: their rims are blurred, and a little off
_APART = 12.0  # grey levels: median difference of an aligned frame that does not fit
_AGREES = 18  # grey levels: a frame's own pixel is kept where it agrees with the others, since it is sharper
_OFF = 26  # grey levels: more is another object, or parallax
_STILL = 0.3  # pixels that the corners of the image may move under a static camera
_SAMPLES = 17  # of a static camera
_TO_WHOLE = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])  # half size to whole size: pixels are squares


@dataclass(frozen=True)
class SeenBackground:
    """A background with how well the frames around it agree.

    Attributes:
        background: at the size of the frames; `valid` where a frame saw the background.
        apart: share in [0, 1] of the pixels outside masks at which the frame differs from the others.
        hidden: share of the image under the mask of the frame.
        seen: share of those pixels that another frame saw; 1 if there are none.
    """

    background: Background
    apart: float
    hidden: float
    seen: float


def background_view(frames: Sequence[_Image], flow: WindowFlow, odds: _Floats, place: int) -> SeenBackground:
    """The background as frame number `place` of a window sees it: about .25 s at 320x240.

    Up to sixteen frames of the window are aligned: by the cameras between successive frames, then once more by the
    flow to the frame, outside bodies. The median of those that show background is the background; the frame's own pixel
    is kept where no body hides it and it agrees. Pixels that no frame saw are filled from around, and are not valid.
    How sure a pixel must be depends on how well filling works in this frame: `bgaug.background.shown`.

    Args:
        frames: N of uint8 (H, W, 3), RGB.
        flow: between them.
        odds: float32 (N, h, w), log odds of foreground.
        place: number of the frame.
    """
    size = frames[place].shape[0], frames[place].shape[1]
    here, own = frames[place], _grown_odds(odds[place], size)
    images, others = [], []
    for other in _around(place, len(frames)):
        seen = _aligned(frames[other], _grown_odds(odds[other], size), _chain(flow, other, place), here, own)
        if seen is not None:
            images.append(seen[0])
            others.append(seen[1])
    hides, counted = where_shown(here, own, images, others)
    return _joined(here, hides, images, counted, mask=own >= GENEROUS)


def masked_background(shot: ShotSamples, masks: Sequence[_Bools]) -> SeenBackground:
    """The background of a static camera: the median of what no mask covers, at the size of the samples.

    Args:
        shot: S samples.
        masks: S of bool (h, w), foreground, of any one size.
    """
    chosen = evenly_spaced(len(shot.images), _SAMPLES)
    images = [shot.images[i] for i in chosen]
    hidden = [_grown(masks[i], shot.size) for i in chosen]
    middle = len(images) // 2
    found = _joined(images[middle], hidden[middle], images, [~own for own in hidden], keeps_own=False)
    noise = found.background.noise if shot.noise.shape != shot.size else shot.noise
    return SeenBackground(
        Background(found.background.image, noise, found.background.valid), found.apart, found.hidden, found.seen
    )


def _around(place: int, count: int) -> list[int]:
    near = [other for other in range(max(0, place - _REACH), min(count, place + _REACH + 1)) if other != place]
    return [near[i] for i in evenly_spaced(len(near), _MOST)] if near else []


def _grown(mask: _Bools, size: Size) -> _Bools:
    """A mask at the size of frames, grown by some pixels."""
    whole = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _GROWN + 1, 2 * _GROWN + 1))
    return np.asarray(cv2.dilate(whole, disc) > 0, np.bool_)


def _grown_odds(odds: _Floats, size: Size) -> _Floats:
    """Log odds at the size of frames, each pixel with the largest of some pixels around it."""
    whole = cv2.resize(odds, size[::-1], interpolation=cv2.INTER_LINEAR)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _GROWN + 1, 2 * _GROWN + 1))
    return np.asarray(cv2.dilate(whole, disc), np.float32)


def _chain(flow: WindowFlow, start: int, stop: int) -> _Homography:
    """The homography from frame `start` to frame `stop`, in pixels of whole size."""
    total = np.eye(3)
    steps = flow.cameras[start:stop] if start < stop else flow.cameras_back[stop:start][::-1]
    for step in steps:
        total = step @ total
    return np.asarray(_TO_WHOLE @ total @ np.linalg.inv(_TO_WHOLE), np.float64)


def _aligned(
    image: _Image, odds: _Floats, to_here: _Homography, here: _Image, own: _Floats
) -> tuple[_Image, _Floats] | None:
    """A frame as the camera of another frame saw it, with its log odds of foreground; None if it does not fit."""
    size = here.shape[0], here.shape[1]
    if not np.isfinite(to_here).all():
        return None
    shows = own < GENEROUS
    moved, away = image, odds
    if _corners_move(to_here, size) > _STILL:
        moved, away = _warped(image, odds, to_here)
        flow = half_flow(cv2.cvtColor(here, cv2.COLOR_RGB2GRAY), cv2.cvtColor(moved, cv2.COLOR_RGB2GRAY))
        both = resize_area(((away < GENEROUS) & shows).astype(np.uint8), (flow.shape[0], flow.shape[1])) > 0
        onward = _TO_WHOLE @ camera_between(flow, both) @ np.linalg.inv(_TO_WHOLE)
        if np.isfinite(onward).all() and abs(float(np.linalg.det(onward))) > 1e-6:
            moved, away = _warped(image, odds, np.linalg.inv(onward) @ to_here)
    both = (away < GENEROUS) & shows
    if not both.any() or float(np.median(max_channel_difference(moved, here)[both])) > _APART:
        return None
    return moved, away


def _corners_move(homography: _Homography, size: Size) -> float:
    height, width = size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(np.abs(mapped(homography, corners) - corners).max(), nan=np.inf))


def _warped(image: _Image, odds: _Floats, homography: _Homography) -> tuple[_Image, _Floats]:
    size = image.shape[1], image.shape[0]
    moved = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    away = cv2.warpPerspective(odds, homography, size, flags=cv2.INTER_LINEAR, borderValue=BEYOND)
    return np.asarray(moved, np.uint8), np.asarray(away, np.float32)


def _joined(
    here: _Image,
    hides: _Bools,
    images: list[_Image],
    counted: list[_Bools],
    *,
    mask: _Bools | None = None,
    keeps_own: bool = True,
) -> SeenBackground:
    """The median of aligned images where they count, with the frame's own pixels where they agree.

    `mask` is that of the frame, outside which the images are compared; `hides` by default.
    """
    seen = np.any(counted, axis=0) if counted else np.zeros(hides.shape, np.bool_)
    image = median_where(images, counted) if images else here
    differs = max_channel_difference(image, here)
    both = seen & ~hides
    own = ~seen & ~hides
    if keeps_own:
        own |= both & (np.asarray(cv2.GaussianBlur(differs, (0, 0), 1.5)) < _AGREES)
    image = np.where(own[..., None], here, image).astype(np.uint8)
    valid = np.asarray(seen | ~hides, np.bool_)
    if valid.any() and not valid.all():
        filled = np.clip(np.rint(fill(image, valid)), 0, 255).astype(np.uint8)
        image = np.where(valid[..., None], image, filled).astype(np.uint8)
    outside = both if mask is None else seen & ~mask
    apart = int(np.count_nonzero(outside & (differs > _OFF))) / max(1, int(np.count_nonzero(outside)))
    under = int(np.count_nonzero(hides))
    return SeenBackground(
        Background(image, np.zeros(hides.shape, np.float32), valid),
        apart,
        under / hides.size,
        int(np.count_nonzero(hides & seen)) / under if under else 1.0,
    )
