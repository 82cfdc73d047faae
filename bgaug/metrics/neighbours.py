"""Nearest neighbours by cosine similarity: retrieval, and labels by vote.

Letters: N samples, Q queries, G gallery items, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bgaug.metrics.checks import Array, Floats, Ints, check_dims, checked, checked_features, joint_groups

QUERY_BLOCK = 256  # queries compared at once, which bounds the memory
_TIE = 1e-12  # cosines within this distance are equal: matrix products round differently by position


@dataclass(frozen=True)
class Retrieval:
    """Result of `retrieval`.

    Attributes:
        recall: R@k for each possible k: the share of queries with their class among the k nearest.
        chance: expected R@1 of a gallery in random order: the mean share of the query's class in it.
        num_queries: number of queries that were counted.
        num_queries_left_out: number of queries whose group was the whole gallery.
        ks_left_out: every k larger than the smallest gallery of a query.
        ranks: int64 (Q,), number of samples of other classes before the first of the query's class, so that R@k counts
            ranks below k; the size of the gallery if it has none of the class, -1 for a query that was left out.
    """

    recall: dict[int, float]
    chance: float
    num_queries: int
    num_queries_left_out: int = 0
    ks_left_out: tuple[int, ...] = ()
    ranks: Ints = field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)


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
    """Recall at k by cosine similarity: the share of queries with a sample of their class among the k nearest.

    Usually the queries are the test split and the gallery is the training split. Ties count against the query, so an
    encoder that maps everything to one point scores 0. A query whose class is not in its gallery is a miss.

    Args:
        query_features: (Q, D).
        query_labels: int (Q,), 0 or more.
        gallery_features: (G, D).
        gallery_labels: int (G,), 0 or more.
        ks: numbers of neighbours, 1 or more.
        centre: subtract the mean of the queries from the queries and that of the gallery from the gallery. Some
            published numbers use it; it is transductive, because it uses the whole test set at once: report it.
        query_groups: (Q,), for example the source video of a clip; a query is not compared with its own group.
        gallery_groups: (G,), required together with `query_groups`.

    Raises:
        ValueError: shapes do not fit, an array is empty, not finite or holds unknown labels, only one of the groups is
            given, or no query has anything to retrieve.

    Reference: Xu et al., Self-supervised Spatiotemporal Learning via Video Clip Order Prediction, CVPR 2019, section
        4.3. Centring as in Han et al., Self-supervised Co-training for Video Representation Learning, arXiv 2010.09709.
    """
    query_features, query_labels = checked(query_features, query_labels, "query")
    gallery_features, gallery_labels = checked(gallery_features, gallery_labels, "gallery")
    check_dims(query_features, gallery_features)
    if any(k < 1 for k in ks):
        raise ValueError(f"every k must be 1 or more, got {tuple(ks)}")
    groups = joint_groups(query_groups, gallery_groups, len(query_labels), len(gallery_labels))
    queries, gallery = unit(query_features, centre), unit(gallery_features, centre)
    ranks, chances, sizes = np.empty(len(queries), np.int64), np.empty(len(queries)), np.empty(len(queries), np.int64)
    for rows, similarity in similarities(queries, gallery):
        allowed = np.ones_like(similarity, np.bool_) if groups is None else groups[0][rows, None] != groups[1]
        same = (query_labels[rows, None] == gallery_labels) & allowed
        # -inf if the gallery has none of the class: then all samples come before the first hit, a miss at any k.
        best = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = (allowed & ~same & (similarity >= best - _TIE)).sum(axis=1)
        sizes[rows] = allowed.sum(axis=1)
        chances[rows] = same.sum(axis=1) / np.maximum(sizes[rows], 1)
    if not sizes.any():
        raise ValueError("nothing to retrieve: every query belongs to the only group in the gallery")
    return _counted(ks, ranks, chances, sizes)


def _counted(ks: Sequence[int], ranks: Array, chances: Array, sizes: Array) -> Retrieval:
    """The result from each query's rank of the first hit, chance of a hit, and number of gallery samples."""
    kept = sizes > 0
    possible = [k for k in ks if k <= sizes[kept].min()]
    return Retrieval(
        recall={k: float((ranks[kept] < k).mean()) for k in possible},
        chance=float(chances[kept].mean()),
        num_queries=int(kept.sum()),
        num_queries_left_out=int((~kept).sum()),
        ks_left_out=tuple(k for k in ks if k not in possible),
        ranks=np.where(kept, ranks, -1),
    )


