"""The micro world: props that tempt, lie, follow or are held; masks as estimators give them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from bgaug.testing.synthetic import ACTIONS, KINDS, SyntheticSplit, degraded_masks, make_split, make_video


@cache
def world(name: str = "swap", count: int = 96) -> SyntheticSplit:
    return make_split(name, count=count, truth=True, world="micro")


def of_kind(kind: str) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = world().kind == KINDS.index(kind)
    return chosen


def test_kinds_are_independent_of_class_and_prop() -> None:
    split = make_split("probe_train", size=16, num_frames=2, count=768, world="micro")
    counts = np.bincount(split.kind, minlength=3)
    assert counts.min() > 200
    for factor in (split.labels, split.prop):
        table = np.array(
            [[((split.kind == kind) & (factor == value)).sum() for value in range(8)] for kind in range(3)]
        )
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        assert ((table - expected) ** 2 / expected).sum() < 36  # chi-squared of 14 degrees of freedom: 1 in 1,000


def test_plain_props_are_mats_and_nothing_but_the_sprite_moves() -> None:
    split = make_split("swap", count=8, truth=True)
    assert split.masks is not None and split.moving is not None
    assert not split.kind.any()
    np.testing.assert_array_equal(split.masks, split.moving)


def test_mats_are_part_of_the_background_and_larger_than_the_mover() -> None:
    split = world()
    assert split.masks is not None and split.moving is not None
    mats = of_kind("mat")
    np.testing.assert_array_equal(split.masks[mats], split.moving[mats])
    for seed in range(4):
        one, other = (make_video(np.random.default_rng(seed), 4, 9, prop, world="micro").background for prop in (0, 5))
        changed = (one != other).any(axis=-1)
        kind = make_video(np.random.default_rng(seed), 4, 9, 0, world="micro").kind
        assert (changed.sum() > 300) == (KINDS[kind] == "mat")
        assert changed.any() == (KINDS[kind] == "mat")


@pytest.mark.parametrize("kind", ["shadow", "held"])
def test_what_goes_along_moves_as_the_mover_does(kind: str) -> None:
    split = world()
    assert split.masks is not None and split.moving is not None
    chosen = of_kind(kind) & np.isin(split.labels, [ACTIONS.index(way) for way in ("left", "right", "up", "down")])
    assert chosen.sum() >= 8
    for masks, moving in zip(split.masks[chosen], split.moving[chosen], strict=True):
        extra = moving & ~masks
        assert extra.sum() > 0.2 * masks.sum()
        way, along = (np.array([np.argwhere(m[t]).mean(axis=0) for t in (1, 10)]) for m in (masks, moving))
        step, other = way[1] - way[0], along[1] - along[0]
        assert np.dot(step, other) > 0.6 * np.dot(step, step)  # at the border both are cut off


def test_a_held_prop_hides_the_mover_in_half_of_the_videos() -> None:
    hidden = 0
    for seed in range(60):
        one = make_video(np.random.default_rng(seed), 0, 9, 0, world="micro")
        if KINDS[one.kind] == "held":
            full = one.moving.sum() - (one.moving & ~one.masks).sum()
            assert full == one.masks.sum()
            hidden += 1
    assert hidden > 10


def test_without_a_mover_what_it_held_lies_still_and_is_background() -> None:
    split = world("bgonly", 24)
    assert split.moving is not None and split.masks is not None and split.plates is not None
    assert not split.moving.any() and not split.masks.any()
    clear = (split.plates > 25) & (split.plates < 230)
    noise = (split.frames.astype(float) - split.plates)[clear]
    assert abs(noise).mean() < 4


def test_motions_are_shorter() -> None:
    plain, micro = (
        [make_video(np.random.default_rng(seed), 1, 9, 0, world=kind).masks for seed in range(12)]
        for kind in ("plain", "micro")
    )
    ways = [
        np.mean([np.argwhere(m[9])[:, 1].mean() - np.argwhere(m[2])[:, 1].mean() for m in masks])
        for masks in (plain, micro)
    ]
    assert ways[1] / ways[0] == pytest.approx(0.65, abs=0.12)


def test_worn_masks_are_wide_late_and_holed() -> None:
    moving = np.zeros((6, 40, 40), np.bool_)
    for t in range(6):
        moving[t, 14:26, 8 + 2 * t : 20 + 2 * t] = True
    late, radii, holes = 0, set(), 0
    for seed in range(60):
        degraded = degraded_masks(np.random.default_rng(seed), moving)
        rows = np.flatnonzero(degraded[3].any(axis=1))
        radii.add(int(14 - rows[0]))
        right = int(np.flatnonzero(degraded[3].any(axis=0))[-1]) - int(14 - rows[0])
        late += right == 23  # where the second frame's end was, not the third's at 25
        assert right in (23, 25)
        inside = degraded[3, rows[0] : rows[-1] + 1]
        holes += not inside[:, inside.any(axis=0)].all()
    assert radii == {1, 2, 3}
    assert 20 <= late <= 40
    assert holes >= 55
    assert not degraded_masks(np.random.default_rng(0), np.zeros((2, 16, 16), np.bool_)).any()


def test_worn_masks_of_a_split_cover_the_mover_and_much_else() -> None:
    split = world()
    assert split.moving is not None and split.degraded is not None
    hit = (split.degraded & split.moving).sum()
    assert 0.8 < hit / split.moving.sum() < 0.97
    assert 0.4 < hit / split.degraded.sum() < 0.7


def test_a_video_is_the_same_in_any_range() -> None:
    whole, part = (make_split("wide", start=first, stop=6, truth=True, world="micro") for first in (0, 3))
    for name in ("frames", "kind", "moving", "degraded"):
        np.testing.assert_array_equal(getattr(whole, name)[3:], getattr(part, name))


# Recorded; a change of these is a change of every number measured in this world.
RECORDED_KINDS = [2, 1, 2, 0, 1, 0, 1, 0, 2, 2, 0, 0, 2, 2, 2, 0]
COLOUR = (73.02, 75.59, 84.69)


def test_this_is_still_the_same_world() -> None:
    split = make_split("iid", count=16, truth=True, world="micro")
    assert split.masks is not None and split.moving is not None and split.degraded is not None
    assert split.kind.tolist() == RECORDED_KINDS
    np.testing.assert_allclose(split.frames.mean(axis=(0, 1, 2, 3)), COLOUR, atol=0.3)
    areas = [split.masks.mean(), split.moving.mean(), split.degraded.mean()]
    assert areas == pytest.approx([0.06816, 0.13127, 0.22428], abs=3e-4)


def test_unknown_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="world must be one of plain, micro, got 'macro'"):
        make_split("iid", count=1, world="macro")  # type: ignore[arg-type]
