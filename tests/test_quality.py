"""Grades: worlds whose answer is known, and real shots whose masks are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import moving_square

from bgaug.background import Background, ShotSampler, ShotSamples, background_of
from bgaug.shots.cuts import Camera
from bgaug.shots.quality import GRADES, Quality, grade_shot

Frames = NDArray[np.uint8]
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def samples_of(frames: Frames) -> ShotSamples:
    sampler = ShotSampler((frames.shape[1], frames.shape[2]))
    for index, image in enumerate(frames):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


@pytest.fixture(scope="module")
def world() -> tuple[ShotSamples, Frames]:
    """A square that crosses a scene of 120x160, and the scene."""
    frames, _, scene = moving_square(height=120, width=160, side=30, num_frames=60)
    return samples_of(frames), scene


def graded(shot: ShotSamples, image: Frames, camera: Camera | None = None, unseen: float = 0.0) -> Quality:
    valid = np.ones(image.shape[:2], np.bool_)
    valid[: round(unseen * len(valid))] = False
    return grade_shot(shot, Background(image, shot.noise, valid), camera)


def camera(verdict: Any) -> Camera:
    return Camera(verdict, np.zeros((3, 2), np.float32), np.ones(3, np.float32), 1, 1.0, 0.0)


def with_ghost(scene: Frames, height: int) -> Frames:
    """Somebody of that height in the scene, a head over a body."""
    image = scene.copy()
    cv2.ellipse(image, (40, 60), (max(1, height // 5), height // 2), 0, 0, 360, (20, 30, 120), -1)
    cv2.circle(image, (40, 60 - height // 2), max(1, height // 7), (210, 170, 150), -1)
    return image


def test_a_clean_world_is_good(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    quality = graded(shot, scene)
    assert quality.grade in "AB", quality
    assert quality.reasons == ()
    assert quality.signals["ghost"] < 0.05
    assert quality.signals["area"] == pytest.approx(30 * 30 / (120 * 160), rel=0.1)
    estimated = grade_shot(shot, background_of(shot, "median"))
    assert estimated.score == pytest.approx(quality.score, abs=0.02)


def test_a_ghost_lowers_the_grade_the_more_the_larger_it_is(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    qualities = [graded(shot, with_ghost(scene, height) if height else scene) for height in (0, 10, 20, 40, 60, 80)]
    scores = [quality.score for quality in qualities]
    assert all(larger <= smaller + 0.01 for smaller, larger in pairwise(scores))
    assert scores[0] > scores[2] > scores[3] > scores[4]
    assert qualities[-2].grade in "DEF"
    assert "ghost" in qualities[-2].reasons[0]
    assert qualities[-2].signals["ghost"] > 0.3


def test_what_was_never_seen_lowers_the_score(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    scores = [graded(shot, scene, unseen=share).score for share in (0.0, 0.2, 0.5, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < scores[0]
    assert graded(shot, scene, unseen=0.2).reasons == ("20 % of the background was never seen",)


def test_masks_of_everything_fail(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    quality = graded(shot, np.asarray(scene + 90, np.uint8)[::-1, ::-1].copy())
    assert quality.signals["area"] > 0.9
    assert quality.grade == "F"
    assert any("masks cover" in reason and "% of the picture" in reason for reason in quality.reasons)


def test_nothing_moves() -> None:
    frames = np.repeat(moving_square(height=120, width=160)[2][None], 40, 0)
    quality = graded(samples_of(frames), frames[0])
    assert (quality.grade, quality.score) == ("C", 0.7)
    assert quality.reasons == ("nothing moves: the masks are empty",)


def test_a_background_that_hides_who_moves_is_not_taken_for_one_where_nothing_does() -> None:
    """A person fills the image and stays: all masks are empty, although the person moves."""
    frames = np.repeat(moving_square(height=120, width=160)[2][None], 60, 0)
    frames[::2, 50:70, 60:90] = np.minimum(frames[::2, 50:70, 60:90], 235) + 17  # too faint to be called
    shot = samples_of(frames)
    shot = replace(shot, changes=[np.full_like(change, 0) for change in shot.changes])
    shot.changes[5][25:35, 30:45] = 17
    shot.changes[25][25:35, 30:45] = 17
    quality = grade_shot(shot, background_of(shot, "median"))
    assert quality.grade in "DEF"
    assert not any("nothing moves" in reason for reason in quality.reasons)


def test_a_camera_that_moves_lowers_the_grade(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    still, shaking, moving = (graded(shot, scene, camera(name)) for name in ("static", "jitter", "moving"))
    assert still == graded(shot, scene)
    assert still.score > shaking.score > moving.score
    assert shaking.reasons == ("the camera shakes",)
    assert moving.grade in "EF"
    assert moving.reasons == ("the camera moves",)


@pytest.mark.parametrize("size", [(120, 160), (97, 131), (48, 64), (300, 250)])
def test_mirrored_input_has_the_same_grade(size: tuple[int, int]) -> None:
    frames, _, scene = moving_square(height=size[0], width=size[1], side=size[0] // 4)
    shot, image = samples_of(frames), with_ghost(scene, 10)
    mirrored = replace(
        shot,
        images=[np.ascontiguousarray(one[:, ::-1]) for one in shot.images],
        changes=[np.ascontiguousarray(one[:, ::-1]) for one in shot.changes],
        noise=np.ascontiguousarray(shot.noise[:, ::-1]),
    )
    quality, other = graded(shot, image), graded(mirrored, np.ascontiguousarray(image[:, ::-1]))
    assert quality.grade == other.grade
    assert quality.score == pytest.approx(other.score, abs=0.01)


def test_graded_twice_is_the_same_and_nothing_is_changed(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    images, before = [image.copy() for image in shot.images], scene.copy()
    assert graded(shot, with_ghost(scene, 30)) == graded(shot, with_ghost(scene, 30))
    assert all(np.array_equal(one, other) for one, other in zip(images, shot.images, strict=True))
    assert np.array_equal(before, scene)


def test_one_frame_and_tiny_pictures_have_a_grade() -> None:
    for frames in (moving_square(num_frames=1)[0], np.zeros((3, 1, 1, 3), np.uint8), np.zeros((5, 9, 2, 3), np.uint8)):
        quality = graded(samples_of(frames), frames[0])
        assert 0 <= quality.score <= 1
        assert quality.grade in GRADES


def test_another_size_is_refused(world: tuple[ShotSamples, Frames]) -> None:
    shot, scene = world
    with pytest.raises(ValueError, match="samples' size"):
        graded(shot, scene[:60])


# Real shots: are the grades right?

SOME = ("office", "cavignal", "humanbody2", "peds", "cyclists", "skiing", "jump", "board")


@pytest.fixture(scope="module")
def grades() -> Iterator[Any]:
    """The benchmark that grades real shots."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("grades")
    sys.path.remove(str(BENCHMARKS))


