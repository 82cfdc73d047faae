"""`bgaug segment`: new masks for the videos of a store, by a segmentation model with prompts from the stored masks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import BgaugError, UsageError, VideoError
from bgaug.model.parallel import choose_device
from bgaug.model.pretrained.mask_model import VideoMaskModel, load_mask_model
from bgaug.pipelines.build.find_videos import Source, find_videos
from bgaug.pipelines.segment.options import SegmentOptions
from bgaug.pipelines.segment.video import FrameSource, has_prompts, segment_video
from bgaug.progress import Progress
from bgaug.store import MaskModel, Store, VideoRow, exclusive, finish_store, identify, open_store, replace_masks
from bgaug.store.format.layout import read_header

_NAMED = 5


@dataclass(frozen=True)
class SegmentedMasks:
    """The result of `segment`.

    Attributes:
        model: the model and its settings.
        videos: number of videos with new masks.
        done: number of videos whose masks were made by the same model and settings before.
        frames: number of frames with a new mask.
        empty: of these, frames whose mask is empty now and was not before.
        kept: frames of those videos that keep their masks, as their shot has no object so far.
        objects: number of objects that were prompted.
        without: ids of videos whose masks have no object; they keep their masks.
        missing: ids of videos that are not among the files.
        failures: videos that cannot be segmented, and why; they keep their masks.
    """

    model: MaskModel
    videos: int
    done: int
    frames: int
    empty: int
    kept: int
    objects: int
    without: tuple[str, ...]
    missing: tuple[str, ...]
    failures: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Counts, the model, and the failures by id."""
        return {
            "videos": self.videos,
            "done_before": self.done,
            "frames": self.frames,
            "frames_emptied": self.empty,
            "frames_kept": self.kept,
            "objects": self.objects,
            "without_objects": len(self.without),
            "missing": len(self.missing),
            "model": self.model.to_json(),
            "failed": len(self.failures),
            "failures": dict(self.failures),
        }


def segment(options: SegmentOptions, progress: Progress, clock: Callable[[], float] = time.monotonic) -> SegmentedMasks:
    """Replace the masks of a store by those of a model, prompted with boxes and points made from the stored masks.

    Masks are written every `options.commit_seconds`. A second run continues: it leaves out the videos whose masks were
    made by the same model with the same settings.

    Args:
        options: store, videos, model, and how.
        progress: receives what happens.
        clock: time in seconds.

    Raises:
        UsageError: the store has no masks, none of its videos is among the files, or transformers is not installed.
        SegmenterError: the model cannot be used.
        StoreLockedError: another process writes the store.
        StoreError: the store cannot be read or written.
    """
    root = options.store
    read_header(root)  # before a lock file is written next to it
    device = choose_device(options.device)
    with exclusive(root):
        store = open_store(root)
        if store.header.options.get("holds") == "backgrounds":
            raise UsageError(f"{root} holds only backgrounds, no masks: segment a store that build-shards made")
        files = {
            source.id: source for source in find_videos(options.inputs, progress, follow_links=options.follow_links)
        }
        missing = tuple(name for name in store.videos if name not in files)
        if len(missing) == len(store):
            raise UsageError(
                f"none of the {len(store)} videos of {root} is in {', '.join(map(str, options.inputs))}: name the "
                f"folders that the store was built from; its first video is {store.video_id(0)}"
                if len(store)
                else f"{root} has no videos"
            )
        _warn_of(progress, "videos of the store that are not among the files", missing)
        model = load_mask_model(options.model, device, local_files_only=options.offline)
        work = _Segmenting(store, files, model, options, progress, clock)
        progress.start("videos", len(store) - len(missing))
        try:
            for shard in _shards_of(store, files):
                work.segment_shard(shard)
        finally:
            work.source.close()
        finish_store(root)
    counts, done = work.counts, work.done - work.renewed
    return SegmentedMasks(
        work.made_by, len(work.renewed), len(done), counts["frames"], counts["empty"], counts["kept"],
        counts["objects"], tuple(sorted(work.nothing - work.renewed - work.done)), missing, work.failures,
    )  # fmt: skip


def _shards_of(store: Store, files: Mapping[str, Source]) -> list[int]:
    found: set[int] = set()
    for video, name in enumerate(store.videos):
        if name in files:
            begin, end = store.columns.part_offsets[video : video + 2].tolist()
            found.update(store.columns.part_shard[begin:end].tolist())
    return sorted(found)


def _warn_of(progress: Progress, what: str, names: tuple[str, ...]) -> None:
    if names:
        progress.warn(f"{what}: {len(names)} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})")


@dataclass
class _Segmenting:
    """Gives `replace_masks` the masks of each video, for a limited time per call.

    Attributes:
        source: frames of the videos.
        renewed: ids of videos with new masks.
        done: ids of videos with masks of this model from an earlier run.
        nothing: ids of videos with a part that has no object.
    """

    store: Store
    files: Mapping[str, Source]
    model: VideoMaskModel
    options: SegmentOptions
    progress: Progress
    clock: Callable[[], float]
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    renewed: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    nothing: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)  # ids of the shard that need nothing more in this run
    pending: bool = False  # whether the time of this call is up
    worked: bool = False  # whether this call has new masks
    ends: float = 0.0

    def __post_init__(self) -> None:
        options, info = self.options, self.model.info
        self.source = FrameSource(options.decoder)
        self.made_by = MaskModel(
            name=info.name[:200],
            kind=info.kind,
            sha256=info.sha256,
            window=options.window,
            objects=options.objects,
            points=options.points,
            negative_points=options.negative_points,
        )

    def segment_shard(self, shard: int) -> None:
        """Renew the masks of a shard; it is written again whenever the time is up."""
        self.finished = set()
        self.pending = True
        while self.pending:
            self.pending = self.worked = False
            self.ends = self.clock() + self.options.commit_seconds
            replace_masks(Path(self.store.path), self.store.header, shard, self, self.made_by)

    def __call__(self, row: VideoRow, known: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """See `replace_masks`."""
        if row.id not in self.files or row.id in self.finished or row.id in self.failures:
            return None
        if self.worked and self.clock() >= self.ends:
            # The work of this call is written first.
            self.pending = True
            return None
        self.finished.add(row.id)
        if row.id not in self.seen:
            self.seen.add(row.id)
            self.progress.advance(note=row.id)
        if row.mask_model is not None and row.mask_model.model_copy(update={"name": self.made_by.name}) == self.made_by:
            self.done.add(row.id)
            return None
        return self._renewed(row, known)

    def _renewed(self, row: VideoRow, known: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        path = self.files[row.id].path
        try:
            if identify(path) != row.identity:
                raise VideoError(path, "length_mismatch", "has changed since the store was built; build it again")
            if not has_prompts(row, known, self.store.header, self.options):
                self.nothing.add(row.id)
                return None
            frames = self.source.read(path, row.first, row.num_frames)
            video = segment_video(row, known, frames, self.model, self.store.header, self.options)
        except Exception as error:  # noqa: BLE001
            # One bad video never stops a thousand good ones, whatever the decoder or the model raises.
            self.source.close()
            self.failures[row.id] = _described(error)
            self.progress.warn(f"{row.id} keeps its masks: {self.failures[row.id]}")
            return None
        self.counts.update(video.counts)
        self.renewed.add(row.id)
        self.worked = True
        return video.packed


def _described(error: Exception) -> str:
    if isinstance(error, BgaugError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "out of memory; a smaller --window or fewer --objects need less"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
