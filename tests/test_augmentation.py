"""Geometry and colour: known answers, torch's own resize, and randomness that depends only on the key."""

import colorsys
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs import (
    KINETICS_MEAN,
    KINETICS_STD,
    Augmentation,
    centre_crop,
    colour_jitter,
    crop_boxes,
    crop_resize,
    crop_resize_images,
    crop_resize_masks,
    crops,
    dilate,
    filters,
    flips,
    gaussian_blur,
    random_bits,
    uniform,
)
from bgaug.pairs.augmentation import _HUE_GENERATOR, _LUMA
from bgaug.pairs.filters import blur_radius, blur_taps, resize_taps

PLAIN = Augmentation(size=16, flip=0, jitter=0, grey=0, blur=0)


def keys(count: int, seed: int = 0) -> Tensor:
    return torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


GOLDEN, WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1


def reference_mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def reference_bits(key: int, salt: int) -> int:
    """The same hash in Python's unbounded integers."""
    return reference_mix(reference_mix((key + GOLDEN) & WORD) ^ salt)


def test_random_bits_are_the_hash_in_unbounded_integers() -> None:
    import hashlib

    salt = int.from_bytes(hashlib.blake2b(b"crop", digest_size=8).digest(), "big")
    for key in (0, 1, -1, 2**63 - 1, -(2**63), 123456789):
        assert int(random_bits(torch.tensor([key]), "crop")) & ((1 << 64) - 1) == reference_bits(key, salt)


@pytest.mark.parametrize("n", [1, 2, 11, 23])
def test_uniform_counts_in_unbounded_integers(n: int) -> None:
    for key in (0, -1, 123456789):
        bits = int(random_bits(torch.tensor([key]), "a")) & WORD
        expected = [reference_mix((bits + count * GOLDEN) & WORD) >> 40 for count in range(1, n + 1)]
        assert (uniform(torch.tensor([key]), "a", n) * 2**24).long().tolist() == [expected]


def test_a_key_draws_what_it_always_drew() -> None:
    # Of the first release; runs that are resumed and pairs that are replayed rest on them.
    key = torch.tensor([0, -1, 2**62])
    drawn = [[3100004, 4873210, 1080836], [7410327, 6261471, 6422595], [1048390, 11824075, 2238861]]
    assert (uniform(key, "colour/1", 3) * 2**24).long().tolist() == drawn
    box = torch.tensor([[0, 0, 128, 171]]).repeat(3, 1)
    expected = [[3.04864, 16.57929, 68.32707, 90.42921], [29.50663, 59.4395, 62.1352, 70.78432]]
    torch.testing.assert_close(crop_boxes(key, box, Augmentation(), 1)[:2], torch.tensor(expected), atol=1e-4, rtol=0)
    assert flips(torch.arange(8), Augmentation()).long().tolist() == [1, 1, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("config", "pixels", "mean"),
    [
        (Augmentation(size=8), [[0.643178, 0.645852, 0.655213], [0.837861, 0.843163, 0.845137]], 0.521173),
        (Augmentation.tiny(8), [[0.461831, 0.513867, 0.372180], [0.603577, 0.585600, 0.713969]], 0.532803),
    ],
)
def test_a_view_looks_as_it_always_did(config: Augmentation, pixels: list[list[float]], mean: float) -> None:
    frames = (torch.arange(2 * 2 * 12 * 16 * 3) % 251).to(torch.uint8).view(2, 2, 12, 16, 3)
    out = view_of(frames, torch.tensor([3, 4]), config)
    torch.testing.assert_close(out[:, :, 1, 3, 5], torch.tensor(pixels), atol=2e-6, rtol=0)
    assert float(out.mean()) == pytest.approx(mean, abs=2e-6)


