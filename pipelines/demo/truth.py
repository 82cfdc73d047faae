"""What is true of a synthetic world that was written as videos, and how near a store comes to it.

Letters: N videos, T frames, S pixels of a side, P packed bytes of one mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.files import write_arrays
from bgaug.files.archives import UNREADABLE, read_npz
from bgaug.masks import pack_mask, unpack_mask
from bgaug.store import Store, open_store
from bgaug.testing.scores import FOREGROUND, MaskScores, background_scores
from bgaug.testing.synthetic import SyntheticSplit


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of a world that was written as videos.

    Attributes:
        ids: of the videos, as in a store built from the folder.
        packed_masks: uint8 (N, T, P), see `bgaug.masks.pack_mask`.
        backgrounds: uint8 (N, S, S, 3), scene and prop while the camera is at rest.
        views: uint8 (N, S, S, 3), scene and prop from the shaking camera, the median over time: the still image that is
            nearest to them.
    """

    ids: tuple[str, ...]
    packed_masks: NDArray[np.uint8]
    backgrounds: NDArray[np.uint8]
    views: NDArray[np.uint8]

    def masks(self, video: int) -> NDArray[np.bool_]:
        """Masks of one video: bool (T, S, S)."""
        return unpack_mask(self.packed_masks[video], *self.backgrounds.shape[1:3])


def truth_file(folder: Path) -> Path:
    """Where the truth of a world written to this folder lies: beside it, where no video is looked for."""
    return folder.with_name(f"{folder.name}-truth.npz")


def read_truth(folder: Path) -> Truth:
    """The truth of the world that `write_world` wrote to a folder.

    Raises:
        UsageError: there is none.
    """
    path = truth_file(folder)
    try:
        arrays = read_npz(path, ("ids", "packed_masks", "backgrounds", "views"))
    except UNREADABLE as error:
        raise UsageError(f"{path} holds no truth; write the world with truth=True") from error
    return Truth(tuple(arrays.pop("ids").tolist()), **arrays)


def truth_arrays(split: SyntheticSplit) -> dict[str, NDArray[np.uint8]]:
    """The arrays of `Truth`, by name, of videos that were made with `truth=True`."""
    assert split.masks is not None and split.plates is not None and split.backgrounds is not None
    views = np.median(split.plates, axis=1).round().astype(np.uint8)
    assert split.degraded is not None
    masks = {"packed_masks": pack_mask(split.masks), "packed_worn": pack_mask(split.degraded)}
    return {**masks, "backgrounds": split.backgrounds, "views": views}


def write_degraded_masks(world: Path, folder: Path) -> Path:
    """The masks of a written world as an estimator would have them, one .npz a video, for `bgaug import --masks`.

    Args:
        world: written by `write_world` with `truth=True`.
        folder: where to; what is there stays.

    Returns:
        The folder.

    Raises:
        UsageError: there is no truth.
    """
    path = truth_file(world)
    try:
        arrays = read_npz(path, ("ids", "packed_worn", "backgrounds"))
    except UNREADABLE as error:
        raise UsageError(f"{path} holds no degraded masks; write the world with truth=True") from error
    size = np.array(arrays["backgrounds"].shape[1:3])
    for video_id, packed in zip(arrays["ids"].tolist(), arrays["packed_worn"], strict=True):
        place = (folder / video_id).with_suffix(".npz")
        if not place.exists():
            write_arrays(place, {"packed": packed, "size": size})
    return folder


@dataclass(frozen=True)
class OfflineScores:
    """How near a store comes to the truth of the world it was built from.

    Means over the videos that have a background, which are those that can be trained on; nan where there are none.

    Attributes:
        videos: of the world that the store holds.
        missing: videos of the world that the store lacks, or holds with another number of frames.
        without_background: held videos in no shot of which a background was found; their masks are not scored.
        age: mean absolute error of the backgrounds' luminance, grey levels, against `Truth.views`.
        age_at_rest: the same against `Truth.backgrounds`: also holds how far the camera was off on average.
        f1: of the masks, see `bgaug.testing.scores.MaskScores`; nan for a store without frames, like the three below.
        precision: share in [0, 1] of what was found that is foreground.
        recall: share in [0, 1] of the foreground that was found.
        iou: intersection over union.
    """

    videos: int
    missing: int
    without_background: int
    age: float
    age_at_rest: float
    f1: float
    precision: float
    recall: float
    iou: float


def score_offline(store_path: Path, folder: Path) -> OfflineScores:
    """Score the backgrounds and masks of a store against the truth of the world in a folder.

    Args:
        store_path: made from the folder by `extract_backgrounds` or `build_shards`, at the videos' own size.
        folder: written by `write_world` with `truth=True`; named as the input when the store was built.

    Raises:
        UsageError: there is no truth, the store has another size, or it holds no video of this world.
        StoreError: the store cannot be read.
    """
    truth, store = read_truth(folder), open_store(store_path)
    if store.size != truth.backgrounds.shape[1:3]:
        raise UsageError(
            f"{store_path} was built at {store.size}, the world has {truth.backgrounds.shape[1:3]}: build it at the "
            "videos' own size (--size native)"
        )
    ages: list[tuple[float, float]] = []
    masks: list[MaskScores] = []
    videos = 0
    for number, video_id in enumerate(truth.ids):
        video = _find(store, video_id, truth.packed_masks.shape[1])
        if video is None:
            continue
        videos += 1
        shots = np.flatnonzero(store.shots(video)[:, 2] >= 0).tolist()
        if not shots:
            continue
        images = [store.background(video, shot).image for shot in shots]
        ages.append((_age(images, truth.views[number]), _age(images, truth.backgrounds[number])))
        if store.header.frames != "none":
            masks.append(_mask_scores(store, video, truth.masks(number)))
    if not videos:
        raise UsageError(f"{store_path} holds no video of {folder}; build it from that very folder")
    age, age_at_rest = (_mean([pair[i] for pair in ages]) for i in (0, 1))
    f1, precision, recall, iou = (
        _mean([getattr(scores, name) for scores in masks]) for name in ("f1", "precision", "recall", "iou")
    )
    missing, without = len(truth.ids) - videos, videos - len(ages)
    return OfflineScores(videos, missing, without, age, age_at_rest, f1, precision, recall, iou)


def _find(store: Store, video_id: str, num_frames: int) -> int | None:
    """Index of a video that the store holds whole."""
    try:
        video = store.find(video_id)
    except KeyError:
        return None
    return video if store.num_frames(video) == num_frames else None


def _age(images: Sequence[NDArray[np.uint8]], true: NDArray[np.uint8]) -> float:
    """Mean over the shots of a video."""
    return _mean([background_scores(image, true).age for image in images])


def _mask_scores(store: Store, video: int, true: NDArray[np.bool_]) -> MaskScores:
    scores = MaskScores()
    for mask, known in zip(store.masks(video, 0, len(true)), true, strict=True):
        scores.add(mask, np.where(known, FOREGROUND, 0).astype(np.uint8))
    return scores


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
