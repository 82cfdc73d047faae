"""`bgaug embed`: features of videos or of a store, for others.

Letters: N videos, V clips of a video, T frames, H, W pixels, D features.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug import __version__
from bgaug.errors import BgaugError, UsageError, VideoError
from bgaug.files import check_replaceable
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import find_checkpoint, load_run
from bgaug.model.decomposition import FEATURES
from bgaug.model.pretrained import NOTHING_SAID, Word, own_clips
from bgaug.pairs import centre_crop
from bgaug.pipelines.build.find_videos import Source, find_videos
from bgaug.pipelines.build.options import LabelOptions
from bgaug.pipelines.build.plan import find_labels
from bgaug.pipelines.build.workers import run_tasks
from bgaug.pipelines.demo.truth import write_arrays
from bgaug.pipelines.evaluate.clips import FileClips, ReadClips, evaluation_size, longest_shot, uniform_frames
from bgaug.pipelines.evaluate.embedding import Embedding
from bgaug.progress import Progress
from bgaug.sizing import Fit, Size
from bgaug.store import Store, open_store
from bgaug.video import Decoder

__all__ = [
    "EmbedOptions",
    "Embedded",
    "Embedding",
    "embed",
    "embed_files",
    "embed_store",
    "is_store",
    "store_frames",
]


@dataclass(frozen=True)
class EmbedOptions:
    """Which features, of which clips.

    Attributes:
        which: one of `bgaug.model.decomposition.FEATURES`; by default the run's own, `bgaug.model.Method.feature`.
        clips: V, evenly spaced over each video's longest shot.
        per_clip: keep one feature a clip; else their mean.
        batch_size: videos of a store encoded at once, of files one at a time; does not change the result but for rounding.
        labels: list of labels, for files; None for class folders.
        layout: which level of folders means what, without a list; see `bgaug.labels.labels_from_folders`.
        follow_links: also follow links that lead out of the folders named.
        size: (height, width) that frames of files are brought to; by default 128x171, or what the crop needs.
        fit: how.
        shots: look for cuts in files; False takes each for one shot.
        decoder: who decodes files.
        salvage: take the good beginning of a file that breaks off.
        jobs: processes that read files; 0 for one a processor.
        timeout_seconds: that one file may take; 0 for no limit.
        in_process: read files in this very process: what hangs or crashes then costs all.

    Raises:
        UsageError: a value out of its range.
    """

    which: str | None = None
    clips: int = 10
    per_clip: bool = False
    batch_size: int = 8
    labels: Path | None = None
    layout: str = "auto"
    follow_links: bool = False
    size: Size | None = None
    fit: Fit = "stretch"
    shots: bool = True
    decoder: Decoder = "auto"
    salvage: bool = False
    jobs: int = 1
    timeout_seconds: float = 600
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.which is not None and self.which not in FEATURES:
            raise UsageError(f"features are {', '.join(FEATURES)}, got {self.which!r}")
        if self.clips < 1 or self.batch_size < 1:
            raise UsageError(f"clips and batch_size must be at least 1, got {self.clips} and {self.batch_size}")


@dataclass(frozen=True)
class Embedded:
    """What `embed` reports.

    Attributes:
        out: the file.
        videos: in it.
        shape: of the features.
        failures: videos that could not be used, and why.
        settings: how the features were come by.
    """

    out: Path
    videos: int
    shape: tuple[int, ...]
    failures: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
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
    *,
    options: EmbedOptions | None = None,
    best: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    word: Word = NOTHING_SAID,
) -> Embedded:
    """Write features of a store's videos, or of video files, to an .npz in one step.

    Args:
        run: folder that `train` made, or one checkpoint.
        inputs: one store (its folder or URL), or folders and files of videos.
        out: the file.
        progress: receives what happens.
        options: which features, of which clips.
        best: of the best checkpoint instead of the last.
        device: by default CUDA where there is one, else the CPU.
        overwrite: replace a file that is there.
        word: the user's, on who builds an encoder that is none of bgaug's.

    Raises:
        UsageError: nothing to do, a store beside other inputs, or the file is there or is an input.
        WriteError: the file cannot be written; found out before the work where that can be.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read.
        BgaugError: not one video could be used.
    """
    options = options or EmbedOptions()
    checkpoint = find_checkpoint(run, best=best)
    sources = None
    if not is_store(inputs):
        sources = find_videos([Path(item) for item in inputs], progress, follow_links=options.follow_links)
    read = [item for item in inputs if "://" not in item] if sources is None else [source.path for source in sources]
    check_replaceable(out, overwrite=overwrite, inputs=[checkpoint, *read])
    out = out.resolve()
    loaded = load_run(checkpoint, device=device, word=word)
    learner, config = loaded.learner, loaded.config
    if sources is None:
        found = embed_store(learner, config, open_store(inputs[0]), progress, options)
    else:
        found = embed_files(learner, config, sources, progress, options)
    settings = {
        "run": str(run),
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": loaded.sha256,
        "bgaug_version": __version__,
        "inputs": list(inputs),
        **found.settings,
    }
    write_arrays(out, replace(found, settings=settings).arrays())
    return Embedded(out, len(found.ids), found.features.shape, found.failures, settings)


def is_store(inputs: Sequence[str]) -> bool:
    """Whether the inputs are one store; else they are videos.

    Raises:
        UsageError: a store and something else.
    """
    stores = [item for item in inputs if "://" in item or (Path(item) / "zarr.json").is_file()]
    if stores and len(inputs) > 1:
        raise UsageError(f"{stores[0]} is a store: name it alone, or name videos; `bgaug merge` joins stores")
    return bool(stores)


def embed_store(
    learner: ContrastiveLearner,
    config: Mapping[str, Any],
    store: Store,
    progress: Progress,
    options: EmbedOptions,
    videos: Sequence[int] | None = None,
) -> Embedding:
    """Features of a store's videos, by default of all.

    Args:
        learner: in evaluation mode, on its device.
        config: of its run.
        store: with frames.
        progress: receives what happens.
        options: which features, of which clips.
        videos: their indices in the store.

    Raises:
        UsageError: the store keeps no frames.
        StoreError: it cannot be read.
    """
    if store.header.frames == "none":
        raise UsageError(f"{store.path} keeps no frames; make a store to train from with `bgaug build-shards`")
    chosen = np.arange(len(store)) if videos is None else np.asarray(videos, np.int64)
    progress.start("features", len(chosen))
    indices = [store_frames(store, int(video), config, options.clips) for video in chosen]

    def read() -> Iterator[tuple[NDArray[np.uint8], tuple[int, int, int, int]]]:
        for video, wanted in zip(chosen.tolist(), indices, strict=True):
            numbers, places = np.unique(wanted, return_inverse=True)
            yield store.frames_at(video, numbers)[places.reshape(wanted.shape)], store.content_box(video)
            progress.advance(note=store.video_id(video))

    c = store.columns
    return Embedding(
        ids=tuple(store.video_id(video) for video in chosen.tolist()),
        features=_pooled(_encoded(learner, config, read(), options), options),
        starts=np.array([wanted[:, 0] for wanted in indices]).reshape(len(chosen), options.clips),
        labels=c.label[chosen].astype(np.int64),
        class_names=store.header.classes,
        groups=c.group[chosen].astype(np.int64),
        group_names=store.names.groups,
        splits=c.split[chosen].astype(np.int64),
        split_names=store.names.splits,
        settings=_settings(learner, config, options, store.size, store.header.fit),
    )


def store_frames(store: Store, video: int, config: Mapping[str, Any], clips: int) -> NDArray[np.int64]:
    """Frames of evenly spaced clips of a store's video: int64 (V, T), see `uniform_frames`."""
    start, stop = longest_shot([(int(shot[0]), int(shot[1])) for shot in store.shots(video)])
    return uniform_frames(start, stop, config["num_frames"], config["stride"], clips)


