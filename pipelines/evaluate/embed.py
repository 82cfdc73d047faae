"""`bgaug embed`: features of video files or of a store's videos, written for other programs.

Letters: N videos, V clips of a video, T frames, D features.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug import __version__
from bgaug.data.clips import evaluated_shot, uniform_clips
from bgaug.errors import BgaugError, UsageError, VideoError
from bgaug.files import check_replaceable, write_arrays
from bgaug.labels import Labels
from bgaug.model.checkpoint import Run, find_checkpoint, load_run
from bgaug.pairs import centre_crop
from bgaug.pipelines.build.find_videos import Source, find_videos
from bgaug.pipelines.build.plan import find_labels
from bgaug.pipelines.build.workers import run_tasks
from bgaug.pipelines.evaluate.features import clips_of, encode, encoder_of, evaluation_clips, feature_of
from bgaug.pipelines.evaluate.file_clips import FileClips, ReadClips, evaluation_size
from bgaug.pipelines.evaluate.options import EmbedOptions
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import Store, open_store

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Embedded:
    """Result of `embed`.

    Attributes:
        arrays: content of the file by name: "ids" (N,); "features", float32 (N, D) or (N, V, D); "starts", int64
            (N, V), the first frame of each clip; int64 (N,) "labels", "groups" and "splits", -1 where unknown, with
            their names in "class_names", "group_names" and "split_names".
        settings: how the features were computed.
        failures: videos that could not be used, with the reasons.
        out: the file.
    """

    arrays: Arrays
    settings: Mapping[str, Any]
    failures: Mapping[str, str] = field(default_factory=dict)
    out: Path | None = None

    @property
    def videos(self) -> int:
        """N."""
        return len(self.arrays["ids"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features."""
        return self.arrays["features"].shape

    def to_json(self) -> dict[str, Any]:
        """The report of `--json`."""
        return {
            "out": str(self.out),
            "videos": self.videos,
            "shape": list(self.shape),
            "failed": len(self.failures),
            "failures": dict(self.failures),
            "settings": dict(self.settings),
        }


def embed(
    run: Path,
    inputs: Sequence[str],
    out: Path,
    progress: Progress,
    options: EmbedOptions | None = None,
) -> _Embedded:
    """Write features of a store's videos, or of video files, to an .npz in one step.

    Args:
        run: folder that `train` made, or one checkpoint.
        inputs: one store (its folder or URL), or folders and files of videos.
        out: the file.
        progress: receives progress and warnings.
        options: which features are written, of which clips.

    Raises:
        UsageError: there is nothing to do, a store is not the only input, or the file exists or is an input.
        WriteError: the file cannot be written; reported before the work where possible.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read.
        BgaugError: none of the videos could be used.
    """
    options = options or EmbedOptions()
    checkpoint = find_checkpoint(run, best=options.best)
    sources = None
    if not is_store(inputs):
        sources = find_videos([Path(item) for item in inputs], progress, follow_links=options.follow_links)
    # A URL names no file that could be overwritten.
    read = [item for item in inputs if "://" not in item] if sources is None else [source.path for source in sources]
    check_replaceable(out, overwrite=options.overwrite, inputs=[checkpoint, *read])
    out = out.resolve()
    loaded = load_run(checkpoint, device=options.device, permission=options.permission)
    if sources is None:
        found = embed_store(loaded, open_store(inputs[0]), progress, options)
    else:
        found = _embed_files(loaded, sources, progress, options)
    settings = {
        "run": str(run),
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": loaded.sha256,
        "bgaug_version": __version__,
        "inputs": list(inputs),
        **found.settings,
    }
    about = {name: np.array(settings[name]) for name in ("checkpoint_sha256", "bgaug_version")}
    failed = {"failed_ids": _texts(found.failures), "failed_reasons": _texts(found.failures.values())}
    written = {**found.arrays, **failed, "settings": np.array(json.dumps(settings, ensure_ascii=False)), **about}
    write_arrays(out, written)
    return _Embedded(found.arrays, settings, found.failures, out)


def is_store(inputs: Sequence[str]) -> bool:
    """Whether the inputs are one store; otherwise they are videos.

    Raises:
        UsageError: a store is not the only input.
    """
    stores = [item for item in inputs if "://" in item or (Path(item) / "zarr.json").is_file()]
    if stores and len(inputs) > 1:
        raise UsageError(f"{stores[0]} is a store: name it alone, or name videos; `bgaug merge` joins stores")
    return bool(stores)


def embed_store(run: Run, store: Store, progress: Progress, options: EmbedOptions) -> _Embedded:
    """Features of all videos of a store.

    Raises:
        UsageError: the store keeps no frames, or a video has no shot.
        StoreError: the store cannot be read.
    """
    videos, views = np.arange(len(store)), options.clips
    dataset = clips_of(store, run.config, videos, views=views, sampling="uniform")
    crops = evaluation_clips(dataset, run.config["crop"], run.device, options.batch_size, 2, progress)
    values = encode(encoder_of(run, feature_of(run, options.feature)), crops, 1 if options.per_clip else views)
    c = store.columns
    arrays = {
        "ids": _texts(store.videos),
        "features": values.reshape(len(store), views, -1) if options.per_clip else values,
        "starts": np.stack([store_clips(store, video, run.config, views)[:, 0] for video in videos.tolist()]),
        "labels": c.label.astype(np.int64),
        "class_names": _texts(store.header.classes),
        "groups": c.group.astype(np.int64),
        "group_names": _texts(store.names.groups),
        "splits": c.split.astype(np.int64),
        "split_names": _texts(store.names.splits),
    }
    return _Embedded(arrays, _settings(run, options, store.size, store.header.fit))


