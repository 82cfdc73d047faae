"""Masks from motion, and backgrounds of cameras that move: textured scenes and cameras whose every move we made."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import shot_of, textured

from bgaug.background.flow import (
    WindowFlow,
    along_flow,
    camera_between,
    camera_flow,
    mapped,
    sampled,
    stride_of,
    window_flow,
)
from bgaug.background.shown import filling_error, where_shown
from bgaug.background.views import background_view, masked_background
from bgaug.masks.motion import MotionMasks, WindowMasks, motion_masks
from bgaug.masks.motion.classifier import Classifier, fitted
from bgaug.masks.motion.consensus import FINE, Colours, Consensus
from bgaug.masks.motion.cues import FIRST, PERSON, SECOND, Window, first_cues, second_cues, speed_against_camera
from bgaug.masks.motion.masks import OVERLAP, WINDOW, _cleaned

Images = list[NDArray[np.uint8]]
Masks = list[NDArray[np.bool_]]
H, W = 120, 160


def panned(
    num_frames: int, *, speed: float = 2.0, zoom: float = 0.0, body: bool = True
) -> tuple[Images, Images, Masks]:
    """Frames of a camera that pans over a textured scene in which a disc walks, the scene alone, and true masks."""
    scene = textured(3, 2 * H, 4 * W)
    disc = textured(8, 60, 60)[:, :, ::-1] // 2 + np.array([110, 20, 10], np.uint8)
    frames, plates, masks = [], [], []
    for t in range(num_frames):
        scale = 1 + zoom * t
        camera = np.array([[scale, 0, -scale * (20 + speed * t)], [0, scale, -scale * 40]])
        plate = cv2.warpAffine(scene, camera, (W, H), flags=cv2.INTER_LINEAR)
        frame, mask = np.asarray(plate, np.uint8).copy(), np.zeros((H, W), np.uint8)
        if body:
            x, y = 40 + 2 * t, 60
            cv2.circle(mask, (x, y), 18, 255, -1)
            patch = np.zeros_like(frame)
            patch[y - 30 : y + 30, max(0, x - 30) : x + 30] = disc[:, max(0, 30 - x) :][:, : W - max(0, x - 30)]
            frame = np.where(mask[..., None] > 0, patch, plate)
        frames.append(np.asarray(frame, np.uint8))
        plates.append(np.asarray(plate, np.uint8))
        masks.append(mask > 0)
    return frames, plates, masks


def odds_of(masks: Masks) -> NDArray[np.float32]:
    """Log odds of foreground that are sure of these masks, at half size."""
    small = [cv2.resize(mask.astype(np.uint8), (mask.shape[1] // 2, mask.shape[0] // 2)) > 0 for mask in masks]
    return np.where(np.stack(small), np.float32(6), np.float32(-6))


def iou(mask: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float((mask & true).sum() / max(1, (mask | true).sum()))


def shown(found: MotionMasks) -> Masks:
    return [found.masks.at(t) for t in range(len(found.masks))]


def whole(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return cv2.resize(mask.astype(np.uint8), (W, H), interpolation=cv2.INTER_LINEAR) > 0


def test_a_homography_is_found_in_its_own_flow_next_to_a_body_that_moves_otherwise() -> None:
    true = np.array([[1.02, 0.01, 1.5], [-0.01, 1.01, -0.7], [1e-5, -2e-5, 1]])
    flow = camera_flow(true, 60, 80)
    flow[20:40, 30:50] += 5
    found = camera_between(flow)
    points = np.array([[0.0, 0], [79, 0], [0, 59], [79, 59]])
    assert np.abs(mapped(found, points) - mapped(true, points)).max() < 0.05


def test_a_flow_without_points_gives_a_camera_that_stands() -> None:
    assert np.array_equal(camera_between(np.ones((4, 4, 2), np.float32)), np.eye(3))
    assert np.array_equal(camera_between(np.ones((60, 80, 2), np.float32), np.zeros((60, 80), np.bool_)), np.eye(3))


@pytest.mark.parametrize(("fps", "stride"), [(5, 1), (12, 1), (15, 1), (24, 2), (25, 2), (29.97, 2), (30, 2), (60, 4)])
def test_flow_is_measured_about_fifteen_times_a_second(fps: float, stride: int) -> None:
    assert stride_of(fps) == stride


def test_a_layer_is_sampled_where_the_flow_points_to() -> None:
    layer = np.arange(20, dtype=np.float32).reshape(4, 5)
    flow = np.zeros((4, 5, 2), np.float32)
    flow[..., 0] = 1
    assert np.array_equal(sampled(layer, flow)[:, :-1], layer[:, 1:])


def test_a_mean_along_the_flow_follows_a_pixel_that_moves() -> None:
    """A spot that moves by one pixel per frame keeps its value of 1; without flow it would be smeared."""
    layers = np.zeros((5, 6, 12), np.float32)
    for t in range(5):
        layers[t, 3, 3 + t] = 1
    ahead = np.zeros((4, 6, 12, 2), np.float32)
    ahead[..., 0] = 1
    camera = np.tile(np.eye(3), (4, 1, 1))
    moving = along_flow(layers, WindowFlow(ahead, -ahead, camera, camera), 0.9)
    still = along_flow(layers, WindowFlow(0 * ahead, 0 * ahead, camera, camera), 0.9)
    assert [moving[t, 3, 3 + t] for t in range(5)] == pytest.approx([1] * 5)
    assert still.max() < 0.5
    assert moving.sum() == pytest.approx(layers.sum(), rel=0.01)


def test_pixels_of_one_colour_and_place_share_their_mean() -> None:
    lab = np.zeros((1, 12, 12, 3), np.uint8)
    lab[..., 0] = 30
    lab[:, :, 6:, 0] = 200
    votes = np.zeros((1, 12, 12), np.float32)
    votes[:, ::2] = 1
    votes[:, :, 6:] *= 0.5
    mean = Consensus(lab, FINE).mean(votes, np.ones_like(votes), 8)
    assert mean[0, :, :6] == pytest.approx(0.5, abs=0.1)
    assert mean[0, :, 6:] == pytest.approx(0.25, abs=0.05)


def test_a_colour_that_is_only_inside_has_the_largest_ratio() -> None:
    lab = np.full((1, 10, 10, 3), 40, np.uint8)
    lab[:, 3:6, 3:6] = 200
    inside = np.zeros((1, 10, 10), np.float32)
    inside[:, 3:6, 3:6] = 1
    ratio = Colours(lab).log_ratio(inside, 1 - inside)
    assert ratio[0, 4, 4] == 4
    assert ratio[0, 0, 0] == -4


def test_a_hidden_unit_and_a_weighted_sum_in_closed_form() -> None:
    cues = np.array([[[[1.0, -2.0]]]], np.float32)
    plain = Classifier(None, np.array([3, 1], np.float32), 0.5)
    hidden = Classifier(
        (np.array([[1], [0.5]], np.float32), np.array([0.25], np.float32)), np.array([2], np.float32), 1
    )
    assert plain(cues)[0, 0, 0] == pytest.approx(1.5)
    assert hidden(cues)[0, 0, 0] == pytest.approx(1 + 2 * np.tanh(0.25))


def test_the_fitted_weights_belong_to_the_cues() -> None:
    classifiers = fitted()
    hidden = classifiers["first"].hidden
    assert hidden is not None
    assert hidden[0].shape[0] == len(FIRST)
    assert classifiers["second"].weights.shape == (len(SECOND),)
    assert classifiers["person"].weights.shape == (len(SECOND + PERSON),)


def test_nothing_moves_against_a_camera_that_pans_and_zooms() -> None:
    frames, _, _ = panned(6, zoom=0.004, body=False)
    speed = speed_against_camera(window_flow(frames))
    assert np.median(speed) < 0.1
    assert np.quantile(speed, 0.95) < 0.4


def test_a_body_before_a_camera_that_pans_is_found() -> None:
    frames, _, masks = panned(17)
    found = motion_masks(frames[::2], len(frames), 2)
    assert found is not None
    assert (len(found.masks), *found.masks.size) == (17, H // 2, W // 2)
    scores = [iou(whole(mask), true) for mask, true in zip(shown(found), masks, strict=True)]
    assert np.mean(scores) > 0.7, scores
    assert min(scores) > 0.5, scores  # frames between those that were looked at, too
    assert found.expected.mean() > 0.5


def test_an_empty_scene_expects_little_of_its_masks() -> None:
    frames, _, _ = panned(9, body=False)
    empty = motion_masks(frames, len(frames), 1)
    full = motion_masks(panned(9)[0], 9, 1)
    assert empty is not None
    assert full is not None
    assert empty.expected.mean() < full.expected.mean() - 0.15


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames_have_no_motion(count: int) -> None:
    assert motion_masks(panned(2)[0][:count], count, 1) is None


def test_tiny_frames_have_no_masks() -> None:
    assert motion_masks([frame[:20, :20] for frame in panned(4)[0]], 4, 1) is None


def test_windows_cover_every_frame_once_and_hand_over() -> None:
    frames, _, masks = panned(8)
    repeated = [frames[(t % 14 if t % 14 < 8 else 14 - t % 14)] for t in range(2 * WINDOW - OVERLAP + 3)]
    covered: list[int] = []
    sizes: list[int] = []

    def note(found: WindowMasks) -> None:
        covered.extend(range(found.start + found.first, found.start + found.last))
        sizes.append(len(found.window.frames))
        assert len(found.odds) == len(found.window.frames)

    found = motion_masks(iter(repeated), len(repeated), 1, on_window=note)
    assert found is not None
    assert covered == list(range(len(repeated)))
    assert max(sizes) == WINDOW
    assert len(found.masks) == len(repeated)
    assert iou(whole(found.masks.at(WINDOW - OVERLAP // 2)), masks[(WINDOW - OVERLAP // 2) % 14]) > 0.6


class Disc:
    """A network that marks a disc in the middle of every image."""

    def share(self, image: NDArray[np.uint8], size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        height, width = size or image.shape[:2]
        canvas = np.zeros((height, width), np.uint8)
        cv2.circle(canvas, (width // 2, height // 2), height // 4, 255, -1)
        return np.asarray(canvas / 255, np.float32)


def test_a_network_finds_who_does_not_move() -> None:
    frames, _, _ = panned(9, body=False)
    found = motion_masks(frames, 9, 1, network=Disc())
    true = np.zeros((H, W), np.uint8)
    cv2.circle(true, (W // 2, H // 2), H // 4, 255, -1)
    assert found is not None
    assert np.mean([iou(whole(mask), true > 0) for mask in shown(found)]) > 0.4


def test_cues_have_their_places() -> None:
    window = Window.of(panned(4)[0])
    first = first_cues(window)
    scores = np.zeros(first.shape[:3], np.float32)
    assert first.shape == (4, H // 2, W // 2, len(FIRST))
    assert second_cues(window, first, scores).shape[-1] == len(SECOND)
    assert second_cues(window, first, scores, np.abs(scores)).shape[-1] == len(SECOND + PERSON)
    assert np.isfinite(first).all()
    still = first_cues(window, window.half[0])[0]
    assert still[..., FIRST.index("change")] == pytest.approx(np.log(4))


def test_specks_go_and_small_holes_are_filled() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[10:40, 10:40] = True
    mask[20:24, 20:24] = False  # a hole of 16 pixels
    mask[50:53, 70:73] = True  # a speck
    expected = np.zeros_like(mask)
    expected[10:40, 10:40] = True
    assert np.array_equal(_cleaned(mask), expected)


@pytest.mark.parametrize("zoom", [0.0, 0.002])
def test_the_background_behind_a_body_is_seen_in_other_frames(zoom: float) -> None:
    frames, plates, masks = panned(25, zoom=zoom)
    seen = background_view(frames, window_flow(frames), odds_of(masks), 12)
    error = np.abs(seen.background.image.astype(int) - plates[12]).max(-1)
    assert seen.background.image.shape == (H, W, 3)
    assert seen.seen > 0.95
    assert seen.background.valid.mean() > 0.99
    assert error[masks[12]].mean() < 12
    assert error[~masks[12]].mean() < 6
    assert np.abs(frames[12].astype(int) - plates[12]).max(-1)[masks[12]].mean() > 40  # the body is another


def test_what_no_frame_saw_is_filled_and_not_valid() -> None:
    frames, plates, _ = panned(9, speed=0, body=False)
    odds = np.full((9, H // 2, W // 2), -6, np.float32)
    odds[:, 20:40, 30:50] = 6
    seen = background_view(frames, window_flow(frames), odds, 4)
    assert seen.seen == 0
    assert not seen.background.valid[50:70, 70:90].any()
    assert seen.background.valid[:20].all()
    assert np.array_equal(seen.background.image[:20], plates[4][:20])


def stands_then_walks(scene: NDArray[np.uint8]) -> tuple[Images, Images, Masks]:
    """A camera that pans over a scene; a person stands in it for more than half of the frames, then walks away."""
    clothes = textured(8, 40, 24)[:, :, ::-1] // 2 + np.array([110, 20, 10], np.uint8)
    frames, plates, masks = [], [], []
    for t in range(25):
        x = 110 + 5 * max(0, t - 14)
        frame, mask = scene.copy(), np.zeros(scene.shape[:2], np.bool_)
        frame[40:80, x : x + 24], mask[40:80, x : x + 24] = clothes, True
        view = np.s_[:H, 20 + 2 * t : 20 + 2 * t + W]
        frames.append(np.ascontiguousarray(frame[view]))
        plates.append(np.ascontiguousarray(scene[view]))
        masks.append(np.ascontiguousarray(mask[view]))
    return frames, plates, masks


def doubtful(masks: Masks) -> NDArray[np.float32]:
    """Log odds that find a body where it walks, and hardly where it stands."""
    odds = odds_of(masks)
    odds[:15] = np.where(odds[:15] > 0, -2.5, -6)
    return odds


def test_on_plain_ground_a_person_who_stood_still_is_not_left_in_the_background() -> None:
    frames, plates, masks = stands_then_walks((textured(3, 2 * H, 4 * W) // 8 + 110).astype(np.uint8))
    flow = window_flow(frames)
    for place in (4, 20):
        seen = background_view(frames, flow, doubtful(masks), place)
        error = np.abs(seen.background.image.astype(int) - plates[place]).max(-1)
        assert error[masks[place]].mean() < 6
        assert error[~masks[place]].mean() < 6


def test_textured_ground_that_looks_a_little_like_a_body_is_kept() -> None:
    """Filling would be wrong there by dozens of grey levels; on plain ground the same odds are too high."""
    frames, plates, _ = panned(17, body=False)
    odds = np.full((17, H // 2, W // 2), -6, np.float32)
    odds[:, 20:40, 30:50] = -1
    seen = background_view(frames, window_flow(frames), odds, 8)
    assert seen.background.valid.all()
    assert np.abs(seen.background.image.astype(int) - plates[8]).max(-1).mean() < 6


def test_colour_decides_about_doubtful_pixels_on_plain_ground() -> None:
    odds = np.full((H, W), -6, np.float32)
    odds[90:110, 60:100] = 6
    odds[20:60, 20:60] = odds[20:60, 100:140] = -2.5
    here = np.full((H, W, 3), 120, np.uint8)
    here[20:60, 100:140] = here[90:110, 60:100] = (200, 40, 40)
    hides, counted = where_shown(here, odds, [here], [odds])
    assert hides[25:55, 105:135].all() and hides[90:110, 60:100].all()
    assert not hides[15:65, 15:65].any()  # the same odds, and the colour of the ground
    assert np.array_equal(counted[0], ~hides)


def test_the_error_of_filling_is_that_of_the_ground_around() -> None:
    region = np.zeros((60, 80), np.bool_)
    region[20:40, 30:50] = True
    plain, noisy = np.full((60, 80, 3), 90, np.uint8), np.full((60, 80, 3), 90, np.uint8)
    noisy[::2] = 150
    plain[region] = noisy[region] = 255  # what is in the region itself does not count
    assert filling_error(plain, region) < 0.01
    assert filling_error(noisy, region) == pytest.approx(30, abs=3)
    assert np.isnan(filling_error(plain, np.zeros_like(region)))
    assert np.isnan(filling_error(plain, np.ones_like(region)))


def test_a_frame_that_is_all_alike_in_its_odds_is_kept() -> None:
    frames, _, _ = panned(5, body=False)
    for value, kept in ((-6.0, True), (6.0, False)):
        odds = np.full((5, H // 2, W // 2), value, np.float32)
        seen = background_view(frames, window_flow(frames), odds, 2)
        assert bool(seen.background.valid.all()) == kept
        assert np.array_equal(seen.background.image, frames[2])


def test_a_camera_that_stands_has_the_median_of_what_no_mask_covers() -> None:
    frames, plates, masks = panned(30, speed=0)
    seen = masked_background(shot_of(frames), masks)
    assert np.abs(seen.background.image.astype(int) - plates[0]).mean() < 2
    assert seen.background.valid.all()
