"""Splits of the synthetic world: which factors agree with the class, and their videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bgaug.testing.synthetic.drawing import FIRST_PHOTO, FIRST_UNSEEN, NUM_CLASSES, REFERENCE_SIZE, Rng
from bgaug.testing.synthetic.video import Bools, Bytes, World, degraded_masks, make_video

Ints = NDArray[np.int64]

_CORRELATION = 0.95  # probability that a biased factor equals the class; otherwise it is uniform over all eight values


@dataclass(frozen=True)
class _Split:
    """How the videos of one split are drawn.

    Attributes:
        name: key in `SPLITS`.
        seed: seed of the split; with the draw and the index it is the seed of each video.
        count: videos of the whole split.
        scene: "class" agrees with the class at `_CORRELATION`; "other" is that of another class; "free" is any of the
            training families; "unseen" any of the others; "photo" a photograph.
        prop: "class", "other" or "free", as for the scene. If both are "other", they are of the same other class.
        sprite: False leaves the mover out: only bias is visible.
    """

    name: str
    seed: int
    count: int
    scene: Literal["class", "other", "free", "unseen", "photo"] = "class"
    prop: Literal["class", "other", "free"] = "class"
    sprite: bool = True


SPLITS = {
    split.name: split
    for split in (
        _Split("pretrain", 1, 2048),
        _Split("probe_train", 11, 1024),
        _Split("iid", 12, 400),
        _Split("wide", 13, 400, scene="unseen"),
        _Split("micro", 14, 400, prop="other"),
        _Split("swap", 15, 400, scene="unseen", prop="free"),
        _Split("photo", 16, 400, scene="photo", prop="free"),
        _Split("conflict", 17, 400, scene="other", prop="other"),
        _Split("bgonly", 18, 400, sprite=False),
        _Split("unbiased_train", 19, 1024, scene="free", prop="free"),
        _Split("unbiased_test", 20, 400, scene="free", prop="free"),
    )
}


@dataclass(frozen=True, eq=False)
class SyntheticSplit:
    """A range of videos of one split; the last five attributes are None unless made with `truth=True`.

    Attributes:
        name: name of the split.
        start: index of the first video here in its split.
        frames: uint8 (N, T, S, S, 3), RGB.
        labels: int64 (N,), index into `ACTIONS`.
        scene: int64 (N,), scene family 0..15, or 16 + index into `PHOTOS`.
        prop: int64 (N,), 0..7.
        kind: int64 (N,), kind of the prop, index into `KINDS`.
        masks, plates, backgrounds, moving: as in `SyntheticVideo`, with a leading N.
        degraded: bool (N, T, S, S), `moving` with the errors of an estimator, see `degraded_masks`.
    """

    name: str
    start: int
    frames: Bytes
    labels: Ints
    scene: Ints
    prop: Ints
    kind: Ints
    masks: Bools | None = None
    plates: Bytes | None = None
    backgrounds: Bytes | None = None
    moving: Bools | None = None
    degraded: Bools | None = None

    def __len__(self) -> int:
        return len(self.labels)


def make_split(
    name: str,
    *,
    size: int = REFERENCE_SIZE,
    num_frames: int = 12,
    count: int | None = None,
    start: int = 0,
    stop: int | None = None,
    draw: int = 0,
    truth: bool = False,
    world: World = "plain",
) -> SyntheticSplit:
    """Videos `start` to `stop` of a split.

    Every video has its own generator, seeded by (draw, split, index): a video is the same in any range, so the work can
    be divided among processes. Labels are shuffled within each eight videos, so that 0..8, 8..16, ... are exactly
    balanced. The same numpy on the same kind of CPU gives the same bytes; on another, a pixel may differ by one grey
    level.

    Args:
        name: key of `SPLITS`.
        size: S, as in `make_video`.
        num_frames: T, as in `make_video`.
        count: videos of the split; by default its own number. A smaller split is the beginning of the larger one.
        start: first video.
        stop: one past the last video; by default `count`.
        draw: number of the draw. All draws have the same scene families, so their splits can be mixed.
        truth: also return masks, plates, backgrounds, moving pixels, and degraded masks of those.
        world: "plain" or "micro", as in `make_video`.

    Raises:
        ValueError: unknown name or world, or a size, number of frames, range or draw out of range.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}; there are {', '.join(SPLITS)}")
    split = SPLITS[name]
    count = split.count if count is None else count
    stop = count if stop is None else stop
    if not 0 <= start < stop <= count:
        raise ValueError(f"videos must satisfy 0 <= start < stop <= count, got {start = }, {stop = }, {count = }")
    if draw < 0:
        raise ValueError(f"draw must be 0 or more, got {draw}")
    labels = _labels(split, draw, stop)[start:]
    N, T, S = stop - start, num_frames, size
    scene, prop, kind = (np.empty_like(labels) for _ in range(3))
    frames = np.empty((N, T, S, S, 3), np.uint8)
    masks, moving, degraded = (np.empty((N, T, S, S), np.bool_) for _ in range(3))
    known = (masks, np.empty_like(frames), np.empty((N, S, S, 3), np.uint8), moving) if truth else ()
    for n, label in enumerate(labels.tolist()):
        rng = np.random.default_rng((1, draw, split.seed, start + n))
        scene[n], prop[n] = _factors(rng, split, label)
        video = make_video(
            rng, label, int(scene[n]), int(prop[n]), size=S, num_frames=T, sprite=split.sprite, world=world
        )
        frames[n], kind[n] = video.frames, video.kind
        for kept, part in zip(known, video[1:5], strict=False):
            kept[n] = part
        if truth:
            degraded[n] = degraded_masks(np.random.default_rng((3, draw, split.seed, start + n)), video.moving)
    return SyntheticSplit(name, start, frames, labels, scene, prop, kind, *known, *((degraded,) if truth else ()))


def _labels(split: _Split, draw: int, stop: int) -> Ints:
    blocks = -(-stop // NUM_CLASSES)
    # The leading number separates the streams: a trailing zero would not, because numpy pads seeds with zeros.
    keys = np.random.default_rng((2, draw, split.seed)).random((blocks, NUM_CLASSES))
    return keys.argsort(axis=1).astype(np.int64).ravel()[:stop]


def _factors(rng: Rng, split: _Split, label: int) -> tuple[int, int]:
    """Scene and prop of one video; the number of draws is the same for all splits."""
    agree = rng.random(2) < _CORRELATION
    any_scene, any_prop = rng.integers(NUM_CLASSES, size=2).tolist()
    other = (label + int(rng.integers(1, NUM_CLASSES))) % NUM_CLASSES
    trained = {"class": label if agree[0] else any_scene, "other": other, "free": any_scene}
    scenes = trained | {"unseen": FIRST_UNSEEN + any_scene, "photo": FIRST_PHOTO + any_scene}
    props = {"class": label if agree[1] else any_prop, "other": other, "free": any_prop}
    return scenes[split.scene], props[split.prop]
