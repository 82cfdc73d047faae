"""The background of a shot, from its camera to its grade.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, ShotSampler, ShotSamples, background_of
from bgaug.background.auto import median_suffices
from bgaug.background.mosaic import mosaic_samples
from bgaug.background.stabilise import Canvas, background_on, painted, stabilise_samples, steadied
from bgaug.shots.cuts import Camera, Verdict, camera_motion
from bgaug.shots.quality import Quality, grade_shot

NO_BACKGROUND = Quality("F", 0.0, ("the camera moves, and shows no background that stands still",), {})
"""Grade of a shot that has none."""


_FEWEST = 9  # samples; fewer hardly tell a camera that stands still


@dataclass(frozen=True)
class Estimate:
    """What the samples of a shot say.

    Attributes:
        camera: "static", "jitter", "moving", or "unknown" where it was not looked at or cannot be told.
        background: as a camera that stands still sees it; of one that moves, None unless a mosaic proved itself.
        canvas: what the frames of a camera that moves lie in; None where it stands still, or they could not be aligned.
        quality: grade, and what lowered it.
    """

    camera: Verdict
    background: Background | None
    canvas: Canvas | None
    quality: Quality


def estimate_shot(
    shot: ShotSamples, method: str = "auto", *, look_at_camera: bool = True, mosaics: bool = False
) -> Estimate:
    """Camera, background and grade of a shot.

    The masks of a camera that shakes are made against its canvas, frame by frame; as a picture, what its usual frame
    shows is kept.

    Args:
        shot: the samples.
        method: see `bgaug.background.background_of`.
        look_at_camera: False takes the camera for one that stands still.
        mosaics: try to join what a panning camera shows, at some seconds a shot.
    """
    if method == "auto" and len(shot.images) >= _FEWEST:
        median = background_of(shot, "median")
        if median_suffices(shot, median.image):  # so nothing moves that a camera would move
            return Estimate("static" if look_at_camera else "unknown", median, None, grade_shot(shot, median))
    camera = camera_motion(shot.images) if look_at_camera else None
    if camera is not None and camera.verdict == "moving":
        canvas = mosaic_samples(shot).canvas if mosaics else None
        if canvas is None:
            return Estimate("moving", None, None, NO_BACKGROUND)
        return _on_canvas(shot, _usual(canvas), canvas, camera)
    if camera is not None and camera.verdict == "jitter":
        background = background_of(shot, "median" if method == "auto" else method)
        canvas = stabilise_samples(shot, camera.shifts)
        if canvas is not None:
            if method == "auto":
                background, canvas = _without_bodies(shot, background, canvas)
            return _on_canvas(shot, background, canvas, camera)
    else:
        background = background_of(shot, method)
    verdict: Verdict = camera.verdict if camera else "unknown"
    return Estimate(verdict, background, None, grade_shot(shot, background, camera))


def _without_bodies(shot: ShotSamples, background: Background, canvas: Canvas) -> tuple[Background, Canvas]:
    """Picture and canvas of a camera that shakes, where steadied samples show that somebody stands in them."""
    steady = steadied(shot, canvas)
    median, better = background_of(steady, "median"), background_of(steady, "auto")
    other = cv2.absdiff(median.image, better.image).max(2) > 0
    if not other.any():
        return background, canvas
    image = np.where(other[..., None], better.image, background.image)
    return replace(background, image=image, valid=better.valid), painted(canvas, better, other)


def _on_canvas(shot: ShotSamples, background: Background, canvas: Canvas, camera: Camera) -> Estimate:
    quality = grade_shot(steadied(shot, canvas), _usual(canvas), camera)
    return Estimate(camera.verdict, background, canvas, quality)


def estimate_background(frames: NDArray[np.uint8], method: str = "auto") -> Background:
    """Static background of one shot that is in memory, with its grade.

    Args:
        frames: uint8 (T, H, W, 3), RGB, of one shot.
        method: see `bgaug.background.background_of`; "median" for the exact temporal median of 51 evenly spaced
            frames.

    The median of 51 frames of 320x240 costs 10 to 20 ms, "auto" 0.3 to 2 s where the median does not suffice, and in
    proportion to the picture: from some 400 pixels of short side on, shrink the frames first, as the pipelines do.

    Returns:
        The background at the size of the frames. "auto" also looks at the camera: for one that shakes, or a pan that
        can be joined, `Background.at` gives what each frame sees of it. For any other moving camera there is none to
        find: the picture is of no use, nothing in it is valid, and the grade says so.

    Raises:
        ValueError: frames of another shape or type, none at all, or an unknown method.
    """
    _check_frames(frames)
    height, width = frames.shape[1:3]
    sampler = ShotSampler((height, width), side=min(height, width), expected_frames=len(frames))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    shot = sampler.shot()
    if method != "auto":
        return background_of(shot, method)
    found = estimate_shot(shot, method, mosaics=True)
    background = found.background
    if background is None:
        background = background_of(shot, "median")
        background = replace(background, valid=np.zeros_like(background.valid))
    if found.canvas is not None:
        background = background_on(found.canvas, frames, (background.image, background.noise))
    return replace(background, grade=found.quality.grade, reasons=found.quality.reasons)


def _usual(canvas: Canvas) -> Background:
    """What the usual frame sees of a canvas."""
    return replace(background_on(canvas, []), transforms=None, plane=None)


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape = }")
