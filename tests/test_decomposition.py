"""The decomposition: closed forms for still, flat and moving features."""

import pytest
import torch
from torch import Tensor

from bgaug.model.backbones import build_backbone
from bgaug.model.decomposition import (
    Codes,
    MotionAwareDecomposition,
    _temporal_deviation,
    saliency_map,
)


def moving_square(size: int = 9, step: int = 1) -> Tensor:
    clip = torch.full((1, 3, 8, 32, 32), 0.2)
    for t in range(8):
        left = 4 + step * t
        clip[:, :, t, 10 : 10 + size, left : left + size] = 1.0
    return clip


def slow_saliency(z: Tensor) -> Tensor:
    """The definition, cell by cell."""
    B, C, T, H, W = z.shape
    out = torch.empty(B, H, W)
    for b in range(B):
        total = torch.zeros(H, W)
        steps = range(1, T - 2) if T >= 4 else range(T - 1)
        for t in steps:
            for c in range(C):
                total += (z[b, c, t + 1] - z[b, c, t]).abs()
        out[b] = (total - total.min()) / (total.max() - total.min())
    return out


def test_constant_features_give_a_half_everywhere() -> None:
    still = torch.rand(2, 5, 1, 4, 4).expand(2, 5, 8, 4, 4)
    assert torch.equal(saliency_map(still), torch.full((2, 4, 4), 0.5))
    assert torch.equal(saliency_map(torch.zeros(2, 5, 8, 4, 4)), torch.full((2, 4, 4), 0.5))


