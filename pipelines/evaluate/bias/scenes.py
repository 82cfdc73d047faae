"""Masks and scenes of a store that a bias evaluation may use: where they are from, and by which shots.

An estimator grades the masks and backgrounds that it makes. Its grade does not describe masks that were imported, or
that a network made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bgaug.data.clips import evaluated_shot
from bgaug.errors import UsageError
from bgaug.store import Store
from bgaug.store.format.records import GRADES

_ESTIMATED = ("background", "motion")


def check_grade(name: str, grade: str | None) -> None:
    """Check an option that is a grade.

    Raises:
        UsageError: it is neither a grade nor None.
    """
    if grade is not None and grade not in GRADES[1:]:
        raise UsageError(f"{name} must be one of {', '.join(GRADES[1:])}, or None, got {grade!r}")


def foreground_shot(store: Store, video: int, least: str | None) -> tuple[int | None, str]:
    """The longest shot whose masks may be used; else None, and why there is none.

    Args:
        store: the store.
        video: index of the video.
        least: the worst grade, A to F, that estimated masks may have; None for any. Other masks have no grade.
    """
    origin = [store.masks_from(video, shot) for shot in range(len(store.shots(video)))]
    known = np.array([one != "missing" for one in origin], np.bool_)
    estimated = np.array([one in _ESTIMATED for one in origin], np.bool_)
    if evaluated_shot(store, video, known) is None:
        return None, "no masks: none imported, and no background to estimate them from"
    shot = evaluated_shot(store, video, known & (~estimated | _graded(store, video, least)))
    return shot, "" if shot is not None else f"estimated masks graded below {least}"


def shows_scene(store: Store, video: int, shot: int) -> bool:
    """Whether a shot's scene is reconstructed from its frames, behind masks that are not estimated."""
    return store.masks_from(video, shot) in ("segmenter", "imported")


def scene_shot(store: Store, video: int, least: str | None) -> int | None:
    """The longest shot whose scene can lie behind another foreground; None if there is none.

    It has a static background graded `least` or better, or masks that are not estimated: behind these the scene is
    reconstructed from the frames.
    """
    shots = store.shots(video)
    seen = np.array([shows_scene(store, video, shot) for shot in range(len(shots))], np.bool_)
    return evaluated_shot(store, video, seen | ((shots[:, 2] >= 0) & _graded(store, video, least)))


def _graded(store: Store, video: int, least: str | None) -> NDArray[np.bool_]:
    """Which shots have this grade, a better one, or none: bool (shots,)."""
    part = slice(*store.columns.shot_offsets[video : video + 2].tolist())
    grades = store.columns.shot_grade[part]
    good: NDArray[np.bool_] = grades <= (len(GRADES) if least is None else GRADES.index(least))
    return good
