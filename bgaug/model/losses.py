"""Contrastive losses: InfoNCE in the batch and against a queue, the semi-negative loss, the dual loss.

Letters: B pairs, D embedding, K queue.

Embeddings need not be normalised: every function divides by the L2 norm itself, and computes in float32 (float64 if
given that) whatever autocast says.

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
    """Symmetric InfoNCE in the batch: each embedding finds its partner among all others of both sides.

    With all similarities equal it is log(2B - 1). Each of the 2B embeddings has one positive and 2B - 2 negatives,
    less those of its own video, which are masked.

    Args:
        a: float (B, D).
        b: float (B, D), `b[i]` is the positive of `a[i]`.
        temperature: divides the cosine similarities; above 0.
        video: int64 (B,), what both sides of a pair show; all different if None.
        weight: float (B,), at least 0, what each pair counts; it stays a negative of the others. All one if None.

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
    return _weighted_mean(losses.view(2, B).mean(dim=0), weight)


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
    """InfoNCE of the momentum form: each query against its key, one hard negative of its own, and a queue.

    With all similarities equal it is log(K + 2), or log(K + 1) without hard negatives. Gradient flows to whatever
    requires it, so pass keys detached.

    Args:
        query: float (B, D).
        key: float (B, D), the positives.
        hard: float (B, D), one explicit negative a query; none if None.
        queue: float (K, D), negatives for all.
        temperature: divides the cosine similarities; above 0.
        video: int64 (B,), what each query must not meet in the queue.
        queue_video: int64 (K,), the videos of the queue; negative where the queue holds nothing yet, which is masked.
        hard_valid: bool (B,), where `hard` counts; everywhere if None.
        weight: float (B,), what each query counts; all one if None.

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
        # Normalised again, into a copy: what the backward pass needs is safe from the keys put in the queue meanwhile.
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
    return _weighted_mean(losses, weight)


def prediction_loss(predicted: Tensor, key: Tensor, weight: Tensor | None = None) -> Tensor:
    """BYOL: 2 - 2 cosine similarity of what was predicted and the key; 0 where they agree, 4 where they are opposite.

    Args:
        predicted: float (B, D).
        key: float (B, D); pass it detached.
        weight: float (B,), what each pair counts; all one if None.

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
    return _weighted_mean(losses, weight)


class SemiNegativeLoss(nn.Module):
    """The wide term alone: the same motion over another background is the positive.

    The donor's own anchor (same background, other motion) is among the negatives, as a hard one.

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
        + w_motion N(dynamic(p_i), dynamic(s_i))       micro: the same on the code pooled where things move
        + w_static N(static(s_i), static(p_pi(i)))     static: the semi-negative finds its donor; its own anchor is a negative

    Terms of weight 0 are neither computed nor need embeddings. In the static term, what counts as the same is the
    background: pairs that borrowed from one video do not push each other away, and pairs without a donor in the batch
    count nothing.

    Args:
        w_global: weight of the wide term.
        w_motion: weight of the micro term.
        w_static: weight of the static term.
        temperature: divides the cosine similarities; above 0.
    """

    def __init__(
        self, w_global: float = 1.0, w_motion: float = 0.5, w_static: float = 0.5, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if min(w_global, w_motion, w_static) < 0 or w_global + w_motion + w_static == 0:
            raise ValueError(f"weights must be at least 0, one above, got {w_global = }, {w_motion = }, {w_static = }")
        _check_temperature(temperature)
        self.w_global = w_global
        self.w_motion = w_motion
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
            anchor: embeddings (B, D) of the anchors by code: "global", "dynamic", "static", those whose term has a weight.
            semi: likewise of the semi-negatives.
            donor: int64 (B,), place of each clip's donor in the batch, -1 for one from elsewhere.
            video: int64 (B,), index of each clip's video.
            weight: float (B,), what each pair counts; all one if None.

        Returns:
            float scalars: "loss", the weighted sum, and unweighted "global", "motion" and "static" where computed.
        """
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.w_global:
            terms["global"] = self.w_global, info_nce(anchor["global"], semi["global"], self.temperature, video, weight)
        if self.w_motion:
            terms["motion"] = (
                self.w_motion,
                info_nce(anchor["dynamic"], semi["dynamic"], self.temperature, video, weight),
            )
        if self.w_static:
            place, counts = static_partners(donor, weight)
            static = info_nce(semi["static"], anchor["static"][place], self.temperature, video[place], counts)
            terms["static"] = self.w_static, static
        return total(terms)


def static_partners(donor: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whose background each clip shows, and what that counts.

    Args:
        donor: int64 (B,), a place in the batch or -1.
        weight: float (B,), or None for all one.

    Returns:
        int64 (B,), the donor's place, the clip's own where it has none; and float (B,), 0 there, else its weight.
    """
    places = torch.arange(donor.shape[0], device=donor.device)
    inside = (donor >= 0) & (donor != places)
    counts = inside.to(torch.float32) if weight is None else weight * inside
    return torch.where(inside, donor, places), counts


def total(terms: Mapping[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
    """Weighted terms -> their sum under "loss", and each under its own name."""
    loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return {"loss": loss} | {name: term.detach() for name, (_, term) in terms.items()}


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature = }")


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=1)


def _weighted_mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return losses.mean()
    return (losses * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
