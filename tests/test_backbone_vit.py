"""The video transformer: sizes, attention by the formula, and how it encodes time and place."""

import pytest
import torch

from bgaug.model.backbones import VideoViT, build_backbone
from bgaug.model.backbones.vit import _Attention, _sines, _space_position


@pytest.fixture
def small() -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(dim=32, depth=4, num_heads=2, patch=8).eval()


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 24, 16), (16, 8, 40)])
def test_any_clip_that_divides_will_do(small: VideoViT, shape: tuple[int, int, int]) -> None:
    T, H, W = shape
    out = small(torch.rand(2, 3, T, H, W))
    assert {tuple(value.shape) for value in out.values()} == {(2, 32, T // 2, H // 8, W // 8)}


@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 12, 8), (4, 8, 20), (4, 0, 8)])
def test_a_clip_that_does_not_divide_is_reported(small: VideoViT, shape: tuple[int, int, int]) -> None:
    T, H, W = shape
    message = f"multiple of 2 frames long and of 8 pixels high and wide, got {T} frames of {H} x {W}; crop"
    with pytest.raises(ValueError, match=message):
        small(torch.rand(1, 3, *shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 30}, "dim must be a multiple of 4 and of num_heads, got dim = 30"),
        ({"dim": 64, "num_heads": 3}, "num_heads = 3"),
        ({"depth": 6}, "depth must be a multiple of 4, the number of stages, got depth = 6"),
        ({"patch": 0}, "at least 1, got .*patch = 0"),
    ],
)
def test_sizes_that_do_not_divide_are_reported(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone("vit", **options)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention, tokens, position = _Attention(8, 2).double(), torch.rand(2, 3, 5, 8).double(), torch.rand(5, 8).double()
    query, key = attention.query(tokens + position), attention.key(tokens + position)
    value, heads = attention.value(tokens), []
    for part in (slice(0, 4), slice(4, 8)):
        weight = torch.softmax(query[..., part] @ key[..., part].transpose(-1, -2) / 4**0.5, dim=-1)
        heads.append(weight @ value[..., part])
    torch.testing.assert_close(attention(tokens, position), attention.out(torch.cat(heads, dim=-1)))


def test_positions_are_sines_and_separable() -> None:
    table = _sines(6, torch.empty(8))
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001])
    expected = [torch.cat([torch.sin(place * rates), torch.cos(place * rates)]) for place in range(6)]
    torch.testing.assert_close(table, torch.stack(expected))
    space = _space_position(torch.empty(2, 16, 3, 4, 5))
    assert space.shape == (1, 16, 1, 4, 5)
    rows, columns = space[0, :, 0].chunk(2)
    assert torch.equal(rows, rows[:, :, :1].expand_as(rows)) and torch.equal(columns, columns[:, :1].expand_as(columns))
    assert torch.equal(rows[:, :, 0].t(), _sines(4, torch.empty(8)))


def test_it_sees_the_order_of_time_and_space(small: VideoViT) -> None:
    torch.manual_seed(1)
    clip = torch.rand(1, 3, 2, 16, 16)
    # Tubelets of repeated frames, so that turning time round leaves each of them as it is.
    clip = torch.cat([clip[:, :, :1].repeat(1, 1, 2, 1, 1), clip[:, :, 1:].repeat(1, 1, 2, 1, 1)], dim=2)
    out, turned, mirrored = (small(value)["stage4"] for value in (clip, clip.flip(2), clip.roll(8, 4)))
    assert (out - turned.flip(2)).abs().max() > 1e-4
    assert (out - mirrored.roll(1, 4)).abs().max() > 1e-4


def test_frames_mix(small: VideoViT) -> None:
    clip = torch.rand(1, 3, 8, 8, 8)
    other = clip.clone()
    other[:, :, -1] = 0
    assert (small(clip)["stage4"][:, :, 0] - small(other)["stage4"][:, :, 0]).abs().max() > 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(small: VideoViT, dtype: torch.dtype) -> None:
    clips = torch.rand(2, 3, 8, 16, 16)
    full = small(clips)["stage4"]
    with torch.autocast("cpu", dtype):
        mixed = small(clips)["stage4"]
    half = small.to(dtype)(clips.to(dtype))["stage4"]
    for out in (mixed, half):
        assert (out.float() - full).abs().max() < 0.05 * full.abs().max()
