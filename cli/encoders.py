"""Commands that look through trained encoders, or hand them on: heatmap, embed, export-weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bgaug.cli.console import FAILED, TerminalProgress, note, pairs_table, reported, rows_table, show
from bgaug.cli.options import (
    Debug,
    DecoderOption,
    Device,
    FitOption,
    FollowLinks,
    Json,
    LabelFile,
    Layout,
    Overwrite,
    OwnBackbone,
    Shots,
    Timeout,
    Trust,
    user_word,
)

if TYPE_CHECKING:
    from bgaug.pipelines.heatmap.run import HeatmapReport

RunArgument = Annotated[Path, typer.Argument(help="A run that train made, or one checkpoint.", show_default=False)]
Inputs = Annotated[
    list[str], typer.Argument(help="A store (folder or URL), or folders and files of videos.", show_default=False)
]
Best = Annotated[bool, typer.Option("--best", help="The run's best checkpoint instead of the last.")]


def heatmap_command(
    context: typer.Context,
    run: RunArgument,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Folder for sheet, films and numbers.", show_default=False)],
    against: Annotated[
        list[Path] | None, typer.Option(help="Another run, shown beside it on the same frames; may be repeated.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="cam: what speaks for a class, by a linear probe on the run's feature. activation: what is active, whatever the "
            "class. saliency: where features move. May be repeated; by default all, but cam only with labels.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Of cam and activation; by default the second and the last.")
    ] = None,
    feature: Annotated[
        Literal["global", "dynamic"] | None,
        typer.Option(
            help="Code that cam explains; by default what suits the method: dynamic for bgaug and dual, else global."
        ),
    ] = None,
    videos: Annotated[int, typer.Option(help="Videos shown, spread evenly; 0 for all.", min=0)] = 12,
    clips: Annotated[int, typer.Option(help="Evenly spaced clips of each.", min=1)] = 1,
    target: Annotated[
        str, typer.Option(help="Class of cam: predicted by the probe, true, or the name of a class.")
    ] = "predicted",
    probe: Annotated[
        str | None, typer.Option(help="Labelled store that the probe learns from, instead of the one shown.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="True masks to hold the maps against, as `bgaug import` reads them; of some frames will do."),
    ] = None,
    first: Annotated[int, typer.Option(help="Number of a video's first frame in names of masks.", min=0)] = 0,
    values: Annotated[
        Literal["nonzero", "cdnet"],
        typer.Option(help="What pixels of masks mean; cdnet: 50 is background, 85 and 170 are left out."),
    ] = "nonzero",
    films: Annotated[bool, typer.Option("--films/--no-films", help="A film a clip, beside the sheet.")] = True,
    backbone: OwnBackbone = None,
    trust: Trust = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw what an encoder looks at, and tell how much of it is the foreground.

    Writes OUT/sheet.png, a film (.mp4) a clip and OUT/heatmaps.json. Energy: share of a map's sum in the mask; times
    chance: the same over the mask's share of the picture. The ring about the mask is where props, shadows and rims are.
    Masks are the store's own, unless --masks names others. What is shown is held out from the probe.

    Examples:

        bgaug heatmap run shards --out maps

        bgaug heatmap run shards --against simclr --map cam --videos 0 --no-films --out maps

        bgaug heatmap run shards --masks truth --values cdnet --out maps

        bgaug heatmap run my.mp4 --map cam --probe shards --out maps
    """
    with reported(debug):
        from bgaug.pipelines.heatmap.options import HeatmapOptions
        from bgaug.pipelines.heatmap.run import heatmap

        options = HeatmapOptions(
            maps=tuple(name.strip() for part in maps for name in part.split(",")) if maps else None,
            stage=stage,
            videos=videos,
            clips=clips,
            target=target,
            probe=probe,
            masks=masks,
            first=first,
            values=values,
            films=films,
            feature=feature,
        )
        with TerminalProgress() as progress:
            found = heatmap(
                run,
                inputs,
                out,
                progress,
                against=against or [],
                options=options,
                device=device,
                overwrite=overwrite,
                word=user_word(context, backbone, trust),
            )
        title = [
            f"{found.clips} clips of {found.videos} videos, against {found.masks}",
            f"means, 95 % intervals over {found.settings['intervals_over']}; sheet: {found.out / 'sheet.png'}",
        ]
        show(found.to_json(), as_json, lambda: rows_table(title, HEATMAP_HEADER, _heatmap_rows(found)))
        _leave_if(found.failures)


HEATMAP_HEADER = ("map", "run", "x chance", "energy %", "pointing %", "ring x", "clips")


def _heatmap_rows(found: HeatmapReport) -> list[tuple[str, ...]]:
    """A run a row, each but the first with its difference to that."""
    rows = []
    for name, by_run in found.numbers.items():
        for title, numbers in by_run.items():
            rows.append((name, title, *_cells(numbers)))
            if title in found.differences[name]:
                rows.append((name, "difference", *_cells(found.differences[name][title], sign="+")))
    return rows


