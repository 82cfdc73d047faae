"""Composition and augmentation of a batch of clips on a CPU, against the plain way, and part by part.

python benchmarks/compose.py [--quick] [--json] [--clips 64] [--threads 1]

Sixteen frames of 128x171 a clip, uint8, become a view of 112x112, float. CPU time of one thread unless `--threads` says
otherwise, in rounds in which everything has its turn, in another order each; times are medians over rounds, ratios are
medians of the ratios within a round, spreads are (largest - least) / median.

    semi-negative   the second view: cut, composed over its donor's background, recoloured
    both views      the anchor too

Each in two recipes. *Bare*: crop, flip, composite with the stored mask as it is, brightness, contrast, saturation, hue,
grey. *Whole*, what `bgaug train` does: the mask also grown and feathered, the view also blurred.

The plain way is what one would write with torch alone: frames to float, masks unpacked to float, the composite at full
size, `grid_sample` for the crop, one colour change after the other, clip by clip, then mean and std. For the whole
recipe also `max_pool2d` and two convolutions for the masks, and two for the blur of the clips that were drawn for it.
It is spared what ours does beyond that: its crop is not antialiased, and its hue is the linear turn, several times
faster than one by way of HSV. Before anything is timed, both are compared, without colours.
"""

import os

# Before torch is loaded: idle threads that spin would be counted.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bgaug.pairs import (
    KINETICS_MEAN,
    KINETICS_STD,
    Augmentation,
    Pairs,
    SemiNegativePairs,
    colour_jitter,
    crop_boxes,
    crop_resize,
    crop_resize_images,
    crop_resize_masks,
    derangement,
    dilate,
    flips,
    gaussian_blur,
)
from bgaug.pairs.augmentation import _HUE_GENERATOR, _LUMA
from bgaug.pairs.filters import blur_radius
from bgaug.pairs.masks import unpack_masks

