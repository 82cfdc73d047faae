"""Commands about videos: extract, build, inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgaug.cli.console import (
    FAILED,
    TerminalProgress,
    human_bytes,
    human_seconds,
    pairs_table,
    rows_table,
    show,
)
from bgaug.errors import UsageError
from bgaug.pipelines.build.options import BackgroundOptions, FollowLinks, ShardOptions
from bgaug.pipelines.options import Option

if TYPE_CHECKING:
    from rich.table import Table

_NAMED = 12


def extract_backgrounds_command(options: BackgroundOptions, as_json: bool) -> None:
    """Extract the static background of every video into a store.

    A rerun goes on where an earlier one stopped. A video that cannot be read is left out and named here and in
    STORE/failures.jsonl; the exit code is then 1.

    Examples:
        bgaug extract-backgrounds videos/ --out bg

        bgaug extract-backgrounds videos/ --out bg --labels videos/labels.csv --jobs 8 --json
    """
    from bgaug.pipelines.build.backgrounds import extract_backgrounds

    with TerminalProgress() as progress:
        outcome = extract_backgrounds(options, progress)
    _show_outcome(f"backgrounds in {options.out}", outcome, as_json)


def build_shards_command(options: ShardOptions, as_json: bool) -> None:
    """Build a store to train from: frames, foreground masks and backgrounds.

    Backgrounds that are not given are estimated in the same pass. A rerun goes on where an earlier one stopped.

    Examples:
        bgaug build-shards videos/ --out shards --estimate

        bgaug build-shards videos/ --out shards --backgrounds bg --labels videos/labels.csv

        bgaug build-shards UCF-101/ --out ucf --labels ucfTrainTestlist/ --labels-split 2

        bgaug build-shards data/ --out shards --layout split/class --follow-links

        bgaug build-shards videos/ --out shards --size 112 --fit crop --store-frames raw

        bgaug build-shards videos/ --out shards --segmenter selfie_segmentation.tflite --segmenter-as mask
    """
    from bgaug.pipelines.build.shards import build_shards, forecast_shards

    with TerminalProgress() as progress:
        if options.estimate:
            _show_forecast(forecast_shards(options, progress), as_json)
        else:
            _show_outcome(f"shards in {options.out}", build_shards(options, progress), as_json)


def _show_outcome(title: str, outcome: Any, as_json: bool) -> None:
    result = outcome.to_json()
    shown = {
        **result,
        "grades": _graded(result["grades"]),
        "masks_from": ", ".join(_counted(result["masks_from"])) or "none",
        "bytes": human_bytes(result["bytes"]),
        "bytes_per_video": _human_arrays(result["bytes_per_video"]),
        **_label_rows(result["labels"]),
        "left_out": ", ".join(_counted(result["left_out"])) or "nothing",
    }
    show(result, as_json, lambda: pairs_table(title, shown))
    if outcome.failures:
        raise typer.Exit(FAILED)


def _graded(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {grade}" for grade, count in counts.items()) or "none"


def _label_rows(labels: Mapping[str, Any]) -> dict[str, str]:
    """Labels of the videos for a table, with the first classes only."""
    with_videos = {name: count for name, count in labels["classes"].items() if count}
    named = _counted(dict(islice(with_videos.items(), _NAMED)))
    more = f", and {labels['num_classes'] - len(named)} more" if labels["num_classes"] > len(named) else ""
    counts = f"{labels['labelled']} of {labels['videos']} videos, {labels['num_classes']} classes"
    return {
        "labels": f"{counts}: {', '.join(named)}{more}" if named else "none",
        "splits": ", ".join(_counted(labels["splits"])) or "none",
        "labels_from": labels["origin"],
    }


def _counted(counts: Mapping[str, Any]) -> list[str]:
    texts = {name: ", ".join(_counted(count)) if isinstance(count, dict) else count for name, count in counts.items()}
    return [
        f"{name.replace('_', ' ')} {f'({count})' if isinstance(count, str) else count}" for name, count in texts.items()
    ]


def _show_forecast(forecast: Any, as_json: bool) -> None:
    result = forecast.to_json()
    spread = "" if forecast.spread is None else f" +- {forecast.spread:.0%}"
    shown = {
        "videos": result["videos"],
        "pilot": f"{result['pilot']} videos, {result['pilot_failed']} failed",
        "bytes": human_bytes(result["bytes"]) + spread,
        "bytes_by_array": _human_arrays(result["bytes_by_array"]),
        "time": f"{human_seconds(forecast.seconds)} with {forecast.jobs} jobs",
    }
    show(result, as_json, lambda: pairs_table("what the store will take", shown))


def _human_arrays(sizes: Mapping[str, int]) -> str:
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {human_bytes(size)}" for name, size in ordered)


def inspect_command(
    videos: Annotated[
        list[Path],
        Option("Folders, walked recursively, and video files; or stores.", argument=True, metavar="VIDEOS..."),
    ],
    deep: Annotated[bool, Option("Also decode: real frames, cuts and transitions, random seeks, decord.")] = False,
    follow_links: FollowLinks = False,
    *,
    as_json: bool,
) -> None:
    """Show what files really hold, and which reader can be trusted with them; or what stores hold.

    Of a store: its videos and shots, their grades and cameras, and where their masks come from. Leaves with 1 if a file
    cannot be used, or breaks off.

    Examples:
        bgaug inspect video.avi

        bgaug inspect videos/ --deep --json

        bgaug inspect shards
    """
    stores = [path for path in videos if (path / "zarr.json").is_file()]
    if stores:
        if deep or follow_links:
            raise UsageError(f"--deep and --follow-links are for videos, and {stores[0]} is a store: leave them out")
        _inspect_stores(stores, [path for path in videos if path not in stores], as_json)
        return
    from bgaug.pipelines.build.find_videos import find_videos
    from bgaug.pipelines.build.probe import probe_sources

    with TerminalProgress() as progress:
        sources = find_videos(videos, progress, follow_links=follow_links)
        probes = list(probe_sources(sources, progress, deep=deep))
    bad = [p for p in probes if p.error or p.cut_short or (p.deep is not None and p.deep.breaks_off)]
    left_out = sources.left_out.to_json()
    result = {"videos": [probe.to_json() for probe in probes], "bad": len(bad), "left_out": left_out}
    header = ("file", "codec", "size", "frames", "seconds", "group", "cuts", "by index", "decord")
    title = ["group: most frames from one keyframe to the next"]
    if str(sources.left_out):
        title.append(f"left out: {sources.left_out}")
    show(result, as_json, lambda: rows_table(title, header, [_probe_row(probe) for probe in probes]))
    if bad:
        raise typer.Exit(FAILED)


def _inspect_stores(stores: Sequence[Path], others: Sequence[Path], as_json: bool) -> None:
    if others:
        raise UsageError(f"inspect takes either stores or videos, got the store {stores[0]} and {others[0]}")
    found = [_store_counts(store) for store in stores]

    def table() -> Table:
        names = list(found[0])[1:]
        rows = [[name.replace("_", " "), *(_shown(name, one[name]) for one in found)] for name in names]
        return rows_table("what the stores hold", ["", *(one["store"] for one in found)], rows)

    show({"stores": found}, as_json, table)


def _store_counts(root: Path) -> dict[str, Any]:
    """What a store holds, for `--json`."""
    from bgaug.store import summarise_store
    from bgaug.store.format.layout import num_shards, read_header
    from bgaug.store.format.records import STATUSES

    header = read_header(root)
    counts = summarise_store(root)
    return {
        "store": str(root),
        "holds": str(header.options.get("holds", "clips")),
        "size": list(header.size),
        "fit": header.fit,
        "stored_frames": header.frames,
        "videos": counts.statuses.total() + len(counts.failures),
        **{status: counts.statuses[status] for status in STATUSES},
        "failed": len(counts.failures),
        "classes": len(header.classes),
        "frames": counts.frames,
        "shots": counts.shots,
        "grades": dict(sorted(counts.grades.items())),
        "cameras": dict(sorted(counts.cameras.items())),
        "masks_from": dict(sorted(counts.masks_from.items())),
        "short_shots": counts.short_shots,
        "transitions": counts.transitions,
        "shards": counts.shards,
        "shards_missing": num_shards(header) - counts.shards,
        "bytes": counts.sizes.total(),
    }


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return human_bytes(value)
    if name == "size":
        return "x".join(map(str, value))
    if name == "grades":
        return _graded(value)
    return (", ".join(_counted(value)) or "none") if isinstance(value, dict) else str(value)


def _probe_seconds(probe: Any) -> str:
    text = f"{probe.duration_seconds:.2f}, {probe.info.fps:.4g} fps" + (" varying" if probe.variable_rate else "")
    if probe.seams:
        text += f"; times begin again at frame {', '.join(map(str, probe.seams[:5]))}"
    return text + (", ..." if len(probe.seams) > 5 else "")


def _probe_boundaries(probe: Any) -> str:
    """Hard cuts by their frame, transitions by their first and last, in order."""
    if probe.cuts is None:
        return ""
    found = [(cut, str(cut)) for cut in probe.cuts]
    found += [(start, f"{kind} {start}-{stop - 1}") for start, stop, kind in probe.transitions or ()]
    return ", ".join(text for _, text in sorted(found)) or "none"


def _probe_row(probe: Any) -> tuple[str, ...]:
    name = probe.path.name
    if probe.error:
        return (name, *[""] * 6, probe.error, "")
    info, deep = probe.info, probe.deep
    shown = f" turned {info.rotation_degrees}" if info.rotation_degrees else ""
    shown += " mirrored" if info.mirrored else ""
    if info.display_size != (info.height, info.width):
        shown += f" shown as {info.display_size[0]}x{info.display_size[1]}"
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
        f"{info.height}x{info.width}{shown}",
        frames,
        _probe_seconds(probe),
        str(probe.longest_group),
        _probe_boundaries(probe),
        seeks,
        deep.decord if deep else "",
    )
