"""Protocols on frozen features: retrieval, a linear probe, nearest neighbours, few labels. Each adds to a report.

Letters: N labelled videos, V tested videos, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics import (
    LinearProbe,
    choose_l2,
    few_shot_predict,
    knn_predict,
    leave_one_out_retrieval,
    retrieval,
    smallest_gallery,
)
from bgaug.names import FewShotClassifier
from bgaug.pipelines.evaluate.labelled import LabelledVideos
from bgaug.pipelines.evaluate.report import Outcome, Report
from bgaug.progress import Progress

_KS = (1, 5, 10, 20, 50)
_NEIGHBOURS = 10
Ints = NDArray[np.int64]
Values = NDArray[np.float32]
"""Features of the labelled videos, (N, D)."""


def retrieve(values: Values, part: LabelledVideos, report: Report, progress: Progress, *, centre: bool = False) -> None:
    """R@k by cosine similarity; with `centre`, also of centred features."""
    held_out, labels = part.held_out, part.labels
    for centred in (False, True) if centre else (False,):
        if held_out.kind == "split":
            train, test = held_out.train, held_out.test
            result = retrieval(values[test], labels[test], values[train], labels[train], _KS, centre=centred)
        else:
            result = leave_one_out_retrieval(values, labels, held_out.groups, _KS, centre=centred)
        prefix = "retrieval_centred" if centred else "retrieval"
        for k in result.recall:
            report.outcomes[f"{prefix}_r{k}"] = Outcome.of(part, result.ranks < k, kept=result.ranks >= 0)
    report.numbers["retrieval_chance"] = result.chance
    if result.ks_left_out:
        largest = max(result.recall, default=0)
        report.settings["ks_left_out"] = list(result.ks_left_out)
        progress.warn(
            f"R@{', R@'.join(map(str, result.ks_left_out))} left out: some videos have fewer others to retrieve from"
            + (f" (R@{largest} is the last that is possible)" if largest else "")
        )


def linear_probe(values: Values, part: LabelledVideos, report: Report, progress: Progress, *, l2: float | None) -> None:
    """A linear probe for each fold; if `l2` is None, the penalty is chosen within the training videos of the fold."""
    labels, chosen = part.labels, []

    def predict(train: Ints, test: Ints) -> Ints:
        try:
            penalty = choose_l2(values[train], labels[train], part.held_out.groups[train]) if l2 is None else l2
        except ValueError as error:
            raise UsageError(f"the penalty cannot be chosen by cross-validation ({error}); give it as --l2") from error
        chosen.append(penalty)
        return LinearProbe(penalty).fit(values[train], labels[train]).predict(values[test])

    predicted = _by_fold(part, progress, "linear probe", predict)
    report.outcomes["linear"] = Outcome.of(part, predicted == labels[part.held_out.test], predicted)
    report.settings["l2"] = l2 if l2 is not None else {"cross-validated": sorted(set(chosen))}


def _by_fold(part: LabelledVideos, progress: Progress, stage: str, predict: Callable[[Ints, Ints], Ints]) -> Ints:
    """Predictions (V,) of the tested videos, from (places to learn from, places to label) of each fold."""
    predicted = np.full(len(part.labels), -1, np.int64)
    folds = list(part.held_out.folds(part.labels))
    progress.start(stage, len(folds))
    for train, test in folds:
        predicted[test] = predict(train, test)
        progress.advance()
    return predicted[part.held_out.test]


def neighbour_votes(values: Values, part: LabelledVideos, report: Report, *, neighbours: int | None) -> None:
    """Labels by the votes of the nearest neighbours: by default of ten, or of as many as every video has."""
    held_out, labels = part.held_out, part.labels
    train, test, barred = held_out.train, held_out.test, held_out.barred
    most = len(train) if barred is None else smallest_gallery(barred[test], barred[train])
    if neighbours is not None and neighbours > most:
        raise UsageError(
            f"{neighbours} neighbours cannot vote: some videos are compared with {most} others only; use --neighbours "
            f"{most} or fewer"
        )
    # All tested videos get the same number of votes, also the one with the smallest gallery.
    k = min(_NEIGHBOURS, most) if neighbours is None else neighbours
    predicted = knn_predict(
        values[train],
        labels[train],
        values[test],
        k=k,
        train_groups=None if barred is None else barred[train],
        groups=None if barred is None else barred[test],
    )
    report.outcomes["knn"] = Outcome.of(part, predicted == labels[test], predicted)
    report.settings["neighbours"] = k


def few_labels(
    values: Values,
    part: LabelledVideos,
    report: Report,
    progress: Progress,
    *,
    shots: tuple[int, ...],
    draws: int,
    seed: int,
    classifier: FewShotClassifier,
) -> None:
    """Accuracy with few labelled videos per class: the mean over draws, and the standard deviation of the draws."""
    labels, held_out = part.labels, part.held_out
    folds = list(held_out.folds(labels))
    # Each fold draws that many videos of every class.
    smallest = min(int(np.unique(labels[train], return_counts=True)[1].min()) for train, _ in folds)
    possible = [count for count in shots if count <= smallest]
    left_out = [count for count in shots if count > smallest]
    if not possible:
        raise UsageError(
            f"few-shot: the smallest class has {smallest} training video{'s' * (smallest != 1)}, {min(shots)} were "
            "requested; use --few-shot with smaller numbers"
        )
    if left_out:
        progress.warn(
            f"few-shot with {', '.join(map(str, left_out))} labelled videos per class left out: the smallest class has "
            f"{smallest} training videos"
        )
    progress.start("few-shot", len(possible) * len(folds))
    for count in possible:
        hits = np.zeros((draws, len(labels)))
        for train, test in folds:
            guesses = few_shot_predict(
                values[train], labels[train], values[test], shots=count, draws=draws, seed=seed, classifier=classifier
            )
            for draw, guess in enumerate(guesses):
                hits[draw, test] = guess == labels[test]
            progress.advance()
        tested = hits[:, held_out.test]
        report.outcomes[f"fewshot_{count}"] = Outcome.of(part, tested.mean(axis=0))
        spread = float(tested.mean(axis=1).std(ddof=1)) if draws > 1 else 0.0
        report.numbers[f"fewshot_{count}_draws_std"] = spread
    report.settings |= {"shots": possible, "draws": draws, "fewshot_classifier": classifier, "seed": seed}
    if left_out:
        report.settings["shots_left_out"] = left_out
