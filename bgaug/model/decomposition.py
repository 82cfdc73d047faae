"""The motion-aware decomposition: a dynamic code where features move, a static code where they do not.

Letters: B clips, C channels, T', H', W' frames and cells of a feature map.

With features z, and z_static from the same or another last stage:

    M = minmax over cells of  mean_c mean_t |z[t + 1] - z[t]|       saliency
    global  = mean over cells and time of z
    dynamic = sum M std_t z / sum M
    static  = sum (1 - M) mean_t z_static / sum (1 - M)

The dynamic code describes how much features vary over time. An object that does not move, such as a mat under a
gymnast, is part of their mean, however precise M is, but not of their deviation.

Reference: "Solution of wide and micro background bias in contrastive action representation learning", Engineering
Applications of Artificial Intelligence, 2024, abstract: "pixel-level intensity variations from the feature space of
adjacent frames", "accumulated" to a "salient map that focuses on the boundaries of moving objects". Formulas ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgaug.names import FEATURES

POOLS = ("deviation", "mean")
CODES = FEATURES[:3]

OLD_FEATURES = {"g": "global", "d": "dynamic", "r": "static", "dr": "dynamic+static"}
"""Names of features in files that were written before these names."""

FLAT = 1e-3
"""A map whose range is below this share of the mean size of its values is flat."""

_MIN_FRAMES = 4
_MIN_VARIANCE = 1e-6  # added to a variance, so that its root has a gradient where nothing varies


@dataclass
class Codes:
    """The codes of a clip.

    Attributes:
        global_code: float32 (B, C), the mean of the features.
        dynamic: float32 (B, C), the features' deviation over time, or their mean, weighted by the saliency.
        static: float32 (B, C), the mean weighted by the complement of the saliency, of the static stream if there is
            one.
        saliency: float32 in [0, 1], (B, H', W'), M; without gradient.
    """

    global_code: Tensor
    dynamic: Tensor
    static: Tensor
    saliency: Tensor

    def feature(self, which: str) -> Tensor:
        """The downstream feature of this name: float32 (B, C), for "dynamic+static" (B, 2C).

        Raises:
            ValueError: it is none of `FEATURES`.
        """
        if which not in FEATURES:
            raise ValueError(f"features are {', '.join(FEATURES)}, got {which!r}")
        return torch.cat([self.by_name[code] for code in which.split("+")], dim=1)

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The codes by their names in `CODES`."""
        return {"global": self.global_code, "dynamic": self.dynamic, "static": self.static}


def saliency_map(features: Tensor, trim_ends: bool = True) -> Tensor:
    """The change of features from frame to frame, accumulated over time and stretched to [0, 1] for each clip.

    A flat map (its range is below 1e-3 of the mean |z|) becomes 1/2 everywhere. It carries no gradient, because a
    network could otherwise lower its loss by flickering.

    Args:
        features: float (B, C, T', H', W'), T' at least 2, or raw pixels.
        trim_ends: leave out the first and the last difference, where temporal padding is visible, if T' is at least 4.

    Returns:
        float32 in [0, 1], (B, H', W').

    Raises:
        ValueError: fewer than two frames.
    """
    return stretch(_relative_motion(features, trim_ends), FLAT)


@torch.no_grad()
def stretch(maps: Tensor, flat: float | Tensor) -> Tensor:
    """Each clip's map stretched to [0, 1], (B, ...); a map whose range is at most `flat`, (B, 1), becomes 1/2."""
    values = maps.flatten(1)
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    spread = high - low
    is_flat = spread <= flat
    stretched = (values - low) / torch.where(is_flat, torch.ones_like(spread), spread)
    return torch.where(is_flat, torch.full_like(values, 0.5), stretched).view(maps.shape)


def _temporal_deviation(features: Tensor) -> Tensor:
    """Standard deviation of features over frames, at least 1e-3: (B, C, T', H', W') to float32 (B, C, H', W')."""
    return (features.float().var(dim=2, unbiased=False) + _MIN_VARIANCE).sqrt()


