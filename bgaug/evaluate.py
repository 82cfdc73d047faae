"""How good frozen features are: retrieval, a linear probe, nearest neighbours, and how sure the numbers are.

Pure functions over arrays; who encoded which clips is the caller's business. Where a video gave several clips, average
their features first: one row a video. Accuracies and recalls are shares in [0, 1].

Letters: N samples, Q queries, G gallery items, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

QUERY_BLOCK = 256  # queries compared at once: bounds the memory to this many rows of similarities
TIE = 1e-12  # cosines no further apart are equal: matrix products round by position


@dataclass(frozen=True)
class Retrieval:
    """What `retrieval` found.

    Attributes:
        recall: R@k for each k that was possible: the share of queries with their class among the k nearest.
        chance: what R@1 would be if the gallery came in random order: the mean share of the query's class in it.
        num_queries: queries counted.
        num_queries_left_out: queries whose group was the whole gallery, so that nothing was left to retrieve.
        ks_left_out: every k larger than the smallest gallery a query saw.
    """

    recall: dict[int, float]
    chance: float
    num_queries: int
    num_queries_left_out: int = 0
    ks_left_out: tuple[int, ...] = ()


def retrieval(
    query_features: Array,
    query_labels: Array,
    gallery_features: Array,
    gallery_labels: Array,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    *,
    centre: bool = False,
    query_groups: Array | None = None,
    gallery_groups: Array | None = None,
) -> Retrieval:
    """Recall at k of nearest neighbours by cosine similarity: is any of the k nearest of the query's class?

    The usual protocol takes the test split as queries and the training split as gallery. Ties count against the query,
    so an encoder that maps everything to one point scores nothing. A query whose class is not in its gallery is a miss.

    Args:
        query_features: (Q, D).
        query_labels: int (Q,), 0 or more.
        gallery_features: (G, D).
        gallery_labels: int (G,), 0 or more.
        ks: numbers of neighbours, 1 or more.
        centre: subtract the mean of the queries from the queries and that of the gallery from the gallery. Some
            published numbers do; it looks at the whole test set at once (transductive), so say so beside the number.
        query_groups: (Q,), for example the source video of a clip; a query is not compared with its own group.
        gallery_groups: (G,), needed together with `query_groups`.

    Raises:
        ValueError: shapes do not fit, an array is empty, not finite or holds unknown labels, only one of the groups is
            given, or no query has anything to retrieve.

    Reference: Xu et al., Self-supervised Spatiotemporal Learning via Video Clip Order Prediction, CVPR 2019, section
        4.3. Centring as in Han et al., Self-supervised Co-training for Video Representation Learning, arXiv 2010.09709.
    """
    query_features, query_labels = _checked(query_features, query_labels, "query")
    gallery_features, gallery_labels = _checked(gallery_features, gallery_labels, "gallery")
    _check_dims(query_features, gallery_features)
    if any(k < 1 for k in ks):
        raise ValueError(f"every k must be 1 or more, got {tuple(ks)}")
    groups = _joint_groups(query_groups, gallery_groups, len(query_labels), len(gallery_labels))
    queries, gallery = _unit(query_features, centre), _unit(gallery_features, centre)
    ranks, chances, sizes = np.empty(len(queries), np.int64), np.empty(len(queries)), np.empty(len(queries), np.int64)
    for rows, similarity in _similarities(queries, gallery):
        allowed = np.ones_like(similarity, np.bool_) if groups is None else groups[0][rows, None] != groups[1]
        same = (query_labels[rows, None] == gallery_labels) & allowed
        # -inf where the gallery has none of its class: then all stands before the first hit, a miss at any k.
        best = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = (allowed & ~same & (similarity >= best - TIE)).sum(axis=1)
        sizes[rows] = allowed.sum(axis=1)
        chances[rows] = same.sum(axis=1) / np.maximum(sizes[rows], 1)
    kept = sizes > 0
    if not kept.any():
        raise ValueError("nothing to retrieve: every query belongs to the only group in the gallery")
    possible = [k for k in ks if k <= sizes[kept].min()]
    return Retrieval(
        recall={k: float((ranks[kept] < k).mean()) for k in possible},
        chance=float(chances[kept].mean()),
        num_queries=int(kept.sum()),
        num_queries_left_out=int((~kept).sum()),
        ks_left_out=tuple(k for k in ks if k not in possible),
    )


def leave_one_out_retrieval(
    features: Array,
    labels: Array,
    groups: Array | None = None,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    *,
    centre: bool = False,
) -> Retrieval:
    """`retrieval` within one set: each item queries all items of the other groups.

    Args:
        features: (N, D).
        labels: int (N,), 0 or more.
        groups: (N,); by default each item is a group of its own.
        ks: numbers of neighbours, 1 or more.
        centre: subtract the mean of the set first.

    Raises:
        ValueError: as `retrieval`.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    return retrieval(features, labels, features, labels, ks, centre=centre, query_groups=groups, gallery_groups=groups)


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
        features, labels = _checked(features, labels, "training")
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
        features = _checked_features(features, "test")
        _check_dims(features, fit.mean[None])
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
        features, labels = _checked(features, labels, "test")
        return float((self.predict(features) == labels).mean())

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise RuntimeError("this probe has learnt nothing yet; call fit(features, labels) first")
        return self._fit


