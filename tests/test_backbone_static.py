"""A clip without motion leaves under 1 % of a moving clip's differences where the saliency is read."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.model.backbones import BACKBONES, Backbone, build_backbone
from bgaug.model.decomposition import MotionAwareDecomposition

FRAMES, SIZE = 16, 48
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def world() -> tuple[Tensor, Tensor]:
    """The same textured square on the same textured ground, standing and moving: two clips (1, 3, 16, 48, 48)."""
    random = torch.Generator().manual_seed(0)

    def texture(size: int) -> Tensor:
        coarse = torch.rand(1, 3, size // 4, size // 4, generator=random)
        return F.interpolate(coarse, size=(size, size), mode="bilinear")

    ground, side = texture(SIZE), SIZE // 3
    square = texture(side)

    def frame(left: int) -> Tensor:
        image = ground.clone()
        image[:, :, side : 2 * side, left : left + side] = square
        return image

    still = torch.stack([frame(side)] * FRAMES, dim=2)
    moving = torch.stack([frame(side // 2 + t) for t in range(FRAMES)], dim=2)
    return still, moving


def energy(features: Tensor, trim: int) -> float:
    """Squared differences between adjacent frames, the mean over channels and time, summed over cells and clips."""
    kept = features[:, :, trim : features.shape[2] - trim]
    return (kept[:, :, 1:] - kept[:, :, :-1]).square().mean(dim=(1, 2)).sum().item()


def leaks(backbone: Backbone, training: bool) -> dict[str, float]:
    """By stage that is read, the energy of the still clip in units of the moving one's; random weights, one batch."""
    still, moving = world()
    with torch.no_grad():
        out = backbone.train(training)(torch.cat([still, moving]))
    stages = MotionAwareDecomposition(backbone.saliency_stages)._read_stages(out)
    found = {}
    for stage in stages:
        trim = max(1, backbone.temporal_reach.get(stage, 0))
        halves = out[stage].chunk(2)
        found[stage] = energy(halves[0], trim) / energy(halves[1], trim)
    return found


@MODES
@pytest.mark.parametrize("name", BACKBONES)
def test_a_still_clip_has_still_features(name: str, training: bool) -> None:
    torch.manual_seed(0)
    found = leaks(build_backbone(name), training)
    assert found and max(found.values()) < 1e-8, found  # 1e-2 is asked for


@MODES
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vit"])
def test_with_zeros_so_have_the_stages_named_for_it_within_their_reach(name: str, training: bool) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, temporal_padding="zeros")
    found = leaks(backbone, training)
    assert tuple(found) == backbone.saliency_stages
    assert max(found.values()) < 1e-8, found


@pytest.mark.parametrize("name", ["r3d18", "r2plus1d18-14m", "c3d"])
def test_zeros_leak_through_the_stages_that_are_read_by_default(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, temporal_padding="zeros")
    backbone.saliency_stages, backbone.temporal_reach = None, {}
    found = leaks(backbone, training=False)
    assert list(found) == ["stage2", "stage3"] and min(found.values()) > 0.2, found
