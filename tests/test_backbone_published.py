"""Published weights: names and shapes by rule, apart from our modules, and what they compute by plain functions."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.model.backbones import build_backbone, load_weights

Table = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
MEAN = torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)
STD = torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)
# Inception blocks by place among the features: in; 1x1x1; twice before and in 3x3x3; pooled.
INCEPTION = {
    5: (192, 64, 96, 128, 16, 32, 32),
    6: (256, 128, 128, 192, 32, 96, 64),
    8: (480, 192, 96, 208, 16, 48, 64),
    9: (512, 160, 112, 224, 24, 64, 64),
    10: (512, 128, 128, 256, 24, 64, 64),
    11: (512, 112, 144, 288, 32, 64, 64),
    12: (528, 256, 160, 320, 32, 128, 128),
    14: (832, 256, 160, 320, 32, 128, 128),
    15: (832, 384, 192, 384, 48, 128, 128),
}


def norm(name: str, width: int) -> Table:
    per_channel = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{key}": shape for key, shape in (per_channel | {"num_batches_tracked": ()}).items()}


def residual_table(split: bool) -> Table:
    """Torchvision's r3d_18 and r2plus1d_18."""
    if split:
        table: Table = {"stem.0.weight": (45, 3, 1, 7, 7)} | norm("stem.1", 45)
        table |= {"stem.3.weight": (64, 45, 3, 1, 1)} | norm("stem.4", 64)
    else:
        table = {"stem.0.weight": (64, 3, 3, 7, 7)} | norm("stem.1", 64)
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            at, middle = f"layer{layer}.{block}", 27 * inputs * outputs // (9 * inputs + 3 * outputs)
            for half, width in (("conv1", inputs), ("conv2", outputs)):
                if split:
                    table |= {f"{at}.{half}.0.0.weight": (middle, width, 1, 3, 3)} | norm(f"{at}.{half}.0.1", middle)
                    table |= {f"{at}.{half}.0.3.weight": (outputs, middle, 3, 1, 1)}
                else:
                    table |= {f"{at}.{half}.0.weight": (outputs, width, 3, 3, 3)}
                table |= norm(f"{at}.{half}.1", outputs)
            if inputs != outputs:
                table |= {f"{at}.downsample.0.weight": (outputs, inputs, 1, 1, 1)} | norm(f"{at}.downsample.1", outputs)
            inputs = outputs
    return table | {"fc.weight": (400, 512), "fc.bias": (400,)}


def s3d_table() -> Table:
    """Torchvision's s3d."""
    table: Table = {}

    def unit(name: str, outputs: int, inputs: int, *kernel: int) -> None:
        table.update({f"{name}.0.weight": (outputs, inputs, *kernel)} | norm(f"{name}.1", outputs))

    def separable(name: str, outputs: int, inputs: int, size: int) -> None:
        unit(f"{name}.0", outputs, inputs, 1, size, size)
        unit(f"{name}.1", outputs, outputs, size, 1, 1)

    separable("features.0", 64, 3, 7)
    unit("features.2", 64, 64, 1, 1, 1)
    separable("features.3", 192, 64, 3)
    for place, (inputs, plain, before1, middle1, before2, middle2, pooled) in INCEPTION.items():
        at = f"features.{place}"
        unit(f"{at}.branch0", plain, inputs, 1, 1, 1)
        unit(f"{at}.branch1.0", before1, inputs, 1, 1, 1)
        separable(f"{at}.branch1.1", middle1, before1, 3)
        unit(f"{at}.branch2.0", before2, inputs, 1, 1, 1)
        separable(f"{at}.branch2.1", middle2, before2, 3)
        unit(f"{at}.branch3.1", pooled, inputs, 1, 1, 1)
    return table | {"classifier.1.weight": (400, 1024, 1, 1, 1), "classifier.1.bias": (400,)}


def shallow_table() -> Table:
    """The R(2+1)D network of clip order prediction, with one block a stage."""
    table: Table = {}

    def split(name: str, outputs: int, inputs: int, time: int, space: int) -> None:
        middle = time * space**2 * inputs * outputs // (space**2 * inputs + time * outputs)
        table.update({f"{name}.spatial_conv.weight": (middle, inputs, 1, space, space)} | norm(f"{name}.bn", middle))
        table.update({f"{name}.temporal_conv.weight": (outputs, middle, time, 1, 1)})

    split("conv1", 64, 3, 3, 7)
    table |= norm("bn1", 64)
    inputs = 64
    for layer, outputs in ((2, 64), (3, 128), (4, 256), (5, 512)):
        at = f"conv{layer}.block1"
        split(f"{at}.conv1", outputs, inputs, 3, 3)
        split(f"{at}.conv2", outputs, outputs, 3, 3)
        table |= norm(f"{at}.bn1", outputs) | norm(f"{at}.bn2", outputs)
        if inputs != outputs:
            split(f"{at}.downsampleconv", outputs, inputs, 1, 1)
            table |= norm(f"{at}.downsamplebn", outputs)
        inputs = outputs
    return table | {"linear.weight": (101, 512), "linear.bias": (101,)}


