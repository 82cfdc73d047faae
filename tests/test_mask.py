from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import moving_square, scene

from bgaug.background import Background
from bgaug.estimate import estimate_background
from bgaug.mask import FLOOR, foreground_mask, pack_mask, threshold_map, unpack_mask
from bgaug.video import read_video


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_moving_square_is_found() -> None:
    frames, truth, _ = moving_square(num_frames=120, height=120, width=160, side=30)
    found = foreground_mask(frames, estimate_background(frames))
    assert found.shape == truth.shape and found.dtype == np.bool_
    assert iou(found, truth) >= 0.95


def test_refined_masks_keep_the_square() -> None:
    frames, truth, _ = moving_square(num_frames=60, height=120, width=160, side=40)
    background = estimate_background(frames)
    assert iou(foreground_mask(frames[10:20], background, refine=True), truth[10:20]) >= 0.95


def test_static_clip_has_an_empty_mask() -> None:
    rng = np.random.default_rng(0)
    frames = np.clip(scene(0)[None] + rng.normal(0, 3, (40, 48, 64, 3)), 0, 255).astype(np.uint8)
    assert not foreground_mask(frames, estimate_background(frames)).any()


def test_mirrored_clips_give_mirrored_masks() -> None:
    frames = moving_square()[0]
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    masks = foreground_mask(frames, estimate_background(frames))
    assert np.array_equal(masks[:, :, ::-1], foreground_mask(mirrored, estimate_background(mirrored)))


def test_threshold_has_a_floor_and_a_ceiling() -> None:
    quiet = threshold_map(np.zeros((20, 20), np.float32))
    assert (quiet == FLOOR).all()
    noise = np.full((20, 20), 10, np.float32)
    noise[5, 5] = 31
    loud = threshold_map(noise)
    assert loud[0, 0] == 40 and 40 < loud[5, 5] <= 4 * (3 * 10 + 6)


def test_other_sizes_are_refused() -> None:
    frames = moving_square()[0]
    background = estimate_background(frames)
    with pytest.raises(ValueError, match="background's size"):
        foreground_mask(frames[:, :-1], background)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_bits_survive_packing(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((3, height, width)) < 0.5
    packed = pack_mask(mask)
    assert packed.shape == (3, -(-height * width // 8))
    assert np.array_equal(unpack_mask(packed, height, width), mask)


def test_wrong_packing_is_named() -> None:
    with pytest.raises(ValueError, match="pack into 2 bytes"):
        unpack_mask(np.zeros((3, 4), np.uint8), 4, 4)


def test_people_who_walk_are_found_on_real_video(real_data: Path) -> None:
    """Mean F1 over three clips of people who mostly stay in place: what a median can do, and no less."""
    scores = []
    for name in ("0_1_4", "1_1_2", "14_3_1"):
        truth_folder = real_data / "actions" / "ut_truth" / name
        if not truth_folder.is_dir():
            continue
        frames = read_video(real_data / "actions" / "ut_interaction_set1" / f"{name}.avi").frames
        masks = foreground_mask(frames, estimate_background(frames))
        hit = missed = wrong = 0
        with zipfile.ZipFile(truth_folder / "masks.zip") as archive:
            for member in archive.namelist():
                data = np.frombuffer(archive.read(member), np.uint8)
                truth = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
                mask = masks[int(Path(member).stem)]
                hit += int((mask & (truth == 255)).sum())
                missed += int((~mask & (truth == 255)).sum())
                wrong += int((mask & np.isin(truth, (0, 50))).sum())
        scores.append(2 * hit / (2 * hit + missed + wrong))
    assert scores and np.mean(scores) > 0.55, scores


def test_background_type_is_what_masks_take() -> None:
    image = scene(0)
    flat = Background(image, np.zeros(image.shape[:2], np.float32), np.ones(image.shape[:2], np.bool_))
    assert not foreground_mask(image[None], flat).any()
