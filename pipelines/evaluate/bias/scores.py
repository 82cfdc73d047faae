"""Scores of composites by linear probes on plain clips, and the metrics of these scores.

Letters: V test videos, R composites, N training videos, K classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.data.clips import evaluated_shot
from bgaug.errors import UsageError
from bgaug.metrics import LinearProbe, bootstrap_interval
from bgaug.metrics.bias import class_scores, drift, fooled_most, probabilities
from bgaug.metrics.held_out import named_folds
from bgaug.pairs import composite
from bgaug.pipelines.evaluate.bias.composer import (
    OF_ROW,
    OF_VIDEO,
    ClipReader,
    Composer,
    by_video,
    has_splits,
    video_group,
)
from bgaug.pipelines.evaluate.bias.manifest import Manifest, Row
from bgaug.pipelines.evaluate.features import Encoder, encode
from bgaug.progress import Progress
from bgaug.store import Store

Views = dict[str, NDArray[np.float32]]
"""Features by view."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# --- features -----------------------------------------------------------------------------------------------------


def _encoded(encoder: Encoder, clips: Sequence[Tensor], batch_size: int) -> NDArray[np.float32]:
    """Features (N, D) of N clips (1, 3, T, S, S)."""
    return encode(encoder, torch.split(torch.cat(list(clips)), batch_size))


def encode_composites(encoder: Encoder, composer: Composer, batch_size: int, progress: Progress) -> tuple[Views, Views]:
    """Features of the test videos, (V, D) by view, and of the composites, (R, D) by view: means over clips."""
    progress.start("composites", len(composer.manifest.rows))
    videos: dict[str, list[Any]] = {view: [] for view in OF_VIDEO}
    composites: dict[str, list[Any]] = {view: [] for view in OF_ROW}
    for rows in by_video(composer.manifest):
        codes = []
        for start in rows[0].starts:
            base = composer.base(rows[0], start)
            clips = list(composer.of_video(rows[0], base).values())
            for row in rows:
                clips += composer.of_row(row, base).values()
            codes.append(_encoded(encoder, clips, batch_size))
        mean = np.mean(codes, axis=0)
        for view, code in zip(OF_VIDEO, mean, strict=False):
            videos[view].append(code)
        for k in range(len(rows)):
            first = len(OF_VIDEO) + k * len(OF_ROW)
            for view, code in zip(OF_ROW, mean[first : first + len(OF_ROW)], strict=True):
                composites[view].append(code)
        progress.advance(len(rows))
    return _stacked(videos), _stacked(composites)


def _stacked(lists: Mapping[str, list[Any]]) -> Views:
    return {view: np.stack(values) for view, values in lists.items()}


@dataclass(frozen=True, eq=False)
class _TrainSet:
    """Features, labels and groups of the videos that probes are fitted on."""

    features: NDArray[np.float32]  # (N, D)
    labels: Ints  # (N,)
    groups: Sequence[str]  # N
    has_splits: bool


def train_set(
    encoder: Encoder, composer: Composer, plain: NDArray[np.float32], batch_size: int, progress: Progress
) -> _TrainSet:
    """Features of plain clips of the videos that probes may be fitted on; `plain` has those of the test videos."""
    store, reader, rows = composer.store, composer.reader, [part[0] for part in by_video(composer.manifest)]
    columns = store.columns
    requested = columns.label >= 0
    splits = has_splits(store)
    if splits:
        requested &= columns.split == store.names.splits.index("train")
    # Without splits, test videos are learnt from as well, and their plain clips are encoded already.
    known = {} if splits else {row.id: code for row, code in zip(rows, plain, strict=True)}
    shots = {video: evaluated_shot(store, video) for video in np.flatnonzero(requested).tolist()}
    codes = {video: known[name] for video in shots if (name := store.video_id(video)) in known}
    missing = [(video, shot) for video, shot in shots.items() if video not in codes and shot is not None]
    progress.start("training features", len(missing))
    clips = len(rows[0].starts)
    for first in range(0, len(missing), batch_size):
        part = missing[first : first + batch_size]
        plain_clips = [clip for video, shot in part for clip in _plain_clips(reader, video, shot, clips)]
        values = _encoded(encoder, plain_clips, batch_size)
        means = values.reshape(len(part), clips, -1).mean(axis=1)
        codes |= {video: code for (video, _), code in zip(part, means, strict=True)}
        progress.advance(len(part))
    kept = sorted(codes)
    if not kept:
        raise UsageError(f"{store.path} holds no labelled video to fit the probe on")
    groups = [video_group(store, video) for video in kept]
    return _TrainSet(np.stack([codes[video] for video in kept]), columns.label[kept].astype(np.int64), groups, splits)