def _cells(numbers: Mapping[str, Mapping[str, Any]], sign: str = "") -> list[str]:
    """Means, the first with its interval; the others' stand in the JSON."""
    cells = []
    for name, factor in (("energy_ratio", 1), ("energy", 100), ("pointing", 100), ("ring_ratio", 1)):
        digits = f"{sign}.2f" if factor == 1 else f"{sign}.1f"
        mean, *ends = (numbers[name][key] for key in ("mean", "low", "high"))
        cells.append("-" if mean is None else format(factor * mean, digits))
        if name == "energy_ratio" and None not in ends:
            cells[-1] += f" ({', '.join(format(end, digits) for end in ends)})"
    return [*cells, str(numbers["energy_ratio"]["clips"])]


def embed_command(
    context: typer.Context,
    run: RunArgument,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The file, .npz.", show_default=False)],
    feature: Annotated[
        Literal["global", "dynamic", "static", "dynamic+static"] | None,
        typer.Option(help="Code of a clip; by default what suits the method: dynamic for bgaug and dual, else global."),
    ] = None,
    clips: Annotated[int, typer.Option(help="Evenly spaced clips of each video.", min=1)] = 10,
    per_clip: Annotated[
        bool, typer.Option("--per-clip", help="Keep a feature a clip; else their mean a video.")
    ] = False,
    labels: LabelFile = None,
    layout: Layout = "auto",
    follow_links: FollowLinks = False,
    batch_size: Annotated[int, typer.Option(help="Videos of a store encoded at once.", min=1)] = 8,
    best: Best = False,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH that files are brought to before the centre crop; 128x171.")
    ] = None,
    fit: FitOption = "stretch",
    shots: Shots = True,
    decoder: DecoderOption = "auto",
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Take the good beginning of a file that breaks off.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes that read files; 0 for one a processor.", min=0)] = 1,
    timeout: Timeout = 600,
    backbone: OwnBackbone = None,
    trust: Trust = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write features of videos for others: an .npz without pickle.

    Arrays: ids, features float32 (videos, D) or with --per-clip (videos, clips, D), starts, labels, class_names, groups,
    group_names, splits, split_names, failed_ids, failed_reasons, settings (JSON), checkpoint_sha256, bgaug_version. A bad
    file is named and left out, and the exit code is 1.

    Examples:

        bgaug embed run shards --out features.npz

        bgaug embed run videos/ --feature dynamic+static --per-clip --out features.npz

        python -c "import numpy; print(numpy.load('features.npz')['features'].shape)"
    """
    with reported(debug):
        from bgaug.errors import UsageError
        from bgaug.pipelines.evaluate.embed import EmbedOptions, embed
        from bgaug.sizing import parse_size

        parsed = parse_size(size) if size is not None else None
        if size is not None and parsed is None:
            raise UsageError("files are brought to one size; give --size HEIGHTxWIDTH")
        options = EmbedOptions(
            feature=feature,
            clips=clips,
            per_clip=per_clip,
            batch_size=batch_size,
            labels=labels,
            layout=layout,
            follow_links=follow_links,
            size=parsed,
            fit=fit,
            shots=shots,
            decoder=decoder,
            salvage=salvage,
            jobs=jobs,
            timeout_seconds=timeout,
        )
        with TerminalProgress() as progress:
            found = embed(
                run,
                inputs,
                out,
                progress,
                options=options,
                best=best,
                device=device,
                overwrite=overwrite,
                word=user_word(context, backbone, trust),
            )
        shown = {
            "videos": found.videos,
            "features": " x ".join(map(str, found.shape)),
            "failed": len(found.failures),
            "checkpoint": f"{found.settings['checkpoint']}, sha256 {found.settings['checkpoint_sha256'][:12]}...",
        }
        show(found.to_json(), as_json, lambda: pairs_table(str(found.out), shown))
        _leave_if(found.failures)


def export_weights_command(
    context: typer.Context,
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The file, .safetensors.")] = Path("encoder.safetensors"),
    best: Best = False,
    backbone: OwnBackbone = None,
    trust: Trust = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's encoder as safetensors, for `bgaug.load_encoder`, torchvision and others.

    Weights have the backbone's published names (torchvision's for r3d18, r2plus1d18 and s3d); what clips it expects
    stands in the file's metadata.

    Examples:

        bgaug export-weights run --out encoder.safetensors

        python -c "import bgaug; print(bgaug.load_encoder('encoder.safetensors').info)"
    """
    with reported(debug):
        from dataclasses import asdict

        from bgaug.files import check_replaceable
        from bgaug.model.checkpoint import find_checkpoint
        from bgaug.model.pretrained.load import export_encoder, load_encoder

        check_replaceable(out, overwrite=overwrite, inputs=[find_checkpoint(run, best=best)])
        user_word(context, backbone, trust)
        encoder = load_encoder(run, best=best, backbone=backbone, trust=trust)
        path = export_encoder(encoder, out, overwrite=overwrite)
        told = {"out": str(path), "bytes": path.stat().st_size, **asdict(encoder.info)}
        show(told, as_json, lambda: pairs_table(f"encoder in {path}", told))


def _leave_if(failures: Mapping[str, str]) -> None:
    """Exit code 1 where something failed; each was named as it happened."""
    if failures:
        note(f"{len(failures)} videos failed: {', '.join(list(failures)[:20])}")
        raise typer.Exit(FAILED)
