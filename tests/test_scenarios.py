from __future__ import annotations

import cv2
import numpy as np
import pytest

from bgaug.testing.scenarios import PAN, SCENARIOS, Scenario, make_scenario

SIZE, NUM_FRAMES = (120, 160), 120


@pytest.fixture(scope="module")
def made() -> dict[str, Scenario]:
    return {name: make_scenario(name, size=SIZE, num_frames=NUM_FRAMES) for name in SCENARIOS}


def background_at(scenario: Scenario, t: int) -> np.ndarray:
    """The true background as frame t shows it, float32 (H, W, 3)."""
    shot = sum(t >= cut for cut in scenario.cuts)
    back = np.array([[1, 0, -scenario.moves[t, 0]], [0, 1, -scenario.moves[t, 1]]], np.float32)
    picture = scenario.backgrounds[shot].astype(np.float32)
    moved = cv2.warpAffine(picture, back, SIZE[::-1]) if scenario.moves[t].any() else picture
    seen: np.ndarray = np.asarray(moved) * scenario.gains[t]
    return seen


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in ("shadow", "lights")])
def test_outside_the_masks_is_the_background(made: dict[str, Scenario], name: str) -> None:
    scenario = made[name]
    noise = 8 if name == "noisy" else 2
    for t in (0, 31, 59, 60, 61, 100, 119):
        near = cv2.dilate(scenario.masks[t].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        # What a pan brings into view is not in the reference image.
        unseen = np.zeros(SIZE, np.bool_)
        dx, dy = (round(float(np.ceil(abs(move)))) for move in scenario.moves[t])
        if dx:
            unseen[:, :dx] = unseen[:, -dx:] = True
        if dy:
            unseen[:dy] = unseen[-dy:] = True
        error = scenario.frames[t].astype(np.float32) - background_at(scenario, t)
        error = error[~near & ~unseen]
        assert abs(error.mean()) < 0.5, t
        # Rounding and warping a rounded image add a little to the noise, what is clipped takes some away.
        assert 0.85 * noise < error.std() < 1.15 * noise + 0.3, t
        assert (np.abs(error) > 6 * noise + 2).mean() < 1e-3, t


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in ("lowc", "noisy", "lights")])
def test_inside_the_masks_is_something_else(made: dict[str, Scenario], name: str) -> None:
    scenario = made[name]
    errors = [
        np.abs(scenario.frames[t].astype(np.float32) - background_at(scenario, t)).max(-1)[scenario.masks[t]]
        for t in (40, 60, 80)
    ]
    assert np.mean(np.concatenate(errors) > 20) > 0.7


def test_low_contrast_is_low_and_shadows_are_no_foreground(made: dict[str, Scenario]) -> None:
    def typical(scenario: Scenario) -> float:
        error = np.abs(scenario.frames[60].astype(np.float32) - background_at(scenario, 60)).max(-1)
        return float(np.median(error[scenario.masks[60]]))

    assert 15 < typical(made["lowc"]) < 0.8 * typical(made["occ20"])
    shadow = made["shadow"]
    darker = background_at(shadow, 60).mean(-1) - shadow.frames[60].astype(np.float32).mean(-1)
    assert (darker[~shadow.masks[60]] > 15).mean() > 0.01


def test_the_same_arguments_give_the_same_bytes() -> None:
    first, second, other = (make_scenario("occ40", seed, (96, 128), 12) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.masks, second.masks)
    assert not np.array_equal(first.backgrounds, other.backgrounds)
    assert not np.array_equal(first.backgrounds, make_scenario("occ60", 3, (96, 128), 12).backgrounds)


@pytest.mark.parametrize("share", [20, 40, 60])
def test_occupancy_is_as_named(share: int) -> None:
    scenario = make_scenario(f"occ{share}", size=(120, 160), num_frames=250)
    rows = scenario.masks.mean((0, 2))
    bodies = np.sort(rows)[-round(0.2 * 27) :]  # a fifth of a walker's height, where he is widest
    assert abs(bodies.mean() - share / 100) < 0.06


