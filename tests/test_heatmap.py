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
    class_activation_map,
    energy_in_mask,
    energy_ratio,
    far_energy,
    iou_at_top,
    pointing_game,
    ring,
    ring_energy,
    score_heatmaps,
    stretch,
    upsample,
)
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import saliency_map
from bgaug.pairs import centre_crop
from bgaug.testing.synthetic import make_split

Number = Callable[[Tensor, Tensor], Tensor]
NUMBERS: dict[str, Number] = {
    "energy": energy_in_mask,
    "ratio": energy_ratio,
    "ring": lambda heat, mask: ring_energy(heat, mask, 1),
    "far": lambda heat, mask: far_energy(heat, mask, 1),
    "pointing": pointing_game,
    "iou": iou_at_top,
}


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


# --- maps ---------------------------------------------------------------------------------------------------------


def test_activation_is_the_sum_of_what_is_above_zero() -> None:
    features = torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1, 1) * torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1)
    assert activation_map(features).tolist() == [[[[4.0]], [[8.0]]]]
    assert activation_map(features, mean_over_time=True).tolist() == [[[6.0]]]
    assert activation_map(features.half()).dtype == torch.float32


def test_a_class_is_spoken_for_where_its_channels_are() -> None:
    features = torch.zeros(2, 3, 2, 1, 3)
    for channel in range(3):
        features[:, channel, :, 0, channel] = torch.tensor([1.0, 3.0])
    weight = torch.tensor([2.0, -1.0, 0.5])
    heat = class_activation_map(features, weight)
    assert heat[0].tolist() == [[[2.0, 0.0, 0.5]], [[6.0, 0.0, 1.5]]]
    assert class_activation_map(features, weight, mean_over_time=True)[0].tolist() == [[4.0, 0.0, 1.0]]
    each = class_activation_map(features, torch.stack([weight, -weight]))
    assert torch.equal(each[0], heat[0]) and each[1, 0].tolist() == [[0.0, 1.0, 0.0]]


def test_a_class_map_before_the_cut_averages_to_the_logit_of_a_probe() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.uniform(0, 1, (12, 5, 2, 3, 3)))
    pooled, labels = features.mean(dim=(2, 3, 4)).numpy(), np.arange(12) % 3
    probe = LinearProbe().fit(pooled, labels)
    slope = np.stack([probe.scores(pooled[:1] + np.eye(5)[i]) - probe.scores(pooled[:1]) for i in range(5)])[:, 0]
    shift = 100.0  # keeps all of it above zero: the cut has nothing to cut
    heat = class_activation_map(features + shift, torch.from_numpy(abs(slope[:, 0])))
    expected = (pooled + shift) @ abs(slope[:, 0])
    np.testing.assert_allclose(heat.mean(dim=(1, 2, 3)), expected, rtol=1e-5)


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


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [None, 3])
def test_a_uniform_map_scores_chance(frames: int | None) -> None:
    mask = square_mask(*[(3, 5)] * (frames or 1))
    mask = mask if frames else mask[:, 0]
    heat = torch.full(mask.shape, 0.25)
    assert energy_in_mask(heat, mask).tolist() == pointing_game(heat, mask).tolist() == [1 / 16]
    assert iou_at_top(heat, mask).tolist() == iou_at_top(heat, mask, 0.1).tolist() == [1 / 16]
    assert energy_ratio(heat, mask).tolist() == [1.0]
    assert energy_ratio(heat, ring(mask, 2)).tolist() == [1.0]
    assert ring_energy(heat, mask, 1).tolist() == [(36 - 16) / 256]
    assert far_energy(heat, mask, 1).tolist() == [220 / 256]
    assert pointing_game(heat, mask, tolerance=1).tolist() == [36 / 256]


def test_a_map_that_is_the_mask_scores_best() -> None:
    mask = square_mask((3, 5), (0, 12), (6, 6))
    heat = 7 * mask.float()
    assert energy_in_mask(heat, mask).tolist() == pointing_game(heat, mask).tolist() == iou_at_top(heat, mask).tolist()
    assert iou_at_top(heat, mask).tolist() == [1.0]
    assert energy_ratio(heat, mask).tolist() == [16.0]
    assert ring_energy(heat, mask, 2).tolist() == far_energy(heat, mask, 2).tolist() == [0.0]
    assert iou_at_top(heat, mask, 1 / 2).tolist() == [1.0]  # pixels at 0 are never taken


def test_a_map_beside_the_mask() -> None:
    mask, beside, far = square_mask((4, 4)), square_mask((4, 8)), square_mask((12, 12))
    heat = beside.float() + 3 * far.float()
    assert energy_in_mask(heat, mask).tolist() == pointing_game(heat, mask).tolist() == iou_at_top(heat, mask).tolist()
    assert energy_in_mask(heat, mask).tolist() == [0.0]
    assert ring_energy(heat, mask, 2).tolist() == [2 * 4 / 64]  # two columns of the neighbour
    assert far_energy(heat, mask, 2).tolist() == [1 - 2 * 4 / 64]
    assert pointing_game(beside.float(), mask, tolerance=2).tolist() == [0.5]
    assert pointing_game(beside.float(), mask, tolerance=4).tolist() == [1.0]