def slow_table() -> Table:
    """PySlowFast's slow pathway with basic blocks."""
    table: Table = {"s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7)} | norm("s1.pathway0_stem.bn", 64)
    inputs = 64
    for stage, outputs, taps in ((2, 64, 1), (3, 128, 1), (4, 256, 3), (5, 512, 3)):
        for block in range(2):
            at = f"s{stage}.pathway0_res{block}"
            table |= {f"{at}.branch2.a.weight": (outputs, inputs, taps, 3, 3)} | norm(f"{at}.branch2.a_bn", outputs)
            table |= {f"{at}.branch2.b.weight": (outputs, outputs, 1, 3, 3)} | norm(f"{at}.branch2.b_bn", outputs)
            if inputs != outputs:
                table |= {f"{at}.branch1.weight": (outputs, inputs, 1, 1, 1)} | norm(f"{at}.branch1_bn", outputs)
            inputs = outputs
    return table | {"head.projection.weight": (400, 512), "head.projection.bias": (400,)}


def c3d_table() -> Table:
    """C3D with batch norm, of clip order prediction."""
    table: Table = {}
    inputs = 3
    for name, outputs in zip(
        ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b"), (64, 128, 256, 256, *[512] * 4), strict=True
    ):
        table |= {f"conv{name}.weight": (outputs, inputs, 3, 3, 3), f"conv{name}.bias": (outputs,)}
        table |= norm(f"bn{name}", outputs)
        inputs = outputs
    return table | {"linear.weight": (101, 512), "linear.bias": (101,)}


TABLES = {
    "r3d18": residual_table(split=False),
    "r2plus1d18": residual_table(split=True),
    "r2plus1d18-14m": shallow_table(),
    "s3d": s3d_table(),
    "slow_r18": slow_table(),
    "c3d": c3d_table(),
}
CLASSIFIERS = ("fc.", "classifier.", "linear.", "head.")


def generated(table: Table) -> State:
    """Weights of these names and shapes, such that features keep their size from layer to layer."""
    random = torch.Generator().manual_seed(0)
    state: State = {}
    for name, shape in table.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            state[name] = torch.randn(shape, generator=random) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        elif name.endswith(("running_mean", "bias")):
            state[name] = 0.1 * torch.randn(shape, generator=random)
        else:
            state[name] = 0.8 + 0.4 * torch.rand(shape, generator=random)
    return state


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("name", TABLES)
def test_names_and_shapes_are_the_published_ones(name: str, padding: str) -> None:
    with torch.device("meta"):
        state = build_backbone(name, temporal_padding=padding, normalise=True).state_dict()
    own = {key: tuple(value.shape) for key, value in state.items()}
    assert own == {key: shape for key, shape in TABLES[name].items() if not key.startswith(CLASSIFIERS)}


@pytest.mark.parametrize("name", TABLES)
def test_published_weights_load_without_their_classifier(name: str) -> None:
    state = {key: torch.full(shape, place) for place, (key, shape) in enumerate(TABLES[name].items())}
    with torch.device("meta"):
        backbone = build_backbone(name, normalise=True, temporal_padding="zeros")
    backbone.to_empty(device="cpu")
    load_weights(backbone, state)
    own = backbone.state_dict()
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in own.items())
    assert len(state) - len(own) == 2


def test_weights_of_another_network_are_reported() -> None:
    # A torchvision R(2+1)D among the shallow ones, and the other way round, is what happens.
    with torch.device("meta"):
        deep, shallow = build_backbone("r2plus1d18"), build_backbone("r2plus1d18-14m")
        full = build_backbone("r3d18").state_dict()
    with pytest.raises(
        ValueError, match=r"do not fit ShallowR2Plus1D; \d+ missing: conv1\.spatial_conv\.weight.*unknown: stem"
    ):
        load_weights(shallow, deep.state_dict())
    with pytest.raises(ValueError, match=r"do not fit ResNet18; \d+ missing: stem\.0\.weight"):
        load_weights(deep, shallow.state_dict())
    with pytest.raises(
        ValueError, match=r"do not fit ResNet18; .*missing.*unknown.*of another shape: stem\.0\.weight is"
    ):
        load_weights(deep, full)