def knn_predict(
    train_features: Array, train_labels: Array, features: Array, *, k: int = 10, sigma: float = 0.1
) -> Ints:
    """Label by the votes of the k nearest training items, each weighing exp(cosine similarity / sigma).

    Args:
        train_features: (N, D).
        train_labels: int (N,), 0 or more.
        features: (Q, D).
        k: voters, 1..N.
        sigma: temperature of the votes, more than 0.

    Returns:
        int64 (Q,); of equal votes the lowest label wins.

    Raises:
        ValueError: shapes do not fit, or something is empty, not finite, of unknown label or out of range.

    Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv 1805.01978,
        section 3.4.
    """
    train_features, train_labels = _checked(train_features, train_labels, "training")
    features = _checked_features(features, "test")
    _check_dims(features, train_features)
    if not 1 <= k <= len(train_labels) or sigma <= 0:
        raise ValueError(f"k must be 1..{len(train_labels)} and sigma positive, got {k = }, {sigma = }")
    classes, targets = np.unique(train_labels, return_inverse=True)
    predicted = np.empty(len(features), np.int64)
    for rows, similarity in _similarities(_unit(features), _unit(train_features)):
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        weights = np.exp((near - near[:, :1]) / sigma)  # relative to the nearest: cannot overflow
        votes = np.zeros((len(near), len(classes)))
        np.add.at(votes, (np.arange(len(near))[:, None], targets[nearest]), weights)
        predicted[rows] = classes[votes.argmax(axis=1)]
    return predicted


def knn_accuracy(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    k: int = 10,
    sigma: float = 0.1,
) -> float:
    """Share of the test items (Q, D) that `knn_predict` labels as in test_labels (Q,); raises as it does."""
    test_features, test_labels = _checked(test_features, test_labels, "test")
    return float((knn_predict(train_features, train_labels, test_features, k=k, sigma=sigma) == test_labels).mean())


def bootstrap_interval(
    correct: Array, groups: Array | None = None, *, seed: int = 0, n: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean over test items, by drawing whole groups again with replacement.

    Clips of one source video stand or fall together; drawn one by one they would promise too narrow an interval. It
    covers the chance of the test items, not that of training: for that, train with more seeds.

    Args:
        correct: bool or float (N,), what is averaged.
        groups: (N,); by default each item is a group of its own.
        seed: of the draws; the same seed gives the same interval.
        n: draws.
        level: share of the draws' means inside.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: correct is empty or not (N,), groups do not fit it, n is below 1 or level not inside (0, 1).
    """
    values = np.asarray(correct, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"correct must be (N,) with N of 1 or more, got {values.shape = }")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be 1 or more and level inside (0, 1), got {n = }, {level = }")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(f"one group an item is needed, got {groups.shape = } for {values.shape = }")
    members = np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(members, weights=values), np.bincount(members)
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for draw in range(n):
        drawn = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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


def _checked_features(features: Array, what: str) -> Floats:
    checked: Floats = np.asarray(features, np.float64)
    if checked.ndim != 2 or not checked.size:
        raise ValueError(f"{what} features must be (N, D), neither of them 0, got {checked.shape = }")
    if not np.isfinite(checked).all():
        raise ValueError(f"{what} features must be finite; {(~np.isfinite(checked).all(axis=1)).sum()} rows are not")
    return checked


def _checked(features: Array, labels: Array, what: str) -> tuple[Floats, Ints]:
    features, labels = _checked_features(features, what), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(f"one {what} label a row is needed, got {labels.shape = } for {features.shape = }")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"{what} labels must be integers of 0 or more; leave out what has no label")
    return features, labels.astype(np.int64)


def _check_dims(first: Floats, second: Floats) -> None:
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features differ in width: {first.shape[1]} against {second.shape[1]}")


def _joint_groups(query: Array | None, gallery: Array | None, Q: int, G: int) -> tuple[Ints, Ints] | None:
    """Both groups as numbers of one numbering."""
    if query is None and gallery is None:
        return None
    if query is None or gallery is None:
        raise ValueError("query_groups and gallery_groups go together; only one was given")
    query, gallery = np.asarray(query), np.asarray(gallery)
    if query.shape != (Q,) or gallery.shape != (G,):
        raise ValueError(f"groups must be ({Q},) and ({G},), got {query.shape = } and {gallery.shape = }")
    numbers = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1]
    return numbers[:Q], numbers[Q:]


def _unit(features: Floats, centre: bool = False) -> Floats:
    """Rows of length 1; a row of zeros stays zero."""
    if centre:
        features = features - features.mean(axis=0)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.where(length > 0, length, 1)
    return unit


def _similarities(queries: Floats, gallery: Floats) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, len(queries), QUERY_BLOCK):
        yield slice(start, start + QUERY_BLOCK), queries[start : start + QUERY_BLOCK] @ gallery.T