def view_of(frames: Tensor, key: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """All that happens to a view."""
    box = torch.tensor([[0, 0, *frames.shape[2:4]]]).repeat(len(frames), 1)
    crop = crop_boxes(key, box, config, view)
    return colour_jitter(crop_resize(frames, crop, config.size, flips(key, config, view)), key, config, view)


def test_a_view_depends_on_its_clip_and_key_alone() -> None:
    frames, key, config = noise(5, 3, 20, 24, 3), keys(5), Augmentation(size=16)
    first = view_of(frames, key, config)
    torch.manual_seed(3)
    view_of(noise(7, 2, 20, 24, 3, seed=1), keys(7, seed=1), config, view=1)
    assert torch.equal(view_of(frames, key, config), first)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(view_of(frames[order], key[order], config), first[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(view_of(frames[2:3], key[2:3], config), first[2:3], atol=1e-6, rtol=0)
    assert (view_of(frames, key, config, view=1) - first).abs().mean() > 0.05


def test_uniform_is_uniform_and_independent() -> None:
    draws = uniform(torch.arange(4000), "a", 5).double()
    assert draws.dtype == torch.float64 and draws.shape == (4000, 5)
    assert 0 <= draws.min() and draws.max() < 1
    # Standard error of the mean 0.0046, of a correlation 0.016.
    assert (draws.mean(dim=0) - 0.5).abs().max() < 0.02
    assert (draws.var(dim=0) - 1 / 12).abs().max() < 0.004
    everything = torch.cat([draws, uniform(torch.arange(4000), "b", 5).double()], dim=1)
    assert (torch.corrcoef(everything.T) - torch.eye(10)).abs().max() < 0.07


def test_uniform_depends_on_the_key_alone() -> None:
    key = keys(7)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = uniform(key, "a", 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(uniform(key[[4, 2]], "a", 3), first[[4, 2]])
    assert torch.equal(uniform(key, "a", 5)[:, :3], first)
    with pytest.raises(TypeError, match="int64"):
        uniform(key.to(torch.int32), "a", 1)


def test_crop_boxes_lie_inside_the_picture_with_the_asked_shape() -> None:
    box = torch.tensor([[10, 5, 90, 120]]).repeat(2000, 1)
    config = Augmentation()
    top, left, height, width = crop_boxes(torch.arange(2000), box, config).double().unbind(1)
    assert top.min() >= 10 - 1e-3 and (top + height).max() <= 100 + 1e-3
    assert left.min() >= 5 - 1e-3 and (left + width).max() <= 125 + 1e-3
    area, ratio = height * width / (90 * 120), width / height
    assert 0.2 - 1e-4 <= area.min() < 0.21 and 0.9 < area.max() <= 1
    assert 0.75 - 1e-4 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-4
    assert not torch.equal(
        crop_boxes(torch.arange(5), box[:5], config, view=0), crop_boxes(torch.arange(5), box[:5], config, view=1)
    )


@pytest.mark.parametrize(("height", "width", "expected"), [(10, 400, (0, 195, 10, 10)), (400, 10, (195, 0, 10, 10))])
def test_crop_that_never_fits_is_the_largest_centred(
    height: int, width: int, expected: tuple[float, float, float, float]
) -> None:
    config = Augmentation(scale=(0.9, 1.0), ratio=(1.0, 1.0))
    boxes = crop_boxes(torch.arange(3), torch.tensor([[0, 0, height, width]]).repeat(3, 1), config)
    torch.testing.assert_close(boxes, torch.tensor([expected]).float().repeat(3, 1))


@pytest.mark.parametrize("size", [1, 4, 7, 16, 31, 50])
def test_crop_resize_agrees_with_interpolate_on_whole_boxes(size: int) -> None:
    frames = noise(3, 2, 31, 45, 3)
    boxes = torch.tensor([[0, 0, 31, 45], [3, 7, 20, 29], [10, 40, 5, 4]])
    out = crop_resize(frames, boxes, size)
    assert out.shape == (3, 3, 2, size, size) and out.dtype == torch.float32
    for clip, (top, left, height, width), ours in zip(frames, boxes.tolist(), out, strict=True):
        cut = clip[:, top : top + height, left : left + width].permute(0, 3, 1, 2).float() / 255
        theirs = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(ours.transpose(0, 1), theirs, atol=1e-4, rtol=0)


def test_crop_of_the_same_size_is_the_crop_itself_and_flips_exactly() -> None:
    frames = noise(2, 3, 20, 24, 3)
    boxes = torch.tensor([[2, 5, 8, 8]]).repeat(2, 1)
    expected = frames[:, :, 2:10, 5:13].permute(0, 4, 1, 2, 3).float() / 255
    out = crop_resize(frames, boxes, 8, torch.tensor([True, False]))
    torch.testing.assert_close(out[0], expected[0].flip(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[1], expected[1], atol=1e-6, rtol=0)


def test_fractional_crop_moves_a_gradient_by_the_fraction() -> None:
    ramp = torch.arange(40, dtype=torch.uint8).view(1, 1, 1, 40, 1).expand(1, 1, 40, 40, 1)
    out = crop_resize(ramp, torch.tensor([[4.0, 10.25, 16.0, 16.0]]), 16) * 255
    torch.testing.assert_close(out[0, 0, 0, 3, 1:-1], torch.arange(11, 25) + 0.25, atol=1e-3, rtol=0)


@pytest.mark.parametrize("share", [1, 2 * 3, 2 * 3 * 2])
def test_steps_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    frames, boxes = noise(3, 5, 20, 24, 3), torch.tensor([[1.5, 2.0, 15.0, 17.0]]).repeat(3, 1)
    config = Augmentation(size=12)
    flip, masks = torch.tensor([True, False, True]), torch.rand(3, 1, 5, 12, 12)
    whole = crop_resize(frames, boxes, 12, flip)
    coloured, blurred, grown = colour_jitter(whole, keys(3), config), gaussian_blur(whole, 1.5), dilate(masks, 1.5)
    # One frame of one clip, then two frames of it, then both of them of more clips.
    monkeypatch.setattr("bgaug.pairs.filters._CPU_CHUNK_BYTES", share * 12 * 12 * 3 * 4)
    torch.testing.assert_close(crop_resize(frames, boxes, 12, flip), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(colour_jitter(whole, keys(3), config), coloured, atol=1e-6, rtol=0)
    torch.testing.assert_close(gaussian_blur(whole, 1.5), blurred, atol=1e-6, rtol=0)
    assert torch.equal(dilate(masks, 1.5), grown)


def test_products_for_other_devices_give_what_taps_give() -> None:
    frames, boxes = noise(3, 4, 20, 24, 3), torch.tensor([[0.0, 0, 20, 24], [1.5, 2.25, 15, 17.5], [3, 4, 9, 8]])
    down = resize_taps(boxes[:, 0], boxes[:, 2], 14, 20)
    across = resize_taps(boxes[:, 1], boxes[:, 3], 14, 24, torch.tensor([True, False, True]))
    expected = crop_resize(frames, boxes, 14, torch.tensor([True, False, True]))
    out = crops._by_products(frames, down.dense(20), across.dense(24)) / 255
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
    for radius in (None, 2):
        rows, columns = (blur_taps(torch.tensor([0.0, 0.7, 3.0]), pixels, radius) for pixels in (14, 14))
        blurred = gaussian_blur(expected, torch.tensor([0.0, 0.7, 3.0]), radius)
        turned = filters._by_products(expected, rows, columns.dense(14))
        torch.testing.assert_close(turned, blurred, atol=1e-6, rtol=0)


def test_masks_and_images_take_the_frames_crop() -> None:
    bits = noise(2, 3, 20, 24) & 1
    boxes, flip = torch.tensor([[1.5, 2.0, 15.0, 17.0]]).repeat(2, 1), torch.tensor([True, False])
    as_frames = crop_resize((bits * 255).unsqueeze(-1).repeat(1, 1, 1, 1, 3), boxes, 12, flip)
    torch.testing.assert_close(crop_resize_masks(bits, boxes, 12, flip), as_frames[:, :1], atol=1e-5, rtol=0)
    frames = noise(2, 1, 20, 24, 3)
    images = crop_resize_images(frames[:, 0], boxes, 12, flip)
    assert images.shape == (2, 3, 1, 12, 12)
    torch.testing.assert_close(images, crop_resize(frames, boxes, 12, flip), atol=1e-6, rtol=0)


def test_centre_crop_takes_the_centre_of_the_content() -> None:
    frames = torch.zeros(1, 2, 40, 60, 3, dtype=torch.uint8)
    frames[:, :, 10:30, 20:40] = 255
    out = centre_crop(frames, torch.tensor([[10, 5, 20, 50]]), 10)
    assert out.shape == (1, 3, 2, 10, 10)
    torch.testing.assert_close(out, torch.ones_like(out))


def test_no_colour_change_is_the_identity() -> None:
    clips = torch.rand(3, 3, 2, 8, 8)
    torch.testing.assert_close(colour_jitter(clips, keys(3), PLAIN), clips, atol=1e-6, rtol=0)


def one_colour(config: Augmentation, colour: tuple[float, float, float], count: int = 64) -> Tensor:
    clips = torch.tensor(colour).view(1, 3, 1, 1, 1).expand(count, 3, 2, 4, 4)
    return colour_jitter(clips, keys(count), config)


def test_each_colour_change_is_what_its_name_is() -> None:
    off = {"flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0, "blur": 0.0}
    colour = (0.3, 0.5, 0.4)
    luma = sum(weight * value for weight, value in zip(_LUMA, colour, strict=True))

    bright = one_colour(Augmentation(**off | {"jitter": 1.0, "brightness": 0.4}), colour)[:, :, 0, 0, 0]  # type: ignore[arg-type]
    factors = bright / torch.tensor(colour)
    assert torch.allclose(factors, factors[:, :1].expand(-1, 3), atol=1e-5)
    assert 0.6 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.4

    gain = one_colour(Augmentation(**off | {"channel_gain": 0.25}), colour)[:, :, 0, 0, 0] / torch.tensor(colour)  # type: ignore[arg-type]
    assert 0.75 <= gain.min() and gain.max() <= 1.25 and gain.std(dim=1).min() > 0

    grey = one_colour(Augmentation(**off | {"grey": 1.0}), colour)  # type: ignore[arg-type]
    torch.testing.assert_close(grey, torch.full_like(grey, luma))

    for change in ({"saturation": 1.0}, {"hue": 0.5}):
        changed = one_colour(Augmentation(**off | {"jitter": 1.0} | change), (0.48, 0.5, 0.52))[:, :, 0, 0, 0]  # type: ignore[arg-type]
        kept = (changed * torch.tensor(_LUMA)).sum(dim=1)
        assert changed.std(dim=0).max() > 1e-3
        torch.testing.assert_close(kept, torch.full_like(kept, 0.299 * 0.48 + 0.587 * 0.5 + 0.114 * 0.52))

    flat = one_colour(Augmentation(**off | {"jitter": 1.0, "contrast": 1.0}), (0.5, 0.5, 0.5))  # type: ignore[arg-type]
    torch.testing.assert_close(flat, torch.full_like(flat, 0.5))


def test_contrast_pivots_on_the_clip() -> None:
    clips = torch.cat([torch.full((1, 3, 1, 4, 4), 0.4), torch.full((1, 3, 1, 4, 4), 0.6)], dim=2).repeat(
        64, 1, 1, 1, 1
    )
    config = Augmentation(jitter=1, brightness=0, contrast=0.4, saturation=0, hue=0, grey=0, blur=0)
    out = colour_jitter(clips, keys(64), config)
    torch.testing.assert_close(out.mean(dim=(1, 2, 3, 4)), torch.full((64,), 0.5))
    spread = (out[:, 0, 1, 0, 0] - out[:, 0, 0, 0, 0]) / 0.2
    assert 0.6 <= spread.min() < 0.7 and 1.3 < spread.max() <= 1.4


def test_hue_turns_in_yiq() -> None:
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    turn = torch.zeros(3, 3)
    turn[2, 1], turn[1, 2] = 1.0, -1.0
    expected = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    torch.testing.assert_close(torch.tensor(_HUE_GENERATOR), expected, atol=1e-5, rtol=0)
    half = 2 * torch.tensor([_LUMA] * 3) - torch.eye(3)
    y, i, q = colorsys.rgb_to_yiq(*(half @ torch.tensor([0.5, 0.45, 0.4])).tolist())
    y0, i0, q0 = colorsys.rgb_to_yiq(0.5, 0.45, 0.4)
    assert (
        math.isclose(y, y0, abs_tol=1e-3) and math.isclose(i, -i0, abs_tol=1e-3) and math.isclose(q, -q0, abs_tol=1e-3)
    )


def test_colour_is_constant_over_time_and_a_clips_own() -> None:
    still = torch.rand(4, 3, 1, 8, 8).expand(4, 3, 5, 8, 8)
    out = colour_jitter(still, keys(4), Augmentation(size=8))
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out), atol=1e-6, rtol=0)
    assert 0 <= out.min() and out.max() <= 1
    alone = colour_jitter(still[2:3], keys(4)[2:3], Augmentation(size=8))
    torch.testing.assert_close(out[2:3], alone, atol=1e-6, rtol=0)


def test_blur_of_a_point_is_the_gaussian_and_zero_sigma_the_identity() -> None:
    clips = torch.zeros(2, 1, 1, 31, 31)
    clips[..., 15, 15] = 1
    out = gaussian_blur(clips, torch.tensor([2.0, 0.0]))
    assert torch.equal(out[1], clips[1])
    x = torch.arange(31) - 15.0
    gaussian = torch.exp(-(x**2) / 8)
    gaussian = gaussian / gaussian.sum()
    torch.testing.assert_close(out[0, 0, 0], gaussian.outer(gaussian), atol=1e-5, rtol=0)
    constant = torch.full((1, 3, 2, 9, 7), 0.7)
    torch.testing.assert_close(gaussian_blur(constant, torch.tensor([3.0])), constant)
    assert (gaussian_blur(clips, torch.tensor([2.0, 2.0]), radius=2) > 0).sum() == 2 * 25


def test_one_sigma_for_all_is_that_of_each() -> None:
    clips = torch.rand(3, 2, 2, 30, 26)
    for sigma, radius in ((0.0, None), (0.4, None), (2.0, None), (2.0, 3), (30.0, None)):
        expected = gaussian_blur(clips, torch.full((3,), sigma), radius)
        torch.testing.assert_close(gaussian_blur(clips, sigma, radius), expected, atol=1e-6, rtol=0)
    assert blur_taps(torch.tensor([2.0]), 99, blur_radius(2.0)).weights[0, 50, [0, -1]].tolist() == [0, 0]


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 9])
def test_dilation_is_the_largest_of_the_square(radius: int) -> None:
    masks = torch.rand(2, 1, 3, 9, 11)
    expected = F.max_pool2d(masks.flatten(0, 2), 2 * radius + 1, stride=1, padding=radius).view(masks.shape)
    assert torch.equal(dilate(masks, radius), expected)


def test_dilation_by_a_fraction_blends_the_next_ring() -> None:
    masks = torch.zeros(1, 1, 1, 9, 9)
    masks[..., 4, 4] = 1
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7], expected[3:6, 3:6] = 0.25, 1.0
    torch.testing.assert_close(dilate(masks, 1.25)[0, 0, 0], expected)
    with pytest.raises(ValueError, match="at least 0"):
        dilate(masks, -0.5)


def test_results_go_where_they_are_asked_to() -> None:
    clips, config = torch.rand(2, 3, 3, 12, 12), Augmentation(size=12)
    changes: list[Callable[[Tensor, Tensor | None], Tensor]] = [
        lambda clips, out: colour_jitter(clips, keys(2), config, out=out),
        lambda clips, out: gaussian_blur(clips, 1.5, out=out),
        lambda clips, out: dilate(clips, 1.5, out=out),
    ]
    for change in changes:
        kept, given = clips.clone(), clips.clone()
        expected = change(given, None)
        assert torch.equal(given, kept)
        assert change(given, given) is given and torch.equal(given, expected)
        with pytest.raises(ValueError, match="out must have the clips' shape"):
            change(clips, torch.empty(2, 3, 1, 12, 12))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_exact_result(dtype: torch.dtype) -> None:
    frames, boxes, config = (
        noise(2, 3, 20, 24, 3),
        torch.tensor([[1.5, 2.0, 15.0, 17.0]]).repeat(2, 1),
        Augmentation(size=12),
    )
    clips = crop_resize(frames, boxes, 12)
    exact = colour_jitter(clips, keys(2), config)
    half = colour_jitter(clips, keys(2), config, out=torch.empty_like(clips, dtype=dtype))
    assert half.dtype == dtype and torch.equal(half, exact.to(dtype))
    torch.testing.assert_close(half.float(), exact, atol=2e-3, rtol=0)
    masks, blurred = crop_resize_masks(frames[..., 0] & 1, boxes, 12), gaussian_blur(clips, 1.5)
    with torch.autocast("cpu", dtype):
        assert torch.equal(gaussian_blur(clips, 1.5), blurred)
        assert torch.equal(crop_resize_masks(frames[..., 0] & 1, boxes, 12), masks)


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_normalisation_is_what_follows_the_colours(blur: float) -> None:
    clips, key = torch.rand(4, 3, 2, 12, 12), keys(4)
    plain = Augmentation(size=12, brightness=1, contrast=1, blur=blur)
    config = replace(plain, mean=KINETICS_MEAN, std=KINETICS_STD)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (KINETICS_MEAN, KINETICS_STD))
    expected = colour_jitter(clips, key, plain)
    assert expected.min() == 0 or blur  # so that clipping is part of it
    torch.testing.assert_close(colour_jitter(clips, key, config), (expected - mean) / std, atol=1e-5, rtol=0)


def test_evaluation_is_normalised_as_training_is() -> None:
    frames, box = noise(2, 3, 20, 24, 3), torch.tensor([[0, 2, 20, 20]]).repeat(2, 1)
    config = replace(PLAIN, scale=(1.0, 1.0), ratio=(1.0, 1.0), mean=KINETICS_MEAN, std=KINETICS_STD)
    trained = colour_jitter(crop_resize(frames, box, 16), keys(2), config)
    torch.testing.assert_close(centre_crop(frames, box, 16, KINETICS_MEAN, KINETICS_STD), trained, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="divide by 255"):
        centre_crop(frames, box, 16, (110.2, 100.6, 96.0), KINETICS_STD)


def test_flips_happen_as_often_as_asked() -> None:
    share = flips(torch.arange(4000), Augmentation(flip=0.3)).double().mean()
    assert abs(share - 0.3) < 0.03
    assert not flips(torch.arange(100), Augmentation(flip=0)).any()


def test_crops_are_the_same_under_autocast() -> None:
    frames, boxes = noise(2, 2, 20, 20, 3), torch.tensor([[1.0, 1.0, 15.0, 15.0]]).repeat(2, 1)
    config = Augmentation(size=8)
    expected = colour_jitter(crop_resize(frames, boxes, 8), keys(2), config)
    with torch.autocast("cpu", torch.bfloat16):
        out = colour_jitter(crop_resize(frames, boxes, 8), keys(2), config)
    assert torch.equal(out, expected)


def test_presets() -> None:
    standard, tiny = Augmentation.standard(), Augmentation.tiny()
    assert standard == Augmentation()
    assert not standard.normalises and replace(standard, std=KINETICS_STD).normalises
    assert Augmentation.standard(56).blur_sigma == (0.05, 1.0)
    assert (tiny.size, tiny.flip, tiny.blur, tiny.channel_gain, tiny.ratio) == (32, 0, 0, 0.25, (1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size"),
        ({"flip": 1.5}, "flip is a probability"),
        ({"hue": 20.0}, "turns of the colour circle"),
        ({"scale": (0.5, 2.0)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be"),
        ({"brightness": -0.1}, "brightness is the half-width"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be"),
        ({"mean": (110.2, 100.6, 96.0)}, "mean must be three numbers in"),
        ({"mean": (0.5,)}, "mean must be three numbers in"),
        ({"std": (0.2, 0.2, 0.0)}, "std must be three numbers in"),
        ({"std": (58.1, 56.5, 55.3)}, "divide by 255"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)  # type: ignore[arg-type]


def test_wrong_frames_are_reported() -> None:
    with pytest.raises(ValueError, match="uint8"):
        crop_resize(torch.rand(1, 2, 8, 8, 3), torch.tensor([[0, 0, 8, 8]]), 4)
    with pytest.raises(ValueError, match="boxes"):
        crop_resize(noise(2, 2, 8, 8, 3), torch.tensor([[0, 0, 8, 8]]), 4)


@pytest.mark.parametrize(("degrees", "expected"), [(9, 0.67), (36, 0.72), (180, 0.90)])
def test_the_hue_turn_is_that_of_its_docstring(degrees: int, expected: float) -> None:
    """Compared with a turn in HSV by colorsys: the direction is the same, but the luma is kept."""
    luma, generator = torch.tensor([[0.299, 0.587, 0.114]] * 3), torch.tensor(_HUE_GENERATOR)
    angle = -math.radians(degrees)
    turn = luma + math.cos(angle) * (torch.eye(3) - luma) + math.sin(angle) * generator
    rgb = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    turned = rgb @ turn.T
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in rgb.tolist()]
    reference = torch.tensor([colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v) for h, s, v in hsv])
    cosine = torch.cosine_similarity((turned - rgb).flatten(), (reference - rgb).flatten(), dim=0)
    assert abs(float(cosine) - expected) < 0.02
    assert torch.allclose(turned @ luma[0], rgb @ luma[0], atol=1e-5)
