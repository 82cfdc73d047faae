"""Held-out folds: which samples are tested, and which are learnt from; by split, by group or by sample.

Letters: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bgaug.metrics.checks import Array, Bools, Ints

_MAX_FOLDS = 20
"""With more groups, several share a fold, because a classifier is trained for each fold."""

_TEST_SPLITS = ("test", "val")  # the first that has samples is tested against "train"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Which samples are tested, and which are learnt from.

    Attributes:
        kind: "split" (one part against another), "group" (each against the others) or "video" (each sample likewise).
        test: int64, indices of the samples that are tested, ascending.
        train: int64, indices of the samples that are learnt from; equal to `test` except for "split".
        groups: int64 (N,), group of each sample; a sample without a known group is a group of its own.
        test_split: name of the split that is tested, "" if there is none.
    """

    kind: Literal["split", "group", "video"]
    test: Ints
    train: Ints
    groups: Ints
    test_split: str = ""

    def __str__(self) -> str:
        if self.kind == "split":
            return f"{self.test_split} split against train split"
        return f"each {self.kind} against the others"

    @property
    def taking_part(self) -> Ints:
        """Samples that are tested or learnt from, ascending."""
        return np.union1d(self.test, self.train)

    @property
    def barred(self) -> Ints | None:
        """Group of each sample, if samples of one group must not be compared; None between splits."""
        return None if self.kind == "split" else self.groups

    def folds(self, labels: Array, most: int = _MAX_FOLDS) -> Iterator[tuple[Ints, Ints]]:
        """(indices to learn from, indices to test) of each fold: one fold between splits, else at most `most`.

        Every sample of `test` is tested once, by a fold that does not learn from its group. See `deal`.

        Args:
            labels: int (N,).
            most: largest number of folds, 2 or more; not used between splits.

        Raises:
            ValueError: fewer than two folds were requested.
        """
        if self.kind == "split":
            yield self.train, self.test
            return
        fold = deal(self.groups[self.test], np.asarray(labels)[self.test], most)
        for number in range(int(fold.max()) + 1):
            yield self.test[fold != number], self.test[fold == number]

    def unseen(self, labels: Array) -> Ints:
        """Test samples whose class does not occur in training; they always count as wrong.

        Args:
            labels: int (N,).
        """
        labels = np.asarray(labels)
        if self.kind == "split":
            return self.test[~np.isin(labels[self.test], labels[self.train])]
        pairs = np.unique(np.stack([labels[self.test], self.groups[self.test]]), axis=1)
        classes, counts = np.unique(pairs[0], return_counts=True)
        return self.test[np.isin(labels[self.test], classes[counts == 1])]


def deal(groups: Array, labels: Array, most: int) -> Ints:
    """Deal whole groups to folds so that each class is spread over the folds as far as possible. Nothing is random.

    Args:
        groups: (N,).
        labels: int (N,); groups are dealt in the order of their lowest label, then of their names.
        most: largest number of folds, 2 or more; there are never more folds than groups.

    Returns:
        int64 (N,), fold of each sample, 0 or more.

    Raises:
        ValueError: fewer than two folds.
    """
    if most < 2:
        raise ValueError(f"two folds or more are needed, got {most}")
    numbers = np.unique(groups, return_inverse=True)[1]
    lowest = np.full(int(numbers.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, numbers, np.asarray(labels, np.int64))
    place = np.empty(len(lowest), np.int64)
    place[np.argsort(lowest, kind="stable")] = np.arange(len(lowest))
    fold: Ints = place[numbers] % most
    return fold


def group_folds(groups: Ints, most: int) -> Ints:
    """Folds that can be left out one at a time: the groups if all are known, else `most` folds of single samples.

    Args:
        groups: int64 (N,), group of each sample, negative where unknown.
        most: number of folds of single samples.

    Returns:
        int64 (N,), 0 or more.
    """
    known = bool((groups >= 0).all()) and len(np.unique(groups)) > 1
    return groups if known else np.arange(len(groups)) % most


def named_folds(learnt: Sequence[str], tested: Sequence[str], most: int = _MAX_FOLDS) -> Iterator[tuple[Bools, Bools]]:
    """Masks of the samples to learn from and to test, for each fold; groups are dealt to folds in order of names.

    Args:
        learnt: group of each sample that may be learnt from.
        tested: group of each sample that is tested.
        most: folds; several groups share a fold where there are more groups.
    """
    fold_of = {name: number % most for number, name in enumerate(sorted({*learnt, *tested}))}
    train, test = (np.array([fold_of[name] for name in names]) for names in (learnt, tested))
    for fold in np.unique(test).tolist():
        yield train != fold, test == fold


def hold_out(groups: Sequence[str | None], splits: Sequence[str | None]) -> HeldOut:
    """Choose how samples are held out: by split if there is a test split, else by group, else by sample.

    Args:
        groups: group of each sample; a sample with None is a group of its own.
        splits: split of each sample; "test" (else "val") is tested against "train", other samples are left out.

    Raises:
        ValueError: lengths differ, or there are fewer than two samples.
    """
    if len(groups) != len(splits) or len(groups) < 2:
        raise ValueError(f"two samples or more, each with group and split, got {len(groups)} and {len(splits)}")
    named = [f"group {name}" if name is not None else f"sample {place}" for place, name in enumerate(groups)]
    numbers: Ints = np.unique(named, return_inverse=True)[1]
    of = {name: np.flatnonzero([split == name for split in splits]) for name in ("train", *_TEST_SPLITS)}
    for name in _TEST_SPLITS:
        if len(of["train"]) and len(of[name]):
            return HeldOut("split", of[name], of["train"], numbers, name)
    everyone = np.arange(len(groups))
    if any(name is not None for name in groups) and numbers.max() > 0:
        return HeldOut("group", everyone, everyone, numbers)
    return HeldOut("video", everyone, everyone, everyone)
