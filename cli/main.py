"""The commands of `bgaug`. What a command needs is imported when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import bgaug
from bgaug.cli import doctor, encoders, evaluations, stores, training, videos
from bgaug.cli.commands import Command, command
from bgaug.cli.console import INTERRUPTED, show_usage_error

_RENAMED = {"probe": "inspect"}


class Commands(TyperGroup):
    """The commands, with messages in which nothing of the arguments can reach the terminal as it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command; a former name is answered with the new one."""
        if args and args[0] in _RENAMED:
            ctx.fail(f"the command {args[0]} is now {_RENAMED[args[0]]}")
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; leaves with its exit code."""
        act = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return act()
        try:
            code = act()
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Exception as error:
            if not hasattr(error, "format_message"):  # click's errors; typer brings its own click since 0.25
                raise
            code = show_usage_error(error)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="bgaug",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Against background bias in video representation learning: backgrounds, shards, training, measuring.\n\n"
    "Start with [bold]bgaug demo[/], or with your videos: [bold]bgaug extract-backgrounds VIDEOS --out bg[/].",
)


def _version(requested: bool) -> None:
    if requested:
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


COMMANDS: dict[str, Callable[..., None]] = {
    "extract-backgrounds": videos.extract_backgrounds_command,
    "build-shards": videos.build_shards_command,
    "verify": stores.verify_command,
    "preview": stores.preview_command,
    "merge": stores.merge_command,
    "import": stores.import_command,
    "segment": stores.segment_command,
    "export": stores.export_command,
    "inspect": videos.inspect_command,
    "train": training.train_command,
    "evaluate": evaluations.evaluate_command,
    "heatmap": encoders.heatmap_command,
    "embed": encoders.embed_command,
    "export-weights": encoders.export_weights_command,
    "demo": training.demo_command,
    "doctor": doctor.doctor_command,
}
for _name, _function in COMMANDS.items():
    app.command(_name, cls=Command)(command(_function))


if __name__ == "__main__":
    from bgaug.cli.start import main

    main()
