"""A linear probe: what a linear layer can read from frozen features.

Letters: N samples, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bgaug.metrics.checks import Array, Floats, Ints, check_dims, checked, checked_features
from bgaug.metrics.held_out import deal

L2_CANDIDATES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0)


class _Fit(NamedTuple):
    classes: Ints  # (K,)
    mean: Floats  # (D,)
    scale: Floats  # (D,)
    weight: Floats  # (D, K)
    bias: Floats  # (K,)


@dataclass
class LinearProbe:
    """Multinomial logistic regression on standardised features: what a linear layer can read from them.

    Minimises ``mean cross-entropy + l2 * ||W||^2`` (the bias is free) from W = 0 by L-BFGS in float64: no randomness,
    no learning rate. Features are standardised with the mean and deviation of the training set; a feature that is
    constant there is ignored.

    Attributes:
        l2: strength of the penalty, more than 0.
        iterations: of L-BFGS, at most.
    """

    l2: float = 3e-3
    iterations: int = 60
    _fit: _Fit | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.l2 <= 0 or self.iterations < 1:
            raise ValueError(f"l2 must be positive and iterations 1 or more, got {self.l2 = }, {self.iterations = }")

    def fit(self, features: Array, labels: Array) -> LinearProbe:
        """Learn from features (N, D) and int labels (N,), 0 or more; returns itself.

        Raises:
            ValueError: shapes do not fit, or something is empty, not finite or of unknown label.
        """
        features, labels = checked(features, labels, "training")
        mean, scale = features.mean(axis=0), features.std(axis=0)
        constant = scale <= 1e-6 * abs(
            mean
        )  # below the resolution of float32, so also what rounding made of a constant
        scale = np.where(constant, np.inf, scale)
        classes, targets = np.unique(labels, return_inverse=True)
        weight, bias = _minimise((features - mean) / scale, targets, self.l2, self.iterations)
        self._fit = _Fit(classes, mean, scale, weight, bias)
        return self

    def scores(self, features: Array) -> Floats:
        """Logits (N, K) of features (N, D), one column a class of the training set, in ascending order.

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
        """Weights (D, K) on features as they are, less what all classes share: what speaks for each class.

        Raises:
            RuntimeError: not fitted yet.
        """
        fit = self._fitted()
        weight: Floats = fit.weight / fit.scale[:, None]
        weight -= weight.mean(axis=1, keepdims=True)
        return weight

    def predict(self, features: Array) -> Ints:
        """Most likely labels (N,) of features (N, D); raises as `scores`."""
        labels: Ints = self._fitted().classes[self.scores(features).argmax(axis=1)]
        return labels

    def accuracy(self, features: Array, labels: Array) -> float:
        """Share of features (N, D) whose predicted label is that in labels (N,); raises as `scores`."""
        features, labels = checked(features, labels, "test")
        return float((self.predict(features) == labels).mean())

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise RuntimeError("this probe has learnt nothing yet; call fit(features, labels) first")
        return self._fit


def choose_l2(
    features: Array,
    labels: Array,
    groups: Array | None = None,
    candidates: Sequence[float] = L2_CANDIDATES,
    *,
    folds: int = 5,
) -> float:
    """The penalty with which a linear probe does best on parts of its own training set that it did not see.

    Call it with training samples alone: what is tested later must have no say. Whole groups are held out together; see
    `bgaug.metrics.deal`. Nothing is random.

    Args:
        features: (N, D).
        labels: int (N,), 0 or more.
        groups: (N,), what must not be torn apart; by default each sample is a group of its own.
        candidates: penalties; of equally good ones the strongest wins.
        folds: parts, each held out once; as many as there are groups where those are fewer.

    Returns:
        One of the candidates.

    Raises:
        ValueError: shapes do not fit, no candidates, fewer than two folds, or a single group.
    """
    features, labels = checked(features, labels, "training")
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if groups.shape != labels.shape:
        raise ValueError(f"one group a sample is needed, got {groups.shape = } for {labels.shape = }")
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
    # Evaluation code is often inside no_grad or inference_mode; the solver needs neither.
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
