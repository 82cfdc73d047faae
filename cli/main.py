"""The commands of `bgaug`. What a command needs is imported when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import bgaug
from bgaug.cli.console import FAILED, TerminalProgress, human_bytes, pairs_table, reported, rows_table, show

app = typer.Typer(
    name="bgaug",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Against background bias in video representation learning: backgrounds, shards, training, measuring.\n\n"
    "Start with [bold]bgaug demo[/], or with your videos: [bold]bgaug extract-backgrounds VIDEOS --out bg[/].",
)

Videos = Annotated[list[Path], typer.Argument(help="Folders, walked recursively, and video files.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where the result goes.", show_default=False)]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        help="CSV with a header: file, class_name (or class, label, class_id), optional group and split. "
        "Without it, class folders are taken where there are two or more."
    ),
]
FitOption = Annotated[
    Literal["stretch", "pad", "crop"], typer.Option(help="How pictures of another aspect are brought to the size.")
]
DecoderOption = Annotated[
    Literal["auto", "pyav", "decord"], typer.Option(help="Who decodes; auto is PyAV. decord reads sequentially only.")
]
MethodOption = Annotated[Literal["auto", "median"], typer.Option(help="How the background is estimated.")]
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
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default CUDA where there is one.")]
StoreArgument = Annotated[Path, typer.Argument(help="A store.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bgaug {bgaug.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    # Threads of OpenMP that spin while they wait make torch ten times slower as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


@app.command("extract-backgrounds")
def extract_backgrounds_command(
    videos: Videos,
    out: Out,
    labels: LabelFile = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH at which backgrounds are stored, or native.")] = "256x342",
    fit: FitOption = "stretch",
    method: MethodOption = "auto",
    background_side: Annotated[int, typer.Option(help="Longest short side at which they are estimated.", min=16)] = 360,
    decoder: DecoderOption = "auto",
    memory: Memory = 256,
    jobs: Jobs = 0,
    shots: Shots = True,
    on_error: OnError = "skip",
    timeout: Timeout = 600,
    retry_failed: RetryFailed = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Extract the static background of every video into a store.

    A rerun goes on where an earlier one stopped. A video that cannot be read costs itself alone: it is named here and
    in STORE/failures.jsonl, and the exit code is 1.

    Examples:

        bgaug extract-backgrounds videos/ --out bg

        bgaug extract-backgrounds videos/ --out bg --labels videos/labels.csv --jobs 8 --json
    """
    with reported(debug):
        from bgaug.pipelines.each_video import Setup
        from bgaug.pipelines.extract_backgrounds import extract_backgrounds
        from bgaug.pipelines.watch import WatchOptions
        from bgaug.sizing import parse_size

        options = WatchOptions(
            method=method,
            decoder=decoder,
            background_side=background_side,
            memory=memory * 2**20,
            shots=shots,
            on_error=on_error,
        )
        with TerminalProgress() as progress:
            outcome = extract_backgrounds(
                Setup(videos, out, labels, jobs, overwrite, retry_failed, timeout),
                progress,
                options=options,
                size=parse_size(size),
                fit=fit,
            )
        _show_outcome(f"backgrounds in {out}", outcome, as_json)


