"""`bgaug heatmap`: where encoders look on the same clips, as images, films and numbers.

options    what can be requested
clips      runs, clips and masks
compute    maps, the probes of class maps, and numbers
draw       rows of the sheet, and films
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.files import check_folder, check_replaceable, replacing_files, write_bytes, writing
from bgaug.model.checkpoint import Run
from bgaug.model.pretrained import own_clips
from bgaug.pipelines.heatmap.clips import (
    Clip,
    ExternalTruth,
    StoreTruth,
    chosen_clips,
    load_runs,
    opened_store,
    read_clip,
    requested_maps,
)
from bgaug.pipelines.heatmap.compute import (
    ClipProbe,
    encoder_maps,
    fit_probes,
    means_and_differences,
    score_map,
)
from bgaug.pipelines.heatmap.draw import SHEET_ROWS, column_titles, draw_clip, drawn_map, film_name
from bgaug.pipelines.heatmap.options import OF_A_CALL, HeatmapOptions
from bgaug.progress import Progress
from bgaug.store import Store, open_store
from bgaug.text import json_bytes
from bgaug.visualize import KINDS, HeatmapRow, heatmap_sheet, write_image

_RESULT = "heatmaps.json"
_SHEET = "sheet.png"


@dataclass(frozen=True, eq=False)
class HeatmapReport:
    """Result of `heatmap`.

    Attributes:
        out: the folder.
        clips: number of clips.
        videos: number of videos that the clips are from.
        masks: description of the masks that the maps are compared with.
        numbers: by map, run and number: {"mean", "low", "high", "clips"}, over the clips for which all runs have a
            value; low and high are a 95 % interval over groups.
        differences: by map and run, likewise: its numbers minus those of the first run.
        failures: videos that could not be used, or whose masks could not, with the reasons.
        settings: how the numbers were computed.
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
        """The report of `--json`."""
        return {
            "out": str(self.out),
            "sheet": str(self.out / _SHEET),
            "clips": self.clips,
            "videos": self.videos,
            "masks": self.masks,
            "numbers": self.numbers,
            "differences": self.differences,
            "failed": len(self.failures),
            "failures": dict(self.failures),
            "settings": dict(self.settings),
        }


def heatmap(
    run: Path,
    inputs: Sequence[str],
    out: Path,
    progress: Progress,
    options: HeatmapOptions | None = None,
) -> HeatmapReport:
    """Draw where encoders look on the same clips, and measure how much of it is the foreground.

    All runs get the frames of the first run's configuration, each at its own crop.

    Args:
        run: folder that `train` made, or one checkpoint.
        inputs: one store (its folder or URL), or videos, of which a temporary store with estimated masks is built.
        out: folder for sheet.png, one film per clip, and heatmaps.json.
        progress: receives progress and warnings.
        options: which maps, of which clips, compared with which masks.

    Raises:
        UsageError: class maps without labelled videos, an unknown stage, or `out` holds a result.
        MasksError: masks from elsewhere cannot be understood, or belong to no video.
        CheckpointError, StoreError: a run or a store cannot be read.
        WriteError: `out` cannot be written; the files of an earlier call are unchanged.
    """
    options = options or HeatmapOptions()
    _check_out(out, options.overwrite)
    out = out.resolve()
    runs = load_runs([run, *options.against], options.device, progress, options.permission)
    with opened_store(inputs, progress, options.in_process) as (store, failures, is_input):
        if store.header.frames == "none":
            raise UsageError(f"{store.path} keeps no frames; make a store to train from with `bgaug build-shards`")
        maps = requested_maps(options, store, is_input)
        truth = (
            ExternalTruth(store, options.masks, options.first, options.values) if options.masks else StoreTruth(store)
        )
        probes = _probes(runs, options, store, is_input, progress) if "cam" in maps else {}
        first = next(iter(runs.values()))
        clips = list(chosen_clips(first.config, store, truth, options, "cam" in maps))
        if options.films:
            # Found before the clips are encoded, not after hours.
            for number, (video, _) in enumerate(clips):
                _check_film(out / film_name(number, store.video_id(video)), options.overwrite)
        job = _Job(runs, probes, maps, options, store)
        progress.start("heat maps", len(clips))
        with replacing_files(out) as unfinished:
            for number, (video, indices) in enumerate(clips):
                clip = read_clip(store, truth, video, indices, failures, progress)
                job.add(clip, unfinished, number)
                progress.advance(note=clip.id)
            sheet = heatmap_sheet(job.rows, column_titles(list(runs), maps), mask_title=truth.short)
            write_image(unfinished / _SHEET, sheet)
            report = job.report(out, truth.name, failures)
            written = {**report.to_json(), "clips": job.results}
            write_bytes(unfinished / _RESULT, json_bytes(written, indent=1, allow_nan=False))
            earlier = _films_of_earlier_call(out)
        with writing(out):
            # Films of an earlier call that were not written again would contradict heatmaps.json.
            for name in earlier - {one["film"] for one in job.results}:
                (out / name).unlink(missing_ok=True)
    return report


def _probes(
    runs: Mapping[str, Run], options: HeatmapOptions, store: Store, is_input: bool, progress: Progress
) -> dict[str, ClipProbe]:
    """Probes by run; if they are fitted on the store that is shown, the videos shown are held out."""
    labelled = open_store(options.probe) if options.probe is not None else store
    own = options.probe is None and is_input
    return {t: fit_probes(run, labelled, progress, hold_out=own, feature=options.feature) for t, run in runs.items()}


