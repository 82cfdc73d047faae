"""The clips of a training, its labels, and the accuracy on held-out videos after each epoch.

Letters: N videos, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import UsageError
from bgaug.model import ContrastiveLearner, Method
from bgaug.pipelines.evaluate.features import encode, evaluation_clips
from bgaug.pipelines.train.bias_monitor import evaluating
from bgaug.pipelines.train.options import TrainOptions
from bgaug.progress import Silent
from bgaug.store import Store

HELD_OUT = ("val", "test")
"""Splits on which a training is watched, in this order."""

ACCURACY = "held_out_accuracy"
_CHUNK = 16  # videos per forward pass


def training_splits(store: Store, options: TrainOptions) -> tuple[str, ...] | None:
    """Splits whose videos are trained on: `--split`, else "train" where there is one, else all videos (None)."""
    if options.splits is None and "train" in store.names.splits:
        return ("train",)
    return options.splits


def training_clips(store: Store, options: TrainOptions, method: Method) -> ClipDataset:
    """Training clips of a store; for a supervised method of its labelled videos.

    A supervised method without composites also takes videos without a background, and masks of any grade.

    Raises:
        UsageError: no video is left, or a supervised method has no labels or only one class.
    """
    splits = training_splits(store, options)
    plain = method.supervised and not method.compose.needs
    clips = ClipOptions(num_frames=options.num_frames, stride=options.stride, views=method.views)
    dataset = ClipDataset(
        store,
        clips,
        seed=options.seed,
        splits=splits,
        labelled=method.supervised and _check_labels(store, splits, method),
        min_grade=None if plain or options.min_grade == "none" else options.min_grade,
        backgrounds=not plain,
    )
    if method.supervised and len(np.unique(store.columns.label[dataset.videos])) < 2:
        raise UsageError(f"{store.path}: all {len(dataset)} videos that can be trained on are of one class")
    return dataset


def unlabelled_note(store: Store, options: TrainOptions, method: Method) -> str | None:
    """A warning that counts the videos without a label, on which a supervised method does not train."""
    labels = store.columns.label[_of_splits(store, training_splits(store, options))]
    count = int((labels < 0).sum())
    return f"{count} of {len(labels)} videos are left out: they have no label" if method.supervised and count else None


def _check_labels(store: Store, splits: Sequence[str] | None, method: Method) -> bool:
    """True; raises UsageError if the store has labels of fewer than two classes."""
    labels = store.columns.label[_of_splits(store, splits)]
    known = np.unique(labels[labels >= 0])
    if len(known) < 2:
        where = "" if splits is None else f" of the split {', '.join(splits)}"
        raise UsageError(
            f"--method {method.name} learns labels: {int((labels >= 0).sum())} of {len(labels)} videos{where} in "
            f"{store.path} have one, of {len(known)} classes, and two classes are needed. Name a list when the store "
            "is built: `bgaug build-shards --labels LIST`"
        )
    return True


def _of_splits(store: Store, splits: Sequence[str] | None) -> NDArray[np.bool_]:
    """Which videos are of some splits, (N,); of all by default. Unknown splits have none."""
    if splits is None:
        return np.ones(len(store), np.bool_)
    names = list(store.names.splits)
    return np.isin(store.columns.split, [names.index(name) for name in splits if name in names])


class HeldOutAccuracy:
    """Measures the accuracy of a supervised learner's own classifier, in percent, on centre crops.

    One clip from the middle of each video. The learner is the one that is trained, not its moving average.

    Args:
        dataset: labelled videos that are not trained on, with one evenly spaced clip each.
        crop: side of the centre crop, pixels.
        device: device of the learner.
        threads: threads that read clips.
    """

    def __init__(self, dataset: ClipDataset, crop: int, device: torch.device, threads: int) -> None:
        self.dataset, self.crop, self.device, self.threads = dataset, crop, device, threads
        self.labels = dataset.store.columns.label[dataset.videos].astype(np.int64)

    @classmethod
    def of(
        cls, store: Store, options: TrainOptions, method: Method, crop: int, device: torch.device
    ) -> HeldOutAccuracy | None:
        """On the split "val", else "test"; None if the method is not supervised or no such split is held out."""
        trained = training_splits(store, options)
        if not method.supervised or trained is None:
            return None
        for split in HELD_OUT:
            if split not in trained and (_of_splits(store, (split,)) & (store.columns.label >= 0)).any():
                clips = ClipOptions(options.num_frames, options.stride, views=1, sampling="uniform")
                dataset = ClipDataset(store, clips, splits=(split,), labelled=True, backgrounds=False)
                return cls(dataset, crop, device, options.threads)
        return None

    def __call__(self, learner: ContrastiveLearner) -> dict[str, float]:
        """The accuracy of a learner as it is now; its training mode is restored."""
        with evaluating(learner):
            crops = evaluation_clips(self.dataset, self.crop, self.device, _CHUNK, self.threads, Silent())
            predicted = encode(learner.logits, crops).argmax(axis=1)
        return {ACCURACY: round(100 * float(np.mean(predicted == self.labels)), 2)}
