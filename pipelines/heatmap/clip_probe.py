"""Linear probes for heat maps of a class: fitted on a labelled store, what is shown held out.

Letters: N videos, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics import LinearProbe
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.evaluate.embed import Embedding, EmbedOptions, embed_store
from bgaug.progress import Progress
from bgaug.store import Store

CLIPS = 5
"""Clips of each video whose features are averaged for the probe."""
_FOLDS = 10


@dataclass(frozen=True, eq=False)
class ClipProbe:
    """Linear probes on one code of an encoder; which one speaks of a video depends on what it must not have seen.

    Attributes:
        classes: names of all classes, by label.
        embedding: of the labelled videos.
        fold: of each labelled video; videos of the fold that is asked for are left out of its probe's training.
        train: bool (N,), videos that any probe may be fitted on.
        feature: the code that they read, "global" or "dynamic": a class map has to explain the same one.
    """

    classes: tuple[str, ...]
    embedding: Embedding
    fold: NDArray[np.int64]
    train: NDArray[np.bool_]
    feature: str = "global"
    _fitted: dict[int, tuple[LinearProbe, NDArray[np.int64]]] = field(default_factory=dict)

    def weight(
        self, video_id: str, code: NDArray[np.float32], target: str | int | None
    ) -> tuple[NDArray[np.float64], int]:
        """What speaks for a class in a clip's code, float64 (D,), and the class.

        Args:
            video_id: of the clip's video, which the probe has not seen, nor others of its fold.
            code: float32 (1, D), the code that `feature` names.
            target: name or label of the class; None, or a class that no video of the training has, for the predicted one.

        Raises:
            UsageError: no such class, or fewer than two classes to tell apart.
        """
        if isinstance(target, str) and target not in self.classes:
            raise UsageError(f"no class {target!r}; there are {', '.join(self.classes)}")
        label = self.classes.index(target) if isinstance(target, str) else target
        probe, labels = self._probe(video_id)
        column = int(probe.scores(code)[0].argmax())
        if label is not None and label in labels:
            column = int(np.searchsorted(labels, label))
        return probe.weight[:, column], int(labels[column])

    def _probe(self, video_id: str) -> tuple[LinearProbe, NDArray[np.int64]]:
        place = self.embedding.ids.index(video_id) if video_id in self.embedding.ids else -1
        fold = int(self.fold[place]) if place >= 0 else -1
        if fold not in self._fitted:
            train = self.train & ((self.fold != fold) if fold >= 0 else True)
            labels = self.embedding.labels[train]
            if len(np.unique(labels)) < 2:
                raise UsageError(
                    f"a probe needs two classes to tell apart; {int(train.sum())} labelled videos that it may see have "
                    f"{len(np.unique(labels))}"
                )
            self._fitted[fold] = LinearProbe().fit(self.embedding.features[train], labels), np.unique(labels)
        return self._fitted[fold]


def fit_probes(
    learner: ContrastiveLearner,
    config: Mapping[str, Any],
    store: Store,
    progress: Progress,
    *,
    hold_out: bool,
    feature: str | None = None,
) -> ClipProbe:
    """Probes on the labelled videos of a store.

    Args:
        learner: in evaluation mode.
        config: of its run.
        store: labelled.
        progress: receives what happens.
        hold_out: the videos that are shown are of this store: of its train split where it has one and a test split, else
            each group is held out where groups are known, else each tenth of the videos.
        feature: "global" or "dynamic"; None for the run's own, `bgaug.model.Method.feature`, which `evaluate` and `embed` report.

    Raises:
        UsageError: nothing is labelled.
    """
    feature = feature or learner.method.feature
    videos = np.flatnonzero(store.columns.label >= 0)
    if not len(videos):
        raise UsageError(f"{store.path} has no labelled videos to fit a probe on; see `bgaug build-shards --labels`")
    found = embed_store(learner, config, store, progress, EmbedOptions(which=feature, clips=CLIPS), videos.tolist())
    fold, train = np.full(len(videos), -1), np.ones(len(videos), np.bool_)
    if "train" in found.split_names and ("test" in found.split_names or not hold_out):
        train = found.splits == found.split_names.index("train")
    elif hold_out:
        by_group = bool((found.groups >= 0).all()) and len(np.unique(found.groups)) > 1
        fold = found.groups if by_group else np.arange(len(videos)) % _FOLDS
    return ClipProbe(store.header.classes, found, fold, train, feature)
