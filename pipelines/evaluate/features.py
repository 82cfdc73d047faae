"""Frozen features of clips: one `encode` for all callers, and features of a store's videos, kept next to their run.

Letters: N clips or videos, B videos of a batch, V clips of a video, T frames, S side of the crop, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from bgaug.files import write_arrays
from bgaug.files.archives import UNREADABLE, read_npz
from bgaug.model.checkpoint import Run
from bgaug.model.decomposition import CODES, OLD_FEATURES
from bgaug.model.pretrained import own_clips
from bgaug.names import FEATURES
from bgaug.pairs import centre_crop
from bgaug.progress import Progress
from bgaug.provenance import store_content
from bgaug.store import Store

Encoder = Callable[[Tensor], Tensor]
"""From float32 clips in [0, 1], (N, 3, T, S, S), to features (N, D)."""

FOLDER = "features"
FORM = 1
"""Version of the feature files; a file of another version is computed again."""


@torch.no_grad()
def encode(encoder: Encoder, batches: Iterable[Tensor], views: int = 1) -> NDArray[np.float32]:
    """Encode clips to features.

    Args:
        encoder: the encoder.
        batches: float32 clips in [0, 1], (clips, 3, T, S, S), on the encoder's device.
        views: number of successive clips whose features are averaged.

    Returns:
        float32 (N, D), in order, where N is the number of clips divided by `views`.
    """
    found = []
    for clips in batches:
        values = encoder(clips).float()
        # Averaged on the device: the mean of another device may differ in the last bit.
        found.append(values.view(-1, views, values.shape[1]).mean(1).cpu())
    features: NDArray[np.float32] = torch.cat(found).numpy()
    return features


def feature_of(run: Run, feature: str | None) -> str:
    """The requested feature, else the default of the run's method, which `bgaug.model.Method.feature` decides."""
    return feature or run.learner.method.feature


def encoder_of(run: Run, feature: str) -> Encoder:
    """The encoder of a run that gives one of `bgaug.model.decomposition.FEATURES`."""

    def encoder(clips: Tensor) -> Tensor:
        with own_clips(run.config):
            return run.learner.features(clips, feature)

    return encoder


@dataclass(frozen=True, eq=False)
class Features:
    """Frozen features of a store's videos.

    Attributes:
        videos: int64 (N,), index of each video in the store, ascending.
        codes: float32 (N, D) by name in `bgaug.model.decomposition.CODES`; means over the clips of each video.
        file: file that keeps them; None if they are not kept.
        reused: whether they were read from that file.
    """

    videos: NDArray[np.int64]
    codes: Mapping[str, NDArray[np.float32]]
    file: Path | None = None
    reused: bool = False

    def of(self, feature: str, videos: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Features (n, D), or (n, 2D) of "dynamic+static", of some videos; of all by default.

        Raises:
            UsageError: there is no such feature.
            KeyError: a video was not encoded.
        """
        if feature not in FEATURES:
            raise UsageError(f"features are {', '.join(FEATURES)}, got {feature!r}")
        values = np.concatenate([self.codes[code] for code in feature.split("+")], axis=1)
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
    """Features of a store's videos, read from the run's folder if the same were computed before.

    V clips, evenly spaced over the longest shot of each video, are encoded and their features averaged. The number of
    threads does not change the result; the batch size changes it by rounding only. With `cache`, features are kept in
    the run's folder.

    Raises:
        UsageError: the store keeps no frames.
        StoreError: the store cannot be read.
    """
    about = _about(run, store, videos, clips)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    # Without a content hash, a store that has changed could not be recognised.
    kept = cache and about["store_content"] is not None
    file = run.folder / FOLDER / f"{key[:32]}.npz"
    if kept and file.exists():
        codes = _read(file, key, len(videos))
        if codes is not None:
            return Features(videos, codes, file, reused=True)
        progress.warn(f"{file} is damaged or belongs to something else; its features are computed again")
    dataset = clips_of(store, run.config, videos, views=clips, sampling="uniform")
    crops = evaluation_clips(dataset, run.config["crop"], run.device, batch_size, threads, progress)

    def all_codes(clips: Tensor) -> Tensor:
        with own_clips(run.config):
            return torch.cat(list(run.learner.encode(clips).by_name.values()), dim=1)

    parts = np.split(encode(all_codes, crops, clips), len(CODES), axis=1)
    codes = {name: np.ascontiguousarray(part) for name, part in zip(CODES, parts, strict=True)}
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
    """Clips of some videos, with the frames and stride of a run, from shots with or without a background.

    `options` are further fields of `ClipOptions`; `seed` is that of random clips.

    Raises:
        UsageError: the store keeps no frames, or a video has no shot.
    """
    clips = ClipOptions(config["num_frames"], config["stride"], **options)
    dataset = ClipDataset(store, clips, seed=seed, backgrounds=False)
    missing = np.setdiff1d(videos, dataset.videos)
    if len(missing):
        raise UsageError(f"{store.path}: {store.video_id(int(missing[0]))} has no shot to take clips from")
    dataset.videos = videos
    return dataset


def evaluation_clips(
    dataset: ClipDataset,
    crop: int,
    device: torch.device,
    batch_size: int,
    threads: int,
    progress: Progress,
    stage: str = "features",
) -> Iterator[Tensor]:
    """Centre crops of all videos in order, batch by batch: float32 in [0, 1], (B * V, 3, T, S, S).

    The dataset has V evenly spaced clips of each of its videos. The last batch may be smaller. `progress` receives each
    batch when it was used, in a stage of the name `stage`.
    """

    def cropped(batch: Batch) -> Tensor:
        batch = batch.to(device, non_blocking=True)
        boxes = batch.box.repeat_interleave(batch.frames.shape[1], 0)
        return centre_crop(batch.frames.flatten(0, 1), boxes, crop)

    progress.start(stage, len(dataset))
    whole = len(dataset) // batch_size
    if whole:
        for batch in ClipLoader(dataset, batch_size, shuffle=False, threads=threads):
            yield cropped(batch)
            progress.advance(batch_size)
    # The loader yields whole batches only.
    if left := range(whole * batch_size, len(dataset)):
        yield cropped(ClipDataset.collate(dataset.__getitems__(left)))
        progress.advance(len(left))


def _about(run: Run, store: Store, videos: NDArray[np.int64], clips: int) -> dict[str, Any]:
    """Everything that the features depend on, as plain JSON values."""
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
    """Codes of a file; None if they are incomplete or belong to something else."""
    # Earlier feature files name the codes g, d and r.
    for names in (CODES, ("g", "d", "r")):
        try:
            arrays = read_npz(file, [*names, "key"], compressed=0)
        except KeyError:
            continue
        except UNREADABLE:
            return None
        # The name of the file holds half of the key; the file holds all of it.
        if str(arrays.pop("key")) != key:
            return None
        whole = (
            v.ndim == 2 and len(v) == count and v.dtype == np.float32 and np.isfinite(v).all() for v in arrays.values()
        )
        return {OLD_FEATURES.get(name, name): v for name, v in arrays.items()} if all(whole) else None
    return None
