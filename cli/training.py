"""The commands `train` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bgaug.cli.console import TerminalProgress, human_bytes, note, pairs_table, rows_table, show, write_lines
from bgaug.pipelines.options import Jobs, Option, StorePath
from bgaug.pipelines.train.options import TrainOptions

_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train_command(
    store: StorePath,
    out: Annotated[Path, Option("Folder of the run.", metavar="RUN")],
    options: TrainOptions,
    as_json: bool,
) -> None:
    """Train an encoder on a store, by contrast or on its labels (--method supervised).

    A checkpoint is written after each epoch, and when the run is stopped by Ctrl-C or SIGTERM; `--resume` continues
    with exactly the next batch. Every step is a line in RUN/log.jsonl; RUN/config.toml holds the options, for
    `--config`.
    Several processes: torchrun --nproc-per-node 4 -m bgaug.cli.main train ...

    Examples:
        bgaug train shards --out run --backbone tiny --epochs 2

        bgaug train shards --out run --set donor=far --batch-size 32 --device cuda

        bgaug train shards --out run --resume

        bgaug train shards --out run --meters 64 --best-by motion_r1 --tensorboard

        bgaug train shards --out again --config run/config.toml --seed 1

        bgaug train shards --out tuned --method supervised-albar --from run --set policy=stillmix
    """
    from bgaug.pipelines.train.run import train

    with TerminalProgress() as progress:
        result = train(store, out, progress, options)
    if not result.reports:
        return
    show(result.to_json(), as_json, lambda: pairs_table(f"run in {out}", result.to_json()))
    if result.trained.stopped:
        note(f"stopped by {result.trained.stopped} after step {result.trained.steps}; continue with --resume")
        raise typer.Exit(_EXIT_CODES[result.trained.stopped])


def demo_command(
    out: Annotated[Path, Option("Folder for videos, stores, runs and images.", metavar="FOLDER")] = Path("demo"),
    quick: Annotated[bool, Option("About a minute; the accuracies mean nothing.")] = False,
    seed: Annotated[int, Option("Seed of the random generator for the trainings.")] = 0,
    steps: Annotated[int | None, Option("Steps of each training.", ge=1)] = None,
    jobs: Jobs = 0,
    overwrite: Annotated[bool, Option("Begin again, whatever an earlier run left there.")] = False,
    *,
    as_json: bool,
) -> None:
    """Run the whole job on generated videos and end with numbers and an image to open.

    Eight motions; in the training videos scene and prop give the motion away. A plain SimCLR and bgaug are trained side
    by side and tested with the backgrounds swapped.

    Examples:
        bgaug demo

        bgaug demo --quick --out quick
    """
    from dataclasses import replace

    from bgaug.pipelines.demo.run import DemoOptions, demo

    options = replace(DemoOptions.quick() if quick else DemoOptions(), seed=seed)
    options = replace(options, steps=steps) if steps else options
    with TerminalProgress() as progress:
        result = demo(out, progress, options=options, jobs=jobs, overwrite=overwrite)
    rows = [(name, *(f"{value:.1f}" for value in tests.values())) for name, tests in result.accuracies.items()]
    title = [
        (
            f"{result.to_json()['videos']} videos, {human_bytes(result.backgrounds.bytes)} of backgrounds, "
            f"{human_bytes(result.shards.bytes)} of shards, {result.steps} steps each, {result.seconds:.0f} s"
        ),
        "linear probe, accuracy in % (chance 12.5)",
    ]
    header = ("", "iid", "swapped background", "background only (ideal 12.5)")
    show(result.to_json(), as_json, lambda: rows_table(title, header, rows))
    if not as_json:
        write_lines(f"contact sheet: {result.sheet}", f"heat maps: {result.heatmaps}")
        if quick:
            write_lines("--quick shows that it runs; it claims nothing")
