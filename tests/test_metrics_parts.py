"""Penalties, few labels, who is held out, classes and differences: closed forms and plain loops."""

from __future__ import annotations

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bgaug.metrics import (
    LinearProbe,
    bootstrap_interval,
    choose_l2,
    class_rows,
    confusion_counts,
    deal,
    few_shot_predict,
    hold_out,
    knn_predict,
    paired_difference,
    retrieval,
    smallest_gallery,
)
from bgaug.metrics.linear import L2_CANDIDATES, draw_shots

Array = NDArray[Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- linear probe -----------------------------------------------------------------------------------------------------


def slow_probe(x: Array, y: Array, l2: float, steps: int = 4000, rate: float = 0.5) -> tuple[Array, Array]:
    """Weights and bias on standardised features by plain gradient descent."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    weight, bias, truth = np.zeros((x.shape[1], y.max() + 1)), np.zeros(y.max() + 1), np.eye(y.max() + 1)[y]
    for _ in range(steps):
        logits = x @ weight + bias
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        residual = chances / chances.sum(axis=1, keepdims=True) - truth
        weight -= rate * (x.T @ residual / len(x) + 2 * l2 * weight)
        bias -= rate * residual.mean(axis=0)
    return weight, bias


def test_probe_is_what_gradient_descent_finds(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(60, 4)) * [1, 4, 0.2, 2] + 5, rng.integers(3, size=60)
    weight, bias = slow_probe(x, y, l2=0.02)
    expected = (x - x.mean(axis=0)) / x.std(axis=0) @ weight + bias
    found = LinearProbe(0.02, iterations=200).fit(x, y).scores(x)
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=1e-5
    )


def test_two_points_have_a_known_probe() -> None:
    # One feature at -1 and +1: minimise log(1 + exp(-2 w)) + 2 l2 w^2 with weights -w and w, and no bias.
    l2 = 0.1
    w = np.linspace(0, 5, 500_001)
    best = w[(np.log1p(np.exp(-2 * w)) + 2 * l2 * w**2).argmin()]
    scores = LinearProbe(l2).fit(np.array([[-1.0], [1.0]]), np.array([0, 1])).scores(np.array([[1.0]]))
    assert scores[0, 1] - scores[0, 0] == pytest.approx(2 * best, abs=1e-3)


def test_the_penalty_that_wins_on_unseen_groups_is_chosen(rng: np.random.Generator) -> None:
    # Few samples in many dimensions, one of which is informative: a strong penalty is needed to find it.
    y = np.arange(48) % 2
    x = rng.normal(size=(48, 40))
    x[:, 0] += 1.2 * (2 * y - 1)
    groups = np.arange(48) // 4
    chosen = choose_l2(x, y, groups)
    expected = {}
    for l2 in L2_CANDIDATES:
        hits = 0
        for fold in range(5):
            test = deal(groups, y, 5) == fold
            hits += (LinearProbe(l2).fit(x[~test], y[~test]).predict(x[test]) == y[test]).sum()
        expected[l2] = hits
    assert expected[chosen] == max(expected.values()) > min(expected.values())
    assert chosen == max(l2 for l2, hits in expected.items() if hits == expected[chosen])
    assert choose_l2(x, y, np.array([f"g{g:02}" for g in groups])) == chosen  # names of groups, in the same order


def test_no_group_is_on_both_sides_of_a_choice() -> None:
    # Each group has a feature of its own that gives its labels away: only within a group does it help.
    groups = np.repeat(np.arange(6), 4)
    y = np.tile([0, 1], 12)
    x = np.zeros((24, 6))
    x[np.arange(24), groups] = 2 * y - 1
    half = np.arange(24) % 4 < 2
    torn = LinearProbe(1e-5).fit(x[half], y[half]).accuracy(x[~half], y[~half])
    assert torn == 1
    # Held out as a whole nothing is known of its feature, all penalties tie, and the strongest wins.
    assert choose_l2(x, y, groups) == max(L2_CANDIDATES)


def test_invalid_choices() -> None:
    x, y = np.ones((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="two folds and two groups are needed, got 7, 5 and 1"):
        choose_l2(x, y, np.zeros(4))
    with pytest.raises(ValueError, match="candidates, two folds"):
        choose_l2(x, y, candidates=())
    with pytest.raises(ValueError, match="one group per sample"):
        choose_l2(x, y, np.zeros(3))


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_items_do_not_vote_on_their_own_group(rng: np.random.Generator) -> None:
    x, y, groups = rng.normal(size=(30, 4)), rng.integers(3, size=30), rng.integers(6, size=30)
    found = knn_predict(x, y, x, k=3, train_groups=groups, groups=groups)
    for place in range(30):
        others = groups != groups[place]
        assert found[place] == knn_predict(x[others], y[others], x[place : place + 1], k=3)[0]
    assert smallest_gallery(groups, groups) == 30 - np.bincount(groups).max()
    assert smallest_gallery(np.array(["a"]), np.array(["b", "b"])) == 2
    with pytest.raises(ValueError, match=rf"k must be 1\.\.{smallest_gallery(groups, groups)}"):
        knn_predict(x, y, x, k=30, train_groups=groups, groups=groups)
    with pytest.raises(ValueError, match="go together"):
        knn_predict(x, y, x, k=3, groups=groups)


def test_ranks_are_what_recall_counts(rng: np.random.Generator) -> None:
    q, g = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    ql, gl = rng.integers(5, size=20), rng.integers(4, size=30)  # the gallery lacks class 4
    found = retrieval(q, ql, g, gl, ks=(1, 3, 30))
    assert found.recall == {k: float((found.ranks < k).mean()) for k in (1, 3, 30)}
    assert (found.ranks[ql == 4] == 30).all() and (ql == 4).any()
    cosines = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T
    for place in np.flatnonzero(ql != 4):
        order = np.argsort(-cosines[place])
        assert found.ranks[place] == np.flatnonzero(gl[order] == ql[place])[0]
    single = retrieval(q[:2], ql[:2], g, gl, (1,), query_groups=np.array([1, 2]), gallery_groups=np.ones(30, int))
    assert single.ranks[0] == -1 and single.ranks[1] >= 0


# --- few labels -------------------------------------------------------------------------------------------------------


def test_shots_are_nested_of_each_class_and_of_no_other(rng: np.random.Generator) -> None:
    labels = rng.permutation(np.repeat([2, 5, 9], [4, 7, 11]))
    for seed in range(5):
        drawn = {shots: draw_shots(labels, shots, seed) for shots in (1, 3, 4)}
        for shots, places in drawn.items():
            assert np.unique(labels[places], return_counts=True)[1].tolist() == [shots] * 3
            assert (np.diff(places) > 0).all()
        assert set(drawn[1]) < set(drawn[3]) < set(drawn[4])
    fives = {tuple(draw_shots(labels, 2, seed)) for seed in range(5)}
    assert len(fives) > 1
    # A class's draw does not depend on which others there are.
    without = labels[labels != 9]
    kept = np.flatnonzero(labels != 9)
    both = draw_shots(labels, 2, 3)
    assert set(kept[draw_shots(without, 2, 3)]) == set(both[labels[both] != 9])


def test_every_sample_is_drawn_as_often() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        counts[draw_shots(np.zeros(6, int), 2, (seed, 1))] += 1
    assert counts == pytest.approx([200] * 6, abs=5 * np.sqrt(600 * 2 / 9))


@pytest.mark.parametrize("classifier", ["linear", "centroid"])
def test_few_shot_is_the_plain_loop(rng: np.random.Generator, classifier: Any) -> None:
    y = np.arange(30) % 3
    x = rng.normal(size=(30, 5)) + 1.5 * np.eye(5)[y]
    z = rng.normal(size=(12, 5))
    found = list(few_shot_predict(x, y + 4, z, shots=3, draws=4, seed=7, classifier=classifier))
    assert len(found) == 4
    for draw, predicted in enumerate(found):
        known = draw_shots(y + 4, 3, (7, draw))
        if classifier == "linear":
            expected = LinearProbe().fit(x[known], y[known] + 4).predict(z)
        else:
            means = []
            for name in range(3):
                own = [x[i] / np.linalg.norm(x[i]) for i in known if y[i] == name]
                means.append(sum(own) / np.linalg.norm(sum(own)))
            expected = np.array([4 + max(range(3), key=lambda c: float(v @ means[c])) for v in z])
        np.testing.assert_array_equal(predicted, expected)
    more = list(few_shot_predict(x, y + 4, z, shots=3, draws=6, seed=7, classifier=classifier))
    np.testing.assert_array_equal(more[:4], found)


def test_invalid_shots() -> None:
    x, y = np.ones((3, 2)), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="2 samples per class were requested; the smallest class has 1"):
        draw_shots(y, 2, 0)
    with pytest.raises(ValueError, match="classifiers are linear, centroid and draws 1 or more, got 'magic', 10"):
        next(few_shot_predict(x, y, x, shots=1, classifier="magic"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dimension"):
        next(few_shot_predict(x, y, np.ones((1, 3)), shots=1))


# --- who is held out --------------------------------------------------------------------------------------------------


def test_a_split_is_held_against_the_other() -> None:
    held = hold_out(["a", "a", "b", None, "c"], ["train", "test", None, "train", "unused"])
    assert str(held) == "test split against train split"
    assert held.test.tolist() == [1] and held.train.tolist() == [0, 3] and held.barred is None
    assert held.taking_part.tolist() == [0, 1, 3]
    assert [(train.tolist(), test.tolist()) for train, test in held.folds(np.zeros(5, int))] == [([0, 3], [1])]
    assert str(hold_out([None] * 2, ["train", "val"])) == "val split against train split"
    assert str(hold_out([None] * 3, ["val", "train", "test"])) == "test split against train split"
    assert hold_out([None] * 2, ["test", "unused"]).kind == "video"  # no training samples


@pytest.mark.parametrize("most", [2, 3, 20])
def test_folds_test_each_once_and_never_learn_from_its_group(most: int) -> None:
    groups = ["d", "a", "b", "a", None, "c", "b", "d", None]
    held = hold_out(groups, [None] * 9)
    assert str(held) == "each group against the others"
    tested = []
    folds = list(held.folds(np.arange(9) % 2, most))
    assert len(folds) == min(most, 6)
    for train, test in folds:
        tested += test.tolist()
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(9))
        assert not set(held.groups[train]) & set(held.groups[test])
    assert sorted(tested) == list(range(9))
    single = hold_out([None] * 3, [None] * 3)
    assert (single.kind, [test.tolist() for _, test in single.folds(np.zeros(3, int))]) == ("video", [[0], [1], [2]])
    assert hold_out(["a"] * 3, [None] * 3).kind == "video"  # one group cannot be held against others


def test_classes_are_spread_over_folds() -> None:
    # If samples were dealt in their order, each fold would hold one class.
    labels = np.arange(40) % 2
    assert np.bincount(2 * deal(np.arange(40), labels, 2) + labels).tolist() == [10] * 4
    groups = np.arange(40) // 2 * 2 + labels  # two classes, each with groups of its own
    fold = deal(groups, labels, 4)
    assert np.bincount(2 * fold + labels, minlength=8).tolist() == [5] * 8
    assert all(len(set(fold[groups == g])) == 1 for g in groups)
    assert deal(np.array(["b", "a"]), np.zeros(2, int), 5).tolist() == [1, 0]


def test_samples_whose_class_is_unseen_are_known() -> None:
    labels = np.array([0, 1, 1, 2, 0])
    split = hold_out([None] * 5, ["train", "train", "test", "test", "test"])
    assert split.unseen(labels).tolist() == [3]
    grouped = hold_out(["a", "b", "b", "c", "c"], [None] * 5)
    assert grouped.unseen(labels).tolist() == [1, 2, 3]  # class 1 lives in one group, class 2 has one sample
    with pytest.raises(ValueError, match="two samples or more"):
        hold_out([None], [None])
    with pytest.raises(ValueError, match="two folds or more"):
        list(grouped.folds(labels, 1))


# --- classes ----------------------------------------------------------------------------------------------------------


def test_confusions_are_counted(rng: np.random.Generator) -> None:
    truth, guess = rng.integers(4, size=90), rng.integers(4, size=90)
    counts = confusion_counts(truth, guess, 4)
    assert counts.tolist() == [[int(((truth == t) & (guess == p)).sum()) for p in range(4)] for t in range(4)]
    assert np.trace(counts) == (truth == guess).sum()
    with pytest.raises(ValueError, match=r"classes lie in \[0, 3\), got 0 to 3"):
        confusion_counts(truth, guess, 3)
    with pytest.raises(ValueError, match="one prediction per label"):
        confusion_counts(truth, guess[:3], 4)


def test_a_row_a_class() -> None:
    labels = np.array([2, 0, 2, 2])
    correct = {"first": np.array([1.0, 0, 0, 1]), "some": np.array([np.nan, np.nan, 1, 0.5])}
    assert class_rows(labels, correct, ["a", "b", "c"]) == [
        {"class": "a", "videos": 1, "first": 0.0, "some": None},
        {"class": "c", "videos": 3, "first": 66.67, "some": 75.0},
    ]


# --- how sure ---------------------------------------------------------------------------------------------------------


def test_single_items_give_the_sign_test() -> None:
    # 9 pairs differ, 2 of them the other way, 20 agree: the two-sided binomial test of 2 in 9.
    first = np.concatenate([np.zeros(7), np.ones(2), np.ones(20)])
    second = np.concatenate([np.ones(7), np.zeros(2), np.ones(20)])
    pair = paired_difference(first, second)
    assert pair.p == pytest.approx(2 * sum(comb(9, k) for k in range(3)) / 2**9)
    assert pair.difference == pytest.approx(5 / 29)
    assert (pair.num_groups, pair.num_better, pair.num_worse) == (29, 7, 2)
    back = paired_difference(second, first)
    assert (back.p, back.difference) == (pair.p, -pair.difference)
    assert [back.low, back.high] == pytest.approx([-pair.high, -pair.low], abs=0.04)


@pytest.mark.parametrize("num", [1, 4, 10])
def test_groups_that_all_improve_have_a_known_p(num: int) -> None:
    groups = np.repeat(np.arange(num), 3)
    pair = paired_difference(np.zeros(3 * num), np.ones(3 * num), groups)
    assert pair.p == 2 / 2**num  # all signs one way, or all the other
    assert (pair.difference, pair.low, pair.high) == (1, 1, 1)


def test_unequal_groups_are_all_counted(rng: np.random.Generator) -> None:
    first, second = rng.random(40), rng.random(40)
    groups = rng.integers(8, size=40)
    sums = [float((second - first)[groups == g].sum()) for g in range(8)]
    ways = [abs(sum(s * v for s, v in zip(signs, sums, strict=True))) for signs in product((-1, 1), repeat=8)]
    expected = np.mean([way >= abs(sum(sums)) - 1e-9 for way in ways])
    assert paired_difference(first, second, groups).p == expected


def test_many_groups_are_drawn_and_nothing_is_nothing(rng: np.random.Generator) -> None:
    first = rng.random(200)
    better = paired_difference(first, first + 0.2)
    assert better.p == 1 / 1001  # the smallest value of a thousand draws
    noise = [paired_difference(rng.random(50), rng.random(50), n=200).p for _ in range(60)]
    assert np.mean(np.array(noise) < 0.5) == pytest.approx(0.5, abs=0.2)
    same = paired_difference(first, first)
    assert (same.p, same.difference, same.num_better, same.num_worse) == (1.0, 0.0, 0, 0)
    assert paired_difference(first, first[::-1]) == paired_difference(first, first[::-1])


def test_weights_make_splits_count_the_same() -> None:
    # Two splits of 2 and 8 items: the mean of their means.
    correct = np.array([1.0, 1.0, *[0.0] * 8])
    weights = np.array([0.5, 0.5, *[1 / 8] * 8])
    pair = paired_difference(np.zeros(10), correct, weights=weights)
    assert pair.difference == pytest.approx(0.5)
    groups = np.zeros(10)
    assert bootstrap_interval(correct, groups, weights=weights) == pytest.approx((0.5, 0.5))
    assert bootstrap_interval(correct, groups) == pytest.approx((0.2, 0.2))
    assert bootstrap_interval(correct, weights=np.full(10, 3.0)) == pytest.approx(bootstrap_interval(correct))


def test_invalid_differences() -> None:
    with pytest.raises(ValueError, match="the same items"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="one weight of more than 0"):
        paired_difference(np.ones(3), np.ones(3), weights=np.zeros(3))
    with pytest.raises(ValueError, match="N of 1 or more"):
        paired_difference(np.ones(0), np.ones(0))
