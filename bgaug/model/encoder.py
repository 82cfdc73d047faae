"""Trunk, static last stage, decomposition and heads: from clips to codes and embeddings.

Letters: B clips, C channels, T frames, h, w pixels, D embedding.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from bgaug.model.backbones import Backbone, count_parameters
from bgaug.model.decomposition import Codes, MotionAwareDecomposition
from bgaug.model.method import Method

logger = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Trunk, static last stage, decomposition and one head a term: from clips to embeddings.

    Args:
        backbone: the trunk.
        method: says which terms there are and how the saliency is made.
        embedding_dim: D; what suits the backbone if None.
        decomposition: in place of what method and backbone say.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        embedding_dim: int | None = None,
        decomposition: MotionAwareDecomposition | None = None,
    ) -> None:
        super().__init__()
        self.gamma = method.gamma
        self.backbone = backbone
        self.static_stage = backbone.last_stage() if method.w_static and method.two_streams else None
        if self.static_stage is not None:
            extra = count_parameters(self.static_stage)
            share = extra / count_parameters(backbone)
            logger.info("the static stream adds %d parameters, %.0f %% of the backbone", extra, 100 * share)
        self.decomposition = decomposition or decomposition_for(backbone, method)
        hidden, out, batch_norm = backbone.head
        batch_norm = batch_norm or method.objective == "byol"  # without, BYOL collapses
        self.embedding_dim = embedding_dim or out
        dim = list(backbone.dims.values())[-1]
        self.heads = nn.ModuleDict(
            {code: projection_head(dim, hidden, self.embedding_dim, batch_norm) for code in method.codes}
        )

    def codes(self, clips: Tensor) -> Codes:
        """Codes of float clips in [0, 1], (B, 3, T, h, w); see `bgaug.model.decomposition`."""
        return codes_of(self.backbone(clips), self.decomposition, self.static_stage, self.gamma)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embeddings (B, D), not normalised, by code, of the codes that have a term."""
        codes = self.codes(clips)
        inputs = codes.by_name
        return {code: head(inputs[code]) for code, head in self.heads.items()}


def decomposition_for(backbone: Backbone, method: Method) -> MotionAwareDecomposition:
    """The decomposition that a method asks for, where the backbone allows it."""
    return MotionAwareDecomposition(
        method.stages or getattr(backbone, "saliency_stages", None),
        stretch=method.stretch,
        per_channel=method.per_channel,
        normalise=method.normalise,
        compensate=method.compensate,
        reach=getattr(backbone, "temporal_reach", None),
        pool=method.pool,
    )


def codes_of(
    stages: dict[str, Tensor],
    decomposition: MotionAwareDecomposition,
    static_stage: nn.Module | None = None,
    gamma: float = 1.0,
) -> Codes:
    """Codes of a clip's feature maps.

    Args:
        stages: feature maps (B, C, T', H', W') by stage, in order.
        decomposition: what makes codes of them.
        static_stage: last stage of the static code; the last of `stages` serves for it if None.
        gamma: share of the static code's gradient that reaches the stages before.
    """
    if static_stage is None:
        codes: Codes = decomposition(stages)
        return codes
    before = list(stages.values())[-2]
    # Same values, a share gamma of the gradient: more of it, and the trunk learns the scene again.
    codes = decomposition(stages, static_stage(torch.lerp(before.detach(), before, gamma)))
    return codes


def projection_head(inputs: int, hidden: int, outputs: int, batch_norm: bool) -> nn.Module:
    """Linear, batch norm if asked for, ReLU, linear: (B, inputs) -> (B, outputs)."""
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norm, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))
