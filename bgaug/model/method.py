"""Methods: which pairs are made, which embeddings are compared, and the weights of the terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bgaug.model.decomposition import CODES, POOLS
from bgaug.names import LOSSES, METHODS
from bgaug.pairs import Composition

_IN_BATCH_VIDEOS = 2000
_SHORT_RUN_STEPS = 10_000
_DCLR_CODES = ("vv", "vs", "vd", "sv", "dv")


@dataclass(frozen=True)
class Method:
    """A training method: its pairs, its objective and the weights of its terms.

    Attributes:
        name: name of the preset.
        policy: how the second view is composed, a key of `bgaug.pairs.POLICIES`; "none" leaves both views plain.
        composition: fields of `bgaug.pairs.Composition` that replace the policy's.
        objective: "infonce"; "byol": predict the key, no negatives; "dclr": see `bgaug.model.modes`; "supervised":
            classify the second view, see `bgaug.model.supervised`.
        momentum: whether keys come from a momentum encoder (and with InfoNCE negatives from a queue), else from the
            batch.
        w_global: weight of the term on the global code, against wide bias.
        w_dynamic: weight of the term on the dynamic code, against micro bias.
        w_static: weight of the term on the static code; above 0 it builds a second last stage.
        gamma: share of the static stream's gradient that reaches the trunk, in [0, 1].
        two_streams: False pools the static code from the same last stage as the others. It is for ablations only: it
            undoes the debiasing.
        stages: names of the stages from which the saliency is read; None for the default of the backbone.
        pool: the dynamic code is a weighted mean of the "deviation" of features over time, or of their "mean" over it.
        temperature: divides the cosine similarities.
        symmetric: momentum form: also compare anchors as queries with composites as keys; doubles the cost of a step.
        queue: momentum form: keys in the queue, K.
        momentum_coefficient: momentum form: share of the key encoder's weights that stays at each step, in [0, 1].
        bn_groups: parts of the batch with batch statistics of their own. The default is 2 in the momentum form, where
            keys are in another order than queries so that batch statistics do not reveal a pair, else 1. Each of
            several processes is at least one part, unless their statistics are synchronised.
        w_adversarial: supervised: weight of ALBAR's adversarial term, against labels read from a static clip.
        w_entropy: supervised: weight of the entropy of a static clip's prediction, which is raised.
        w_penalty: supervised: weight of the penalty on the gradient of a static clip's logits.
        dropout: supervised: dropout before the classifier, in [0, 1).

    Raises:
        ValueError: a value out of its range, or two that contradict each other.
    """

    name: str
    policy: str = "background"
    composition: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "infonce"
    momentum: bool = False
    w_global: float = 1.0
    w_dynamic: float = 0.0
    w_static: float = 0.0
    gamma: float = 0.1
    two_streams: bool = True
    stages: tuple[str, ...] | None = None
    pool: str = "deviation"
    temperature: float = 0.1
    symmetric: bool = False
    queue: int = 16384
    momentum_coefficient: float = 0.999
    bn_groups: int | None = None
    w_adversarial: float = 0.0
    w_entropy: float = 0.0
    w_penalty: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1 or not 0 <= self.momentum_coefficient <= 1:
            raise ValueError(f"gamma and momentum_coefficient are in [0, 1], got {self}")
        if self.objective not in LOSSES:
            raise ValueError(f"objective must be one of {', '.join(LOSSES)}, got {self.objective!r}")
        if self.stages is not None:
            object.__setattr__(self, "stages", tuple(self.stages))  # JSON has no tuples
        composite = self.composite  # raises an error for an unknown policy
        if self.w_static and not composite:
            raise ValueError(
                f"w_static needs composites with donors; policy {self.policy!r} of {self.name!r} makes none"
            )
        _check_classifier(self)
        if self.w_static and self.objective != "infonce":
            raise ValueError(f"w_static needs negatives; the objective {self.objective!r} has none")
        if self.objective == "byol" and not self.momentum:
            raise ValueError("BYOL predicts the keys of a momentum encoder; it needs momentum=True")
        if self.objective == "dclr" and (self.momentum or composite):
            raise ValueError("DCLR compares plain views within the batch; it needs momentum=False and policy='none'")
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.symmetric and not self.momentum:
            raise ValueError("the form in the batch is always symmetric; symmetric=True needs momentum=True")
        if self.queue < 1 or self.groups < 1:
            raise ValueError(f"queue and bn_groups must be at least 1, got {self.queue = }, {self.bn_groups = }")

    @property
    def compose(self) -> Composition:
        """How the second view is composed.

        Raises:
            ValueError: no such policy, or a value out of its range.
            TypeError: no such field of a composition.
        """
        return Composition.resolve(self.policy, **self.composition)

    @property
    def composite(self) -> bool:
        """Whether the second view is composed."""
        return self.compose.composes

    @property
    def groups(self) -> int:
        """Parts of a batch with batch statistics of their own."""
        return self.bn_groups if self.bn_groups is not None else 1 + self.momentum

    @property
    def codes(self) -> tuple[str, ...]:
        """Names of the embeddings that are compared; one head each."""
        if self.objective == "dclr":
            return _DCLR_CODES
        return tuple(code for code, weight in self.weights.items() if weight)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each code's term."""
        return {code: getattr(self, f"w_{code}") for code in CODES}

    @property
    def feature(self) -> str:
        """The default feature of its encoders; only this function decides it.

        It is the dynamic code where a term trains it as a deviation, else the global one.
        """
        return "dynamic" if self.w_dynamic and self.pool == "deviation" else "global"

    @property
    def supervised(self) -> bool:
        """Whether labels are learnt, by a classifier of as many outputs as there are classes."""
        return self.objective == "supervised"

    @property
    def views(self) -> int:
        """Clips of each video in a batch."""
        return 1 if self.supervised else 2

    @property
    def has_static_clips(self) -> bool:
        """Whether a term of the loss needs static clips: one frame of a clip, repeated."""
        return bool(self.w_adversarial or self.w_entropy or self.w_penalty)

    @property
    def has_queue(self) -> bool:
        """Whether negatives come from a queue."""
        return self.momentum and self.objective == "infonce"

    @classmethod
    def resolve(
        cls,
        name: str,
        num_videos: int | None = None,
        batch_size: int | None = None,
        num_steps: int | None = None,
        momentum: bool | None = None,
        **options: Any,
    ) -> Method:
        """A preset with the settings for a data set.

        Args:
            name: a key of `METHODS`.
            num_videos: training videos; above 2,000 methods with composites have the momentum form. A queue has at most
                half as many keys.
            batch_size: clips per step; the queue is a multiple of it.
            num_steps: steps of the whole run; below 10,000 the momentum coefficient is 0.99.
            momentum: True or False to choose the form.
            options: other fields of `Method` to replace.

        Raises:
            ValueError: no such preset, no such form of it, or a queue that does not hold one batch.
            TypeError: no such option.
        """
        if name not in METHODS:
            raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
        preset: Method = METHODS[name]
        if not preset.composite and momentum not in (None, preset.momentum):
            other = {"simclr": "moco", "moco": "simclr"}.get(name)
            fix = f"; use {other!r} instead" if other else ""
            raise ValueError(f"{name!r} has only the form momentum={preset.momentum}, got {momentum}{fix}")
        if momentum is None:
            large = num_videos is not None and num_videos > _IN_BATCH_VIDEOS
            momentum = preset.momentum or (preset.composite and large and not preset.supervised)
        fitted: dict[str, Any] = {"momentum": momentum}
        if num_steps is not None and num_steps < _SHORT_RUN_STEPS:
            fitted["momentum_coefficient"] = 0.99
        method = replace(preset, **(fitted | options))
        if not method.has_queue:
            return method
        return replace(method, queue=_queue_length(method.queue, batch_size or 1, num_videos))