def _plain_clips(reader: ClipReader, video: int, shot: int, clips: int) -> list[Tensor]:
    starts = reader.starts(video, shot, clips)
    return [reader.clip(video, reader.frames(video, shot, start)) for start in starts]


@dataclass(frozen=True, eq=False)
class Tested:
    """Scores of all clips, with the classes of the composites.

    Attributes:
        rows: the composites, R.
        place: int64 (R,), place of each composite's video among the test videos.
        scores: float64 (V, K) or (R, K) by view; minus infinity for classes without training videos.
        labels: int64 (R,).
        statics: int64 (R,), class of the inserted foreground.
        donors: int64 (R,), class of the donor, -1 if it has none.
        classes: names of the classes, K.
        held_out: which videos are tested, and which the probes are fitted on.
    """

    rows: tuple[Row, ...]
    place: Ints
    scores: Mapping[str, Floats]
    labels: Ints
    statics: Ints
    donors: Ints
    classes: Sequence[str]
    held_out: str

    def of_rows(self, view: str) -> Floats:
        """Scores (R, K); those of a video are repeated for each of its composites."""
        return self.scores[view][self.place] if view in OF_VIDEO else self.scores[view]

    def predicted(self, view: str) -> Ints:
        """Predicted class of each composite, int64 (R,)."""
        found: Ints = self.of_rows(view).argmax(axis=1)
        return found

    def hit(self, view: str) -> NDArray[np.bool_]:
        """Whether each composite is classified as its action, bool (R,)."""
        right: NDArray[np.bool_] = self.predicted(view) == self.labels
        return right

    @property
    def groups(self) -> NDArray[np.str_]:
        """Group of each composite's video."""
        return np.array([row.group for row in self.rows])


def classify(train: _TrainSet, store: Store, manifest: Manifest, of_video: Views, of_row: Views) -> Tested:
    """Scores of all clips by probes that were fitted without their groups; see `encode_composites` for the features.

    Raises:
        UsageError: all videos are of one group.
    """
    classes, rows = list(store.header.classes), manifest.rows
    of_class = {name: number for number, name in enumerate(classes)}
    sizes = [len(part) for part in by_video(manifest)]
    groups = np.array([row.group for row in rows])
    first = np.cumsum([0, *sizes[:-1]])
    scores = {view: np.full((len(values), len(classes)), -np.inf) for view, values in {**of_video, **of_row}.items()}
    everything = [(np.ones(len(train.labels), np.bool_), np.ones(len(rows), np.bool_))]
    for learns, held_out in everything if train.has_splits else named_folds(train.groups, groups.tolist()):
        if not learns.any():
            raise UsageError("no video is left to fit the probe on: all videos are of one group")
        probe = LinearProbe().fit(train.features[learns], train.labels[learns])
        # Scores of classes that a probe has not learnt stay minus infinity.
        columns = np.unique(train.labels[learns])
        for view, values in {**of_video, **of_row}.items():
            tested = np.flatnonzero(held_out[first] if view in OF_VIDEO else held_out)
            scores[view][np.ix_(tested, columns)] = probe.scores(values[tested])
    return Tested(
        rows=rows,
        place=np.repeat(np.arange(len(sizes)), sizes),
        scores=scores,
        labels=np.array([of_class[row.label] for row in rows]),
        statics=np.array([of_class[row.inserted.label] for row in rows]),
        donors=np.array([of_class.get(row.donor.label or "", -1) for row in rows]),
        classes=classes,
        held_out="test split against train split" if train.has_splits else "each group against the others",
    )


# --- numbers ------------------------------------------------------------------------------------------------------


