"""Contrastive losses: InfoNCE in the batch and against a queue, the semi-negative loss, the dual loss.

Letters: B pairs, D embedding, K queue.

Embeddings need not be normalised: every function divides by the L2 norm itself, and computes in float32 (float64 if
given that) also under autocast.

References: A. van den Oord, Y. Li, O. Vinyals, "Representation learning with contrastive predictive coding", 2018,
arXiv 1807.03748 (InfoNCE); T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning
of visual representations", 2020, arXiv 2002.05709 (the symmetric form in the batch); K. He, H. Fan, Y. Wu, S. Xie,
R. Girshick, "Momentum contrast for unsupervised visual representation learning", 2019, arXiv 1911.05722 (the queue).
The dual loss is "based on joint wide and micro background bias to better capture both static and dynamic features"
("Solution of wide and micro background bias in contrastive action representation learning", Engineering Applications
of Artificial Intelligence, 2024, abstract); its formula is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def info_nce(
    a: Tensor, b: Tensor, temperature: float = 0.1, video: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE in the batch: each embedding is compared with all others of both sides.

    If all similarities are equal, it is log(2B - 1). Each of the 2B embeddings has one positive and 2B - 2 negatives;
    those of its own video are masked.

    Args:
        a: float (B, D).
        b: float (B, D), `b[i]` is the positive of `a[i]`.
        temperature: divides the cosine similarities; above 0.
        video: int64 (B,), video of both sides of a pair; all different if None.
        weight: float (B,), at least 0, weight of each pair, which stays a negative of the others. All one if None.

    Returns:
        float scalar, the weighted mean; 0 if all weights are.

    Raises:
        ValueError: a and b are not both (B, D), or the temperature is not positive.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"a and b must both be (B, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    _check_temperature(temperature)
    B = a.shape[0]
    rows = torch.arange(B, device=a.device)
    owner = (rows if video is None else video).repeat(2)
    partner = torch.cat([rows + B, rows])
    masked = (owner.unsqueeze(0) == owner.unsqueeze(1)).scatter(1, partner.unsqueeze(1), False)
    with torch.autocast(a.device.type, enabled=False):
        z = torch.cat([_unit(a), _unit(b)])
        logits = (z @ z.T / temperature).masked_fill(masked, -torch.inf)
        losses = F.cross_entropy(logits, partner, reduction="none")
    return weighted_mean(losses.view(2, B).mean(dim=0), weight)


def queue_nce(
    query: Tensor,
    key: Tensor,
    hard: Tensor | None,
    queue: Tensor,
    temperature: float = 0.1,
    *,
    video: Tensor | None = None,
    queue_video: Tensor | None = None,
    hard_valid: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """InfoNCE of the momentum form: each query is compared with its key, its own hard negative, and a queue.

    If all similarities are equal, it is log(K + 2), or log(K + 1) without hard negatives. Pass keys detached, because
    gradient flows to all arguments that require it.

    Args:
        query: float (B, D).
        key: float (B, D), the positives.
        hard: float (B, D), one explicit negative per query; none if None.
        queue: float (K, D), negatives for all.
        temperature: divides the cosine similarities; above 0.
        video: int64 (B,), video of each query; keys of the same video in the queue are masked.
        queue_video: int64 (K,), videos of the queue; negative values mark empty places, which are masked.
        hard_valid: bool (B,), where `hard` is used; everywhere if None.
        weight: float (B,), weight of each query; all one if None.

    Returns:
        float scalar, the weighted mean; 0 if all weights are.

    Raises:
        ValueError: shapes do not fit, or the temperature is not positive.
    """
    B, D = query.shape
    if key.shape != (B, D) or (hard is not None and hard.shape != (B, D)) or queue.shape[1:] != (D,):
        shapes = [tuple(x.shape) for x in (query, key, hard, queue) if x is not None]
        raise ValueError(f"query, key, hard must be (B, D) and queue (K, D), got {shapes}")
    _check_temperature(temperature)
    with torch.autocast(query.device.type, enabled=False):
        query = _unit(query)
        # Normalised again, into a copy: the backward pass needs the values from before new keys are put in the queue.
        negatives = query @ _unit(queue).T
        if queue_video is not None:
            masked = (queue_video < 0).unsqueeze(0)
            if video is not None:
                masked = masked | (queue_video.unsqueeze(0) == video.unsqueeze(1))
            negatives = negatives.masked_fill(masked, -torch.inf)
        columns = [(query * _unit(key)).sum(dim=1, keepdim=True), negatives]
        if hard is not None:
            similarity = (query * _unit(hard)).sum(dim=1, keepdim=True)
            if hard_valid is not None:
                similarity = similarity.masked_fill(~hard_valid.unsqueeze(1), -torch.inf)
            columns.append(similarity)
        logits = torch.cat(columns, dim=1) / temperature
        target = torch.zeros(B, dtype=torch.int64, device=query.device)
        losses = F.cross_entropy(logits, target, reduction="none")
    return weighted_mean(losses, weight)


def prediction_loss(predicted: Tensor, key: Tensor, weight: Tensor | None = None) -> Tensor:
    """BYOL: 2 - 2 cosine similarity of prediction and key; 0 if they agree, 4 if they are opposite.

    Args:
        predicted: float (B, D).
        key: float (B, D); pass it detached.
        weight: float (B,), weight of each pair; all one if None.

    Returns:
        float scalar, the weighted mean; 0 if all weights are.

    Raises:
        ValueError: the two are not both (B, D).

    Reference: J.-B. Grill et al., "Bootstrap your own latent", 2020, arXiv 2006.07733, equation 2.
    """
    if predicted.ndim != 2 or predicted.shape != key.shape:
        raise ValueError(f"predicted and key must be (B, D), got {tuple(predicted.shape)} and {tuple(key.shape)}")
    with torch.autocast(predicted.device.type, enabled=False):
        losses = 2 - 2 * (_unit(predicted) * _unit(key)).sum(dim=1)
    return weighted_mean(losses, weight)


class SemiNegativeLoss(nn.Module):
    """Only the term against wide bias: the same motion over another background is the positive.

    The donor's own anchor (same background, other motion) is a hard negative.

    Args:
        temperature: divides the cosine similarities; above 0.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self, anchor: Tensor, semi: Tensor, video: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """`info_nce` of the embeddings (B, D) of anchors and semi-negatives; video, weight: see there."""
        return info_nce(anchor, semi, self.temperature, video, weight)


