"""The classifier that a supervised run was trained with, in place of probes.

Letters: N clips, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.model.checkpoint import Run
from bgaug.pipelines.evaluate.bias.composer import has_splits
from bgaug.progress import Progress
from bgaug.store import Store


@dataclass(frozen=True, eq=False)
class OwnHead:
    """A linear classifier of a run's features.

    Attributes:
        weight: float64 (D, K).
        bias: float64 (K,).
        columns: int64 (K,), place of each of its classes among those of the store.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    columns: NDArray[np.int64]

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits (N, K) of features (N, D); of a mean of features they are the mean of the logits."""
        found: NDArray[np.float64] = features.astype(np.float64) @ self.weight + self.bias
        return found


def head_of(run: Run, store: Store, feature: str, progress: Progress) -> OwnHead:
    """The classifier of a supervised run, for the classes of a store.

    Raises:
        UsageError: the run has no classifier, or one of another feature or of other classes.
    """
    learner, names = run.learner, run.config.get("classes") or []
    if not learner.method.supervised:
        raise UsageError(f"--readout head: {run.path} was trained by {learner.method.name!r} and has no classifier")
    if feature != learner.method.codes[0]:
        raise UsageError(
            f"--readout head: the classifier of {run.path} reads the feature {learner.method.codes[0]!r}, not "
            f"{feature!r}"
        )
    classes = list(store.header.classes)
    if sorted(names) != sorted(classes):
        differing = sorted(set(names) ^ set(classes))
        raise UsageError(
            f"--readout head: the classes of {run.path} and {store.path} differ: {', '.join(differing[:5])}"
        )
    if not has_splits(store):
        progress.warn(
            f"{store.path} has no train and test split: the classifier of {run.path} may have been trained on the "
            "tested videos"
        )
    linear = learner.encoder.heads[feature][1]  # type: ignore[index]
    weight, bias = (part.detach().cpu().double().numpy() for part in (linear.weight, linear.bias))
    return OwnHead(weight.T, bias, np.array([classes.index(name) for name in names], np.int64))