@pytest.mark.parametrize("share", [40, 60])
def test_a_person_who_stops_waits_so_long_and_leaves(made: dict[str, Scenario], share: int) -> None:
    masks = made[f"stop{share}"].masks
    assert not masks[0].any() and not masks[-1].any()
    always = masks.mean(0)
    assert share / 100 - 0.03 < always.max() < share / 100 + 0.25
    columns = np.arange(SIZE[1])
    centres = [np.average(columns, weights=masks[t].sum(0)) for t in range(NUM_FRAMES // 2 - 15, NUM_FRAMES // 2 + 15)]
    assert 0.2 < np.ptp(centres) < 2  # he sways by less than a pixel to either side


def test_the_slow_box_takes_most_of_the_clip(made: dict[str, Scenario]) -> None:
    assert 0.6 < made["slow"].masks.mean(0).max() < 0.72


def test_who_stays_never_leaves(made: dict[str, Scenario]) -> None:
    masks = made["stays"].masks
    share, area = masks.mean(0), masks.sum((1, 2))
    assert share[:, :80].max() == share[:, 80:].max() == 1
    assert (share > 0.9).sum() > 0.4 * area.mean()
    assert (share > 0).sum() > 1.3 * area.mean()  # and yet they move


@pytest.mark.parametrize("reach", [1, 3])
def test_jitter_is_bounded(made: dict[str, Scenario], reach: int) -> None:
    distance = np.hypot(*made[f"jitter{reach}"].moves.T)
    assert distance.max() <= reach and distance.mean() > 0.5 * reach
    assert distance[NUM_FRAMES // 2] == 0


def test_camera_light_and_cuts_are_as_named(made: dict[str, Scenario]) -> None:
    pan = made["pan"].moves
    assert float(np.ptp(pan[:, 0])) == pytest.approx(PAN) and not pan[:, 1].any()
    assert np.ptp(made["flicker"].gains) > 0.05 and np.abs(made["flicker"].gains - 1).max() <= 0.0601
    assert made["cut"].cuts == (NUM_FRAMES // 2,) and len(made["cut"].backgrounds) == 2
    for name in set(SCENARIOS) - {"pan", "jitter1", "jitter3"}:
        assert not made[name].moves.any()
    for name in set(SCENARIOS) - {"cut"}:
        assert made[name].cuts == () and len(made[name].backgrounds) == 1


def test_compression_keeps_the_picture() -> None:
    plain, packed = (make_scenario("multi", 0, (96, 128), 20, compress=compress) for compress in (False, True))
    assert packed.frames.shape == plain.frames.shape and np.array_equal(packed.masks, plain.masks)
    error = np.abs(packed.frames.astype(np.float32) - plain.frames)
    assert 0.5 < error.mean() < 8


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="unknown scenario 'rain'; there are occ20, .*stays"):
        make_scenario("rain")
    with pytest.raises(ValueError, match="at least 96x96"):
        make_scenario("occ20", size=(48, 64))
    with pytest.raises(ValueError, match="even to compress"):
        make_scenario("occ20", size=(97, 128), compress=True)


def test_lights_are_dimmed_in_places_and_nobody_is_large(made: dict[str, Scenario]) -> None:
    scenario = made["lights"]
    ratio = scenario.frames.mean(3) / scenario.backgrounds[0].mean(2)
    dimmed = (ratio < 0.8) & ~scenario.masks
    assert 0.1 < (dimmed.mean((1, 2)) > 0.01).mean() < 0.9
    assert made["tiny"].masks.mean() < 0.01 and scenario.masks.mean() < 0.01


def test_few_frames_show_other_people_and_the_rim_is_crowded(made: dict[str, Scenario]) -> None:
    assert len(make_scenario("few", size=(96, 96)).frames) == 6
    few = made["few"].masks
    assert (few[1:] & few[:-1]).mean() < 0.5 * few.mean()
    rows = made["rim"].masks.mean((0, 2))
    assert rows[-10:].mean() > 0.15 and rows[: SIZE[0] // 2].max() == 0
