"""Evaluation against hand loops, closed forms and invariances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bgaug.metrics.neighbours
from bgaug.metrics import (
    LinearProbe,
    bootstrap_interval,
    knn_accuracy,
    knn_predict,
    leave_one_out_retrieval,
    retrieval,
)
from bgaug.testing.synthetic import make_split

Array = NDArray[Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def clusters(rng: np.random.Generator, num: int, spread: float = 0.1) -> tuple[Array, Array]:
    """Four classes around four orthogonal directions."""
    labels = np.arange(num) % 4
    return np.eye(6)[labels] + spread * rng.normal(size=(num, 6)), labels


def slow_recall(q: Array, ql: Array, g: Array, gl: Array, k: int, qg: Array, gg: Array) -> float:
    hits = []
    for i in range(len(q)):
        order = [
            (-float(q[i] @ g[j]) / (np.linalg.norm(q[i]) * np.linalg.norm(g[j])), j)
            for j in range(len(g))
            if qg[i] != gg[j]
        ]
        if order:
            hits.append(any(gl[j] == ql[i] for _, j in sorted(order)[:k]))
    return float(np.mean(hits))


def test_retrieval_is_the_plain_loop(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bgaug.metrics.neighbours, "QUERY_BLOCK", 7)
    q, g = rng.normal(size=(23, 5)), rng.normal(size=(40, 5))
    ql, gl = rng.integers(6, size=23), rng.integers(6, size=40)
    query_group, gallery_group = np.full(23, -1), np.zeros(40)
    found = retrieval(q, ql, g, gl, ks=(1, 2, 5, 20))
    assert found.recall == {k: slow_recall(q, ql, g, gl, k, query_group, gallery_group) for k in (1, 2, 5, 20)}
    assert found.num_queries == 23
    assert found.chance == pytest.approx(np.mean([(gl == label).mean() for label in ql]))

    qg, gg = rng.integers(4, size=23), rng.integers(4, size=40)
    grouped = retrieval(q, ql, g, gl, ks=(1, 3), query_groups=qg, gallery_groups=gg)
    assert grouped.recall == {k: slow_recall(q, ql, g, gl, k, qg, gg) for k in (1, 3)}
    assert grouped.recall != {k: found.recall.get(k) for k in (1, 3)}


def test_retrieval_of_separate_classes_is_perfect_and_of_noise_is_chance(rng: np.random.Generator) -> None:
    q, ql = clusters(rng, 40)
    g, gl = clusters(rng, 80)
    assert retrieval(q, ql, g, gl).recall == dict.fromkeys((1, 5, 10, 20, 50), 1.0)

    labels = np.arange(1200) % 8
    noise = retrieval(rng.normal(size=(1200, 16)), labels, rng.normal(size=(800, 16)), np.arange(800) % 8)
    assert noise.chance == 1 / 8
    assert noise.recall[1] == pytest.approx(1 / 8, abs=0.04)
    assert noise.recall[5] == pytest.approx(1 - (7 / 8) ** 5, abs=0.05)


def test_retrieval_does_not_see_length_or_order(rng: np.random.Generator) -> None:
    q, g = rng.normal(size=(30, 5)), rng.normal(size=(50, 5))
    ql, gl = rng.integers(5, size=30), rng.integers(5, size=50)
    found = retrieval(q, ql, g, gl)
    assert retrieval(q * rng.uniform(0.1, 9, (30, 1)), ql, g * rng.uniform(0.1, 9, (50, 1)), gl) == found
    order = rng.permutation(50)
    assert retrieval(q, ql, g[order], gl[order]).recall == found.recall
    assert retrieval(q.astype(np.float32), ql.astype(np.int32), g, gl) == found


def test_centring_removes_what_all_share(rng: np.random.Generator) -> None:
    q, ql = clusters(rng, 40)
    g, gl = clusters(rng, 80)
    far_q, far_g = q + 1000 * rng.normal(size=6), g + 300 * rng.normal(size=6)
    assert retrieval(far_q, ql, far_g, gl, centre=True).recall == retrieval(q, ql, g, gl, centre=True).recall
    assert retrieval(far_q, ql, far_g, gl, centre=True).recall[1] == 1
    assert retrieval(far_q, ql, far_g, gl).recall[1] < 0.6


def test_a_collapsed_encoder_retrieves_nothing() -> None:
    labels = np.arange(16) % 4
    assert leave_one_out_retrieval(np.ones((16, 3)), labels, ks=(1, 5)).recall == {1: 0, 5: 0}
    assert leave_one_out_retrieval(np.zeros((16, 3)), labels, ks=(1,)).recall == {1: 0}


def test_a_class_that_the_gallery_lacks_is_a_miss(rng: np.random.Generator) -> None:
    found = retrieval(
        rng.normal(size=(4, 3)), np.array([0, 0, 1, 1]), rng.normal(size=(6, 3)), np.zeros(6, int), (1, 6)
    )
    assert found.recall == {1: 0.5, 6: 0.5}
    assert found.chance == 0.5


def test_leave_one_out_never_meets_its_own_group(rng: np.random.Generator) -> None:
    # Each item's nearest neighbour is its twin in the group, the only one of its class: nothing else can be right.
    features = np.repeat(rng.normal(size=(10, 8)), 2, axis=0)
    labels = np.repeat(np.arange(10), 2)
    single = leave_one_out_retrieval(features, labels, ks=(1,))
    assert single.recall == {1: 1.0}
    assert single.chance == pytest.approx(1 / 19)
    names = np.array([f"video{n // 2}" for n in range(20)])
    grouped = leave_one_out_retrieval(features, labels, names, ks=(1, 18))
    assert grouped.recall == {1: 0.0, 18: 0.0}
    assert grouped.num_queries == 20


def test_queries_and_ks_without_an_answer_are_reported(rng: np.random.Generator) -> None:
    found = retrieval(rng.normal(size=(3, 2)), np.zeros(3, int), rng.normal(size=(10, 2)), np.zeros(10, int))
    assert set(found.recall) == {1, 5, 10}
    assert found.ks_left_out == (20, 50)

    groups = np.array(["a", "a", "b"])
    partly = retrieval(
        rng.normal(size=(3, 2)),
        np.zeros(3, int),
        rng.normal(size=(4, 2)),
        np.zeros(4, int),
        (1, 5),
        query_groups=groups,
        gallery_groups=np.array(["b"] * 4),
    )
    assert (partly.num_queries, partly.num_queries_left_out, partly.ks_left_out) == (2, 1, (5,))


def test_probe_separates_what_a_line_separates(rng: np.random.Generator) -> None:
    x, y = clusters(rng, 200)
    z, truth = clusters(rng, 80)
    probe = LinearProbe().fit(x, y + 10)
    assert probe.accuracy(z, truth + 10) == 1
    assert set(probe.predict(z)) == {10, 11, 12, 13}
    assert probe.accuracy(z, truth) == 0  # classes it has never seen
    noise = LinearProbe().fit(rng.normal(size=(800, 8)), np.arange(800) % 8)
    assert noise.accuracy(rng.normal(size=(800, 8)), np.arange(800) % 8) == pytest.approx(1 / 8, abs=0.06)


def test_probe_finds_the_optimum(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(120, 4)) * [1, 5, 0.1, 2] + 3, rng.integers(3, size=120)
    l2 = 3e-3
    scores = LinearProbe(l2, iterations=200).fit(x, y).scores
    base = scores(x.mean(axis=0)[None])[0]
    weight = np.stack([scores((x.mean(axis=0) + x.std(axis=0) * unit)[None])[0] - base for unit in np.eye(4)])
    logits = scores(x)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = (chances - np.eye(3)[y]) / len(x)
    gradient = ((x - x.mean(axis=0)) / x.std(axis=0)).T @ residual + 2 * l2 * weight
    assert abs(gradient).max() < 1e-5
    assert abs(residual.sum(axis=0)).max() < 1e-5  # the bias is not penalised


def test_probe_does_not_see_scale_shift_or_a_constant(rng: np.random.Generator) -> None:
    x, y = clusters(rng, 120, spread=0.8)
    z, _ = clusters(rng, 60, spread=0.8)
    plain = LinearProbe().fit(x, y).scores(z)
    moved = LinearProbe().fit(x * 100 - 7, y).scores(z * 100 - 7)
    np.testing.assert_allclose(moved, plain, atol=1e-6)
    for constant in (0, 0.1, 1e6):
        wider = LinearProbe().fit(np.column_stack([x, np.full(120, constant)]), y)
        np.testing.assert_allclose(wider.scores(np.column_stack([z, np.full(60, 5.0)])), plain, atol=1e-6)


def test_probe_repeats_itself_even_in_inference_mode(rng: np.random.Generator) -> None:
    x, y = clusters(rng, 120, spread=0.8)
    first = LinearProbe().fit(x, y).scores(x)
    np.testing.assert_array_equal(LinearProbe().fit(x, y).scores(x), first)
    with torch.inference_mode():
        np.testing.assert_array_equal(LinearProbe().fit(x, y).scores(x), first)
    with torch.no_grad():
        np.testing.assert_array_equal(LinearProbe().fit(x, y).scores(x), first)


def test_a_stronger_penalty_gives_smaller_scores(rng: np.random.Generator) -> None:
    x, y = clusters(rng, 120)
    sizes = [abs(LinearProbe(l2).fit(x, y).scores(x)).max() for l2 in (1e-4, 3e-3, 1.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_neighbours_vote_as_in_the_plain_loop(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bgaug.metrics.neighbours, "QUERY_BLOCK", 7)
    x, y = rng.normal(size=(50, 4)), rng.integers(2, 6, size=50)
    z, truth = rng.normal(size=(30, 4)), rng.integers(2, 6, size=30)
    expected = []
    for query in z:
        cosines = [float(query @ row) / (np.linalg.norm(query) * np.linalg.norm(row)) for row in x]
        votes = dict.fromkeys(range(6), 0.0)
        for cosine, label in sorted(zip(cosines, y.tolist(), strict=True), reverse=True)[:10]:
            votes[label] += np.exp(cosine / 0.1)
        expected.append(max(votes, key=lambda label: votes[label]))
    assert knn_predict(x, y, z).tolist() == expected
    assert knn_accuracy(x, y, z, truth) == np.mean(np.array(expected) == truth)
    assert knn_accuracy(x, y, x * 3, y, k=1) == 1
    assert knn_accuracy(x, y, x, y, k=50, sigma=1e-3) == 1  # a cold vote is the nearest neighbour's


def test_interval_of_independent_items_is_the_textbook_one(rng: np.random.Generator) -> None:
    correct = np.arange(400) % 4 > 0
    low, high = bootstrap_interval(correct)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert [low, high] == pytest.approx([0.75 - half, 0.75 + half], abs=0.008)
    assert bootstrap_interval(correct) == (low, high)
    assert bootstrap_interval(correct, seed=1) != (low, high)
    assert bootstrap_interval(np.ones(9)) == (1, 1)
    narrow = bootstrap_interval(correct, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_items_of_one_group_stand_or_fall_together() -> None:
    few = np.arange(40) % 4 > 0
    many = np.repeat(few, 10)
    low, high = bootstrap_interval(many, np.repeat(np.arange(40), 10))
    assert (low, high) == pytest.approx(bootstrap_interval(few))
    single = bootstrap_interval(many)
    assert high - low > 2 * (single[1] - single[0])
    # A group counts by its items, not as one.
    assert bootstrap_interval(np.array([1, 1, 1, 0]), np.array([7, 7, 7, 7])) == (0.75, 0.75)


def test_colours_fail_as_the_synthetic_world_intends() -> None:
    def colours(name: str, count: int) -> tuple[Array, Array]:
        split = make_split(name, num_frames=2, count=count)
        clips = split.frames.astype(np.float32)
        return np.concatenate([clips.mean(axis=(1, 2, 3)), clips.std(axis=(1, 2, 3))], axis=1), split.labels

    probe = LinearProbe().fit(*colours("probe_train", 320))
    scores = {name: probe.accuracy(*colours(name, 80)) for name in ("iid", "bgonly", "swap", "conflict")}
    assert scores["iid"] > 0.75
    assert scores["bgonly"] > 0.5
    assert scores["swap"] < 0.3
    assert scores["conflict"] < 0.1


ROWS, LABELS = np.ones((4, 3)), np.zeros(4, int)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(4), LABELS, ROWS, LABELS), r"query features must be \(N, D\)"),
        ((np.ones((0, 3)), LABELS[:0], ROWS, LABELS), r"neither of them 0"),
        ((ROWS, LABELS[:3], ROWS, LABELS), r"one query label per row.*\(3,\).*\(4, 3\)"),
        ((ROWS, LABELS, ROWS * np.nan, LABELS), r"gallery features must be finite; 4 rows are not"),
        ((ROWS, LABELS - 1, ROWS, LABELS), r"query labels must be integers of 0 or more"),
        ((ROWS, LABELS, ROWS, LABELS + 0.5), r"gallery labels must be integers"),
        ((ROWS, LABELS, ROWS[:, :2], LABELS), r"features differ in dimension: 3 against 2"),
        ((ROWS, LABELS, ROWS, LABELS, (0, 1)), r"every k must be 1 or more, got \(0, 1\)"),
    ],
)
def test_invalid_retrieval(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval(*arguments)


def test_invalid_groups() -> None:
    with pytest.raises(ValueError, match="go together"):
        retrieval(ROWS, LABELS, ROWS, LABELS, query_groups=LABELS)
    with pytest.raises(ValueError, match=r"groups must be \(4,\) and \(4,\)"):
        leave_one_out_retrieval(ROWS, LABELS, LABELS[:3])
    with pytest.raises(ValueError, match="nothing to retrieve"):
        leave_one_out_retrieval(ROWS, LABELS, LABELS)


def test_invalid_probes_votes_and_intervals() -> None:
    with pytest.raises(ValueError, match="l2 must be positive"):
        LinearProbe(l2=0)
    with pytest.raises(RuntimeError, match="call fit"):
        LinearProbe().predict(ROWS)
    with pytest.raises(ValueError, match="one training label per row"):
        LinearProbe().fit(ROWS, LABELS[:2])
    with pytest.raises(ValueError, match="dimension: 2 against 3"):
        LinearProbe().fit(ROWS, LABELS).predict(ROWS[:, :2])
    with pytest.raises(ValueError, match=r"k must be 1\.\.4 and sigma positive"):
        knn_accuracy(ROWS, LABELS, ROWS, LABELS)
    with pytest.raises(ValueError, match=r"sigma = 0"):
        knn_predict(ROWS, LABELS, ROWS, k=1, sigma=0)
    with pytest.raises(ValueError, match=r"correct must be \(N,\)"):
        bootstrap_interval(np.ones((2, 2)))
    with pytest.raises(ValueError, match="one group per item"):
        bootstrap_interval(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="level inside"):
        bootstrap_interval(np.ones(3), level=1)
