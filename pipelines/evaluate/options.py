"""Options of the commands that use a trained encoder: evaluate and embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt
from pydantic import AfterValidator, BeforeValidator

from bgaug.names import FEATURES, FewShotClassifier
from bgaug.pipelines.build.options import (
    LABELS,
    VIDEOS,
    DecoderOption,
    DetectShots,
    FitOption,
    LabelOptions,
    ListOptions,
    Timeout,
)
from bgaug.pipelines.options import RUNNING, SHARED, Best, EncoderOptions, Jobs, Option, Options, record
from bgaug.sizing import Size, parse_size

PROTOCOLS = ("retrieval", "linear", "knn", "finetune", "fewshot", "bias")
FEW_LABELS, FINE_TUNING, BIAS = "Few labels", "Fine-tuning", "Bias"

Feature = Annotated[
    str | None,
    Option(
        "Global, dynamic or static code, or the last two; by default that of the run's method: dynamic for bgaug, "
        "dual.",
        names=FEATURES,
    ),
]


@record
class FinetuneOptions(Options):
    """How the encoder and the head are trained."""

    epochs: Annotated[int, Option("Passes over the training videos, one clip of each.", panel=FINE_TUNING, ge=1)] = 60
    batch_size: Annotated[
        int, Option("Clips per step of fine-tuning.", flag="finetune-batch-size", panel=FINE_TUNING, ge=2)
    ] = 32
    optimiser: Annotated[
        Literal["sgd", "adamw"] | None,
        Option("Optimiser of fine-tuning; by default sgd, for tiny adamw.", panel=FINE_TUNING, rare=True),
    ] = None
    lr: Annotated[
        float | None,
        Option(
            "Highest learning rate of fine-tuning; by default .01 x batch / 32, for tiny .002.",
            panel=FINE_TUNING,
            gt=0,
            lt=float("inf"),
        ),
    ] = None
    weight_decay: Annotated[float, Option("Weight decay of fine-tuning.", panel=FINE_TUNING, ge=0, rare=True)] = 5e-4
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the steps in which the rate rises; then it falls as half of a cosine."""
    dropout: Annotated[
        float, Option("Dropout before the head, in fine-tuning.", panel=FINE_TUNING, ge=0, lt=1, rare=True)
    ] = 0.5
    flip: Annotated[
        float | None,
        Option(
            "Probability of a left-right flip in fine-tuning; by default that of the run.",
            panel=FINE_TUNING,
            ge=0,
            le=1,
            rare=True,
        ),
    ] = None
    seed: Annotated[int, SHARED, Ge(0)] = 0
    folds: Annotated[
        int,
        Option("Trainings where there is no test split; each tests one part of the groups.", panel=FINE_TUNING, ge=2),
    ] = 5


@record
class BiasOptions(Options):
    """The bias evaluation; lengths are pixels of a crop of 112 and scale with the crop."""

    composites: Annotated[
        int, Option("Composites of each test video, over different images.", flag="bias-composites", panel=BIAS, ge=1)
    ] = 3
    clips: Annotated[int, Ge(1)] = 1
    """Clips of each video; their features are averaged."""
    seed: Annotated[int, SHARED] = 0
    donors: Annotated[
        Literal["backgrounds", "stripes", "bank", "folder"],
        Option(
            "Images behind the foregrounds: other videos' backgrounds, generated stripes, a bank of the store, or a "
            "folder; the last three need only masks.",
            flag="bias-donors",
            panel=BIAS,
        ),
    ] = "backgrounds"
    bank: Annotated[str | None, Option("Name of the bank, for --bias-donors bank.", flag="bias-bank", panel=BIAS)] = (
        None
    )
    folder: Annotated[
        Path | None, Option("Folder of images, for --bias-donors folder.", flag="bias-folder", panel=BIAS)
    ] = None
    min_grade: Annotated[
        str | None,
        Option(
            "Leave out test videos whose estimated masks are graded worse, A to F.",
            flag="bias-min-grade",
            panel=BIAS,
            metavar="GRADE",
            rare=True,
        ),
    ] = "E"
    """None accepts all. Masks that were imported, or that a network made, are always used."""
    donor_grade: Annotated[
        str | None,
        Option(
            "Use no estimated backgrounds graded worse, A to F.",
            flag="bias-donor-grade",
            panel=BIAS,
            metavar="GRADE",
            rare=True,
        ),
    ] = "C"
    """None accepts all. A scene that is reconstructed behind imported masks has no grade."""
    min_area: Annotated[float, Ge(0)] = 0.002
    """Least area of a test video's masks, as a share of the clip."""
    videos: Annotated[
        int | None, Option("Largest number of test videos; by default all.", flag="bias-videos", panel=BIAS, ge=1)
    ] = None
    scenes: Annotated[int, Ge(1)] = 8
    """Images of the scene probe."""
    scene_foregrounds: Annotated[int, Ge(0)] = 24
    """Foregrounds of the scene probe."""
    grow: Annotated[float, Ge(0)] = 0.0
    """Dilation of the masks."""
    feather: Annotated[float, Ge(0)] = 1.0
    """Sigma of the blur at the edges of the masks."""
    ring: Annotated[float, Ge(0)] = 7.0
    """Width of the ring."""
    readout: Annotated[
        Literal["probe", "head"],
        Option(
            "Classify by a linear probe, or by the classifier that a supervised run was trained with.",
            panel=BIAS,
        ),
    ] = "probe"
    manifest: Annotated[
        Path | None,
        Option("Manifest of an earlier bias evaluation: the same composites.", flag="bias-manifest", panel=BIAS),
    ] = None
    out: Annotated[
        Path | None, Option("Folder for manifest, report and sheet of bias.", flag="bias-out", panel=BIAS)
    ] = None
    overwrite: Annotated[
        bool, Option("Replace files in --bias-out that are of other kinds.", panel=BIAS, rare=True)
    ] = False
    sheet_rows: Annotated[int, Ge(1)] = 8
    """Composites on the sheet."""
    batch_size: Annotated[int, Ge(1)] = 16
    """Clips encoded at once; does not change the result."""


