"""Backbone, decomposition and heads, trained by one of the methods; in the batch or with a momentum encoder and queues.

Letters: B clips, C channels, T frames, h, w pixels, D embedding, K queue.

References: as in `bgaug.losses`; the two streams and the scale of the static stream's gradient are ours.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bgaug.augment import random_bits
from bgaug.backbone import Backbone, build_backbone, count_parameters
from bgaug.compose import Pairs
from bgaug.losses import DualLoss, queue_nce, static_partners, total
from bgaug.motion import Codes, MotionAwareDecomposition

logger = logging.getLogger(__name__)

IN_BATCH_VIDEOS = 2000
SHORT_RUN_STEPS = 10_000
TERMS = {"g": "global", "d": "motion", "r": "static"}


@dataclass(frozen=True)
class Method:
    """What is compared with what, and at what weight.

    Attributes:
        name: of the preset it came from.
        composite: whether the second view goes over another video's background.
        momentum: whether keys come from a momentum encoder and negatives from a queue, else all from the batch.
        w_global: weight of the wide term, on the global code.
        w_motion: weight of the micro term, on the dynamic code.
        w_static: weight of the static term, on the static code; above 0 it builds a second last stage.
        gamma: share of the static stream's gradient that reaches the trunk, in [0, 1].
        temperature: divides the cosine similarities.
        symmetric: momentum form: also ask with anchors for composites. Doubles the cost of a step.
        queue: momentum form: keys held, K.
        momentum_coefficient: momentum form: share of the key encoder's weights kept at each step, in [0, 1].
        bn_groups: momentum form: parts of the batch that are normalised apart, keys in another order than queries, so
            that batch statistics do not give a pair away.
    """

    name: str
    composite: bool = True
    momentum: bool = False
    w_global: float = 1.0
    w_motion: float = 0.0
    w_static: float = 0.0
    gamma: float = 0.1
    temperature: float = 0.1
    symmetric: bool = False
    queue: int = 16384
    momentum_coefficient: float = 0.999
    bn_groups: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1 or not 0 <= self.momentum_coefficient <= 1:
            raise ValueError(f"gamma and momentum_coefficient lie in [0, 1], got {self}")
        if self.w_static and not self.composite:
            raise ValueError(f"the static term needs donors, so composites: {self.name!r} has none")
        if self.symmetric and not self.momentum:
            raise ValueError("the form in the batch is symmetric as it is; symmetric=True needs momentum=True")
        if self.queue < 1 or self.bn_groups < 1:
            raise ValueError(f"queue and bn_groups must be at least 1, got {self.queue = }, {self.bn_groups = }")

    @classmethod
    def resolve(
        cls,
        name: str,
        num_videos: int | None = None,
        batch_size: int | None = None,
        num_steps: int | None = None,
        momentum: bool | None = None,
        **options: float | bool,
    ) -> Method:
        """A preset, fitted to the data.

        Args:
            name: a key of `METHODS`.
            num_videos: training videos; above 2,000 the momentum form is taken for the methods with composites. A
                queue shrinks to at most half of them.
            batch_size: clips a step; a queue becomes a multiple of it.
            num_steps: steps of the whole run; under 10,000 the key encoder follows faster, at 0.99.
            momentum: True or False to choose the form instead.
            options: other fields of `Method` to replace.

        Raises:
            ValueError: no such preset, no such form of it, or a queue that does not hold one batch.
            TypeError: no such option.
        """
        if name not in METHODS:
            raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
        preset = METHODS[name]
        if not preset.composite and momentum not in (None, preset.momentum):
            other = "moco" if momentum else "simclr"
            raise ValueError(f"{name!r} has one form; with {momentum = } take {other!r}")
        if momentum is None:
            large = num_videos is not None and num_videos > IN_BATCH_VIDEOS
            momentum = preset.momentum or (preset.composite and large)
        fitted: dict[str, float | bool] = {"momentum": momentum}
        if num_steps is not None and num_steps < SHORT_RUN_STEPS:
            fitted["momentum_coefficient"] = 0.99
        method = replace(preset, **(fitted | options))  # type: ignore[arg-type]
        if not momentum:
            return method
        return replace(method, queue=queue_length(method.queue, batch_size or 1, num_videos))


METHODS = {
    "bgaug": Method("bgaug", w_motion=0.5, w_static=0.5),
    "semi": Method("semi"),
    "dual": Method("dual", w_motion=0.5, w_static=0.5),
    "simclr": Method("simclr", composite=False),
    "moco": Method("moco", composite=False, momentum=True),
}


def queue_length(wanted: int, batch_size: int, num_videos: int | None = None) -> int:
    """The largest multiple of the batch not above `wanted`, nor above half of the videos.

    Raises:
        ValueError: not even one batch fits.
    """
    limit = wanted if num_videos is None else min(wanted, num_videos // 2)
    length = limit // batch_size * batch_size
    if length < 1:
        raise ValueError(
            f"a queue of at most {limit} keys does not hold one batch of {batch_size}; "
            "take a smaller batch, more videos or the form in the batch (momentum=False)"
        )
    return length


class Encoder(nn.Module):
    """Trunk, static last stage, decomposition and one head a term: from clips to embeddings.

    Args:
        backbone: the trunk.
        method: says which terms there are.
        embedding_dim: D; what suits the backbone if None.
        decomposition: where the saliency is read; the default if None.
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
        self.static_stage = backbone.last_stage() if method.w_static else None
        if self.static_stage is not None:
            extra = count_parameters(self.static_stage)
            share = extra / count_parameters(backbone)
            logger.info("the static stream adds %d parameters, %.0f %% of the backbone", extra, 100 * share)
        self.decomposition = MotionAwareDecomposition() if decomposition is None else decomposition
        hidden, out, batch_norm = backbone.head
        self.embedding_dim = embedding_dim or out
        dim = list(backbone.dims.values())[-1]
        weights = {"g": method.w_global, "d": method.w_motion, "r": method.w_static}
        codes = [code for code, weight in weights.items() if weight]
        self.heads = nn.ModuleDict({c: projection_head(dim, hidden, self.embedding_dim, batch_norm) for c in codes})

    def codes(self, clips: Tensor) -> Codes:
        """Codes of float clips in [0, 1], (B, 3, T, h, w); see `bgaug.motion`."""
        stages: dict[str, Tensor] = self.backbone(clips)
        if self.static_stage is None:
            codes: Codes = self.decomposition(stages)
            return codes
        before = list(stages.values())[-2]
        # Same values, a share gamma of the gradient: more of it, and the trunk learns the scene again.
        codes = self.decomposition(stages, self.static_stage(torch.lerp(before.detach(), before, self.gamma)))
        return codes

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embeddings (B, D), not normalised, by code: "g", "d" and "r", those that have a term."""
        codes = self.codes(clips)
        inputs = {"g": codes.global_code, "d": codes.dynamic, "r": codes.static}
        return {code: head(inputs[code]) for code, head in self.heads.items()}


class ContrastiveLearner(nn.Module):
    """Everything that is trained, and its loss: pairs in, terms out.

    In the batch, anchors and semi-negatives go through the encoder as one batch of 2B. In the momentum form queries
    are semi-negatives, keys the anchors under a moving average of the encoder, and queues hold plain keys alone. Keys,
    queues and their place are buffers, so a state dict resumes a run exactly.

    Args:
        backbone: a name for `build_backbone`, or an encoder of one's own.
        method: a key of `METHODS`, or a `Method`.
        embedding_dim: D; what suits the backbone if None (64 for `tiny`, 128 else).
        decomposition: where the saliency is read; the default if None.
    """

    key_encoder: Encoder | None
    queue_video: Tensor
    queue_next: Tensor

    def __init__(
        self,
        backbone: str | Backbone,
        method: str | Method = "bgaug",
        embedding_dim: int | None = None,
        decomposition: MotionAwareDecomposition | None = None,
    ) -> None:
        super().__init__()
        self.method = Method.resolve(method) if isinstance(method, str) else method
        trunk = build_backbone(backbone) if isinstance(backbone, str) else backbone
        self.encoder = Encoder(trunk, self.method, embedding_dim, decomposition)
        m = self.method
        self.weights = {"g": m.w_global, "d": m.w_motion, "r": m.w_static}
        self.loss = DualLoss(m.w_global, m.w_motion, m.w_static, m.temperature)
        self.key_encoder = None
        if m.momentum:
            self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
            for code in self.encoder.heads:
                self.register_buffer(f"queue_{code}", torch.zeros(m.queue, self.encoder.embedding_dim))
            self.register_buffer("queue_video", torch.full((m.queue,), -1, dtype=torch.int64))
            self.register_buffer("queue_next", torch.zeros((), dtype=torch.int64))

    def forward(self, pairs: Pairs) -> dict[str, Tensor]:
        """The loss of one batch.

        In training, the momentum form also moves the key encoder towards the encoder and puts the keys in the queues.

        Returns:
            float32 scalars: "loss", with gradient, and the unweighted terms "global", "motion", "static", without.
        """
        if self.method.momentum:
            return self._momentum_loss(pairs)
        both = self.encoder(torch.cat([pairs.anchor, pairs.semi]))
        anchor, semi = ({code: half[part] for code, half in _halves(both).items()} for part in (0, 1))
        terms: dict[str, Tensor] = self.loss(anchor, semi, pairs.donor, pairs.video, pairs.weight)
        return terms

    def encode(self, clips: Tensor) -> Codes:
        """Codes of float clips in [0, 1], (B, 3, T, h, w), before the heads."""
        return self.encoder.codes(clips)

    def features(self, clips: Tensor, which: str = "g") -> Tensor:
        """Downstream features of clips, float32.

        Args:
            clips: float in [0, 1], (B, 3, T, h, w).
            which: "g", "d" or "r" for one code (B, C), "dr" for the last two side by side (B, 2C).

        Raises:
            ValueError: no such feature.
        """
        if which not in ("g", "d", "r", "dr"):
            raise ValueError(f"features are g, d, r or dr, got {which!r}")
        codes = self.encode(clips)
        parts = {"g": codes.global_code, "d": codes.dynamic, "r": codes.static}
        return torch.cat([parts[code] for code in which], dim=1)

    @property
    def queue_full(self) -> bool:
        """Whether every place of the queues holds a key; always, without queues. Waits for the device."""
        return not self.method.momentum or bool((self.queue_video >= 0).all())

    @torch.no_grad()
    def fill_queue(self, pairs: Pairs) -> None:
        """Put the keys of one batch in the queues without a step; call until `queue_full` before the first step.

        Raises:
            ValueError: the method has no queue.
        """
        if self.key_encoder is None:
            raise ValueError(f"{self.method.name!r} compares within the batch and has no queue to fill")
        self._enqueue(self._keys(self.key_encoder, pairs.anchor, pairs), pairs.video)

    def _momentum_loss(self, pairs: Pairs) -> dict[str, Tensor]:
        assert self.key_encoder is not None
        if self.training:
            self._follow(self.key_encoder)
        keys = self._keys(self.key_encoder, pairs.anchor, pairs)
        queries = self._in_groups(self.encoder, pairs.semi)
        place, counts = static_partners(pairs.donor, pairs.weight)
        losses = self._against(queries, keys, place, counts, place, pairs)
        if self.method.symmetric:
            taker, taken = _inverse(place, counts)
            queries = self._in_groups(self.encoder, pairs.anchor)
            composites = self._keys(self.key_encoder, pairs.semi, pairs)
            own = torch.arange(len(taker), device=taker.device)
            reverse = self._against(queries, composites, taker, taken, own, pairs)
            losses = {code: (loss + reverse[code]) / 2 for code, loss in losses.items()}
        if self.training:
            self._enqueue(keys, pairs.video)
        return total({TERMS[code]: (self.weights[code], loss) for code, loss in losses.items()})

    def _against(
        self,
        queries: dict[str, Tensor],
        keys: dict[str, Tensor],
        partner: Tensor,
        counts: Tensor,
        background: Tensor,
        pairs: Pairs,
    ) -> dict[str, Tensor]:
        """One loss a code. `partner`: whose key shares the query's background; `background`: whose that is."""
        losses = {}
        for code, query in queries.items():
            own, other = keys[code], keys[code][partner]
            static = code == "r"
            losses[code] = queue_nce(
                query,
                other if static else own,
                own if static else other,
                getattr(self, f"queue_{code}"),
                self.method.temperature,
                video=pairs.video[background] if static else pairs.video,
                queue_video=self.queue_video,
                hard_valid=counts > 0,
                weight=counts if static else pairs.weight,
            )
        return losses

    @torch.no_grad()
    def _keys(self, encoder: Encoder, clips: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        """Keys in the batch's order, computed in a random one, drawn from the batch's keys of randomness."""
        order = torch.argsort(random_bits(pairs.provenance["key"], "model/shuffle"), stable=True)
        shuffled = self._in_groups(encoder, clips[order])
        back = torch.argsort(order)
        return {code: nn.functional.normalize(key.float(), dim=1)[back] for code, key in shuffled.items()}

    def _in_groups(self, encoder: Encoder, clips: Tensor) -> dict[str, Tensor]:
        """Embeddings of the parts of a batch, each normalised by its own batch statistics."""
        groups = max(1, min(self.method.bn_groups, len(clips) // 2)) if self.training else 1
        parts = [encoder(part) for part in torch.chunk(clips, groups)]
        return {code: torch.cat([part[code] for part in parts]) for code in parts[0]}

    @torch.no_grad()
    def _follow(self, key_encoder: Encoder) -> None:
        step = 1 - self.method.momentum_coefficient
        for theirs, ours in zip(key_encoder.parameters(), self.encoder.parameters(), strict=True):
            theirs.lerp_(ours, step)

    @torch.no_grad()
    def _enqueue(self, keys: dict[str, Tensor], video: Tensor) -> None:
        size = len(self.queue_video)
        if len(video) > size:
            raise ValueError(f"a batch of {len(video)} does not fit a queue of {size}")
        places = (self.queue_next + torch.arange(len(video), device=video.device)) % size
        for code, key in keys.items():
            getattr(self, f"queue_{code}").index_copy_(0, places, key)
        self.queue_video.index_copy_(0, places, video)
        self.queue_next.copy_((self.queue_next + len(video)) % size)


def projection_head(inputs: int, hidden: int, outputs: int, batch_norm: bool) -> nn.Module:
    """Linear, batch norm if asked for, ReLU, linear: (B, inputs) -> (B, outputs)."""
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norm, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


def _halves(embeddings: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    return {code: torch.chunk(both, 2) for code, both in embeddings.items()}


def _inverse(donor: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Who took each clip's background (the clip itself if nobody), and what that pair counts; places (B,)."""
    own = torch.arange(len(donor), device=donor.device)
    # Those without a donor write to a place of their own at the end, which is dropped.
    target = torch.where(counts > 0, donor, torch.full_like(donor, len(donor)))
    taker = torch.cat([own, own[:1]]).scatter(0, target, own)[:-1]
    return taker, torch.where(taker != own, counts[taker], torch.zeros_like(counts))
