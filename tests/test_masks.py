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
from bgaug.masks import FLOOR, foreground_mask, frame_mask, pack_mask, threshold_map, unpack_mask
from bgaug.masks.light import lit_as, shadow_like
from bgaug.masks.refine import learn_colours, refine_mask
from bgaug.shots.estimate import estimate_background
from bgaug.testing.scenarios import make_scenario
from bgaug.testing.scores import MaskScores
from bgaug.video import read_video


def flat(image: np.ndarray) -> Background:
    """A background without noise."""
    return Background(image, np.zeros(image.shape[:2], np.float32), np.ones(image.shape[:2], np.bool_))


def grey_picture(level: int = 120, height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


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


def test_permuted_frames_give_permuted_masks() -> None:
    frames = moving_square(height=120, width=160, side=30)[0]
    background = estimate_background(frames)
    order = np.random.default_rng(0).permutation(len(frames))
    assert np.array_equal(foreground_mask(frames[order], background), foreground_mask(frames, background)[order])


def test_weak_differences_count_only_next_to_sure_ones() -> None:
    """A shirt 25 grey levels brighter than the ground: part of a body where it touches one, otherwise not."""
    ground = grey_picture()
    alone, body = ground.copy(), ground.copy()
    alone[40:56, 50:70] = body[40:56, 50:70] = 145
    body[56:80, 50:70] = 200
    threshold = threshold_map(np.zeros((120, 160), np.float32))
    assert not frame_mask(alone, ground, threshold).any()
    found = frame_mask(body, ground, threshold)
    assert found[56:80, 50:70].mean() > 0.98 and found[50:56, 52:68].all()
    assert not found[:40].any() and not found[82:].any()


def test_soft_shadows_do_not_join_a_body() -> None:
    """The same shade as much darker as the shirt was brighter, a ramp without an edge."""
    ground = grey_picture()
    frame = ground.copy()
    frame[56:80, 50:70] = 200
    frame[60:80, 70:94] = (120 - np.linspace(25, 2, 24))[None, :, None]
    found = frame_mask(frame, ground, threshold_map(np.zeros((120, 160), np.float32)))
    assert found[56:80, 50:70].mean() > 0.98 and found[:, 73:].sum() == 0


def test_hard_shadows_leave_the_mask_only_on_request() -> None:
    ground = np.clip(scene(1, 120, 160), 60, 150)
    frame = ground.copy()
    frame[30:80, 40:70] = (220, 60, 40)
    frame[80:100, 40:120] = np.rint(0.6 * ground[80:100, 40:120]).astype(np.uint8)
    background = flat(ground)
    kept = foreground_mask(frame[None], background)[0]
    dropped = foreground_mask(frame[None], background, shadows=False)[0]
    assert kept[80:100, 40:120].mean() > 0.95
    assert dropped[84:96, 44:116].mean() < 0.05 and dropped[32:78, 42:68].all()


def test_shadow_is_the_background_times_one_factor() -> None:
    ground = scene(2, 60, 80)
    assert shadow_like(np.rint(0.6 * ground).astype(np.uint8), ground).all()
    assert not shadow_like(ground, ground).any()
    assert not shadow_like(ground[:, ::-1].copy(), ground).all()
    assert not shadow_like(np.rint(0.2 * ground).astype(np.uint8), ground).any()


@pytest.mark.parametrize("gain", [0.8, 1.25])
def test_light_is_found_and_put_on_the_background(gain: float) -> None:
    ground = scene(3, 120, 160)
    frame = np.rint(gain * ground).astype(np.uint8)
    assert np.abs(lit_as(frame, ground).astype(int) - frame).max() <= 5
    assert not foreground_mask(frame[None], flat(ground)).any()
    assert np.array_equal(lit_as(frame[:, ::-1].copy(), ground[:, ::-1].copy()), lit_as(frame, ground)[:, ::-1])


def test_bodies_and_small_changes_are_no_light() -> None:
    ground = scene(3, 120, 160)
    body = ground.copy()
    body[:, :70] = 20
    assert lit_as(body, ground) is ground
    assert lit_as(np.rint(1.02 * ground).astype(np.uint8), ground) is ground


def test_flicker_costs_little() -> None:
    """Walkers under light that flickers by 15 % are found nearly as well as under a steady one."""
    world = make_scenario("occ20", size=(120, 160), num_frames=24)
    background = flat(world.backgrounds[0])
    scores = []
    for strength in (0.0, 0.15):
        score = MaskScores()
        gains = 1 + strength * np.sin(1.7 * np.arange(len(world.frames)))
        lit = np.clip(np.rint(world.frames * gains[:, None, None, None]), 0, 255).astype(np.uint8)
        for mask, truth in zip(foreground_mask(lit, background), world.masks, strict=True):
            score.add(mask, np.where(truth, 255, 0).astype(np.uint8))
        scores.append(score.f1)
    assert scores[1] > scores[0] - 0.02, scores


def test_refining_follows_the_edge() -> None:
    """Masks of a disc, drawn 3 pixels too narrow: refined, they reach its edge."""
    ground = scene(4, 120, 160)
    y, x = np.indices((120, 160))
    frames, truth, narrow = [], [], []
    for centre in range(50, 110, 6):
        distance = np.hypot(y - 60, x - centre)
        frames.append(np.where((distance < 25)[..., None], np.uint8(230), ground))
        truth.append(distance < 25)
        narrow.append(distance < 22)
    clip, masks, true = np.stack(frames), np.stack(narrow), np.stack(truth)
    colours = learn_colours(clip, lambda _: ground, masks)
    refined = np.stack([refine_mask(image, ground, mask, colours) for image, mask in zip(clip, masks, strict=True)])
    assert iou(masks, true) < 0.8 and iou(refined, true) > 0.97


def test_refining_keeps_what_has_no_inside() -> None:
    ground = grey_picture()
    frames = np.stack([ground, ground])
    frames[:, 60:62, 20:140] = 250
    masks = foreground_mask(frames, flat(ground))
    assert np.array_equal(foreground_mask(frames, flat(ground), refine=True), masks)
    nothing = np.zeros((120, 160), np.bool_)
    assert learn_colours(frames, lambda _: ground, np.stack([nothing, nothing])) is None
    assert refine_mask(frames[0], ground, nothing, None) is nothing


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
    """Mean F1 over three clips of people who mostly stay in place."""
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
    assert scores and np.mean(scores) > 0.95, scores


def test_background_type_is_what_masks_take() -> None:
    image = scene(0)
    assert not foreground_mask(image[None], flat(image)).any()
