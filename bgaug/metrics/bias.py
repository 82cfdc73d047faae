"""Whether an encoder goes by what moves or by what stands behind it: test clips over foreign backgrounds, and their numbers.

Pure functions over tensors and arrays; which videos, backgrounds and classifiers they are fed is the caller's business.

    SCUBA       the moving foreground over a foreign picture, the same in all frames: what moves must be enough
    SCUFO       one frame of that, repeated: nothing moves, so nobody should know the action
    contrasted  right on the first and wrong on the second: by the motion, that is
    conflict    the first, with the still foreground of another action beside: which of the two is named?
    far, ring   foreign is only what lies far from the foreground (wide bias), or only a ring about it (micro bias)

Letters: B clips, T frames, h, w pixels of the crop, N items, K classes, D embedding.

References: H. Li et al., "Mitigating and evaluating static bias of action representations in the background and the
foreground", ICCV 2023, arXiv 2211.12883 (SCUBA, SCUFO, contrasted accuracy, conflicting foreground). J. Chung et al.,
"Enabling detailed action recognition evaluation through video dataset augmentation", NeurIPS 2022 datasets and benchmarks
(HAT: background only, human only, action swap). Far, ring, stripes and the placing of the still foreground are ours.
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

from bgaug.pairs import composite, soften

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REFERENCE_SIDE = 256.0
"""The side of a picture in the lengths of `Stripes`."""

SHIFT_STEPS = 8  # a still foreground is moved by whole eighths of the picture's width

_COUNTED = re.compile(r"(?P<name>.+)__(?P<count>\d+)(?:\.[A-Za-z0-9]{1,5})?")


# --- clips --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Regions:
    """Shares of every pixel that belong to the foreground, to a ring about it and to all that is far: they add up to 1.

    Attributes:
        foreground: float32 in [0, 1], (B, 1, T, h, w).
        ring: likewise.
        far: likewise.
    """

    foreground: Tensor
    ring: Tensor
    far: Tensor


def regions(mask: Tensor, *, grow: float = 0.0, feather: float = 1.0, ring: float = 7.0) -> Regions:
    """Foreground, ring and far of clips by their masks.

    Args:
        mask: float32 in [0, 1], (B, 1, T, h, w).
        grow: dilation of the mask by a square, pixels on each side, for limbs that a mask cuts.
        feather: sigma of a Gaussian over both seams, pixels.
        ring: its width about the grown mask, pixels.

    Raises:
        ValueError: a length is negative, or the mask is not (B, 1, T, h, w).
    """
    if mask.ndim != 5 or mask.shape[1] != 1:
        raise ValueError(f"mask must be (B, 1, T, h, w), got {mask.shape = }")
    if ring < 0:
        raise ValueError(f"ring is pixels, at least 0, got {ring = }")
    inner, outer = soften(mask, grow, feather), soften(mask, grow + ring, feather)
    # A wider mask is nowhere smaller, but for the last bit of the blur.
    outer = torch.maximum(inner, outer)
    return Regions(inner, outer - inner, 1 - outer)


def far_swap(clips: Tensor, parts: Regions, pictures: Tensor) -> Tensor:
    """Clips in which all that is far shows a picture: float (B, 3, T, h, w). Arguments as of `compose.composite`."""
    return composite(clips, 1 - parts.far, pictures)


def ring_swap(clips: Tensor, parts: Regions, pictures: Tensor) -> Tensor:
    """Clips in which only the ring about the foreground shows a picture: float (B, 3, T, h, w)."""
    return composite(clips, 1 - parts.ring, pictures)


def freeze(clips: Tensor, frame: Tensor | int) -> Tensor:
    """One frame of each clip, repeated.

    Args:
        clips: (B, C, T, h, w).
        frame: int64 (B,), or one for all; in 0..T-1.

    Returns:
        (B, C, T, h, w), of which all frames share their memory: do not write to it.

    Raises:
        IndexError: a clip has no such frame.
    """
    B, C, T, h, w = clips.shape
    place = torch.as_tensor(frame, device=clips.device).expand(B)
    if place.min() < 0 or place.max() >= T:
        raise IndexError(f"clips have {T} frames, asked for {place.tolist()}")
    return clips[torch.arange(B, device=clips.device), :, place].unsqueeze(2).expand(B, C, T, h, w)


def shifted(pictures: Tensor, shift: int) -> Tensor:
    """Pictures (..., w) moved to the right by so many pixels, to the left if negative; 0 comes in at the border."""
    w = pictures.shape[-1]
    shift = max(-w, min(w, shift))
    return F.pad(pictures, (shift, -shift))


def conflict(clips: Tensor, parts: Regions, pictures: Tensor, still: Tensor, still_mask: Tensor, shift: int) -> Tensor:
    """Moving foregrounds over a picture before which a still foreground stands.

    Args:
        clips: float in [0, 1], (B, 3, T, h, w).
        parts: of these clips.
        pictures: float in [0, 1], (B, 3, 1, h, w).
        still: float in [0, 1], (B, 3, 1, h, w), a frame of another video.
        still_mask: float in [0, 1], (B, 1, 1, h, w), its foreground, softened.
        shift: where it stands, see `clear_shift`.

    Returns:
        float in [0, 1], (B, 3, T, h, w).
    """
    scene = composite(shifted(still, shift), shifted(still_mask, shift), pictures)
    return composite(clips, parts.foreground, scene)


def clear_shift(moving: Array, still: Array) -> int:
    """How far to move a still foreground sideways so that the moving one hides least of it.

    Steps are eighths of the width, up to half of it. What would leave the picture counts as hidden.

    Args:
        moving: in [0, 1], (h, w): the largest value over the frames of the moving mask.
        still: in [0, 1], (h, w).

    Returns:
        Pixels to the right; of equally good ones the shortest way, left before right.
    """
    w = moving.shape[1]
    steps = sorted(range(-SHIFT_STEPS // 2, SHIFT_STEPS // 2 + 1), key=lambda step: (abs(step), step))
    shifts: list[int] = [round(step * w / SHIFT_STEPS) for step in steps]
    seen = [_seen(moving, still, shift) for shift in shifts]
    best = int(np.argmax(np.round(seen, 6)))
    return shifts[best]


def _seen(moving: Array, still: Array, shift: int) -> float:
    """Area of the still foreground that stays in the picture, unhidden."""
    w = moving.shape[1]
    kept = still[:, max(0, -shift) : w - max(0, shift)]
    before = moving[:, max(0, shift) : w - max(0, -shift)]
    return float((kept * (1 - before)).sum(dtype=np.float64))


# --- stripes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stripes:
    """A picture of wavy lines in two complementary colours. Lengths count a picture's side as 256.

    Attributes:
        line: colour of the lines, R, G, B in [0, 1].
        width: of a line, across it where the wave is flat.
        period: from one line to the next.
        amplitude: of the wave.
        wavelength: of the wave.
        phase: of the wave, turns.
        angle: of the whole picture, turns.
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
        """Stripes by nine numbers in [0, 1): lines 5 to 20 wide, three to five times as far apart, waves 10 to 110 high.

        Raises:
            ValueError: not nine numbers in [0, 1).
        """
        if len(uniforms) != 9 or not all(0 <= value < 1 for value in uniforms):
            raise ValueError(f"stripes are drawn by nine numbers in [0, 1), got {list(uniforms)}")
        hue, saturation, value, width, gap, amplitude, wavelength, phase, angle = uniforms
        line = colorsys.hsv_to_rgb(hue, 0.5 + saturation / 2, 0.5 + value / 2)
        wide = 5 + 15 * width
        return cls(line, wide, wide * (3 + 2 * gap), 10 + 100 * amplitude, 32 + 992 * wavelength, phase, angle)

    def image(self, size: int, device: torch.device | str = "cpu") -> Tensor:
        """The stripes on a square picture, float32 in [0, 1], (3, size, size); the ground has the complementary colour."""
        scale = REFERENCE_SIDE / size
        axis = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * scale - REFERENCE_SIDE / 2
        y, x = axis.unsqueeze(1), axis.unsqueeze(0)
        cos, sin = math.cos(2 * math.pi * self.angle), math.sin(2 * math.pi * self.angle)
        along, across = cos * x + sin * y, cos * y - sin * x
        turn = 2 * math.pi * (along / self.wavelength + self.phase)
        slope = 2 * math.pi * self.amplitude / self.wavelength * turn.cos()
        place = across - self.amplitude * turn.sin()
        middle = (torch.remainder(place + self.period / 2, self.period) - self.period / 2).abs()
        # The edge is one pixel soft, across the line wherever the wave takes it.
        share = ((self.width / 2 - middle) / (scale * (1 + slope.square()).sqrt()) + 0.5).clamp(0, 1)
        line = torch.tensor(self.line, dtype=torch.float64, device=device).view(3, 1, 1)
        return torch.lerp(1 - line, line, share).float()


