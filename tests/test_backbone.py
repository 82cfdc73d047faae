"""Encoders: sizes in closed form, torchvision's names, and how little a clip that stands still moves their features."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bgaug.backbone import BACKBONES, Backbone, build_backbone, count_parameters, load_weights

CLASSIFIER = 512 * 400 + 400


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    # One thread: on small tensors and busy cores, two spend their time waiting for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "count"),
    [("tiny", 124_144), ("r3d18", 33_371_472 - CLASSIFIER), ("r2plus1d18", 31_505_325 - CLASSIFIER)],
)
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_backbone(name)) == count


def test_tiny_shapes() -> None:
    out = build_backbone("tiny")(torch.rand(2, 3, 8, 32, 32))
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {
        "stage1": (2, 16, 8, 16, 16),
        "stage2": (2, 32, 8, 8, 8),
        "stage3": (2, 64, 8, 4, 4),
        "stage4": (2, 96, 8, 4, 4),
    }


@pytest.mark.parametrize("name", ["r3d18", "r2plus1d18"])
def test_residual_shapes(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        out = backbone(torch.empty(2, 3, 16, 112, 112))
        assert [tuple(value.shape[1:]) for value in out.values()] == [
            (64, 16, 56, 56),
            (128, 8, 28, 28),
            (256, 4, 14, 14),
            (512, 2, 7, 7),
        ]
        assert [value.shape[1] for value in out.values()] == list(backbone.dims.values())


def test_residual_networks_carry_torchvisions_names() -> None:
    with torch.device("meta"):
        full, split = build_backbone("r3d18").state_dict(), build_backbone("r2plus1d18").state_dict()
    expected = {
        "stem.0.weight": (64, 3, 3, 7, 7),
        "stem.1.running_mean": (64,),
        "layer1.0.conv1.0.weight": (64, 64, 3, 3, 3),
        "layer1.0.conv1.1.weight": (64,),
        "layer1.1.conv2.1.bias": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer2.0.downsample.1.weight": (128,),
        "layer4.1.conv2.0.weight": (512, 512, 3, 3, 3),
    }
    assert {name: tuple(full[name].shape) for name in expected} == expected
    expected = {
        "stem.0.weight": (45, 3, 1, 7, 7),
        "stem.1.weight": (45,),
        "stem.3.weight": (64, 45, 3, 1, 1),
        "stem.4.bias": (64,),
        "layer1.0.conv1.0.0.weight": (144, 64, 1, 3, 3),
        "layer1.0.conv1.0.1.weight": (144,),
        "layer1.0.conv1.0.3.weight": (64, 144, 3, 1, 1),
        "layer2.0.conv1.0.0.weight": (230, 64, 1, 3, 3),
        "layer2.0.conv2.0.0.weight": (230, 128, 1, 3, 3),
        "layer2.1.conv1.0.0.weight": (288, 128, 1, 3, 3),
        "layer4.0.conv2.0.3.weight": (512, 921, 3, 1, 1),
        "layer4.0.downsample.0.weight": (512, 256, 1, 1, 1),
    }
    assert {name: tuple(split[name].shape) for name in expected} == expected
    # 20 convolutions with shortcuts, each with the 5 tensors of its batch norm; the split ones twice, shortcuts apart.
    assert len(full) == 20 * 6 and len(split) == (2 * 17 + 3) * 6


def test_residual_block_is_the_formula() -> None:
    block = build_backbone("r3d18").get_submodule("layer2.0").eval()
    clip = torch.rand(1, 64, 4, 6, 6)
    conv1, conv2, shortcut = (block.get_submodule(name) for name in ("conv1", "conv2", "downsample"))
    torch.testing.assert_close(block(clip), torch.relu(conv2(conv1(clip)) + shortcut(clip)))


def tiny_reference(backbone: nn.Module, clips: Tensor) -> Tensor:
    """The last stage by plain 3-D convolutions."""
    for stage in backbone.children():
        space, time = (stage.get_submodule(name) for name in ("spatial", "temporal"))
        assert isinstance(space, nn.Conv2d) and isinstance(time, nn.Conv2d)
        padding = space.kernel_size[0] // 2
        stride = (1, space.stride[0], space.stride[0])
        clips = nn.functional.conv3d(clips, space.weight.unsqueeze(2), None, stride, (0, padding, padding))
        clips = torch.relu(normalised(stage.get_submodule("spatial_norm"), clips))
        clips = torch.cat([clips[:, :, :1], clips, clips[:, :, -1:]], dim=2)
        clips = nn.functional.conv3d(clips, time.weight.unsqueeze(4))
        clips = torch.relu(normalised(stage.get_submodule("temporal_norm"), clips))
    return clips


def normalised(norm: nn.Module, clips: Tensor) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
    out: Tensor = nn.functional.batch_norm(clips, None, None, norm.weight, norm.bias, training=True)
    return out


def test_tiny_agrees_with_plain_3d_convolutions() -> None:
    backbone, clips = build_backbone("tiny"), torch.rand(2, 3, 5, 32, 32)
    torch.testing.assert_close(backbone(clips)["stage4"], tiny_reference(backbone, clips), atol=1e-4, rtol=1e-4)


def test_static_clip_leaves_no_differences_in_tiny() -> None:
    still = torch.rand(2, 3, 1, 32, 32).expand(2, 3, 8, 32, 32)
    moving = torch.stack([still[:, :, t].roll(2 * t, dims=-1) for t in range(8)], dim=2)

    def energy(clips: Tensor, **options: str) -> Tensor:
        torch.manual_seed(0)
        z: Tensor = build_backbone("tiny", **options).eval()(clips)["stage4"]
        return (z[:, :, 1:] - z[:, :, :-1]).square().sum()

    assert energy(still) < 1e-2 * energy(moving)
    assert energy(still, temporal_padding="zeros") > energy(still)


def test_a_second_last_stage_is_independent() -> None:
    backbone = build_backbone("tiny")
    third = backbone(torch.rand(2, 3, 4, 32, 32))["stage3"]
    stage = backbone.last_stage()
    assert stage(third).shape == backbone.get_submodule("stage4")(third).shape
    assert not {id(p) for p in stage.parameters()} & {id(p) for p in backbone.parameters()}
    assert not torch.equal(stage(third), backbone.get_submodule("stage4")(third))
    with torch.device("meta"):
        large = build_backbone("r3d18")
        share = count_parameters(large.last_stage()) / count_parameters(large)
        assert large.last_stage()(torch.empty(1, 256, 4, 14, 14)).shape == (1, 512, 2, 7, 7)
    assert 0.74 < share < 0.76


def test_an_own_backbone_without_a_last_stage_is_told() -> None:
    class Own(Backbone):
        pass

    with pytest.raises(NotImplementedError, match="Own has no last_stage"):
        Own().last_stage()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tiny_in_half_precision(dtype: torch.dtype) -> None:
    backbone, clips = build_backbone("tiny").eval(), torch.rand(2, 3, 8, 32, 32)
    full = backbone(clips)["stage4"]
    with torch.autocast("cpu", dtype):
        mixed = backbone(clips)["stage4"]
    half = backbone.to(dtype)(clips.to(dtype))["stage4"]
    for out in (mixed, half):
        assert (out.float() - full).abs().max() < 0.03 * full.abs().max()


def test_weights_load_by_name_without_the_classifier() -> None:
    source, target = build_backbone("tiny"), build_backbone("tiny")
    state = dict(source.state_dict()) | {"fc.weight": torch.zeros(400, 96), "fc.bias": torch.zeros(400)}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    load_weights(target, state)
    clips = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(source.eval()(clips)["stage4"], target.eval()(clips)["stage4"])


def test_weights_that_do_not_fit_are_told_and_change_nothing() -> None:
    backbone = build_backbone("tiny")
    state = dict(backbone.state_dict())
    before = {name: value.clone() for name, value in state.items()}
    lacking = {name: value + 1 for name, value in state.items() if name != "stage1.spatial.weight"}
    with pytest.raises(ValueError, match=r"do not fit Tiny; 1 missing: stage1\.spatial\.weight"):
        load_weights(backbone, lacking)
    with pytest.raises(ValueError, match="1 unknown: head"):
        load_weights(backbone, state | {"head": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"stage1\.spatial\.weight is \(1,\), not \(16, 3, 5, 5\)"):
        load_weights(backbone, state | {"stage1.spatial.weight": torch.zeros(1)})
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_unknown_names_and_options_are_told() -> None:
    with pytest.raises(ValueError, match="no backbone 'r50'; there are tiny, r3d18, r2plus1d18"):
        build_backbone("r50")
    with pytest.raises(ValueError, match="temporal_padding"):
        build_backbone("tiny", temporal_padding="reflect")
    with pytest.raises(ValueError, match="width"):
        build_backbone("tiny", width=0)
    with pytest.raises(TypeError):
        build_backbone("r3d18", width=8)
    assert set(BACKBONES) == {"tiny", "r3d18", "r2plus1d18"}
