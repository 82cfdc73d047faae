"""Commands about trained encoders: heatmap, embed, export-weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgaug.cli.console import FAILED, TerminalProgress, note, pairs_table, rows_table, show
from bgaug.pipelines.evaluate.options import EmbedOptions
from bgaug.pipelines.heatmap.options import HeatmapOptions
from bgaug.pipelines.options import Best, EncoderOptions, Option, RunPath

if TYPE_CHECKING:
    from bgaug.pipelines.heatmap.run import HeatmapReport

_Inputs = Annotated[
    list[str], Option("A store (folder or URL), or folders and files of videos.", argument=True, metavar="INPUTS...")
]


def heatmap_command(
    run: RunPath,
    inputs: _Inputs,
    out: Annotated[Path, Option("Folder for sheet, films and numbers.", metavar="FOLDER")],
    options: HeatmapOptions,
    as_json: bool,
) -> None:
    """Draw what an encoder looks at, and measure how much of it is the foreground.

    Writes OUT/sheet.png, one film (.mp4) per clip and OUT/heatmaps.json. Energy: share of a map's sum in the mask;
    times chance: the same over the mask's share of the image. The ring around the mask is where props, shadows and rims
    are. Masks are the store's own, unless --masks names others. What is shown is held out from the probe.

    Examples:
        bgaug heatmap run shards --out maps

        bgaug heatmap run shards --against simclr --map cam --videos 0 --no-films --out maps

        bgaug heatmap run shards --masks truth --values cdnet --out maps

        bgaug heatmap run my.mp4 --map cam --probe shards --out maps
    """
    from bgaug.pipelines.heatmap.run import heatmap

    with TerminalProgress() as progress:
        found = heatmap(run, inputs, out, progress, options)
    title = [
        f"{found.clips} clips of {found.videos} videos, against {found.masks}",
        f"means, 95 % intervals over {found.settings['intervals_over']}; sheet: {found.out / 'sheet.png'}",
    ]
    show(found.to_json(), as_json, lambda: rows_table(title, _HEATMAP_HEADER, _heatmap_rows(found)))
    _leave_if(found.failures)


_HEATMAP_HEADER = ("map", "run", "x chance", "energy %", "pointing %", "ring x", "clips")


def _heatmap_rows(found: HeatmapReport) -> list[tuple[str, ...]]:
    """One row per run, each but the first followed by its difference to the first."""
    rows = []
    for name, by_run in found.numbers.items():
        for title, numbers in by_run.items():
            rows.append((name, title, *_cells(numbers)))
            if title in found.differences[name]:
                rows.append((name, "difference", *_cells(found.differences[name][title], sign="+")))
    return rows


def _cells(numbers: Mapping[str, Mapping[str, Any]], sign: str = "") -> list[str]:
    """Means, the first with its interval; those of the others are in the JSON."""
    cells = []
    for name, factor in (("energy_ratio", 1), ("energy", 100), ("pointing", 100), ("ring_ratio", 1)):
        digits = f"{sign}.2f" if factor == 1 else f"{sign}.1f"
        mean, *ends = (numbers[name][key] for key in ("mean", "low", "high"))
        cells.append("-" if mean is None else format(factor * mean, digits))
        if name == "energy_ratio" and None not in ends:
            cells[-1] += f" ({', '.join(format(end, digits) for end in ends)})"
    return [*cells, str(numbers["energy_ratio"]["clips"])]


def embed_command(
    run: RunPath,
    inputs: _Inputs,
    out: Annotated[Path, Option("The file, .npz.", metavar="FILE")],
    options: EmbedOptions,
    as_json: bool,
) -> None:
    """Write features of videos for others: an .npz without pickle.

    Arrays: ids, features float32 (videos, D) or with --per-clip (videos, clips, D), starts, labels, class_names,
    groups, group_names, splits, split_names, failed_ids, failed_reasons, settings (JSON), checkpoint_sha256,
    bgaug_version. A bad file is named and left out, and the exit code is 1.

    Examples:
        bgaug embed run shards --out features.npz

        bgaug embed run videos/ --feature dynamic+static --per-clip --out features.npz

        python -c "import numpy; print(numpy.load('features.npz')['features'].shape)"
    """
    from bgaug.pipelines.evaluate.embed import embed

    with TerminalProgress() as progress:
        found = embed(run, inputs, out, progress, options)
    shown = {
        "videos": found.videos,
        "features": " x ".join(map(str, found.shape)),
        "failed": len(found.failures),
        "checkpoint": f"{found.settings['checkpoint']}, sha256 {found.settings['checkpoint_sha256'][:12]}...",
    }
    show(found.to_json(), as_json, lambda: pairs_table(str(found.out), shown))
    _leave_if(found.failures)


def export_weights_command(
    run: RunPath,
    options: EncoderOptions,
    out: Annotated[Path, Option("The file, .safetensors.", metavar="FILE")] = Path("encoder.safetensors"),
    best: Best = False,
    overwrite: Annotated[bool, Option("Replace an existing file.")] = False,
    *,
    as_json: bool,
) -> None:
    """Write a run's encoder as safetensors, for `bgaug.load_encoder`, torchvision and others.

    Weights have the backbone's published names (torchvision's for r3d18, r2plus1d18 and s3d); the clips that it expects
    are described in the file's metadata.

    Examples:
        bgaug export-weights run --out encoder.safetensors

        python -c "import bgaug; print(bgaug.load_encoder('encoder.safetensors').info)"
    """
    from dataclasses import asdict

    from bgaug.files import check_replaceable
    from bgaug.model.checkpoint import find_checkpoint
    from bgaug.model.pretrained.load import export_encoder, load_encoder

    check_replaceable(out, overwrite=overwrite, inputs=[find_checkpoint(run, best=best)])
    encoder = load_encoder(run, best=best, backbone=options.backbone, trust=options.trust)
    path = export_encoder(encoder, out, overwrite=overwrite)
    result = {"out": str(path), "bytes": path.stat().st_size, **asdict(encoder.info)}
    show(result, as_json, lambda: pairs_table(f"encoder in {path}", result))


def _leave_if(failures: Mapping[str, str]) -> None:
    """Exit code 1 if something failed; each failure was reported when it happened."""
    if failures:
        note(f"{len(failures)} videos failed: {', '.join(list(failures)[:20])}")
        raise typer.Exit(FAILED)
