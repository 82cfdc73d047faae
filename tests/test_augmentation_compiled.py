"""Augmentation and pairs go through torch.compile as one graph, and half precision changes nothing that can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_semi_negative import make_batch
from torch import Tensor

from bgaug.pairs import Augmentation, SemiNegativePairs, colour_jitter, crop_resize, gaussian_blur

FRAMES = torch.randint(0, 256, (3, 4, 20, 24, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
BOXES = torch.tensor([[0.0, 0.0, 20.0, 24.0], [1.5, 2.25, 15.0, 17.5], [3.0, 4.0, 9.0, 8.0]])
KEY = torch.arange(3) * 7919
CLIPS = torch.rand(3, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled as one graph: a break in it is an error."""
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, backend="aot_eager")
    return compiled


def test_functions_compile_without_a_break() -> None:
    config = Augmentation(size=16)
    functions: list[Callable[[], Tensor]] = [
        lambda: crop_resize(FRAMES, BOXES, 16, KEY > 0),
        lambda: colour_jitter(CLIPS, KEY, config, 1),
        lambda: gaussian_blur(CLIPS, torch.tensor([0.0, 0.5, 2.0])),
    ]
    for function in functions:
        torch.testing.assert_close(whole(function)(), function(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "policy", ["background", *(pytest.param(name, marks=pytest.mark.full) for name in ("fame", "be"))]
)
def test_pairs_compile_without_a_break(policy: str) -> None:
    module, batch = SemiNegativePairs(Augmentation(size=16), policy), dict(make_batch())
    ours, compiled = module(batch), whole(module)(batch)
    for name in ("anchor", "semi", "mask", "weight"):
        torch.testing.assert_close(getattr(compiled, name), getattr(ours, name), atol=1e-5, rtol=0)
    assert torch.equal(compiled.donor, ours.donor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_views_are_whole_under_autocast_and_agree_when_rounded(dtype: torch.dtype) -> None:
    module, batch = SemiNegativePairs(Augmentation(size=16)), make_batch()
    exact = module(batch)
    with torch.autocast("cpu", dtype):
        mixed = module(batch)
    assert mixed.semi.dtype == torch.float32
    torch.testing.assert_close(mixed.semi, exact.semi, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        mixed.semi.to(dtype).float(), exact.semi, atol=2e-3 * (1 + (dtype == torch.bfloat16)), rtol=0
    )


def slow_crop(image: Any, box: list[float], size: int) -> Any:
    """The definition, pixel by pixel: a triangle as wide as a pixel of the output, cut off at the box."""
    top, left, height, width = box
    out = np.zeros((size, size, image.shape[2]))

    def weights(start: float, length: float, place: int, pixels: int) -> Any:
        scale = length / size
        centre, reach = start + (place + 0.5) * scale, max(1.0, scale)
        found = np.zeros(pixels)
        for p in range(pixels):
            covered = min(max(min(p + 1, start + length) - max(p, start), 0), 1)
            found[p] = max(0.0, 1 - abs(p + 0.5 - centre) / reach) * covered
        return found / found.sum()

    for y in range(size):
        rows = weights(top, height, y, image.shape[0])
        for x in range(size):
            columns = weights(left, width, x, image.shape[1])
            out[y, x] = np.einsum("h,w,hwc->c", rows, columns, image)
    return out / 255


@pytest.mark.parametrize("size", [5, 16, 31])
def test_crops_agree_with_the_slow_reference(size: int) -> None:
    ours = crop_resize(FRAMES[:, :1], BOXES, size)
    for clip in range(3):
        expected = slow_crop(FRAMES[clip, 0].numpy().astype(np.float64), BOXES[clip].tolist(), size)
        np.testing.assert_allclose(ours[clip, :, 0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def slow_blur(image: Tensor, sigma: float) -> Tensor:
    out = torch.zeros_like(image, dtype=torch.float64)
    h, w = image.shape
    for y in range(h):
        for x in range(w):
            total = 0.0
            for v in range(h):
                for u in range(w):
                    weight = float(np.exp(-0.5 * ((u - x) ** 2 + (v - y) ** 2) / sigma**2))
                    total += weight
                    out[y, x] += weight * float(image[v, u])
            out[y, x] /= total
    return out


def test_blur_agrees_with_the_slow_reference() -> None:
    image = CLIPS[:1, :1, :1, :9, :9].contiguous()
    ours = gaussian_blur(image, torch.tensor([1.3]))
    torch.testing.assert_close(ours[0, 0, 0].double(), slow_blur(image[0, 0, 0], 1.3), atol=1e-5, rtol=0)
