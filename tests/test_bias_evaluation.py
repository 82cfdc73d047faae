"""Bias evaluation: composites in closed form and by plain loops, manifests, and encoders whose bias is known."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from stores import make_row
from torch import Tensor
from worlds import Recorder, moving_square, scene

from bgaug.background import Background
from bgaug.cli.evaluations import _bias_table
from bgaug.data.clips import evaluated_shot
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import StoreError, UsageError, WriteError
from bgaug.metrics.bias import (
    PUBLISHED,
    Stripes,
    class_scores,
    clear_shift,
    conflict,
    contrasted,
    drift,
    far_swap,
    fooled_most,
    freeze,
    grey_image,
    probabilities,
    regions,
    ring_swap,
    scene_behind,
    shifted,
)
from bgaug.model.checkpoint import load_run
from bgaug.pairs import composite
from bgaug.pipelines.build.importing import import_masks
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.evaluate.bias.composer import ClipReader, Composer, bias_sheet, video_group
from bgaug.pipelines.evaluate.bias.manifest import Manifest, read_manifest, write_manifest
from bgaug.pipelines.evaluate.bias.readout import head_of
from bgaug.pipelines.evaluate.bias.run import (
    BiasReport,
    evaluate_bias,
    plan_bias,
    score_bias,
)
from bgaug.pipelines.evaluate.bias.scenes import scene_shot
from bgaug.pipelines.evaluate.bias.scores import with_interval
from bgaug.pipelines.evaluate.features import Encoder
from bgaug.pipelines.evaluate.options import BiasOptions
from bgaug.pipelines.evaluate.report import Report
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.progress import Silent
from bgaug.store import (
    Header,
    Plan,
    PlannedVideo,
    ShardWriter,
    Shot,
    Store,
    VideoPayload,
    create_store,
    finish_store,
    open_store,
    write_bank,
)
from bgaug.video import write_video
from bgaug.visualize import image_sheet, write_image

T, STRIDE, CROP = 8, 2, 32
WAYS = {"down": (1, 0), "left": (0, -1), "right": (0, 1)}
TINTS = np.array([[90, 0, 0], [0, 90, 0], [0, 0, 90]])


# --- clips ------------------------------------------------------------------------------------------------------------


def clips_and_masks(seed: int = 0, size: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Clips (2, 3, 4, S, S), masks with a moving 6x5 box, other images (2, 3, 1, S, S)."""
    generator = torch.Generator().manual_seed(seed)
    clips, images = (torch.rand(2, 3, t, size, size, generator=generator) for t in (4, 1))
    masks = torch.zeros(2, 1, 4, size, size)
    for t in range(4):
        masks[0, 0, t, 8:14, 4 + t : 9 + t] = 1
        masks[1, 0, t, 2 + t : 8 + t, 15:20] = 1
    return clips, masks, images


