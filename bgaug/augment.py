"""Clip-consistent geometry and colour, on the device of the clips, with randomness drawn from a key.

Letters: B clips, T frames, C channels, H, W pixels of the stored frame, h, w pixels of the crop, S side of a square crop.

Every random number is a pure function of (key, stream, index): the same batch gives the same views whatever ran before,
on any device, and a clip's views do not depend on its neighbours in the batch. Nothing here waits for the device.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
# Generator of rotations about the grey axis in YIQ, expressed in RGB: with L = 1 luma^T, a hue turn by `a` is
# L + cos(a) (I - L) + sin(a) HUE_GENERATOR.
HUE_GENERATOR = (
    (0.1677397, 0.3293095, -0.4970492),
    (-0.3281131, 0.0354670, 0.2926461),
    (1.2495459, -1.0463392, -0.2032067),
)
CROP_ATTEMPTS = 10
CHUNK_BYTES = 64 << 20
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Augmentation:
    """What may happen to one view of a clip; every choice holds for all of its frames.

    Attributes:
        size: side S of the square output, pixels.
        scale: range of the crop's area, as a share of the picture.
        ratio: range of the crop's width over height.
        flip: probability of a left-right flip.
        jitter: probability of brightness, contrast, saturation and hue changing (all four together).
        brightness: factor drawn from U(1 - b, 1 + b).
        contrast: factor about the clip's mean grey, drawn from U(1 - c, 1 + c).
        saturation: factor about each pixel's grey, drawn from U(1 - s, 1 + s).
        hue: turn drawn from U(-hue, hue); 1 is the whole circle, so at most 0.5.
        channel_gain: factor for each of R, G, B drawn from U(1 - g, 1 + g), always.
        grey: probability of losing all colour.
        blur: probability of a Gaussian blur in space.
        blur_sigma: range of the blur's sigma, pixels of the output.
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

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size = }")
        for name in ("flip", "jitter", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation", "channel_gain"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is the half-width of a factor around 1, in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is in turns of the colour circle, [0, 0.5], got {self.hue}; degrees / 360?")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")

    @classmethod
    def standard(cls, size: int = 112) -> Augmentation:
        """The field's usual recipe for clips; the blur is given at 112 pixels and scales with `size`."""
        return cls(size=size, blur_sigma=(0.1 * size / 112, 2.0 * size / 112))

    @classmethod
    def tiny(cls, size: int = 32) -> Augmentation:
        """For the synthetic world at 32 pixels: nothing that changes the class of a motion, so no flips."""
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


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of int64 in which every input bit stirs every output bit."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def random_bits(key: Tensor, stream: str) -> Tensor:
    """64 random bits for each key: int64 -> int64 of the same shape, one-to-one within a stream.

    Args:
        key: int64, any shape.
        stream: names what the bits are for; different names give unrelated bits.

    Raises:
        TypeError: key is not int64.
    """
    if key.dtype != torch.int64:
        raise TypeError(f"key must be int64, got {key.dtype = }")
    salt = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big")
    return _mix(_mix(key + _signed(_GOLDEN)) ^ _signed(salt))


def uniform(key: Tensor, stream: str, n: int) -> Tensor:
    """Random numbers from a key by counting, as splitmix64 does.

    Integer arithmetic alone, so the same on every device; no generator is read or advanced.

    Args:
        key: int64 (B,).
        stream: names what the numbers are for.
        n: numbers a key.

    Returns:
        float32 (B, n), multiples of 2^-24 in [0, 1).
    """
    counter = torch.arange(1, n + 1, device=key.device) * _signed(_GOLDEN)
    bits = _mix(random_bits(key, stream).unsqueeze(1) + counter)
    return ((bits >> 40) & ((1 << 24) - 1)).to(torch.float32) * 2.0**-24


