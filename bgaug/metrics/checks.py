"""Checks of the arrays of every measure.

Letters: N samples, D embedding, Q queries, G gallery items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def checked_features(features: Array, what: str) -> Floats:
    """Features as float64 (N, D).

    Raises:
        ValueError: they have another shape, are empty or not finite; `what` names them in the message.
    """
    checked: Floats = np.asarray(features, np.float64)
    if checked.ndim != 2 or not checked.size:
        raise ValueError(f"{what} features must be (N, D), neither of them 0, got {checked.shape = }")
    if not np.isfinite(checked).all():
        raise ValueError(f"{what} features must be finite; {(~np.isfinite(checked).all(axis=1)).sum()} rows are not")
    return checked


def checked(features: Array, labels: Array, what: str) -> tuple[Floats, Ints]:
    """Features as float64 (N, D) and their labels as int64 (N,), 0 or more.

    Raises:
        ValueError: see `checked_features`; also if labels do not fit or are unknown.
    """
    features, labels = checked_features(features, what), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(f"one {what} label per row is needed, got {labels.shape = } for {features.shape = }")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"{what} labels must be integers of 0 or more; leave out samples without a label")
    return features, labels.astype(np.int64)


def check_dims(first: Floats, second: Floats) -> None:
    """Check that two sets of features have the same D.

    Raises:
        ValueError: they differ.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features differ in dimension: {first.shape[1]} against {second.shape[1]}")


def joint_groups(query: Array | None, gallery: Array | None, Q: int, G: int) -> tuple[Ints, Ints] | None:
    """Groups of queries and gallery as numbers of one numbering; None if there are none."""
    if query is None and gallery is None:
        return None
    if query is None or gallery is None:
        raise ValueError("query_groups and gallery_groups go together; only one was given")
    query, gallery = np.asarray(query), np.asarray(gallery)
    if query.shape != (Q,) or gallery.shape != (G,):
        raise ValueError(f"groups must be ({Q},) and ({G},), got {query.shape = } and {gallery.shape = }")
    numbers = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1]
    return numbers[:Q], numbers[Q:]
