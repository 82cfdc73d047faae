"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bgaug.cli.console import TerminalProgress, note, pairs_table, show
from bgaug.cli.options import StorePath
from bgaug.pipelines.options import Option
from bgaug.pipelines.train.options import TrainOptions

_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train_command(
    store: StorePath,
    out: Annotated[Path, Option("Folder of the run.", metavar="RUN")],
    options: TrainOptions,
    as_json: bool,
) -> None:
    """Train an encoder on a store, by contrast.

    A checkpoint is written after each epoch, and when the run is stopped by Ctrl-C or SIGTERM; `--resume` continues
    with exactly the next batch. Every step is a line in RUN/log.jsonl; RUN/config.toml holds the options, for
    `--config`.
    Several processes: torchrun --nproc-per-node 4 -m bgaug.cli.main train ...

    Examples:
        bgaug train shards --out run --backbone tiny --epochs 2

        bgaug train shards --out run --method simclr --batch-size 32 --device cuda

        bgaug train shards --out run --set donor=far --set w_static=0.25

        bgaug train shards --out run --resume

        bgaug train shards --out run --meters 64 --best-by motion_r1 --tensorboard

        bgaug train shards --out again --config run/config.toml --seed 1
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
