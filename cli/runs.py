"""Commands about runs: evaluate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bgaug.cli.console import TerminalProgress, human_bytes, reported, rows_table, show
from bgaug.cli.options import Debug, Device, Jobs, Json, Overwrite, StoreArgument


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
