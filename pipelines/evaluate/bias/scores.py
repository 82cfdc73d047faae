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
from bgaug.metrics.bias import PUBLISHED, class_scores, drift, fooled_most, probabilities
from bgaug.metrics.held_out import named_folds
from bgaug.pairs import composite
from bgaug.pipelines.evaluate.bias.composer import (
    CONTROLS,
    OF_ROW,
    OF_VIDEO,
    ClipReader,
    Composer,
    by_video,
    has_splits,
    video_group,
)
from bgaug.pipelines.evaluate.bias.manifest import Manifest, Row
from bgaug.pipelines.evaluate.bias.readout import OwnHead
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


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of the clips of a manifest, means over the clips of a video.

    Attributes:
        of_video: (V, D) by view of `OF_VIDEO`; where a video lacks a view, the plain clip is in its place.
        of_row: (R, D) by view of `OF_ROW`.
        looks: (V, 3), the rows of `_look` of the plain clips.
    """

    of_video: Views
    of_row: Views
    looks: Floats


def encode_composites(encoder: Encoder, composer: Composer, batch_size: int, progress: Progress) -> Encoded:
    """Features of the test videos and of the composites."""
    progress.start("composites", len(composer.manifest.rows))
    videos: dict[str, list[Any]] = {view: [] for view in OF_VIDEO}
    composites: dict[str, list[Any]] = {view: [] for view in OF_ROW}
    looks = []
    for rows in by_video(composer.manifest):
        codes, look = [], []
        for start in rows[0].starts:
            base = composer.base(rows[0], start)
            of_video = composer.of_video(rows[0], base)
            clips = list(of_video.values())
            for row in rows:
                clips += composer.of_row(row, base).values()
            codes.append(_encoded(encoder, clips, batch_size))
            look.append(_look(base.clip, base.area))
        mean = np.mean(codes, axis=0)
        known = dict(zip(of_video, mean, strict=False))
        for view in OF_VIDEO:
            videos[view].append(known.get(view, known["plain"]))
        for k in range(len(rows)):
            first = len(of_video) + k * len(OF_ROW)
            for view, code in zip(OF_ROW, mean[first : first + len(OF_ROW)], strict=True):
                composites[view].append(code)
        looks.append(np.mean(look, axis=0))
        progress.advance(len(rows))
    return Encoded(_stacked(videos), _stacked(composites), np.stack(looks))


def _look(clip: Tensor, area: float) -> tuple[float, float, float]:
    """Mean and deviation of the brightness of a clip (1, 3, T, S, S), and the area of its foreground, all in [0, 1]."""
    brightness = clip.mean(dim=1)
    return float(brightness.mean()), float(brightness.std(correction=0)), area


def _metadata(store: Store, videos: Sequence[int], looks: Floats) -> Floats:
    """Numbers that describe videos without their content, (N, 8); `looks` has the rows of `_look`."""
    c, places = store.columns, np.asarray(videos, np.int64)
    height, width = c.height[places].astype(np.float64), c.width[places].astype(np.float64)
    columns = [c.num_frames[places], c.fps[places], height, width, width / height, *looks.T]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def _stacked(lists: Mapping[str, list[Any]]) -> Views:
    return {view: np.stack(values) for view, values in lists.items()}


@dataclass(frozen=True, eq=False)
class _TrainSet:
    """Features, labels and groups of the videos that probes are fitted on."""

    features: NDArray[np.float32]  # (N, D)
    metadata: Floats  # (N, 8), see `_metadata`
    labels: Ints  # (N,)
    groups: Sequence[str]  # N
    has_splits: bool


def train_set(encoder: Encoder, composer: Composer, tested: Encoded, batch_size: int, progress: Progress) -> _TrainSet:
    """Plain clips of the videos that probes may be fitted on; those of the test videos are encoded already."""
    store, reader, rows = composer.store, composer.reader, [part[0] for part in by_video(composer.manifest)]
    columns = store.columns
    requested = columns.label >= 0
    splits = has_splits(store)
    if splits:
        requested &= columns.split == store.names.splits.index("train")
    # Without splits, test videos are learnt from as well, and their plain clips are encoded already.
    codes: dict[int, NDArray[np.float32]] = {}
    looks: dict[int, Floats] = {}
    if not splits:
        videos = [store.find(row.id) for row in rows]
        codes = dict(zip(videos, tested.of_video["plain"], strict=True))
        looks = dict(zip(videos, tested.looks, strict=True))
    shots = {video: evaluated_shot(store, video) for video in np.flatnonzero(requested).tolist()}
    missing = [(video, shot) for video, shot in shots.items() if video not in codes and shot is not None]
    progress.start("training features", len(missing))
    clips = len(rows[0].starts)
    for first in range(0, len(missing), batch_size):
        part = missing[first : first + batch_size]
        plain = [clip for video, shot in part for clip in _plain_clips(reader, video, shot, clips)]
        values = _encoded(encoder, [clip for clip, _ in plain], batch_size)
        look = np.array([_look(clip, area) for clip, area in plain])
        for place, (video, _) in enumerate(part):
            own = slice(place * clips, (place + 1) * clips)
            codes[video], looks[video] = values[own].mean(axis=0), look[own].mean(axis=0)
        progress.advance(len(part))
    kept = sorted(codes)
    if not kept:
        raise UsageError(f"{store.path} holds no labelled video to fit the probe on")
    groups = [video_group(store, video) for video in kept]
    return _TrainSet(
        np.stack([codes[video] for video in kept]),
        _metadata(store, kept, np.stack([looks[video] for video in kept])),
        columns.label[kept].astype(np.int64),
        groups,
        splits,
    )


def _plain_clips(reader: ClipReader, video: int, shot: int, clips: int) -> list[tuple[Tensor, float]]:
    """The evaluated clips of a shot, with the areas of their masks."""
    frames = [reader.frames(video, shot, start) for start in reader.starts(video, shot, clips)]
    return [(reader.clip(video, part), float(reader.mask(video, part).mean())) for part in frames]


@dataclass(frozen=True, eq=False)
class Tested:
    """Scores of all clips, with the classes of the composites.

    Attributes:
        rows: the composites, R.
        place: int64 (R,), place of each composite's video among the test videos.
        scores: float64 (V, K) or (R, K) by view, and (V, K) of "metadata"; minus infinity for classes without training
            videos.
        has_same_class: bool (R,), whether the video has a "same_class" view.
        labels: int64 (R,).
        statics: int64 (R,), class of the inserted foreground.
        donors: int64 (R,), class of the donor, -1 if it has none.
        classes: names of the classes, K.
        held_out: which videos are tested, and which the probes are fitted on.
    """

    rows: tuple[Row, ...]
    place: Ints
    scores: Mapping[str, Floats]
    has_same_class: NDArray[np.bool_]
    labels: Ints
    statics: Ints
    donors: Ints
    classes: Sequence[str]
    held_out: str

    def of_rows(self, view: str) -> Floats:
        """Scores (R, K); those of a video are repeated for each of its composites."""
        return self.scores[view] if view in OF_ROW else self.scores[view][self.place]

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


def classify(
    train: _TrainSet, store: Store, manifest: Manifest, tested: Encoded, head: OwnHead | None = None
) -> Tested:
    """Scores of all clips by probes that were fitted without their groups.

    With a head, its scores; nothing is fitted.

    Raises:
        UsageError: all videos are of one group.
    """
    classes, rows = list(store.header.classes), manifest.rows
    of_class = {name: number for number, name in enumerate(classes)}
    parts = list(by_video(manifest))
    sizes = [len(part) for part in parts]
    groups = np.array([row.group for row in rows])
    first = np.cumsum([0, *sizes[:-1]])
    views = {**tested.of_video, **tested.of_row}
    about = _metadata(store, [store.find(part[0].id) for part in parts], tested.looks)
    scores = {view: np.full((len(values), len(classes)), -np.inf) for view, values in views.items()}
    scores["metadata"] = np.full((len(parts), len(classes)), -np.inf)
    everything = [(np.ones(len(train.labels), np.bool_), np.ones(len(rows), np.bool_))]
    for learns, held_out in everything if train.has_splits else named_folds(train.groups, groups.tolist()):
        if not learns.any():
            raise UsageError("no video is left to fit the probe on: all videos are of one group")
        probe = head or LinearProbe().fit(train.features[learns], train.labels[learns])
        # Scores of classes that a probe has not learnt stay minus infinity.
        learnt = np.unique(train.labels[learns])
        columns = learnt if head is None else head.columns
        for view, values in views.items():
            places = np.flatnonzero(held_out if view in OF_ROW else held_out[first])
            scores[view][np.ix_(places, columns)] = probe.scores(values[places])
        places = np.flatnonzero(held_out[first])
        of_metadata = LinearProbe().fit(train.metadata[learns], train.labels[learns])
        scores["metadata"][np.ix_(places, learnt)] = of_metadata.scores(about[places])
    return Tested(
        rows=rows,
        place=np.repeat(np.arange(len(sizes)), sizes),
        scores=scores,
        has_same_class=np.array([row.id in manifest.same_class for row in rows]),
        labels=np.array([of_class[row.label] for row in rows]),
        statics=np.array([of_class[row.inserted.label] for row in rows]),
        donors=np.array([of_class.get(row.donor.label or "", -1) for row in rows]),
        classes=classes,
        held_out="test split against train split" if train.has_splits else "each group against the others",
    )


# --- numbers ------------------------------------------------------------------------------------------------------


def metrics(tested: Tested, encoded: Encoded) -> dict[str, float]:
    """Shares by name; every video has the same number of composites, and counts once for each of them.

    Each has an interval, by the bootstrap over groups: `NAME_low` and `NAME_high`.
    """
    values = _values(tested, encoded)
    found: dict[str, float] = {}
    for name in [*PUBLISHED, *CONTROLS, *values]:
        own = PUBLISHED.get(name, name)
        if own in values and name not in found:
            found |= with_interval(name, *values[own])
    return found | {"chance": 1 / len(np.unique(tested.labels))}


def _values(tested: Tested, encoded: Encoded) -> dict[str, tuple[NDArray[Any], NDArray[np.str_]]]:
    """Values of the measures by our names, in the order of the report, with the group of each value."""
    groups, everything = tested.groups, np.ones(len(tested.rows), np.bool_)
    shares: dict[str, NDArray[Any]] = {view: tested.hit(view) for view in (*OF_VIDEO, *OF_ROW) if view != "conflict"}
    # The hole has the shape of the foreground that is inserted in the conflict view.
    shares["hole_shape"] = tested.predicted("hole") == tested.statics
    shares["metadata"] = tested.hit("metadata")
    shares["contrasted"] = shares["scuba"] & ~shares["scufo"]
    shares |= _conflict_values(tested)
    if (tested.donors >= 0).all():
        shares["swap_action"] = shares["scuba"]
        shares["swap_background"] = tested.predicted("scuba") == tested.donors
    plain = encoded.of_video["plain"][tested.place]
    for view in ("scuba", "far", "ring"):
        shares[f"{view}_drift"] = drift(plain, encoded.of_row[view])
    kept = {name: tested.has_same_class if name == "same_class" else everything for name in shares}
    return {name: (values[kept[name]], groups[kept[name]]) for name, values in shares.items() if kept[name].any()}


def with_interval(name: str, values: NDArray[Any], groups: NDArray[np.str_]) -> dict[str, float]:
    """The mean of some values (N,) and its interval by the bootstrap over their groups."""
    low, high = bootstrap_interval(values, groups)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def _conflict_values(tested: Tested) -> dict[str, NDArray[np.bool_]]:
    """Predictions for clips in which one action moves and another does not move, bool (R,) each."""
    predicted, scores, columns = (
        tested.predicted("conflict"),
        tested.of_rows("conflict"),
        np.arange(len(tested.classes)),
    )
    dynamic, static = (class_scores(scores, columns, labels) for labels in (tested.labels, tested.statics))
    return {
        "conflict_dynamic": predicted == tested.labels,
        "conflict_static": predicted == tested.statics,
        "conflict_ordered": dynamic > static,
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
    features, images, halves, groups = [], [], [], []
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
        groups += [row.group] * len(shown)
        progress.advance()
    values, labels, half_of = np.concatenate(features), np.array(images), np.array(halves)
    right = np.zeros(len(labels), np.bool_)
    for half in (0, 1):
        tested = half_of == half
        probe = LinearProbe().fit(values[~tested], labels[~tested])
        right[tested] = probe.predict(values[tested]) == labels[tested]
    return with_interval("scene_probe", right, np.array(groups)) | {"scene_chance": 1 / len(scene.donors)}
