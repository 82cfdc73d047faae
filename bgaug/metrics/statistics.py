"""Statistics of judged items: by class, intervals by resampling groups, and a permutation test for two runs.

Letters: N items, G groups, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bgaug.metrics.checks import Array, Floats, Ints

_TIE = 1e-9  # smaller differences of sums of shares are rounding


def bootstrap_interval(
    correct: Array,
    groups: Array | None = None,
    *,
    weights: Array | None = None,
    seed: int = 0,
    n: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of a mean over test items, by the bootstrap over groups.

    Clips of one source video are correlated; resampling single clips would give an interval that is too narrow. The
    interval covers the choice of the test items, not the randomness of training: for that, train with more seeds.

    Args:
        correct: bool or float (N,), the values.
        groups: (N,); by default each item is a group of its own.
        weights: (N,), more than 0, for a weighted mean; equal by default.
        seed: seed of the draws.
        n: number of draws.
        level: share of the draws' means inside the interval.

    Returns:
        Its lower and its upper end.

    Raises:
        ValueError: correct is empty or not (N,), groups or weights do not fit it, n is below 1 or level not inside
            (0, 1).
    """
    sums, sizes = _by_group(correct, groups, weights)
    means = _drawn_means(sums, sizes, seed, n, level)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Difference of two runs on the same items.

    Attributes:
        difference: mean of the second run minus that of the first.
        low: lower end of its interval.
        high: upper end of its interval.
        p: two-sided p-value of a sign-flip permutation test over groups.
        num_groups: number of groups.
        num_better: number of groups in which the second run is better.
        num_worse: number of groups in which it is worse.
    """

    difference: float
    low: float
    high: float
    p: float
    num_groups: int
    num_better: int
    num_worse: int


_EXACT_GROUPS = 12  # with at most so many differing groups all sign patterns are counted: 4,096


def paired_difference(
    first: Array,
    second: Array,
    groups: Array | None = None,
    *,
    weights: Array | None = None,
    seed: int = 0,
    n: int = 1000,
    level: float = 0.95,
) -> Paired:
    """The difference of two means over the same items, its interval, and a permutation test.

    The interval resamples whole groups; the test flips the sign of each group's difference. With at most 12 differing
    groups all sign patterns are counted and p is exact; otherwise `n` patterns are drawn, and p is at least
    1 / (n + 1).

    Args:
        first: bool or float (N,), values of the first run.
        second: (N,), values of the second run, in the same order.
        groups: (N,); by default each item is a group of its own.
        weights: (N,), more than 0, for weighted means.
        seed: seed of the draws.
        n: number of draws.
        level: share of the draws' differences inside the interval.

    Raises:
        ValueError: see `bootstrap_interval`; also if the numbers of items differ.

    Reference: the sign-flip test: R. A. Fisher, The Design of Experiments, 1935, section 21; drawn patterns:
        B. Phipson and G. Smyth, Permutation p-values should never be zero, arXiv 1603.05766.
    """
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if before.shape != after.shape:
        raise ValueError(f"both runs need the same items, got {before.shape = } and {after.shape = }")
    sums, sizes = _by_group(after - before, groups, weights)
    means = _drawn_means(sums, sizes, seed, n, level)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Paired(
        difference=float(sums.sum() / sizes.sum()),
        low=float(low),
        high=float(high),
        p=_sign_flip(sums, seed, n),
        num_groups=len(sums),
        num_better=int((sums > _TIE).sum()),
        num_worse=int((sums < -_TIE).sum()),
    )


def _by_group(values: Array, groups: Array | None, weights: Array | None) -> tuple[Floats, Floats]:
    """Weighted sum and weight of each group: (G,) and (G,)."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"correct must be (N,) with N of 1 or more, got {values.shape = }")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(f"one group per item is needed, got {groups.shape = } for {values.shape = }")
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != values.shape or not (weights > 0).all():
        raise ValueError(f"one weight of more than 0 per item is needed, got {weights.shape = } for {values.shape = }")
    members: Ints = np.unique(groups, return_inverse=True)[1]
    sums: Floats = np.bincount(members, weights=values * weights).astype(np.float64)
    sizes: Floats = np.bincount(members, weights=weights).astype(np.float64)
    return sums, sizes


def _drawn_means(sums: Floats, sizes: Floats, seed: int, n: int, level: float) -> Floats:
    """Means over resampled groups: (n,)."""
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be 1 or more and level inside (0, 1), got {n = }, {level = }")
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for draw in range(n):
        drawn = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    return means


def _sign_flip(sums: Floats, seed: int, n: int) -> float:
    """Share of the sign patterns whose sum is at least as far from 0 as the observed one."""
    differing = sums[abs(sums) > _TIE]
    if not len(differing):
        return 1.0
    found = abs(differing.sum()) - _TIE
    if len(differing) <= _EXACT_GROUPS:
        signs = np.array(list(product((-1, 1), repeat=len(differing))))
        return float((abs(signs @ differing) >= found).mean())
    rng = np.random.default_rng(seed)
    as_far = sum(int(abs(rng.choice((-1, 1), len(differing)) @ differing) >= found) for _ in range(n))
    return (as_far + 1) / (n + 1)


# --- by class -----------------------------------------------------------------------------------------------------


def confusion_counts(labels: Array, predicted: Array, num_classes: int) -> Ints:
    """Confusion matrix.

    Args:
        labels: int (N,), in [0, K).
        predicted: int (N,), in [0, K).
        num_classes: K.

    Returns:
        int64 (K, K): rows are the true classes, columns the predicted classes.

    Raises:
        ValueError: lengths differ, or a class is out of range.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"one prediction per label is needed, got {predicted.shape = } for {labels.shape = }")
    for values in (labels, predicted):
        if len(values) and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"classes lie in [0, {num_classes}), got {values.min()} to {values.max()}")
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def class_rows(labels: Array, correct: dict[str, Floats], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class with samples: its name, their number, and the share of correct ones by each measure.

    Args:
        labels: int (N,), places in `names`.
        correct: (N,) by measure: 1 for right, 0 for wrong, a share for several draws, NaN for a sample left out.
        names: names of the classes.

    Returns:
        Rows with "class", "videos" and the measures in percent; None if a measure left all samples of the class out.
    """
    labels = np.asarray(labels)
    rows = []
    for number in np.unique(labels).tolist():
        own = labels == number
        row: dict[str, Any] = {"class": names[number], "videos": int(own.sum())}
        for measure, values in correct.items():
            known = values[own & ~np.isnan(values)]
            row[measure] = round(100 * float(known.mean()), 2) if len(known) else None
        rows.append(row)
    return rows
