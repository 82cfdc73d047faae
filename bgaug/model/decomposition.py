"""The motion-aware decomposition: where features move, a dynamic code; where they stand still, a static one.

Letters: B clips, C channels, T', H', W' frames and cells of a feature map.

With features z, and z_static from the same or another last stage:

    M = minmax over cells of  mean_c mean_t |z[t + 1] - z[t]|       saliency
    global  = mean over cells and time of z
    dynamic = sum M std_t z / sum M
    static  = sum (1 - M) mean_t z_static / sum (1 - M)

The dynamic code is of how much features vary over time, not of what they are: what lies still, as a mat under the mover
does, is in their mean however well M weighs it, and in their deviation not at all.

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

MIN_FRAMES = 4
FLAT = 1e-3
POOLS = ("deviation", "mean")
STILL = 1e-6  # added to a variance, that its root has a gradient where nothing varies
STRETCHES = ("minmax", "softmax", "sigmoid")
CODES = ("global", "dynamic", "static")
FEATURES = (*CODES, "dynamic+static")
"""Features of a clip: one of its codes, or the last two side by side."""

OLD_FEATURES = {"g": "global", "d": "dynamic", "r": "static", "dr": "dynamic+static"}
"""Names of features in files that were written before these names."""


@dataclass
class Codes:
    """What one clip is reduced to.

    Attributes:
        global_code: float32 (B, C), the mean of the features.
        dynamic: float32 (B, C), the features' deviation over time, or their mean, weighted by the saliency.
        static: float32 (B, C), the mean weighted by its complement, of the static stream where there is one.
        saliency: float32 in [0, 1], (B, H', W'), M; carries no gradient. Of a map for each channel the mean.
    """

    global_code: Tensor
    dynamic: Tensor
    static: Tensor
    saliency: Tensor

    def feature(self, which: str) -> Tensor:
        """The downstream feature of this name: float32 (B, C), of "dynamic+static" (B, 2C).

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


def saliency_map(
    features: Tensor,
    trim_ends: bool = True,
    *,
    stretch: str = "minmax",
    per_channel: bool = False,
    normalise: bool = False,
    compensate: bool = False,
) -> Tensor:
    """Where features change from frame to frame, accumulated over time.

    Stretched to [0, 1] for each clip. A map that is flat (its range is under 1e-3 of the mean |z|) says nothing, and
    becomes 1/2 everywhere. No gradient flows through: else a network could lower its loss by flickering.

    Args:
        features: float (B, C, T', H', W'), T' at least 2; raw pixels do as well.
        trim_ends: leave out the first and the last difference, where temporal padding shows; only if T' is at least 4.
        stretch: "minmax"; "softmax": exp of the map in units of its spread over cells, 1 at its largest; "sigmoid" of
            the map's distance from its mean, in the same units.
        per_channel: a map for each channel.
        normalise: divide the features of each cell and frame by their norm over channels first.
        compensate: subtract from every difference its median over cells, and keep what is above: a moving camera.

    Returns:
        float32 in [0, 1], (B, H', W'), or (B, C, H', W') for each channel.

    Raises:
        ValueError: fewer than two frames, or another stretch.
    """
    return _stretch(_relative_motion(features, trim_ends, per_channel, normalise, compensate), stretch)


def temporal_deviation(features: Tensor) -> Tensor:
    """How much features vary over time: their standard deviation over frames, at least 1e-3.

    Args:
        features: float (B, C, T', H', W').

    Returns:
        float32 (B, C, H', W').
    """
    return (features.float().var(dim=2, unbiased=False) + STILL).sqrt()


