"""Options of training: what decides a run, and how it is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from bgaug.errors import UsageError
from bgaug.names import BACKBONES, LOSSES, METHODS, POLICIES
from bgaug.pipelines.options import RUNNING, DeviceOptions, Option, Trust, plain, record, to_toml

OptimiserName = Literal["sgd", "adamw", "lars"]
Schedule = Literal["cosine", "step"]
Precision = Literal["off", "bf16", "fp16"]

METHOD, OPTIMISATION, CLIPS, MONITOR = "Method and pairs", "Optimisation", "Clips", "Checkpoints and monitoring"
_SPEED = "Speed"
OF_A_CALL = ("device", "threads", "resume", "stop_after", "overwrite", "trust")
"""Options that are not kept in the run's config.toml."""
_NOT_DECIDING = (
    *("compile", "channels_last", "checkpoint_every", "keep", "best", "log_every", "meters", "tensorboard"),
    *OF_A_CALL,
)
"""Options that do not change the result: a resumed run may have others."""


def _changes(value: Any) -> Any:
    return parse_changes(value) if isinstance(value, list | tuple) else value


@record
class TrainOptions(DeviceOptions):
    """`bgaug train`; None means the value that suits backbone and data."""

    method: Annotated[str, Option("Training method, its pairs and its loss; see docs/methods.md.", names=METHODS)] = (
        "bgaug"
    )
    backbone: Annotated[str, Option("Encoder.", names=BACKBONES, own=True)] = "r3d18"
    weights: Annotated[
        str | None,
        Option(
            "Begin with the encoder of a run, checkpoint or file of weights.",
            flag="from",
            panel=METHOD,
            metavar="PATH",
            old=("weights",),
        ),
    ] = None
    epochs: Annotated[int, Option("Passes over the videos.", ge=1)] = 200
    steps: Annotated[int | None, Option("Steps of the whole run, instead of epochs.", ge=1)] = None
    batch_size: Annotated[
        int | None,
        Option("Clips per step, of all processes together; by default 64, or half of the videos if fewer.", ge=2),
    ] = None
    accumulate: Annotated[
        int,
        Option(
            "Batches whose gradients make one step; each is contrasted within itself.",
            panel=OPTIMISATION,
            ge=1,
            rare=True,
        ),
    ] = 1
    seed: Annotated[int, Option("Seed of the random generator for weights, order, clips and augmentation.")] = 0
    optimiser: Annotated[
        OptimiserName | None, Option("Optimiser; by default sgd, for tiny adamw.", panel=OPTIMISATION)
    ] = None
    lr: Annotated[
        float | None,
        Option("Highest learning rate; by default .01 x batch / 64, for tiny .002.", panel=OPTIMISATION, gt=0),
    ] = None
    weight_decay: Annotated[
        float, Option("Weight decay, of all weights except biases and normalisations.", panel=OPTIMISATION, ge=0)
    ] = 1e-4
    warmup: Annotated[
        float, Option("Share of the run in which the learning rate rises.", panel=OPTIMISATION, ge=0, lt=1, rare=True)
    ] = 0.05
    schedule: Annotated[Schedule, Option("How the learning rate falls.", panel=OPTIMISATION, rare=True)] = "cosine"
    drop_at: Annotated[
        tuple[float, ...],
        Option(
            "With --schedule step: shares of the run where the rate drops.", panel=OPTIMISATION, metavar="X", rare=True
        ),
    ] = (0.6, 0.8)
    drop: Annotated[
        float, Option("With --schedule step: factor of each drop.", panel=OPTIMISATION, gt=0, lt=1, rare=True)
    ] = 0.1
    clip_norm: Annotated[
        float | None,
        Option("Largest norm of the gradient; larger ones are scaled.", panel=OPTIMISATION, gt=0, rare=True),
    ] = None
    ema: Annotated[
        float | None,
        Option(
            "Keep a moving average of the encoder, of which this share stays at each step, such as .999; the average "
            "is what is evaluated.",
            panel=OPTIMISATION,
            gt=0,
            lt=1,
            rare=True,
        ),
    ] = None
    num_frames: Annotated[int, Option("Frames of a clip.", flag="frames", ge=2)] = 16
    stride: Annotated[int, Option("Distance of a clip's frames.", panel=CLIPS, ge=1)] = 2
    crop: Annotated[
        int | None, Option("Side of the crops, in pixels; by default 112, or what the frames hold.", panel=CLIPS, ge=8)
    ] = None
    flip: Annotated[
        float | None,
        Option("Probability of a left-right flip; 0 where left and right differ in meaning.", panel=CLIPS, ge=0, le=1),
    ] = None
    masks: Annotated[
        Literal["stored", "motion"] | None,
        Option(
            "Masks of the store, or computed from motion on the device; by default what the method defines.",
            flag="mask-source",
            panel=METHOD,
            old=("masks",),
        ),
    ] = None
    bank: Annotated[
        str | None,
        Option("The store's bank of images that donors come from, with --set donor=bank.", panel=METHOD, rare=True),
    ] = None
    change: Annotated[
        dict[str, Any],
        BeforeValidator(_changes),
        Option(
            "Change a field of the method or of its pairs, such as donor=frame or stages=stage2,stage3.",
            flag="set",
            panel=METHOD,
            metavar="NAME=VALUE",
            keys={"policy": POLICIES, "objective": LOSSES},
        ),
    ] = field(default_factory=dict)
    momentum: Annotated[
        bool | None, Option("Momentum encoder and queue; by default above 2,000 videos.", panel=METHOD)
    ] = None
    splits: Annotated[
        tuple[str, ...] | None,
        Option("Train on the videos of this split only; by default train, where there is one.", flag="split"),
    ] = None
    min_grade: Annotated[
        Literal["A", "B", "C", "D", "E", "F", "none"],
        Option(
            "Leave out shots graded worse; none keeps all. Imported masks, and those of a segmentation network, are "
            "not judged.",
            panel=CLIPS,
            rare=True,
        ),
    ] = "E"
    sync_norm: Annotated[
        bool,
        Option("Synchronise batch normalisation of several GPUs, in the form in the batch.", panel=_SPEED, rare=True),
    ] = True
    amp: Annotated[Precision | None, Option("Mixed precision; by default bf16 on CUDA.", panel=_SPEED)] = None
    compile: Annotated[bool, Option("Compile the encoder: a slow start, faster steps.", panel=_SPEED)] = False
    channels_last: Annotated[
        bool | None,
        Option("Memory format channels_last; by default on CUDA with mixed precision.", panel=_SPEED, rare=True),
    ] = None
    checkpoint_every: Annotated[
        int | None, Option("Steps between checkpoints, besides the ends of epochs.", panel=MONITOR, ge=1, rare=True)
    ] = None
    keep: Annotated[int, Option("Number of newest checkpoints that are kept.", panel=MONITOR, ge=1, rare=True)] = 2
    best: Annotated[
        str | None,
        Option(
            "Also keep the best checkpoint by a number of the epochs, such as motion_r1; -NAME for the lowest.",
            flag="best-by",
            panel=MONITOR,
            old=("best",),
        ),
    ] = None
    log_every: Annotated[
        int | None,
        Option("Steps whose numbers are fetched together; by default 1, on a GPU 20.", panel=MONITOR, ge=1, rare=True),
    ] = None
    meters: Annotated[
        int, Option("Videos on which the bias is measured after each epoch; 0 for none.", panel=MONITOR, ge=0)
    ] = 0
    tensorboard: Annotated[bool, Option("Also write events for TensorBoard.", panel=MONITOR)] = False
    threads: Annotated[int, Option("Threads that read clips.", panel=RUNNING, ge=0)] = 2
    resume: Annotated[bool, Option("Continue from the last checkpoint in --out.")] = False
    trust: Trust = False
    stop_after: Annotated[
        int | None, Option("Stop after so many steps, as an interruption would.", panel=RUNNING, ge=1, rare=True)
    ] = None
    overwrite: Annotated[bool, Option("Begin again where --out holds a run.", panel=RUNNING)] = False

    def deciding(self) -> dict[str, Any]:
        """The options that change the result, as plain JSON values."""
        names = [field.name for field in fields(self) if field.name not in _NOT_DECIDING]
        found = {name: plain(getattr(self, name)) for name in names}
        # As in runs that were begun when all shots were used by default: these can be continued.
        return found | {"min_grade": None if self.min_grade == "none" else self.min_grade}

    def toml(self) -> str:
        """The options of the run as a file for `--config`."""
        return to_toml(self, leave_out=OF_A_CALL)


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