def slow_distance(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Chebyshev distance of each pixel from the mask."""
    ys, xs = np.nonzero(mask)
    return np.array([[int(np.maximum(abs(ys - y), abs(xs - x)).min()) for x in range(24)] for y in range(24)])


def test_regions_are_those_of_a_plain_loop() -> None:
    _, masks, _ = clips_and_masks()
    parts = regions(masks, grow=1, feather=0, ring=3)
    for b in range(2):
        for t in range(4):
            away = slow_distance(masks[b, 0, t].numpy() > 0)
            assert np.array_equal(parts.foreground[b, 0, t].numpy(), away <= 1)
            assert np.array_equal(parts.ring[b, 0, t].numpy(), (away > 1) & (away <= 4))
            assert np.array_equal(parts.far[b, 0, t].numpy(), away > 4)


def test_regions_share_every_pixel_out() -> None:
    _, masks, _ = clips_and_masks()
    parts = regions(masks, grow=0.5, feather=1.3, ring=2.4)
    for part in (parts.foreground, parts.ring, parts.far):
        assert part.min() >= 0 and part.max() <= 1 and part.std() > 0
    torch.testing.assert_close(parts.foreground + parts.ring + parts.far, torch.ones_like(masks))


def test_a_mask_of_ones_gives_the_clip_and_one_of_zeros_the_image() -> None:
    clips, masks, images = clips_and_masks()
    whole, none = (regions(value, grow=1, feather=0) for value in (torch.ones_like(masks), torch.zeros_like(masks)))
    assert torch.equal(composite(clips, whole.foreground, images), clips)
    assert torch.equal(far_swap(clips, whole, images), clips) and torch.equal(ring_swap(clips, whole, images), clips)
    assert torch.equal(composite(clips, none.foreground, images), images.expand_as(clips))
    assert torch.equal(far_swap(clips, none, images), images.expand_as(clips))
    assert torch.equal(ring_swap(clips, none, images), clips)
    feathered = regions(torch.ones_like(masks), feather=1.5)
    torch.testing.assert_close(composite(clips, feathered.foreground, images), clips, atol=1e-6, rtol=0)


def test_the_own_background_changes_nothing_and_another_one_only_the_ring() -> None:
    things, masks, images = clips_and_masks()
    own = images.flip(0)
    clips = composite(things, masks, own)
    parts = regions(masks, grow=0, feather=0, ring=3)
    assert torch.equal(ring_swap(clips, parts, own), clips) and torch.equal(far_swap(clips, parts, own), clips)
    ring, far = ring_swap(clips, parts, images), far_swap(clips, parts, images)
    assert torch.equal(torch.where(parts.ring > 0, clips, ring), clips)
    assert torch.equal(torch.where(parts.ring > 0, ring, 0 * ring), torch.where(parts.ring > 0, images, 0 * ring))
    # Both at once are the whole swap.
    assert torch.equal(far_swap(ring, parts, images), composite(clips, parts.foreground, images))
    assert not torch.equal(ring, clips) and not torch.equal(far, clips)


def test_regions_refuse_other_shapes_and_lengths() -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, T, h, w\)"):
        regions(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="ring is pixels"):
        regions(torch.ones(1, 1, 1, 8, 8), ring=-1)
    with pytest.raises(ValueError, match="grow and sigma"):
        regions(torch.ones(1, 1, 1, 8, 8), grow=-1)


def test_freeze_repeats_one_frame_of_each_clip() -> None:
    clips, _, _ = clips_and_masks()
    frozen = freeze(clips, torch.tensor([3, 1]))
    for t in range(4):
        assert torch.equal(frozen[0, :, t], clips[0, :, 3]) and torch.equal(frozen[1, :, t], clips[1, :, 1])
    assert torch.equal(freeze(clips, 2), freeze(clips, torch.tensor([2, 2])))
    for frame in (4, -1):
        with pytest.raises(IndexError, match="4 frames"):
            freeze(clips, frame)


@pytest.mark.parametrize("shift", [-30, -7, 0, 5, 24])
def test_shifted_is_the_plain_loop(shift: int) -> None:
    image = torch.rand(2, 3, 24, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros_like(image)
    for x in range(24):
        if 0 <= x - shift < 24:
            expected[..., x] = image[..., x - shift]
    assert torch.equal(shifted(image, shift), expected)


def test_a_still_foreground_goes_where_it_is_seen() -> None:
    moving, still = np.zeros((16, 16)), np.zeros((16, 16))
    moving[4:12, 6:10] = still[4:12, 6:10] = 1
    assert clear_shift(moving, still) == -4  # as near on both sides: left before right
    moving[:, :6] = 1
    assert clear_shift(moving, still) == 4
    assert clear_shift(np.zeros((16, 16)), still) == 0 and clear_shift(np.ones((16, 16)), still) == 0
    rng = np.random.default_rng(0)
    for _ in range(20):
        moving, still = (rng.random((16, 24)) > 0.6).astype(float), (rng.random((16, 24)) > 0.7).astype(float)
        seen = {}
        for step in range(-4, 5):
            pairs = [(y, x) for y in range(16) for x in range(24) if 0 <= x + 3 * step < 24]
            seen[3 * step] = sum(still[y, x] * (1 - moving[y, x + 3 * step]) for y, x in pairs)
        assert seen[clear_shift(moving, still)] == max(seen.values())


def test_conflict_draws_the_mover_in_front_of_the_one_at_rest() -> None:
    clips, masks, images = clips_and_masks()
    still, still_mask = clips.flip(0)[:, :, :1], masks.flip(0)[:, :, :1]
    parts = regions(masks, feather=0)
    made = conflict(clips, parts, images, still, still_mask, 3)
    standing = shifted(still_mask, 3).bool()
    for b in range(2):
        for t in range(4):
            for y, x in ((10, 6), (10, 12), (5, 17), (5, 23), (9, 7 + t), (2 + t, 16)):
                where = images[b, :, 0, y, x]
                if standing[b, 0, 0, y, x]:
                    where = still[b, :, 0, y, x - 3]
                if masks[b, 0, t, y, x]:
                    where = clips[b, :, t, y, x]
                assert torch.equal(made[b, :, t, y, x], where)
    empty = torch.zeros_like(still_mask)
    assert torch.equal(conflict(clips, parts, images, still, empty, 0), composite(clips, masks, images))


def test_the_scene_behind_is_the_median_of_what_is_seen() -> None:
    frames, masks = (
        torch.rand(2, 3, 5, 24, 24, generator=torch.Generator().manual_seed(2)),
        torch.zeros(2, 1, 5, 24, 24),
    )
    for t in range(5):
        masks[0, 0, t, 8:14, 4 + t : 12 + t] = 1
        masks[1, 0, t, 2 + t : 12 + t, 15:20] = 0.01
    image, seen = scene_behind(frames, masks)
    assert image.shape == (2, 3, 1, 24, 24) and seen.shape == (2, 1, 1, 24, 24) and seen.dtype == torch.bool
    for b in range(2):
        for y in range(24):
            for x in range(24):
                shown = [frames[b, :, t, y, x].numpy() for t in range(5) if masks[b, 0, t, y, x] == 0]
                expected = np.sort(shown, axis=0)[(len(shown) - 1) // 2] if shown else np.zeros(3)
                assert np.array_equal(image[b, :, 0, y, x].numpy(), expected) and bool(seen[b, 0, 0, y, x]) == bool(
                    shown
                )
    assert 0 < int((~seen).sum()) < 100


# --- stripes ----------------------------------------------------------------------------------------------------------


def test_straight_stripes_have_their_period_width_and_colours() -> None:
    stripes = Stripes((0.9, 0.2, 0.4), width=8, period=32, amplitude=0, wavelength=100, phase=0.3, angle=0)
    image = stripes.image(128)
    assert image.shape == (3, 128, 128) and image.dtype == torch.float32
    assert torch.equal(image, image[:, :, :1].expand_as(image))  # they lie level
    torch.testing.assert_close(image[:, 16:], image[:, :-16])  # 32 of 256 are 16 of 128
    assert not torch.allclose(image[:, 8:], image[:, :-8])
    line, ground = torch.tensor([0.9, 0.2, 0.4]), torch.tensor([0.1, 0.8, 0.6])
    share = 8 / 32
    torch.testing.assert_close(image.mean(dim=(1, 2)), share * line + (1 - share) * ground, atol=1e-6, rtol=0)
    torch.testing.assert_close(image[:, 64, 0], line, atol=1e-6, rtol=0)
    torch.testing.assert_close(image[:, 72, 0], ground, atol=1e-6, rtol=0)


def test_a_quarter_turn_rotates_the_image_and_a_wave_moves_the_lines() -> None:
    straight = Stripes((1.0, 0.0, 0.0), width=10, period=40, amplitude=0, wavelength=128, phase=0, angle=0)
    turned = replace(straight, amplitude=30, angle=0.25).image(64)
    torch.testing.assert_close(turned, replace(straight, amplitude=30).image(64).rot90(-1, (1, 2)), atol=1e-5, rtol=0)
    # The middle line: 30 sin(2 pi u / 128) below the middle, u from the middle.
    waved = replace(straight, amplitude=30, period=400).image(256)[0]
    for x in range(0, 256, 16):
        column = waved[:, x].double()
        middle = float((column * (torch.arange(256) + 0.5)).sum() / column.sum())
        assert middle == pytest.approx(128 + 30 * np.sin(2 * np.pi * (x + 0.5 - 128) / 128), abs=1.0)


def test_stripes_depend_on_their_numbers_only_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        numbers = rng.random(9).tolist()
        stripes = Stripes.draw(numbers)
        assert stripes == Stripes.draw(numbers)
        assert 5 <= stripes.width < 20 and 3 <= stripes.period / stripes.width < 5
        assert 10 <= stripes.amplitude < 110 and 32 <= stripes.wavelength < 1024
        image = stripes.image(16)
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.01
        seen.add(stripes)
    assert len(seen) == 50
    for numbers in ([0.5] * 8, [0.5] * 8 + [1.0]):
        with pytest.raises(ValueError, match="nine numbers"):
            Stripes.draw(numbers)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_contrasted_accuracy_is_the_plain_loop() -> None:
    rng = np.random.default_rng(0)
    moving, still = rng.random(200) < 0.6, rng.random(200) < 0.3
    found = contrasted(moving, still)
    both = [moving[i] and not still[i] for i in range(200)]
    assert found.contrasted == sum(both) / 200 and found.pairs == 200 and not found.left_out
    assert (found.scuba, found.scufo) == (moving.mean(), still.mean())
    assert contrasted(moving, moving).contrasted == 0 and contrasted(moving, ~moving).contrasted == moving.mean()


def test_contrasted_pairs_by_name() -> None:
    scuba = ["val/a b__0.mp4", "val/c__1.avi", "val/c__01x__2", "only/here__3"]
    scufo = ["val/c__01x__2.webm", "val/a b__0", "val/c__1.mp4"]
    found = contrasted(np.array([True, True, False, True]), np.array([False, True, False]), scuba, scufo)
    assert found.pairs == 3 and found.left_out == ("only/here__3",)
    assert found.contrasted == 1 / 3 and found.scuba == 2 / 3 and found.scufo == 1 / 3


@pytest.mark.parametrize(
    ("scuba", "scufo", "scuba_ids", "scufo_ids", "message"),
    [
        (np.ones(2), np.ones(2, np.bool_), None, None, "scuba_hits must be bool"),
        (np.ones(2, np.bool_), np.ones(3, np.bool_), None, None, "got 2 and 3"),
        (np.ones(0, np.bool_), np.ones(0, np.bool_), None, None, "one or more"),
        (np.ones(1, np.bool_), np.ones(1, np.bool_), ["a__0"], None, "both sides"),
        (np.ones(1, np.bool_), np.ones(1, np.bool_), ["a"], ["a__0"], "name__k"),
        (np.ones(2, np.bool_), np.ones(1, np.bool_), ["a__0", "a__0.mp4"], ["a__0"], "a__0 twice"),
        (np.ones(1, np.bool_), np.ones(1, np.bool_), ["a__0", "a__1"], ["a__0"], "2 scuba ids for 1"),
        (np.ones(1, np.bool_), np.ones(1, np.bool_), ["a__0"], ["b__0"], "one or more"),
    ],
)
def test_contrasted_refuses(
    scuba: NDArray[np.bool_],
    scufo: NDArray[np.bool_],
    scuba_ids: list[str] | None,
    scufo_ids: list[str] | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        contrasted(scuba, scufo, scuba_ids, scufo_ids)


def test_drift_is_one_less_the_cosine() -> None:
    plain = np.array([[1.0, 0], [1, 0], [2, 0], [0, 0], [0, 0]])
    changed = np.array([[5.0, 0], [0, 1], [-1, 0], [0, 0], [1, 0]])
    assert drift(plain, changed).tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="one shape"):
        drift(plain, changed[:2])


def test_scores_and_probabilities_of_labels_by_loops() -> None:
    rng = np.random.default_rng(0)
    scores, classes, labels = 3 * rng.normal(size=(30, 4)), np.array([0, 2, 3, 7]), rng.integers(9, size=30)
    column = {0: 0, 2: 1, 3: 2, 7: 3}
    for i, label in enumerate(labels.tolist()):
        expected = scores[i, column[label]] if label in column else -np.inf
        assert class_scores(scores, classes, labels)[i] == expected
        share = np.exp(expected) / np.exp(scores[i]).sum()
        assert probabilities(scores, classes, labels)[i] == pytest.approx(share)


def test_the_donor_that_fooled_most_has_the_largest_sum() -> None:
    assert fooled_most(np.array([0.5, 0.3, 0.3, -0.2]), ["a", "b", "b", "c"]) == ("b", 0.6)
    assert fooled_most(np.array([0.5, 0.5]), ["z", "y"]) == ("y", 0.5)


# --- a biased world ---------------------------------------------------------------------------------------------------


def travelling_square(way: tuple[int, int], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A bright square that crosses 48x64 in 30 frames, (30, 48, 64, 3)."""
    frames = np.repeat(background[None], 30, 0)
    for t in range(30):
        place = np.array([18, 26]) + np.round(np.array(way) * (t - 14.5) * (1.2, 1.7)).astype(int)
        top, left = np.clip(place, 0, (36, 52))
        frames[t, top : top + 12, left : left + 12] = (250, 240, 30)
    return frames


@pytest.fixture(scope="module")
def biased_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three motions, each before backgrounds of its own tint, in four recordings."""
    folder = tmp_path_factory.mktemp("biased")
    lines = ["file,class_name,group,split"]
    for group in range(4):
        for label, (name, way) in enumerate(WAYS.items()):
            image = np.clip(0.6 * scene(10 * group + label) + TINTS[label], 0, 255).astype(np.uint8)
            write_video(folder / f"{name}{group}.mp4", travelling_square(way, image))
            lines.append(f"{name}{group}.mp4,{name},g{group},{'train' if group < 2 else 'test'}")
    (folder / "with_splits.csv").write_text("\n".join(lines))
    (folder / "labels.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines))
    return folder


def built(folder: Path, labels: str, out: Path) -> Store:
    build_shards(ShardOptions(inputs=[folder], out=out, in_process=True, labels=folder / labels, size=None), Silent())
    return open_store(out)


@pytest.fixture(scope="module")
def biased(biased_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return built(biased_videos, "labels.csv", tmp_path_factory.mktemp("biased_store") / "s")


def looks_at_background(clips: Tensor) -> Tensor:
    """Mean colour of the corners, which the foreground never crosses."""
    corners = [clips[..., y, x] for y in (slice(3), slice(-3, None)) for x in (slice(3), slice(-3, None))]
    return torch.stack([corner.mean(dim=(2, 3, 4)) for corner in corners]).mean(dim=0)


def looks_at_motion(clips: Tensor) -> Tensor:
    """Way of the place where successive frames differ; 0 where none do."""
    change = (clips[:, :, 1:] - clips[:, :, :-1]).abs().sum(dim=1)
    change = change * (change > 0.4)
    total = change.sum(dim=(2, 3)).clamp(min=1e-6)
    axis = torch.arange(clips.shape[-1], dtype=torch.float32)
    y = (change.sum(dim=3) * axis).sum(dim=2) / total
    x = (change.sum(dim=2) * axis).sum(dim=2) / total
    way = torch.stack([y[:, -1] - y[:, 0], x[:, -1] - x[:, 0]], dim=1)
    return torch.where(change.flatten(1).amax(dim=1, keepdim=True) > 0, way, torch.zeros_like(way))


def sees_nothing(clips: Tensor) -> Tensor:
    return torch.ones(len(clips), 2)


def plan(store: Store, options: BiasOptions | None = None) -> Manifest:
    return plan_bias(store, T, STRIDE, CROP, options or BiasOptions(min_grade=None), Silent())


def scored(
    store: Store, encoder: Encoder, options: BiasOptions | None = None, manifest: Manifest | None = None
) -> BiasReport:
    options = options or BiasOptions(min_grade=None)
    return score_bias(encoder, store, manifest or plan(store, options), Silent(), options=options)


@pytest.fixture(scope="module")
def manifest(biased: Store) -> Manifest:
    return plan(biased)


@pytest.fixture(scope="module")
def of_background(biased: Store, manifest: Manifest) -> BiasReport:
    return scored(biased, looks_at_background, manifest=manifest)


def test_an_encoder_of_backgrounds_goes_with_them(of_background: BiasReport) -> None:
    found = of_background.metrics
    expected: dict[str, float] = {
        "plain": 100,
        "background_only": 100,
        "static_clip": 100,
        "scuba": 0,
        "contrasted": 0,
        "far": 0,
    }
    expected |= {"swap_background": 100, "conflict_dynamic": 0, "scene_probe": 100, "ring": 100, "ring_drift": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.05)


def test_the_controls_leave_the_scene_to_an_encoder_of_backgrounds(of_background: BiasReport) -> None:
    found, settings = of_background.metrics, of_background.settings
    expected = {"self": 100, "same_class": 100, "hole": 100, "hole_shape": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.05)
    assert settings["same_class_videos"] == 12 and settings["masks_from"] == {"background": 12}
    assert settings["videos"] == settings["test_videos"] == 12 and settings["left_out"] == {}


def test_measures_have_their_published_names_and_intervals(of_background: BiasReport) -> None:
    found = of_background.metrics
    assert list(found)[: 3 * len(PUBLISHED) : 3] == list(PUBLISHED)
    for name, own in PUBLISHED.items():
        for end in ("", "_low", "_high"):
            assert found[name + end] == found[own + end]
    shares = [name for name in found if not name.endswith(("_low", "_high", "chance"))]
    assert len(shares) == 29
    for name in shares:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]


def test_intervals_resample_whole_groups() -> None:
    groups = np.repeat(["a", "b"], 50)
    # All of one group are right, and none of the other: a resampled mean is 0, a half or 1.
    assert with_interval("x", groups == "a", groups) == {"x": 0.5, "x_low": 0, "x_high": 1}
    alike = with_interval("x", np.tile([True, False], 50), groups)
    assert alike == {"x": 0.5, "x_low": 0.5, "x_high": 0.5}


def test_an_encoder_of_motion_does_the_reverse(biased: Store, manifest: Manifest) -> None:
    found = scored(biased, looks_at_motion, manifest=manifest).metrics
    chance = 100 / 3
    expected: dict[str, float] = {
        "plain": 100,
        "scuba": 100,
        "foreground_only": 100,
        "conflict_dynamic": 100,
        "conflict_static": 0,
    }
    expected |= {"far": 100, "ring": 100, "conflict_ordered": 100, "swap_background": 0, "chance": chance}
    # Where nothing moves all clips look the same, and one answer in three is right.
    expected |= {"background_only": chance, "static_clip": chance, "scufo": chance, "contrasted": 100 - chance}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.05)
    assert found["scene_probe"] < 40


def test_a_background_encoder_scores_chance_over_stripes(biased: Store) -> None:
    options = BiasOptions(donors="stripes", composites=8, min_grade=None)
    found = scored(biased, looks_at_background, options).metrics
    assert found["background_only"] == 100 and "swap_background" not in found
    assert found["scuba"] == pytest.approx(found["chance"], abs=16)  # 96 of them: three deviations
    assert found["scufo"] == pytest.approx(found["scuba"], abs=2)


def test_every_class_reports_the_donor_with_the_largest_loss(of_background: BiasReport) -> None:
    report = of_background
    assert [row["class"] for row in report.classes] == list(WAYS)
    for row in report.classes:
        assert row["videos"] == 4 and row["drop"] == row["to_background"] == row["background_only"] == 100
        assert row["fooled_by_class"] != row["class"] and row["fooled_by"].startswith(row["fooled_by_class"])
        used = [r.donor.id for r in report.manifest.rows if r.label == row["class"]]
        assert row["fooled_by"] in used and 0 < row["lost"] <= used.count(row["fooled_by"])
    by_name = dict(zip(report.names, report.hits["scuba"].tolist(), strict=True))
    assert len(by_name) == 36 and by_name["down0.mp4__2"] is False
    again = contrasted(report.hits["scuba"], report.hits["scufo"], report.names, report.names)
    assert 100 * again.contrasted == report.metrics["contrasted"]


def test_splits_are_kept_apart(biased_videos: Path, tmp_path: Path) -> None:
    store = built(biased_videos, "with_splits.csv", tmp_path / "s")
    seen: list[int] = []

    def encode(clips: Tensor) -> Tensor:
        seen.append(len(clips))
        return looks_at_background(clips)

    options = BiasOptions(min_grade=None, composites=2, scene_foregrounds=0)
    report = scored(store, encode, options)
    assert {row.group for row in report.manifest.rows} == {"g2", "g3"} and len(report.manifest.rows) == 12
    assert report.settings["held_out"] == "test split against train split"
    assert sum(seen) == 6 * (7 + 2 * 5) + 6  # test videos and composites, then the training clips
    assert report.metrics["plain"] == 100 and report.metrics["scuba"] == 0 and "scene_probe" not in report.metrics


def test_controls_are_the_plain_composites(biased: Store) -> None:
    manifest = plan(biased, BiasOptions(min_grade=None, feather=0, composites=1))
    composer = Composer(biased, manifest)
    for row in manifest.rows[:4]:
        video, other = biased.find(row.id), biased.find(row.inserted.id)
        base = composer.base(row, row.starts[0])
        views, grey = composer.of_video(row, base), grey_image(base.clip)
        mover = base.parts.foreground
        assert 0 < mover.mean() < 0.5 and base.area == pytest.approx(float(mover.mean()))
        same = manifest.same_class[row.id]
        assert same.label == row.label and video_group(biased, biased.find(same.id)) != row.group
        for view, scene_of in (("self", row), ("same_class", same)):
            own = composer.reader.scene(biased.find(scene_of.id), scene_of.shot or 0)
            torch.testing.assert_close(views[view], mover * base.clip + (1 - mover) * own)
        assert torch.equal(views["background_only"][:, :, 3], composer.reader.scene(video, row.shot)[:, :, 0])
        frames = composer.reader.frames(other, row.inserted.shot, row.inserted.start)
        shape = composer.reader.mask(other, frames)
        torch.testing.assert_close(views["hole"], shape * grey + (1 - shape) * base.clip)


# --- masks from elsewhere -------------------------------------------------------------------------------------------


def masks_store(root: Path, *, imported: int = 12, grade: str = "F", backgrounds: bool = False) -> Store:
    """Twelve videos of three classes and four groups, some with imported masks; lengths are those of the classes."""
    header = Header((48, 64), "stretch", "raw", tuple(WAYS), {})
    header = create_store(root, header, Plan((tuple(PlannedVideo(f"v{n:02}.mp4", 1, 1) for n in range(12)),)))
    with ShardWriter(root, header, 0) as writer:
        for number in range(12):
            label, length = list(WAYS)[number % 3], 20 + 10 * (number % 3)
            frames, masks, image = moving_square(number, length)
            payload = VideoPayload(header)
            for t in range(length):
                payload.add_frame(t / 25, frames[t])
            payload.add_masks(masks)
            if backgrounds:
                ones = np.ones((48, 64))
                payload.add_background(Background(image, ones.astype(np.float32), ones.astype(np.bool_)))
            shot = Shot(start=0, stop=length, background=0 if backgrounds else -1, grade=grade)
            about = {"label": label, "group": f"g{number // 3}", "imported_masks": number < imported}
            writer.add(make_row(f"v{number:02}.mp4", length, [shot], height=48, width=64, **about), payload)
        writer.commit()
    finish_store(root)
    return open_store(root)


def test_imported_masks_need_neither_a_background_nor_a_grade(tmp_path: Path) -> None:
    store = masks_store(tmp_path / "s")
    assert {store.masks_from(video, 0) for video in range(12)} == {"imported"}
    for number in range(4):
        write_image(tmp_path / f"images/p{number}.png", scene(90 + number, 60, 80))
    for options in (
        BiasOptions(donors="folder", folder=tmp_path / "images"),
        BiasOptions(),
        BiasOptions(donors="stripes"),
    ):
        manifest = plan(store, options)
        assert len(manifest.rows) == 36 and manifest.masks_from == {"imported": 12} and not manifest.left_out
        report = scored(store, sees_nothing, options, manifest)
        assert report.settings["test_videos"] == report.settings["same_class_videos"] == 12
        assert ("SBErr" in report.metrics) is (options.donors == "backgrounds")
        # The videos of a class have a length of their own.
        assert report.metrics["metadata"] == 100 and report.metrics["IID"] == report.metrics["self"] == 33.33
    assert bias_sheet(Composer(store, manifest), rows=2, width=64).std() > 20


def test_the_scene_behind_imported_masks_is_reconstructed(tmp_path: Path) -> None:
    reader = ClipReader(masks_store(tmp_path / "s"), T, STRIDE, 48)
    for video in (0, 5):
        found = reader.scene(video, 0)[0, :, 0]
        truth = torch.from_numpy(scene(video)[:, 8:56]).permute(2, 0, 1) / 255
        torch.testing.assert_close(found, truth, atol=0.01, rtol=0)
        assert reader.scene(video, 0) is reader.scene(video, 0)


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    store = masks_store(tmp_path / "graded", imported=6, backgrounds=True)
    recorder = Recorder()
    manifest = plan_bias(store, T, STRIDE, CROP, BiasOptions(donors="stripes"), recorder)
    assert manifest.left_out == {f"v{n:02}.mp4": "estimated masks graded below E" for n in range(6, 12)}
    assert recorder.warnings == ["6 of 12 test videos left out: estimated masks graded below E, such as v06.mp4"]
    report = scored(store, looks_at_motion, manifest=manifest)
    assert report.settings["left_out"] == {"estimated masks graded below E": 6}
    assert (report.settings["videos"], report.settings["test_videos"]) == (6, 12)
    assert len(plan(store, BiasOptions(donors="stripes", min_grade="F")).rows) == 36
    # Scenes of the first six are reconstructed; the backgrounds of the others have a bad grade.
    donors = {row.donor.id for row in plan(store, BiasOptions(composites=5)).rows}
    assert donors <= {f"v{n:02}.mp4" for n in range(6)} and len(donors) == 6
    some = plan(store, BiasOptions(composites=5, donor_grade="F"))
    assert {row.donor.id for row in some.rows} - donors

    store = masks_store(tmp_path / "missing", imported=6)
    manifest = plan(store, BiasOptions(donors="stripes", min_grade=None))
    assert manifest.reasons == {"no masks: none imported, and no background to estimate them from": 6}
    with pytest.raises(UsageError, match="0 labelled test videos with foreground masks, of 0 classes"):
        plan(masks_store(tmp_path / "none", imported=0), BiasOptions(donors="stripes"))


def test_real_clips_with_true_masks_are_all_tested(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "actions" / "jhmdb"
    with open(source / "labels.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == "3" and row["class_name"] in ("golf", "run")]
    # Two clips of each class whose camera moves most: they have no static background, or a bad one.
    rows.sort(key=lambda row: (row["class_name"], -float(row["camera_px_per_5_frames"])))
    chosen = [
        row for place, row in enumerate(rows) if [r["class_name"] for r in rows[:place]].count(row["class_name"]) < 2
    ]
    for row in chosen:
        name = Path(row["file"]).relative_to("videos")
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / row["file"], tmp_path / "videos" / name)
        bits = np.load(source / "masks" / name.with_suffix(".npz"))["bits"]
        masks = np.unpackbits(bits, axis=1)[:, :76800].reshape(-1, 240, 320).astype(np.bool_)
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(tmp_path / "masks" / f"{name}.npz", masks=masks)
    build_shards(ShardOptions(inputs=[tmp_path / "videos"], out=tmp_path / "s", in_process=True), Silent())
    assert import_masks(tmp_path / "s", tmp_path / "masks", Silent()).videos == 4
    options = BiasOptions(donors="folder", folder=real_data / "scenes", composites=1)
    store = open_store(tmp_path / "s")
    report = scored(store, looks_at_background, options, plan(store, options))
    assert (report.settings["videos"], report.settings["left_out"]) == (4, {})
    assert report.settings["masks_from"] == {"imported": 4}


def test_a_video_may_lack_a_scene_of_its_class(tmp_path: Path) -> None:
    store = masks_store(tmp_path / "s", imported=4)  # one class has two groups, the others have one
    report = scored(store, looks_at_motion, BiasOptions(donors="stripes", composites=2))
    assert (
        report.settings["same_class_videos"] == 2
        and report.has_same_class.tolist() == [True] * 2 + [False] * 4 + [True] * 2
    )
    judged = Report(bias=report).judged
    assert len(judged["same_class"].ids) == 4 and len(judged["self"].ids) == 8
    assert 100 * judged["same_class"].value == report.metrics["same_class"]
    one_class = masks_store(tmp_path / "few", imported=3)
    report = scored(one_class, looks_at_motion, BiasOptions(donors="stripes", scene_foregrounds=0))
    assert "same_class" not in report.metrics and "same_class" not in Report(bias=report).judged


def test_the_terminal_shows_published_names_first(of_background: BiasReport) -> None:
    left_out = {"masks_from": {"imported": 10, "motion": 2}, "left_out": {"no foreground in the clip": 3}}
    shown = replace(of_background, settings=of_background.settings | left_out | {"test_videos": 15})
    for width in (80, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(_bias_table(Report(bias=shown, settings={"run": "run", "store": "store"})))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= 80 and "12 of 15 test videos, 4 groups, 36 composites" in lines[1]
        assert "masks: 10 imported, 2 motion" in lines[2] and "left out: 3 x no foreground" in lines[3]
        names = [line.split()[1] for line in lines if line.startswith("│")]
        assert names[: len(PUBLISHED)] == list(PUBLISHED) and len(names) == len(set(names)) == 25
        assert not {"plain", "scuba", "swap_action"} & set(names) and {"self", "hole", "metadata"} <= set(names)


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_manifest_depends_on_seed_and_store_only(biased: Store, manifest: Manifest) -> None:
    first = manifest
    assert len(first.rows) == 36
    assert plan(biased, BiasOptions(min_grade=None, batch_size=3)).to_bytes() == first.to_bytes()
    other = plan(biased, BiasOptions(min_grade=None, seed=1))
    assert other.sha256 != first.sha256
    changed = [a.donor.id != b.donor.id for a, b in zip(first.rows, other.rows, strict=True)]
    assert 10 < sum(changed) <= 36
    # Of fewer composites, or fewer videos, each is what it was.
    fewer = plan(biased, BiasOptions(min_grade=None, composites=1))
    assert fewer.rows == tuple(row for row in first.rows if row.k == 0)
    some = plan(biased, BiasOptions(min_grade=None, videos=6))
    assert [row.donor for row in some.rows] == [row.donor for row in first.rows if row.id in {r.id for r in some.rows}]


def test_donors_and_inserted_are_of_other_classes_and_groups(biased: Store, manifest: Manifest) -> None:
    group = {row.id: row.group for row in manifest.rows}
    for row in manifest.rows:
        assert row.donor.label != row.label and row.inserted.label != row.label
        assert group[row.donor.id] != row.group and group[row.inserted.id] != row.group
        video = biased.find(row.id)
        assert biased.header.classes[int(biased.columns.label[video])] == row.label and 0 <= row.still < T
        frames = ClipReader(biased, T, STRIDE, CROP).frames(video, row.shot, row.starts[0])
        assert biased.masks(video, int(frames[row.still]), 1).any()
        assert biased.masks(biased.find(row.inserted.id), row.inserted.frame, 1).any()
    for name in group:
        assert len({row.donor.id for row in manifest.rows if row.id == name}) == 3
    assert manifest.scene is not None and len(manifest.scene.donors) == 8
    for name, half in manifest.scene.halves.items():
        assert all(h == half for other, h in manifest.scene.halves.items() if group[other] == group[name])
    assert set(manifest.scene.halves.values()) == {0, 1}


@pytest.mark.parametrize(("num_frames", "stride"), [(8, 2), (8, 1), (16, 4)])
def test_clips_are_those_of_the_dataset(biased: Store, num_frames: int, stride: int) -> None:
    dataset = ClipDataset(biased, ClipOptions(num_frames, stride, views=3, sampling="uniform"))
    reader = ClipReader(biased, num_frames, stride, CROP)
    for sample in (dataset[0], dataset[7]):
        video, shot = int(sample.video), int(sample.shot)
        assert evaluated_shot(biased, video) == scene_shot(biased, video, None) == shot
        starts = reader.starts(video, shot, 3)
        assert list(starts) == sample.start.tolist()
        for view, start in enumerate(starts):
            frames = biased.frames_at(video, reader.frames(video, shot, start))
            assert np.array_equal(frames, sample.frames[view].numpy())


def test_a_manifest_comes_back_from_its_file(biased: Store, tmp_path: Path) -> None:
    for donors in ("backgrounds", "stripes"):
        manifest = plan(biased, BiasOptions(donors=donors, min_grade=None))
        path = write_manifest(manifest, tmp_path / "deep" / f"{donors}.json")
        assert read_manifest(path) == manifest
        assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_manifest_that_does_not_fit_is_refused(biased: Store, manifest: Manifest, tmp_path: Path) -> None:
    path = write_manifest(manifest, tmp_path / "m.json")
    plain = json.loads(path.read_bytes())

    def refused(change: dict[str, object], message: str) -> None:
        path.write_text(json.dumps({**plain, **change}))
        with pytest.raises(UsageError, match=message):
            plan(biased, BiasOptions(manifest=path))

    refused({"content_hash": "0" * 64}, "made for a store with content hash 000000000000")
    refused({"version": 1}, "not a manifest of bgaug-bias version 2: version")
    refused({"stride": 0}, "stride")
    refused({"colour": 1}, "colour")
    refused({"rows": []}, "no rows")
    refused({"rows": [{**plain["rows"][0], "id": "gone.mp4"}]}, "1 videos that .* the first is gone.mp4")
    refused({"rows": [{**plain["rows"][0], "label": "fly"}]}, "classes .* such as fly")
    refused({"rows": plain["rows"][:3]}, "scene part")
    path.write_text("{")
    with pytest.raises(UsageError, match="is not a manifest"):
        plan(biased, BiasOptions(manifest=path))
    with pytest.raises(UsageError, match="cannot be read"):
        plan(biased, BiasOptions(manifest=tmp_path / "none.json"))
    with pytest.raises(WriteError, match="cannot be written"):
        write_manifest(manifest, path / "below" / "m.json")


def test_images_of_a_bank_and_of_a_folder(biased: Store, tmp_path: Path) -> None:
    root = tmp_path / "s"
    shutil.copytree(biased.path, root)
    folder = tmp_path / "pictures"
    for number in range(4):
        write_image(folder / f"in/p{number}.png", scene(90 + number, 60, 80))
    write_bank(root, "places", [(f"p{number}", scene(90 + number)) for number in range(4)])
    store = open_store(root)
    of_bank = BiasOptions(donors="bank", bank="places", min_grade=None)
    of_folder = BiasOptions(donors="folder", folder=folder, min_grade=None)
    for options, kind in ((of_bank, "bank"), (of_folder, "file")):
        manifest = plan(store, options)
        assert {row.donor.kind for row in manifest.rows} == {kind} and len({row.donor.id for row in manifest.rows}) == 4
        found = scored(store, looks_at_motion, options, manifest)
        assert found.metrics["scuba"] == 100 and "swap_background" not in found.metrics
        assert found.classes[0]["fooled_by_class"] is None
    composer = Composer(store, plan(store, of_folder), folder)
    row = composer.manifest.rows[0]
    expected = scene(90 + int(row.donor.id[4]), 60, 80)[:, 10:70].mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(composer.donor_image(row.donor)[0, :, 0].mean(dim=(1, 2)).numpy(), expected, atol=0.01)
    manifest = plan(store, of_bank)
    write_bank(root, "places", [(f"p{number}", scene(50 + number)) for number in range(4)], overwrite=True)
    with pytest.raises(UsageError, match="not the one that the manifest"):
        scored(open_store(root), looks_at_motion, of_bank, manifest)
    with pytest.raises(UsageError, match="give the folder"):
        scored(store, looks_at_motion, BiasOptions(), plan(store, of_folder))
    with pytest.raises(StoreError, match="no bank"):
        plan(store, BiasOptions(donors="bank", bank="none"))
    for options in (
        BiasOptions(donors="bank"),
        BiasOptions(donors="folder"),
        BiasOptions(donors="folder", folder=root),
    ):
        with pytest.raises(UsageError, match="needs"):
            plan(store, options)


@pytest.mark.parametrize(
    "change", [{"composites": 0}, {"clips": 0}, {"ring": -1.0}, {"videos": 0}, {"batch_size": 0}, {"min_area": -0.1}]
)
def test_options_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(change))}: Input should be greater"):
        BiasOptions(**change)  # type: ignore[arg-type]


def test_impossible_tests_are_errors(biased: Store) -> None:
    recorder = Recorder()
    with pytest.raises(UsageError, match="needs two classes"):
        plan_bias(biased, T, STRIDE, CROP, BiasOptions(min_area=0.9), recorder)
    assert any("12 of 12 test videos left out: foreground on less than 90 % of" in one for one in recorder.warnings)
    with pytest.raises(UsageError, match="min_grade must be one of A, B, C, D, E, F"):
        plan(biased, BiasOptions(min_grade="Z"))
    with pytest.raises(UsageError, match="donor_grade must be one of A, B, C, D, E, F"):
        plan(biased, BiasOptions(donor_grade="z"))


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_supervised_run_classifies_by_its_own_head(biased: Store, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "tiny", "steps": 2, "batch_size": 4, "crop": CROP, "num_frames": T}
    options |= {"device": "cpu", "threads": 1}
    store, recorder = Path(biased.path), Recorder()
    train(store, tmp_path / "run", Silent(), options=TrainOptions(method="supervised", **options))
    run = load_run(tmp_path / "run", device="cpu")
    head, clips = head_of(run, biased, "global", recorder), torch.rand(3, 3, T, CROP, CROP)
    assert ["may have been trained on the tested videos" in warning for warning in recorder.warnings] == [True]
    with torch.no_grad():
        scores, logits = head.scores(run.learner.features(clips).numpy()), run.learner.logits(clips)
    np.testing.assert_allclose(scores, logits.numpy(), atol=1e-5)
    run.config["classes"] = run.config["classes"][::-1]  # another order in the store
    assert head_of(run, biased, "global", Silent()).columns.tolist() == [2, 1, 0]

    made = BiasOptions(min_grade=None, composites=1, readout="head")
    report = evaluate_bias(tmp_path / "run", store, Silent(), options=made, device="cpu")
    probed = evaluate_bias(tmp_path / "run", store, Silent(), options=replace(made, readout="probe"), device="cpu")
    assert report.settings["readout"] == "head" and report.metrics.keys() == probed.metrics.keys()
    assert report.metrics != probed.metrics and report.metrics["far_drift"] == probed.metrics["far_drift"]

    with pytest.raises(UsageError, match="reads the feature 'global', not 'dynamic'"):
        evaluate_bias(tmp_path / "run", store, Silent(), options=made, feature="dynamic", device="cpu")
    run.config["classes"] = ["down", "left", "up"]
    with pytest.raises(UsageError, match="the classes of .* differ: right, up"):
        head_of(run, biased, "global", Silent())
    train(store, tmp_path / "plain", Silent(), options=TrainOptions(method="simclr", **options))
    with pytest.raises(UsageError, match="was trained by 'simclr' and has no classifier"):
        evaluate_bias(tmp_path / "plain", store, Silent(), options=made, device="cpu")


def test_a_run_is_evaluated_and_again_from_its_manifest(biased: Store, tmp_path: Path) -> None:
    run, out, store = tmp_path / "run", tmp_path / "out", Path(biased.path)
    options = TrainOptions(backbone="tiny", steps=2, batch_size=4, crop=CROP, num_frames=T)
    train(store, run, Silent(), options=replace(options, device="cpu", threads=1))
    made = BiasOptions(min_grade=None, composites=2, out=out, sheet_rows=3)
    report = evaluate_bias(run, store, Silent(), options=made, device="cpu")
    assert report.settings["frames"] == T and report.settings["crop"] == CROP and report.settings["videos"] == 12
    assert report.settings["ring"] == 2.0 and report.settings["seed"] == 0  # 7 of 112
    assert report.settings["manifest_sha256"] == hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    for name in ("plain", "scuba", "scufo", "contrasted", "background_only", "swap_background"):
        assert 0 <= report.metrics[f"{name}_low"] <= report.metrics[name] <= report.metrics[f"{name}_high"] <= 100
    assert 0 <= report.metrics["far_drift"] and report.metrics["contrasted"] <= report.metrics["scuba"]
    written = json.loads((out / "report.json").read_text())
    assert written == report.to_json() and written["scuba"] == report.metrics["scuba"] and len(written["classes"]) == 3
    assert (out / "sheet.png").stat().st_size > 1000

    recorder = Recorder()
    taken = BiasOptions(manifest=out / "manifest.json", batch_size=5, seed=9)
    again = evaluate_bias(run, store, recorder, options=taken, device="cpu")
    assert again.metrics == pytest.approx(report.metrics, abs=1e-3) and again.classes == report.classes
    assert again.settings["manifest_sha256"] == report.settings["manifest_sha256"] and not recorder.warnings


def test_a_sheet_shows_a_row_a_composite(biased: Store, manifest: Manifest) -> None:
    composer = Composer(biased, manifest)
    sheet = bias_sheet(composer, rows=4, width=64)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 9 * (64 + 4)
    heights = [len(bias_sheet(composer, rows=rows, width=64)) for rows in (1, 2)]
    assert len(sheet) - heights[1] == 2 * (heights[1] - heights[0]) > 0
    with pytest.raises(ValueError, match="rows need 2 images"):
        image_sheet([([np.zeros((8, 8, 3), np.uint8)], "")], ("a", "b"))
