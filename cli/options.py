"""Options and arguments that several commands share."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bgaug.pipelines.options import Option

if TYPE_CHECKING:
    from bgaug.model.pretrained import Word


def from_file(context: typer.Context, file: Path | None) -> Path | None:
    """Options of a TOML file become the command's defaults.

    Raises:
        typer.BadParameter: the file cannot be read, or names an option that the command does not have.
    """
    if file is None:
        return None
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read as TOML: {error}") from error
    options = {
        word.lstrip("-"): str(parameter.name)
        for parameter in context.command.params
        for word in (*parameter.opts, *parameter.secondary_opts)
        if word.startswith("--") and parameter.name != "config"
    }
    if "trust" in given:
        raise typer.BadParameter(
            f"{file}: --trust is for the command line; a file cannot say that files are to be trusted"
        )
    unknown = [name for name in given if name.replace("_", "-") not in options]
    if unknown:
        raise typer.BadParameter(f"{file}: no option {', '.join(unknown)} here; there are {', '.join(sorted(options))}")
    defaults = {options[name.replace("_", "-")]: value for name, value in given.items()}
    context.default_map = {**(context.default_map or {}), **defaults}
    return file


def user_word(context: typer.Context, backbone: str | None, trust: bool) -> Word:
    """What the user says about encoders in files; see `bgaug.model.pretrained.Word`.

    Raises:
        UsageError: a file of options says it for them.
    """
    from bgaug.errors import UsageError
    from bgaug.model.pretrained import Word

    source = context.get_parameter_source("backbone")
    if backbone is not None and ":" in backbone and not trust and getattr(source, "name", "") != "COMMANDLINE":
        raise UsageError(
            f"the file of options names the backbone {backbone[:200]!r}, and a name inside a file is never imported; give "
            "--backbone on the command line, or --trust"
        )
    return Word(backbone, trust)


Videos = Annotated[list[Path], typer.Argument(help="Folders, walked recursively, and video files.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where the result goes.", show_default=False)]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        help="List of labels, or the folder that a data set ships: UCF101, HMDB51, Kinetics, Something-Something V2, "
        "Diving48 V2, lines of a path and a number, or a table (CSV, JSON lines) with a header: file, class (or label, "
        "class_id), optional group and split. Without it, labels are taken from folders; see --layout."
    ),
]
LabelsFormat = Annotated[
    Literal["auto", "csv", "ucf101", "hmdb51", "kinetics", "ssv2", "diving48", "filelist", "pickle"],
    typer.Option(help="Format of the list; auto looks."),
]
Split = Annotated[
    int | None, typer.Option(help="Which of a data set's splits; 1, or the one of a list that is a single file.", min=1)
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        help="Names of a list's numbered classes: a name, or a number and a name, on each line. By default the only "
        "label_map*.txt beside the list."
    ),
]
FirstClass = Annotated[
    int | None,
    typer.Option(
        help="Number that the list has for the first class of --class-names, 0 or 1; by default found out, and said.",
        min=0,
        max=1,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="What stands on each line of a list without header: path,label or path,frames,label or "
        "path,offset,frames,label. By default found out; refused where a row may have several labels."
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        help="What the folders of videos mean, without --labels: levels named class, split and * (nothing), such as "
        "split/class; none takes no labels from them. auto finds train, val, test and class folders, and says what it found."
    ),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links", help="Also follow links that lead out of the folders named, as in Hugging Face caches."
    ),
]
FitOption = Annotated[
    Literal["stretch", "pad", "crop"],
    typer.Option(
        help="How videos of another display aspect are brought to the size; stretch takes no notice of aspects."
    ),
]
DecoderOption = Annotated[
    Literal["auto", "pyav", "decord"], typer.Option(help="Who decodes; auto is PyAV. decord reads sequentially only.")
]
MethodOption = Annotated[
    Literal["auto", "median", "gated", "lowrank", "patches", "plate", "mog2", "knn"],
    typer.Option(help="How backgrounds are estimated; auto weighs the others, region by region."),
]
Shots = Annotated[
    bool, typer.Option("--shots/--no-shots", help="Look for cuts and camera motion; else a video is one static shot.")
]
OnError = Annotated[
    Literal["skip", "salvage", "fail"],
    typer.Option(help="A video that breaks off: leave it out, keep its good beginning, or end the run."),
]
Jobs = Annotated[int, typer.Option(help="Processes; 0 for one a processor.", min=0)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew what is there.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try videos again that failed in an earlier run.")]
Timeout = Annotated[float, typer.Option(help="Time limit per video, in seconds; 0 for none.", min=0)]
Memory = Annotated[int, typer.Option(help="Megabytes of samples that each process may hold.", min=16)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=from_file,
        help="TOML file of options by their names here; what stands on the command line wins.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default CUDA where there is one.")]
OwnBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="MODULE:FUNCTION that builds the encoder of a run with one of your own; a name inside a file is never imported.",
        show_default=False,
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Import the MODULE:FUNCTION that a file names: only for files of your own.")
]
StoreArgument = Annotated[Path, typer.Argument(help="A store.", show_default=False)]
StorePath = Annotated[Path, Option("A store.", argument=True, metavar="STORE")]