GROW, FEATHER = 2, 2.0  # pixels at 112, the defaults of `SemiNegativePairs`
ANCHOR, SEMI = 0, 1
Tensors = dict[str, Tensor]
TITLES = {
    "bare_plain": "plain, bare",
    "bare": "bgaug, bare",
    "whole_plain": "plain, whole",
    "whole": "bgaug, whole",
}


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        clips: of a batch.
        frames: of a clip.
        height: of a frame, pixels.
        width: likewise.
        size: side of a view, pixels.
        rounds: in which everything has its turn.
    """

    clips: int = 64
    frames: int = 16
    height: int = 128
    width: int = 171
    size: int = 112
    rounds: int = 7


QUICK = Amount(clips=4, frames=4, rounds=3)


def make_batch(amount: Amount, seed: int = 0) -> Tensors:
    """Smooth pictures, which both ways of resizing agree on, and masks of blobs."""
    B, T, H, W = amount.clips, amount.frames, amount.height, amount.width
    generator = torch.Generator().manual_seed(seed)

    def smooth(pictures: int, channels: int) -> Tensor:
        coarse = torch.rand(pictures, channels, 6, 8, generator=generator)
        return F.interpolate(coarse, size=(H, W), mode="bicubic", align_corners=False).clamp(0, 1)

    frames = (smooth(B * 2 * T, 3) * 255).to(torch.uint8).permute(0, 2, 3, 1)
    masks = (smooth(B * 2 * T, 1) > 0.6).numpy().reshape(B, 2, T, H * W)
    return {
        "frames": frames.reshape(B, 2, T, H, W, 3).contiguous(),
        "masks": torch.from_numpy(np.packbits(masks, axis=-1)),
        "backgrounds": (smooth(B, 3) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(),
        "video": torch.arange(B),
        "box": torch.tensor([[0, 0, H, W]]).repeat(B, 1),
        "key": torch.randint(-(2**62), 2**62, (B,), generator=generator),
    }


# The plain way.


@dataclass(frozen=True)
class Plain:
    """Composition and augmentation as one would write them with torch alone.

    Attributes:
        config: the recipe.
        soft: whether masks are grown and feathered.
    """

    config: Augmentation
    soft: bool

    def view(self, batch: Tensors, number: int) -> Tensor:
        """One view: (B, 3, T, S, S)."""
        clips = batch["frames"][:, number].permute(0, 4, 1, 2, 3).float() / 255
        if number == SEMI:
            masks = self.masks(batch)
            donor, _ = derangement(batch["video"], batch["key"])
            backgrounds = (batch["backgrounds"].permute(0, 3, 1, 2).float() / 255).unsqueeze(2)
            clips = masks * clips + (1 - masks) * backgrounds[donor]
        boxes = crop_boxes(batch["key"], batch["box"], self.config, number)
        clips = grid_crop(clips, boxes, self.config.size, flips(batch["key"], self.config, number))
        rng = np.random.default_rng(number)
        clips = torch.stack([self.recolour(clip, rng) for clip in clips])
        mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (self.config.mean, self.config.std))
        return (clips - mean) / std

    def both(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """Anchor and semi-negative."""
        return self.view(batch, ANCHOR), self.view(batch, SEMI)

    def masks(self, batch: Tensors) -> Tensor:
        """Stored masks at full size: float (B, 1, T, H, W)."""
        H, W = batch["frames"].shape[3:5]
        bits = (batch["masks"][:, SEMI].unsqueeze(-1) >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
        masks = bits.flatten(-2)[..., : H * W].reshape(*bits.shape[:2], H, W).float()
        if self.soft:
            masks = F.max_pool2d(masks, 2 * GROW + 1, stride=1, padding=GROW)
            masks = convolved(masks.flatten(0, 1).unsqueeze(1), FEATHER).view(masks.shape)
        return masks.unsqueeze(1)

    def recolour(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """One change after the other, of one clip."""
        config = self.config
        luma = torch.tensor(_LUMA).view(3, 1, 1, 1)
        if rng.random() < config.jitter:
            brightness, contrast, saturation = (
                rng.uniform(1 - width, 1 + width) for width in (config.brightness, config.contrast, config.saturation)
            )
            clip = (clip * brightness).clamp(0, 1)
            clip = (contrast * clip + (1 - contrast) * (luma * clip).sum(0).mean()).clamp(0, 1)
            clip = (saturation * clip + (1 - saturation) * (luma * clip).sum(0, keepdim=True)).clamp(0, 1)
            clip = torch.einsum("ij,jthw->ithw", hue_turn(rng.uniform(-config.hue, config.hue)), clip).clamp(0, 1)
        if rng.random() < config.grey:
            clip = (luma * clip).sum(0, keepdim=True).expand_as(clip)
        if rng.random() < config.blur:
            clip = convolved(clip.transpose(0, 1), rng.uniform(*config.blur_sigma)).transpose(0, 1)
        return clip


def hue_turn(turns: float) -> Tensor:
    """Matrix of a linear turn about the grey axis."""
    grey, angle = torch.tensor([_LUMA] * 3), 2 * math.pi * turns
    return grey + math.cos(angle) * (torch.eye(3) - grey) + math.sin(angle) * torch.tensor(_HUE_GENERATOR)


def grid_crop(clips: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """Crop and resize by `grid_sample`, every frame with its clip's grid."""
    B, C, T, H, W = clips.shape
    top, left, height, width = (value.view(B, 1, 1) for value in boxes.unbind(1))
    line = (torch.arange(size) + 0.5) / size
    across = torch.where(flip.view(B, 1, 1), 1 - line, line)
    y = ((top + height * line.view(1, size, 1)) * 2 / H - 1).expand(B, size, size)
    x = ((left + width * across) * 2 / W - 1).expand(B, size, size)
    grid = torch.stack([x, y], dim=-1).repeat_interleave(T, dim=0)
    flat = clips.transpose(1, 2).reshape(B * T, C, H, W)
    cut = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.view(B, T, C, size, size).transpose(1, 2)