def embed_files(
    learner: ContrastiveLearner,
    config: Mapping[str, Any],
    sources: Sequence[Source],
    progress: Progress,
    options: EmbedOptions,
) -> Embedding:
    """Features of video files; those that cannot be used are warned of and left out.

    Arguments as of `embed_store`, and the files.

    Raises:
        BgaugError: not one can be used.
        LabelsError: the labels cannot be understood.
    """
    labels = find_labels(LabelOptions(labels=options.labels, layout=options.layout), sources, progress)
    size = options.size or evaluation_size(config["crop"])
    tasks = [_read_clips(source, config, options, size) for source in sources]
    found: dict[int, tuple[Tensor, NDArray[np.int64]]] = {}
    failures: dict[str, str] = {}
    progress.start("features", len(sources))

    def done(number: int, result: FileClips | VideoError) -> None:
        name = sources[number].id
        if isinstance(result, VideoError):
            failures[name] = f"{result.message} [{result.reason}]"
            progress.warn(f"{name}: {failures[name]}")
        else:
            (codes,) = _encoded(learner, config, [(result.clips, result.box)], options)
            found[number] = codes, result.indices[:, 0]
        progress.advance(note=name)

    if options.in_process:
        for number, task in enumerate(tasks):
            done(number, task(lambda place: None))
    else:
        # Whoever is done waits until its clips are encoded, so no more than a video a process is held.
        run_tasks(
            tasks,
            jobs=options.jobs or os.cpu_count() or 1,
            timeout_seconds=options.timeout_seconds,
            begins=lambda number, place: None,
            done=done,
        )
    if not found:
        raise BgaugError(f"none of {len(sources)} videos can be used; the first: {next(iter(failures.values()))}")
    kept = sorted(found)
    of = [labels.of(sources[number].id) for number in kept]
    groups, splits = (tuple(sorted({v for v in (getattr(x, name) for x in of) if v})) for name in ("group", "split"))
    return Embedding(
        ids=tuple(sources[number].id for number in kept),
        features=_pooled([found[number][0] for number in kept], options),
        starts=np.stack([found[number][1] for number in kept]),
        labels=_codes([x.name for x in of], labels.classes),
        class_names=labels.classes,
        groups=_codes([x.group for x in of], groups),
        group_names=groups,
        splits=_codes([x.split for x in of], splits),
        split_names=splits,
        failures=dict(sorted(failures.items())),
        settings={
            **_settings(learner, config, options, size, options.fit),
            "labels": labels.origin,
            "label_notes": list(labels.notes),
        },
    )


