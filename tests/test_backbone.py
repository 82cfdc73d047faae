"""Encoders: sizes in closed form, shapes, what an own encoder must have, and weights by name."""

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bgaug.model import METHODS, Encoder
from bgaug.model.backbones import BACKBONES, Backbone, build_backbone, count_parameters, load_weights
from bgaug.model.decomposition import MotionAwareDecomposition

# Trunk parameters: what is published, less the classifier; else the sum over the layers.
KINETICS = 400


def convolutions(*layers: tuple[int, ...]) -> int:
    """Parameters of (inputs, outputs, taps) convolutions, each with the weight and bias of its batch norm."""
    return sum(inputs * outputs * taps + 2 * outputs for inputs, outputs, taps in layers)


def slow_r18_count() -> int:
    count = convolutions((3, 64, 49), *[(64, 64, 9)] * 4)
    for inputs, outputs, taps in ((64, 128, 9), (128, 256, 27), (256, 512, 27)):
        blocks = [(inputs, outputs, taps), (outputs, outputs, 9), (outputs, outputs, taps), (outputs, outputs, 9)]
        count += convolutions((inputs, outputs, 1), *blocks)
    return count


def shallow_r2plus1d_count() -> int:
    def split(inputs: int, outputs: int, time: int, space: int) -> list[tuple[int, int, int]]:
        # As many channels between as keep the parameters of the whole convolution, rounded down.
        middle = time * space**2 * inputs * outputs // (space**2 * inputs + time * outputs)
        return [(inputs, middle, space**2), (middle, outputs, time)]

    layers = split(3, 64, 3, 7)
    for inputs, outputs in ((64, 64), (64, 128), (128, 256), (256, 512)):
        layers += split(inputs, outputs, 3, 3) + split(outputs, outputs, 3, 3)
        layers += split(inputs, outputs, 1, 1) if inputs != outputs else []
    return convolutions(*layers)


def c3d_count() -> int:
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    return convolutions(*zip(widths, widths[1:], [27] * 8, strict=False)) + sum(widths[1:])


def vit_count() -> int:
    attention = 2 * 192**2 + 2 * (192**2 + 192)
    linear = 192 * 768 + 768 + 768 * 192 + 192
    return 3 * 2 * 16 * 16 * 192 + 192 + 8 * (2 * attention + linear + 3 * 2 * 192) + 2 * 192


COUNTS = {
    "tiny": 124_144,
    "r3d18": 33_371_472 - (512 + 1) * KINETICS,
    "r2plus1d18": 31_505_325 - (512 + 1) * KINETICS,
    "r2plus1d18-14m": shallow_r2plus1d_count(),
    "s3d": 8_320_048 - (1024 + 1) * KINETICS,
    "slow_r18": slow_r18_count(),
    "c3d": c3d_count(),
    "vit": vit_count(),
}
RESIDUAL = [(64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7)]
SHAPES = {
    "tiny": [(16, 16, 56, 56), (32, 16, 28, 28), (64, 16, 14, 14), (96, 16, 14, 14)],
    "r3d18": RESIDUAL,
    "r2plus1d18": RESIDUAL,
    "r2plus1d18-14m": RESIDUAL,
    "s3d": [(192, 8, 28, 28), (480, 8, 14, 14), (832, 4, 7, 7), (1024, 2, 3, 3)],
    "slow_r18": [(64, 16, 28, 28), (128, 16, 14, 14), (256, 16, 7, 7), (512, 16, 4, 4)],
    "c3d": [(128, 16, 56, 56), (256, 8, 28, 28), (512, 4, 14, 14), (512, 2, 7, 7)],
    "vit": [(192, 8, 7, 7)] * 4,
}


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    # One thread: on small tensors and busy cores, two spend their time waiting for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def read_stages(backbone: Backbone, features: Mapping[str, Tensor]) -> list[str]:
    """The stages whose motion makes the saliency."""
    stages = MotionAwareDecomposition(backbone.saliency_stages)._read_stages(features)
    return list(stages)


def test_every_backbone_is_looked_at() -> None:
    assert list(BACKBONES) == list(COUNTS) == list(SHAPES)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(build_backbone(name)) == COUNTS[name]


