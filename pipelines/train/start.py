"""The weights that a training starts from: fresh ones, those of a run, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from bgaug.errors import UsageError
from bgaug.model.backbones import BACKBONES, Backbone, build_backbone, load_weights
from bgaug.model.checkpoint import is_checkpoint, load_run
from bgaug.model.pretrained import PUBLISHED, CodePermission, backbone_options, own_weights
from bgaug.model.pretrained.builders import check_options, takes_options


@dataclass(frozen=True, eq=False)
class Start:
    """The encoder of a training before its first step.

    Attributes:
        backbone: name for `build_backbone`.
        options: options of `build_backbone` that the weights need.
        weights: weights by name; None for fresh ones.
        path: where they come from, for messages.
    """

    backbone: str
    options: Mapping[str, float | str] = field(default_factory=dict)
    weights: Mapping[str, Tensor] | None = None
    path: str = ""

    @classmethod
    def of(cls, backbone: str, path: str | None, trust: bool = False) -> Start:
        """The start that `--from` names; only the encoder is taken, so a run of any method will do.

        Args:
            backbone: name of the backbone, or "module:function" for one of the user's own.
            path: folder of a run, one of its checkpoints, or a file of weights; None for fresh weights.
            trust: import the "module:function" that the run names.

        Raises:
            UsageError: the weights cannot be read, or belong to another backbone.
            CheckpointError: the run cannot be read.
        """
        if path is None:
            return cls(backbone)
        if Path(path).is_dir() or is_checkpoint(path):
            return cls._of_run(backbone, path, trust)
        options = check_options(backbone, backbone_options(path, backbone), path)
        return cls(backbone, options, own_weights(path), path)

    @classmethod
    def _of_run(cls, backbone: str, path: str, trust: bool) -> Start:
        own = backbone if backbone not in BACKBONES else None
        run = load_run(path, device="cpu", permission=CodePermission(own, trust))
        theirs = run.config["backbone"]
        if theirs != backbone:
            fix = f"; give --backbone {theirs}" if theirs in BACKBONES else ""
            raise UsageError(f"{path} is a run of the encoder {theirs!r}, not {backbone!r}{fix}")
        weights = run.learner.encoder.backbone.state_dict()
        return cls(backbone, run.config["backbone_options"], weights, path)

    def build(self) -> Backbone:
        """A new backbone with the weights.

        Raises:
            ValueError: there is no such backbone, or the weights do not fit it; the message names what would.
        """
        trunk = build_backbone(self.backbone, **self.options)
        if self.weights is None:
            return trunk
        try:
            load_weights(trunk, self.weights)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}{self._hint()}") from error
        return trunk

    def _hint(self) -> str:
        if takes_options(self.backbone, PUBLISHED):
            return ""
        published = ", ".join(known for known in BACKBONES if takes_options(known, PUBLISHED))
        return (
            f"; no weights are published for {self.backbone}, only for {published}. Give a run or a file of "
            "`bgaug export-weights`"
        )