@app.command("build-shards")
def build_shards_command(
    videos: Videos,
    out: Out,
    backgrounds: Annotated[Path | None, typer.Option(help="A store that extract-backgrounds made.")] = None,
    labels: LabelFile = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of all frames, or native for one-sized videos.")] = "128x171",
    fit: FitOption = "stretch",
    frames: Annotated[
        Literal["jpeg", "raw", "none"], typer.Option(help="How frames are kept: jpeg is a tenth of raw.")
    ] = "jpeg",
    method: MethodOption = "auto",
    background_side: Annotated[int, typer.Option(help="Longest short side at which they are estimated.", min=16)] = 360,
    decoder: DecoderOption = "auto",
    memory: Memory = 256,
    jobs: Jobs = 0,
    shots: Shots = True,
    on_error: OnError = "skip",
    timeout: Timeout = 600,
    retry_failed: RetryFailed = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a store to train from: frames, foreground masks and backgrounds.

    Backgrounds that are not given are estimated in the same pass. A rerun goes on where an earlier one stopped.

    Examples:

        bgaug build-shards videos/ --out shards --backgrounds bg --labels videos/labels.csv

        bgaug build-shards videos/ --out shards --size 112 --fit crop --frames raw
    """
    with reported(debug):
        from bgaug.pipelines.build_shards import build_shards
        from bgaug.pipelines.each_video import Setup
        from bgaug.pipelines.watch import WatchOptions
        from bgaug.sizing import parse_size

        options = WatchOptions(
            method=method,
            decoder=decoder,
            background_side=background_side,
            memory=memory * 2**20,
            shots=shots,
            on_error=on_error,
        )
        with TerminalProgress() as progress:
            outcome = build_shards(
                Setup(videos, out, labels, jobs, overwrite, retry_failed, timeout),
                progress,
                options=options,
                size=parse_size(size),
                fit=fit,
                frames=frames,
                backgrounds=backgrounds,
            )
        _show_outcome(f"shards in {out}", outcome, as_json)


def _show_outcome(title: str, outcome: Any, as_json: bool) -> None:
    result = outcome.to_json()
    show(result, as_json, lambda: pairs_table(title, {**result, "bytes": human_bytes(result["bytes"])}))
    if outcome.failures:
        raise typer.Exit(FAILED)


@app.command("verify")
def verify_command(
    store: StoreArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every frame, mask and background.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every commit, size and checksum of a store.

    The content hash is the same for the same videos and options, whoever built the store and when.

    Examples:

        bgaug verify shards

        bgaug verify shards --deep --json
    """
    with reported(debug):
        from bgaug.store import verify_store
        from bgaug.store.layout import read_header

        with TerminalProgress() as progress:
            progress.start("shards", int(read_header(store).plan["shards"]))
            report = verify_store(store, deep=deep, on_shard=progress.advance)
            for problem in report.problems:
                lost = f" (holds {', '.join(problem.videos[:3])}{', ...' if len(problem.videos) > 3 else ''})"
                progress.warn(f"{problem.path}: {problem.message}{lost if problem.videos else ''}")
        result = {
            "ok": not report.problems,
            "problems": [{"path": str(p.path), "message": p.message, "videos": p.videos} for p in report.problems],
            "shards": report.num_shards,
            "videos": report.num_videos,
            "frames": report.num_frames,
            "bytes": report.num_bytes,
            "content_hash": report.content_hash,
        }
        verdict = "whole" if not report.problems else f"{len(report.problems)} problems"
        shown = {**result, "problems": len(report.problems), "bytes": human_bytes(report.num_bytes)}
        show(result, as_json, lambda: pairs_table(f"{store}: {verdict}", shown))
        if report.problems:
            raise typer.Exit(FAILED)


@app.command("preview")
def preview_command(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="The picture, .png or .jpg.")] = Path("sheet.png"),
    rows: Annotated[int, typer.Option(help="Videos shown.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Chooses frames and donors.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw a contact sheet: frame, background, mask, and the frame's foreground over another background.

    Examples:

        bgaug preview shards --out sheet.png

        bgaug preview shards --rows 30 --seed 1
    """
    with reported(debug):
        from bgaug.store import open_store
        from bgaug.visualize import contact_sheet, write_picture

        path = write_picture(out, contact_sheet(open_store(store), rows=rows, seed=seed))
        show({"sheet": str(path)}, as_json, lambda: str(path))


@app.command("probe")
def probe_command(
    videos: Videos,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also decode: real frames, cuts, random seeks tried, decord.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what files really hold, and which reader can be trusted with them.

    Leaves with 1 if a file cannot be used, or breaks off.

    Examples:

        bgaug probe video.avi

        bgaug probe videos/ --deep --json
    """
    with reported(debug):
        from bgaug.pipelines.probe import probe_videos

        with TerminalProgress() as progress:
            probes = list(probe_videos(videos, progress, deep=deep))
        bad = [p for p in probes if p.error or p.cut_short or (p.deep is not None and p.deep.breaks_off)]
        result = {"videos": [probe.to_json() for probe in probes], "bad": len(bad)}
        header = ("file", "codec", "size", "frames", "seconds", "group", "cuts", "by index", "decord")
        title = "group: most frames from one keyframe to the next"
        show(result, as_json, lambda: rows_table(title, header, [_probe_row(probe) for probe in probes]))
        if bad:
            raise typer.Exit(FAILED)


def _probe_row(probe: Any) -> tuple[str, ...]:
    name = probe.path.name
    if probe.error:
        return (name, *[""] * 6, probe.error, "")
    info, deep = probe.info, probe.deep
    turned = f" turned {info.rotation_degrees}" if info.rotation_degrees else ""
    frames = str(deep.real_frames if deep else probe.packet_frames)
    if info.declared_frames not in (None, int(frames)):
        frames += f" of {info.declared_frames} claimed"
    seeks = (deep.seeks if deep else "") or ("seeks" if not probe.seeks else f"sequential: {probe.seeks}")
    if deep and deep.breaks_off:
        seeks = deep.breaks_off
    elif probe.cut_short:
        seeks = "the file is cut short; " + seeks
    return (
        name,
        f"{info.codec} {probe.pixel_format}",
        f"{info.height}x{info.width}{turned}",
        frames,
        f"{probe.duration_seconds:.2f}" + (" varying rate" if probe.variable_rate else ""),
        str(probe.longest_group),
        "" if probe.cuts is None else ", ".join(map(str, probe.cuts)) or "none",
        seeks,
        deep.decord if deep else "",
    )


@app.command("train")
def train_command(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    method: Annotated[str, typer.Option(help="bgaug, semi, dual, simclr or moco.")] = "bgaug",
    backbone: Annotated[str, typer.Option(help="tiny, r3d18 or r2plus1d18.")] = "r3d18",
    epochs: Annotated[int, typer.Option(help="Passes over the videos.", min=1)] = 200,
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run, instead of epochs.", min=1)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Clips a step; by default 64, or half of the videos if fewer.", min=2)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, clips and augmentation.")] = 0,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; by default what suits the backbone.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of a clip.", min=2)] = 16,
    stride: Annotated[int, typer.Option(help="Distance of the frames.", min=1)] = 2,
    crop: Annotated[int | None, typer.Option(help="Side of the crops; by default 112 or less.", min=8)] = None,
    flip: Annotated[
        float | None, typer.Option(help="Probability of a flip; 0 where left and right mean something.")
    ] = None,
    masks: Annotated[
        Literal["stored", "motion"], typer.Option(help="Stored masks, or computed on the device.")
    ] = "stored",
    momentum: Annotated[
        bool | None, typer.Option(help="Momentum encoder and queue; by default above 2,000 videos.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Videos of this split alone; may be repeated.")] = None,
    min_grade: Annotated[str | None, typer.Option(help="Leave out shots graded worse, A to F.")] = None,
    amp: Annotated[
        Literal["off", "bf16"] | None, typer.Option(help="Mixed precision; by default bf16 on CUDA.")
    ] = None,
    threads: Annotated[int, typer.Option(help="That read clips.", min=0)] = 2,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    stop_after: Annotated[
        int | None, typer.Option(help="Stop after so many steps, as an interruption would.", min=1)
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train an encoder on a store, by contrast.

    A checkpoint is written after each epoch; `--resume` goes on with exactly the next batch. Every step is a line in
    RUN/log.jsonl.

    Examples:

        bgaug train shards --out run --backbone tiny --epochs 2

        bgaug train shards --out run --method simclr --batch-size 32 --device cuda

        bgaug train shards --out run --resume
    """
    with reported(debug):
        from bgaug.pipelines.train import TrainOptions, train

        options = TrainOptions(
            method=method,
            backbone=backbone,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            lr=lr,
            num_frames=frames,
            stride=stride,
            crop=crop,
            flip=flip,
            masks=masks,
            momentum=momentum,
            splits=tuple(split) if split else None,
            min_grade=min_grade,
            amp=amp,
        )
        with TerminalProgress() as progress:
            result = train(
                store,
                out,
                progress,
                options=options,
                resume=resume,
                overwrite=overwrite,
                stop_after=stop_after,
                device=device,
                threads=threads,
            )
        show(result.to_json(), as_json, lambda: pairs_table(f"run in {out}", result.to_json()))


@app.command("evaluate")
def evaluate_command(
    run: Annotated[Path, typer.Argument(help="A run that train made.", show_default=False)],
    store: StoreArgument,
    protocol: Annotated[str, typer.Option(help="retrieval, linear, or both with a comma.")] = "retrieval",
    feature: Annotated[Literal["g", "d", "r", "dr"], typer.Option(help="Global, dynamic, static code, or both.")] = "g",
    clips: Annotated[int, typer.Option(help="Evenly spaced clips of each video, averaged.", min=1)] = 10,
    batch_size: Annotated[int, typer.Option(help="Videos encoded at once.", min=1)] = 8,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what the frozen features of a run are worth on the labelled videos of a store.

    Retrieval: R@k, the share of videos whose k nearest neighbours include one of their class. Test split against train
    split where the store has both, else each group against the others, else each video against the others.

    Examples:

        bgaug evaluate run shards --protocol retrieval

        bgaug evaluate run shards --protocol retrieval,linear --feature d --json
    """
    with reported(debug):
        from bgaug.pipelines.evaluate import evaluate

        with TerminalProgress() as progress:
            found = evaluate(
                run,
                store,
                progress,
                protocols=[name.strip() for name in protocol.split(",") if name.strip()],
                which=feature,
                clips=clips,
                batch_size=batch_size,
                device=device,
            )
        settings = ", ".join(f"{name} {value}" for name, value in found.settings.items() if name != "run")
        rows = [(name, f"{value:.1f}") for name, value in found.metrics.items()]
        show(found.to_json(), as_json, lambda: rows_table(f"{run} on {store} ({settings})", ("metric", "%"), rows))


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for videos, stores, runs and pictures.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="About a minute; the accuracies mean nothing.")] = False,
    seed: Annotated[int, typer.Option(help="Of the trainings.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Of each training.", min=1)] = None,
    jobs: Jobs = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the whole job on generated videos and end with numbers and a picture to open.

    Eight motions; in the training videos scene and prop give the motion away. A plain SimCLR and bgaug are trained side
    by side and tested with the backgrounds swapped.

    Examples:

        bgaug demo

        bgaug demo --quick --out quick
    """
    with reported(debug):
        from dataclasses import replace

        from bgaug.pipelines.demo import DemoOptions, demo

        options = replace(DemoOptions.quick() if quick else DemoOptions(), seed=seed)
        options = replace(options, steps=steps) if steps else options
        with TerminalProgress() as progress:
            result = demo(out, progress, options=options, jobs=jobs, overwrite=overwrite)
        rows = [(name, *(f"{value:.1f}" for value in tests.values())) for name, tests in result.accuracies.items()]
        title = (
            f"{result.to_json()['videos']} videos, {human_bytes(result.backgrounds.bytes)} of backgrounds, "
            f"{human_bytes(result.shards.bytes)} of shards, {result.steps} steps each, {result.seconds:.0f} s\n"
            "linear probe, accuracy in % (chance 12.5)"
        )
        header = ("", "iid", "swapped background", "background only (ideal 12.5)")
        show(result.to_json(), as_json, lambda: rows_table(title, header, rows))
        if not as_json:
            typer.echo(
                f"contact sheet: {result.sheet}" + ("\n--quick shows that it runs; it claims nothing" if quick else "")
            )


if __name__ == "__main__":
    app()
