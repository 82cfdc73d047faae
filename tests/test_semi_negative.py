"""Donors and composites: identities, invariants, and a world whose moving square is known."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bgaug.data.batch import Batch
from bgaug.pairs import (
    Augmentation,
    Pairs,
    SemiNegativePairs,
    colour_jitter,
    composite,
    crop_resize,
    crop_resize_images,
    derangement,
    motion_masks,
    soften,
)

SHAPE = (20, 24)


def make_batch(count: int = 5, frames: int = 3, videos: list[int] | None = None, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    H, W = SHAPE

    def pixels(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return Batch(
        frames=pixels(count, 2, frames, H, W, 3),
        masks=pixels(count, 2, frames, H * W // 8),
        backgrounds=pixels(count, H, W, 3),
        video=torch.tensor(videos) if videos else torch.arange(count) + 100,
        shot=torch.zeros(count, dtype=torch.int64),
        label=torch.full((count,), -1),
        grade=torch.arange(count) % 7,
        start=torch.zeros(count, 2, dtype=torch.int64),
        pts_seconds=torch.zeros(count, 2, frames, dtype=torch.float64),
        box=torch.tensor([[0, 0, H, W]]).repeat(count, 1),
        key=torch.randint(-(2**62), 2**62, (count,), generator=generator),
    )


def reordered(batch: Batch, order: Tensor) -> Batch:
    return Batch(**{name: value[order] for name, value in batch.items()})


def without_colour(size: int = 16) -> Augmentation:
    return Augmentation(size=size, jitter=0, grey=0, blur=0)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=24), st.integers(0, 2**60))
def test_derangement_serves_as_many_as_can_be_served(videos: list[int], seed: int) -> None:
    video = torch.tensor(videos)
    key = torch.arange(len(videos)) + seed
    donor, valid = derangement(video, key)
    assert torch.equal(valid, video[donor] != video)
    assert torch.equal(donor[~valid], torch.arange(len(videos))[~valid])
    assert len(set(donor[valid].tolist())) == int(valid.sum())
    largest = max(videos.count(one) for one in videos)
    assert int(valid.sum()) == len(videos) - max(0, 2 * largest - len(videos))


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(12)), st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_derangement_permutes_with_the_batch(order: list[int], videos: list[int]) -> None:
    video, key, places = torch.tensor(videos), torch.arange(12) * 7919, torch.tensor(order)
    donor, valid = derangement(video, key)
    moved_donor, moved_valid = derangement(video[places], key[places])
    assert torch.equal(places[moved_donor], donor[places])
    assert torch.equal(moved_valid, valid[places])


def test_derangement_is_random_over_all_donors() -> None:
    video = torch.arange(4)
    counts = torch.zeros(4, 4)
    for seed in range(600):
        donor, _ = derangement(video, torch.arange(4) + 4 * seed)
        counts[video, donor] += 1
    # 200 expected in each cell off the diagonal, standard deviation 11.5.
    assert (counts.diagonal() == 0).all()
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 200).abs().max() < 60


def test_composite_with_a_mask_of_ones_is_the_clip_and_of_zeros_the_donor() -> None:
    clip, image = torch.rand(2, 3, 4, 5, 5), torch.rand(2, 3, 1, 5, 5)
    ones = torch.ones(2, 1, 4, 5, 5)
    assert torch.equal(composite(clip, ones, image), clip)
    assert torch.equal(composite(clip, 0 * ones, image), image.expand_as(clip))
    torch.testing.assert_close(composite(clip, 0.25 * ones, image), 0.25 * clip + 0.75 * image)


def test_soften_keeps_full_and_empty_masks() -> None:
    ones = torch.ones(2, 1, 3, 9, 11)
    torch.testing.assert_close(soften(ones, 1.5, 2.0), ones)
    assert torch.equal(soften(0 * ones, 1.5, 2.0), 0 * ones)
    assert torch.equal(soften(ones, 0, 0), ones)


@pytest.mark.parametrize(("grow", "inner", "rim"), [(0.0, 0, 0.0), (1.0, 1, 0.0), (0.57, 0, 0.57), (2.25, 2, 0.25)])
def test_soften_grows_by_pixels_and_fractions(grow: float, inner: int, rim: float) -> None:
    mask = torch.zeros(1, 1, 1, 15, 15)
    mask[..., 7, 7] = 1
    expected = torch.zeros(15, 15)
    expected[6 - inner : 9 + inner, 6 - inner : 9 + inner] = rim
    expected[7 - inner : 8 + inner, 7 - inner : 8 + inner] = 1
    torch.testing.assert_close(soften(mask, grow, 0)[0, 0, 0], expected)


def test_soften_grows_only_in_space_and_up_to_the_border() -> None:
    mask = torch.zeros(1, 1, 3, 6, 6)
    mask[0, 0, 1, 0, 0] = 1
    out = soften(mask, 1, 0)
    assert out[0, 0, 0].sum() == out[0, 0, 2].sum() == 0
    assert out[0, 0, 1].sum() == out[0, 0, 1, :2, :2].sum() == 4


def test_feather_keeps_the_area_of_a_mask_far_from_the_border() -> None:
    mask = torch.zeros(1, 1, 1, 31, 31)
    mask[..., 12:19, 12:19] = 1
    out = soften(mask, 0, 1.0)
    torch.testing.assert_close(out.sum(), mask.sum(), atol=1e-3, rtol=0)
    assert 0.4 < out[0, 0, 0, 15, 12] < 0.9 and out[0, 0, 0, 15, 11] > 0.1


def moving_square() -> tuple[Tensor, Tensor, Tensor]:
    """Clips, their background, and where the square is: 32 pixels, 6x6, 2 pixels a frame."""
    generator = torch.Generator().manual_seed(0)
    background = 0.3 + 0.2 * torch.rand(2, 3, 1, 32, 32, generator=generator)
    clips = background.repeat(1, 1, 8, 1, 1)
    truth = torch.zeros(2, 1, 8, 32, 32)
    for t in range(8):
        truth[:, :, t, 12:18, 4 + 2 * t : 10 + 2 * t] = 1
    clips = torch.where(truth.bool(), torch.ones_like(clips), clips)
    return clips, background, truth


def test_motion_masks_find_what_moves() -> None:
    clips, background, truth = moving_square()
    mask = motion_masks(clips, background)
    assert mask.shape == truth.shape
    assert (mask * truth).sum() / truth.sum() > 0.95
    # The square fills 3.5 % of the clip and the quantile keeps 21 %; what else is kept lies close to it.
    assert mask[..., 26:, :].mean() < 0.6 < mask[truth.bool()].min()
    with pytest.raises(ValueError, match="at least 2 frames"):
        motion_masks(clips[:, :, :1], background)
    with pytest.raises(ValueError, match="beta"):
        motion_masks(clips, background, beta=0)


def test_motion_masks_keep_the_asked_share() -> None:
    clips = torch.rand(3, 3, 4, 32, 32)
    share = (motion_masks(clips, clips.mean(dim=2, keepdim=True), beta=0.5) > 0.5).float().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(share, torch.full((3,), 0.3), atol=2e-3, rtol=0)


def test_pairs_are_composed_as_defined() -> None:
    batch = make_batch()
    config = Augmentation.tiny(16)
    pairs = SemiNegativePairs(config, grow=0, sigma=0)(batch)
    assert pairs.anchor.shape == pairs.semi.shape == (5, 3, 3, 16, 16)
    assert pairs.mask.shape == (5, 1, 3, 16, 16) and pairs.positive is None
    assert torch.equal(pairs.weight, torch.ones(5)) and torch.equal(pairs.video, batch.video)
    place = pairs.provenance
    first = crop_resize(batch.frames[:, 0], place["anchor_crop"], 16, place["anchor_flip"])
    second = crop_resize(batch.frames[:, 1], place["semi_crop"], 16, place["semi_flip"])
    image = crop_resize_images(batch.backgrounds, place["semi_crop"], 16, place["semi_flip"])
    merged = pairs.mask * second + (1 - pairs.mask) * image[pairs.donor]
    torch.testing.assert_close(pairs.anchor, colour_jitter(first, batch.key, config, 0), atol=1e-6, rtol=0)
    torch.testing.assert_close(pairs.semi, colour_jitter(merged, batch.key, config, 1), atol=1e-5, rtol=0)
    assert torch.equal(place["donor_video"], batch.video[pairs.donor])
    torch.testing.assert_close(place["mask_area"], pairs.mask.mean(dim=(1, 2, 3, 4)))


def test_stored_masks_of_ones_give_the_clip_and_of_zeros_the_donors_background() -> None:
    batch = make_batch()
    config = without_colour()
    plain = SemiNegativePairs(config, policy="none")(batch)
    batch.masks = torch.full_like(batch.masks, 255)
    torch.testing.assert_close(SemiNegativePairs(config)(batch).semi, plain.semi, atol=1e-6, rtol=0)
    batch.masks = torch.zeros_like(batch.masks)
    batch.frames = batch.backgrounds[:, None, None].expand_as(batch.frames)
    pairs = SemiNegativePairs(config)(batch)
    own_background = SemiNegativePairs(config, policy="none")(batch).semi
    torch.testing.assert_close(pairs.semi, own_background[pairs.donor], atol=1e-6, rtol=0)


def test_same_batch_gives_the_same_pairs_to_the_bit() -> None:
    module, batch = SemiNegativePairs(Augmentation(size=16), plain_positive=True), make_batch()
    first = module(batch)
    torch.manual_seed(5)
    again = module(dict(batch))
    for field in fields(Pairs):
        ours, theirs = getattr(first, field.name), getattr(again, field.name)
        if field.name == "provenance":
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        else:
            assert torch.equal(ours, theirs), field.name


@pytest.mark.parametrize("masks", ["stored", "motion"])
def test_permuting_the_batch_permutes_the_pairs(masks: str) -> None:
    batch, order = make_batch(videos=[1, 1, 2, 3, 4]), torch.tensor([3, 0, 4, 2, 1])
    module = SemiNegativePairs(Augmentation(size=16), mask=masks)
    pairs, moved = module(batch), module(reordered(batch, order))
    for name in ("anchor", "semi", "mask", "weight", "video"):
        torch.testing.assert_close(getattr(moved, name), getattr(pairs, name)[order], atol=1e-6, rtol=0)
    assert torch.equal(order[moved.donor], pairs.donor[order])
    for name, value in pairs.provenance.items():
        torch.testing.assert_close(moved.provenance[name], value[order], atol=1e-6, rtol=0)


def test_clips_without_a_donor_stay_plain_at_weight_zero() -> None:
    batch = make_batch(videos=[7, 7, 7, 7, 9])
    pairs = SemiNegativePairs(without_colour())(batch)
    plain = SemiNegativePairs(without_colour(), policy="none")(batch)
    left = pairs.weight == 0
    assert int(left.sum()) == 3 and pairs.weight[4] == 1
    torch.testing.assert_close(pairs.semi[left], plain.semi[left])
    assert (pairs.mask[left] == 1).all() and (pairs.provenance["donor_video"][left] == -1).all()
    assert torch.equal(pairs.donor[left], torch.arange(5)[left])


def test_plain_views_have_no_donor() -> None:
    batch = dict(make_batch())
    del batch["masks"], batch["backgrounds"]
    pairs = SemiNegativePairs(Augmentation(size=16), policy="none")(batch)
    assert (pairs.donor == -1).all() and (pairs.weight == 1).all() and (pairs.mask == 1).all()
    assert (pairs.provenance["donor_video"] == -1).all()


def test_plain_positive_is_the_second_view_under_its_own_colours() -> None:
    batch = make_batch()
    config = Augmentation.tiny(16)
    pairs = SemiNegativePairs(config, plain_positive=True)(batch)
    place = pairs.provenance
    second = crop_resize(batch.frames[:, 1], place["semi_crop"], 16, place["semi_flip"])
    assert pairs.positive is not None
    torch.testing.assert_close(pairs.positive, colour_jitter(second, batch.key, config, 2), atol=1e-6, rtol=0)


def test_grow_and_sigma_scale_with_the_crop() -> None:
    batch = make_batch(count=2, frames=1)
    bits = torch.zeros(2, 2, 1, *SHAPE, dtype=torch.uint8)
    bits[..., 10, 12] = 1
    batch.masks = (bits.flatten(3).unflatten(3, (-1, 8)) << torch.arange(7, -1, -1)).sum(-1).to(torch.uint8)  # type: ignore[no-untyped-call]
    batch.box = torch.tensor([[2, 4, 16, 16]]).repeat(2, 1)
    config = Augmentation(size=16, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
    mask = SemiNegativePairs(config, grow=7.0, sigma=0)(batch).mask
    expected = torch.zeros(16, 16)
    expected[7:10, 7:10] = 1
    torch.testing.assert_close(mask[0, 0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("masks", ["stored", "motion"])
def test_nothing_waits_for_the_device(masks: str) -> None:
    # A fake tensor has no values: whatever would have to read one on the host raises.
    with FakeTensorMode():
        H, W = SHAPE
        batch = {
            "frames": torch.empty(4, 2, 3, H, W, 3, dtype=torch.uint8),
            "masks": torch.empty(4, 2, 3, H * W // 8, dtype=torch.uint8),
            "backgrounds": torch.empty(4, H, W, 3, dtype=torch.uint8),
            "video": torch.empty(4, dtype=torch.int64),
            "key": torch.empty(4, dtype=torch.int64),
            "box": torch.empty(4, 4, dtype=torch.int64),
        }
        assert SemiNegativePairs(Augmentation(size=16), mask=masks)(batch).semi.shape == (4, 3, 3, 16, 16)


def test_wrong_batches_are_reported() -> None:
    module, batch = SemiNegativePairs(Augmentation(size=16)), dict(make_batch())
    with pytest.raises(ValueError, match="has no masks"):
        module({name: value for name, value in batch.items() if name != "masks"})
    with pytest.raises(ValueError, match="V = 1"):
        module(batch | {"frames": batch["frames"][:, :1]})
    with pytest.raises(ValueError, match="uint8"):
        module(batch | {"frames": batch["frames"].float()})
    with pytest.raises(ValueError, match="pack into 60 bytes"):
        module(batch | {"masks": batch["masks"][..., :-1]})
    with pytest.raises(ValueError, match="mask must be one of none, stored, motion"):
        SemiNegativePairs(Augmentation(), mask="soft")
    with pytest.raises(ValueError, match="at least 0"):
        SemiNegativePairs(Augmentation(), grow=-1)
    with pytest.raises(ValueError, match="at least 0"):
        soften(torch.zeros(1, 1, 1, 4, 4), 0, -1)
