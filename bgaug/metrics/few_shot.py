"""A handful of labelled samples a class: drawn at random, many times.

Letters: N samples, D embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from bgaug.metrics.checks import Array, Floats, Ints, check_dims, checked, checked_features
from bgaug.metrics.linear import LinearProbe
from bgaug.metrics.retrieval import unit
from bgaug.names import FewShotClassifier


def draw_shots(labels: Array, shots: int, seed: int | tuple[int, ...]) -> Ints:
    """So many samples of each class, drawn without replacement.

    Draws of one seed are nested: the samples of 1 shot are among those of 5. A class's draw does not depend on what other
    classes there are.

    Args:
        labels: int (N,), 0 or more.
        shots: samples a class, 1 or more.
        seed: of the draw, 0 or more, or several such numbers.

    Returns:
        int64 (K * shots,), ascending places in `labels`.

    Raises:
        ValueError: shots is below 1, or a class has fewer samples.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    smallest = int(counts.min()) if len(counts) else 0
    if not 1 <= shots <= smallest:
        raise ValueError(f"{shots} samples a class are wanted; the smallest class has {smallest}")
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
    """Labels by a classifier that learnt from so many samples of each class; one result a draw.

    Args:
        train_features: (N, D), to draw from.
        train_labels: int (N,), 0 or more.
        features: (Q, D), to label.
        shots: samples a class.
        draws: how often they are drawn.
        seed: of the draws; draw number i is the same however many there are.
        classifier: "linear", a `LinearProbe`; "centroid", the nearest class mean by cosine, of features of length 1.
        l2: of the linear probe.

    Yields:
        int64 (Q,).

    Raises:
        ValueError: shapes do not fit, a class is too small, no such classifier, or draws below 1.

    Reference: class means as in J. Snell et al., Prototypical Networks, arXiv 1703.05175, and Y. Wang et al., SimpleShot,
        arXiv 1911.04623, here without centring.
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