def store_clips(store: Store, video: int, config: Mapping[str, Any], views: int) -> NDArray[np.int64]:
    """Frames of the evaluated clips of a store's video: int64 (V, T), see `bgaug.data.clips.uniform_clips`."""
    start, stop = store.shots(video)[evaluated_shot(store, video) or 0, :2].tolist()
    return uniform_clips(start, stop, config["num_frames"], config["stride"], views)


def _embed_files(run: Run, sources: Sequence[Source], progress: Progress, options: EmbedOptions) -> _Embedded:
    """Features of video files; files that cannot be used are reported as warnings and left out.

    Raises:
        BgaugError: none of the files can be used.
        LabelsError: the labels cannot be understood.
    """
    labels = find_labels(options, sources, progress)
    size = options.size or evaluation_size(run.config["crop"])
    encoder = encoder_of(run, feature_of(run, options.feature))
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
    failures: dict[str, str] = {}
    progress.start("features", len(sources))

    def done(number: int, result: FileClips | VideoError) -> None:
        name = sources[number].id
        if isinstance(result, VideoError):
            failures[name] = f"{result.message} [{result.reason}]"
            progress.warn(f"{name}: {failures[name]}")
        else:
            values = encode(encoder, [_crops(run, result)], 1 if options.per_clip else options.clips)
            found[number] = values if options.per_clip else values[0], result.indices[:, 0]
        progress.advance(note=name)

    tasks = [_task(source, run, options, size) for source in sources]
    if options.in_process:
        for number, task in enumerate(tasks):
            done(number, task(lambda place: None))
    else:
        # A process waits until its clips are encoded, so at most one video per process is held in memory.
        run_tasks(
            tasks,
            jobs=options.jobs or os.cpu_count() or 1,
            timeout_seconds=options.timeout_seconds,
            begins=lambda number, place: None,
            done=done,
        )
    if not found:
        raise BgaugError(f"none of {len(sources)} videos can be used; the first: {next(iter(failures.values()))}")
    # Processes finish in any order, and the file must not depend on it.
    kept = sorted(found)
    ids = [sources[number].id for number in kept]
    arrays = {
        "ids": _texts(ids),
        "features": np.stack([found[number][0] for number in kept]),
        "starts": np.stack([found[number][1] for number in kept]),
        **_label_arrays(ids, labels),
    }
    about = {"labels": labels.origin, "label_notes": list(labels.notes)}
    return _Embedded(arrays, _settings(run, options, size, options.fit) | about, dict(sorted(failures.items())))


def _task(source: Source, run: Run, options: EmbedOptions, size: Size) -> ReadClips:
    return ReadClips(
        source.path,
        run.config["num_frames"],
        run.config["stride"],
        options.clips,
        size,
        options.fit,
        options.shots,
        options.decoder,
        options.on_error == "salvage",
    )


def _crops(run: Run, clips: FileClips) -> Tensor:
    """Centre crops of a file's clips: float32 in [0, 1], (V, 3, T, S, S)."""
    boxes = torch.tensor([clips.box], device=run.device).expand(len(clips.places), -1)
    return centre_crop(torch.from_numpy(clips.clips).to(run.device), boxes, run.config["crop"])


def _label_arrays(ids: Sequence[str], labels: Labels) -> Arrays:
    """Labels, groups and splits of files as numbers, with their names."""
    of = [labels.of(name) for name in ids]
    groups, splits = (sorted({v for v in (getattr(x, name) for x in of) if v}) for name in ("group", "split"))
    return {
        "labels": _codes([x.name for x in of], labels.classes),
        "class_names": _texts(labels.classes),
        "groups": _codes([x.group for x in of], groups),
        "group_names": _texts(groups),
        "splits": _codes([x.split for x in of], splits),
        "split_names": _texts(splits),
    }


def _settings(run: Run, options: EmbedOptions, size: Size, fit: str) -> dict[str, Any]:
    return {
        "feature": feature_of(run, options.feature),
        "clips": options.clips,
        "per_clip": options.per_clip,
        "backbone": run.config["backbone"],
        "method": run.config["method"],
        "frames": run.config["num_frames"],
        "stride": run.config["stride"],
        "crop": run.config["crop"],
        "size": list(size),
        "fit": fit,
    }


def _codes(names: Sequence[str | None], known: Sequence[str]) -> NDArray[np.int64]:
    return np.array([-1 if name is None or name not in known else known.index(name) for name in names], np.int64)


def _texts(texts: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(texts), dtype=np.str_)
