"""Random changes of a view: their strengths, and the colours as one affine map of RGB per clip.

Letters: B clips, T frames, h, w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bgaug.pairs.draws import between, uniform
from bgaug.pairs.filters import Taps, blur_frames, blur_radius, blur_taps, each_step

Colour = tuple[float, float, float]

KINETICS_MEAN: Colour = (0.43216, 0.394666, 0.37645)
KINETICS_STD: Colour = (0.22803, 0.22145, 0.216989)
"""Normalisation of R, G, B in [0, 1] that torchvision's published Kinetics-400 weights of video networks expect."""

_LUMA = (0.299, 0.587, 0.114)
# Generator of rotations about the grey axis in YIQ, expressed in RGB: with L = 1 luma^T, a hue rotation by `a` is
# L + cos(a) (I - L) + sin(a) _HUE_GENERATOR. A positive `a` rotates against the direction of HSV's hue.
_HUE_GENERATOR = (
    (0.1677397, 0.3293095, -0.4970492),
    (-0.3281131, 0.0354670, 0.2926461),
    (1.2495459, -1.0463392, -0.2032067),
)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of one view of a clip; every choice holds for all of its frames.

    Attributes:
        size: side S of the square output, pixels.
        scale: range of the crop's area, as a share of the image.
        ratio: range of the crop's width over height.
        flip: probability of a left-right flip.
        jitter: probability that brightness, contrast, saturation and hue change (all four together).
        brightness: factor drawn from U(1 - b, 1 + b).
        contrast: factor about the clip's mean grey, drawn from U(1 - c, 1 + c).
        saturation: factor about each pixel's grey, drawn from U(1 - s, 1 + s).
        hue: rotation in the colour plane of YIQ drawn from U(-hue, hue), in turns, at most 0.5. It differs from a
            rotation of HSV's hue, see `colour_jitter`.
        channel_gain: factor for each of R, G, B drawn from U(1 - g, 1 + g); it does not depend on `jitter`.
        grey: probability that all colour is removed.
        blur: probability of a Gaussian blur in space.
        blur_sigma: range of the blur's sigma, pixels of the output.
        mean: is subtracted from R, G, B in [0, 1] at the end. Published weights need `KINETICS_MEAN` and
            `KINETICS_STD`; networks that are trained from scratch need neither. Evaluate with the same values, see
            `centre_crop`.
        std: R, G, B are divided by it after that, in (0, 1].
    """

    size: int = 112
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    channel_gain: float = 0.0
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: Colour = (0.0, 0.0, 0.0)
    std: Colour = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size = }")
        kinds = {
            "a probability": ("flip", "jitter", "grey", "blur"),
            "the half-width of a factor around 1,": ("brightness", "contrast", "saturation", "channel_gain"),
        }
        for kind, names in kinds.items():
            for name in names:
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} is {kind} in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is in turns of the colour circle, [0, 0.5], got {self.hue}; divide degrees by 360")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        check_normalisation(self.mean, self.std)

    @classmethod
    def standard(cls, size: int = 112) -> Augmentation:
        """The field's usual recipe for clips; the blur is given at 112 pixels and scales with `size`."""
        return cls(size=size, blur_sigma=(0.1 * size / 112, 2.0 * size / 112))

    @classmethod
    def tiny(cls, size: int = 32) -> Augmentation:
        """Recipe for the synthetic world at 32 pixels: nothing that changes the class of a motion, so no flips."""
        return cls(
            size=size,
            scale=(0.5, 1.0),
            ratio=(1.0, 1.0),
            flip=0.0,
            jitter=1.0,
            saturation=0.0,
            hue=0.0,
            channel_gain=0.25,
            grey=0.3,
            blur=0.0,
        )

    @property
    def normalises(self) -> bool:
        """Whether colours leave [0, 1] at the end."""
        return any(self.mean) or any(value != 1 for value in self.std)


def check_normalisation(mean: Colour, std: Colour) -> None:
    """Check that both are three numbers for colours in [0, 1].

    Raises:
        ValueError: one of them is not.
    """
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"mean must be three numbers in [0, 1], for R, G, B, got {mean}; divide by 255?")
    if len(std) != 3 or not all(0 < value <= 1 for value in std):
        raise ValueError(f"std must be three numbers in (0, 1], for R, G, B, got {std}; divide by 255?")


