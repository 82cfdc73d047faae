"""Options of the commands that read videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from bgaug.errors import UsageError
from bgaug.labels import FORMATS
from bgaug.names import BACKGROUND_METHODS, Decoder, FrameKind
from bgaug.pipelines.options import RUNNING, Jobs, Option, Options, record
from bgaug.sizing import BACKGROUND_SIZE, STORE_SIZE, Fit, Size, parse_size

_OnError = Literal["skip", "salvage", "fail"]
Partial = Literal["keep", "empty"]
_Role = Literal["cue", "mask"]
LABELS, BACKGROUNDS, MASKS, VIDEOS = "Labels", "Backgrounds", "Masks", "Videos"


DecoderOption = Annotated[
    Decoder, Option("Library that decodes; auto is PyAV, and decord reads sequentially only.", panel=VIDEOS)
]
DetectShots = Annotated[
    bool,
    Option(
        "Look for cuts and camera motion; otherwise a video is one static shot.",
        flag="detect-shots",
        panel=VIDEOS,
        old=("shots", "no-shots"),
    ),
]
FitOption = Annotated[
    Fit,
    Option("How videos of another display aspect are brought to the size; stretch ignores aspects.", panel=VIDEOS),
]
Timeout = Annotated[
    float,
    Option(
        "Time limit per video, in seconds; 0 for none.",
        flag="timeout",
        panel=RUNNING,
        metavar="SECONDS",
        ge=0,
        lt=float("inf"),
    ),
]
FollowLinks = Annotated[
    bool, Option("Also follow links that lead out of the given folders, as in Hugging Face caches.", panel=VIDEOS)
]


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


_StoredSize = Annotated[Size | None, BeforeValidator(_size)]
"""(height, width), or text such as "128x171"; None or "native" for the videos' own size."""


def _layout(value: str) -> str:
    from bgaug.labels import parse_layout

    parse_layout(value)
    return value


def _columns(value: str | None) -> str | None:
    from bgaug.labels import parse_columns

    if value is not None:
        parse_columns(value)
    return value


@record
class FolderOptions(Options):
    """How folders of videos are walked."""

    layout: Annotated[
        str,
        Option(
            "Meaning of the folders of videos without --labels: levels named class, split and * (nothing), such as "
            "split/class; none takes no labels from folders; auto finds train, val, test and class folders.",
            panel=LABELS,
            metavar="LEVELS",
        ),
        AfterValidator(_layout),
    ] = "auto"
    follow_links: FollowLinks = False


@record
class ListOptions(Options):
    """How a list of labels is read."""

    labels: Annotated[
        Path | None,
        Option(
            "List of labels, or the folder that a data set ships: UCF101, HMDB51, Kinetics, Something-Something V2, "
            "Diving48 V2, lines of a path and a number, or a table (CSV, JSON lines) with a header: file, class (or "
            "label, class_id), optional group and split.",
        ),
    ] = None
    labels_format: Annotated[
        str, Option("Format of the list; auto recognises it.", panel=LABELS, names=FORMATS, also=("auto",))
    ] = "auto"
    class_names: Annotated[
        Path | None,
        Option(
            "Names of a list's numbered classes: a name, or a number and a name, on each line. By default the only "
            "label_map*.txt next to the list.",
            panel=LABELS,
        ),
    ] = None
    first_class: Annotated[
        int | None,
        Option(
            "Number of the first class of --class-names in the list, 0 or 1; found out by default.",
            panel=LABELS,
            ge=0,
            le=1,
        ),
    ] = None
    columns: Annotated[
        str | None,
        Option(
            "Columns of a list without header: path,label or path,frames,label or path,offset,frames,label; found out "
            "by default.",
            panel=LABELS,
            metavar="NAMES",
        ),
        AfterValidator(_columns),
    ] = None