def _size(value: Any) -> Any:
    if isinstance(value, str) and (value := parse_size(value)) is None:
        raise ValueError("files are brought to one size; give HEIGHTxWIDTH")
    return value


def _penalty(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip() == "cv" else value


def _all(value: Any) -> Any:
    return () if isinstance(value, list) and [str(part).strip() for part in value] == ["all"] else value


def _some(value: tuple[int, ...]) -> tuple[int, ...]:
    return _different(value or (0,)) or ()


def _different(value: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if value is not None and (min(value, default=1) < 1 or len(set(value)) < len(value)):
        raise ValueError(f"takes different numbers of 1 or more, such as 1,2,3, got {','.join(map(str, value))}")
    return value


@record
class EvaluateOptions(ListOptions, EncoderOptions):
    """`bgaug evaluate`."""

    protocols: Annotated[
        tuple[str, ...], Option("What is measured.", flag="protocol", names=PROTOCOLS, commas=True)
    ] = ("retrieval",)
    feature: Feature = None
    clips: Annotated[int, Option("Evenly spaced clips of each video; their features are averaged.", ge=1)] = 10
    batch_size: Annotated[
        int, Option("Videos encoded at once; changes the result by rounding only.", panel=RUNNING, ge=1)
    ] = 8
    threads: Annotated[int, Option("Threads that read clips.", panel=RUNNING, ge=0)] = 2
    best: Best = False
    cache: Annotated[bool, Option("Keep features in RUN/features, and take them from there.", panel=RUNNING)] = True
    centre: Annotated[
        bool,
        Option("Also retrieval of centred features: less their mean over the tested and over the gallery."),
    ] = False
    l2: Annotated[
        float | None,
        Option(
            "Penalty of the linear probe, or cv: chosen by cross-validation in the training videos.",
            metavar="X",
            text=True,
            gt=0,
        ),
        BeforeValidator(_penalty),
    ] = 3e-3
    neighbours: Annotated[
        int | None, Option("Neighbours that vote, for knn; by default 10, or as many as there are.", ge=1)
    ] = None
    shots: Annotated[
        tuple[int, ...],
        AfterValidator(_some),
        Option(
            "Numbers of labelled videos per class, for fewshot.",
            flag="few-shot",
            panel=FEW_LABELS,
            metavar="N",
            old=("shots",),
            commas=True,
        ),
    ] = (1, 5, 10)
    draws: Annotated[int, Option("Draws of the labelled videos, for fewshot.", panel=FEW_LABELS, ge=1)] = 10
    classifier: Annotated[
        FewShotClassifier,
        Option("Linear probe, or nearest class mean.", flag="fewshot-classifier", panel=FEW_LABELS),
    ] = "linear"
    seed: Annotated[int, Option("Seed of the random generator for draws, fine-tuning and bias.", ge=0)] = 0
    splits: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(_all),
        AfterValidator(_different),
        Option(
            "Numbers of the list's splits, or all: the mean over them, and its spread.",
            flag="labels-split",
            panel=LABELS,
            metavar="N",
            old=("splits",),
            commas=True,
        ),
    ] = None
    finetune: FinetuneOptions = FinetuneOptions()
    from_scratch: Annotated[
        bool, Option("With finetune: also from fresh weights, for comparison.", panel=FINE_TUNING)
    ] = False
    bias: BiasOptions = BiasOptions()


@record
class EmbedOptions(LabelOptions, EncoderOptions):
    """`bgaug embed`."""

    feature: Feature = None
    clips: Annotated[int, Option("Evenly spaced clips of each video.", ge=1)] = 10
    best: Best = False
    per_clip: Annotated[bool, Option("Keep one feature per clip instead of their mean.")] = False
    batch_size: Annotated[
        int, Option("Videos of a store encoded at once; changes the result by rounding only.", panel=RUNNING, ge=1)
    ] = 8
    size: Annotated[
        Size | None,
        BeforeValidator(_size),
        Option(
            "Size of the frames of files before the centre crop; by default 128x171, or what the crop needs.",
            metavar="HEIGHTxWIDTH",
        ),
    ] = None
    fit: FitOption = "stretch"
    shots: DetectShots = True
    decoder: DecoderOption = "auto"
    on_error: Annotated[
        Literal["skip", "salvage"],
        Option("A file that breaks off: leave it out, or use its good beginning.", panel=VIDEOS, old=("salvage",)),
    ] = "skip"
    jobs: Jobs = 1
    timeout_seconds: Timeout = 600
    in_process: bool = False
    """Read files in the calling process; a file that hangs or crashes then ends the run."""
    overwrite: Annotated[bool, Option("Replace an existing file.", panel=RUNNING)] = False
