"""Whether an encoder uses the moving foreground or the background: test clips over other backgrounds, and metrics.

These are functions over tensors and arrays; the caller chooses videos, backgrounds and classifiers.

    SCUBA       the moving foreground over a foreign image, the same in all frames: the motion must suffice
    SCUFO       one frame of SCUBA, repeated: nothing moves, so the action should not be recognised
    contrasted  right on SCUBA and wrong on SCUFO: recognised by motion
    conflict    SCUBA next to the still foreground of another action: which of the two is predicted?
    far, ring   only what is far from the foreground is foreign (wide bias), or only a ring around it (micro bias)
    self        the foreground over a still image of its own scene: the cost of composing
    hole        the plain clip with a grey hole in the shape of another foreground: the influence of a cut-out

Letters: B clips, T frames, h, w pixels of the crop, N items, K classes, D embedding.

References: H. Li et al., "Mitigating and evaluating static bias of action representations in the background and the
foreground", ICCV 2023, arXiv 2211.12883 (SCUBA, SCUFO, contrasted accuracy, conflicting foreground). J. Chung et al.,
"Enabling detailed action recognition evaluation through video dataset augmentation", NeurIPS 2022 datasets and
benchmarks (HAT: background only, human only, action swap). "Seeing beyond the scene", arXiv 2512.17953 (SHAcc, SBErr).
Far, ring, hole, stripes and the placing of the still foreground are ours.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bgaug.pairs import KINETICS_MEAN, composite, soften

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_REFERENCE_SIDE = 256.0  # side of an image in the lengths of `Stripes`
_SHIFT_STEPS = 8  # a still foreground moves by whole eighths of the image width

PUBLISHED = {
    "IID": "plain",
    "SCUBA": "scuba",
    "SCUFO": "scufo",
    "ConflFG": "conflict_dynamic",
    "contrasted": "contrasted",
    "SHAcc": "swap_action",
    "SBErr": "swap_background",
}
"""Names of the measures in publications, and the same measures by our names."""

_COUNTED = re.compile(r"(?P<name>.+)__(?P<count>\d+)(?:\.[A-Za-z0-9]{1,5})?")


# --- clips --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Regions:
    """Shares of every pixel that belong to the foreground, to a ring around it and to the rest; they add up to 1.

    Attributes:
        foreground: float32 in [0, 1], (B, 1, T, h, w).
        ring: float32 in [0, 1], (B, 1, T, h, w).
        far: float32 in [0, 1], (B, 1, T, h, w).
    """

    foreground: Tensor
    ring: Tensor
    far: Tensor


def regions(mask: Tensor, *, grow: float = 0.0, feather: float = 1.0, ring: float = 7.0) -> Regions:
    """Foreground, ring and far regions of clips from their masks.

    Args:
        mask: float32 in [0, 1], (B, 1, T, h, w).
        grow: dilation of the mask by a square, pixels on each side, for limbs that the mask misses.
        feather: sigma of a Gaussian blur of both edges, pixels.
        ring: width of the ring around the grown mask, pixels.

    Raises:
        ValueError: a length is negative, or the mask is not (B, 1, T, h, w).
    """
    if mask.ndim != 5 or mask.shape[1] != 1:
        raise ValueError(f"mask must be (B, 1, T, h, w), got {mask.shape = }")
    if ring < 0:
        raise ValueError(f"ring is pixels, at least 0, got {ring = }")
    inner, outer = soften(mask, grow, feather), soften(mask, grow + ring, feather)
    # The wider mask is nowhere smaller, except in the last bit of the blur.
    outer = torch.maximum(inner, outer)
    return Regions(inner, outer - inner, 1 - outer)


def far_swap(clips: Tensor, parts: Regions, images: Tensor) -> Tensor:
    """Clips whose far region shows an image: float (B, 3, T, h, w). See `bgaug.pairs.composite` for the arguments."""
    return composite(clips, 1 - parts.far, images)


def ring_swap(clips: Tensor, parts: Regions, images: Tensor) -> Tensor:
    """Clips in which only the ring around the foreground shows an image: float (B, 3, T, h, w)."""
    return composite(clips, 1 - parts.ring, images)


def freeze(clips: Tensor, frame: Tensor | int) -> Tensor:
    """One frame of each clip, repeated.

    Args:
        clips: (B, C, T, h, w).
        frame: int64 (B,), or one number for all; in 0..T-1.

    Returns:
        (B, C, T, h, w). All frames share their memory: do not write to it.

    Raises:
        IndexError: a clip has no such frame.
    """
    B, C, T, h, w = clips.shape
    place = torch.as_tensor(frame, device=clips.device).expand(B)
    if place.min() < 0 or place.max() >= T:
        raise IndexError(f"clips have {T} frames, got frame {place.tolist()}")
    return clips[torch.arange(B, device=clips.device), :, place].unsqueeze(2).expand(B, C, T, h, w)


def shifted(images: Tensor, shift: int) -> Tensor:
    """Images (..., w) moved to the right by `shift` pixels, to the left if negative; the border is filled with 0."""
    w = images.shape[-1]
    shift = max(-w, min(w, shift))
    return F.pad(images, (shift, -shift))


def conflict(clips: Tensor, parts: Regions, images: Tensor, still: Tensor, still_mask: Tensor, shift: int) -> Tensor:
    """Moving foregrounds over an image with a still foreground.

    Args:
        clips: float in [0, 1], (B, 3, T, h, w).
        parts: regions of these clips.
        images: float in [0, 1], (B, 3, 1, h, w).
        still: float in [0, 1], (B, 3, 1, h, w), a frame of another video.
        still_mask: float in [0, 1], (B, 1, 1, h, w), its foreground, softened.
        shift: shift of the still foreground, see `clear_shift`.

    Returns:
        float in [0, 1], (B, 3, T, h, w).
    """
    scene = composite(shifted(still, shift), shifted(still_mask, shift), images)
    return composite(clips, parts.foreground, scene)


def scene_behind(frames: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The scene behind the foregrounds of some frames of a camera that does not move, as one image.

    Each pixel is the median over the frames whose mask is 0 there (of an even number of values, the lower middle one).

    Args:
        frames: float in [0, 1], (B, 3, T, h, w).
        masks: float in [0, 1], (B, 1, T, h, w).

    Returns:
        The image, float in [0, 1], (B, 3, 1, h, w), 0 where all frames hide it; and where it was seen, bool
        (B, 1, 1, h, w).
    """
    shown = frames.masked_fill(masks > 0, torch.nan).nanmedian(dim=2, keepdim=True).values
    return shown.nan_to_num(0.0), (masks == 0).any(dim=2, keepdim=True)


