"""Supervised classification, and the terms of ALBAR, which keep a classifier from reading labels off a static clip.

Letters: B clips, K classes, T frames, h, w pixels.

The clip x that is classified is the second view of a pair: plain, or composed by a policy, with the label y of its own
foreground. The static clip s is one frame of x, repeated T times. With the logits f, p = softmax f:

    w CE(f(x), y) - w_adversarial CE(f(s), y) - w_entropy H(p(s)) + w_penalty G(s)

The adversarial term is lower where the static clip is classified wrongly. It has no lower bound; the entropy H keeps
the prediction uniform instead of wrong. G is the gradient of the sum of a static clip's logits with respect to its
pixels: its norm over colours, frames and rows, averaged over columns.

Reference: J. Fioresi, I. R. Dave, M. Shah, "ALBAR: adversarial learning approach to mitigate biases in action
recognition", ICLR 2025, arXiv 2502.00156, and the authors' public code, whose weights for HMDB51 are 1, 4.25 and 10 and
whose penalty is the one above. Differences:

- Clips and static clips pass the encoder as one batch, so that batch norm normalises both with the same statistics. The
  published network (Swin-T) has none, and there both ways are equal.
- The frame is drawn at random. The code has both; its configuration for HMDB51 takes the middle one.
- With composites the static clip is a frame of the composite. The code takes the frame that StillMix mixes in, with the
  label of the clip that it is mixed into.
- Clips are in [0, 1]. Published clips are divided by a standard deviation of about .226, so that the gradient is
  multiplied by it here.

Fault of the published penalty: the same number added to all logits changes their sum and no prediction, so a classifier
can lower the penalty without any effect on what it reads from a static clip.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bgaug.model.learner import ContrastiveLearner
from bgaug.model.losses import total, weighted_mean
from bgaug.model.modes import static_clips
from bgaug.model.parallel import gather
from bgaug.pairs import Pairs

_PIXEL_STD = 0.226  # mean of the published .229, .224 and .225
_FP16_SCALE = 256.0  # keeps small gradients in the range of float16; a power of two changes no digit
_LEAST_SQUARE = 1e-12  # added to a square, so that its root has a gradient at 0


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of -log p(label), float32 scalar; log K for equal logits.

    Args:
        logits: float (B, K).
        label: int64 (B,), -1 for no label: such a clip has weight 0.
        weight: float (B,), at least 0.
    """
    losses = F.cross_entropy(logits.float(), label.clamp(min=0), reduction="none")
    return weighted_mean(losses, weight * (label >= 0))


def prediction_entropy(logits: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the entropy of softmax(logits), float32 scalar in nats: from 0 to log K.

    Args:
        logits: float (B, K).
        weight: float (B,), at least 0.
    """
    log_share = F.log_softmax(logits.float(), dim=1)
    return weighted_mean(-(log_share.exp() * log_share).sum(dim=1), weight)


def gradient_penalty(logits: Tensor, clips: Tensor) -> Tensor:
    """G of each clip, float32 (B,), with a graph, so that weights can be trained to lower it.

    Args:
        logits: float (B, K), computed from `clips`.
        clips: float (B, 3, T, h, w) that requires a gradient.
    """
    # The backward pass has the types of the forward pass; autocast would change those of its products.
    with torch.autocast(clips.device.type, enabled=False):
        scale = torch.full_like(logits, _FP16_SCALE)
        (slope,) = torch.autograd.grad(logits, clips, scale, create_graph=True)
        slope = slope.float() * (_PIXEL_STD / _FP16_SCALE)
        return (slope.square().sum(dim=(1, 2, 3)) + _LEAST_SQUARE).sqrt().mean(dim=1)


def supervised_terms(learner: ContrastiveLearner, pairs: Pairs) -> dict[str, Tensor]:
    """The loss above on the second views of a batch; every process computes that of the whole batch.

    A clip for which no donor was left is plain and has weight 1, others the weight of their pair.

    Returns:
        float32 scalars: "loss", with gradient; without: the cross-entropy by the name of the code that is classified,
        "adversarial" (the static clips' cross-entropy), "entropy", "penalty", each unweighted and only if it has a
        weight; and "accuracy" of the clips in this batch, in percent.

    Raises:
        ValueError: pairs without labels.
    """
    m = learner.method
    if pairs.label is None:
        raise ValueError(f"the method {m.name!r} needs pairs with labels; the batch has no field label")
    code, static = m.codes[0], None
    if m.has_static_clips:
        static = static_clips(pairs.semi, pairs.provenance["key"], "model/static").requires_grad_(m.w_penalty > 0)
    # The fast kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH) if m.w_penalty else nullcontext():
        logits = [found[code] for found in learner.embed(pairs.semi, *([] if static is None else [static]))]
    places = torch.arange(len(pairs.donor), device=pairs.donor.device)
    weight = gather(torch.where(pairs.donor == places, torch.ones_like(pairs.weight), pairs.weight))
    label, whole = gather(pairs.label), [gather(values) for values in logits]
    terms = {code: (m.weights[code], cross_entropy(whole[0], label, weight))}
    if m.w_adversarial:
        terms["adversarial"] = -m.w_adversarial, cross_entropy(whole[1], label, weight)
    if m.w_entropy:
        terms["entropy"] = -m.w_entropy, prediction_entropy(whole[1], weight)
    if static is not None and m.w_penalty:
        terms["penalty"] = m.w_penalty, weighted_mean(gather(gradient_penalty(logits[1], static)), weight)
    right = (whole[0].argmax(dim=1) == label).float()
    return total(terms) | {"accuracy": 100 * weighted_mean(right, (label >= 0).float())}
