"""Brightness, contrast, saturation, hue, channel gains, grey and normalisation, as one affine map of RGB a clip.

Letters: B clips, T frames, h, w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bgaug.pairs.augmentation import Augmentation
from bgaug.pairs.draws import between, uniform
from bgaug.pairs.filters import blur_frames
from bgaug.pairs.taps import Taps, blur_radius, blur_taps, each_step

LUMA = (0.299, 0.587, 0.114)
# Generator of rotations about the grey axis in YIQ, expressed in RGB: with L = 1 luma^T, a hue turn by `a` is
# L + cos(a) (I - L) + sin(a) HUE_GENERATOR. A positive `a` turns the other way round than HSV counts its hue.
HUE_GENERATOR = (
    (0.1677397, 0.3293095, -0.4970492),
    (-0.3281131, 0.0354670, 0.2926461),
    (1.2495459, -1.0463392, -0.2032067),
)


def colour_jitter(clips: Tensor, key: Tensor, config: Augmentation, view: int = 0, out: Tensor | None = None) -> Tensor:
    """Random colour and blur, one draw a clip, the same for all of its frames; normalised, where the recipe asks for it.

    Brightness, contrast, saturation, hue, channel gains, grey and normalisation are applied in this order as one affine
    map of RGB, clipped once, at the end, to what [0, 1] is normalised to. Contrast pivots on the mean grey of the whole
    clip.

    The hue turns about the grey axis in YIQ, which is linear and keeps the luma. It is not the turn of HSV, which keeps
    value and saturation, is not linear, and moves the luma. Over uniform colours the change by this turn has a cosine of
    .67 with the change by HSV's at 9 degrees, .72 at 36 and .90 at 180, once both turn the same way: a positive angle here
    is a negative one there, which is of no account for angles drawn from U(-hue, hue). A rotation about the grey axis of RGB
    would come nearer (.79, .86, .98), but not keep the luma. The kept numbers of this project are by the turn in YIQ.

    The blur follows the clipping, so it cannot be part of the map, nor of the crop's filter.

    Two passes over the clips: one reads them, for the mean; one reads them and writes the result. Elsewhere than on a
    CPU the second is two, product and clipping, and a blur takes three more.

    Args:
        clips: float32 in [0, 1], (B, 3, T, h, w).
        key: int64 (B,).
        config: strengths and probabilities, and the normalisation.
        view: number of the view; each draws its own colours.
        out: where the result goes, (B, 3, T, h, w) of any floating type; `clips` itself saves the time that fresh memory
            takes. New memory if None.

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
    """A number for each channel, (1, C, 1, 1, 1), on the device of `like`, filled there."""
    return _constant((tuple(values),), like).view(1, -1, 1, 1, 1)


def _colour_map(mean: Tensor, draws: Tensor, config: Augmentation) -> tuple[Tensor, Tensor]:
    """Affine map of RGB, (B, 3, 3) and (B, 3, 1), from a clip's mean colour (B, 3) and draws (B, 11)."""
    B = draws.shape[0]
    identity = torch.eye(3, device=mean.device)
    to_grey = _constant((LUMA,) * 3, mean)
    jittered = draws[:, 0] < config.jitter
    one = torch.ones_like(draws[:, 0])

    def factor(index: int, width: float) -> Tensor:
        drawn = torch.where(jittered, 1 - width + 2 * width * draws[:, index], one)
        return drawn.view(B, 1, 1)

    brightness = factor(1, config.brightness)
    contrast = factor(2, config.contrast)
    saturation = factor(3, config.saturation)
    angle = 2 * math.pi * (factor(4, config.hue) - 1)
    hue = to_grey + angle.cos() * (identity - to_grey) + angle.sin() * _constant(HUE_GENERATOR, mean)
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
    """Clipped, where it lies, to what [0, 1] is normalised to: float32 (B, 3, N)."""
    if not config.normalises:
        return pixels.clamp_(0, 1)
    # By numbers, channel by channel: by tensors it takes several times as long.
    for channel, mean, std in zip(pixels.unbind(1), config.mean, config.std, strict=True):
        channel.clamp_(-mean / std, (1 - mean) / std)
    return pixels


def _blur(sigma: Tensor, whether: Tensor, h: int, w: int, config: Augmentation) -> tuple[Taps, Tensor]:
    """What `blur_frames` blurs by, from draws (B,)."""
    sigma = between(sigma, *config.blur_sigma)
    sigma = torch.where(whether < config.blur, sigma, torch.zeros_like(sigma))
    radius = blur_radius(config.blur_sigma[1])
    return blur_taps(sigma, h, radius), blur_taps(sigma, w, radius).dense(w)


def _constant(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """A small matrix on the device of `like`, filled there: a copy from the host would make the device wait."""
    return torch.stack([torch.stack([like.new_full((), value) for value in row]) for row in rows])