@pytest.mark.parametrize("width", [0, 1, 3, 50])
def test_mask_ring_and_far_add_up_to_one(random_pair: tuple[Tensor, Tensor], width: int) -> None:
    heat, mask = random_pair
    parts = torch.stack([energy_in_mask(heat, mask), ring_energy(heat, mask, width), far_energy(heat, mask, width)])
    torch.testing.assert_close(parts.sum(dim=0), torch.ones(3), atol=1e-6, rtol=0)
    assert (parts >= 0).all()
    whole = (heat * 64).round()  # of whole numbers the sums are exact
    mask[:, 0, 0, 0] = True
    parts = torch.stack([number(whole, mask) for number in (energy_in_mask, *_ring_and_far(width))])
    assert torch.equal(
        (parts.double() * whole.sum(dim=(1, 2, 3))).sum(dim=0).round(), whole.double().sum(dim=(1, 2, 3))
    )
    if width == 0:
        assert parts[1].tolist() == [0, 0, 0]


def _ring_and_far(width: int) -> tuple[Number, Number]:
    return lambda h, m: ring_energy(h, m, width), lambda h, m: far_energy(h, m, width)


def test_the_ring_agrees_with_its_definition(random_pair: tuple[Tensor, Tensor]) -> None:
    _, mask = random_pair
    expected = torch.zeros_like(mask)
    for b, t, y, x in np.ndindex(*mask.shape):
        near = mask[b, t, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        expected[b, t, y, x] = bool(near.any()) and not bool(mask[b, t, y, x])
    assert torch.equal(ring(mask, 2), expected)
    assert torch.equal(ring(mask[:, 0], 2), expected[:, 0])


def test_the_hottest_pixels_agree_with_their_definition(random_pair: tuple[Tensor, Tensor]) -> None:
    heat, mask = random_pair
    for share in (None, 0.3, 1.0):
        for found, one, true in zip(iou_at_top(heat, mask, share), heat, mask, strict=True):
            number = int(true.sum()) if share is None else round(share * one.numel())
            top = set(one.flatten().argsort(descending=True)[:number].tolist())
            known = set(true.flatten().nonzero().flatten().tolist())
            assert found.item() == pytest.approx(len(top & known) / len(top | known))
    hits = [
        [float(true[t].flatten()[one[t].argmax()]) for t in range(4) if true[t].any()]
        for one, true in zip(heat, mask, strict=True)
    ]
    assert pointing_game(heat, mask).tolist() == pytest.approx([float(np.mean(frames)) for frames in hits])


@pytest.mark.parametrize("name", NUMBERS)
def test_scale_batch_and_layout_do_not_matter(name: str, random_pair: tuple[Tensor, Tensor]) -> None:
    (heat, mask), number = random_pair, NUMBERS[name]
    values = number(heat, mask)
    assert values.shape == (3,) and values.dtype == torch.float32 and values.isfinite().all()
    torch.testing.assert_close(number(8 * heat, mask), values)
    torch.testing.assert_close(number(heat.flip(0), mask.flip(0)), values.flip(0))
    torch.testing.assert_close(number(heat[1:2], mask[1:2]), values[1:2])
    torch.testing.assert_close(number(heat.flip(-1).double(), mask.flip(-1)), values)
    one_frame = number(heat[:, 0], mask[:, 0])
    torch.testing.assert_close(number(heat[:, :1], mask[:, :1]), one_frame, equal_nan=True)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_has_no_answer_is_nan(name: str) -> None:
    mask = square_mask((3, 5), (3, 6)).expand(3, -1, -1, -1).clone()
    heat = torch.rand(mask.shape)
    heat[0] = 0
    mask[1] = False
    values = NUMBERS[name](heat, mask)
    assert values.isnan().tolist() == [True, True, False]


def test_a_mask_of_everything() -> None:
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    heat = torch.rand(1, 4, 4)
    values = {name: number(heat, mask).item() for name, number in NUMBERS.items()}
    assert values == pytest.approx({"energy": 1, "ratio": 1, "ring": 0, "far": 0, "pointing": 1, "iou": 1})


def test_frames_without_a_mask_do_not_count_in_the_pointing_game() -> None:
    mask = square_mask((3, 5), (3, 5), (3, 5), (3, 5))
    mask[0, 1] = False
    heat = mask.float()
    heat[0, 1] = 1
    heat[0, 2] = 0
    heat[0, 3] = heat[0, 3].flip(0)
    assert pointing_game(heat, mask).tolist() == [0.5]


@pytest.mark.parametrize("name", NUMBERS)
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
def test_impossible_maps(name: str, heat: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NUMBERS[name](heat, mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: ring(m, -1), "a number of pixels is 0 or more, got -1"),
        (lambda m: ring(m.float(), 1), "mask must be bool"),
        (lambda m: pointing_game(m.float(), m, -2), "got -2"),
        (lambda m: iou_at_top(m.float(), m, 0), r"share must be in \(0, 1\], got 0"),
        (lambda m: iou_at_top(m.float(), m, 1.1), "got 1.1"),
        (lambda m: upsample(m.float(), (4, 4)), "as many numbers"),
        (lambda m: activation_map(m.float()), r"features must be \(B, C, T', H', W'\)"),
        (lambda m: class_activation_map(torch.ones(2, 3, 4, 5, 5), torch.ones(2)), r"got \(2,\)"),
    ],
)
def test_impossible_options(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(square_mask((3, 5)))


# --- an encoder on clips whose masks are known --------------------------------------------------------------------


def squares() -> tuple[Tensor, Tensor]:
    """Red squares on black that move: uint8 (N, T, H, W, 3) and their masks, the pictures wider than high."""
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
        assert found["ring"] == pytest.approx(ring(mask, 2).float().mean().item())
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


def test_impossible_clips() -> None:
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