# --- numbers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrasted:
    """What `contrasted` found, as shares in [0, 1].

    Attributes:
        scuba: accuracy on moving foregrounds over foreign backgrounds.
        scufo: accuracy on one frame of them, repeated.
        contrasted: right on the first and wrong on the second.
        pairs: that were counted.
        left_out: ids that only one side has.
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
) -> Contrasted:
    """Accuracies of the two kinds of clip, and the share that is right on the one and wrong on the other.

    Args:
        scuba_hits: bool (N,), whether each clip was classified rightly.
        scufo_hits: bool (M,).
        scuba_ids: names `name__k` of the clips, by which they are paired; an extension is ignored. Without ids, row
            i of the one is paired with row i of the other.
        scufo_ids: likewise; given together.

    Raises:
        ValueError: shapes do not fit, only one side has ids, an id is not `name__k` or occurs twice, or nothing pairs.

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
        raise ValueError(f"as many hits are needed on both sides, one or more, got {len(moving)} and {len(still)}")
    return Contrasted(float(moving.mean()), float(still.mean()), float((moving & ~still).mean()), len(moving), left_out)


def _flags(hits: Array, what: str) -> Bools:
    flags = np.asarray(hits)
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise ValueError(f"{what} must be bool (N,), got {flags.dtype} {flags.shape = }")
    return flags


