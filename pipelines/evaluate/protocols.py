"""What is asked of frozen features: retrieval, a linear probe, nearest neighbours, few labels. One outcome a measure.

Letters: N labelled videos, V tested videos, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics import (
    FewShotClassifier,
    HeldOut,
    LinearProbe,
    choose_l2,
    few_shot_predict,
    knn_predict,
    leave_one_out_retrieval,
    retrieval,
    smallest_gallery,
)
from bgaug.pipelines.evaluate.labelled import LabelledVideos
from bgaug.progress import Progress

KS = (1, 5, 10, 20, 50)
NEIGHBOURS = 10
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one measure judged each tested item.

    Attributes:
        correct: float64 (V,): 1 for right, 0 for wrong, a share where there were several draws.
        ids: (V,), of what was tested.
        groups: (V,), what stands or falls together.
        labels: int64 (V,), places among the classes.
        predicted: int64 (V,), likewise; None where the measure predicts no class.
        weights: (V,), so that the weighted mean of `correct` is the measure; all 1 for one split.
    """

    correct: NDArray[np.float64]
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: Ints
    predicted: Ints | None
    weights: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The measure, a share."""
        return float(np.average(self.correct, weights=self.weights))


@dataclass(eq=False)
class Found:
    """What protocols found on one split.

    Attributes:
        outcomes: by measure.
        numbers: shares beside the outcomes: chance, spreads.
        settings: what was decided on the way.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Frozen:
    """Features of labelled videos, and who is held against whom.

    Attributes:
        values: float32 (N, D).
        labelled: the videos.
        held_out: who is tested.
        progress: receives what happens.
    """

    values: NDArray[np.float32]
    labelled: LabelledVideos
    held_out: HeldOut
    progress: Progress

    @property
    def labels(self) -> Ints:
        """Of the videos, (N,)."""
        return self.labelled.labels

    def by_fold(self, stage: str, predict: Callable[[Ints, Ints], Ints]) -> Ints:
        """Predictions (V,) for `held_out.test`, from (places to learn from, places to label) of each fold."""
        predicted = np.full(len(self.labels), -1, np.int64)
        folds = list(self.held_out.folds(self.labels))
        self.progress.start(stage, len(folds))
        for train, test in folds:
            predicted[test] = predict(train, test)
            self.progress.advance()
        return predicted[self.held_out.test]

    def outcome(
        self, correct: NDArray[Any], predicted: Ints | None = None, kept: NDArray[np.bool_] | None = None
    ) -> Outcome:
        """The outcome of a measure on the tested videos, or on those of them that are kept."""
        return outcome_of(self.labelled, self.held_out.test, correct, predicted, kept)