@record
class LabelOptions(ListOptions, FolderOptions):
    """Where the labels of videos come from."""

    labels_split: Annotated[
        int | None,
        Option(
            "Number of the data set's split; by default 1, or the one of a list that is a single file.",
            panel=LABELS,
            old=("split",),
            ge=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        about_a_list = (self.labels_split, self.class_names, self.first_class, self.columns)
        if self.labels is None and (self.labels_format != "auto" or any(one is not None for one in about_a_list)):
            raise UsageError(
                "a format, a split or class names, a first class and columns say how a list of labels is read: give "
                "its path too"
            )
        if self.labels is not None and self.layout != "auto":
            raise UsageError("a layout is about folders, and labels are taken from a list: leave out one of the two")


@record
class VideoOptions(Options):
    """How a video is decoded and its backgrounds are estimated: everything that decides what is stored for it."""

    method: Annotated[
        str,
        Option(
            "How backgrounds are estimated; auto weighs the others, region by region.",
            flag="background-method",
            panel=BACKGROUNDS,
            names=BACKGROUND_METHODS,
            old=("method",),
        ),
    ] = "auto"
    decoder: DecoderOption = "auto"
    num_samples: int = 51
    """Frames that a background is estimated from."""
    background_side: Annotated[
        int,
        Option("Longest short side, in pixels, at which backgrounds are estimated.", panel=BACKGROUNDS, ge=16),
    ] = 360
    memory: Annotated[
        int,
        Option("Megabytes of sampled frames that each process may hold.", panel=RUNNING, ge=1, factor=2**20),
    ] = 256 * 2**20
    shots: DetectShots = True
    on_error: Annotated[
        _OnError,
        Option("A video that breaks off: leave it out, keep its good beginning, or end the run.", panel=VIDEOS),
    ] = "skip"
    segmenter: Annotated[
        Path | None,
        Option(
            "Segmentation network, an ONNX or TFLite model; its settings are in a TOML file of the same name next to "
            "it, unless its name is a published one.",
            panel=MASKS,
            metavar="MODEL",
        ),
    ] = None
    segmenter_as: Annotated[
        _Role,
        Option(
            "What the network decides: mask makes the mask of every frame from it; cue lets it support the motion "
            "where that decides about the masks.",
            panel=MASKS,
        ),
    ] = "cue"
    segmenter_digest: str | None = None
    """Digest that the network must have; a build sets it when it begins."""

    def __post_init__(self) -> None:
        if self.segmenter is None and self.segmenter_as != "cue":
            raise UsageError("--segmenter-as mask makes masks from a network: give its path as --segmenter MODEL")


@record
class WorkerOptions(Options):
    """How the work is spread over processes."""

    jobs: Jobs = 0
    timeout_seconds: Timeout = 600
    in_process: bool = False
    """Work in this very process; a video that hangs or crashes then ends the run, and the options above are unused."""


@record
class BuildOptions(LabelOptions, WorkerOptions):
    """What the commands that build a store have in common."""

    inputs: Annotated[
        Sequence[Path],
        Option("Folders, walked recursively, and video files.", argument=True, metavar="VIDEOS..."),
    ]
    out: Annotated[Path, Option("The store to build.", metavar="STORE")]
    size: Annotated[
        _StoredSize, Option("Size of what is stored, or native for videos of one size.", metavar="HEIGHTxWIDTH")
    ] = STORE_SIZE
    fit: FitOption = "stretch"
    video: VideoOptions = VideoOptions()
    retry_failed: Annotated[bool, Option("Try videos again that failed in an earlier run.", panel=RUNNING)] = False
    overwrite: Annotated[bool, Option("Begin again where the store exists.", panel=RUNNING)] = False


@record
class BackgroundOptions(BuildOptions):
    """`bgaug extract-backgrounds`."""

    size: Annotated[
        _StoredSize, Option("Size of the backgrounds, or native for videos of one size.", metavar="HEIGHTxWIDTH")
    ] = BACKGROUND_SIZE


@record
class ShardOptions(BuildOptions):
    """`bgaug build-shards`."""

    backgrounds: Annotated[
        Path | None,
        Option(
            "Store that extract-backgrounds made; a video that it lacks, or whose file changed since, gets its "
            "background in the same pass."
        ),
    ] = None
    frames: Annotated[
        FrameKind, Option("How frames are kept: jpeg is a tenth of raw.", flag="store-frames", old=("frames",))
    ] = "jpeg"
    estimate: Annotated[
        bool, Option("Build a hundredth of the videos elsewhere, and report size and time of the whole.")
    ] = False