def _places(ids: Sequence[str], count: int, what: str) -> dict[str, int]:
    """Where each `name__k` stands."""
    if len(ids) != count:
        raise ValueError(f"one id a hit is needed, got {len(ids)} {what} ids for {count} hits")
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
    """How far features moved: 1 less the cosine similarity of each row, in [0, 2], float64 (N,).

    A feature that is 0 has no direction: the row counts 0 if both are, else 1.

    Args:
        plain: (N, D), of the clips as they are.
        changed: (N, D), of the same clips, changed.

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
    """Score of the given label of each row, float64 (N,); minus infinity where the classifier does not know the label.

    Args:
        scores: (N, K).
        classes: int (K,), label of each column, ascending.
        labels: int (N,).
    """
    columns = np.searchsorted(classes, labels).clip(0, len(classes) - 1)
    found = np.asarray(scores, np.float64)[np.arange(len(labels)), columns]
    return np.where(np.asarray(classes)[columns] == labels, found, -np.inf)


def probabilities(scores: Array, classes: Array, labels: Array) -> Floats:
    """Softmax probability of the given label of each row, float64 (N,); 0 for a label that the classifier does not know."""
    values = np.asarray(scores, np.float64)
    top = values.max(axis=1)
    chosen: Floats = np.exp(class_scores(values, classes, labels) - top) / np.exp(values - top[:, None]).sum(axis=1)
    return chosen


def fooled_most(lost: Array, donors: Sequence[str]) -> tuple[str, float]:
    """The donor over whose background most of the right class's probability was lost, summed over its clips, and that sum.

    Args:
        lost: (N,), probability of the right class on the plain clip less that over the donor's background.
        donors: name of the donor of each, N of 1 or more.
    """
    sums: dict[str, float] = {}
    for value, donor in zip(np.asarray(lost, np.float64).tolist(), donors, strict=True):
        sums[donor] = sums.get(donor, 0.0) + value
    worst = max(sorted(sums), key=lambda donor: sums[donor])
    return worst, sums[worst]
