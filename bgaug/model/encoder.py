"""Trunk, static last stage, decomposition and heads: codes and embeddings of clips.

Letters: B clips, C channels, T frames, h, w pixels, D embedding.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from bgaug.model.backbones import Backbone, count_parameters
from bgaug.model.decomposition import Codes, MotionAwareDecomposition
from bgaug.model.method import Method

_logger = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Trunk, static last stage, decomposition and one head per term: embeddings of clips.

    Args:
        backbone: the trunk.
        method: defines the terms and the decomposition.
        embedding_dim: D; the default of the backbone if None.
        decomposition: replaces the decomposition of method and backbone.
        classes: number of classes; a supervised method needs it, because its head is a classifier.

    Raises:
        ValueError: a supervised method without classes.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        embedding_dim: int | None = None,
        decomposition: MotionAwareDecomposition | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.gamma = method.gamma
        self.backbone = backbone
        self.static_stage = backbone.last_stage() if method.w_static and method.two_streams else None
        if self.static_stage is not None:
            extra = count_parameters(self.static_stage)
            share = extra / count_parameters(backbone)
            _logger.info("the static stream adds %d parameters, %.0f %% of the backbone", extra, 100 * share)
        self.decomposition = decomposition or decomposition_for(backbone, method)
        hidden, out, batch_norm = backbone.head
        batch_norm = batch_norm or method.objective == "byol"  # BYOL collapses without it
        self.embedding_dim = embedding_dim or out
        dim = list(backbone.dims.values())[-1]
        self.heads = nn.ModuleDict()
        for code in method.codes:
            if method.supervised:
                self.heads[code] = _classifier(dim, classes, method)
            else:
                self.heads[code] = projection_head(dim, hidden, self.embedding_dim, batch_norm)

    def codes(self, clips: Tensor) -> Codes:
        """Codes of float clips in [0, 1], (B, 3, T, h, w); see `bgaug.model.decomposition`."""
        return codes_of(self.backbone(clips), self.decomposition, self.static_stage, self.gamma)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embeddings (B, D), not normalised, of the codes that have a term, by code; of a supervised method logits."""
        inputs = self.codes(clips).by_name
        return {code: head(inputs[code]) for code, head in self.heads.items()}


def decomposition_for(backbone: Backbone, method: Method) -> MotionAwareDecomposition:
    """The decomposition of a method, with the defaults of the backbone."""
    return MotionAwareDecomposition(
        method.stages or getattr(backbone, "saliency_stages", None),
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
        decomposition: makes the codes.
        static_stage: last stage of the static code; None uses the last of `stages`.
        gamma: share of the static code's gradient that reaches the earlier stages.
    """
    if static_stage is None:
        codes: Codes = decomposition(stages)
        return codes
    before = list(stages.values())[-2]
    # The values stay, and a share gamma of the gradient passes: with more of it the trunk learns the scene again.
    codes = decomposition(stages, static_stage(torch.lerp(before.detach(), before, gamma)))
    return codes


def _classifier(inputs: int, classes: int | None, method: Method) -> nn.Module:
    """Dropout and a linear layer: (B, inputs) -> logits (B, classes)."""
    if classes is None or classes < 2:
        raise ValueError(f"the method {method.name!r} needs two classes or more, got {classes = }")
    return nn.Sequential(nn.Dropout(method.dropout), nn.Linear(inputs, classes))


def projection_head(inputs: int, hidden: int, outputs: int, batch_norm: bool) -> nn.Module:
    """Linear, optional batch norm, ReLU, linear: (B, inputs) -> (B, outputs)."""
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norm, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))
