"""DCLR's decomposition by input modes, a published alternative to differences of features.

Letters: B clips, C channels, T frames, h, w pixels, D embedding.

One encoder sees three modes of each clip: the clip v, one of its frames repeated s, and its differences of successive
frames d. The features of v are pooled into v_s and v_d where the features of s and of d are strong. With N the
symmetric InfoNCE in the batch, and two clips a and b of each video:

    N(v_a, v_b) + N(v_s a, s_b) + N(s_a, v_s b) + N(v_d a, d_b) + N(d_a, v_d b) + 0.1 ||A(v) - A(s) - A(d)||^2

with A the activation maps, relative to their mean. There are six encoded views per video, so at an equal budget of
encoded views the batch must be a third. The queues of the published form, and the positives it finds among their keys,
are left out.

Reference: S. Ding, R. Qian, H. Xiong, "Dual contrastive learning for spatio-temporal representation", ACM Multimedia
2022, arXiv 2207.05340.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bgaug.model.encoder import Encoder
from bgaug.model.losses import info_nce, total
from bgaug.model.parallel import gather, gather_pairs
from bgaug.pairs import Pairs, uniform

_W_ALIGN = 0.1


def _input_modes(clips: Tensor, key: Tensor, stream: str = "modes") -> tuple[Tensor, Tensor]:
    """Only the appearance of each clip, and only its motion.

    Args:
        clips: float in [0, 1], (B, 3, T, h, w).
        key: int64 (B,), draws the frame.
        stream: name of the draw.

    Returns:
        One frame of each clip, repeated; and the differences from the previous frame, for the first frame from the
        last.
    """
    return static_clips(clips, key, stream), clips - clips.roll(1, dims=2)


def static_clips(clips: Tensor, key: Tensor, stream: str) -> Tensor:
    """One frame of each clip, drawn from its key, repeated: the same shape, a view of one frame's memory.

    Args:
        clips: float (B, 3, T, h, w).
        key: int64 (B,).
        stream: name of the draw.
    """
    T = clips.shape[2]
    frame = (uniform(key, stream, 1).squeeze(1) * T).long().clamp(max=T - 1)
    return clips[torch.arange(len(clips), device=clips.device), :, frame].unsqueeze(2).expand_as(clips)


def modes_loss(encoder: Encoder, pairs: Pairs, temperature: float, groups: int = 1) -> dict[str, Tensor]:
    """The loss above, on the two plain views of each pair; `groups` parts of the batch have their own batch statistics.

    Returns:
        float32 scalars: "loss", with gradient, and the unweighted "global", "static", "dynamic" and "align", without.
    """
    key = pairs.provenance["key"]
    views = [pairs.anchor, pairs.semi]
    modes = [clip for number, view in enumerate(views) for clip in (view, *_input_modes(view, key, f"modes/{number}"))]
    codes, aligned = [], []
    for part in zip(*(torch.chunk(clips, groups) for clips in modes), strict=True):
        stages = encoder.backbone(torch.cat(part))
        parts = torch.chunk(list(stages.values())[-1].float(), 6)
        codes.append([_codes(encoder, *parts[:3]), _codes(encoder, *parts[3:])])
        aligned.append(torch.stack([_alignment(*parts[:3]), _alignment(*parts[3:])], dim=1))
    a, b = (
        {code: gather(torch.cat([group[view][code] for group in codes])) for code in codes[0][view]} for view in (0, 1)
    )
    whole = gather_pairs(pairs)

    def nce(left: str, right: str) -> Tensor:
        return info_nce(a[left], b[right], temperature, whole.video, whole.weight)

    align = gather(torch.cat(aligned)).mean()
    return total(
        {
            "global": (1.0, nce("vv", "vv")),
            "static": (1.0, nce("vs", "sv") + nce("sv", "vs")),
            "dynamic": (1.0, nce("vd", "dv") + nce("dv", "vd")),
            "align": (_W_ALIGN, align),
        }
    )


def _activation(features: Tensor) -> Tensor:
    """Sum over channels relative to its mean: float (B, C, T', H', W') -> (B, 1, T', H', W')."""
    maps = features.sum(dim=1, keepdim=True)
    return maps / maps.mean(dim=(2, 3, 4), keepdim=True).clamp(min=1e-6)


def _codes(encoder: Encoder, clip: Tensor, still: Tensor, residual: Tensor) -> dict[str, Tensor]:
    inputs = {
        "vv": clip,
        "vs": clip * _activation(still).detach(),
        "vd": clip * _activation(residual).detach(),
        "sv": still,
        "dv": residual,
    }
    return {code: encoder.heads[code](value.mean(dim=(2, 3, 4))) for code, value in inputs.items()}


def _alignment(clip: Tensor, still: Tensor, residual: Tensor) -> Tensor:
    target = (_activation(still) + _activation(residual)).detach() / 2
    return (_activation(clip) - target).square().mean(dim=(1, 2, 3, 4))