def grey_image(images: Tensor) -> Tensor:
    """An image of the mean colour of Kinetics, with the shape, type and device of `images`, (B, 3, T, h, w)."""
    mean = torch.tensor(KINETICS_MEAN, dtype=images.dtype, device=images.device)
    return mean.view(1, 3, 1, 1, 1).expand_as(images)


def clear_shift(moving: Array, still: Array) -> int:
    """Horizontal shift of a still foreground with which the moving one hides least of it.

    Steps are eighths of the width, up to half of it. Parts outside the image count as hidden.

    Args:
        moving: in [0, 1], (h, w), maximum of the moving mask over the frames.
        still: in [0, 1], (h, w).

    Returns:
        Pixels to the right; of equally good shifts the smallest, left before right.
    """
    w = moving.shape[1]
    steps = sorted(range(-_SHIFT_STEPS // 2, _SHIFT_STEPS // 2 + 1), key=lambda step: (abs(step), step))
    shifts: list[int] = [round(step * w / _SHIFT_STEPS) for step in steps]
    seen = [_seen(moving, still, shift) for shift in shifts]
    best = int(np.argmax(np.round(seen, 6)))
    return shifts[best]


def _seen(moving: Array, still: Array, shift: int) -> float:
    """Area of the still foreground that is inside the image and not hidden."""
    w = moving.shape[1]
    kept = still[:, max(0, -shift) : w - max(0, shift)]
    before = moving[:, max(0, shift) : w - max(0, -shift)]
    return float((kept * (1 - before)).sum(dtype=np.float64))


# --- stripes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stripes:
    """An image of wavy lines in two complementary colours; lengths are for an image of side 256.

    Attributes:
        line: colour of the lines, R, G, B in [0, 1].
        width: width of a line.
        period: distance of the lines.
        amplitude: amplitude of the wave.
        wavelength: wavelength of the wave.
        phase: phase of the wave, turns.
        angle: rotation of the whole image, turns.
    """

    line: tuple[float, float, float]
    width: float
    period: float
    amplitude: float
    wavelength: float
    phase: float
    angle: float

    @classmethod
    def draw(cls, uniforms: Sequence[float]) -> Stripes:
        """Stripes from nine numbers in [0, 1): lines 5 to 20 wide, 3 to 5 widths apart, waves 10 to 110 high.

        Raises:
            ValueError: the argument is not nine numbers in [0, 1).
        """
        if len(uniforms) != 9 or not all(0 <= value < 1 for value in uniforms):
            raise ValueError(f"stripes need nine numbers in [0, 1), got {list(uniforms)}")
        hue, saturation, value, width, gap, amplitude, wavelength, phase, angle = uniforms
        line = colorsys.hsv_to_rgb(hue, 0.5 + saturation / 2, 0.5 + value / 2)
        wide = 5 + 15 * width
        return cls(line, wide, wide * (3 + 2 * gap), 10 + 100 * amplitude, 32 + 992 * wavelength, phase, angle)

    def image(self, size: int, device: torch.device | str = "cpu") -> Tensor:
        """The stripes on a square image, float32 in [0, 1], (3, size, size), over the complementary colour."""
        scale = _REFERENCE_SIDE / size
        axis = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * scale - _REFERENCE_SIDE / 2
        y, x = axis.unsqueeze(1), axis.unsqueeze(0)
        cos, sin = math.cos(2 * math.pi * self.angle), math.sin(2 * math.pi * self.angle)
        along, across = cos * x + sin * y, cos * y - sin * x
        turn = 2 * math.pi * (along / self.wavelength + self.phase)
        slope = 2 * math.pi * self.amplitude / self.wavelength * turn.cos()
        place = across - self.amplitude * turn.sin()
        middle = (torch.remainder(place + self.period / 2, self.period) - self.period / 2).abs()
        # The edge is one pixel soft, measured across the line.
        share = ((self.width / 2 - middle) / (scale * (1 + slope.square()).sqrt()) + 0.5).clamp(0, 1)
        line = torch.tensor(self.line, dtype=torch.float64, device=device).view(3, 1, 1)
        return torch.lerp(1 - line, line, share).float()


# --- numbers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Contrasted:
    """Result of `contrasted`, as shares in [0, 1].

    Attributes:
        scuba: accuracy on moving foregrounds over foreign backgrounds.
        scufo: accuracy on one repeated frame of them.
        contrasted: share that is right on the first and wrong on the second.
        pairs: number of pairs.
        left_out: ids of clips without a partner.
    """

    scuba: float
    scufo: float
    contrasted: float
    pairs: int
    left_out: tuple[str, ...] = ()


def contrasted(
    scuba_hits: Array,
    scufo_hits: Array,
    scuba_ids: Sequence[str] | None = None,
    scufo_ids: Sequence[str] | None = None,
) -> _Contrasted:
    """Accuracies on SCUBA and SCUFO clips, and the share that is right on SCUBA and wrong on SCUFO.

    Args:
        scuba_hits: bool (N,), clips that are classified correctly.
        scufo_hits: bool (M,), likewise.
        scuba_ids: names `name__k` of the clips, by which they are paired; an extension is ignored. Without ids, clips
            are paired by their order.
        scufo_ids: names of the SCUFO clips; required together with `scuba_ids`.

    Raises:
        ValueError: shapes do not fit, only one side has ids, an id is not `name__k` or occurs twice, or there are no
            pairs.

    Reference: H. Li et al., arXiv 2211.12883, section 3.
    """
    moving, still = _flags(scuba_hits, "scuba_hits"), _flags(scufo_hits, "scufo_hits")
    if (scuba_ids is None) != (scufo_ids is None):
        raise ValueError("give the ids of both sides, or of neither")
    left_out: tuple[str, ...] = ()
    if scuba_ids is not None and scufo_ids is not None:
        moving_at, still_at = _places(scuba_ids, len(moving), "scuba"), _places(scufo_ids, len(still), "scufo")
        both = [name for name in moving_at if name in still_at]
        left_out = tuple(sorted(moving_at.keys() ^ still_at.keys()))
        moving, still = moving[[moving_at[name] for name in both]], still[[still_at[name] for name in both]]
    if moving.shape != still.shape or not len(moving):
        raise ValueError(f"both sides need the same number of hits, one or more, got {len(moving)} and {len(still)}")
    return _Contrasted(
        float(moving.mean()), float(still.mean()), float((moving & ~still).mean()), len(moving), left_out
    )


def _flags(hits: Array, what: str) -> Bools:
    flags = np.asarray(hits)
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise ValueError(f"{what} must be bool (N,), got {flags.dtype} {flags.shape = }")
    return flags


def _places(ids: Sequence[str], count: int, what: str) -> dict[str, int]:
    """Place of each `name__k`."""
    if len(ids) != count:
        raise ValueError(f"one id per hit is needed, got {len(ids)} {what} ids for {count} hits")
    places: dict[str, int] = {}
    for place, name in enumerate(ids):
        found = _COUNTED.fullmatch(name)
        if found is None:
            raise ValueError(f"{what} ids are name__k, as in dive/clip__0, got {name!r}")
        key = f"{found['name']}__{int(found['count'])}"
        if key in places:
            raise ValueError(f"{what} ids name {key} twice")
        places[key] = place
    return places


def drift(plain: Array, changed: Array) -> Floats:
    """Cosine distance of the rows of two sets of features, in [0, 2], float64 (N,).

    A feature that is 0 has no direction: the distance is 0 if both are 0, else 1.

    Args:
        plain: (N, D), features of the clips.
        changed: (N, D), features of the changed clips.

    Raises:
        ValueError: shapes differ.
    """
    first, second = np.asarray(plain, np.float64), np.asarray(changed, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"features must be (N, D) of one shape, got {first.shape} and {second.shape}")
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    moved = 1 - (first * second).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    moved[(first == second).all(axis=1)] = 0
    bounded: Floats = np.clip(moved, 0, 2)
    return bounded


def class_scores(scores: Array, classes: Array, labels: Array) -> Floats:
    """Score of the given label of each row, float64 (N,); minus infinity if the classifier does not have the label.

    Args:
        scores: (N, K).
        classes: int (K,), label of each column, ascending.
        labels: int (N,).
    """
    columns = np.searchsorted(classes, labels).clip(0, len(classes) - 1)
    found = np.asarray(scores, np.float64)[np.arange(len(labels)), columns]
    return np.where(np.asarray(classes)[columns] == labels, found, -np.inf)


def probabilities(scores: Array, classes: Array, labels: Array) -> Floats:
    """Softmax probability of the given label of each row, float64 (N,); 0 if the classifier does not have the label."""
    values = np.asarray(scores, np.float64)
    top = values.max(axis=1)
    chosen: Floats = np.exp(class_scores(values, classes, labels) - top) / np.exp(values - top[:, None]).sum(axis=1)
    return chosen


def fooled_most(lost: Array, donors: Sequence[str]) -> tuple[str, float]:
    """The donor with the largest loss of the right class's probability, summed over its clips, and this sum.

    Args:
        lost: (N,), probability of the right class on the plain clip minus that over the donor's background.
        donors: donor of each clip, N of 1 or more.
    """
    sums: dict[str, float] = {}
    for value, donor in zip(np.asarray(lost, np.float64).tolist(), donors, strict=True):
        sums[donor] = sums.get(donor, 0.0) + value
    worst = max(sorted(sums), key=lambda donor: sums[donor])
    return worst, sums[worst]