def convolved(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, C, h, w) by two convolutions, three sigmas to each side."""
    C, radius = pictures.shape[1], math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(C, 1, 1, 1)
    padded = F.pad(pictures, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=C), kernel.transpose(2, 3), groups=C)


# Ours.


@dataclass(frozen=True)
class Ours:
    """The same by bgaug.

    Attributes:
        config: the recipe.
        soft: whether masks are grown and feathered.
    """

    config: Augmentation
    soft: bool

    def semi(self, batch: Tensors) -> Tensor:
        """The second view alone, by what `SemiNegativePairs` is made of."""
        size, key = self.config.size, batch["key"]
        crop, flip = crop_boxes(key, batch["box"], self.config, SEMI), flips(key, self.config, SEMI)
        clips = crop_resize(batch["frames"][:, SEMI], crop, size, flip)
        donor, _ = derangement(batch["video"], key)
        image = crop_resize_images(batch["backgrounds"][donor], crop[donor], size, flip[donor])
        masks = crop_resize_masks(unpack_masks(batch["masks"][:, SEMI], *batch["frames"].shape[3:5]), crop, size, flip)
        if self.soft:
            masks = gaussian_blur(dilate(masks, GROW, out=masks), FEATHER, out=masks)
        torch.lerp(image, clips, masks, out=clips)
        return colour_jitter(clips, key, self.config, SEMI, out=clips)

    def both(self) -> Callable[[Tensors], Pairs]:
        """What training calls."""
        return SemiNegativePairs(self.config) if self.soft else SemiNegativePairs(self.config, grow=0, sigma=0)


def parts(batch: Tensors, config: Augmentation) -> dict[str, Callable[[], Any]]:
    """What the second view takes, step by step, each given what it works on."""
    size, key = config.size, batch["key"]
    crop, flip = crop_boxes(key, batch["box"], config, SEMI), flips(key, config, SEMI)
    clips, colours = crop_resize(batch["frames"][:, SEMI], crop, size, flip), replace(config, blur=0.0)
    image = crop_resize_images(batch["backgrounds"], crop, size, flip)
    bits = unpack_masks(batch["masks"][:, SEMI], *batch["frames"].shape[3:5])
    masks = crop_resize_masks(bits, crop, size, flip)
    sigma = torch.rand(len(key)) * config.blur_sigma[1]
    clips_out, masks_out = torch.empty_like(clips), torch.empty_like(masks)
    return {
        "draws, boxes, donors": lambda: (crop_boxes(key, batch["box"], config), derangement(batch["video"], key)),
        "crop of frames": lambda: crop_resize(batch["frames"][:, SEMI], crop, size, flip),
        "masks unpacked": lambda: unpack_masks(batch["masks"][:, SEMI], *batch["frames"].shape[3:5]),
        "crop of masks": lambda: crop_resize_masks(bits, crop, size, flip),
        "masks grown": lambda: dilate(masks, GROW, out=masks_out),
        "masks feathered": lambda: gaussian_blur(masks, FEATHER, out=masks_out),
        "crop of backgrounds": lambda: crop_resize_images(batch["backgrounds"], crop, size, flip),
        "composite": lambda: torch.lerp(image, clips, masks, out=clips_out),
        "colours": lambda: colour_jitter(clips, key, colours, SEMI, out=clips_out),
        "blur": lambda: gaussian_blur(clips, sigma, blur_radius(config.blur_sigma[1]), out=clips_out),
        "fresh memory": lambda: torch.empty_like(clips).fill_(0),
    }


# Measuring.


def jobs_of(batch: Tensors, config: Augmentation) -> dict[str, Callable[[], Any]]:
    """Everything that is timed, by name."""
    bare = replace(config, blur=0.0)
    jobs: dict[str, Callable[[], Any]] = {}
    for recipe, own, soft in (("bare", bare, False), ("whole", config, True)):
        plain, ours = Plain(own, soft), Ours(own, soft)
        jobs[f"semi_{recipe}_plain"] = partial(plain.view, batch, SEMI)
        jobs[f"both_{recipe}_plain"] = partial(plain.both, batch)
        jobs[f"semi_{recipe}"] = partial(ours.semi, batch)
        jobs[f"both_{recipe}"] = partial(ours.both(), batch)
    return jobs


def difference(batch: Tensors, config: Augmentation) -> float:
    """Mean difference of the anchors without colours, grey levels; 255 times that of the masks if that is larger."""
    config = replace(config, jitter=0.0, grey=0.0, blur=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    plain, size = Plain(config, False), config.size
    crops = [crop_boxes(batch["key"], batch["box"], config, view) for view in (ANCHOR, SEMI)]
    flip = [flips(batch["key"], config, view) for view in (ANCHOR, SEMI)]
    anchors = crop_resize(batch["frames"][:, ANCHOR], crops[ANCHOR], size, flip[ANCHOR]) - plain.view(batch, ANCHOR)
    bits = unpack_masks(batch["masks"][:, SEMI], *batch["frames"].shape[3:5])
    theirs = grid_crop(plain.masks(batch), crops[SEMI], size, flip[SEMI])
    masks = crop_resize_masks(bits, crops[SEMI], size, flip[SEMI]) - theirs
    return 255 * max(float(anchors.abs().mean()), float(masks.abs().mean()))


def measure(jobs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each in each round."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name in rng.permutation(list(jobs)).tolist():
            begun = time.process_time()
            jobs[name]()
            if turn:  # the first warms up
                times[name].append(time.process_time() - begun)
    return times


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios within a round."""
    return float(np.median([a / b for a, b in zip(above, below, strict=True)]))


