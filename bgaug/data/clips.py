"""Which clips of a video are evaluated: evenly spaced clips of its longest shot. Imports numpy only.

Letters: V clips of a video, T frames of a clip, S shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bgaug.store import Store

Ints = NDArray[np.int64]


def longest_shot(shots: NDArray[np.integer] | Sequence[tuple[int, int]]) -> int:
    """Index of the longest of the shots (start, stop, ...), (S, 2 or more); the first of equally long ones."""
    lengths = [int(shot[1]) - int(shot[0]) for shot in shots]
    return lengths.index(max(lengths))


def evaluated_shot(store: Store, video: int, usable: NDArray[np.bool_] | None = None) -> int | None:
    """Index of the shot of a stored video that is evaluated: the longest.

    It is never a dissolve or a fade between two shots, unless the video has nothing else.

    Args:
        store: the store.
        video: index of the video.
        usable: bool (shots,), shots that may be chosen; all by default.

    Returns:
        None if there is no such shot.
    """
    shots = store.shots(video)
    allowed = shots[:, 1] > shots[:, 0]
    places = np.flatnonzero(allowed if usable is None else allowed & usable)
    if not len(places):
        return None
    found = int(places[longest_shot(shots[places])])
    grade = store.columns.shot_grade[store.columns.shot_offsets[video] + found]
    if grade or shots[found, 2] >= 0:
        return found
    # Fragments have neither a grade nor a background, as transitions do: only the row has the difference.
    rows = store.row(video).shots
    proper = [shot for shot in places.tolist() if not rows[shot].is_transition]
    return proper[longest_shot(shots[proper])] if proper else found


def evenly_spaced(count: int, views: int) -> Ints:
    """The middles of V equal parts of 0 ... count - 1: int64 (V,)."""
    places: Ints = np.round((np.arange(views) + 0.5) / views * (count - 1)).astype(np.int64)
    return places


def uniform_clips(start: int, stop: int, num_frames: int, stride: int, views: int) -> Ints:
    """Frames of evenly spaced clips of a shot, counted from the first frame of the video.

    Args:
        start: first frame of the shot.
        stop: one past its last frame.
        num_frames: T.
        stride: distance of the frames of a clip.
        views: V.

    Returns:
        int64 (V, T). In a shot that is shorter than a clip, every clip is the whole shot, looped.
    """
    places = evenly_spaced(max(1, stop - start - (num_frames - 1) * stride), views)
    return places[:, None] + looped_clip(start, stop, num_frames, stride)


def looped_clip(start: int, stop: int, num_frames: int, stride: int) -> Ints:
    """Frames of the clip that begins at `start`, int64 (T,); if the shot is too short, the clip is looped."""
    available = max(1, min(num_frames, -(-(stop - start) // stride)))
    frames: Ints = start + np.arange(num_frames) % available * stride
    return frames
