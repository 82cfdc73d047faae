"""`bgaug heatmap`: where encoders look on the same clips, as pictures, films and numbers.

Here are the order of work and its result.

    heatmap_options    what may be asked for
    heatmap_clips      runs, clips and probes
    heatmap_numbers    maps of a clip, and numbers of maps
    heatmap_pictures   the sheet's rows and the films
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.files import check_folder, check_replaceable, replacing_files, write_bytes, writing
from bgaug.model.pretrained import NOTHING_SAID, Word, own_clips
from bgaug.pipelines.heatmap.clip_masks import ForeignTruth, StoreTruth
from bgaug.pipelines.heatmap.clip_probe import ClipProbe
from bgaug.pipelines.heatmap.clips import (
    Clip,
    Run,
    chosen_clips,
    load_runs,
    maps_wanted,
    opened_store,
    read_clip,
    run_probes,
)
from bgaug.pipelines.heatmap.compute import (
    averaged,
    encoder_maps,
    finite,
    means_and_differences,
    pixel_map,
    score_map,
)
from bgaug.pipelines.heatmap.draw import SHEET_ROWS, column_titles, draw_clip, drawn_map, film_name
from bgaug.pipelines.heatmap.options import HeatmapOptions
from bgaug.progress import Progress
from bgaug.store import Store
from bgaug.text import json_bytes
from bgaug.visualize import KINDS, HeatmapRow, heatmap_sheet, write_picture

__all__ = [
    "Clip",
    "HeatmapOptions",
    "Looked",
    "Run",
    "averaged",
    "encoder_maps",
    "heatmap",
    "pixel_map",
    "score_map",
]

RESULT = "heatmaps.json"
SHEET = "sheet.png"


@dataclass(frozen=True, eq=False)
class Looked:
    """What `heatmap` reports.

    Attributes:
        out: the folder.
        clips: that were looked at.
        videos: they come from.
        masks: what the maps were held against.
        numbers: by map, run and number: {"mean", "low", "high", "clips"}, over the clips for which all runs have an answer;
            low and high are a 95 % interval over groups.
        differences: by map and run, likewise: its numbers less those of the first run.
        failures: videos that could not be used, or whose masks could not, and why.
        settings: how all that was come by.
    """

    out: Path
    clips: int
    videos: int
    masks: str
    numbers: Mapping[str, Mapping[str, Mapping[str, Any]]]
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]
    failures: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "out": str(self.out),
            "sheet": str(self.out / SHEET),
            "clips": self.clips,
            "videos": self.videos,
            "masks": self.masks,
            "numbers": self.numbers,
            "differences": self.differences,
            "failed": len(self.failures),
            "failures": dict(self.failures),
            "settings": dict(self.settings),
        }


@dataclass
class _Kept:
    """What is gathered while clips go by."""

    rows: list[HeatmapRow] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)


def heatmap(
    run: Path,
    inputs: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    against: Sequence[Path] = (),
    options: HeatmapOptions | None = None,
    device: str | None = None,
    overwrite: bool = False,
    in_process: bool = False,
    word: Word = NOTHING_SAID,
) -> Looked:
    """Draw what encoders look at on the same clips, and tell how much of it is the foreground.

    All runs see the frames that the first one's configuration says, each at its own crop.

    Args:
        run: folder that `train` made, or one checkpoint.
        inputs: one store (its folder or URL), or videos; of those a store is built for the time being, and the masks are
            bgaug's.
        out: folder for sheet.png, a film a clip, and heatmaps.json.
        progress: receives what happens.
        against: other runs.
        options: which maps, of which clips, held against what.
        device: by default CUDA where there is one, else the CPU.
        overwrite: replace the result of an earlier call.
        in_process: read videos in this very process.
        word: the user's, on who builds an encoder that is none of bgaug's.

    Raises:
        UsageError: nothing labelled where a class is asked for, no such stage, or `out` holds a result.
        MasksError: masks from elsewhere cannot be understood, or belong to no video.
        CheckpointError: a run cannot be read.
        StoreError: a store cannot be read.
        WriteError: `out` cannot be written; the files of an earlier call are as they were.
    """
    options = options or HeatmapOptions()
    _check_out(out, overwrite)
    out = out.resolve()
    runs = load_runs([run, *against], device, progress, word)
    with opened_store(inputs, progress, in_process) as (store, failures, is_ours):
        if store.header.frames == "none":
            raise UsageError(f"{store.path} keeps no frames; make a store to train from with `bgaug build-shards`")
        maps = maps_wanted(options, store, is_ours)
        truth = (
            ForeignTruth(store, options.masks, options.first, options.values) if options.masks else StoreTruth(store)
        )
        probes = run_probes(runs, maps, options, store, is_ours, progress)
        clips = list(chosen_clips(runs[0], store, truth, options, "cam" in maps))
        if options.films:
            names = [film_name(number, store.video_id(video)) for number, (video, _) in enumerate(clips)]
            _check_films(out, names, overwrite)
        kept = _Kept()
        progress.start("heat maps", len(clips))
        with replacing_files(out) as unfinished:
            for number, (video, indices) in enumerate(clips):
                clip = read_clip(store, truth, video, indices, failures, progress)
                _look(kept, runs, probes, maps, options, store, clip, unfinished, number)
                progress.advance(note=clip.id)
            sheet = heatmap_sheet(kept.rows, column_titles(runs, maps), mask_title=truth.short)
            write_picture(unfinished / SHEET, sheet)
            numbers, differences = means_and_differences(
                [one["numbers"] for one in kept.told], np.array(kept.groups), maps, [run.title for run in runs]
            )
            settings = _settings(runs, probes, maps, options, store)
            videos = len({one["video"] for one in kept.told})
            looked = Looked(out, len(kept.told), videos, truth.name, numbers, differences, dict(failures), settings)
            told = {**looked.to_json(), "clips": kept.told}
            write_bytes(unfinished / RESULT, json_bytes(told, indent=1, allow_nan=False))
            earlier = _films_of_earlier_call(out)
        with writing(out):
            for name in earlier - {one["film"] for one in kept.told}:
                (out / name).unlink(missing_ok=True)
    return looked


def _check_out(out: Path, overwrite: bool) -> None:
    """See, before any work, whether a result may be written here."""
    if (out / RESULT).exists() and not overwrite:
        raise UsageError(f"{out} holds heat maps already; --overwrite replaces them")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    check_folder(out)
    check_replaceable(out / RESULT, overwrite=overwrite)
    check_replaceable(out / SHEET, overwrite=overwrite, kinds=KINDS[".png"], what="a PNG image")


def _check_films(out: Path, names: Sequence[str], overwrite: bool) -> None:
    for name in (name for name in names if os.path.lexists(out / name)):
        check_replaceable(out / name, overwrite=overwrite, kinds=KINDS[".mp4"], what="an MP4 video")


def _films_of_earlier_call(out: Path) -> set[str]:
    """Names of films that an earlier call wrote and recorded."""
    try:
        told = json.loads((out / RESULT).read_bytes())
        names = {Path(str(clip["film"])).name for clip in told["clips"] if clip.get("film")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    # Only names that this command gives: the file may have been changed.
    return {name for name in names if re.fullmatch(r"\d{3,}_.*\.mp4", name)}


def _look(
    kept: _Kept,
    runs: Sequence[Run],
    probes: Sequence[ClipProbe | None],
    maps: Sequence[str],
    options: HeatmapOptions,
    store: Store,
    clip: Clip,
    out: Path,
    number: int,
) -> None:
    """One clip through all encoders: its numbers, its row of the sheet, its film."""
    classes = probes[0].classes if probes[0] is not None else store.header.classes
    label = int(store.columns.label[clip.video])
    own = store.header.classes[label] if label >= 0 else None
    wanted = {"predicted": None, "true": own}.get(options.target, options.target)
    shown: dict[tuple[str, str], NDArray[np.float32]] = {}
    numbers: dict[str, dict[str, Any]] = {name: {} for name in maps}
    said = {}
    for run, probe in zip(runs, probes, strict=True):
        with own_clips(run.config):
            heats, column = encoder_maps(run, clip, maps, options.stage, probe, wanted)
        said[run.title] = None if column is None else classes[column]
        for name, heat in heats.items():
            numbers[name][run.title] = score_map(name, heat, clip.masks, clip.box, runs[0].config["crop"])
            shown[name, run.title] = drawn_map(name, heat, clip)
    drawn = draw_clip(clip, [shown[name, run.title] for name in maps for run in runs], own, said)
    if len(kept.rows) < SHEET_ROWS:
        kept.rows.append(drawn.row())
    film = None
    if options.films:
        film = film_name(number, clip.id)
        fps = max(1.0, float(store.columns.fps[clip.video]) / runs[0].config["stride"])
        drawn.write_film(out / film, column_titles(runs, maps), fps)
    group = int(store.columns.group[clip.video])
    kept.groups.append(group if _has_groups(store) else clip.video)
    kept.told.append(
        {
            "video": clip.id,
            "frames": clip.indices.tolist(),
            "masked_frames": clip.indices[clip.masks.there].tolist(),
            "class": own,
            "class_of_map": said,
            "film": film,
            "numbers": {
                name: {title: {n: finite(value) for n, value in one.items()} for title, one in by_run.items()}
                for name, by_run in numbers.items()
            },
        }
    )


def _settings(
    runs: Sequence[Run],
    probes: Sequence[ClipProbe | None],
    maps: Sequence[str],
    options: HeatmapOptions,
    store: Store,
) -> dict[str, Any]:
    """How the numbers were come by."""
    return {
        **asdict(options),
        "masks": None if options.masks is None else str(options.masks),
        "maps": list(maps),
        "intervals_over": "groups" if _has_groups(store) else "videos",
        "runs": {
            run.title: {
                "checkpoint": str(run.checkpoint),
                "sha256": run.sha256,
                "method": run.config["method"],
                "backbone": run.config["backbone"],
                "crop": run.config["crop"],
                "feature": None if probe is None else probe.feature,
            }
            for run, probe in zip(runs, probes, strict=True)
        },
        "frames": runs[0].config["num_frames"],
        "stride": runs[0].config["stride"],
        "bgaug_version": __version__,
    }


def _has_groups(store: Store) -> bool:
    groups = store.columns.group
    return bool((groups >= 0).all()) and len(np.unique(groups)) > 1