def spread(values: list[float]) -> float:
    """(Largest - least) / median."""
    return float((max(values) - min(values)) / np.median(values))


def result_of(
    amount: Amount, times: dict[str, list[float]], own: dict[str, list[float]], apart: float
) -> dict[str, Any]:
    """Everything, as it is printed for `--json`."""
    compared = {
        f"{views}_{ours}_over_{plain}_plain": round(ratio(times[f"{views}_{ours}"], times[f"{views}_{plain}_plain"]), 3)
        for views in ("semi", "both")
        for ours, plain in (("bare", "bare"), ("whole", "whole"), ("whole", "bare"))
    }
    return {
        "cpu_ms": {name: round(1000 * float(np.median(values)), 1) for name, values in times.items()},
        "spread": {name: round(spread(values), 3) for name, values in times.items()},
        "parts_cpu_ms": {name: round(1000 * float(np.median(values)), 1) for name, values in own.items()},
        "parts_spread": {name: round(spread(values), 3) for name, values in own.items()},
        "ratios": compared,
        "grey_levels_apart": round(apart, 3),
        "amount": asdict(amount),
        "machine": {
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def show(result: dict[str, Any]) -> None:
    """The tables."""
    size, machine = result["amount"], result["machine"]
    print(
        f"{size['clips']} clips of {size['frames']} frames, {size['height']}x{size['width']} uint8 -> "
        f"{size['size']}x{size['size']} float; CPU time, {machine['threads']} of {machine['cpus']} CPUs, "
        f"torch {machine['torch']}, {size['rounds']} rounds; difference without colours: "
        f"{result['grey_levels_apart']} grey levels"
    )
    print(f"{'':26s}{'semi-negative':>20s}{'both views':>20s}")
    for name, title in TITLES.items():
        cells = (f"{views}_{name}" for views in ("semi", "both"))
        print(
            f"  {title:24s}"
            + "".join(f"{result['cpu_ms'][c]:9.0f} ms +-{result['spread'][c] / 2:4.0%} " for c in cells)
        )
    print("ratios of CPU time")
    for ours, plain in (("bare", "bare"), ("whole", "whole"), ("whole", "bare")):
        cells = (f"{views}_{ours}_over_{plain}_plain" for views in ("semi", "both"))
        print(f"  {f'{ours} / plain {plain}':24s}" + "".join(f"{result['ratios'][cell]:20.2f}" for cell in cells))
    print("the semi-negative's parts")
    for name, value in result["parts_cpu_ms"].items():
        print(f"  {name:24s}{value:9.1f} ms +-{result['parts_spread'][name] / 2:4.0%}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a small batch, some seconds")
    parser.add_argument("--json", action="store_true", help="one object as the last line instead of tables")
    parser.add_argument("--clips", type=int, help="of a batch")
    parser.add_argument("--rounds", type=int, help="in which everything has its turn")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("clips", "rounds") if getattr(options, name) is not None}
    amount = replace(QUICK if options.quick else Amount(), **given)
    torch.set_num_threads(options.threads)
    batch = make_batch(amount)
    config = replace(Augmentation.standard(amount.size), mean=KINETICS_MEAN, std=KINETICS_STD)
    apart = difference(batch, config)
    if apart > 2:
        raise SystemExit(f"the ways do not compute the same: {apart:.1f} grey levels apart on average")
    times = measure(jobs_of(batch, config), amount.rounds)
    result = result_of(amount, times, measure(parts(batch, config), amount.rounds), apart)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
