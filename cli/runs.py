"""The command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bgaug.cli.console import TerminalProgress, human_bytes, rows_table, say, show
from bgaug.pipelines.options import Jobs, Option


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
        say(f"contact sheet: {result.sheet}", f"heat maps: {result.heatmaps}")
        if quick:
            say("--quick shows that it runs; it claims nothing")