def leave_one_out_retrieval(
    features: Array,
    labels: Array,
    groups: Array | None = None,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    *,
    centre: bool = False,
) -> Retrieval:
    """`retrieval` within one set: each item is a query in all items of the other groups.

    Args:
        features: (N, D).
        labels: int (N,), 0 or more.
        groups: (N,); by default each item is a group of its own.
        ks: numbers of neighbours, 1 or more.
        centre: subtract the mean of the set first.

    Raises:
        ValueError: see `retrieval`.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    return retrieval(features, labels, features, labels, ks, centre=centre, query_groups=groups, gallery_groups=groups)


def knn_predict(
    train_features: Array,
    train_labels: Array,
    features: Array,
    *,
    k: int = 10,
    sigma: float = 0.1,
    train_groups: Array | None = None,
    groups: Array | None = None,
) -> Ints:
    """Label by the votes of the k nearest training items, each with weight exp(cosine similarity / sigma).

    Args:
        train_features: (N, D).
        train_labels: int (N,), 0 or more.
        features: (Q, D).
        k: number of votes, from 1 to the size of the smallest gallery.
        sigma: temperature of the votes, more than 0.
        train_groups: (N,), for example the source video of a clip; items do not vote on items of their own group.
        groups: (Q,), required together with `train_groups`.

    Returns:
        int64 (Q,); ties go to the lowest label.

    Raises:
        ValueError: shapes do not fit, an array is empty, not finite or has unknown labels, or k or sigma is out of
            range.

    Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv 1805.01978,
        section 3.4.
    """
    train_features, train_labels = checked(train_features, train_labels, "training")
    features = checked_features(features, "test")
    check_dims(features, train_features)
    numbers = joint_groups(groups, train_groups, len(features), len(train_labels))
    most = len(train_labels) if numbers is None else smallest_gallery(*numbers)
    if not 1 <= k <= most or sigma <= 0:
        raise ValueError(f"k must be 1..{most} and sigma positive, got {k = }, {sigma = }")
    classes, targets = np.unique(train_labels, return_inverse=True)
    predicted = np.empty(len(features), np.int64)
    for rows, similarity in similarities(unit(features), unit(train_features)):
        if numbers is not None:
            similarity[numbers[0][rows, None] == numbers[1]] = -np.inf
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        weights = np.exp((near - near[:, :1]) / sigma)  # relative to the nearest: cannot overflow
        votes = np.zeros((len(near), len(classes)))
        np.add.at(votes, (np.arange(len(near))[:, None], targets[nearest]), weights)
        predicted[rows] = classes[votes.argmax(axis=1)]
    return predicted


def smallest_gallery(groups: Array, train_groups: Array) -> int:
    """Size of the smallest gallery, if items are not compared with training items of their own group.

    Args:
        groups: (Q,), group of each item, Q of 1 or more.
        train_groups: (N,), group of each training item.
    """
    names, counts = np.unique(train_groups, return_counts=True)
    own = np.isin(names, groups)
    return len(train_groups) - int(counts[own].max(initial=0))


def knn_accuracy(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    k: int = 10,
    sigma: float = 0.1,
) -> float:
    """Share of the test items (Q, D) that `knn_predict` labels as in test_labels (Q,); see there for errors."""
    test_features, test_labels = checked(test_features, test_labels, "test")
    return float((knn_predict(train_features, train_labels, test_features, k=k, sigma=sigma) == test_labels).mean())


def unit(features: Floats, centre: bool = False) -> Floats:
    """Rows of length 1; a row of zeros stays zero."""
    if centre:
        features = features - features.mean(axis=0)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.where(length > 0, length, 1)
    return unit


def similarities(queries: Floats, gallery: Floats) -> Iterator[tuple[slice, Floats]]:
    """Products of queries (Q, D) and gallery (G, D), a block of queries at a time: which they are, and (block, G)."""
    for start in range(0, len(queries), QUERY_BLOCK):
        yield slice(start, start + QUERY_BLOCK), queries[start : start + QUERY_BLOCK] @ gallery.T
