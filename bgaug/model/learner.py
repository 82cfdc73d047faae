"""An encoder trained by one of the methods; in the batch or with a momentum encoder and queues.

Letters: B clips, C channels, T frames, h, w pixels, D embedding, K queue.

References: as in `bgaug.model.losses`; the two streams and the scale of the static stream's gradient are ours.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bgaug.model.backbones import Backbone, build_backbone
from bgaug.model.decomposition import Codes, MotionAwareDecomposition
from bgaug.model.encoder import Encoder, projection_head
from bgaug.model.losses import DualLoss, prediction_loss, queue_nce, static_partners, total
from bgaug.model.method import Method
from bgaug.model.modes import modes_loss
from bgaug.model.parallel import gather, gather_pairs, num_processes, own_part
from bgaug.names import LOSSES
from bgaug.pairs import Pairs, random_bits


class ContrastiveLearner(nn.Module):
    """All trained modules and their loss: pairs in, terms out.

    In the batch, anchors and semi-negatives are encoded as one batch of 2B. In the momentum form queries are
    semi-negatives, keys are the anchors under a moving average of the encoder, and queues hold only plain keys. Key
    encoder, queues and their position are part of the state dict, so a run resumes exactly.

    In a process group, each process has its part of one batch: negatives, keys and queues are those of the whole batch,
    and the loss is the same on all; see `bgaug.model.parallel` for the gradient's scale.

    Args:
        backbone: a name for `build_backbone`, or an encoder of your own.
        method: a key of `METHODS`, or a `Method`.
        embedding_dim: D; None for the default of the backbone (64 for `tiny`, otherwise 128).
        decomposition: replaces the decomposition of method and backbone.
        classes: number of classes, for a supervised method; see `Encoder`.

    Attributes:
        follows: whether a training step moves the key encoder; False for all but one of the batches whose gradients are
            accumulated.
    """

    key_encoder: Encoder | None
    follows: bool
    queue_video: Tensor
    queue_next: Tensor

    def __init__(
        self,
        backbone: str | Backbone,
        method: str | Method = "bgaug",
        embedding_dim: int | None = None,
        decomposition: MotionAwareDecomposition | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.method = Method.resolve(method) if isinstance(method, str) else method
        trunk = build_backbone(backbone) if isinstance(backbone, str) else backbone
        self.encoder = Encoder(trunk, self.method, embedding_dim, decomposition, classes)
        m = self.method
        self.weights = m.weights
        self.loss = DualLoss(m.w_global, m.w_dynamic, m.w_static, m.temperature)
        self.key_encoder = None
        self.follows = True
        self.predictors = nn.ModuleDict()
        if m.momentum:
            self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        if m.objective == "byol":
            dim, hidden = self.encoder.embedding_dim, trunk.head[0]
            for code in self.encoder.heads:
                self.predictors[code] = projection_head(dim, hidden, dim, batch_norm=True)
        if m.has_queue:
            for code in self.encoder.heads:
                self.register_buffer(f"queue_{code}", torch.zeros(m.queue, self.encoder.embedding_dim))
            self.register_buffer("queue_video", torch.full((m.queue,), -1, dtype=torch.int64))
            self.register_buffer("queue_next", torch.zeros((), dtype=torch.int64))

    def forward(self, pairs: Pairs) -> dict[str, Tensor]:
        """The loss of one batch.

        In training, the momentum form also moves the key encoder towards the encoder and puts the keys in the queues.

        Returns:
            float32 scalars: "loss", with gradient, and the unweighted terms by code, without.
        """
        terms: dict[str, Tensor] = LOSSES[self.method.objective](self, pairs)
        return terms

    def embed_views(self, pairs: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings of both views of the whole batch; each group's views are normalised together."""
        own = self.embed(pairs.anchor, pairs.semi)
        anchor, semi = ({code: gather(values) for code, values in view.items()} for view in own)
        return anchor, semi

    def embed(self, *views: Tensor) -> list[dict[str, Tensor]]:
        """Embeddings of each view of this process's clips, (B, 3, T, h, w) each; a group's views share statistics."""
        groups = self.groups_of(len(views[0]))
        groups_of_views = zip(*(torch.chunk(view, groups) for view in views), strict=True)
        parts = [self.encoder(torch.cat(group)) for group in groups_of_views]
        split = [{code: torch.chunk(values, len(views)) for code, values in part.items()} for part in parts]
        return [
            {code: torch.cat([part[code][place] for part in split]) for code in split[0]} for place in range(len(views))
        ]

    def encode(self, clips: Tensor) -> Codes:
        """Codes of float clips in [0, 1], (B, 3, T, h, w), before the heads."""
        return self.encoder.codes(clips)

    def features(self, clips: Tensor, which: str | None = None) -> Tensor:
        """Downstream features of clips, float32.

        Args:
            clips: float in [0, 1], (B, 3, T, h, w).
            which: one of `bgaug.model.decomposition.FEATURES`; by default `Method.feature`.

        Raises:
            ValueError: no such feature.
        """
        return self.encode(clips).feature(which or self.method.feature)

    def logits(self, clips: Tensor) -> Tensor:
        """Logits (B, K) of the classifier of a supervised method, for clips as in `encode`.

        Raises:
            ValueError: the method is not supervised.
        """
        if not self.method.supervised:
            raise ValueError(f"the method {self.method.name!r} has no classifier")
        found: Tensor = self.encoder(clips)[self.method.codes[0]]
        return found

    @property
    def queue_full(self) -> bool:
        """Whether every place of the queues holds a key; True without queues. Waits for the device."""
        return not self.method.has_queue or bool((self.queue_video >= 0).all())

    @torch.no_grad()
    def fill_queue(self, pairs: Pairs) -> None:
        """Put the keys of one batch in the queues without a step; call until `queue_full` before the first step.

        Raises:
            ValueError: the method has no queue.
        """
        if self.key_encoder is None or not self.method.has_queue:
            raise ValueError(f"{self.method.name!r} has no queue to fill")
        whole = gather_pairs(pairs)
        self._enqueue(self._keys(self.key_encoder, pairs.anchor, whole), whole.video)

    def momentum_terms(self, pairs: Pairs) -> dict[str, Tensor]:
        """Loss and terms of the momentum form."""
        assert self.key_encoder is not None
        if self.training and self.follows:
            self._follow(self.key_encoder)
        clips, pairs = pairs, gather_pairs(pairs)
        keys = self._keys(self.key_encoder, clips.anchor, pairs)
        queries = self._queries(clips.semi)
        place, counts = static_partners(pairs.donor, pairs.weight)
        losses = self._against(queries, keys, place, counts, place, pairs)
        if self.method.symmetric:
            taker, taken = _inverse(place, counts)
            queries = self._queries(clips.anchor)
            composites = self._keys(self.key_encoder, clips.semi, pairs)
            own = torch.arange(len(taker), device=taker.device)
            reverse = self._against(queries, composites, taker, taken, own, pairs)
            losses = {code: (loss + reverse[code]) / 2 for code, loss in losses.items()}
        if self.training and self.method.has_queue:
            self._enqueue(keys, pairs.video)
        return total({code: (self.weights[code], loss) for code, loss in losses.items()})

    def _against(
        self,
        queries: dict[str, Tensor],
        keys: dict[str, Tensor],
        partner: Tensor,
        counts: Tensor,
        background: Tensor,
        pairs: Pairs,
    ) -> dict[str, Tensor]:
        """One loss per code.

        `partner` is the clip whose key shares the query's background, `background` the clip whose background that is.
        """
        losses = {}
        if self.method.objective == "byol":
            return {code: prediction_loss(query, keys[code], pairs.weight) for code, query in queries.items()}
        for code, query in queries.items():
            own, other = keys[code], keys[code][partner]
            static = code == "static"
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

    def _queries(self, clips: Tensor) -> dict[str, Tensor]:
        """Queries of the whole batch; for BYOL predictions of the keys."""
        # All layers with weights come before `gather`: otherwise gradients are scaled by the number of processes.
        groups = self.groups_of(len(clips))
        queries = self._in_groups(self.encoder, clips)
        for code in self.predictors:
            queries[code] = torch.cat([self.predictors[code](part) for part in torch.chunk(queries[code], groups)])
        return {code: gather(query) for code, query in queries.items()}

    @torch.no_grad()
    def _keys(self, encoder: Encoder, clips: Tensor, whole: Pairs) -> dict[str, Tensor]:
        """Keys in the batch's order, computed in a random order, drawn from the batch's keys of randomness."""
        order = torch.argsort(random_bits(whole.provenance["key"], "model/shuffle"), stable=True)
        shuffled = self._in_groups(encoder, own_part(gather(clips)[order]))
        back = torch.argsort(order)
        return {code: gather(nn.functional.normalize(key.float(), dim=1))[back] for code, key in shuffled.items()}

    def _in_groups(self, encoder: Encoder, clips: Tensor) -> dict[str, Tensor]:
        """Embeddings of the batch, each part with its own batch statistics."""
        parts = [encoder(part) for part in torch.chunk(clips, self.groups_of(len(clips)))]
        return {code: torch.cat([part[code] for part in parts]) for code in parts[0]}

    def groups_of(self, count: int) -> int:
        """Parts of this process; the method's number is that of the whole batch."""
        own = self.method.groups // num_processes()
        return max(1, min(own, count // 2)) if self.training else 1

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


def _inverse(donor: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The clip that took each clip's background (itself if there is none), and the weight of that pair: both (B,)."""
    own = torch.arange(len(donor), device=donor.device)
    # Clips without a donor write to an extra place at the end, which is dropped.
    target = torch.where(counts > 0, donor, torch.full_like(donor, len(donor)))
    taker = torch.cat([own, own[:1]]).scatter(0, target, own)[:-1]
    return taker, torch.where(taker != own, counts[taker], torch.zeros_like(counts))


def contrastive_terms(learner: ContrastiveLearner, pairs: Pairs) -> dict[str, Tensor]:
    """InfoNCE in the batch; in the momentum form InfoNCE against queues, or BYOL."""
    if learner.method.momentum:
        return learner.momentum_terms(pairs)
    anchor, semi = learner.embed_views(pairs)
    whole = gather_pairs(pairs)
    terms: dict[str, Tensor] = learner.loss(anchor, semi, whole.donor, whole.video, whole.weight)
    return terms


def modes_terms(learner: ContrastiveLearner, pairs: Pairs) -> dict[str, Tensor]:
    """DCLR's input modes; see `bgaug.model.modes`."""
    groups = learner.groups_of(len(pairs.anchor))
    return modes_loss(learner.encoder, pairs, learner.method.temperature, groups)