def _check_out(out: Path, overwrite: bool) -> None:
    """Check, before any work, that a result may be written to the folder."""
    if (out / _RESULT).exists() and not overwrite:
        raise UsageError(f"{out} holds heat maps already; --overwrite replaces them")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    check_folder(out)
    check_replaceable(out / _RESULT, overwrite=overwrite)
    check_replaceable(out / _SHEET, overwrite=overwrite, kinds=KINDS[".png"], what="a PNG image")


def _check_film(path: Path, overwrite: bool) -> None:
    if os.path.lexists(path):
        check_replaceable(path, overwrite=overwrite, kinds=KINDS[".mp4"], what="an MP4 video")


def _films_of_earlier_call(out: Path) -> set[str]:
    """Names of films that an earlier call wrote and recorded."""
    try:
        recorded = json.loads((out / _RESULT).read_bytes())
        names = {Path(str(clip["film"])).name for clip in recorded["clips"] if clip.get("film")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    # The file may have been changed: only names of the form that this command gives are removed.
    return {name for name in names if re.fullmatch(r"\d{3,}_.*\.mp4", name)}


@dataclass
class _Job:
    """The encoders and their probes, and the results of the clips so far."""

    runs: Mapping[str, Run]
    probes: Mapping[str, ClipProbe]
    maps: Sequence[str]
    options: HeatmapOptions
    store: Store
    rows: list[HeatmapRow] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    @property
    def first(self) -> Run:
        """The run whose clips are used."""
        return next(iter(self.runs.values()))

    @property
    def has_groups(self) -> bool:
        """Whether intervals are over the groups of the store; otherwise they are over videos."""
        groups = self.store.columns.group
        return bool((groups >= 0).all()) and len(np.unique(groups)) > 1

    def add(self, clip: Clip, out: Path, number: int) -> None:
        """Encode one clip with all encoders: its numbers, its row of the sheet, its film."""
        header, columns = self.store.header, self.store.columns
        label = int(columns.label[clip.video])
        own = header.classes[label] if label >= 0 else None
        target = {"predicted": None, "true": own}.get(self.options.target, self.options.target)
        drawn: dict[tuple[str, str], NDArray[np.float32]] = {}
        numbers: dict[str, dict[str, Any]] = {name: {} for name in self.maps}
        explained: dict[str, str | None] = {}
        for title, name, heat, named in self._maps(clip, target):
            explained[title] = named
            values = score_map(name, heat, clip.masks, clip.box, self.first.config["crop"])
            # JSON has no nan.
            numbers[name][title] = {n: value if np.isfinite(value) else None for n, value in values.items()}
            drawn[name, title] = drawn_map(name, heat, clip)
        shown = draw_clip(clip, [drawn[name, title] for name in self.maps for title in self.runs], own, explained)
        if len(self.rows) < SHEET_ROWS:
            self.rows.append(shown.row())
        film = film_name(number, clip.id) if self.options.films else None
        if film is not None:
            # The film runs at the speed of the video, though it has only every stride-th frame.
            fps = max(1.0, float(columns.fps[clip.video]) / self.first.config["stride"])
            shown.write_film(out / film, column_titles(list(self.runs), self.maps), fps)
        self.groups.append(int(columns.group[clip.video]) if self.has_groups else clip.video)
        self.results.append(
            {
                "video": clip.id,
                "frames": clip.indices.tolist(),
                "masked_frames": clip.indices[clip.masks.there].tolist(),
                "class": own,
                "class_of_map": explained,
                "film": film,
                "numbers": numbers,
            }
        )

    def _maps(self, clip: Clip, target: str | None) -> Iterator[tuple[str, str, Any, str | None]]:
        """Title of the run, name of the map, the map, and the class that "cam" explains."""
        for title, run in self.runs.items():
            probe = self.probes.get(title)
            with own_clips(run.config):
                heats, label = encoder_maps(run, clip, self.maps, self.options.stage, probe, target)
            named = None if probe is None or label is None else probe.classes[label]
            yield from ((title, name, heat, named) for name, heat in heats.items())

    def report(self, out: Path, masks: str, failures: Mapping[str, str]) -> HeatmapReport:
        """The report of all clips so far."""
        numbers, differences = means_and_differences(
            [one["numbers"] for one in self.results], np.array(self.groups), self.maps, list(self.runs)
        )
        videos = len({one["video"] for one in self.results})
        settings = self.settings()
        return HeatmapReport(out, len(self.results), videos, masks, numbers, differences, dict(failures), settings)

    def settings(self) -> dict[str, Any]:
        """How the numbers were computed."""
        return {
            **{name: value for name, value in asdict(self.options).items() if name not in OF_A_CALL},
            "masks": None if self.options.masks is None else str(self.options.masks),
            "maps": list(self.maps),
            "intervals_over": "groups" if self.has_groups else "videos",
            "runs": {
                title: {
                    "checkpoint": str(run.checkpoint),
                    "sha256": run.sha256,
                    "method": run.config["method"],
                    "backbone": run.config["backbone"],
                    "crop": run.config["crop"],
                    "feature": self.probes[title].feature if title in self.probes else None,
                }
                for title, run in self.runs.items()
            },
            "frames": self.first.config["num_frames"],
            "stride": self.first.config["stride"],
            "bgaug_version": __version__,
        }
