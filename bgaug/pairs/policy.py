"""Composition policies: ours and the published alternatives, as values of one dataclass.

Every policy has four parts: which share of each pixel is the clip's own (the mask), what fills the rest (the donor),
which clips are composed (the probability), and the weight of a pair in the loss. All are computed from the uint8 batch
on its device; see `bgaug.pairs.semi_negative`. A new policy is one more entry of `bgaug.names.POLICIES`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from bgaug.names import POLICIES

Mask = Literal["none", "stored", "motion", "fame", "fame-published", "boxes", "random_box", "blend"]
Donor = Literal[
    "background", "frame", "clip", "scene", "scene-published", "inpainted", "bank", "near", "far", "own_frame"
]
_CHOICES: dict[str, tuple[str, ...]] = {
    "mask": get_args(Mask),
    "donor": get_args(Donor),
    "weight": ("one", "area", "grade"),
    "pairing": ("derangement", "permutation"),
    "donor_crop": ("view", "own"),
}

GRADE_WEIGHTS = (0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0)
"""Weight of a pair by the grade of its foreground's shot: no grade, A, B, C, D, E, F; ours."""


@dataclass(frozen=True)
class Composition:
    """How the second view of each clip is composed.

    Attributes:
        mask: the clip's own share of each pixel. "stored": the batch's masks, grown and feathered; "motion": computed
            from the clip and its background, see `motion_masks`; "fame": one mask for all frames by motion and colour,
            see `fame_masks`, "fame-published" with the published code's hue; "boxes": the bounding box of each frame's
            stored mask; "random_box": everything outside one random box; "blend": the same share everywhere, drawn from
            `blend`; "none": the clip stays whole.
        donor: what fills the rest. "background": the static background of the donor's shot; "frame": one frame of
            the donor's clip; "clip": the donor's moving clip; "scene": that clip with its own actors' boxes filled from
            its background, "scene-published" with black; "inpainted": one frame of the donor, its own foreground filled
            smoothly from the colours around it; "bank": an image of the bank; "near", "far": the static background in
            the batch that is most or least similar to the clip's own; "own_frame": one frame of the clip.
        probability: probability that a clip is composed; the others stay plain, at full weight.
        weight: weight of a pair. "one"; "area": 1 - (1 - r)^4 for the mask's share r of the clip; "grade": by the
            grade of the clip's shot, see `GRADE_WEIGHTS`.
        pairing: "derangement" by video, or a plain random "permutation", in which a clip may be its own donor.
        donor_groups: number of parts of the batch, in its order, within which donors are drawn, as if each part were
            the batch of another process.
        donor_crop: "view": the donor has the crop of its own second view; "own": it has another crop and flip.
        blend: (distribution, first, second) of the *donor's* share, for "blend" and the area of "random_box":
            ("uniform", low, high), or ("beta", a, a) with a whole a, at most 1/2 if `majority`.
        majority: the clip keeps at least half of what is blended or boxed.
        beta: share of the clip that "motion" (0.35) and "fame" (0.5) keep.
        grow: dilation of stored masks, pixels of a crop of 112; scales with the crop.
        sigma: feather of stored masks, pixels of a crop of 112; scales with the crop.

    Raises:
        ValueError: a name that does not exist, or a number out of its range.
    """

    mask: Mask = "stored"
    donor: Donor = "background"
    probability: float = 1.0
    weight: Literal["one", "area", "grade"] = "one"
    pairing: Literal["derangement", "permutation"] = "derangement"
    donor_groups: int = 1
    donor_crop: Literal["view", "own"] = "view"
    blend: tuple[str, float, float] = ("uniform", 0.0, 0.3)
    majority: bool = True
    beta: float | None = None
    grow: float = 2.0
    sigma: float = 2.0

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability lies in [0, 1], got {self.probability}")
        if self.grow < 0 or self.sigma < 0:
            raise ValueError(f"grow and sigma are pixels, at least 0, got {self.grow = }, {self.sigma = }")
        if self.donor_groups < 1:
            raise ValueError(f"donor_groups must be at least 1, got {self.donor_groups}")
        if self.beta is not None and not 0 < self.beta <= 1:
            raise ValueError(f"beta is a share of the clip in (0, 1], got {self.beta}")
        object.__setattr__(self, "blend", tuple(self.blend))  # JSON has no tuples
        distribution, first, second = self.blend
        uniform = distribution == "uniform" and 0 <= first <= second <= 1
        beta = distribution == "beta" and 1 <= first == second == int(first)
        if not (uniform or beta):
            raise ValueError(
                f"blend is ('uniform', low, high) in [0, 1] or ('beta', a, a) with a whole a, got {self.blend}"
            )

    @classmethod
    def resolve(cls, policy: str | Composition, **options: Any) -> Composition:
        """A policy by name, or as it is, with some of its fields replaced.

        Raises:
            ValueError: no policy of that name, or a value that cannot be.
            TypeError: no such field.
        """
        if isinstance(policy, str):
            if policy not in POLICIES:
                raise ValueError(f"no composition policy {policy!r}; there are {', '.join(POLICIES)}")
            known: Composition = POLICIES[policy]
            policy = known
        return replace(policy, **options)

    @property
    def composes(self) -> bool:
        """Whether the second view is composed."""
        return self.mask != "none"

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of the batch that are needed besides frames, video, key and box."""
        stored = self.mask in ("stored", "boxes") or self.donor in ("scene", "scene-published", "inpainted")
        backgrounds = self.mask == "motion" or self.donor in ("background", "scene", "near", "far")
        if not self.composes:
            return ()
        fields = (("masks", stored), ("backgrounds", backgrounds), ("grade", self.weight == "grade"))
        return tuple(name for name, needed in fields if needed)

    @property
    def donor_shows(self) -> bool:
        """Whether the composite shows the background of a video in the batch, as that video's anchor does."""
        blended = self.mask in ("blend", "none")
        return not blended and self.donor not in ("bank", "inpainted", "own_frame")