def _read_clips(source: Source, config: Mapping[str, Any], options: EmbedOptions, size: Size) -> ReadClips:
    return ReadClips(
        source.path,
        config["num_frames"],
        config["stride"],
        options.clips,
        size,
        options.fit,
        options.shots,
        options.decoder,
        options.salvage,
    )


@torch.no_grad()
def _encoded(
    learner: ContrastiveLearner,
    config: Mapping[str, Any],
    videos: Iterable[tuple[NDArray[np.uint8], tuple[int, int, int, int]]],
    options: EmbedOptions,
) -> list[Tensor]:
    """Features (V, D) of each video's clips, uint8 (V, T, H, W, 3) with the box of their picture."""
    device = next(learner.parameters()).device
    codes: list[Tensor] = []
    left = iter(videos)
    while part := list(islice(left, options.batch_size)):
        frames = torch.from_numpy(np.concatenate([clips for clips, _ in part])).to(device)
        boxes = torch.tensor([box for clips, box in part for _ in clips], device=device)
        clips = centre_crop(frames, boxes, config["crop"])
        with own_clips(config):
            features = learner.features(clips, options.which).float().cpu()
        codes += list(torch.split(features, options.clips))
    return codes


def _pooled(codes: Sequence[Tensor], options: EmbedOptions) -> NDArray[np.float32]:
    stacked = torch.stack(list(codes))
    pooled: NDArray[np.float32] = (stacked if options.per_clip else stacked.mean(1)).numpy()
    return pooled


def _settings(
    learner: ContrastiveLearner, config: Mapping[str, Any], options: EmbedOptions, size: Size, fit: str
) -> dict[str, Any]:
    return {
        "feature": options.which or learner.method.feature,
        "clips": options.clips,
        "per_clip": options.per_clip,
        "backbone": config["backbone"],
        "method": config["method"],
        "frames": config["num_frames"],
        "stride": config["stride"],
        "crop": config["crop"],
        "size": list(size),
        "fit": fit,
    }


def _codes(names: Sequence[str | None], known: Sequence[str]) -> NDArray[np.int64]:
    return np.array([-1 if name is None or name not in known else known.index(name) for name in names], np.int64)
