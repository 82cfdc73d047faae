"""Composition policies: each in closed form, then what all of them must hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_semi_negative import SHAPE, make_batch, reordered, without_colour
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bgaug.data.batch import Batch
from bgaug.pairs import (
    POLICIES,
    Augmentation,
    Composition,
    SemiNegativePairs,
    area_weight,
    box_masks,
    crop_resize,
    crop_resize_images,
    fame_masks,
    fill_foreground,
    permutation,
    random_boxes,
    similar_backgrounds,
)
from bgaug.testing.synthetic import make_split

SIZE = 16
PICTURES = torch.randint(0, 256, (7, *SHAPE, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def graded_batch(count: int = 6, **options: Any) -> dict[str, Tensor]:
    return dict(make_batch(count, **options))


def module(policy: str | Composition, **options: Any) -> SemiNegativePairs:
    target = Composition.resolve(policy, **{k: v for k, v in options.items() if k not in ("bank", "plain_positive")})
    bank = PICTURES if target.donor == "bank" else None
    return SemiNegativePairs(without_colour(SIZE), target, bank=bank)


def second_view(batch: dict[str, Tensor] | Batch) -> Tensor:
    semi: Tensor = SemiNegativePairs(without_colour(SIZE), "none")(batch).semi
    return semi


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_permuting_the_batch_permutes_the_pairs(policy: str) -> None:
    batch, order = graded_batch(), torch.tensor([3, 0, 4, 2, 1, 5])
    pairs = module(policy)(batch)
    moved = module(policy)({name: value[order] for name, value in batch.items()})
    for name in ("anchor", "semi", "mask", "weight", "video"):
        torch.testing.assert_close(getattr(moved, name), getattr(pairs, name)[order], atol=1e-6, rtol=0)
    inside = pairs.donor >= 0
    assert torch.equal(order[moved.donor[inside[order]]], pairs.donor[order][inside[order]])
    for name, value in pairs.provenance.items():
        torch.testing.assert_close(moved.provenance[name], value[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_no_video_is_its_own_donor_but_where_that_was_published(policy: str) -> None:
    own = 0
    for seed in range(40):
        batch = graded_batch(6, videos=[1, 1, 2, 3, 4, 5], seed=seed)
        pairs = module(policy)(batch)
        donor_video = pairs.provenance["donor_video"]
        own += int((donor_video == batch["video"]).sum())
        assert (pairs.weight[pairs.donor == torch.arange(6)] <= 1).all()
    assert (own > 0) == (POLICIES[policy].pairing == "permutation" or POLICIES[policy].donor == "own_frame")


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_nothing_waits_for_the_device(policy: str) -> None:
    H, W = SHAPE
    composer = module(policy)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = {
            "frames": torch.empty(4, 2, 3, H, W, 3, dtype=torch.uint8),
            "masks": torch.empty(4, 2, 3, H * W // 8, dtype=torch.uint8),
            "backgrounds": torch.empty(4, H, W, 3, dtype=torch.uint8),
            "grade": torch.empty(4, dtype=torch.int64),
            "video": torch.empty(4, dtype=torch.int64),
            "key": torch.empty(4, dtype=torch.int64),
            "box": torch.empty(4, 4, dtype=torch.int64),
        }
        assert composer(batch).semi.shape == (4, 3, 3, SIZE, SIZE)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_policy_takes_no_more_of_the_batch_than_declared(policy: str) -> None:
    batch = graded_batch()
    needed = ("frames", "video", "key", "box", *POLICIES[policy].needs)
    full, least = module(policy)(batch), module(policy)({name: batch[name] for name in needed})
    assert torch.equal(full.semi, least.semi)
    for name in POLICIES[policy].needs:
        with pytest.raises(ValueError, match=f"has no {name}"):
            module(policy)({other: value for other, value in batch.items() if other != name})


@pytest.mark.parametrize(
    "donor", ["background", "frame", "clip", "scene", "scene-published", "inpainted", "bank", "near"]
)
def test_masks_of_ones_give_the_clip_whatever_the_donor(donor: Any) -> None:
    batch = graded_batch()
    batch["masks"] = torch.full_like(batch["masks"], 255)
    pairs = module(Composition(donor=donor))(batch)
    torch.testing.assert_close(pairs.semi, second_view(batch), atol=1e-6, rtol=0)


def test_masks_of_zeros_give_the_donor() -> None:
    batch = graded_batch()
    batch["masks"] = torch.zeros_like(batch["masks"])
    clips, place = second_view(batch), module("clip")(batch).donor
    torch.testing.assert_close(module("clip")(batch).semi, clips[place], atol=1e-6, rtol=0)
    for donor in ("frame", "inpainted"):  # nothing to fill where no person is
        pairs = module(Composition(donor=donor))(batch)
        frame = pairs.provenance["donor_frame"]
        still = clips[place, :, frame].unsqueeze(2).expand_as(clips)
        torch.testing.assert_close(pairs.semi, still, atol=1e-6, rtol=0)
    assert (module("inpainted")(batch).donor == -1).all() and torch.equal(module("frame")(batch).donor, place)


def test_a_bank_shows_its_pictures_and_no_clip_of_the_batch() -> None:
    batch = graded_batch()
    batch["masks"] = torch.zeros_like(batch["masks"])
    pairs = module("bank")(batch)
    picture, where = pairs.provenance["bank_image"], pairs.provenance
    expected = crop_resize_images(PICTURES[picture], where["donor_crop"], SIZE, where["donor_flip"])
    torch.testing.assert_close(pairs.semi, expected.expand_as(pairs.semi), atol=1e-6, rtol=0)
    assert (pairs.donor == -1).all() and (pairs.weight == 1).all() and (where["donor_video"] == -1).all()
    with pytest.raises(ValueError, match="need bank="):
        SemiNegativePairs(Augmentation(), "bank")
    with pytest.raises(ValueError, match="a bank is uint8"):
        SemiNegativePairs(Augmentation(), "bank", bank=PICTURES.float())
    assert "bank" not in module("bank").state_dict()


def test_a_donor_seen_through_its_own_crop() -> None:
    batch = graded_batch()
    batch["masks"] = torch.zeros_like(batch["masks"])
    for donor in ("background", "clip"):
        pairs = module(Composition(donor=donor, donor_crop="own"))(batch)
        where, place = pairs.provenance, pairs.donor
        assert not torch.equal(where["donor_crop"], where["semi_crop"][place])
        if donor == "clip":
            expected = crop_resize(batch["frames"][place, 1], where["donor_crop"], SIZE, where["donor_flip"])
        else:
            expected = crop_resize_images(batch["backgrounds"][place], where["donor_crop"], SIZE, where["donor_flip"])
        torch.testing.assert_close(pairs.semi, expected.expand_as(pairs.semi), atol=1e-6, rtol=0)


def test_blends_are_the_published_shares() -> None:
    batch = graded_batch(40)
    clips = second_view(batch)
    for policy, low, high in (("be", 0.7, 1.0), ("be-inter", 0.7, 1.0), ("mixup", 0.5, 1.0)):
        pairs = module(policy)(batch)
        share = pairs.provenance["mask_area"]
        assert low <= share.min() < low + 0.1 and high - 0.1 < share.max() <= high
        assert (pairs.donor == -1).all() and (pairs.weight == 1).all()
        if policy == "be":
            still = clips[torch.arange(40), :, pairs.provenance["donor_frame"]].unsqueeze(2)
            torch.testing.assert_close(pairs.semi, torch.lerp(still, clips, share.view(-1, 1, 1, 1, 1)))


def test_stillmix_blends_halves_on_half_of_the_clips() -> None:
    batch = graded_batch(400, frames=2)
    pairs = module("stillmix")(batch)
    share = pairs.provenance["mask_area"]
    blended = share < 1
    assert 160 < int(blended.sum()) < 240
    # Beta(200, 200) has mean 1/2 and deviation 1 / (2 sqrt(401)).
    assert abs(share[blended].mean() - 0.5) < 0.006
    assert share[blended].std() == pytest.approx(1 / (2 * math.sqrt(401)), rel=0.2)
    plain = ~blended
    torch.testing.assert_close(pairs.semi[plain], second_view(batch)[plain])
    assert (pairs.weight == 1).all() and (pairs.provenance["donor_video"][plain] == -1).all()


def test_probability_leaves_clips_plain_at_full_weight() -> None:
    batch = graded_batch(300, frames=1)
    pairs = module("background", probability=0.25)(batch)
    plain = pairs.donor == -1
    assert 190 < int(plain.sum()) < 260
    assert (pairs.weight == 1).all() and (pairs.mask[plain] == 1).all()
    assert (module("background", probability=0.0)(batch).donor == -1).all()


def test_fame_is_half_of_the_picture_over_the_donors_moving_clip() -> None:
    batch = graded_batch()
    pairs = module("fame")(batch)
    clips = second_view(batch)
    mask = fame_masks(clips)
    torch.testing.assert_close(pairs.semi, torch.lerp(clips[pairs.donor], clips, mask))
    torch.testing.assert_close(pairs.provenance["mask_area"], torch.full((6,), 0.5))


@pytest.mark.parametrize("published", [False, True])
def test_fame_masks_have_the_requested_share(published: bool) -> None:
    frames = make_split("iid", count=8).frames[:, :8, :32, :32]
    clips = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
    assert (fame_masks(clips, 0.4, published).flatten(1).sum(1) == 409).all()  # of 409.6, rounded down
    with pytest.raises(ValueError, match="at least 2 frames"):
        fame_masks(clips[:, :, :1])
    with pytest.raises(ValueError, match="share"):
        fame_masks(clips, 0)


def test_boxes_lie_tight_around_masks() -> None:
    mask = torch.zeros(1, 1, 2, 9, 9)
    mask[0, 0, 0, 2, 3] = mask[0, 0, 0, 5, 7] = 1
    expected = torch.zeros(9, 9)
    expected[2:6, 3:8] = 1
    assert torch.equal(box_masks(mask)[0, 0, 0], expected)
    assert box_masks(mask)[0, 0, 1].sum() == 0


def test_actorcutmix_takes_the_donors_actors_out() -> None:
    batch = graded_batch()
    batch["masks"] = torch.zeros_like(batch["masks"])
    batch["masks"][0] = 255  # one actor, who fills the image
    for policy in ("actorcutmix", "actorcutmix-published"):
        composer = SemiNegativePairs(without_colour(SIZE), policy)
        donor = torch.tensor([1, 0, 3, 4, 5, 2])
        pairs = composer(batch, donor=donor)
        clips, where = second_view(batch), pairs.provenance
        torch.testing.assert_close(pairs.semi[0], clips[0], atol=1e-6, rtol=0)
        if policy == "actorcutmix":
            image = crop_resize_images(batch["backgrounds"][:1], where["semi_crop"][:1], SIZE, where["semi_flip"][:1])
            torch.testing.assert_close(pairs.semi[1:2], image.expand(1, 3, 3, -1, -1), atol=1e-6, rtol=0)
        else:
            assert pairs.semi[1].abs().max() == 0
        torch.testing.assert_close(pairs.semi[2:], clips[donor[2:]], atol=1e-6, rtol=0)
        assert pairs.weight.tolist() == [1, 0, 0, 0, 0, 0]


def test_area_weights_are_those_of_the_paper() -> None:
    area = torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0])
    torch.testing.assert_close(area_weight(area), torch.tensor([0, 0.3439, 0.68359375, 0.9375, 1]))


def test_grades_weigh_pairs() -> None:
    pairs = module("background", weight="grade")(graded_batch(7))
    assert pairs.weight.tolist() == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_cutmix_pastes_one_box_of_the_donor() -> None:
    batch = graded_batch(60, frames=1)
    pairs = module("cutmix")(batch)
    assert set(pairs.mask.unique().tolist()) == {0.0, 1.0}
    assert pairs.provenance["mask_area"].min() >= 0.45  # the clip keeps half, but for whole pixels
    torch.testing.assert_close(pairs.semi, torch.lerp(second_view(batch)[pairs.donor], second_view(batch), pairs.mask))


def test_random_boxes_have_their_area_where_they_fit() -> None:
    boxes = random_boxes(torch.arange(4000), torch.full((4000,), 0.25), (20, 40))[:, 0, 0]
    rows, columns = boxes.amax(dim=2).sum(dim=1), boxes.amax(dim=1).sum(dim=1)
    assert torch.equal(boxes.sum(dim=(1, 2)), rows * columns)
    assert rows.max() <= 11 and columns.max() <= 21 and rows.mode().values == 10 and columns.mode().values == 20


def test_permutations_have_fixed_points_as_chance_has_it() -> None:
    fixed = 0
    for seed in range(300):
        place = permutation(torch.arange(8) + 8 * seed)
        assert sorted(place.tolist()) == list(range(8))
        fixed += int((place == torch.arange(8)).sum())
    assert 240 < fixed < 360  # one expected in each


def test_near_and_far_backgrounds() -> None:
    level = torch.tensor([0.1, 0.12, 0.5, 0.55, 0.9]).view(5, 1, 1, 1, 1)
    pictures = level.expand(5, 3, 1, 16, 16)
    video = torch.arange(5)
    assert similar_backgrounds(pictures, video)[0].tolist() == [1, 0, 3, 2, 3]
    assert similar_backgrounds(pictures, video, far=True)[0].tolist() == [4, 4, 0, 0, 0]
    donor, valid = similar_backgrounds(pictures, torch.tensor([0, 0, 0, 1, 1]))
    assert donor.tolist() == [3, 3, 3, 2, 2] and valid.all()
    donor, valid = similar_backgrounds(pictures, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(donor, video) and not valid.any()


def test_filling_takes_the_colours_around() -> None:
    picture = torch.full((2, 3, 1, 32, 32), 0.3)
    picture[:, :, :, :, 16:] = 0.6
    truth, mask = picture.clone(), torch.zeros(2, 1, 1, 32, 32)
    mask[:, :, :, 4:10, 4:10] = 1
    mask[:, :, :, 20:26, 24:30] = 1
    picture = torch.where(mask.bool(), torch.ones(()), picture)
    filled = fill_foreground(picture, mask)
    assert torch.equal(filled[mask.expand_as(filled) == 0], truth[mask.expand_as(truth) == 0])
    assert (filled - truth).abs().max() < 0.06
    everything = fill_foreground(picture, torch.ones_like(mask))
    assert everything.isfinite().all() and (everything <= 1).all()


def test_pairs_are_replayed_from_only_their_clips() -> None:
    batch = make_batch(8)
    composer = SemiNegativePairs(Augmentation(size=SIZE))
    pairs = composer(batch)
    for place in range(8):
        donor = int(pairs.donor[place])
        assert pairs.provenance["donor_key"][place] == batch.key[donor]
        alone = composer(reordered(batch, torch.tensor([place, donor])), donor=torch.tensor([1, 0]))
        torch.testing.assert_close(alone.semi[0], pairs.semi[place], atol=1 / 255, rtol=0)
        torch.testing.assert_close(alone.anchor[0], pairs.anchor[place], atol=1 / 255, rtol=0)


def test_options_name_what_they_replace() -> None:
    assert SemiNegativePairs(Augmentation(), mask="motion").policy == replace(POLICIES["background"], mask="motion")
    assert not SemiNegativePairs(Augmentation(), policy="none").policy.composes
    with pytest.raises(ValueError, match="no composition policy 'nothing'; there are none, background"):
        SemiNegativePairs(Augmentation(), "nothing")
    with pytest.raises(TypeError):
        SemiNegativePairs(Augmentation(), colour="red")
    for wrong, message in (
        ({"donor": "moon"}, "donor must be one of background"),
        ({"probability": 1.5}, "probability lies in"),
        ({"beta": 0.0}, "beta is a share"),
        ({"blend": ("uniform", 0.5, 0.2)}, "blend is"),
        ({"blend": ("beta", 0.5, 0.5)}, "with a whole a"),
    ):
        with pytest.raises(ValueError, match=message):
            SemiNegativePairs(Augmentation(), **wrong)
