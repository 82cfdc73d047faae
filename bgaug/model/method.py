"""Methods by name: which pairs are made, what is compared with what, and at what weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from bgaug.model.decomposition import POOLS, STRETCHES
from bgaug.names import METHODS
from bgaug.pairs import Composition

Objective = Literal["infonce", "byol", "dclr"]

IN_BATCH_VIDEOS = 2000
SHORT_RUN_STEPS = 10_000
WEIGHTS = {"global": "w_global", "dynamic": "w_motion", "static": "w_static"}
DCLR_CODES = ("vv", "vs", "vd", "sv", "dv")


@dataclass(frozen=True)
class Method:
    """What is compared with what, and at what weight.

    Attributes:
        name: of the preset it came from.
        policy: how the second view is composed, a key of `bgaug.pairs.POLICIES`; "none" leaves both views plain.
        composition: fields of `bgaug.pairs.Composition` that replace the policy's.
        objective: "infonce"; "byol": predict the key, no negatives; "dclr": see `bgaug.model.modes`.
        momentum: whether keys come from a momentum encoder (and with InfoNCE negatives from a queue), else all from the
            batch.
        w_global: weight of the wide term, on the global code.
        w_motion: weight of the micro term, on the dynamic code.
        w_static: weight of the static term, on the static code; above 0 it builds a second last stage.
        gamma: share of the static stream's gradient that reaches the trunk, in [0, 1].
        two_streams: False pools the static code from the same last stage as the others: for ablation, it undoes the
            debiasing.
        stages: names of the stages that the saliency is read from; what suits the backbone if None.
        stretch: of the saliency, see `bgaug.model.decomposition.MotionAwareDecomposition`; likewise the next three.
        per_channel: a map for each channel.
        normalise: differences of features normalised over channels.
        compensate: leave out what all cells have in common: a moving camera.
        pool: of what the dynamic code is a weighted mean: "deviation" of features over time, or their "mean" over it.
        temperature: divides the cosine similarities.
        symmetric: momentum form: also ask with anchors for composites. Doubles the cost of a step.
        queue: momentum form: keys held, K.
        momentum_coefficient: momentum form: share of the key encoder's weights kept at each step, in [0, 1].
        bn_groups: parts of the batch that are normalised apart; by default 2 in the momentum form, where keys come in
            another order than queries so that batch statistics do not give a pair away, else 1. Of several processes
            each is a part at least, unless their statistics are synchronised.

    Raises:
        ValueError: a value out of its range, or two that contradict each other.
    """

    name: str
    policy: str = "background"
    composition: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective = "infonce"
    momentum: bool = False
    w_global: float = 1.0
    w_motion: float = 0.0
    w_static: float = 0.0
    gamma: float = 0.1
    two_streams: bool = True
    stages: tuple[str, ...] | None = None
    stretch: str = "minmax"
    per_channel: bool = False
    normalise: bool = False
    compensate: bool = False
    pool: str = "deviation"
    temperature: float = 0.1
    symmetric: bool = False
    queue: int = 16384
    momentum_coefficient: float = 0.999
    bn_groups: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1 or not 0 <= self.momentum_coefficient <= 1:
            raise ValueError(f"gamma and momentum_coefficient lie in [0, 1], got {self}")
        if self.objective not in get_args(Objective):
            raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {self.objective!r}")
        if self.stretch not in STRETCHES:
            raise ValueError(f"stretch must be one of {', '.join(STRETCHES)}, got {self.stretch!r}")
        if self.stages is not None:
            object.__setattr__(self, "stages", tuple(self.stages))  # JSON has no tuples
        composite = self.composite  # which also tells of a policy that does not exist
        if self.w_static and not composite:
            raise ValueError(f"the static term needs donors, so composites: {self.name!r} has none")
        if self.w_static and self.objective != "infonce":
            raise ValueError(f"the static term needs negatives, which {self.objective!r} has not")
        if self.objective == "byol" and not self.momentum:
            raise ValueError("BYOL predicts the keys of a momentum encoder; it needs momentum=True")
        if self.objective == "dclr" and (self.momentum or composite):
            raise ValueError("DCLR's modes are compared within the batch, on plain views: no momentum, policy='none'")
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.symmetric and not self.momentum:
            raise ValueError("the form in the batch is symmetric as it is; symmetric=True needs momentum=True")
        if self.queue < 1 or self.groups < 1:
            raise ValueError(f"queue and bn_groups must be at least 1, got {self.queue = }, {self.bn_groups = }")

    @property
    def compose(self) -> Composition:
        """How the second view is composed.

        Raises:
            ValueError: no such policy, or a value that cannot be.
            TypeError: no such field of a composition.
        """
        return Composition.resolve(self.policy, **self.composition)

    @property
    def composite(self) -> bool:
        """Whether the second view is composed at all."""
        return self.compose.composes

    @property
    def groups(self) -> int:
        """Parts of a batch that are normalised apart."""
        return self.bn_groups if self.bn_groups is not None else 1 + self.momentum

    @property
    def codes(self) -> tuple[str, ...]:
        """Names of the embeddings it compares; one head each."""
        if self.objective == "dclr":
            return DCLR_CODES
        return tuple(code for code, weight in self.weights.items() if weight)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each code's term."""
        return {code: getattr(self, name) for code, name in WEIGHTS.items()}

    @property
    def feature(self) -> str:
        """The default feature of its encoders: the dynamic code where a term trains it as a deviation, else the global one.

        This is the only place that decides it.
        """
        return "dynamic" if self.w_motion and self.pool == "deviation" else "global"

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
        preset: Method = METHODS[name]
        if not preset.composite and momentum not in (None, preset.momentum):
            other = {"simclr": "moco", "moco": "simclr"}.get(name)
            raise ValueError(f"{name!r} has one form; {momentum = } is not it" + (f", take {other!r}" if other else ""))
        if momentum is None:
            large = num_videos is not None and num_videos > IN_BATCH_VIDEOS
            momentum = preset.momentum or (preset.composite and large)
        fitted: dict[str, Any] = {"momentum": momentum}
        if num_steps is not None and num_steps < SHORT_RUN_STEPS:
            fitted["momentum_coefficient"] = 0.99
        method = replace(preset, **(fitted | options))
        if not method.has_queue:
            return method
        return replace(method, queue=queue_length(method.queue, batch_size or 1, num_videos))


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