def upsample_saliency(saliency: Tensor, size: tuple[int, int]) -> Tensor:
    """The motion heat map: (B, H', W') -> (B, H, W) of `size` pixels, bilinear."""
    return F.interpolate(saliency.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


class MotionAwareDecomposition(nn.Module):
    """Splits a clip's features into a global, a dynamic and a static code. Has no parameters.

    The saliency is read where time is still long enough: convolutions padded with zeros in time leave differences in
    features of a clip that stands still, and at T' = 2 nothing else; padding that repeats the end frames leaves none. By default that is the last stage if it has T' of at least 4,
    else all earlier ones that do but for the first (stages 2 and 3 of an 18-layer network on 16 frames). The motion of
    several stages, each in units of its own mean |z|, is averaged on the last stage's grid, and stretched once.

    Args:
        stages: names of the stages to read instead.
        trim_ends: leave out the first and the last difference; see `saliency_map`, also for the next four.
        stretch: "minmax", "softmax" or "sigmoid".
        per_channel: a map for each channel; only where the last stage alone is read.
        normalise: differences of features normalised over channels.
        compensate: leave out what all cells have in common.
        reach: by stage, frames at each end that padding in time has touched, all of which are left out; see
            `bgaug.model.backbones.Backbone.temporal_reach`.
        pool: of what the dynamic code is a weighted mean: "deviation" of features over time, or their "mean" over it.
            Where padding has touched all but one frame of the last stage (published weights on few frames), it is the
            mean in either case: the deviation would tell of the padding.

    Raises:
        ValueError: another stretch or pool.
    """

    def __init__(
        self,
        stages: Sequence[str] | None = None,
        trim_ends: bool = True,
        *,
        stretch: str = "minmax",
        per_channel: bool = False,
        normalise: bool = False,
        compensate: bool = False,
        reach: Mapping[str, int] | None = None,
        pool: str = "deviation",
    ) -> None:
        super().__init__()
        if stretch not in STRETCHES:
            raise ValueError(f"stretch must be one of {', '.join(STRETCHES)}, got {stretch!r}")
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
        self.pool = pool
        self.stages = None if stages is None else tuple(stages)
        self.trim_ends = trim_ends
        self.stretch = stretch
        self.per_channel = per_channel
        self.normalise = normalise
        self.compensate = compensate
        self.reach = dict(reach or {})

    def forward(self, features: Mapping[str, Tensor], static: Tensor | None = None) -> Codes:
        """Codes of a batch of clips.

        Args:
            features: from stage name to float (B, C, T', H', W'), in the order the backbone computes them; the last is
                the one that is pooled.
            static: features of the static stream's last stage, of the last stage's grid; the last of `features` if
                there is but one stream.

        Returns:
            The codes, in float32 whatever the features are in.

        Raises:
            ValueError: a stage is unknown or too short, the static stream has another grid, or a map for each channel
                is asked of another stage than the last.
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
            dynamic=_weighted_mean(mean if clean is None else temporal_deviation(clean), saliency),
            static=_weighted_mean(static.mean(dim=2).float(), 1 - saliency),
            saliency=saliency if saliency.ndim == 3 else saliency.mean(dim=1),
        )

    def reads_deviation(self, features: Mapping[str, Tensor]) -> bool:
        """Whether the dynamic code of these features is a deviation over time; else it is a mean. Arguments as `forward`."""
        return self._clean(features) is not None

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return (
            f"stages={self.stages}, trim_ends={self.trim_ends}, stretch={self.stretch!r}, "
            f"per_channel={self.per_channel}, normalise={self.normalise}, compensate={self.compensate}, pool={self.pool!r}"
        )

    def _saliency(self, features: Mapping[str, Tensor], grid: tuple[int, int]) -> Tensor:
        names = self._read_stages(features)
        if self.per_channel and list(names) != list(features)[-1:]:
            raise ValueError(f"a map for each channel needs the last stage's channels, not those of {', '.join(names)}")
        maps = []
        for name in names:
            motion = _relative_motion(
                self._untouched(name, features[name]), self.trim_ends, self.per_channel, self.normalise, self.compensate
            )
            maps.append(F.adaptive_avg_pool2d(motion, grid))
        return _stretch(torch.stack(maps).mean(dim=0), self.stretch)

    def _clean(self, features: Mapping[str, Tensor]) -> Tensor | None:
        """The frames of the last stage whose deviation is of the clip; None where it is not asked for, or they are not two."""
        name, last = list(features.items())[-1]
        reach = self.reach.get(name, 0)
        if self.pool == "mean" or last.shape[2] - 2 * reach < 2:
            return None
        return last[:, :, reach : last.shape[2] - reach]

    def _untouched(self, name: str, features: Tensor) -> Tensor:
        """The frames of a stage that padding has not touched, one more at each end that `trim_ends` takes away."""
        frames, extra = features.shape[2], self.reach.get(name, 0) - self.trim_ends
        if extra <= 0:
            return features
        if frames - 2 * extra < MIN_FRAMES:
            raise ValueError(
                f"padding with zeros in time has touched all but {max(0, frames - 2 * self.reach[name])} of the {frames} "
                f"frames of {name}, too few to difference; take longer clips, or temporal_padding='replicate'"
            )
        return features[:, :, extra : frames - extra]

    def _read_stages(self, features: Mapping[str, Tensor]) -> Sequence[str]:
        if self.stages is not None:
            unknown = [name for name in self.stages if name not in features]
            if unknown:
                raise ValueError(f"no stage {', '.join(unknown)}; the backbone has {', '.join(features)}")
            return self.stages
        long = [name for name, value in features.items() if value.shape[2] >= MIN_FRAMES]
        if not long:
            lengths = ", ".join(f"{name}: {value.shape[2]}" for name, value in features.items())
            raise ValueError(f"no stage has {MIN_FRAMES} frames to difference ({lengths}); take longer clips")
        if long[-1] == list(features)[-1]:
            return long[-1:]
        return long[1:] or long


@torch.no_grad()
def _relative_motion(
    features: Tensor,
    trim_ends: bool,
    per_channel: bool = False,
    normalise: bool = False,
    compensate: bool = False,
) -> Tensor:
    """mean_c mean_t |z[t + 1] - z[t]| in units of the clip's mean |z|: float32 (B, H', W'), or (B, C, H', W')."""
    B, C, T, H, W = features.shape
    if T < 2:
        raise ValueError(f"differences need at least 2 frames, got T' = {T}")
    if trim_ends and T >= MIN_FRAMES:
        features = features[:, :, 1:-1]
    features = features.float()
    if normalise:
        features = F.normalize(features, dim=1)
    difference = (features[:, :, 1:] - features[:, :, :-1]).abs()
    if compensate:
        common = difference.flatten(3).median(dim=3).values
        difference = (difference - common[..., None, None]).clamp(min=0)
    motion = difference.mean(dim=2) if per_channel else difference.mean(dim=(1, 2))
    level = features.abs().mean(dim=(1, 2, 3, 4)).view(B, *[1] * (motion.ndim - 1))
    return motion / level.clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def _stretch(motion: Tensor, stretch: str = "minmax") -> Tensor:
    low, high = motion.amin(dim=(-2, -1), keepdim=True), motion.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    flat = spread < FLAT
    if stretch == "minmax":
        stretched = (motion - low) / torch.where(flat, torch.ones_like(spread), spread)
    else:
        deviation = motion.std(dim=(-2, -1), keepdim=True, unbiased=False).clamp(min=1e-12)
        centre = high if stretch == "softmax" else motion.mean(dim=(-2, -1), keepdim=True)
        scaled = (motion - centre) / deviation
        stretched = scaled.exp() if stretch == "softmax" else scaled.sigmoid()
    return torch.where(flat, torch.full_like(motion, 0.5), stretched)


def _weighted_mean(features: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H', W') weighted by (B, H', W') or (B, C, H', W') -> (B, C); no stretched map or complement sums to zero."""
    weight = weight if weight.ndim == 4 else weight.unsqueeze(1)
    return (features * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