def crop_boxes(key: Tensor, box: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """Random resized crops, one a clip, in fractions of a pixel.

    Area and log-ratio are drawn until the crop fits, at most ten times; after that the largest centred crop of an
    allowed ratio is taken.

    Args:
        key: int64 (B,).
        box: (B, 4), (top, left, height, width) of the picture inside the frame, pixels.
        config: its `scale` and `ratio`.
        view: number of the view; each draws its own crops.

    Returns:
        float32 (B, 4), (top, left, height, width), inside `box`.
    """
    top, left, height, width = box.to(torch.float32).unbind(1)
    draws = uniform(key, f"crop/{view}", 2 * CROP_ATTEMPTS + 2)
    area, ratio = draws[:, :CROP_ATTEMPTS], draws[:, CROP_ATTEMPTS:-2]
    area = (height * width).unsqueeze(1) * _between(area, *config.scale)
    ratio = torch.exp(_between(ratio, math.log(config.ratio[0]), math.log(config.ratio[1])))
    heights, widths = (area / ratio).sqrt(), (area * ratio).sqrt()
    fits = (heights <= height.unsqueeze(1)) & (widths <= width.unsqueeze(1))
    first = fits.to(torch.int32).argmax(dim=1, keepdim=True)
    whole = (width / height).clamp(*config.ratio)
    found = fits.any(dim=1)
    h = torch.where(found, heights.gather(1, first).squeeze(1), torch.minimum(height, width / whole))
    w = torch.where(found, widths.gather(1, first).squeeze(1), torch.minimum(width, height * whole))
    spread = torch.where(found.unsqueeze(1), draws[:, -2:], torch.full_like(draws[:, -2:], 0.5))
    return torch.stack([top + spread[:, 0] * (height - h), left + spread[:, 1] * (width - w), h, w], dim=1)


def flips(key: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """Which clips are flipped left to right: bool (B,)."""
    return uniform(key, f"flip/{view}", 1).squeeze(1) < config.flip


def crop_resize(frames: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut one box out of all frames of a clip and resize it to a square, antialiased.

    Two matrix products with a triangle filter whose width follows the scale: what
    ``interpolate(mode="bilinear", antialias=True)`` gives on the cut picture, for boxes with fractional edges too.

    Args:
        frames: uint8 (B, T, H, W, C).
        boxes: float (B, 4), (top, left, height, width), pixels, each side at least 1.
        size: side S of the output.
        flip: bool (B,), clips to flip left to right.

    Returns:
        float32 in [0, 1], (B, C, T, S, S).

    Raises:
        ValueError: frames is not uint8 (B, T, H, W, C).
    """
    return _crop_resize(frames, boxes, size, flip, gain=1 / 255)


def crop_resize_masks(masks: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """`crop_resize` for masks: uint8 (B, T, H, W) of 0 and 1 -> float32 in [0, 1], (B, 1, T, S, S)."""
    return _crop_resize(masks.unsqueeze(-1), boxes, size, flip, gain=1.0)


def crop_resize_images(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """`crop_resize` for still pictures: uint8 (B, H, W, C) -> float32 in [0, 1], (B, C, 1, S, S)."""
    return _crop_resize(images.unsqueeze(1), boxes, size, flip, gain=1 / 255)


def centre_crop(frames: Tensor, box: Tensor, size: int) -> Tensor:
    """The evaluation view: the short side resized to `size`, then the centre square.

    Args:
        frames: uint8 (B, T, H, W, 3).
        box: (B, 4), (top, left, height, width) of the picture inside the frame, pixels.
        size: side S of the output.

    Returns:
        float32 in [0, 1], (B, 3, T, S, S).
    """
    top, left, height, width = box.to(torch.float32).unbind(1)
    side = torch.minimum(height, width)
    boxes = torch.stack([top + (height - side) / 2, left + (width - side) / 2, side, side], dim=1)
    return crop_resize(frames, boxes, size)


def colour_jitter(clips: Tensor, key: Tensor, config: Augmentation, view: int = 0) -> Tensor:
    """Random colour and blur, one draw a clip, the same for all of its frames.

    Brightness, contrast, saturation, hue, channel gains and grey are applied in this order as one affine map of RGB,
    clipped to [0, 1] once, at the end. The hue turns about the grey axis in YIQ, which keeps the luma; it is linear,
    and close to a turn in HSV for small angles. Contrast pivots on the mean grey of the whole clip.

    Args:
        clips: float32 in [0, 1], (B, 3, T, h, w).
        key: int64 (B,).
        config: strengths and probabilities.
        view: number of the view; each draws its own colours.

    Returns:
        float32 in [0, 1], (B, 3, T, h, w).
    """
    B, C, T, h, w = clips.shape
    draws = uniform(key, f"colour/{view}", 11)
    pixels = clips.reshape(B, C, T * h * w)
    with torch.autocast(clips.device.type, enabled=False):
        matrix, offset = _colour_map(pixels.mean(dim=2), draws, config)
        coloured = torch.baddbmm(offset, matrix, pixels).clamp_(0, 1).view(B, C, T, h, w)
    if config.blur == 0:
        return coloured
    sigma = _between(draws[:, 9], *config.blur_sigma)
    return gaussian_blur(coloured, torch.where(draws[:, 10] < config.blur, sigma, torch.zeros_like(sigma)))


def gaussian_blur(clips: Tensor, sigma: Tensor, radius: int | None = None) -> Tensor:
    """Blur every frame; near the border the kernel keeps to the picture and is renormalised.

    Args:
        clips: float32 (B, C, T, h, w).
        sigma: float32 (B,), pixels; 0 leaves a clip as it is.
        radius: the kernel ends this many pixels from its centre; not at all if None.

    Returns:
        float32 (B, C, T, h, w).
    """
    B, C, T, h, w = clips.shape
    with torch.autocast(clips.device.type, enabled=False):
        rows = torch.bmm(clips.reshape(B, C * T * h, w), _blur_matrix(sigma, w, radius).transpose(1, 2))
        columns = rows.view(B, C * T, h, w).transpose(2, 3).reshape(B, C * T * w, h)
        blurred = torch.bmm(columns, _blur_matrix(sigma, h, radius).transpose(1, 2))
    return blurred.view(B, C, T, w, h).transpose(3, 4).contiguous()


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws


def _crop_resize(frames: Tensor, boxes: Tensor, size: int, flip: Tensor | None, gain: float) -> Tensor:
    if frames.dtype != torch.uint8 or frames.ndim != 5:
        raise ValueError(f"expected uint8 (B, T, H, W, C), got {frames.dtype} of shape {tuple(frames.shape)}")
    B, T, H, W, C = frames.shape
    if boxes.shape != (B, 4):
        raise ValueError(f"boxes must be (B, 4) = {(B, 4)}, got {tuple(boxes.shape)}")
    top, left, height, width = boxes.to(torch.float32).unbind(1)
    down = _resize_matrix(top, height, size, H) * gain
    across = _resize_matrix(left, width, size, W, flip).transpose(1, 2)
    # The float copy of the full-size frames is made a few frames at a time: it stays in bounds, and in the cache.
    step = max(1, CHUNK_BYTES // (4 * B * H * W * C))
    with torch.autocast(frames.device.type, enabled=False):
        parts = [_resample(part, down, across) for part in torch.split(frames, step, dim=1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _resample(frames: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """uint8 (B, T, H, W, C) by (B, S, H) and (B, W, S) -> float32 (B, C, T, S, S)."""
    B, T, H, W, C = frames.shape
    size = down.shape[1]
    lines = frames.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    rows = torch.bmm(down, lines.view(B, H, T * W * C)).view(B, size, T, W, C)
    pixels = rows.permute(0, 4, 2, 1, 3).reshape(B, C * T * size, W)
    return torch.bmm(pixels, across).view(B, C, T, size, size)


def _resize_matrix(start: Tensor, length: Tensor, size: int, pixels: int, flip: Tensor | None = None) -> Tensor:
    """Weights (B, size, pixels) of a triangle filter over [start, start + length), rows adding up to one."""
    scale = (length / size).unsqueeze(1)
    out = (torch.arange(size, device=start.device) + 0.5).unsqueeze(0)
    if flip is not None:
        out = torch.where(flip.unsqueeze(1), size - out, out)
    centre = (start.unsqueeze(1) + out * scale).unsqueeze(2)
    grid = torch.arange(pixels, device=start.device) + 0.5
    weights = (1 - (grid - centre).abs() / scale.clamp(min=1).unsqueeze(2)).clamp(min=0)
    start, end = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
    covered = (torch.minimum(grid + 0.5, end) - torch.maximum(grid - 0.5, start)).clamp(0, 1)
    weights = weights * covered
    return weights / weights.sum(dim=2, keepdim=True)


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
    return colour * (brightness * contrast), colour @ ((1 - contrast) * pivot)


def _constant(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """A small matrix on the device of `like`, filled there: a copy from the host would make the device wait."""
    return torch.stack([torch.stack([like.new_full((), value) for value in row]) for row in rows])


def _blur_matrix(sigma: Tensor, pixels: int, radius: int | None) -> Tensor:
    """Gaussian weights (B, pixels, pixels), rows adding up to one."""
    grid = torch.arange(pixels, device=sigma.device)
    distance = (grid.unsqueeze(0) - grid.unsqueeze(1)).to(torch.float32)
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-2).view(-1, 1, 1)) ** 2)
    # Tails nobody can see, but for the denormal numbers in them, which slow a CPU down several times.
    weights = weights * (weights > 1e-6)
    if radius is not None:
        weights = weights * (distance.abs() <= radius)
    return weights / weights.sum(dim=2, keepdim=True)
