"""Frozen features of a store's videos: evenly spaced clips, centre crop, averaged; computed once and kept beside the run.

Letters: N videos, B videos of a batch, V clips of a video, T frames, S side of the crop, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.data.batch import Batch
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
from bgaug.errors import UsageError
from bgaug.model.checkpoint import Run
from bgaug.model.decomposition import CODES, FEATURES, OLD_FEATURES
from bgaug.model.pretrained import own_clips
from bgaug.pairs import centre_crop
from bgaug.pipelines.demo.truth import UNREADABLE, write_arrays
from bgaug.progress import Progress
from bgaug.provenance import store_content
from bgaug.store import Store
from bgaug.untrusted.archives import read_npz

FOLDER = "features"
FORM = 1
"""Of the files; another number makes all of them stale."""


@dataclass(frozen=True, eq=False)
class Features:
    """Frozen features of videos.

    Attributes:
        videos: int64 (N,), index in the store.
        codes: float32 (N, D) by name in `CODES`; means over each video's clips.
        file: where they are kept, None if nowhere.
        reused: whether they were there already.
    """

    videos: NDArray[np.int64]
    codes: Mapping[str, NDArray[np.float32]]
    file: Path | None = None
    reused: bool = False

    def of(self, which: str, videos: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Features (n, D), or (n, 2D) of "dynamic+static", of these videos, by default of all.

        Raises:
            UsageError: no such feature.
            KeyError: a video has none.
        """
        if which not in FEATURES:
            raise UsageError(f"features are {', '.join(FEATURES)}, got {which!r}")
        values = np.concatenate([self.codes[code] for code in which.split("+")], axis=1)
        if videos is None:
            return values
        places = np.searchsorted(self.videos, videos)
        if (places >= len(self.videos)).any() or (self.videos[places] != videos).any():
            raise KeyError("features of a video that was not encoded")
        found: NDArray[np.float32] = values[places]
        return found


def frozen_features(
    run: Run,
    store: Store,
    videos: NDArray[np.int64],
    progress: Progress,
    *,
    clips: int = 10,
    batch_size: int = 8,
    threads: int = 2,
    cache: bool = True,
) -> Features:
    """Features of videos, from the file beside the run where that is whole and of the same checkpoint, store and clips.

    The number of threads does not change the result, and that of videos a batch by no more than rounding does.

    Args:
        run: what encodes.
        store: with frames.
        videos: int64 (N,), index in the store, ascending.
        progress: receives what happens.
        clips: V, evenly spaced over each video's longest shot; features are averaged.
        batch_size: B.
        threads: that read clips.
        cache: keep the features, and take them where they are kept.

    Raises:
        UsageError: the store keeps no frames.
        StoreError: it cannot be read.
    """
    about = _about(run, store, videos, clips)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    kept = cache and about["store_content"] is not None
    file = run.folder / FOLDER / f"{key[:32]}.npz"
    if kept and file.exists():
        codes = _read(file, key, len(videos))
        if codes is not None:
            return Features(videos, codes, file, reused=True)
        progress.warn(f"{file} is damaged or of something else; its features are computed anew")
    dataset = clips_of(store, run.config, videos, views=clips, sampling="uniform")
    codes = _encode(run, dataset, progress, batch_size, threads)
    if kept:
        try:
            write_arrays(file, {**codes, "key": np.array(key), "about": np.array(json.dumps(about))})
        except OSError as error:
            progress.warn(f"features are not kept: {error}")
            kept = False
    return Features(videos, codes, file if kept else None)


def clips_of(
    store: Store, config: Mapping[str, Any], videos: NDArray[np.int64], *, seed: int = 0, **options: Any
) -> ClipDataset:
    """Clips of these videos alone, as the run saw them, whether they have a background or not.

    Args:
        store: with frames.
        config: of the run: frames and stride.
        videos: int64 (N,), index in the store.
        seed: of what is drawn.
        options: further fields of `ClipOptions`.

    Raises:
        UsageError: the store keeps no frames, or a video has no shot to take clips from.
    """
    clips = ClipOptions(config["num_frames"], config["stride"], **options)
    dataset = ClipDataset(store, clips, seed=seed, backgrounds=False)
    missing = np.setdiff1d(videos, dataset.videos)
    if len(missing):
        raise UsageError(f"{store.path}: {store.video_id(int(missing[0]))} has no shot to take clips from")
    dataset.videos = videos
    return dataset


def evaluation_clips(
    dataset: ClipDataset, crop: int, device: torch.device, batch_size: int, threads: int
) -> Iterator[Tensor]:
    """Centre crops of all videos in order, batch by batch: float32 in [0, 1], (B * V, 3, T, S, S).

    Args:
        dataset: of V evenly spaced clips a video.
        crop: S.
        device: where they are cut.
        batch_size: B; the last one may be smaller.
        threads: that read.
    """

    def cut(batch: Batch) -> Tensor:
        batch = batch.to(device, non_blocking=True)
        boxes = batch.box.repeat_interleave(batch.frames.shape[1], 0)
        return centre_crop(batch.frames.flatten(0, 1), boxes, crop)

    whole = len(dataset) // batch_size
    if whole:
        for batch in ClipLoader(dataset, batch_size, shuffle=False, threads=threads):
            yield cut(batch)
    if left := range(whole * batch_size, len(dataset)):
        yield cut(ClipDataset.collate(dataset.__getitems__(left)))


@torch.no_grad()
def _encode(
    run: Run, dataset: ClipDataset, progress: Progress, batch_size: int, threads: int
) -> dict[str, NDArray[np.float32]]:
    """All codes in one pass: float32 (N, D) by name."""
    progress.start("features", len(dataset))
    found: dict[str, list[Tensor]] = {code: [] for code in CODES}
    views = dataset.options.views
    for clips in evaluation_clips(dataset, run.config["crop"], run.device, batch_size, threads):
        with own_clips(run.config):
            codes = run.learner.encode(clips)
        for name, values in codes.by_name.items():
            found[name].append(values.float().view(-1, views, values.shape[1]).mean(1).cpu())
        progress.advance(len(clips) // views)
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def _about(run: Run, store: Store, videos: NDArray[np.int64], clips: int) -> dict[str, Any]:
    """Everything that features depend on, as plain JSON values."""
    ids = "\n".join(store.video_id(video) for video in videos.tolist())
    options = ClipOptions(run.config["num_frames"], run.config["stride"], views=clips, sampling="uniform")
    return {
        "form": FORM,
        "checkpoint_sha256": run.sha256,
        "store_content": store_content(store),
        "clips": asdict(options),
        "crop": run.config["crop"],
        "videos": len(videos),
        "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def _read(file: Path, key: str, count: int) -> dict[str, NDArray[np.float32]] | None:
    """Codes of a file; None if they are not there whole, or are something else's."""
    try:
        arrays = read_npz(file, [*CODES, "key"], compressed=0)
    except KeyError:
        try:
            old = read_npz(file, ["g", "d", "r", "key"], compressed=0)
        except UNREADABLE:
            return None
        arrays = {OLD_FEATURES.get(name, name): values for name, values in old.items()}
    except UNREADABLE:
        return None
    if str(arrays.pop("key")) != key:
        return None
    whole = (
        v.ndim == 2 and len(v) == count and v.dtype == np.float32 and np.isfinite(v).all() for v in arrays.values()
    )
    return arrays if all(whole) else None
