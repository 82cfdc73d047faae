"""How sure a number is, and a difference of two: groups are drawn again, or their signs turned.

Letters: N items, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bgaug.metrics.checks import Array, Floats, Ints

TIE = 1e-9  # sums of shares round; no nearer than this they differ


def bootstrap_interval(
    correct: Array,
    groups: Array | None = None,
    *,
    weights: Array | None = None,
    seed: int = 0,
    n: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of a mean over test items, by drawing whole groups again with replacement.

    Clips of one source video stand or fall together; drawn one by one they would promise too narrow an interval. It
    covers the chance of the test items, not that of training: for that, train with more seeds.

    Args:
        correct: bool or float (N,), what is averaged.
        groups: (N,); by default each item is a group of its own.
        weights: (N,), more than 0, for a weighted mean; by default all count the same.
        seed: of the draws; the same seed gives the same interval.
        n: draws.
        level: share of the draws' means inside.

    Returns:
        The lower and the upper end.

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
    """How two runs differ on the same items.

    Attributes:
        difference: mean of the second less that of the first.
        low: lower end of its interval.
        high: upper end.
        p: how often a difference at least as large, in either direction, comes about when it is chance which of the two
            runs a group's results belong to.
        num_groups: groups of items.
        num_better: groups in which the second is better.
        num_worse: groups in which it is worse.
    """

    difference: float
    low: float
    high: float
    p: float
    num_groups: int
    num_better: int
    num_worse: int


EXACT_GROUPS = 12
"""So many groups that differ, and all ways to turn their signs are counted: 4,096."""


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
    """The difference of two means over the same items, its interval, and a permutation test of it.

    Both look at whole groups: the interval draws them again with replacement, the test turns the sign of each group's
    difference. Up to `EXACT_GROUPS` groups that differ at all, every way to turn them is counted, and p is exact; beyond,
    `n` are drawn, and p is at least 1 / (n + 1).

    Args:
        first: bool or float (N,), what is averaged of the first run.
        second: (N,), of the second, in the same order.
        groups: (N,); by default each item is a group of its own.
        weights: (N,), more than 0, for weighted means.
        seed: of the draws.
        n: draws.
        level: share of the draws' differences inside the interval.

    Raises:
        ValueError: as `bootstrap_interval`, or the two are not of the same items.

    Reference: the sign-flip test: R. A. Fisher, The Design of Experiments, 1935, section 21; drawn ways to turn:
        B. Phipson and G. Smyth, Permutation p-values should never be zero, arXiv 1603.05766.
    """
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if before.shape != after.shape:
        raise ValueError(f"both must be of the same items, got {before.shape = } and {after.shape = }")
    sums, sizes = _by_group(after - before, groups, weights)
    means = _drawn_means(sums, sizes, seed, n, level)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Paired(
        difference=float(sums.sum() / sizes.sum()),
        low=float(low),
        high=float(high),
        p=_sign_flip(sums, seed, n),
        num_groups=len(sums),
        num_better=int((sums > TIE).sum()),
        num_worse=int((sums < -TIE).sum()),
    )


def _by_group(values: Array, groups: Array | None, weights: Array | None) -> tuple[Floats, Floats]:
    """Weighted sum and weight of each group: (G,) and (G,)."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"correct must be (N,) with N of 1 or more, got {values.shape = }")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(f"one group an item is needed, got {groups.shape = } for {values.shape = }")
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != values.shape or not (weights > 0).all():
        raise ValueError(f"one weight of more than 0 an item is needed, got {weights.shape = } for {values.shape = }")
    members: Ints = np.unique(groups, return_inverse=True)[1]
    sums: Floats = np.bincount(members, weights=values * weights).astype(np.float64)
    sizes: Floats = np.bincount(members, weights=weights).astype(np.float64)
    return sums, sizes


def _drawn_means(sums: Floats, sizes: Floats, seed: int, n: int, level: float) -> Floats:
    """Means over groups drawn again: (n,)."""
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be 1 or more and level inside (0, 1), got {n = }, {level = }")
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for draw in range(n):
        drawn = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    return means


def _sign_flip(sums: Floats, seed: int, n: int) -> float:
    """Share of the ways to turn signs whose sum is at least as far from 0 as the one that was found."""
    differing = sums[abs(sums) > TIE]
    if not len(differing):
        return 1.0
    found = abs(differing.sum()) - TIE
    if len(differing) <= EXACT_GROUPS:
        signs = np.array(list(product((-1, 1), repeat=len(differing))))
        return float((abs(signs @ differing) >= found).mean())
    rng = np.random.default_rng(seed)
    as_far = sum(int(abs(rng.choice((-1, 1), len(differing)) @ differing) >= found) for _ in range(n))
    return (as_far + 1) / (n + 1)
