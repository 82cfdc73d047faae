"""Log odds of foreground from cues: one small hidden layer in the first round, a weighted sum in the second.

The weights are in `weights.json`. `benchmarks/fit_motion.py` fits such weights, and names the data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.masks.motion.cues import FIRST, PERSON, SECOND, Window, first_cues, second_cues

_Floats = NDArray[np.float32]

WEIGHTS = Path(__file__).with_name("weights.json")
THRESHOLD = -0.5
"""Log odds above which a pixel is foreground. The IoU of a small body gains from a low threshold; see the benchmark."""


@dataclass(frozen=True)
class Classifier:
    """A function of cues, (..., C) to (...).

    Attributes:
        hidden: float32 (C, M) and (M,), weights and offsets of M hidden units; None for a weighted sum.
        weights: float32 (M,), or (C,) without hidden units.
        offset: added last.
    """

    hidden: tuple[_Floats, _Floats] | None
    weights: _Floats
    offset: float

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Classifier:
        """From an entry of `weights.json`."""
        hidden = entry.get("hidden")
        return cls(
            None if hidden is None else (np.array(hidden, np.float32).T, np.array(entry["hidden_offsets"], np.float32)),
            np.array(entry["weights"], np.float32),
            float(entry["offset"]),
        )

    def __call__(self, cues: _Floats) -> _Floats:
        """Log odds of foreground, float32 (N, h, w), of cues (N, h, w, C)."""
        return np.stack([self._of_frame(frame) for frame in cues])  # frame by frame: the hidden units need memory

    def _of_frame(self, cues: _Floats) -> _Floats:
        if self.hidden is not None:
            cues = np.tanh(cues @ self.hidden[0] + self.hidden[1])
        return np.asarray(cues @ self.weights + np.float32(self.offset), np.float32)


@cache
def fitted() -> dict[str, Classifier]:
    """The fitted classifiers: "first", "second", and "person", the second round with a segmentation network."""
    entries = json.loads(WEIGHTS.read_text())
    classifiers = {name: Classifier.from_json(entries[name]) for name in ("first", "second", "person")}
    for name, cues in (("first", FIRST), ("second", SECOND), ("person", SECOND + PERSON)):
        assert tuple(entries[name]["cues"]) == cues, f"weights.json: {name} was fitted to other cues"
    return classifiers


def window_scores(
    window: Window, background: NDArray[np.uint8] | None = None, person: _Floats | None = None
) -> _Floats:
    """Log odds of foreground for every pixel of a window, float32 (N, h, w).

    Args:
        window: the frames.
        background: uint8 (h, w, 3), of a static camera; None if there is none.
        person: float32 (N, h, w) in [0, 1], share of foreground by a segmentation network; None without one.
    """
    classifiers = fitted()
    first = first_cues(window, background)
    scores = classifiers["first"](first)
    name = "second" if person is None else "person"
    return classifiers[name](second_cues(window, first, scores, person))
