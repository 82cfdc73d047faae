"""Commands about runs: train, evaluate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bgaug.cli.console import TerminalProgress, human_bytes, pairs_table, reported, rows_table, show
from bgaug.cli.options import Debug, Device, Jobs, Json, Overwrite, StoreArgument


def train_command(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            help="bgaug, semi, dual; plain: simclr, moco, byol; published: fame, fame-published, be, be-inter, stillmix, "
            "actorcutmix, actorcutmix-published, mixup, cutmix, dclr."
        ),
    ] = "bgaug",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the method or of its pairs, such as donor=frame, gamma=0 or stages=stage2,stage3; "
            "may be repeated.",
        ),
    ] = None,
    bank: Annotated[str | None, typer.Option(help="The store's bank of pictures, for donor=bank.")] = None,
    backbone: Annotated[
        str,
        typer.Option(
            help="tiny, r3d18, r2plus1d18, r2plus1d18-14m, s3d, slow_r18, c3d, vit, or one's own as module:function."
        ),
    ] = "r3d18",
    weights: Annotated[
        str | None, typer.Option(help="Published weights to begin with, a file by torchvision's names.")
    ] = None,
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
        Literal["stored", "motion"] | None,
        typer.Option(help="Stored masks, or computed on the device; by default what the method says."),
    ] = None,
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

        bgaug train shards --out run --set donor=far --set w_static=0.25

        bgaug train shards --out run --resume
    """
    with reported(debug):
        from bgaug.pipelines.train import TrainOptions, parse_changes, train

        options = TrainOptions(
            method=method,
            backbone=backbone,
            weights=weights,
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
            change=parse_changes(change or []),
            bank=bank,
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
                f"contact sheet: {result.sheet}\nheat maps: {result.heatmaps}"
                + ("\n--quick shows that it runs; it claims nothing" if quick else "")
            )