def metrics(tested: Tested, of_video: Views, of_row: Views) -> dict[str, float]:
    """Shares by name; every video has the same number of composites, and counts once for each of them."""
    labels = tested.labels
    found = {"chance": 1 / len(np.unique(labels))}
    hits = {name: tested.hit(name) for name in (*OF_VIDEO, *OF_ROW)}
    for name in (*OF_VIDEO, "scuba", "scufo", "far", "ring"):
        found |= _with_interval(name, hits[name], tested.groups)
    found |= _with_interval("contrasted", hits["scuba"] & ~hits["scufo"], tested.groups)
    found |= _conflict_shares(tested)
    if (tested.donors >= 0).all():
        found["swap_action"] = found["scuba"]
        found |= _with_interval("swap_background", tested.predicted("scuba") == tested.donors, tested.groups)
    plain = of_video["plain"][tested.place]
    found |= {f"{name}_drift": float(drift(plain, of_row[name]).mean()) for name in ("scuba", "far", "ring")}
    return found


def _with_interval(name: str, hits: NDArray[np.bool_], groups: NDArray[np.str_]) -> dict[str, float]:
    low, high = bootstrap_interval(hits, groups)
    return {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}


def _conflict_shares(tested: Tested) -> dict[str, float]:
    """Shares of predictions for clips in which one action moves and another does not move."""
    predicted, scores, columns = (
        tested.predicted("conflict"),
        tested.of_rows("conflict"),
        np.arange(len(tested.classes)),
    )
    dynamic, static = (class_scores(scores, columns, labels) for labels in (tested.labels, tested.statics))
    return {
        "conflict_dynamic": float((predicted == tested.labels).mean()),
        "conflict_static": float((predicted == tested.statics).mean()),
        "conflict_ordered": float((dynamic > static).mean()),
    }


def class_table(tested: Tested) -> list[dict[str, Any]]:
    """One row per class; see `bgaug.pipelines.evaluate.bias.run.BiasReport`."""
    columns = np.arange(len(tested.classes))
    sure = {view: probabilities(tested.of_rows(view), columns, tested.labels) for view in ("plain", "scuba")}
    lost = sure["plain"] - sure["scuba"]
    hits = {view: tested.hit(view) for view in ("plain", "scuba", "scufo", "background_only")}
    to_background = tested.predicted("scuba") == tested.donors
    table = []
    for label in np.unique(tested.labels).tolist():
        of = np.flatnonzero(tested.labels == label)
        shares = {view: round(100 * float(hit[of].mean()), 2) for view, hit in hits.items() if view != "scufo"}
        donors = {tested.rows[row].donor.id: tested.rows[row].donor for row in of.tolist()}
        worst, sum_lost = fooled_most(lost[of], [tested.rows[row].donor.id for row in of.tolist()])
        table.append(
            {
                "class": tested.classes[label],
                "videos": len(np.unique(tested.place[of])),
                **shares,
                "contrasted": round(100 * float((hits["scuba"] & ~hits["scufo"])[of].mean()), 2),
                "drop": round(shares["plain"] - shares["scuba"], 2),
                "to_background": round(100 * float(to_background[of].mean()), 2),
                "fooled_by": worst,
                "fooled_by_class": donors[worst].label,
                "lost": round(sum_lost, 3),
            }
        )
    return table


def scene_probe(encoder: Encoder, composer: Composer, batch_size: int, progress: Progress) -> dict[str, float]:
    """Accuracy of a probe that predicts the image behind a foreground of the other half; empty if none was planned."""
    scene = composer.manifest.scene
    if scene is None:
        return {}
    first_rows = {rows[0].id: rows[0] for rows in by_video(composer.manifest)}
    progress.start("scene probe", len(scene.halves))
    features, images, halves = [], [], []
    for name, half in scene.halves.items():
        row = first_rows[name]
        base = composer.base(row, row.starts[0])
        shown = [place for place, donor in enumerate(scene.donors) if donor.id != name]
        clips = [
            composite(base.clip, base.parts.foreground, composer.donor_image(scene.donors[place])) for place in shown
        ]
        features.append(_encoded(encoder, clips, batch_size))
        images += shown
        halves += [half] * len(shown)
        progress.advance()
    values, labels, half_of = np.concatenate(features), np.array(images), np.array(halves)
    right = [
        LinearProbe().fit(values[half_of != half], labels[half_of != half]).predict(values[half_of == half])
        == labels[half_of == half]
        for half in (0, 1)
    ]
    return {"scene_probe": float(np.concatenate(right).mean()), "scene_chance": 1 / len(scene.donors)}
