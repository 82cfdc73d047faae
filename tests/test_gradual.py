"""Dissolves and fades that we made, what resembles them, and real videos of one shot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_shots import is_video, moved, seen_by, textured, thumbnails, with_square
from worlds import moving_square

from bgaug.shots.boundaries import MAX_HELD, REASONS, ShotFinder, shots_between
from bgaug.shots.gradual import Boundary
from bgaug.video import thumbnail_of

Frames = NDArray[np.uint8]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def shot(seed: int, length: int) -> Frames:
    """A still camera with noise, before which a square moves."""
    frames = seen_by(textured(seed, 200, 240), moved(np.zeros((length, 2))), seed=seed)
    return with_square(frames, 30)


def mixed(old: Frames, new: Frames, share: NDArray[np.float64]) -> Frames:
    """(1 - a) old + a new, frame by frame."""
    a = share[:, None, None, None]
    return np.rint((1 - a) * old + a * new).astype(np.uint8)


def linear(length: int) -> NDArray[np.float64]:
    return np.arange(1, length + 1) / (length + 1)


def dissolved(old: Frames, new: Frames, length: int, soft: bool = False) -> Frames:
    """Two shots whose last and first frames overlap."""
    a = linear(length)
    middle = mixed(old[-length:], new[:length], a * a * (3 - 2 * a) if soft else a)
    return np.concatenate([old[:-length], middle, new[length:]])


def faded(old: Frames, new: Frames, length: int, still: int = 2, colour: tuple[int, int, int] = BLACK) -> Frames:
    """A fade out, some flat frames, a fade in."""
    flat = np.broadcast_to(np.array(colour, np.uint8), (max(length, still), *old.shape[1:]))
    out, back = mixed(old[-length:], flat[:length], linear(length)), mixed(flat[:length], new[:length], linear(length))
    return np.concatenate([old[:-length], out, flat[:still], back, new[length:]])


def found_in(images: Sequence[Frames] | Iterator[Frames]) -> list[Boundary]:
    """The boundaries of a stream of thumbnails; checks that the finder keeps what it promises."""
    finder, found, settled, count = ShotFinder(), list[Boundary](), 0, 0
    for thumbnail in images:
        new = finder.feed(thumbnail)
        count += 1
        assert all(settled <= each.start <= finder.num_settled for each in new)
        assert max(settled, count - MAX_HELD) <= finder.num_settled <= count
        settled, found = finder.num_settled, found + new
    last = finder.finish()
    assert all(settled <= each.start <= count for each in last)
    found += last
    edges = [0, *(edge for each in found for edge in each[:2]), count]
    assert edges == sorted(edges)
    return found


def boundaries_of(frames: Frames) -> list[Boundary]:
    return found_in([thumbnail_of(image) for image in frames])


def check(found: Boundary, stop: int, start: int, kind: str, tolerance: int = 3) -> None:
    assert found.kind == kind
    assert abs(found.stop - stop) <= tolerance and abs(found.start - start) <= tolerance, (found, stop, start)


@pytest.mark.parametrize("length", [5, 8, 15, 30, 60])
@pytest.mark.parametrize("soft", [False, True])
def test_a_dissolve_is_found_where_it_is(length: int, soft: bool) -> None:
    frames = dissolved(shot(1, 50 + length), shot(2, 50 + length), length, soft)
    (found,) = boundaries_of(frames)
    check(found, 50, 50 + length, "dissolve", 3 + length // 10)
    mirrored = boundaries_of(frames[::-1])
    check(mirrored[0], 50, 50 + length, "dissolve", 3 + length // 10)
    assert len(mirrored) == 1


@pytest.mark.parametrize("colour", [BLACK, WHITE])
@pytest.mark.parametrize(("length", "still"), [(5, 1), (15, 2), (40, 10), (12, 150)])
def test_a_fade_is_found_where_it_is(length: int, still: int, colour: tuple[int, int, int]) -> None:
    frames = faded(shot(3, 40 + length), shot(4, 40 + length), length, still, colour)
    (found,) = boundaries_of(frames)
    check(found, 40, 40 + 2 * length + still, "fade", 3 + length // 10)


def test_fades_at_the_start_and_at_the_end() -> None:
    black = np.zeros((1, 120, 160, 3), np.uint8)
    whole = shot(5, 100)
    opened = mixed(black.repeat(20, 0), whole[:20], linear(20))
    closed = mixed(whole[-20:], black.repeat(20, 0), linear(20))
    first, last = boundaries_of(np.concatenate([black.repeat(8, 0), opened, whole[20:-20], closed, black]))
    check(first, 0, 28, "fade")
    check(last, 88, 109, "fade")
    assert first.stop == 0 and last.start == 109
    assert shots_between([first, last], 109) == [(first.start, last.stop)]


def test_a_fade_out_before_a_hard_cut_ends_there() -> None:
    black = np.zeros((15, 120, 160, 3), np.uint8)
    out = mixed(shot(6, 55)[-15:], black, linear(15))
    (found,) = boundaries_of(np.concatenate([shot(6, 55)[:-15], out, black[:6], shot(7, 40)]))
    check(found, 40, 61, "fade")
    assert found.start == 61


def test_transitions_and_cuts_next_to_each_other() -> None:
    """A dissolve, half a second later another one, ten frames later a cut."""
    first = dissolved(shot(8, 60), shot(9, 42), 15)
    frames = dissolved(first, shot(10, 25), 15)
    found = boundaries_of(np.concatenate([frames, shot(11, 40)]))
    assert [each.kind for each in found] == ["dissolve", "dissolve", "cut"]
    check(found[0], 45, 60, "dissolve")
    check(found[1], 72, 87, "dissolve")
    assert found[2] == (97, 97, "cut")


def test_hard_cuts_are_as_before() -> None:
    frames = np.concatenate([shot(seed, length) for seed, length in ((1, 30), (2, 7), (3, 40))])
    assert boundaries_of(frames) == [(30, 30, "cut"), (37, 37, "cut")]


def test_a_dissolve_of_moving_cameras() -> None:
    worlds = [cv2.GaussianBlur(textured(seed, 120, 400), (0, 0), 4) for seed in (12, 13)]  # coarse, as most scenes
    old, new = (np.stack([world[:, t : t + 160] for t in range(75)]).astype(np.uint8) for world in worlds)
    (found,) = boundaries_of(dissolved(old, new, 15))
    check(found, 60, 75, "dissolve", 6)


def resembling() -> Iterator[tuple[str, Frames]]:
    """Shots that change much and slowly, but are one shot each."""
    rng = np.random.default_rng(0)
    world = textured(14, 200, 240)
    for step in (1, 4, 9):
        wide = textured(15, 120, 160 + 80 * step)
        stop_and_go = np.clip(np.arange(-30, 110), 0, 60) * step
        yield f"pan {step}", np.stack([wide[:, x : x + 160] for x in stop_and_go])
    for zoom in (1.3, 2.5):
        scales = [*[1.0] * 30, *np.geomspace(1, zoom, 40), *[zoom] * 30]
        yield f"zoom {zoom}", seen_by(world, np.stack([cv2.getRotationMatrix2D((120, 100), 0, z) for z in scales]))
    yield "shaking", seen_by(world, moved(rng.normal(0, 5, (120, 2))))
    still = shot(16, 120)
    dark = still.copy()
    dark[40:] = dark[40:] * (1 - 0.75 * np.clip(np.arange(80) / 25, 0, 1))[:, None, None, None]
    yield "a light goes down", dark
    flash = still.copy()
    bright = 0.8 * np.concatenate([np.linspace(0, 1, 6), np.linspace(1, 0, 6)])
    flash[50:62] = mixed(flash[50:62], np.full_like(flash[50:62], 255), bright)
    yield "a flash", flash
    close = still.copy()
    for t in range(40):  # a wall of cloth crosses the whole image
        left = -200 + 9 * t
        close[40 + t, :, max(0, left) : max(0, left + 200)] = (70, 40, 50)
    yield "a person close to the camera", close
    blurred = still.copy()
    for t in range(40):
        side = 1 + 2 * min(t, 39 - t)
        blurred[40 + t] = cv2.blur(blurred[40 + t], (side, side))
    yield "the focus is lost and found", blurred
    yield "noise", np.clip(still + rng.normal(0, 25, still.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "frames"), [pytest.param(*each, id=each[0]) for each in resembling()])
def test_what_resembles_a_transition_is_none(name: str, frames: Frames) -> None:
    assert boundaries_of(frames) == [], name


def test_still_videos_hold_no_frame() -> None:
    """The memory of a video without changes does not grow, and neither does its delay."""
    finder = ShotFinder()
    still = seen_by(textured(17, 200, 240), moved(np.zeros((60, 2))))
    for count, image in enumerate(still, start=1):
        assert finder.feed(thumbnail_of(image)) == [] and finder.num_settled == count


def test_every_kind_has_its_reason() -> None:
    assert {"dissolve", "fade"} == set(REASONS)
    assert shots_between([], 0) == [] and shots_between([], 7) == [(0, 7)]


def test_thumbnails_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"thumbnail must be uint8 \(60, 80, 3\)"):
        ShotFinder().feed(np.zeros((60, 80), np.uint8))


# --- real videos ------------------------------------------------------------------------------------------------------


every = pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.full)])
"""The short form uses one real video of eight."""


@every
def test_real_shots_hold_no_transition(real_data: Path, every: int) -> None:
    folders = ("backgrounds", "moving/davis", "actions/ut_interaction_set1", "actions/jhmdb/videos", "clips")
    paths = [path for each in folders for path in sorted((real_data / each).rglob("*")) if is_video(path)]
    assert len(paths) > 800
    for path in paths[::every]:
        assert [each for each in found_in(thumbnails(path)) if each.kind != "cut"] == [], path.name


def test_real_shots_that_we_dissolve(real_data: Path) -> None:
    folders = [real_data / "backgrounds" / name for name in ("sbi_highwayi", "cdnet_office", "ucsd_skiing")]
    shots = [np.stack(list(islice(thumbnails(next(folder.glob("video.*"))), 70))) for folder in folders]
    frames = dissolved(dissolved(shots[0], shots[1], 15), shots[2], 15)
    first, second = found_in(list(frames))
    check(first, 55, 70, "dissolve", 5)
    check(second, 110, 125, "dissolve", 5)


def test_a_dissolve_of_a_real_film(real_data: Path) -> None:
    """Seen by eye: the new image appears at 150, and the old one has gone at 179."""
    found = found_in(thumbnails(real_data / "torture" / "tc_nasa_13013.mp4"))
    check(found[0], 150, 179, "dissolve", 2)
    assert found[1:] == [(240, 240, "cut")]


@pytest.mark.parametrize("seed", range(4))
def test_a_bright_square_on_a_smooth_scene_is_no_dissolve(seed: int) -> None:
    """Its way from place to place is nearly a mixture of both, and it has all the detail; but most cells stay equal."""
    assert boundaries_of(moving_square(seed, 150)[0]) == []