def check(rows: list[dict[str, Any]], grades: Any, name: str, report: list[str]) -> None:
    rho, alone = grades.spearman(rows), grades.spearman([row for row in rows if row["method"] == "auto"])
    report.append(
        f"grades, {name}: {len(rows)} backgrounds, Spearman {rho:.2f} with the masks' F1, auto alone {alone:.2f}"
    )
    wrong = [f"{row['sequence']} {row['method']}" for row in rows if row["f1"] < 0.5 and row["grade"] in "ABC"]
    assert not wrong
    assert rho >= 0.7
    assert alone >= 0.7


def test_real_shots_in_short(real_data: Path, grades: Any, report: list[str]) -> None:
    rows = [row for name in SOME for row in grades.rows_of("gt", real_data, [name], ["auto", "median"], max_masks=15)]
    check(rows, grades, "8 real shots", report)


@pytest.mark.full
def test_real_shots(real_data: Path, grades: Any, report: list[str]) -> None:
    methods = ["auto", "median", "patches", "plate"]
    rows = [row for truth in ("gt", "ut") for row in grades.rows_of(truth, real_data, [], methods)]
    check(rows, grades, "36 real shots", report)
    good = [row["grade"] in "AB" for row in rows if row["f1"] > 0.9]
    report.append(f"grades: {np.mean(good):.0%} of the backgrounds with an F1 above .9 are A or B")
    assert np.mean(good) > 0.8
