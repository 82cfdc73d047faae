"""Classifiers on frozen features: a linear probe, the choice of its penalty, and few-shot classifiers.

Letters: N samples, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from bgaug.metrics.checks import Array, Floats, Ints, check_dims, checked, checked_features
from bgaug.metrics.held_out import deal
from bgaug.metrics.neighbours import unit
from bgaug.names import FewShotClassifier

L2_CANDIDATES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0)


class _Fit(NamedTuple):
    classes: Ints  # (K,)
    mean: Floats  # (D,)
    scale: Floats  # (D,)
    weight: Floats  # (D, K)
    bias: Floats  # (K,)


@dataclass
class LinearProbe:
    """Multinomial logistic regression on standardised features.

    Minimises ``mean cross-entropy + l2 * ||W||^2`` (the bias is free) from W = 0 by L-BFGS in float64: no randomness,
    no learning rate. Features are standardised with the mean and deviation of the training set; a feature that is
    constant there is ignored.

    Attributes:
        l2: strength of the penalty, more than 0.
        iterations: largest number of iterations of L-BFGS.
    """

    l2: float = 3e-3
    iterations: int = 60
    _fit: _Fit | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.l2 <= 0 or self.iterations < 1:
            raise ValueError(f"l2 must be positive and iterations 1 or more, got {self.l2 = }, {self.iterations = }")

    def fit(self, features: Array, labels: Array) -> LinearProbe:
        """Fit the probe to features (N, D) and int labels (N,), 0 or more, and return it.

        Raises:
            ValueError: shapes do not fit, or an array is empty, not finite or has unknown labels.
        """
        features, labels = checked(features, labels, "training")
        mean, scale = features.mean(axis=0), features.std(axis=0)
        constant = scale <= 1e-6 * abs(mean)  # below the resolution of float32: a constant with rounding errors
        scale = np.where(constant, np.inf, scale)
        classes, targets = np.unique(labels, return_inverse=True)
        weight, bias = _minimise((features - mean) / scale, targets, self.l2, self.iterations)
        self._fit = _Fit(classes, mean, scale, weight, bias)
        return self

    def scores(self, features: Array) -> Floats:
        """Logits (N, K) of features (N, D), one column per class of the training set, in ascending order.

        Raises:
            RuntimeError: not fitted yet.
            ValueError: features are not (N, D) with the D of training, or not finite.
        """
        fit = self._fitted()
        features = checked_features(features, "test")
        check_dims(features, fit.mean[None])
        scores: Floats = (features - fit.mean) / fit.scale @ fit.weight + fit.bias
        return scores

    @property
    def weight(self) -> Floats:
        """Weights (D, K) on features as given, minus their mean over classes: the evidence for each class.

        Raises:
            RuntimeError: not fitted yet.
        """
        fit = self._fitted()
        weight: Floats = fit.weight / fit.scale[:, None]
        weight -= weight.mean(axis=1, keepdims=True)
        return weight

    def predict(self, features: Array) -> Ints:
        """Most likely labels (N,) of features (N, D); see `scores` for errors."""
        labels: Ints = self._fitted().classes[self.scores(features).argmax(axis=1)]
        return labels

    def accuracy(self, features: Array, labels: Array) -> float:
        """Share of features (N, D) whose predicted label is that in labels (N,); see `scores` for errors."""
        features, labels = checked(features, labels, "test")
        return float((self.predict(features) == labels).mean())

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise RuntimeError("this probe is not fitted yet; call fit(features, labels) first")
        return self._fit


def choose_l2(
    features: Array,
    labels: Array,
    groups: Array | None = None,
    candidates: Sequence[float] = L2_CANDIDATES,
    *,
    folds: int = 5,
) -> float:
    """Choose the penalty of a linear probe by cross-validation.

    Call it with training samples only: test samples must not influence the choice. Whole groups are held out together;
    see `bgaug.metrics.deal`. Nothing is random.

    Args:
        features: (N, D).
        labels: int (N,), 0 or more.
        groups: (N,), samples of one group stay in one fold; by default each sample is a group of its own.
        candidates: penalties; of equally good ones the strongest is chosen.
        folds: number of folds, at most that of groups.

    Returns:
        One of the candidates.

    Raises:
        ValueError: shapes do not fit, no candidates, fewer than two folds, or a single group.
    """
    features, labels = checked(features, labels, "training")
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if groups.shape != labels.shape:
        raise ValueError(f"one group per sample is needed, got {groups.shape = } for {labels.shape = }")
    number = np.unique(groups, return_inverse=True)[1]
    if not candidates or folds < 2 or number.max() == 0:
        raise ValueError(
            f"candidates, two folds and two groups are needed, got {len(candidates)}, {folds} and {number.max() + 1}"
        )
    fold = deal(number, labels, folds)
    hits = dict.fromkeys(sorted(candidates, reverse=True), 0)
    for held_out in np.unique(fold):
        test = fold == held_out
        for l2 in hits:
            probe = LinearProbe(l2).fit(features[~test], labels[~test])
            hits[l2] += int((probe.predict(features[test]) == labels[test]).sum())
    return max(hits, key=lambda l2: hits[l2])  # the first of equal ones


def _minimise(features: Floats, targets: Ints, l2: float, iterations: int) -> tuple[Floats, Floats]:
    # Callers are often inside no_grad or inference_mode; the solver needs gradients.
    with torch.inference_mode(False), torch.enable_grad():
        x, y = torch.from_numpy(features), torch.from_numpy(targets)
        weight = torch.zeros(x.shape[1], int(targets.max()) + 1, dtype=x.dtype, requires_grad=True)
        bias = torch.zeros(weight.shape[1], dtype=x.dtype, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = torch.nn.functional.cross_entropy(x @ weight + bias, y) + l2 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach().numpy(), bias.detach().numpy()


# --- few labels ---------------------------------------------------------------------------------------------------


def draw_shots(labels: Array, shots: int, seed: int | tuple[int, ...]) -> Ints:
    """Draw a number of samples of each class without replacement.

    Draws of one seed are nested: the samples of 1 shot are among those of 5. The draw of a class does not depend on the
    other classes.

    Args:
        labels: int (N,), 0 or more.
        shots: samples per class, 1 or more.
        seed: seed of the draw, 0 or more, or several such numbers.

    Returns:
        int64 (K * shots,), ascending places in `labels`.

    Raises:
        ValueError: shots is below 1, or a class has fewer samples.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    smallest = int(counts.min()) if len(counts) else 0
    if not 1 <= shots <= smallest:
        raise ValueError(f"{shots} samples per class were requested; the smallest class has {smallest}")
    words = (seed,) if isinstance(seed, int) else seed
    drawn = []
    for name in classes.tolist():
        places = np.flatnonzero(labels == name)
        drawn.append(np.random.default_rng([*words, name]).permutation(places)[:shots])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def few_shot_predict(
    train_features: Array,
    train_labels: Array,
    features: Array,
    *,
    shots: int,
    draws: int = 10,
    seed: int = 0,
    classifier: FewShotClassifier = "linear",
    l2: float = 3e-3,
) -> Iterator[Ints]:
    """Labels by a classifier that was fitted to a few samples of each class; one result per draw.

    Args:
        train_features: (N, D), samples to draw from.
        train_labels: int (N,), 0 or more.
        features: (Q, D), samples to label.
        shots: samples per class.
        draws: number of draws.
        seed: seed of the draws; draw i does not depend on the number of draws.
        classifier: "linear", a `LinearProbe`; "centroid", the nearest class mean by cosine, of features of length 1.
        l2: penalty of the linear probe.

    Yields:
        int64 (Q,).

    Raises:
        ValueError: shapes do not fit, a class is too small, an unknown classifier, or draws below 1.

    Reference: class means as in J. Snell et al., Prototypical Networks, arXiv 1703.05175, and Y. Wang et al.,
        SimpleShot, arXiv 1911.04623, here without centring.
    """
    train_features, train_labels = checked(train_features, train_labels, "training")
    features = checked_features(features, "test")
    check_dims(features, train_features)
    if classifier not in get_args(FewShotClassifier) or draws < 1:
        raise ValueError(
            f"classifiers are {', '.join(get_args(FewShotClassifier))} and draws 1 or more, got {classifier!r}, {draws}"
        )
    for draw in range(draws):
        drawn = draw_shots(train_labels, shots, (seed, draw))
        known, names = train_features[drawn], train_labels[drawn]
        if classifier == "linear":
            yield LinearProbe(l2).fit(known, names).predict(features)
        else:
            yield _nearest_mean(known, names, features)


def _nearest_mean(known: Floats, names: Ints, features: Floats) -> Ints:
    classes, place = np.unique(names, return_inverse=True)
    sums = np.zeros((len(classes), known.shape[1]))
    np.add.at(sums, place, unit(known))
    predicted: Ints = classes[(unit(features) @ unit(sums).T).argmax(axis=1)]
    return predicted