def test_sizes_as_published() -> None:
    published = {"r3d18": 33_166_272, "r2plus1d18": 31_300_125, "r2plus1d18-14m": 14_365_303, "s3d": 7_910_048}
    published |= {"slow_r18": 20_023_872, "c3d": 27_661_440, "vit": 5_037_120}
    assert {name: COUNTS[name] for name in published} == published


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_16_frames_of_112_pixels(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        out = backbone(torch.empty(2, 3, 16, 112, 112))
    assert [tuple(value.shape) for value in out.values()] == [(2, *shape) for shape in SHAPES[name]]
    assert {stage: value.shape[1] for stage, value in out.items()} == backbone.dims
    assert list(out) == list(backbone.dims)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_second_last_stage_is_independent_and_fits(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        *_, before, last = backbone(torch.empty(2, 3, 16, 112, 112)).values()
        stage, other = backbone.last_stage(), backbone.last_stage()
        assert stage(before).shape == last.shape
    own = {id(parameter) for parameter in backbone.parameters()}
    first, second = ({id(parameter) for parameter in one.parameters()} for one in (stage, other))
    assert first and not first & own and not first & second


def test_a_last_stage_weighs_three_quarters_of_a_residual_network() -> None:
    with torch.device("meta"):
        large = build_backbone("r3d18")
        assert 0.74 < count_parameters(large.last_stage()) / count_parameters(large) < 0.76


@pytest.mark.parametrize("name", BACKBONES)
def test_the_dual_method_runs_on_it(name: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(build_backbone(name), METHODS["dual"])
        codes = encoder.codes(torch.empty(2, 3, 16, 112, 112))
    *_, (width, _, height, breadth) = SHAPES[name]
    assert codes.dynamic.shape == codes.static.shape == codes.global_code.shape == (2, width)
    assert codes.saliency.shape == (2, height, breadth)


@pytest.mark.parametrize("name", BACKBONES)
def test_motion_is_read_where_four_frames_are_left(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        out = backbone(torch.empty(1, 3, 16, 112, 112))
    read = read_stages(backbone, out)
    assert read == (["stage2", "stage3"] if out["stage4"].shape[2] < 4 else ["stage4"])
    assert min(out[stage].shape[2] for stage in read) >= 4


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    # Not in training: batch norm takes off the mean, and with it the bias of a convolution before it.
    backbone = build_backbone(name).eval()
    out = backbone(torch.rand(1, 3, 8, 32, 32))
    sum(value.square().mean() for value in out.values()).backward()
    without = [key for key, value in backbone.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without


@pytest.mark.parametrize("name", BACKBONES)
def test_the_clip_is_left_as_it_was(name: str) -> None:
    clip = torch.rand(1, 3, 8, 32, 32)
    before = clip.clone()
    options = {"normalise": True} if name not in ("tiny", "vit") else {}
    with torch.no_grad():
        build_backbone(name, **options).eval()(clip)
    assert torch.equal(clip, before)


def test_tiny_shapes() -> None:
    out = build_backbone("tiny")(torch.rand(2, 3, 8, 32, 32))
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {
        "stage1": (2, 16, 8, 16, 16),
        "stage2": (2, 32, 8, 8, 8),
        "stage3": (2, 64, 8, 4, 4),
        "stage4": (2, 96, 8, 4, 4),
    }


def test_s3d_takes_clips_as_small_as_declared() -> None:
    with torch.device("meta"):
        backbone = build_backbone("s3d").eval()
        assert backbone(torch.empty(1, 3, 5, 17, 17))["stage4"].shape == (1, 1024, 1, 1, 1)
        assert backbone(torch.empty(1, 3, 7, 17, 17))["stage2"].shape[2] == 4
        for num_frames, side in ((4, 17), (5, 16)):
            with pytest.raises(RuntimeError, match="too small"):
                backbone(torch.empty(1, 3, num_frames, side, side))


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


def test_a_second_last_stage_has_weights_of_its_own() -> None:
    backbone = build_backbone("tiny")
    third = backbone(torch.rand(2, 3, 4, 32, 32))["stage3"]
    stage = backbone.last_stage()
    assert stage(third).shape == backbone.get_submodule("stage4")(third).shape
    assert not torch.equal(stage(third), backbone.get_submodule("stage4")(third))


def test_an_own_backbone_without_a_last_stage_is_reported() -> None:
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


def test_weights_that_do_not_fit_are_reported_and_change_nothing() -> None:
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


def test_unknown_names_and_options_are_reported() -> None:
    with pytest.raises(ValueError, match="no backbone 'r50'; there are tiny, r3d18, r2plus1d18, .*module:function"):
        build_backbone("r50")
    with pytest.raises(ValueError, match="width"):
        build_backbone("tiny", width=0)
    with pytest.raises(TypeError, match="backbone 'r3d18': .*'width'; its options are: temporal_padding, normalise"):
        build_backbone("r3d18", width=8)
    with pytest.raises(TypeError, match="backbone 'vit': .*'normalise'; its options are: dim, depth, num_heads"):
        build_backbone("vit", normalise=True)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vit"])
def test_another_padding_is_reported(name: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match="temporal_padding must be replicate or zeros, got 'reflect'"),
    ):
        build_backbone(name, temporal_padding="reflect")


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    dims = {"early": 4, "late": 8}
    head = (16, 8, False)
    def __init__(self, width=4):
        super().__init__()
        self.width = width
        self.early = nn.Conv3d(3, 4, 3, padding=1)
        self.late = self.last_stage()
    def last_stage(self):
        return nn.Conv3d(4, 8, 3, (1, 2, 2), 1)
    def forward(self, clips):
        early = self.early(clips)
        return {"early": early, "late": self.late(early)}

class Bare(nn.Module):
    pass

def with_attribute(name, value):
    def build():
        net = Net()
        setattr(net, name, value)
        return net
    return build

def with_output(output):
    class Other(Net):
        def forward(self, clips):
            return output(Net.forward(self, clips))
    return Other

def number():
    return 3

something = 3
no_dims = with_attribute("dims", None)
one_stage = with_attribute("dims", {"late": 8})
no_head = with_attribute("head", (16, 8))
no_last_stage = with_attribute("last_stage", None)
elsewhere = with_attribute("saliency_stages", ("stage9",))
chosen = with_attribute("saliency_stages", ("early",))
a_list = with_output(lambda stages: list(stages.values()))
in_disorder = with_output(lambda stages: {"late": stages["late"], "early": stages["early"]})
flat = with_output(lambda stages: stages | {"late": stages["late"].mean((2, 3, 4))})
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported, with encoders that are not ours."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_an_own_backbone_by_module_and_function(own: str) -> None:
    backbone = build_backbone(f"{own}:Net", width=7)
    assert backbone.width == 7
    assert backbone.saliency_stages is None and not backbone.temporal_reach
    assert build_backbone(f"{own}:chosen").saliency_stages == ("early",)
    out = copy.deepcopy(backbone)(torch.rand(1, 3, 4, 8, 8))
    assert [tuple(value.shape) for value in out.values()] == [(1, 4, 4, 8, 8), (1, 8, 4, 4, 4)]
    codes = Encoder(backbone, METHODS["dual"]).codes(torch.rand(2, 3, 4, 8, 8))
    assert codes.static.shape == (2, 8)
    again = build_backbone(f"{own}:Net")
    load_weights(again, backbone.state_dict())
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("nothing", ValueError, "has no 'nothing'"),
        ("something", TypeError, "must be a function that returns an encoder, got int"),
        ("number", TypeError, "must return a torch.nn.Module, returned int"),
        ("Bare", TypeError, "dims must be a dict from at least two stage names to channels, got None"),
        ("no_dims", TypeError, "dims must be a dict"),
        ("one_stage", TypeError, "dims must be a dict from at least two"),
        ("no_head", TypeError, r"head must be \(hidden, out, batch_norm\) such as .* got \(16, 8\)"),
        ("no_last_stage", TypeError, r"last_stage\(\) is missing"),
        ("elsewhere", ValueError, "saliency_stages has stage9; dims has early, late"),
    ],
)
def test_an_own_backbone_that_lacks_something(own: str, function: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_backbone(f"{own}:{function}")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("a_list", TypeError, "must return a dict from stage name to features, returned list"),
        (
            "in_disorder",
            ValueError,
            r"the stages of dims, \['early', 'late'\], in that order; returned \['late', 'early'\]",
        ),
        ("flat", ValueError, r"must return late as \(B, 8, T', H', W'\), returned \(1, 8\)"),
    ],
)
def test_an_own_backbone_is_watched_when_it_runs(own: str, function: str, error: type[Exception], message: str) -> None:
    backbone = build_backbone(f"{own}:{function}")
    with pytest.raises(error, match=message):
        backbone(torch.rand(1, 3, 4, 8, 8))


def test_own_names_that_lead_nowhere_are_reported(own: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected module:function for a backbone of your own, such as"):
        build_backbone(":Net")
    with pytest.raises(ValueError, match="expected module:function"):
        build_backbone(f"{own}:")
    with pytest.raises(ValueError, match="no module 'not_a_module'; install it, or name its folder in PYTHONPATH"):
        build_backbone("not_a_module:Net")
    with pytest.raises(TypeError, match=f"{own}:Net: .*'depth'; its options are: width"):
        build_backbone(f"{own}:Net", depth=3)
    (tmp_path / f"{own}_broken.py").write_text("import not_a_module_either", "utf-8")
    with pytest.raises(ModuleNotFoundError, match="not_a_module_either"):
        build_backbone(f"{own}_broken:Net")
