"""What decides a training run, and how it is run: one model, checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bgaug.errors import UsageError

HOW_ALONE = ("compile", "channels_last", "checkpoint_every", "keep", "best", "log_every", "meters", "tensorboard")
"""Options that do not change the result: a resumed run may have others."""


class TrainOptions(BaseModel):
    """What decides a run; None stands for what suits backbone and data.

    Attributes:
        method: a key of `bgaug.model.METHODS`.
        backbone: a name of `bgaug.model.backbones.BACKBONES`, or one's own as module:function.
        weights: file of published weights to begin with, by torchvision's names; the backbone then pads with zeros in
            time and normalises its input, as they expect.
        epochs: passes over the videos.
        steps: of the whole run, instead of epochs.
        batch_size: clips a step, of all processes together; by default 64, or half of the videos if that is less.
        accumulate: batches whose gradients make one step; each is contrasted within itself.
        seed: of weights, order, clips and augmentation.
        optimiser: "sgd", "adamw" or "lars"; by default sgd, for `tiny` adamw.
        lr: highest learning rate; by default .01 x batch / 64, for `tiny` 2e-3.
        weight_decay: on all weights but biases and normalisations.
        warmup: share of the run, in [0, 1).
        schedule: "cosine", or "step": `drop` times less at each of the shares `drop_at`.
        drop_at: shares of the run.
        drop: factor.
        clip_norm: the gradient's norm is brought down to this.
        ema: keep a moving average of the encoder, of which this share stays at each step; it is what is evaluated.
        num_frames: frames of a clip.
        stride: distance of the frames.
        crop: side of the crops, pixels; by default 112, or what the store's frames hold.
        flip: probability of a left-right flip; 0 where left and right mean something. `tiny` does not flip by default.
        masks: "stored", or "motion" to compute them anew on the device; what the method says if None.
        bank: the store's bank of pictures that donors come from, where the pairs want one.
        change: fields of `bgaug.model.Method` and of `bgaug.pairs.Composition` to replace, by name: an ablation.
        momentum: the form with momentum encoder and queue; by default for more than 2,000 videos.
        splits: videos to train on, by split; by default "train" where the store has such a split, else all.
        min_grade: leave out shots below this grade.
        sync_norm: with several CUDA processes, synchronise batch normalisation in the form in the batch.
        amp: "off", "bf16" or "fp16"; by default bf16 on CUDA.
        compile: the encoder, by torch.compile.
        channels_last: memory format of the convolutions; by default on CUDA with mixed precision, where it pays.
        checkpoint_every: steps, beside the ends of epochs.
        keep: checkpoints that stay.
        best: also keep the best by this number of the epochs, such as motion_r1; with a leading minus the lowest.
        log_every: steps whose numbers are fetched together; by default 1 on a CPU, else 20.
        meters: videos on which the bias is measured after each epoch; 0 for none.
        tensorboard: also write what TensorBoard shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "bgaug"
    backbone: str = "r3d18"
    weights: str | None = None
    epochs: int = Field(default=200, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=2)
    accumulate: int = Field(default=1, ge=1)
    seed: int = 0
    optimiser: Literal["sgd", "adamw", "lars"] | None = None
    lr: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["cosine", "step"] = "cosine"
    drop_at: tuple[float, ...] = (0.6, 0.8)
    drop: float = Field(default=0.1, gt=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    num_frames: int = Field(default=16, ge=2)
    stride: int = Field(default=2, ge=1)
    crop: int | None = Field(default=None, ge=8)
    flip: float | None = Field(default=None, ge=0, le=1)
    masks: Literal["stored", "motion"] | None = None
    bank: str | None = None
    change: dict[str, Any] = Field(default_factory=dict)
    momentum: bool | None = None
    splits: tuple[str, ...] | None = None
    min_grade: str | None = None
    sync_norm: bool = True
    amp: Literal["off", "bf16", "fp16"] | None = None
    compile: bool = False
    channels_last: bool | None = None
    checkpoint_every: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=1)
    best: str | None = None
    log_every: int | None = Field(default=None, ge=1)
    meters: int = Field(default=0, ge=0)
    tensorboard: bool = False

    @classmethod
    def checked(cls, **values: Any) -> TrainOptions:
        """Options from values of any source.

        Raises:
            UsageError: an unknown name or a value that cannot be; all of them are listed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
            raise UsageError(f"these options cannot be: {said}") from error

    def deciding(self) -> dict[str, Any]:
        """Those that change the result, as plain JSON values."""
        values: dict[str, Any] = self.model_dump(mode="json", exclude=set(HOW_ALONE))
        return values

    def toml(self) -> str:
        """As a file for `--config`, with the command line's names."""
        renamed = {"num_frames": "frames", "splits": "split"}
        lines = []
        for name, value in self.model_dump(mode="json").items():
            if name == "change":
                value, name = [f"{key}={json.dumps(part)}" for key, part in value.items()], "set"
            if value is not None and value != []:
                lines.append(f"{renamed.get(name, name).replace('_', '-')} = {json.dumps(value)}")
        return "".join(f"{line}\n" for line in lines)


def parse_changes(settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, as the command line has them, to values: JSON where it is JSON, else text; stages by commas.

    Raises:
        UsageError: a setting without `=`, or one twice.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not separator or not name or name in changes:
            raise UsageError(f"--set takes NAME=VALUE, each name once, got {setting!r}")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text.strip()
    if isinstance(changes.get("stages"), str):
        changes["stages"] = [stage.strip() for stage in changes["stages"].split(",")]
    return changes
