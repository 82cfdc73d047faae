"""From the samples of a shot to its camera, background and grade.

Letters: T frames, S samples, H, W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, Canvas, ShotSampler, ShotSamples, background_of
from bgaug.background.auto import median_suffices
from bgaug.background.image import view
from bgaug.background.moving import align_frames, mosaic_samples, painted, stabilise_samples, steadied
from bgaug.masks.motion import PersonNetwork
from bgaug.shots.by_motion import FlowFrames, MotionPath, is_doubtful
from bgaug.shots.cuts import Camera, camera_motion
from bgaug.shots.layout import bars_reason, black_bars, box_reason, moving_box
from bgaug.shots.quality import Quality, grade_shot
from bgaug.shots.shadows import shadow_evidence
from bgaug.shots.shot import Shot

_NO_BACKGROUND = ("the camera moves, and shows no background that stands still",)
_FEWEST = 9  # with fewer samples, agreement with their median does not show that the camera is static


def estimate_shot(
    samples: ShotSamples,
    method: str = "auto",
    *,
    look_at_camera: bool = True,
    mosaics: bool = False,
    frames: FlowFrames | None = None,
    network: PersonNetwork | None = None,
) -> Shot:
    """Camera, background and grade of a shot, whose frames are counted from 0.

    For a camera that shakes, masks are made against the canvas, frame by frame; the background is the view of its usual
    frame. A camera that moves inside a rectangle, next to a part of the image that never changes, is moving. Black bars
    are given as a reason, and change nothing else.

    With `frames` and the method "auto", masks come from motion where no background is right: for a camera that moves,
    and for people who never leave. See `bgaug.shots.by_motion`.

    Args:
        samples: of the shot.
        method: see `bgaug.background.background_of`.
        look_at_camera: False assumes a static camera.
        mosaics: try to join the samples of a camera that pans; takes some seconds per shot.
        frames: of the shot, closer together than the samples; None for no masks from motion.
        network: a segmentation network, one more cue of masks from motion.
    """
    if not look_at_camera:
        return _estimate(samples, method, look_at_camera=False)
    usable = method == "auto" and not mosaics and frames is not None and frames.are_enough
    (height, width), inside = samples.size, black_bars(samples.images)
    scene = samples.images if inside is None else [inside.of(image) for image in samples.images]
    box = moving_box(scene)
    if box is not None and camera_motion([box.of(image) for image in scene]).verdict == "moving":
        reasons = (box_reason(box, *scene[0].shape[:2]),)
        shot = Shot(0, samples.num_frames, "moving", grade="F", reasons=reasons)
    else:
        shot = _estimate(samples, method, mosaics=mosaics, frames=frames if usable else None, network=network)
    return shot if inside is None else replace(shot, reasons=(*shot.reasons, bars_reason(inside, height, width)))


def _estimate(
    samples: ShotSamples,
    method: str,
    *,
    look_at_camera: bool = True,
    mosaics: bool = False,
    frames: FlowFrames | None = None,
    network: PersonNetwork | None = None,
) -> Shot:
    """See `estimate_shot`, which also examines what else than the scene the image shows."""
    shot = Shot(0, samples.num_frames)
    if method == "auto" and len(samples.images) >= _FEWEST:
        median = background_of(samples, "median")
        if median_suffices(samples, median.image):  # a camera that moved would have moved the whole image
            shot = replace(shot, camera="static" if look_at_camera else "unknown")
            background = _shaded(samples, median)
            return _graded(shot, grade_shot(samples, background), background)
    camera = camera_motion(samples.images) if look_at_camera else None
    if camera is None:
        return _against_background(shot, samples, method, None)[0]
    shot = replace(shot, camera=camera.verdict)
    motion = None if frames is None else MotionPath(shot, samples, camera, frames, network)
    if camera.verdict == "moving":
        return (motion and motion.shot()) or _of_moving(shot, samples, camera, mosaics=mosaics)
    if motion is not None and motion.shows_no_ground:
        by_motion = motion.shot()
        if by_motion is not None:
            return by_motion
    found, quality = _against_background(shot, samples, method, camera)
    if motion is not None and not motion.is_tried and is_doubtful(quality):
        return motion.shot() or found
    return found


def _of_moving(shot: Shot, samples: ShotSamples, camera: Camera, *, mosaics: bool) -> Shot:
    """A shot of a camera that moves: with a mosaic if one is requested and found, else without a background."""
    canvas = mosaic_samples(samples) if mosaics else None
    if canvas is None:
        return replace(shot, grade="F", reasons=_NO_BACKGROUND)
    quality = grade_shot(steadied(samples, canvas), canvas.usual_view(), camera)
    return replace(_graded(shot, quality, canvas.usual_view()), canvas=canvas)


def _against_background(shot: Shot, samples: ShotSamples, method: str, camera: Camera | None) -> tuple[Shot, Quality]:
    """A shot of a static camera or shakes, and the quality of its background."""
    canvas = None
    if camera is not None and camera.verdict == "jitter":
        background = background_of(samples, "median" if method == "auto" else method)
        canvas = stabilise_samples(samples, camera.shifts)
        if canvas is not None and method == "auto":
            background, canvas = _without_bodies(samples, background, canvas)
    else:
        background = background_of(samples, method)
        if method == "auto":
            background = _shaded(samples, background)
    if canvas is None:
        quality = grade_shot(samples, background, camera)
    else:
        quality = grade_shot(steadied(samples, canvas), canvas.usual_view(), camera)
    return replace(_graded(shot, quality, background), canvas=canvas), quality


def _shaded(samples: ShotSamples, background: Background) -> Background:
    """The background of a static camera, with whether masks keep hard shadows."""
    return replace(background, shadows=not shadow_evidence(samples, background).hard)


def _graded(shot: Shot, quality: Quality, background: Background) -> Shot:
    return replace(shot, background=background, grade=quality.grade, reasons=quality.reasons)


def _without_bodies(samples: ShotSamples, background: Background, canvas: Canvas) -> tuple[Background, Canvas]:
    """Background and canvas of a camera that shakes, without the bodies that `auto` removes from steadied samples."""
    steady = steadied(samples, canvas)
    median, better = background_of(steady, "median"), background_of(steady, "auto")
    other = cv2.absdiff(median.image, better.image).max(2) > 0
    if not other.any():
        return background, canvas
    image = np.where(other[..., None], better.image, background.image)
    return replace(background, image=image, valid=better.valid), painted(canvas, better, other)


def estimate_background(frames: NDArray[np.uint8], method: str = "auto") -> Background:
    """Static background of one shot in memory, with its grade.

    Args:
        frames: uint8 (T, H, W, 3), RGB, of one shot.
        method: see `bgaug.background.background_of`; "median" is the exact temporal median of 51 evenly spaced frames.

    The median of 51 frames of 320x240 costs 10 to 20 ms, "auto" 0.3 to 2 s where the median does not suffice, both in
    proportion to the number of pixels: from a short side of about 400 pixels on, shrink the frames first, as the
    pipelines do.

    Returns:
        The background at the size of the frames. "auto" also examines the camera: if it shakes, or pans and can be
        joined to a mosaic, `Background.at` gives the view of each frame. Other moving cameras have no background: the
        image is then meaningless, no pixel is valid, and the grade is F.

    Raises:
        ValueError: frames of another shape or type, no frames, or an unknown method.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape = }")
    height, width = frames.shape[1:3]
    sampler = ShotSampler((height, width), side=min(height, width), expected_frames=len(frames))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    samples = sampler.shot()
    if method != "auto":
        return background_of(samples, method)
    shot = estimate_shot(samples, method, mosaics=True)
    background, canvas = shot.background, shot.canvas
    if background is None:
        background = background_of(samples, "median")
        background = replace(background, valid=np.zeros_like(background.valid))
    if canvas is not None:
        valid = view(canvas.valid, canvas.usual, canvas.size)
        background = replace(background, valid=valid, canvas=align_frames(canvas, frames))
    return replace(background, grade=shot.grade, reasons=shot.reasons)
