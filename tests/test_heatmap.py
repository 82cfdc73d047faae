"""Heat maps and their numbers: closed forms, a slow reference, and encoders whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bgaug.metrics import LinearProbe
from bgaug.metrics.heatmap import (
    activation_map,
    centre_crop_masks,
    grad_cam,
    localisation,
    score_heatmaps,
    stretch,
    upsample,
)
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import saliency_map
from bgaug.pairs import centre_crop
from bgaug.testing.synthetic import make_split


def square_mask(*frames: tuple[int, int], side: int = 4, size: int = 16) -> Tensor:
    """One clip: a square whose top left corner is at (top, left), frame by frame; bool (1, T, H, W)."""
    mask = torch.zeros(1, len(frames), size, size, dtype=torch.bool)
    for t, (top, left) in enumerate(frames):
        mask[0, t, top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def random_pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 4, 9, 12, generator=generator), torch.rand(3, 4, 9, 12, generator=generator) < 0.15


# --- maps -------------------------------------------------------------------------------------------------------------


def test_activation_is_the_sum_of_what_is_above_zero() -> None:
    features = torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1, 1) * torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1)
    assert activation_map(features).tolist() == [[[[4.0]], [[8.0]]]]
    assert activation_map(features.half()).dtype == torch.float32


def test_evidence_for_a_class_is_where_its_channels_are() -> None:
    """Grad-CAM of a linear score of the means: the weighted sum of channels over the number of cells, cut at zero."""
    features = torch.zeros(2, 3, 2, 1, 3)
    for channel in range(3):
        features[:, channel, :, 0, channel] = torch.tensor([1.0, 3.0])
    features.requires_grad_()
    weight = torch.tensor([[2.0, -1.0, 0.5], [-2.0, 1.0, -0.5]])
    score = (features.mean(dim=(2, 3, 4)) * weight).sum(dim=1)
    heat = grad_cam(features, score) * 6
    torch.testing.assert_close(heat[0], torch.tensor([[[2.0, 0.0, 0.5]], [[6.0, 0.0, 1.5]]]))
    torch.testing.assert_close(heat[1, 0], torch.tensor([[0.0, 1.0, 0.0]]))


def test_a_class_map_before_the_cut_averages_to_the_logit_of_a_probe() -> None:
    rng = np.random.default_rng(0)
    shift = 100.0  # keeps all of the map above zero
    features = (torch.from_numpy(rng.uniform(0, 1, (12, 5, 2, 3, 3))) + shift).requires_grad_()
    pooled, labels = features.detach().mean(dim=(2, 3, 4)).numpy(), np.arange(12) % 3
    weight = abs(LinearProbe().fit(pooled, labels).weight[:, 0])
    heat = grad_cam(features, features.mean(dim=(2, 3, 4)) @ torch.from_numpy(weight))
    np.testing.assert_allclose(heat.sum(dim=(1, 2, 3)), pooled @ weight, rtol=1e-5)


def test_upsampling_keeps_means_and_places() -> None:
    heat = torch.zeros(1, 4, 4)
    heat[0, 1, 2] = 1
    large = upsample(heat, (32, 32))
    assert large.shape == (1, 32, 32) and large.mean().item() == pytest.approx(1 / 16)
    row, column = divmod(int(large.argmax()), 32)
    assert 8 <= row < 16 and 16 <= column < 24
    torch.testing.assert_close(upsample(torch.full((2, 3, 4, 4), 0.7), (8, 16, 16)), torch.full((2, 8, 16, 16), 0.7))
    ramp = torch.arange(4.0).view(1, 4, 1, 1)
    assert upsample(ramp, (8, 1, 1)).flatten().tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def test_stretching_is_by_clip_and_leaves_flat_maps_at_a_half() -> None:
    heat = torch.tensor([[[1.0, 3.0]], [[5.0, 5.0]], [[0.0, 0.0]], [[1.0, 1.0005]], [[-1.0, 0.0]]])
    expected = torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]], [[0.5, 0.5]], [[0.5, 0.5]], [[0.0, 1.0]]])
    assert torch.equal(stretch(heat), expected)
    assert torch.equal(stretch(heat.view(5, 1, 1, 2)), expected.view(5, 1, 1, 2))
    motion = saliency_map(torch.rand(2, 3, 8, 4, 4))
    torch.testing.assert_close(stretch(motion), motion)


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = ("energy", "energy_ratio", "ring", "ring_ratio", "far", "far_ratio", "pointing", "iou")


def number(name: str, heat: Tensor, mask: Tensor, width: int = 1, tolerance: int = 0) -> list[float]:
    values: list[float] = localisation(heat, mask, width, tolerance)[name].tolist()
    return values


@pytest.mark.parametrize("frames", [None, 3])
def test_a_uniform_map_scores_chance(frames: int | None) -> None:
    mask = square_mask(*[(3, 5)] * (frames or 1))
    mask = mask if frames else mask[:, 0]
    heat = torch.full(mask.shape, 0.25)
    found = {name: values.item() for name, values in localisation(heat, mask, 1, 0).items()}
    assert found["energy"] == found["pointing"] == found["iou"] == 1 / 16
    assert found["energy_ratio"] == found["ring_ratio"] == found["far_ratio"] == 1
    assert found["ring"] == (36 - 16) / 256 and found["far"] == 220 / 256
    assert number("pointing", heat, mask, tolerance=1) == [36 / 256]


def test_a_map_that_is_the_mask_scores_best() -> None:
    mask = square_mask((3, 5), (0, 12), (6, 6))
    found = {name: values.item() for name, values in localisation(7 * mask.float(), mask, 2, 0).items()}
    assert found["energy"] == found["pointing"] == found["iou"] == 1
    assert found["energy_ratio"] == 16 and found["ring"] == found["far"] == 0


def test_a_map_next_to_the_mask() -> None:
    mask, near, far = square_mask((4, 4)), square_mask((4, 8)), square_mask((12, 12))
    heat = near.float() + 3 * far.float()
    found = {name: values.item() for name, values in localisation(heat, mask, 2, 0).items()}
    assert found["energy"] == found["pointing"] == found["iou"] == 0
    assert found["ring"] == 2 * 4 / 64 and found["far"] == 1 - 2 * 4 / 64  # two columns of the neighbour
    assert number("pointing", near.float(), mask, tolerance=2) == [0.5]
    assert number("pointing", near.float(), mask, tolerance=4) == [1.0]


@pytest.mark.parametrize("width", [0, 1, 3, 50])
def test_mask_ring_and_far_add_up_to_one(random_pair: tuple[Tensor, Tensor], width: int) -> None:
    heat, mask = random_pair
    found = localisation(heat, mask, width)
    parts = torch.stack([found[name] for name in ("energy", "ring", "far")])
    torch.testing.assert_close(parts.sum(dim=0), torch.ones(3), atol=1e-6, rtol=0)
    assert (parts >= 0).all()
    if width == 0:
        assert parts[1].tolist() == [0, 0, 0]


def test_the_ring_agrees_with_its_definition(random_pair: tuple[Tensor, Tensor]) -> None:
    heat, mask = random_pair
    ring = torch.zeros_like(mask)
    for b, t, y, x in np.ndindex(*mask.shape):
        near = mask[b, t, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        ring[b, t, y, x] = bool(near.any()) and not bool(mask[b, t, y, x])
    expected = (heat * ring).flatten(1).sum(dim=1) / heat.flatten(1).sum(dim=1)
    torch.testing.assert_close(localisation(heat, mask, 2)["ring"], expected)


def test_the_hottest_pixels_agree_with_their_definition(random_pair: tuple[Tensor, Tensor]) -> None:
    heat, mask = random_pair
    for found, one, true in zip(number("iou", heat, mask), heat, mask, strict=True):
        top = set(one.flatten().argsort(descending=True)[: int(true.sum())].tolist())
        known = set(true.flatten().nonzero().flatten().tolist())
        assert found == pytest.approx(len(top & known) / len(top | known))
    hits = [
        [float(true[t].flatten()[one[t].argmax()]) for t in range(4) if true[t].any()]
        for one, true in zip(heat, mask, strict=True)
    ]
    assert number("pointing", heat, mask) == pytest.approx([float(np.mean(frames)) for frames in hits])


@pytest.mark.parametrize("name", NUMBERS)
def test_scale_batch_and_layout_do_not_matter(name: str, random_pair: tuple[Tensor, Tensor]) -> None:
    heat, mask = random_pair
    values = localisation(heat, mask, 1, 0)[name]
    assert values.shape == (3,) and values.dtype == torch.float32 and values.isfinite().all()
    same = [(8 * heat, mask), (heat.flip(-1).double(), mask.flip(-1))]
    for other in same:
        torch.testing.assert_close(localisation(*other, 1, 0)[name], values)
    torch.testing.assert_close(localisation(heat.flip(0), mask.flip(0), 1, 0)[name], values.flip(0))
    torch.testing.assert_close(localisation(heat[1:2], mask[1:2], 1, 0)[name], values[1:2])
    one_frame = localisation(heat[:, 0], mask[:, 0], 1, 0)[name]
    torch.testing.assert_close(localisation(heat[:, :1], mask[:, :1], 1, 0)[name], one_frame, equal_nan=True)


def test_undefined_numbers_are_nan() -> None:
    mask = square_mask((3, 5), (3, 6)).expand(3, -1, -1, -1).clone()
    heat = torch.rand(mask.shape)
    heat[0] = 0
    mask[1] = False
    for name, values in localisation(heat, mask, 1, 0).items():
        assert values.isnan().tolist() == [True, True, False], name


def test_a_mask_of_everything() -> None:
    found = localisation(torch.rand(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), 1, 0)
    expected = {"energy": 1, "energy_ratio": 1, "ring": 0, "far": 0, "pointing": 1, "iou": 1}
    assert {name: found[name].item() for name in expected} == pytest.approx(expected)


def test_frames_without_a_mask_do_not_count_in_the_pointing_game() -> None:
    mask = square_mask((3, 5), (3, 5), (3, 5), (3, 5))
    mask[0, 1] = False
    heat = mask.float()
    heat[0, 1] = 1
    heat[0, 2] = 0
    heat[0, 3] = heat[0, 3].flip(0)
    assert number("pointing", heat, mask) == [0.5]


@pytest.mark.parametrize(
    ("heat", "mask", "message"),
    [
        (torch.ones(1, 4, 4), torch.ones(1, 4, 5, dtype=torch.bool), "of the same shape"),
        (torch.ones(1, 4, 4), torch.ones(1, 4, 4), "got torch.float32"),
        (torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bool), r"a map must be float \(B, H, W\)"),
        (torch.ones(1, 4, 4, dtype=torch.int64), torch.ones(1, 4, 4, dtype=torch.bool), "int64"),
        (torch.full((1, 4, 4), -0.5), torch.ones(1, 4, 4, dtype=torch.bool), "its least value is -0.5; stretch"),
    ],
)
def test_invalid_maps(heat: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        localisation(heat, mask, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: localisation(m.float(), m, -1), "a number of pixels is 0 or more, got -1"),
        (lambda m: localisation(m.float(), m, 1, -2), "got -2"),
        (lambda m: upsample(m.float(), (4, 4)), "as many numbers"),
        (lambda m: activation_map(m.float()), r"features must be \(B, C, T', H', W'\)"),
        (lambda m: grad_cam(m.float(), m.float().sum()), r"features must be \(B, C, T', H', W'\)"),
    ],
)
def test_invalid_options(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(square_mask((3, 5)))


# --- an encoder on clips with known masks -----------------------------------------------------------------------------


def squares() -> tuple[Tensor, Tensor]:
    """Red squares on black that move: uint8 (N, T, H, W, 3) and their masks, the images wider than high."""
    masks = torch.cat([square_mask(*[(2 + b, 1 + t + b) for t in range(6)]) for b in range(5)])
    masks = torch.nn.functional.pad(masks, (4, 4))
    frames = torch.zeros(*masks.shape, 3, dtype=torch.uint8)
    frames[..., 0] = 255 * masks
    return frames, masks


def sees_red(clips: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    return {"first": torch.ones_like(clips), "last": clips}, clips[:, 0].amax(dim=1)


def test_an_encoder_that_sees_the_mover_scores_best() -> None:
    frames, masks = squares()
    scores = score_heatmaps(sees_red, frames, masks, 16, tolerance=0)
    assert set(scores) == {"activation", "activation_mean", "saliency"}
    best = {"energy": 1, "ring": 0, "far": 0, "pointing": 1, "iou": 1, "clips": 5}
    for name in ("activation", "saliency"):
        assert {number: scores[name][number] for number in best} == pytest.approx(best)
    assert scores["activation"]["energy_ratio"] == pytest.approx(16)
    assert scores["activation_mean"]["energy"] == pytest.approx(1) and scores["activation_mean"]["iou"] == 1
    assert scores == score_heatmaps(sees_red, frames, masks, 16, tolerance=0, batch_size=2)


def test_an_encoder_that_sees_nothing_scores_chance() -> None:
    frames, masks = squares()

    def blind(clips: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        B = len(clips)
        return {"only": torch.zeros(B, 4, 3, 2, 2)}, torch.full((B, 2, 2), 0.5)

    scores = score_heatmaps(blind, frames, masks, 16, width=2)
    known = centre_crop_masks(masks, 16)
    areas = {"activation": known, "activation_mean": known.any(dim=1), "saliency": known.any(dim=1)}
    for name, mask in areas.items():
        found = scores[name]
        assert found["energy"] == found["iou"] == pytest.approx(mask.float().mean().item())
        assert found["energy_ratio"] == found["ring_ratio"] == found["far_ratio"] == pytest.approx(1)
        ring = localisation(torch.ones(mask.shape), mask, 2)["ring"]
        assert found["ring"] == pytest.approx(ring.mean().item())
    assert score_heatmaps(sees_red, frames, masks, 16, stage="first", width=2)["activation"] == scores["activation"]


def test_clips_without_a_mover_have_no_answer() -> None:
    frames, masks = squares()
    masks[:2] = False
    assert score_heatmaps(sees_red, frames, masks, 16)["activation"]["clips"] == 3
    nothing = score_heatmaps(sees_red, frames, torch.zeros_like(masks), 16)["saliency"]
    assert nothing.pop("clips") == 0 and np.isnan(list(nothing.values())).all()


def test_masks_are_cropped_as_frames_are() -> None:
    frames, masks = squares()
    box = torch.tensor([[0, 0, *frames.shape[2:4]]]).expand(len(frames), -1)
    for size in (16, 11, 8):
        seen = centre_crop(frames, box, size)[:, 0]
        unclear = (seen - 0.5).abs() < 1e-5  # half covered: rounding decides
        assert torch.equal(centre_crop_masks(masks, size) | unclear, (seen >= 0.5) | unclear)


def test_invalid_clips() -> None:
    frames, masks = squares()
    for pair in ((frames, masks[:, :3]), (frames, masks.float()), (frames[0], masks[0])):
        with pytest.raises(ValueError, match=r"frames must be uint8 \(N, T, H, W, 3\)"):
            score_heatmaps(sees_red, *pair, 16)
    with pytest.raises(ValueError, match="no stage 'middle'; the encoder has first, last"):
        score_heatmaps(sees_red, frames, masks, 16, stage="middle")


def test_motion_in_the_pixels_of_the_synthetic_world_lies_on_its_sprite() -> None:
    split = make_split("swap", count=16, truth=True)
    assert split.masks is not None
    frames, masks = torch.from_numpy(split.frames[:, 2:10]), torch.from_numpy(split.masks[:, 2:10])

    def pixels(clips: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return {"pixels": clips}, saliency_map(clips)

    found = score_heatmaps(pixels, frames, masks, 32)
    assert found["saliency"]["energy_ratio"] > max(2, 1.5 * found["activation_mean"]["energy_ratio"])
    assert found["saliency"]["pointing"] > 0.9
    assert found["saliency"]["far_ratio"] < 0.75

    learner = ContrastiveLearner("tiny", "simclr").eval()

    def network(clips: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        stages = learner.encoder.backbone(clips)
        return stages, learner.encoder.decomposition(stages).saliency

    for stage in ("stage2", None):
        for numbers in score_heatmaps(network, frames, masks, 32, stage=stage).values():
            assert numbers["energy"] + numbers["ring"] + numbers["far"] == pytest.approx(1, abs=1e-5)