def test_flat_is_judged_against_the_level_of_the_features() -> None:
    z = torch.ones(2, 1, 4, 2, 2)
    z[0, :, 2, 0, 0] += 5e-4
    z[1, :, 2, 0, 0] += 5e-3
    out = saliency_map(z)
    assert torch.equal(out[0], torch.full((2, 2), 0.5))
    assert torch.equal(out[1], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(saliency_map(1000 * z), out)


@pytest.mark.parametrize("frames", [2, 3, 4, 8])
def test_saliency_agrees_with_the_definition(frames: int) -> None:
    z = torch.randn(3, 4, frames, 5, 6)
    torch.testing.assert_close(saliency_map(z), slow_saliency(z))


def test_trimming_leaves_out_the_first_and_last_difference() -> None:
    z = torch.zeros(1, 1, 6, 1, 2) + 1
    z[:, :, 0, :, 0] = 9
    z[:, :, 5, :, 0] = 9
    z[:, :, 3, :, 1] = 2
    assert saliency_map(z).tolist() == [[[0.0, 1.0]]]
    assert saliency_map(z, trim_ends=False).tolist() == [[[1.0, 0.0]]]


def test_saliency_of_a_moving_square_peaks_at_its_rim() -> None:
    # In the differences used (frames 1 to 6) the leading edge enters columns 14 to 18, the trailing one leaves 5 to 9.
    saliency = saliency_map(moving_square())[0]
    assert saliency[14, 14:19].min() == 1 and saliency[14, 5:10].min() == 1
    assert saliency[14, 10:14].max() == 0
    assert saliency[:10].max() == 0 and saliency[19:].max() == 0


def test_saliency_carries_no_gradient_and_ignores_autocast() -> None:
    z = torch.rand(2, 3, 5, 4, 4, requires_grad=True)
    assert not saliency_map(z).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(saliency_map(z), saliency_map(z.detach()))


def test_codes_are_the_weighted_means() -> None:
    z, static = torch.randn(2, 6, 5, 4, 3), torch.randn(2, 7, 5, 4, 3)
    codes = MotionAwareDecomposition()({"last": z}, static)
    M = saliency_map(z)
    mean, mean_static = z.mean(dim=2), static.mean(dim=2)
    torch.testing.assert_close(codes.saliency, M)
    torch.testing.assert_close(codes.global_code, z.mean(dim=(2, 3, 4)))
    deviation = (z - mean.unsqueeze(2)).square().mean(dim=2).sqrt()
    for pool, of in (("deviation", deviation), ("mean", mean)):
        expected = torch.einsum("bhw,bchw->bc", M, of) / M.sum(dim=(1, 2)).unsqueeze(1)
        dynamic = MotionAwareDecomposition(pool=pool)({"last": z}, static).dynamic
        torch.testing.assert_close(dynamic, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codes.dynamic, MotionAwareDecomposition(pool="deviation")({"last": z}).dynamic)
    expected = torch.einsum("bhw,bchw->bc", 1 - M, mean_static) / (1 - M).sum(dim=(1, 2)).unsqueeze(1)
    torch.testing.assert_close(codes.static, expected)


def test_of_still_features_the_static_code_is_the_mean_and_the_dynamic_code_is_nothing() -> None:
    z = torch.rand(2, 6, 1, 4, 4).expand(2, 6, 8, 4, 4)
    codes = MotionAwareDecomposition()({"last": z})
    torch.testing.assert_close(codes.dynamic, torch.full_like(codes.dynamic, 1e-3))
    torch.testing.assert_close(codes.static, codes.global_code)
    torch.testing.assert_close(MotionAwareDecomposition(pool="mean")({"last": z}).dynamic, codes.global_code)


def test_what_lies_still_under_the_mover_is_not_in_the_dynamic_code() -> None:
    """A mat: a channel that is on all the time, in the very cells where another one moves."""
    z = torch.zeros(2, 2, 8, 4, 4)
    z[:, 0, ::2, 1:3, 1:3] = 1.0
    z[1, 1, :, 1:3, 1:3] = 5.0
    mean, deviation = (MotionAwareDecomposition(pool=pool)({"last": z}).dynamic for pool in ("mean", "deviation"))
    assert mean[1, 1] - mean[0, 1] == pytest.approx(5.0)
    torch.testing.assert_close(deviation[1], deviation[0], atol=2e-3, rtol=0)
    assert deviation[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_the_deviation_of_what_never_varies_has_a_gradient() -> None:
    z = torch.zeros(1, 2, 4, 2, 2, requires_grad=True)
    _temporal_deviation(z).sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None and torch.equal(z.grad, torch.zeros_like(z))
    half = _temporal_deviation(torch.rand(1, 2, 4, 2, 2).bfloat16())
    assert half.dtype == torch.float32 and half.shape == (1, 2, 2, 2)


def test_the_deviation_leaves_out_frames_that_padding_has_touched() -> None:
    z = torch.rand(2, 3, 8, 4, 4)
    ends = z.clone()
    ends[:, :, [0, 1, -2, -1]] += 7.0
    padded = MotionAwareDecomposition(reach={"last": 2}, trim_ends=False)
    torch.testing.assert_close(padded({"last": ends}).dynamic, padded({"last": z}).dynamic)
    # Where nothing else is left, the code is the mean.
    everything = MotionAwareDecomposition(["early"], reach={"late": 4})
    codes = everything({"early": z, "late": z})
    expected = MotionAwareDecomposition(["early"], pool="mean")({"early": z, "late": z})
    assert torch.equal(codes.dynamic, expected.dynamic)


def test_dynamic_code_sees_what_moves_and_the_static_code_what_does_not() -> None:
    z = torch.zeros(1, 2, 6, 2, 2)
    z[0, 0, ::2, 0, 0] = 4.0
    z[0, 1, :, 1, 1] = 2.0
    codes = MotionAwareDecomposition()({"last": z})
    torch.testing.assert_close(codes.dynamic, torch.tensor([[2.0, 1e-3]]))  # half the time 4, half the time 0
    torch.testing.assert_close(codes.static, torch.tensor([[0.0, 2 / 3]]))


def stages(*lengths: int) -> dict[str, Tensor]:
    sizes = (16, 8, 4, 2)
    generator = torch.Generator().manual_seed(0)
    return {
        f"stage{i + 1}": torch.rand(2, 3, length, sizes[i], sizes[i], generator=generator)
        for i, length in enumerate(lengths)
    }


def codes_equal(a: Codes, b: Codes) -> bool:
    return torch.equal(a.saliency, b.saliency) and torch.equal(a.dynamic, b.dynamic)


@pytest.mark.parametrize(
    ("lengths", "read"),
    [
        ((8, 8, 8, 8), ["stage4"]),
        ((16, 8, 4, 2), ["stage2", "stage3"]),
        ((8, 4, 2, 1), ["stage2"]),
        ((4, 2, 1, 1), ["stage1"]),
    ],
)
def test_default_stages_are_those_where_time_is_long(lengths: tuple[int, ...], read: list[str]) -> None:
    features = stages(*lengths)
    assert codes_equal(MotionAwareDecomposition()(features), MotionAwareDecomposition(read)(features))


def test_several_stages_are_averaged_on_the_last_grid() -> None:
    features = stages(16, 8, 4, 2)
    saliency = MotionAwareDecomposition()(features).saliency
    assert saliency.shape == (2, 2, 2)
    maps = []
    for name in ("stage2", "stage3"):
        z = features[name]
        motion = (z[:, :, 2:-1] - z[:, :, 1:-2]).abs().mean(dim=(1, 2)) / z[:, :, 1:-1].mean(dim=(1, 2, 3, 4)).view(
            2, 1, 1
        )
        maps.append(torch.nn.functional.adaptive_avg_pool2d(motion, 2))
    mean = (maps[0] + maps[1]) / 2
    low, high = mean.amin(dim=(1, 2), keepdim=True), mean.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(saliency, (mean - low) / (high - low))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_agree(dtype: torch.dtype) -> None:
    z = torch.rand(2, 6, 8, 4, 4)
    full, half = MotionAwareDecomposition()({"z": z}), MotionAwareDecomposition()({"z": z.to(dtype)})
    assert half.dynamic.dtype == torch.float32
    torch.testing.assert_close(half.saliency, full.saliency, atol=0.02, rtol=0)
    torch.testing.assert_close(half.dynamic, full.dynamic, atol=0.01, rtol=0)


def test_tiny_reads_nothing_from_a_static_clip() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("tiny")
    still = torch.rand(2, 3, 1, 32, 32).expand(2, 3, 8, 32, 32)
    codes = MotionAwareDecomposition()(backbone(still))
    assert torch.equal(codes.saliency, torch.full((2, 4, 4), 0.5))


def test_wrong_features_are_reported() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        saliency_map(torch.rand(1, 1, 1, 2, 2))
    with pytest.raises(ValueError, match="no stage has 4 frames"):
        MotionAwareDecomposition()(stages(3, 2, 1, 1))
    with pytest.raises(ValueError, match="no stage stage9; the backbone has stage1"):
        MotionAwareDecomposition(["stage9"])(stages(8, 8, 8, 8))
    with pytest.raises(ValueError, match="one grid"):
        MotionAwareDecomposition()(stages(8, 8, 8, 8), torch.rand(2, 3, 8, 5, 5))


def test_slow_codes_agree_in_half_precision() -> None:
    z = torch.rand(4, 16, 8, 6, 6)
    full = MotionAwareDecomposition()({"a": z})
    for dtype in (torch.float16, torch.bfloat16):
        rounded = z.to(dtype)  # what a network under autocast hands over
        half, exact = (MotionAwareDecomposition()({"a": value}) for value in (rounded, rounded.float()))
        for name in ("global_code", "dynamic", "static"):
            torch.testing.assert_close(getattr(half, name), getattr(exact, name), atol=2e-3, rtol=0)
            assert getattr(half, name).dtype == torch.float32
        if dtype == torch.float16:
            torch.testing.assert_close(half.dynamic, full.dynamic, atol=2e-3, rtol=0)


def test_frames_that_padding_has_touched_are_left_out() -> None:
    z = torch.rand(1, 3, 1, 4, 4).expand(1, 3, 12, 4, 4).clone()
    z[:, :, :3] += 1
    z[:, :, -3:] -= 1
    still = MotionAwareDecomposition(reach={"a": 3})({"a": z}).saliency
    assert torch.equal(still, torch.full((1, 4, 4), 0.5))
    z[:, :, 6, 0, 0] += 5
    assert MotionAwareDecomposition(reach={"a": 3})({"a": z}).saliency[0, 0, 0] == 1
    untrimmed = MotionAwareDecomposition(reach={"a": 3}, trim_ends=False)({"a": z}).saliency
    torch.testing.assert_close(untrimmed, MotionAwareDecomposition()({"a": z[:, :, 2:-2]}).saliency)
    with pytest.raises(ValueError, match="only 0 of the 8 frames of a"):
        MotionAwareDecomposition(reach={"a": 4})({"a": z[:, :, :8]})
