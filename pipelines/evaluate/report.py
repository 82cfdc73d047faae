"""What an evaluation found: from how each video was judged to metrics, classes, confusions, and the difference of two runs.

Letters: V tested videos, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgaug.errors import UsageError
from bgaug.metrics import Paired, bootstrap_interval, class_rows, confusion_counts, paired_difference
from bgaug.pipelines.evaluate.protocols import Found, Outcome

if TYPE_CHECKING:
    from bgaug.pipelines.evaluate.bias.run import BiasReport


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: percent by name; `NAME_low` and `NAME_high` are the ends of a 95 % interval.
        settings: how they were come by.
        classes: a row a class, see `bgaug.metrics.class_rows`.
        confusion: by protocol: "classes", names of rows and columns, and "counts", a row a true class.
        splits: metrics of each split, where there are several.
        bias: what `BiasReport.to_json` says; None without that protocol.
        outcomes: by measure, how it judged each video.
        file: where all this is kept, None if nowhere.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    classes: list[dict[str, Any]] = field(default_factory=list)
    confusion: dict[str, dict[str, Any]] = field(default_factory=dict)
    splits: list[dict[str, Any]] = field(default_factory=list)
    bias: dict[str, Any] | None = None
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    file: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`, and for the file."""
        found: dict[str, Any] = {**self.metrics, "classes": self.classes, "confusion": self.confusion}
        if self.splits:
            found["splits"] = self.splits
        if self.bias is not None:
            found["bias"] = self.bias
        return {**found, "settings": self.settings, "file": None if self.file is None else str(self.file)}


def gather(
    found: Sequence[Found],
    splits: Sequence[int | None],
    class_names: Sequence[str],
    settings: dict[str, Any],
    bias: BiasReport | None = None,
) -> Evaluation:
    """One evaluation from what was found on each split.

    Args:
        found: on each split; none where only the bias was asked for.
        splits: their numbers.
        class_names: what labels mean.
        settings: how it was come by.
        bias: what its own protocol found.
    """
    names = [name for name in (found[0].outcomes if found else ()) if all(name in f.outcomes for f in found)]
    outcomes = {name: join([f.outcomes[name] for f in found], splits) for name in names}
    metrics, by_split = _metrics(outcomes, found), []
    if len(found) > 1:
        by_split = [{"split": split, **_metrics(f.outcomes, [f])} for split, f in zip(splits, found, strict=True)]
        for name in names:
            metrics[f"{name}_splits_std"] = _percent(float(np.std([f.outcomes[name].value for f in found], ddof=1)))
    classes = _class_rows(outcomes, class_names) if outcomes else []
    confusion = {name: _confusion(o, class_names) for name, o in outcomes.items() if o.predicted is not None}
    if bias is None:
        return Evaluation(metrics, settings, classes, confusion, by_split, None, outcomes)
    outcomes |= _bias_outcomes(bias)
    return Evaluation({**metrics, **bias.metrics}, settings, classes, confusion, by_split, bias.to_json(), outcomes)


def join(outcomes: Sequence[Outcome], splits: Sequence[int | None]) -> Outcome:
    """One outcome of a measure on several splits, each of which counts the same whatever its size."""
    if len(outcomes) == 1:
        return outcomes[0]
    predicted = [outcome.predicted for outcome in outcomes if outcome.predicted is not None]
    named = zip(outcomes, splits, strict=True)
    return Outcome(
        correct=np.concatenate([o.correct for o in outcomes]),
        ids=np.array([f"{split}/{name}" for o, split in named for name in o.ids]),
        groups=np.concatenate([o.groups for o in outcomes]),
        labels=np.concatenate([o.labels for o in outcomes]),
        predicted=np.concatenate(predicted) if len(predicted) == len(outcomes) else None,
        weights=np.concatenate([np.full(len(o.ids), 1 / len(o.ids)) for o in outcomes]),
    )


def compare(first: Evaluation, second: Evaluation) -> dict[str, Paired]:
    """How the second run differs from the first, by measure, over the same videos.

    Args:
        first: of one run.
        second: of another, on the same store and labels, by the same protocols.

    Returns:
        Differences as shares, of the measures that both have and that judged the same items: composites of the bias
        evaluation are the same where the manifest is.

    Raises:
        UsageError: there is no such measure.
    """
    found = {}
    for name, one in first.outcomes.items():
        other = second.outcomes.get(name)
        if other is not None and np.array_equal(one.ids, other.ids):
            found[name] = paired_difference(one.correct, other.correct, one.groups, weights=one.weights)
    if not found:
        raise UsageError(
            "the two runs were tested on other videos: evaluate both on the same store, with the same labels and protocols"
        )
    return found


def _metrics(outcomes: Mapping[str, Outcome], found: Sequence[Found]) -> dict[str, float]:
    """Percent: each measure with its interval, then what stands beside."""
    metrics: dict[str, float] = {}
    for name, outcome in outcomes.items():
        low, high = bootstrap_interval(outcome.correct, outcome.groups, weights=outcome.weights)
        for suffix, value in (("", outcome.value), ("_low", low), ("_high", high)):
            metrics[f"{name}{suffix}"] = _percent(value)
    for name in found[0].numbers if found else ():
        metrics[name] = _percent(float(np.mean([f.numbers[name] for f in found if name in f.numbers])))
    return metrics


def _class_rows(outcomes: Mapping[str, Outcome], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a class; a video that a measure left out is missing there alone."""
    ids = np.unique(np.concatenate([outcome.ids for outcome in outcomes.values()]))
    labels = np.empty(len(ids), np.int64)
    correct = {}
    for name, outcome in outcomes.items():
        places = np.searchsorted(ids, outcome.ids)
        labels[places] = outcome.labels
        correct[name] = np.full(len(ids), np.nan)
        correct[name][places] = outcome.correct
    return class_rows(labels, correct, names)


def _confusion(outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Counts over the classes that occur."""
    assert outcome.predicted is not None
    used, places = np.unique(np.concatenate([outcome.labels, outcome.predicted]), return_inverse=True)
    counts = confusion_counts(places[: len(outcome.labels)], places[len(outcome.labels) :], len(used))
    return {"classes": [names[number] for number in used.tolist()], "counts": counts.tolist()}


def _bias_outcomes(bias: BiasReport) -> dict[str, Outcome]:
    """The bias evaluation's views, composite by composite, for comparisons."""
    rows = bias.manifest.rows
    groups = np.array([row.group for row in rows])
    ids = np.array([f"{bias.manifest.sha256[:16]}/{name}" for name in bias.names])
    nothing = np.zeros(len(rows), np.int64)
    hits = {"conflict_dynamic" if name == "conflict" else name: hit for name, hit in bias.hits.items()}
    if {"scuba", "scufo"} <= hits.keys():
        hits["contrasted"] = hits["scuba"] & ~hits["scufo"]
    return {
        name: Outcome(hit.astype(np.float64), ids, groups, nothing, None, np.ones(len(rows)))
        for name, hit in hits.items()
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)
