"""Parts of the convolutional encoders, against plain references."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bgaug.model.backbones import BACKBONES, Backbone, build_backbone
from bgaug.model.backbones.convolution import KineticsNormalisation, ReplicatedConv3d, convolution, padding_reach


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("taps", "size"), [(3, 3), (7, 1), (3, 7)])
def test_repeated_ends_are_those_of_a_padded_copy(num_frames: int, stride: int, taps: int, size: int) -> None:
    torch.manual_seed(0)
    layer = convolution(2, 3, (taps, size, size), (stride, 2, 2), temporal_padding="replicate", bias=True).double()
    assert type(layer) is ReplicatedConv3d
    clips = torch.rand(2, 2, num_frames, 9, 8, dtype=torch.float64, requires_grad=True)
    padded = F.pad(clips, (0, 0, 0, 0, taps // 2, taps // 2), mode="replicate")
    expected = F.conv3d(padded, layer.weight, layer.bias, (stride, 2, 2), (0, size // 2, size // 2))
    out = layer(clips)
    torch.testing.assert_close(out, expected)
    weights = torch.rand_like(out)
    inputs = (clips, *layer.parameters())
    got, target = (torch.autograd.grad((weights * value).sum(), inputs) for value in (out, expected))
    torch.testing.assert_close(got, target)


@pytest.mark.parametrize("taps", [3, 7])
def test_repeated_ends_leave_a_still_clip_still_in_half_precision(taps: int) -> None:
    torch.manual_seed(0)
    layer = convolution(8, 16, (taps, 3, 3), temporal_padding="replicate")
    clip = torch.rand(1, 8, 1, 12, 12).expand(-1, -1, 9, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(clip)
    assert out.dtype is torch.bfloat16
    # Sums in another order may round otherwise where they lie between two values; nothing else does.
    assert (out != out[:, :, 4:5]).float().mean() < 1e-2


def test_only_convolutions_over_time_repeat_ends() -> None:
    with torch.device("meta"):
        assert type(convolution(2, 2, (1, 3, 3), temporal_padding="replicate")) is nn.Conv3d
        assert type(convolution(2, 2, (3, 3, 3), temporal_padding="zeros")) is nn.Conv3d
        backbone = build_backbone("r2plus1d18")
        assert sum(isinstance(layer, ReplicatedConv3d) for layer in backbone.modules()) == 17


def test_normalisation_is_the_formula_and_stays_out_of_the_state_dict() -> None:
    clips = torch.rand(2, 3, 4, 5, 6)
    out = KineticsNormalisation()(clips)
    mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    for channel in range(3):
        torch.testing.assert_close(out[:, channel], (clips[:, channel] - mean[channel]) / std[channel])
    assert not KineticsNormalisation().state_dict()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("tiny", "vit")])
def test_normalisation_renames_nothing(name: str) -> None:
    with torch.device("meta"):
        names = list(build_backbone(name).state_dict())
        assert list(build_backbone(name, normalise=True).state_dict()) == names


@pytest.mark.parametrize("name", ["r2plus1d18-14m", "s3d", "slow_r18"])
def test_an_encoder_normalises_clips_if_asked_to(name: str) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name).eval()
    torch.manual_seed(0)
    normalising = build_backbone(name, normalise=True).eval()
    clips = torch.rand(1, 3, 8, 32, 32)
    with torch.no_grad():
        expected, out = plain(KineticsNormalisation()(clips)), normalising(clips)
    assert all(torch.equal(out[stage], value) for stage, value in expected.items())


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vit"])
def test_zeros_reach_as_far_as_the_encoder_declares(name: str) -> None:
    torch.manual_seed(0)
    backbone: Backbone = build_backbone(name, temporal_padding="zeros").eval()
    still = torch.rand(1, 3, 1, 32, 32).expand(-1, -1, 24, -1, -1)
    with torch.no_grad():
        out = backbone(still)
    looked_at = 0
    for stage, value in out.items():
        reach, length = backbone.temporal_reach[stage], value.shape[2]
        if length <= 2 * reach:
            continue
        looked_at += 1
        middle = value[:, :, length // 2 : length // 2 + 1]
        tolerance = 1e-5 * value.abs().max()
        change = (value - middle).abs().amax(dim=(0, 1, 3, 4))
        assert change[reach : length - reach].max() < tolerance
        assert not reach or change[reach - 1] > tolerance
    assert looked_at


def test_reach_by_hand() -> None:
    layers = {"a": [(3, 1), (3, 1)], "b": [(3, 2)], "c": [(1, 2)]}
    assert padding_reach("zeros", layers) == {"a": 2, "b": 2, "c": 1}
    assert padding_reach("replicate", layers) == {}
    with torch.device("meta"):
        assert not any(build_backbone(name).temporal_reach for name in BACKBONES)
        assert not any(build_backbone(name).saliency_stages for name in BACKBONES)
