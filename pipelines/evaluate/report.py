"""The report of an evaluation: how each video was judged, the metrics of that, and the difference of two runs.

Letters: V tested videos, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics import Paired, bootstrap_interval, class_rows, confusion_counts, paired_difference
from bgaug.pipelines.evaluate.labelled import LabelledVideos

if TYPE_CHECKING:
    from bgaug.pipelines.evaluate.bias.run import BiasReport

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one measure judged each tested item.

    Attributes:
        correct: float64 (V,): 1 for right, 0 for wrong, a share for several draws.
        ids: (V,), ids of the items.
        groups: (V,), group of each item.
        labels: int64 (V,), places among the classes.
        predicted: int64 (V,), likewise; None if the measure predicts no class.
        weights: (V,); the weighted mean of `correct` is the measure. All 1 for one split.
    """

    correct: NDArray[np.float64]
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: Ints
    predicted: Ints | None
    weights: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        part: LabelledVideos,
        correct: NDArray[Any],
        predicted: Ints | None = None,
        kept: NDArray[np.bool_] | None = None,
    ) -> Outcome:
        """The outcome of a measure on the tested videos, (V,) each; `kept` selects the videos that count."""
        test = part.held_out.test
        kept = np.ones(len(test), np.bool_) if kept is None else kept
        places = test[kept]
        return cls(
            correct=np.asarray(correct, np.float64)[kept],
            ids=np.array(part.ids)[places],
            groups=part.group_names[places],
            labels=part.labels[places],
            predicted=None if predicted is None else predicted[kept],
            weights=np.ones(len(places)),
        )

    @property
    def value(self) -> float:
        """The measure, a share."""
        return float(np.average(self.correct, weights=self.weights))


@dataclass(eq=False)
class Report:
    """Result of an evaluation, or of its protocols on one split.

    Attributes:
        outcomes: outcome of each measure.
        numbers: further shares: chance, spreads.
        settings: how the metrics were computed.
        class_names: meaning of the labels.
        parts: reports of the splits by number, if there are several.
        bias: report of the bias protocol, if it was requested.
        file: file that keeps the report; None if it is not kept.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    parts: Mapping[int | None, Report] = field(default_factory=dict)
    bias: BiasReport | None = None
    file: Path | None = None

    @classmethod
    def joined(cls, parts: Mapping[int | None, Report], class_names: Sequence[str]) -> Report:
        """One report of several splits; all splits have the same weight."""
        if len(parts) < 2:
            report = next(iter(parts.values()), Report())
            return cls(report.outcomes, report.numbers, report.settings, class_names)
        reports = list(parts.values())
        settings: dict[str, Any] = {}
        for report in reversed(reports):  # where splits differ, the settings of the first
            settings |= report.settings
        # A measure that some split cannot have, such as R@50 of few videos, has no mean.
        names = [name for name in reports[0].outcomes if all(name in report.outcomes for report in reports)]
        outcomes = {name: join({split: report.outcomes[name] for split, report in parts.items()}) for name in names}
        numbers = {
            name: float(np.mean([report.numbers[name] for report in reports if name in report.numbers]))
            for name in reports[0].numbers
        }
        return cls(outcomes, numbers, settings, class_names, parts)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Percent by name; `NAME_low` and `NAME_high` are the ends of a 95 % interval."""
        metrics = self._own_metrics()
        for name in self.outcomes if self.parts else ():
            values = [report.outcomes[name].value for report in self.parts.values()]
            metrics[f"{name}_splits_std"] = _percent(float(np.std(values, ddof=1)))
        return metrics if self.bias is None else metrics | self.bias.metrics

    @property
    def only_bias(self) -> bool:
        """Whether the bias protocol was the only one."""
        return self.bias is not None and not self.outcomes

    def _own_metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name, outcome in self.outcomes.items():
            low, high = bootstrap_interval(outcome.correct, outcome.groups, weights=outcome.weights)
            for suffix, value in (("", outcome.value), ("_low", low), ("_high", high)):
                metrics[f"{name}{suffix}"] = _percent(value)
        return metrics | {name: _percent(value) for name, value in self.numbers.items()}

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """One row per class, see `bgaug.metrics.class_rows`; a video that a measure left out is missing there only."""
        if not self.outcomes:
            return []
        ids = np.unique(np.concatenate([outcome.ids for outcome in self.outcomes.values()]))
        labels = np.empty(len(ids), np.int64)
        correct = {}
        for name, outcome in self.outcomes.items():
            places = np.searchsorted(ids, outcome.ids)
            labels[places] = outcome.labels
            # nan marks a video that this measure left out.
            correct[name] = np.full(len(ids), np.nan)
            correct[name][places] = outcome.correct
        return class_rows(labels, correct, self.class_names)

    @property
    def confusion(self) -> dict[str, dict[str, Any]]:
        """By protocol: "classes", names of rows and columns, and "counts", a row for each true class that occurs."""
        found = {}
        for name, outcome in self.outcomes.items():
            if outcome.predicted is None:
                continue
            # Only classes that occur: of a long list most rows and columns would be zeros.
            used, places = np.unique(np.concatenate([outcome.labels, outcome.predicted]), return_inverse=True)
            counts = confusion_counts(places[: len(outcome.labels)], places[len(outcome.labels) :], len(used))
            found[name] = {"classes": [self.class_names[k] for k in used.tolist()], "counts": counts.tolist()}
        return found

    @property
    def judged(self) -> dict[str, Outcome]:
        """Outcomes of all measures, also of the views of the bias protocol."""
        return self.outcomes | ({} if self.bias is None else _bias_outcomes(self.bias))

    def to_json(self) -> dict[str, Any]:
        """The report of `--json`, and the content of the file."""
        found: dict[str, Any] = {**self.metrics, "classes": self.classes, "confusion": self.confusion}
        if self.parts:
            found["splits"] = [{"split": split, **report._own_metrics()} for split, report in self.parts.items()]
        if self.bias is not None:
            found["bias"] = self.bias.to_json()
        return {**found, "settings": self.settings, "file": None if self.file is None else str(self.file)}


