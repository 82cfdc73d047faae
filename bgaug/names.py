"""Names that options take, importable without numpy, OpenCV or torch: help, completion and validation need them.

A closed set is a `Literal`. An open one is a registry: a new background method, backbone,
policy, loss or training method is one new file and one entry here; a new format of lists of labels is an entry of
`bgaug.labels.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Literal

Decoder = Literal["auto", "pyav", "decord"]
FrameKind = Literal["jpeg", "raw", "none"]
MaskValues = Literal["nonzero", "cdnet"]
MasksFrom = Literal["missing", "background", "motion", "segmenter", "imported"]
"""Where the masks of a shot come from; see `bgaug.store.VideoRow.masks_from`."""
FewShotClassifier = Literal["linear", "centroid"]
FEATURES = ("global", "dynamic", "static", "dynamic+static")
"""Features of a clip: one of its codes, or the last two side by side."""


class Registry(Mapping[str, Any]):
    """Objects by name; each is imported when it is first used.

    Attributes:
        entries: "module:attribute" by name.
    """

    def __init__(self, entries: dict[str, str]) -> None:
        self.entries = entries

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self.entries[name].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # the default would import the object


BACKGROUND_METHODS = Registry(
    {
        "auto": "bgaug.background.auto:auto_background",
        "median": "bgaug.background.methods:median_background",
        "gated": "bgaug.background.gated:gated_median",
        "lowrank": "bgaug.background.lowrank:low_rank_background",
        "patches": "bgaug.background.methods:patches_background",
        "plate": "bgaug.background.plate:plate_background",
        "mog2": "bgaug.background.methods:mog2_background",
        "knn": "bgaug.background.methods:knn_background",
    }
)
"""Estimators of static backgrounds; see `bgaug.background.methods.Estimator`."""

BACKBONES = Registry(
    {
        "tiny": "bgaug.model.backbones.tiny:Tiny",
        "r3d18": "bgaug.model.backbones.residual:r3d18",
        "r2plus1d18": "bgaug.model.backbones.residual:r2plus1d18",
        "r2plus1d18-14m": "bgaug.model.backbones.residual:ShallowR2Plus1D",
        "s3d": "bgaug.model.backbones.s3d:S3D",
        "slow_r18": "bgaug.model.backbones.residual:SlowR18",
        "c3d": "bgaug.model.backbones.c3d:C3D",
        "vit": "bgaug.model.backbones.vit:VideoViT",
    }
)
"""Video encoders: functions or classes that return a `bgaug.model.backbones.Backbone`."""

METHODS = Registry(
    {
        "bgaug": "bgaug.model.presets:BGAUG",
        "semi": "bgaug.model.presets:SEMI",
        "dual": "bgaug.model.presets:DUAL",
        "simclr": "bgaug.model.presets:SIMCLR",
        "moco": "bgaug.model.presets:MOCO",
        "byol": "bgaug.model.presets:BYOL",
        "fame": "bgaug.model.presets:FAME",
        "fame-published": "bgaug.model.presets:FAME_PUBLISHED",
        "be": "bgaug.model.presets:BE",
        "be-inter": "bgaug.model.presets:BE_INTER",
        "stillmix": "bgaug.model.presets:STILLMIX",
        "actorcutmix": "bgaug.model.presets:ACTORCUTMIX",
        "actorcutmix-published": "bgaug.model.presets:ACTORCUTMIX_PUBLISHED",
        "mixup": "bgaug.model.presets:MIXUP",
        "cutmix": "bgaug.model.presets:CUTMIX",
        "dclr": "bgaug.model.presets:DCLR",
        "supervised": "bgaug.model.presets:SUPERVISED",
        "supervised-albar": "bgaug.model.presets:SUPERVISED_ALBAR",
    }
)
"""Training methods: presets of `bgaug.model.Method`."""

POLICIES = Registry(
    {
        "none": "bgaug.pairs.policies:NONE",
        "background": "bgaug.pairs.policies:BACKGROUND",
        "frame": "bgaug.pairs.policies:FRAME",
        "clip": "bgaug.pairs.policies:CLIP",
        "inpainted": "bgaug.pairs.policies:INPAINTED",
        "bank": "bgaug.pairs.policies:BANK",
        "near": "bgaug.pairs.policies:NEAR",
        "far": "bgaug.pairs.policies:FAR",
        "fame": "bgaug.pairs.policies:FAME",
        "fame-published": "bgaug.pairs.policies:FAME_PUBLISHED",
        "be": "bgaug.pairs.policies:BE",
        "be-inter": "bgaug.pairs.policies:BE_INTER",
        "stillmix": "bgaug.pairs.policies:STILLMIX",
        "actorcutmix": "bgaug.pairs.policies:ACTORCUTMIX",
        "actorcutmix-published": "bgaug.pairs.policies:ACTORCUTMIX_PUBLISHED",
        "mixup": "bgaug.pairs.policies:MIXUP",
        "cutmix": "bgaug.pairs.policies:CUTMIX",
    }
)
"""Composition policies: values of `bgaug.pairs.Composition`."""

LOSSES = Registry(
    {
        "infonce": "bgaug.model.learner:contrastive_terms",
        "byol": "bgaug.model.learner:contrastive_terms",
        "dclr": "bgaug.model.learner:modes_terms",
        "supervised": "bgaug.model.supervised:supervised_terms",
    }
)
"""Losses: functions of a `bgaug.model.ContrastiveLearner` and its pairs, which return "loss" and the terms in it."""
