"""What happened to each class.

Letters: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bgaug.metrics.checks import Array, Floats, Ints


def confusion_counts(labels: Array, predicted: Array, num_classes: int) -> Ints:
    """How often a sample of one class was taken for another.

    Args:
        labels: int (N,), in [0, K).
        predicted: int (N,), in [0, K).
        num_classes: K.

    Returns:
        int64 (K, K): rows are the true classes, columns what was predicted.

    Raises:
        ValueError: the two differ in length, or something is out of range.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"one prediction a label is needed, got {predicted.shape = } for {labels.shape = }")
    for values in (labels, predicted):
        if len(values) and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"classes lie in [0, {num_classes}), got {values.min()} to {values.max()}")
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def class_rows(labels: Array, correct: dict[str, Floats], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a class that has samples: its name, how many, and the share that was right by each measure.

    Args:
        labels: int (N,), places in `names`.
        correct: by measure, (N,): 1 for right, 0 for wrong, a share for several draws, NaN for a sample left out.
        names: of the classes.

    Returns:
        Rows with "class", "videos" and the measures in percent; None where a measure left all of the class out.
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