def join(outcomes: Mapping[int | None, Outcome]) -> Outcome:
    """One outcome of a measure on several splits, which have the same weight whatever their sizes."""
    parts = list(outcomes.values())
    predicted = [part.predicted for part in parts if part.predicted is not None]
    return Outcome(
        correct=np.concatenate([part.correct for part in parts]),
        # A video may be tested in several splits: its split makes the id unique.
        ids=np.array([f"{split}/{name}" for split, part in outcomes.items() for name in part.ids]),
        groups=np.concatenate([part.groups for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        predicted=np.concatenate(predicted) if len(predicted) == len(parts) else None,
        weights=np.concatenate([np.full(len(part.ids), 1 / len(part.ids)) for part in parts]),
    )


def compare(first: Report, second: Report) -> dict[str, Paired]:
    """Difference of the second run to the first, by measure, on the same videos.

    Args:
        first: report of one run.
        second: report of another run, on the same store and labels, by the same protocols.

    Returns:
        Differences as shares, of the measures that both have and that judged the same items. Composites of the bias
        protocol are the same items if the manifest is the same.

    Raises:
        UsageError: there is no such measure.
    """
    found, others = {}, second.judged
    for name, one in first.judged.items():
        other = others.get(name)
        if other is not None and np.array_equal(one.ids, other.ids):
            found[name] = paired_difference(one.correct, other.correct, one.groups, weights=one.weights)
    if not found:
        raise UsageError(
            "the two runs were tested on other videos: evaluate both on the same store, with the same labels and "
            "protocols"
        )
    return found


def _bias_outcomes(bias: BiasReport) -> dict[str, Outcome]:
    """Outcomes of the views of the bias protocol, with composites as items."""
    rows = bias.manifest.rows
    groups = np.array([row.group for row in rows])
    # Composites of different tests may have equal names, so the hash of the test is part of the id.
    ids = np.array([f"{bias.manifest.sha256[:16]}/{name}" for name in bias.names])
    nothing = np.zeros(len(rows), np.int64)
    hits = {"conflict_dynamic" if name == "conflict" else name: hit for name, hit in bias.hits.items()}
    if {"scuba", "scufo"} <= hits.keys():
        hits["contrasted"] = hits["scuba"] & ~hits["scufo"]
    outcomes = {}
    for name, hit in hits.items():
        kept = bias.has_same_class if name == "same_class" else np.ones(len(rows), np.bool_)
        if kept.any():
            values = hit[kept].astype(np.float64)
            outcomes[name] = Outcome(values, ids[kept], groups[kept], nothing[kept], None, np.ones(len(values)))
    return outcomes


def _percent(share: float) -> float:
    return round(100 * share, 2)