def normed(state: State, name: str, value: Tensor, eps: float = 1e-5) -> Tensor:
    weight, bias, mean, variance = (state[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
    return F.batch_norm(value, mean, variance, weight, bias, eps=eps)


def convolved(state: State, name: str, value: Tensor, stride: tuple[int, int, int]) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv3d(value, weight, None, stride, tuple(size // 2 for size in weight.shape[2:]))


def residual_reference(state: State, clips: Tensor) -> dict[str, Tensor]:
    """The 18-layer networks of Tran et al. by plain functions, in either form."""

    def convolution(name: str, value: Tensor, time: int, space: int) -> Tensor:
        if f"{name}.weight" in state:
            return convolved(state, name, value, (time, space, space))
        value = torch.relu(normed(state, f"{name}.1", convolved(state, f"{name}.0", value, (1, space, space))))
        return convolved(state, f"{name}.3", value, (time, 1, 1))

    value = torch.relu(normed(state, "stem.1", convolved(state, "stem.0", (clips - MEAN) / STD, (1, 2, 2))))
    if "stem.3.weight" in state:
        value = torch.relu(normed(state, "stem.4", convolved(state, "stem.3", value, (1, 1, 1))))
    stages = {}
    for layer in range(1, 5):
        for block in range(2):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = torch.relu(normed(state, f"{at}.conv1.1", convolution(f"{at}.conv1.0", value, stride, stride)))
            inner = normed(state, f"{at}.conv2.1", convolution(f"{at}.conv2.0", inner, 1, 1))
            if stride == 2:
                value = normed(state, f"{at}.downsample.1", convolved(state, f"{at}.downsample.0", value, (2, 2, 2)))
            value = torch.relu(inner + value)
        stages[f"stage{layer}"] = value
    return stages


def s3d_reference(state: State, clips: Tensor) -> Tensor:
    """The last features of S3D by plain functions."""

    def unit(name: str, value: Tensor, stride: int = 1) -> Tensor:
        strides = tuple(stride if size > 1 else 1 for size in state[f"{name}.0.weight"].shape[2:])
        value = convolved(state, f"{name}.0", value, strides)  # type: ignore[arg-type]
        return torch.relu(normed(state, f"{name}.1", value, eps=1e-3))

    def separable(name: str, value: Tensor, stride: int = 1) -> Tensor:
        return unit(f"{name}.1", unit(f"{name}.0", value, stride), stride)

    value = separable("features.0", (clips - MEAN) / STD, 2)
    value = F.max_pool3d(value, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    value = separable("features.3", unit("features.2", value))
    value = F.max_pool3d(value, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for place in INCEPTION:
        if place == 8:
            value = F.max_pool3d(value, 3, 2, 1)
        if place == 14:
            value = F.max_pool3d(value, 2, 2)
        at = f"features.{place}"
        branches = [
            unit(f"{at}.branch0", value),
            separable(f"{at}.branch1.1", unit(f"{at}.branch1.0", value)),
            separable(f"{at}.branch2.1", unit(f"{at}.branch2.0", value)),
            unit(f"{at}.branch3.1", F.max_pool3d(value, 3, 1, 1)),
        ]
        value = torch.cat(branches, dim=1)
    return value


def loaded(name: str, clips: Tensor) -> tuple[State, dict[str, Tensor]]:
    state = generated(TABLES[name])
    backbone = build_backbone(name, normalise=True, temporal_padding="zeros").eval()
    load_weights(backbone, state)
    with torch.no_grad():
        features: dict[str, Tensor] = backbone(clips)
    return state, features


@pytest.mark.parametrize("name", ["r3d18", "r2plus1d18"])
def test_residual_networks_compute_what_the_names_declare(name: str) -> None:
    clips = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    state, features = loaded(name, clips)
    for stage, expected in residual_reference(state, clips).items():
        torch.testing.assert_close(features[stage], expected, atol=1e-3 * expected.abs().max().item(), rtol=0)


def test_s3d_compute_what_the_names_declare() -> None:
    clips = torch.rand(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1))
    state, features = loaded("s3d", clips)
    expected = s3d_reference(state, clips)
    torch.testing.assert_close(features["stage4"], expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