class MotionAwareDecomposition(nn.Module):
    """Splits a clip's features into a global, a dynamic and a static code. Has no parameters.

    The saliency is computed in stages with enough frames: convolutions padded with zeros in time leave differences in
    the
    features of a clip without motion, and at T' = 2 there is nothing else; padding with the end frames leaves none. By
    default that is the last stage if it has T' of at least 4, else all earlier stages that have, except the first
    (stages 2 and 3 of an 18-layer network for 16 frames). The motion of several stages, each relative to its own mean
    |z|, is averaged on the last stage's grid, and stretched once.

    Args:
        stages: names of the stages to read instead.
        trim_ends: leave out the first and the last difference; see `saliency_map`.
        reach: by stage, the number of frames at each end that depend on padding in time; all of them are left out. See
            `bgaug.model.backbones.Backbone.temporal_reach`.
        pool: the dynamic code is a weighted mean of the "deviation" of features over time, or of their "mean" over it.
            If padding reaches all frames of the last stage but one (published weights for few frames), it is the mean
            in both cases, because the deviation would depend on the padding.

    Raises:
        ValueError: another pool.
    """

    def __init__(
        self,
        stages: Sequence[str] | None = None,
        trim_ends: bool = True,
        *,
        reach: Mapping[str, int] | None = None,
        pool: str = "deviation",
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
        self.pool = pool
        self.stages = None if stages is None else tuple(stages)
        self.trim_ends = trim_ends
        self.reach = dict(reach or {})

    def forward(self, features: Mapping[str, Tensor], static: Tensor | None = None) -> Codes:
        """Codes of a batch of clips.

        Args:
            features: from stage name to float (B, C, T', H', W'), in the order in which the backbone computes them; the
                last one is pooled.
            static: features of the static stream's last stage, on the last stage's grid; the last of `features` if
                there is only one stream.

        Returns:
            The codes, in float32 for features of any type.

        Raises:
            ValueError: a stage is unknown or too short, or the static stream has another grid.
        """
        last = list(features.values())[-1]
        static = last if static is None else static
        if static.shape[3:] != last.shape[3:]:
            raise ValueError(f"both streams need one grid, got {tuple(last.shape)} and static {tuple(static.shape)}")
        saliency = self._saliency(features, (last.shape[3], last.shape[4]))
        mean = last.mean(dim=2).float()
        clean = self._clean(features)
        return Codes(
            global_code=mean.mean(dim=(2, 3)),
            dynamic=_weighted_mean(mean if clean is None else _temporal_deviation(clean), saliency),
            static=_weighted_mean(static.mean(dim=2).float(), 1 - saliency),
            saliency=saliency,
        )

    def reads_deviation(self, features: Mapping[str, Tensor]) -> bool:
        """Whether the dynamic code of these features is a deviation over time, else a mean; arguments as `forward`."""
        return self._clean(features) is not None

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"stages={self.stages}, trim_ends={self.trim_ends}, pool={self.pool!r}"

    def _saliency(self, features: Mapping[str, Tensor], grid: tuple[int, int]) -> Tensor:
        maps = []
        for name in self._read_stages(features):
            motion = _relative_motion(self._untouched(name, features[name]), self.trim_ends)
            maps.append(F.adaptive_avg_pool2d(motion, grid))
        return stretch(torch.stack(maps).mean(dim=0), FLAT)

    def _clean(self, features: Mapping[str, Tensor]) -> Tensor | None:
        """The frames of the last stage that do not depend on padding; None if there is one, or the mean is pooled."""
        name, last = list(features.items())[-1]
        reach = self.reach.get(name, 0)
        if self.pool == "mean" or last.shape[2] - 2 * reach < 2:
            return None
        return last[:, :, reach : last.shape[2] - reach]

    def _untouched(self, name: str, features: Tensor) -> Tensor:
        """The frames of a stage that do not depend on padding, and one more at each end if `trim_ends` will cut it."""
        frames, extra = features.shape[2], self.reach.get(name, 0) - self.trim_ends
        if extra <= 0:
            return features
        if frames - 2 * extra < _MIN_FRAMES:
            raise ValueError(
                f"only {max(0, frames - 2 * self.reach[name])} of the {frames} frames of {name} do not depend "
                f"on padding with zeros in time, too few for differences; use longer clips, or "
                f"temporal_padding='replicate'"
            )
        return features[:, :, extra : frames - extra]

    def _read_stages(self, features: Mapping[str, Tensor]) -> Sequence[str]:
        if self.stages is not None:
            unknown = [name for name in self.stages if name not in features]
            if unknown:
                raise ValueError(f"no stage {', '.join(unknown)}; the backbone has {', '.join(features)}")
            return self.stages
        long = [name for name, value in features.items() if value.shape[2] >= _MIN_FRAMES]
        if not long:
            lengths = ", ".join(f"{name}: {value.shape[2]}" for name, value in features.items())
            raise ValueError(f"no stage has {_MIN_FRAMES} frames for differences ({lengths}); use longer clips")
        if long[-1] == list(features)[-1]:
            return long[-1:]
        return long[1:] or long


@torch.no_grad()
def _relative_motion(features: Tensor, trim_ends: bool) -> Tensor:
    """mean_c mean_t |z[t + 1] - z[t]| relative to the clip's mean |z|: float32 (B, H', W')."""
    B, C, T, H, W = features.shape
    if T < 2:
        raise ValueError(f"differences need at least 2 frames, got T' = {T}")
    if trim_ends and T >= _MIN_FRAMES:
        features = features[:, :, 1:-1]
    features = features.float()
    motion = (features[:, :, 1:] - features[:, :, :-1]).abs().mean(dim=(1, 2))
    level = features.abs().mean(dim=(1, 2, 3, 4)).view(B, 1, 1)
    return motion / level.clamp(min=torch.finfo(torch.float32).tiny)


def _weighted_mean(features: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H', W') weighted by (B, H', W') -> (B, C); neither a stretched map nor its complement sums to zero."""
    weight = weight.unsqueeze(1)
    return (features * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