def colour_jitter(clips: Tensor, key: Tensor, config: Augmentation, view: int = 0, out: Tensor | None = None) -> Tensor:
    """Change colours and blur at random: one draw per clip, the same for all of its frames.

    Brightness, contrast, saturation, hue, channel gains, grey and normalisation are applied in this order as one affine
    map of RGB. The result is clipped once, at the end, to the range that [0, 1] is normalised to. Contrast pivots on
    the mean grey of the whole clip. The blur follows the clipping, so it cannot be part of the map or of the crop's
    filter.

    The hue is a rotation about the grey axis in YIQ, which is linear and keeps the luma. A rotation of HSV's hue keeps
    value and saturation, is not linear, and changes the luma. Over uniform colours the two changes have a cosine of .67
    at 9 degrees, .72 at 36 and .90 at 180, when both rotate in the same direction. A rotation about the grey axis of
    RGB would come nearer (.79, .86, .98), but would not keep the luma.

    Two passes over the clips: one reads them for the mean; one reads them and writes the result. On other devices than
    a CPU the second is two, product and clipping, and a blur takes three more.

    Args:
        clips: float32 in [0, 1], (B, 3, T, h, w).
        key: int64 (B,).
        config: strengths, probabilities and normalisation.
        view: number of the view; each draws its own colours.
        out: memory for the result, (B, 3, T, h, w) of any floating type; `clips` itself saves the allocation. New
            memory if None.

    Returns:
        float32 in [0, 1], or normalised, (B, 3, T, h, w); or `out`.

    Raises:
        ValueError: out has another shape.
    """
    B, C, T, h, w = clips.shape
    draws = uniform(key, f"colour/{view}", 11)
    with torch.autocast(clips.device.type, enabled=False):
        matrix, offset = _colour_map(clips.reshape(B, C, T * h * w).mean(dim=2), draws, config)
        blur = _blur(draws[:, 9], draws[:, 10], h, w, config) if config.blur else None

        def recolour(part: Tensor) -> Tensor:
            coloured = _clip(torch.baddbmm(offset, matrix, part.reshape(B, C, -1)), config).view(part.shape)
            return coloured if blur is None else blur_frames(coloured, *blur)

        return each_step(recolour, clips, out)


def channels(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per channel, (1, C, 1, 1, 1), on the device of `like`."""
    return _constant((tuple(values),), like).view(1, -1, 1, 1, 1)


def _colour_map(mean: Tensor, draws: Tensor, config: Augmentation) -> tuple[Tensor, Tensor]:
    """Affine map of RGB, (B, 3, 3) and (B, 3, 1), from a clip's mean colour (B, 3) and draws (B, 11)."""
    B = draws.shape[0]
    identity = torch.eye(3, device=mean.device)
    to_grey = _constant((_LUMA,) * 3, mean)
    jittered = draws[:, 0] < config.jitter
    one = torch.ones_like(draws[:, 0])

    def factor(index: int, width: float) -> Tensor:
        drawn = torch.where(jittered, 1 - width + 2 * width * draws[:, index], one)
        return drawn.view(B, 1, 1)

    brightness = factor(1, config.brightness)
    contrast = factor(2, config.contrast)
    saturation = factor(3, config.saturation)
    angle = 2 * math.pi * (factor(4, config.hue) - 1)
    hue = to_grey + angle.cos() * (identity - to_grey) + angle.sin() * _constant(_HUE_GENERATOR, mean)
    gain = 1 + config.channel_gain * (2 * draws[:, 5:8] - 1)
    grey = (draws[:, 8] < config.grey).view(B, 1, 1)
    colour = hue @ torch.lerp(to_grey, identity, saturation)
    colour = torch.where(grey, to_grey, identity) @ (gain.unsqueeze(2) * colour)
    pivot = brightness * (to_grey @ mean.unsqueeze(2))
    matrix, offset = colour * (brightness * contrast), colour @ ((1 - contrast) * pivot)
    if config.normalises:
        centre, spread = (channels(values, mean).view(1, 3, 1) for values in (config.mean, config.std))
        matrix, offset = matrix / spread, (offset - centre) / spread
    return matrix, offset


def _clip(pixels: Tensor, config: Augmentation) -> Tensor:
    """Clip in place to the range that [0, 1] is normalised to: float32 (B, 3, N)."""
    if not config.normalises:
        return pixels.clamp_(0, 1)
    # Limits are numbers, channel by channel: with tensors as limits it takes several times as long.
    for channel, mean, std in zip(pixels.unbind(1), config.mean, config.std, strict=True):
        channel.clamp_(-mean / std, (1 - mean) / std)
    return pixels


def _blur(sigma: Tensor, whether: Tensor, h: int, w: int, config: Augmentation) -> tuple[Taps, Tensor]:
    """Arguments of `blur_frames`, from draws (B,)."""
    sigma = between(sigma, *config.blur_sigma)
    sigma = torch.where(whether < config.blur, sigma, torch.zeros_like(sigma))
    radius = blur_radius(config.blur_sigma[1])
    return blur_taps(sigma, h, radius), blur_taps(sigma, w, radius).dense(w)


def _constant(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """A small matrix on the device of `like`."""
    # It is filled there, because a copy from the host would make the device wait.
    return torch.stack([torch.stack([like.new_full((), value) for value in row]) for row in rows])