class DualLoss(nn.Module):
    """The joint loss against wide and micro bias, on embeddings of the three codes.

    With N the symmetric InfoNCE in the batch, p anchors, s semi-negatives, pi the donors:

        w_global N(global(p_i), global(s_i))           wide: the same motion over another background is a positive
        + w_dynamic N(dynamic(p_i), dynamic(s_i))      micro: the same for the code pooled where features move
        + w_static N(static(s_i), static(p_pi(i)))     the donor is the positive; its own anchor is a negative

    Terms of weight 0 are not computed and need no embeddings. The static term compares backgrounds: pairs that borrowed
    from one video are not negatives of each other, and pairs without a donor in the batch have weight 0.

    Args:
        w_global: weight of the term on the global code.
        w_dynamic: weight of the term on the dynamic code.
        w_static: weight of the term on the static code.
        temperature: divides the cosine similarities; above 0.
    """

    def __init__(
        self, w_global: float = 1.0, w_dynamic: float = 0.5, w_static: float = 0.5, temperature: float = 0.1
    ) -> None:
        super().__init__()
        weights = {"w_global": w_global, "w_dynamic": w_dynamic, "w_static": w_static}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights must be at least 0, and one above 0, got {weights}")
        _check_temperature(temperature)
        self.w_global = w_global
        self.w_dynamic = w_dynamic
        self.w_static = w_static
        self.temperature = temperature

    def forward(
        self,
        anchor: Mapping[str, Tensor],
        semi: Mapping[str, Tensor],
        donor: Tensor,
        video: Tensor,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            anchor: embeddings (B, D) of the anchors, by the codes whose term has a weight.
            semi: embeddings (B, D) of the semi-negatives.
            donor: int64 (B,), place of each clip's donor in the batch, -1 for a donor from elsewhere.
            video: int64 (B,), index of each clip's video.
            weight: float (B,), weight of each pair; all one if None.

        Returns:
            float scalars: "loss", the weighted sum, and the unweighted terms by code.
        """
        terms: dict[str, tuple[float, Tensor]] = {}
        for code, w in (("global", self.w_global), ("dynamic", self.w_dynamic)):
            if w:
                terms[code] = w, info_nce(anchor[code], semi[code], self.temperature, video, weight)
        if self.w_static:
            place, counts = static_partners(donor, weight)
            static = info_nce(semi["static"], anchor["static"][place], self.temperature, video[place], counts)
            terms["static"] = self.w_static, static
        return total(terms)


def static_partners(donor: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The clip whose background each clip shows, and the weight of that pair.

    Args:
        donor: int64 (B,), a place in the batch or -1.
        weight: float (B,), or None for all one.

    Returns:
        int64 (B,), the donor's place, or the clip's own without a donor; and float (B,), its weight, 0 without a donor.
    """
    places = torch.arange(donor.shape[0], device=donor.device)
    inside = (donor >= 0) & (donor != places)
    counts = inside.to(torch.float32) if weight is None else weight * inside
    return torch.where(inside, donor, places), counts


def total(terms: Mapping[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
    """The weighted sum of the terms as "loss", and each term by its name."""
    loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return {"loss": loss} | {name: term.detach() for name, (_, term) in terms.items()}


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature = }")


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=1)


def weighted_mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of losses (B,) with weights (B,), all one if None; 0 if all weights are."""
    if weight is None:
        return losses.mean()
    return (losses * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