def outcome_of(
    labelled: LabelledVideos,
    test: Ints,
    correct: NDArray[Any],
    predicted: Ints | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> Outcome:
    """The outcome of a measure.

    Args:
        labelled: the videos.
        test: which of them were tested, (V,).
        correct: (V,).
        predicted: (V,).
        kept: (V,), which of these count; all if None.
    """
    kept = np.ones(len(test), np.bool_) if kept is None else kept
    places = test[kept]
    return Outcome(
        correct=np.asarray(correct, np.float64)[kept],
        ids=np.array(labelled.ids)[places],
        groups=labelled.group_names[places],
        labels=labelled.labels[places],
        predicted=None if predicted is None else predicted[kept],
        weights=np.ones(len(places)),
    )


def retrieve(frozen: Frozen, found: Found, *, centre: bool = False) -> None:
    """R@k by cosine similarity, of features as they are, and also of centred ones where that is asked for."""
    held_out, labels, values = frozen.held_out, frozen.labels, frozen.values
    for centred in (False, True) if centre else (False,):
        if held_out.kind == "split":
            train, test = held_out.train, held_out.test
            result = retrieval(values[test], labels[test], values[train], labels[train], KS, centre=centred)
        else:
            result = leave_one_out_retrieval(values, labels, held_out.groups, KS, centre=centred)
        prefix = "retrieval_centred" if centred else "retrieval"
        for k in result.recall:
            found.outcomes[f"{prefix}_r{k}"] = frozen.outcome(result.ranks < k, kept=result.ranks >= 0)
    found.numbers["retrieval_chance"] = result.chance
    if result.ks_left_out:
        largest = max(result.recall, default=0)
        found.settings["ks_left_out"] = list(result.ks_left_out)
        frozen.progress.warn(
            f"R@{', R@'.join(map(str, result.ks_left_out))} left out: some videos have fewer others to retrieve from"
            + (f" (R@{largest} is the last that is possible)" if largest else "")
        )


def probe(frozen: Frozen, found: Found, *, l2: float | None) -> None:
    """A linear probe for each fold; `l2` None chooses the penalty inside its training videos."""
    values, labels, chosen = frozen.values, frozen.labels, []

    def predict(train: Ints, test: Ints) -> Ints:
        try:
            penalty = choose_l2(values[train], labels[train], frozen.held_out.groups[train]) if l2 is None else l2
        except ValueError as error:
            raise UsageError(f"the penalty cannot be chosen by cross-validation ({error}); give it as --l2") from error
        chosen.append(penalty)
        return LinearProbe(penalty).fit(values[train], labels[train]).predict(values[test])

    predicted = frozen.by_fold("linear probe", predict)
    found.outcomes["linear"] = frozen.outcome(predicted == labels[frozen.held_out.test], predicted)
    found.settings["l2"] = l2 if l2 is not None else {"cross-validated": sorted(set(chosen))}


def vote(frozen: Frozen, found: Found, *, neighbours: int | None) -> None:
    """Labels by the votes of the nearest; by default of ten, or as many as there always are."""
    held_out, values, labels = frozen.held_out, frozen.values, frozen.labels
    train, test, barred = held_out.train, held_out.test, held_out.barred
    most = len(train) if barred is None else smallest_gallery(barred[test], barred[train])
    if neighbours is not None and neighbours > most:
        raise UsageError(
            f"{neighbours} neighbours cannot vote: a video is held against as few as {most} others; take --neighbours {most} or fewer"
        )
    k = min(NEIGHBOURS, most) if neighbours is None else neighbours
    predicted = knn_predict(
        values[train],
        labels[train],
        values[test],
        k=k,
        train_groups=None if barred is None else barred[train],
        groups=None if barred is None else barred[test],
    )
    found.outcomes["knn"] = frozen.outcome(predicted == labels[test], predicted)
    found.settings["neighbours"] = k


def few_labels(
    frozen: Frozen,
    found: Found,
    *,
    shots: tuple[int, ...] = (1, 5, 10),
    draws: int = 10,
    seed: int = 0,
    classifier: FewShotClassifier = "linear",
) -> None:
    """Accuracy from so many labelled videos a class: the mean over draws, and how the draws spread."""
    values, labels, held_out = frozen.values, frozen.labels, frozen.held_out
    folds = list(held_out.folds(labels))
    smallest = min(int(np.unique(labels[train], return_counts=True)[1].min()) for train, _ in folds)
    possible = [count for count in shots if count <= smallest]
    left_out = [count for count in shots if count > smallest]
    if not possible:
        raise UsageError(
            f"few-shot: the smallest class has {smallest} video{'s' * (smallest != 1)} to learn from, {min(shots)} are asked for; "
            "take --shots with smaller numbers"
        )
    if left_out:
        frozen.progress.warn(
            f"few-shot with {', '.join(map(str, left_out))} labelled videos a class left out: the smallest class has "
            f"{smallest} to learn from"
        )
    frozen.progress.start("few-shot", len(possible) * len(folds))
    for count in possible:
        hits = np.zeros((draws, len(labels)))
        for train, test in folds:
            guesses = few_shot_predict(
                values[train], labels[train], values[test], shots=count, draws=draws, seed=seed, classifier=classifier
            )
            for draw, guess in enumerate(guesses):
                hits[draw, test] = guess == labels[test]
            frozen.progress.advance()
        tested = hits[:, held_out.test]
        found.outcomes[f"fewshot_{count}"] = frozen.outcome(tested.mean(axis=0))
        found.numbers[f"fewshot_{count}_draws_std"] = float(tested.mean(axis=1).std(ddof=1)) if draws > 1 else 0.0
    found.settings |= {"shots": possible, "draws": draws, "fewshot_classifier": classifier, "seed": seed}
    if left_out:
        found.settings["shots_left_out"] = left_out
