"""Large motion within a scene that is no cut, and cuts within a scene or next to a still image that stay cuts."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_shots import every, find_cuts, seen_by, streamed, textured, thumbnails

from bgaug.shots.same_scene import is_same_scene
from bgaug.video import thumbnail_of

Frames = NDArray[np.uint8]


def whipped(seed: int, places: list[int]) -> Frames:
    """A camera that moves by a fifth of the image from place to place, and rolls and zooms a little."""
    matrices = []
    for place in np.array(places) * 32 - 64:
        matrix = cv2.getRotationMatrix2D((320, 240), place * 0.15, 1 + 0.002 * place)
        matrix[:, 2] += (place, 0.3 * place)
        matrices.append(matrix)
    return seen_by(textured(seed, 480, 640), np.stack(matrices), noise=0)


def crossed(seed: int, side: int, step: int) -> Frames:
    """A still camera, before which a large square crosses the image in steps of so many of 160 pixels."""
    still, square = textured(seed, 120, 160), textured(seed + 50, side, side)
    top, last = (120 - side) // 2, 160 - side
    frames = []
    for left in [0] * 4 + list(range(0, last, step)) + [last] * 4:
        frames.append(still.copy())
        frames[-1][top : top + side, left : left + side] = square
    return np.stack(frames)


@pytest.mark.parametrize("seed", [0, 1, 6])
@pytest.mark.parametrize("repeat", [2, 3])
def test_a_whip_pan_at_a_low_frame_rate_is_no_cut(seed: int, repeat: int) -> None:
    assert find_cuts(whipped(seed, [0, 0, 0, 1, 2, 3, 4, 5, 5, 5]).repeat(repeat, 0)) == []


@pytest.mark.parametrize(("side", "step"), [(80, 20), (80, 40), (100, 30), (110, 20), (110, 40)])
@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_a_large_fast_mover_is_no_cut(side: int, step: int, repeat: int) -> None:
    assert find_cuts(crossed(1, side, step).repeat(repeat, 0)) == []


def test_a_sudden_move_is_a_cut_unless_frames_are_missing() -> None:
    """A person who is in the next frame elsewhere: a jump cut, or frames that were lost and replaced by others."""
    before, after = crossed(1, 100, 40)[4:6]
    noise = np.random.default_rng(0).normal(0, 3, (30, *before.shape))
    live = np.clip(np.stack([before] * 15 + [after] * 15) + noise, 0, 255).astype(np.uint8)
    assert find_cuts(live) == [15]
    stalled = live.copy()
    stalled[12:15] = stalled[11]
    assert find_cuts(stalled) == []


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_a_cut_beside_a_still_plot_is_found(seed: int) -> None:
    """What stays the same in another scene is no evidence, even if it has most of the structure."""
    frames = np.concatenate([crossed(seed, 40, 8), crossed(seed + 10, 40, 8)]).repeat(4, 0) // 2 + 60
    frames[:, :, 60:] = textured(99, 120, 100)
    assert find_cuts(frames) == [len(frames) // 2]


@pytest.mark.parametrize("repeat", [1, 4])
def test_a_light_that_goes_on_is_a_cut_though_the_structure_stays(repeat: int) -> None:
    frames = crossed(3, 40, 8)
    half = len(frames) // 2
    frames[:half] = frames[:half] // 2
    assert find_cuts(frames.repeat(repeat, 0)) == [half * repeat]


def test_the_same_scene_is_recognised() -> None:
    world = textured(4, 200, 240)
    one = thumbnail_of(world[20:140, 20:180])
    assert is_same_scene(one, thumbnail_of(world[30:150, 50:210]))
    assert not is_same_scene(one, thumbnail_of(textured(5, 120, 160)))
    assert is_same_scene(one, one)
    assert not is_same_scene(np.full_like(one, 40), np.full_like(one, 90))
    assert not is_same_scene(one, np.full_like(one, 90))


@every
def test_real_clips_with_jerks_have_no_cut(real_data: Path, every: int) -> None:
    """Webcams, cameras that are pushed, repeated frames: each clip is one shot."""
    root = real_data / "actions" / "jhmdb"
    with (root / "labels.csv").open(newline="") as lines:
        files = [row["file"] for row in csv.DictReader(lines) if row["fold"] == "3"]
    jerky = [file for file in files if any(name in file for name in ("Londrina", "Pick_Up", "Box_Pushing", "KELVIN"))]
    assert len(jerky) > 4
    for file in dict.fromkeys([*jerky, *files[::every]]):
        assert streamed(thumbnails(root / file)) == [], file
