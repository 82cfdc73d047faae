"""`bgaug evaluate`: frozen features of a store's videos, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.augment import centre_crop
from bgaug.dataset import ClipDataset, ClipOptions
from bgaug.errors import UsageError
from bgaug.evaluate import LinearProbe, Retrieval, bootstrap_interval, leave_one_out_retrieval, retrieval
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.train import load_learner
from bgaug.store import open_store

PROTOCOLS = ("retrieval", "linear")


@dataclass(frozen=True)
class Features:
    """Frozen features of a store's labelled videos.

    Attributes:
        values: float32 (N, D), the mean over each video's clips.
        labels: int64 (N,).
        groups: int64 (N,), -1 where unknown.
        splits: int64 (N,), index into `split_names`, -1 where unknown.
        split_names: of the store.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    splits: NDArray[np.int64]
    split_names: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, and how they were come by."""

    metrics: dict[str, float]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**self.metrics, "settings": self.settings}


def evaluate(
    run: Path,
    store_path: Path,
    progress: Progress,
    *,
    protocols: Sequence[str] = ("retrieval",),
    which: str = "g",
    clips: int = 10,
    batch_size: int = 8,
    device: str | None = None,
) -> Evaluation:
    """Evaluate a run on the labelled videos of a store.

    Retrieval and the linear probe go from the store's "test" split to its "train" split, where it has both; else each
    group in turn is held out, where groups are known; else each video.

    Args:
        run: folder that `train` made.
        store_path: made by `build_shards`.
        progress: receives what happens.
        protocols: of `PROTOCOLS`.
        which: feature: "g" (global, the default), "d" (dynamic), "r" (static) or "dr".
        clips: evenly spaced clips of each video, whose features are averaged.
        batch_size: videos encoded at once; does not change the result.
        device: by default CUDA where there is one, else the CPU.

    Raises:
        UsageError: an unknown protocol, or no labelled videos.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown or not protocols:
        raise UsageError(f"protocols are {', '.join(PROTOCOLS)}; got {', '.join(unknown) or 'none'}")
    learner, config = load_learner(run)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    features = store_features(learner.to(where), config, store_path, progress, which, clips, batch_size)
    metrics: dict[str, float] = {}
    how = _how(features)
    if "retrieval" in protocols:
        found = _retrieve(features, how)
        metrics |= {f"retrieval_r{k}": round(100 * value, 2) for k, value in found.recall.items()}
        metrics["retrieval_chance"] = round(100 * found.chance, 2)
    if "linear" in protocols:
        metrics |= _probe(features, how)
    settings = {
        "run": str(run),
        "feature": which,
        "clips": clips,
        "crop": config["crop"],
        "frames": config["num_frames"],
        "stride": config["stride"],
        "videos": len(features.labels),
        "held_out": how,
    }
    return Evaluation(metrics, settings)


@torch.no_grad()
def store_features(
    learner: ContrastiveLearner,
    config: dict[str, Any],
    store_path: Path,
    progress: Progress,
    which: str = "g",
    clips: int = 10,
    batch_size: int = 8,
) -> Features:
    """Features of every labelled video: evenly spaced clips, centre crop, averaged over clips."""
    device = next(learner.parameters()).device
    store = open_store(store_path)
    options = ClipOptions(config["num_frames"], config["stride"], views=clips, sampling="uniform")
    dataset = ClipDataset(store, options, labelled=True, backgrounds=False)
    progress.start("features", len(dataset))
    values = []
    for first in range(0, len(dataset), batch_size):
        indices = range(first, min(first + batch_size, len(dataset)))
        batch = ClipDataset.collate(dataset.__getitems__(indices)).to(device)
        frames = batch.frames.flatten(0, 1)
        crops = centre_crop(frames, batch.box.repeat_interleave(clips, 0), config["crop"])
        codes = learner.features(crops, which).view(len(indices), clips, -1)
        values.append(codes.mean(1).float().cpu().numpy())
        progress.advance(len(indices))
    columns = store.columns
    return Features(
        values=np.concatenate(values),
        labels=columns.label[dataset.videos].astype(np.int64),
        groups=columns.group[dataset.videos].astype(np.int64),
        splits=columns.split[dataset.videos].astype(np.int64),
        split_names=store.names.splits,
    )


def _how(features: Features) -> str:
    if {"train", "test"} <= set(features.split_names):
        return "test split against train split"
    if (features.groups >= 0).all() and len(np.unique(features.groups)) > 1:
        return "each group against the others"
    return "each video against the others"


def _parts(features: Features) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    test = features.splits == features.split_names.index("test")
    train = features.splits == features.split_names.index("train")
    return train, test


def _retrieve(features: Features, how: str) -> Retrieval:
    if how.startswith("test"):
        train, test = _parts(features)
        return retrieval(features.values[test], features.labels[test], features.values[train], features.labels[train])
    groups = features.groups if how.startswith("each group") else None
    return leave_one_out_retrieval(features.values, features.labels, groups)


def _probe(features: Features, how: str) -> dict[str, float]:
    """Accuracy of a linear probe on what it has not seen, with a 95 % interval over the held-out groups."""
    values, labels = features.values, features.labels
    if how.startswith("test"):
        train, test = _parts(features)
        folds = [(train, test)]
    else:
        # Leaving out one video at a time would fit a probe for each: ten folds do.
        groups = features.groups if how.startswith("each group") else np.arange(len(labels)) % 10
        folds = [(groups != group, groups == group) for group in np.unique(groups)]
    correct, fold_of = [], []
    for number, (train, test) in enumerate(folds):
        predicted = LinearProbe().fit(values[train], labels[train]).predict(values[test])
        correct.append(predicted == labels[test])
        fold_of.append(np.full(test.sum(), number))
    hits = np.concatenate(correct)
    low, high = bootstrap_interval(hits, np.concatenate(fold_of) if len(folds) > 1 else None)
    return {
        "linear": round(100 * float(hits.mean()), 2),
        "linear_low": round(100 * low, 2),
        "linear_high": round(100 * high, 2),
    }
