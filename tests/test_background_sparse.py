"""Static scenes in which little is seen: few frames, tiny bodies, places whose light changes, hard shadows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import scene

from bgaug.background import Background, ShotSampler, ShotSamples
from bgaug.background.few import FEW_SAMPLES, consensus
from bgaug.background.relit import Texture, fitted_light, is_relit
from bgaug.masks import foreground_mask
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.shots.estimate import estimate_background
from bgaug.shots.shadows import ShadowEvidence, shadow_evidence
from bgaug.store import open_store
from bgaug.testing.scenarios import Scenario, make_scenario
from bgaug.testing.scores import MaskScores, background_scores
from bgaug.video import write_video

Frames = NDArray[np.uint8]
Bools = NDArray[np.bool_]

SEED = 7  # no constant was chosen on it


def shot_of(frames: Frames) -> ShotSamples:
    sampler = ShotSampler((frames.shape[1], frames.shape[2]))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def f1_of(masks: Bools, scenario: Scenario, chosen: NDArray[np.int64]) -> float:
    scores = MaskScores()
    for mask, index in zip(masks, chosen, strict=True):
        scores.add(mask, np.where(scenario.masks[index], 255, 0).astype(np.uint8))
    return scores.f1


def plain(frames: Frames, chosen: NDArray[np.int64]) -> tuple[Frames, Bools]:
    """A median of 51 frames, and what differs from it by a fixed threshold."""
    samples = np.linspace(0, len(frames) - 1, min(51, len(frames))).round().astype(int)
    median = np.median(frames[samples], 0).astype(np.uint8)
    differs = [(cv2.absdiff(frames[i], median).max(2) > 25).astype(np.uint8) for i in chosen]
    return median, np.stack([cv2.medianBlur(one, 3) > 0 for one in differs])


# Few frames.


def crossed(num_frames: int) -> tuple[Frames, Frames]:
    """Textured ground, and as many frames, of which bodies of different colours cover one place in half."""
    ground = np.clip(scene(4, 96, 128), 30, 220)
    frames = np.repeat(ground[None], num_frames, 0)
    for number, index in enumerate(range(0, num_frames, 2)):
        frames[index, 30:70, 40:80] = (250 - 40 * number, 30 + 35 * number, 128)
    return ground, frames


@pytest.mark.parametrize("num_frames", [6, 8, 10])
def test_bodies_that_cover_half_of_few_frames_are_removed(num_frames: int) -> None:
    ground, frames = crossed(num_frames)
    agreed = consensus(list(frames)).astype(int)
    assert np.abs(agreed - ground).max() <= 12 and np.abs(agreed - ground)[30:70, 40:80].mean() < 0.5
    assert np.abs(np.median(frames, 0) - ground)[30:70, 40:80].mean() > 5
    assert np.array_equal(estimate_background(frames).image, agreed)


def test_one_image_is_its_own_consensus() -> None:
    image = scene(5, 40, 50)
    assert np.array_equal(consensus([image]), image)
    assert np.array_equal(consensus([image] * 3), image)


def test_no_frame_of_few_is_left_out() -> None:
    frames = np.stack([np.full((40, 50, 3), 10 * index, np.uint8) for index in range(6)])
    shot = shot_of(frames)
    assert shot.indices.tolist() == list(range(6)) and (shot.median == 25).all()
    many = shot_of(np.repeat(frames, 4, 0))
    assert len(many.images) % 2 and len(many.images) > FEW_SAMPLES


# Light that changes in one place.


def lit(ground: Frames, factor: float, share: float) -> ShotSamples:
    """21 samples in which a part of the ground is darker for a share of the time."""
    frames = np.repeat(ground[None], 21, 0)
    frames[: round(share * 21), 20:60, 20:80] = np.rint(factor * ground[20:60, 20:80])
    return shot_of(frames)


def test_another_light_is_recognised_and_cloth_is_not() -> None:
    ground = np.clip(scene(6, 96, 128), 60, 200)
    region = np.zeros((96, 128), np.bool_)
    region[22:58, 22:78] = True
    assert is_relit(lit(ground, 0.7, 0.4), ground, region)
    assert not is_relit(lit(ground, 1.0, 0.4), ground, region)
    plain_ground = np.full_like(ground, 120)
    assert not is_relit(lit(plain_ground, 0.7, 0.4), plain_ground, region)  # nothing shows that it is no cloth
    cloth = np.repeat(ground[None], 21, 0)
    cloth[:9, 20:60, 20:80] = 50
    assert not is_relit(shot_of(cloth), ground, region)


def test_texture_continues_in_another_light_only() -> None:
    ground = np.clip(scene(7, 60, 80), 60, 200)
    darker = np.rint(0.6 * ground).astype(np.uint8)
    light, residual = fitted_light(darker, ground)
    assert np.abs(light - 0.6).max() < 0.02 and residual.max() < 1
    everywhere = np.ones((60, 80), np.bool_)
    texture, cloth = Texture(), Texture()
    texture.add(darker, ground, everywhere, light)
    cloth.add(np.full_like(ground, 80), ground, everywhere, np.full((60, 80), 0.6, np.float32))
    assert abs(texture.slope - 1) < 0.02 and texture.contrast > 2
    assert abs(cloth.slope) < 0.01 and Texture().slope == Texture().contrast == 0


# Generated scenes next to the plain method that a user would try first.


@pytest.mark.parametrize(("name", "gain"), [("tiny", 0.02), ("lights", -0.01), ("few", 0.02), ("rim", 0.02)])
def test_better_than_a_plain_median_and_a_threshold(name: str, gain: float) -> None:
    scenario = make_scenario(name, SEED, num_frames=6 if name == "few" else 120, compress=True)
    chosen = np.arange(0, len(scenario.frames), 1 if name == "few" else 6)
    background = estimate_background(scenario.frames)
    masks = foreground_mask(scenario.frames[chosen], background)
    median, plain_masks = plain(scenario.frames, chosen)
    ours, theirs = f1_of(masks, scenario, chosen), f1_of(plain_masks, scenario, chosen)
    assert ours > theirs + gain, (ours, theirs)
    truth = scenario.backgrounds[0]
    assert background_scores(background.image, truth).age < background_scores(median, truth).age + 0.05


def test_bodies_of_few_pixels_keep_their_shape() -> None:
    ground = np.full((240, 320, 3), 120, np.uint8)
    frame = ground.copy()
    for number in range(5):
        frame[40 + 30 * number : 48 + 30 * number, 60:62] = (220, 60, 60)  # 8x2 pixels: gone in majorities of 5x5
    flat = Background(ground, np.zeros((240, 320), np.float32), np.ones((240, 320), np.bool_))
    mask = foreground_mask(frame[None], flat)[0]
    body = (frame != ground).any(2)
    assert (mask & body).sum() > 0.7 * body.sum() and not (mask & ~body).any()
    frame[:, 200:] = 200  # next to a large one they are specks
    assert not foreground_mask(frame[None], flat)[0][:, :150].any()


# Hard shadows.


def test_hard_shadows_are_found_where_they_are() -> None:
    for name, hard in (("shadow", True), ("occ20", False), ("lowc", False), ("stays", False)):
        scenario = make_scenario(name, 2, num_frames=100, compress=True)
        background = estimate_background(scenario.frames)
        assert background.shadows is not hard
        assert shadow_evidence(shot_of(scenario.frames), background).hard is hard
        if hard:
            chosen = np.arange(0, 100, 10)
            frames = scenario.frames[chosen]
            by_default, kept = (foreground_mask(frames, background, shadows=choice) for choice in (None, True))
            assert f1_of(by_default, scenario, chosen) > f1_of(kept, scenario, chosen) + 0.03
            assert np.array_equal(by_default, foreground_mask(frames, background, shadows=False))
            assert np.array_equal(kept, foreground_mask(frames, replace(background, shadows=True)))


def test_all_the_evidence_is_needed() -> None:
    sure = ShadowEvidence(share=0.2, peak=0.9, texture=0.9, contrast=5)
    assert sure.hard and not ShadowEvidence().hard
    for weak in ({"share": 0.01}, {"peak": 0.3}, {"texture": 0.1}, {"contrast": 0.5}):
        assert not replace(sure, **weak).hard


def test_stores_of_backgrounds_keep_the_decision(tmp_path: Path) -> None:
    for name in ("shadow", "occ20"):
        frames = make_scenario(name, 2, num_frames=60).frames
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, options={"crf": "18"}, pixel_format="yuv420p")
    inputs = [tmp_path / "videos"]
    size = (240, 320)
    bg = tmp_path / "bg"
    extract_backgrounds(BackgroundOptions(inputs=inputs, out=bg, in_process=True, size=size), Silent())
    once = ShardOptions(inputs=inputs, out=tmp_path / "once", in_process=True, size=size)
    build_shards(once, Silent())
    build_shards(replace(once, out=tmp_path / "twice", backgrounds=bg), Silent())
    stores = [open_store(tmp_path / name) for name in ("bg", "once", "twice")]
    for store in stores:
        shadow, none = (store.row(store.find(f"{name}.mp4")).shots[0] for name in ("shadow", "occ20"))
        assert not shadow.shadows and shadow.to_json()["shadows"] is False and shadow.content[2] == {"shadows": False}
        assert none.shadows and "shadows" not in none.to_json() and len(none.content) == 2
    for video in range(2):
        once_masks, twice_masks = (store.masks(video, 0, 60) for store in stores[1:])
        assert np.array_equal(once_masks, twice_masks) and once_masks.any()