def _check_classifier(method: Method) -> None:
    """Check the fields of the objective "supervised", which have no effect with another one."""
    own = {name: getattr(method, name) for name in ("w_adversarial", "w_entropy", "w_penalty", "dropout")}
    if min(own.values()) < 0 or method.dropout >= 1:
        raise ValueError(f"weights are at least 0 and dropout lies in [0, 1), got {own}")
    if not method.supervised:
        if any(own.values()):
            raise ValueError(f"{', '.join(own)} are of the objective 'supervised', not {method.objective!r}")
        return
    if method.momentum:
        raise ValueError("the objective 'supervised' has no keys; it needs momentum=False")
    if (method.w_global > 0) == (method.w_dynamic > 0) or method.w_static:
        raise ValueError(
            "the objective 'supervised' classifies one code: w_global or w_dynamic must be above 0, the other weights "
            f"0, got {method.weights}"
        )


def _queue_length(longest: int, batch_size: int, num_videos: int | None) -> int:
    """The largest multiple of the batch that is at most `longest` and at most half of the videos."""
    limit = longest if num_videos is None else min(longest, num_videos // 2)
    length = limit // batch_size * batch_size
    if length < 1:
        raise ValueError(
            f"a queue of at most {limit} keys is too short for one batch of {batch_size}; "
            "use a smaller batch, more videos or the form in the batch (momentum=False)"
        )
    return length
