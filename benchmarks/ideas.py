"""Ideas against micro bias that are no options of the library: each wraps the pairs or the learner of a trial.

What is random is drawn from the batch's keys, as in the library. See benchmarks/micro.py for what came of them.

Letters: B clips, T frames, h, w pixels of the crop, h', w' cells of the last stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgaug.augment import uniform
from bgaug.compose import Pairs, SemiNegativePairs
from bgaug.compose.masks import shrink
from bgaug.model import ContrastiveLearner

Made = Callable[[SemiNegativePairs, ContrastiveLearner, int], nn.Module]  # of the pairs, the learner, all steps


class Flattened(nn.Module):
    """The mover drawn towards one colour of its own, by a share from U(0, `most`): what is left is how it moves."""

    def __init__(self, pairs: nn.Module, most: float) -> None:
        super().__init__()
        self.pairs, self.most = pairs, most

    def forward(self, batch: dict[str, Tensor]) -> Pairs:
        """Pairs of one batch."""
        made: Pairs = self.pairs(batch)
        colour = uniform(batch["key"], "ideas/colour", 3).view(-1, 3, 1, 1, 1)
        share = self.most * uniform(batch["key"], "ideas/share", 1).view(-1, 1, 1, 1, 1)
        return replace(made, semi=torch.lerp(made.semi, colour.expand_as(made.semi), share * made.mask))


class Differenced(nn.Module):
    """Some second views as the change from each frame to the next, about grey: nothing that lies still is in them."""

    def __init__(self, pairs: nn.Module, probability: float) -> None:
        super().__init__()
        self.pairs, self.probability = pairs, probability

    def forward(self, batch: dict[str, Tensor]) -> Pairs:
        """Pairs of one batch."""
        made: Pairs = self.pairs(batch)
        change = made.semi[:, :, 1:] - made.semi[:, :, :-1]
        change = 0.5 + 0.5 * torch.cat([change, change[:, :, -1:]], dim=2)
        chosen = uniform(batch["key"], "ideas/differenced", 1).view(-1, 1, 1, 1, 1) < self.probability
        return replace(made, semi=torch.where(chosen, change, made.semi))


class BothComposed(nn.Module):
    """The first view over a foreign background, too: neither shows its own."""

    def __init__(self, pairs: nn.Module) -> None:
        super().__init__()
        self.pairs = pairs

    def forward(self, batch: dict[str, Tensor]) -> Pairs:
        """Pairs of one batch."""
        turned = {name: batch[name] for name in ("frames", "masks", "backgrounds", "video", "key", "box")}
        turned |= {name: turned[name].flip(1) for name in ("frames", "masks")} | {"key": turned["key"] + 1}
        made: Pairs = self.pairs(batch)
        return replace(made, anchor=self.pairs(turned).semi)


class Scheduled(nn.Module):
    """A curriculum: what the pairs' policy is, by the share of steps that are over."""

    def __init__(self, pairs: SemiNegativePairs, steps: int, changes: list[dict[str, object]]) -> None:
        super().__init__()
        self.pairs, self.steps = pairs, steps
        self.policies = [replace(pairs.policy, **change) for change in changes]  # type: ignore[arg-type]
        self.step = 0

    def forward(self, batch: dict[str, Tensor]) -> Pairs:
        """Pairs of one batch."""
        self.pairs.policy = self.policies[min(len(self.policies) * self.step // self.steps, len(self.policies) - 1)]
        self.step += 1
        made: Pairs = self.pairs(batch)
        return made


class Adapted(nn.Module):
    """A loop: the mask shrinks for as long as what is left along its edge alone finds its own anchor.

    Every `every` steps the middle of each composite's foreground is painted over. If more than `wanted` of the anchors
    are still found among the batch's, the rim of the donor grows by a pixel (of 112), else it shrinks by half of one.
    """

    def __init__(
        self, pairs: SemiNegativePairs, learner: ContrastiveLearner, every: int = 20, wanted: float = 0.1
    ) -> None:
        super().__init__()
        self.pairs, self.every, self.wanted = pairs, every, wanted
        self._learner = [learner]  # no part of this module
        self.step = 0

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> Pairs:
        """Pairs of one batch."""
        made: Pairs = self.pairs(batch)
        self.step += 1
        if self.step % self.every == 0:
            encoder = self._learner[0].encoder
            middle = shrink(made.mask, made.mask.shape[-1] / 16)
            outside = 1 - made.mask
            colour = (made.semi * outside).sum((2, 3, 4)) / outside.sum((2, 3, 4)).clamp(min=1)
            rim = torch.lerp(made.semi, colour.view(-1, 3, 1, 1, 1).expand_as(made.semi), middle)
            a, b = (F.normalize(encoder(clips)["g"].float(), dim=1) for clips in (rim, made.anchor))
            found = float(((a @ b.T).argmax(dim=1) == torch.arange(len(a), device=a.device)).float().mean())
            grow = min(12.0, max(0.0, self.pairs.policy.grow + (1.0 if found > self.wanted else -0.5)))
            self.pairs.policy = replace(self.pairs.policy, rim="donor", grow=grow)
        return made


class PooledInside(ContrastiveLearner):
    """The second view's features pooled inside the mask, its rim left out; the first view's as ever."""

    def _views(self, pairs: Pairs) -> list[dict[str, Tensor]]:
        stages = self.encoder.backbone(torch.cat([pairs.anchor, pairs.semi]))
        last = list(stages.values())[-1].mean(dim=2).float()
        inside = shrink(pairs.mask, pairs.mask.shape[-1] / 16).mean(dim=2)
        inside = F.adaptive_avg_pool2d(inside, (last.shape[2], last.shape[3])) + 1e-2
        weight = torch.cat([torch.ones_like(inside), inside])
        pooled = (last * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
        return [{"g": view} for view in self.encoder.heads["g"](pooled).chunk(2)]


class FrozenComposites(ContrastiveLearner):
    """What stands still as a negative is a frame of the composite, not of the anchor. The wide term alone."""

    def _views(self, pairs: Pairs) -> list[dict[str, Tensor]]:
        return super()._views(replace(pairs, anchor=pairs.semi, semi=pairs.anchor))


FAR_TO_NEAR: list[dict[str, object]] = [{"donor": "far"}, {"donor": "background"}, {"donor": "near"}]
OWN_TO_DONOR: list[dict[str, object]] = [
    {"rim": "own", "grow": 2.0},
    {"rim": "donor", "grow": 2.5},
    {"rim": "donor", "grow": 5.0},
    {"rim": "donor", "grow": 7.5},
]
IDEAS: dict[str, Made] = {
    "flattened": lambda pairs, learner, steps: Flattened(pairs, 0.9),
    "differenced": lambda pairs, learner, steps: Differenced(pairs, 0.5),
    "both composed": lambda pairs, learner, steps: BothComposed(pairs),
    "far to near": lambda pairs, learner, steps: Scheduled(pairs, steps, FAR_TO_NEAR),
    "rim shrinks": lambda pairs, learner, steps: Scheduled(pairs, steps, OWN_TO_DONOR),
    "rim adapted": lambda pairs, learner, steps: Adapted(pairs, learner),
}
LEARNERS = {"pooled inside": PooledInside, "frozen composites": FrozenComposites}
