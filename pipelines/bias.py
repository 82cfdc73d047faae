"""`bgaug evaluate --protocol bias`: what a run's features are worth when the background says something else.

Composites of a store's own foregrounds and masks over foreign pictures, chosen by a manifest; a linear probe on plain clips
of other videos is the classifier. See `bgaug.bias` for what the tests are.

Letters: B clips, T frames, S side of the crop, V videos, R composites, N items, K classes, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.augment import KINETICS_MEAN
from bgaug.bias import (
    Regions,
    class_scores,
    conflict,
    contrasted,
    drift,
    far_swap,
    fooled_most,
    freeze,
    probabilities,
    regions,
    ring_swap,
)
from bgaug.compose import composite
from bgaug.errors import UsageError
from bgaug.evaluate import LinearProbe, bootstrap_interval
from bgaug.pipelines.bias_clips import ClipReader, digest, read_picture
from bgaug.pipelines.bias_manifest import (
    Choice,
    Donor,
    DonorSource,
    Manifest,
    Row,
    check_manifest,
    has_splits,
    make_manifest,
    read_manifest,
    video_group,
    write_manifest,
)
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.train import load_learner
from bgaug.store import Store, open_store
from bgaug.store.verify import content_hash
from bgaug.visualize import picture_sheet, write_picture

__all__ = [
    "BiasOptions",
    "BiasReport",
    "bias_sheet",
    "evaluate_bias",
    "plan_bias",
    "read_manifest",
    "score_bias",
    "write_manifest",
]

Encode = Callable[[Tensor], Tensor]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OF_VIDEO = ("plain", "static_clip", "background_only", "foreground_only")
OF_ROW = ("scuba", "scufo", "conflict", "far", "ring")
SHEET = ("plain", "scuba", "scufo", "conflict", "far", "ring")
MAX_FOLDS = 20  # more groups than that are held out several at a time


@dataclass(frozen=True)
class BiasOptions:
    """What a bias evaluation is made of; lengths are pixels of a crop of 112 and scale with the crop.

    Attributes:
        composites: of each test video, each over another picture.
        clips: of each video, whose features are averaged.
        seed: of all draws.
        donors: "backgrounds" of other videos, generated "stripes", a "bank" of the store or a "folder" of pictures.
        bank: name of the bank.
        folder: of the pictures.
        min_grade: shots graded worse are neither foregrounds nor donors, A to F; None takes all.
        min_area: test videos whose masks cover less, as a share of the clip, are left out.
        videos: test videos at most, chosen by the seed; all if None.
        scenes: pictures of the scene probe.
        scene_foregrounds: videos that it sees before each.
        grow: dilation of the masks.
        feather: sigma of their seams.
        ring: width of the ring.
        manifest: file with the test to take, in place of a new one; everything above but `folder` is then its business.
        out: folder for manifest.json, report.json and sheet.png; nothing is written if None.
        sheet_rows: composites on the sheet.
        batch_size: clips encoded at once; does not change the result.

    Raises:
        UsageError: a value out of its range.
    """

    composites: int = 3
    clips: int = 1
    seed: int = 0
    donors: DonorSource = "backgrounds"
    bank: str | None = None
    folder: Path | None = None
    min_grade: str | None = "C"
    min_area: float = 0.002
    videos: int | None = None
    scenes: int = 8
    scene_foregrounds: int = 24
    grow: float = 0.0
    feather: float = 1.0
    ring: float = 7.0
    manifest: Path | None = None
    out: Path | None = None
    sheet_rows: int = 8
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("composites", "clips", "scenes", "sheet_rows", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("min_area", "grow", "feather", "ring", "scene_foregrounds"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.videos is not None and self.videos < 1:
            raise UsageError(f"videos must be at least 1, or None for all, got {self.videos}")


@dataclass(frozen=True, eq=False)
class BiasReport:
    """What a bias evaluation found.

    Attributes:
        metrics: percent by name; see docs/bias.md.
        settings: how they were come by.
        classes: a row a class: "class", "videos", "plain", "scuba", "contrasted", "background_only", "drop" (plain less
            scuba), "to_background" (share predicted as the donor's class, where donors have one), and the donor over
            which most was lost: "fooled_by", "fooled_by_class", "lost" (of the right class's probability, summed).
        manifest: the composites.
        names: of the composites, `id__k`, R.
        hits: by view, bool (R,): whether each composite was classified as the action.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    classes: list[dict[str, Any]]
    manifest: Manifest
    names: tuple[str, ...] = ()
    hits: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**self.metrics, "classes": self.classes, "settings": self.settings}


def evaluate_bias(
    run: Path,
    store_path: Path,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    which: str = "g",
    device: str | None = None,
) -> BiasReport:
    """Evaluate a run on composites of a store's labelled videos.

    Args:
        run: folder that `train` made.
        store_path: made by `build_shards`.
        progress: receives what happens.
        options: what the test is made of.
        which: feature: "g" (global, the default), "d" (dynamic), "r" (static) or "dr".
        device: by default CUDA where there is one, else the CPU.

    Raises:
        UsageError: options that contradict each other or the store, too few videos, or a manifest of another store.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read, or has no such bank.
    """
    options = options or BiasOptions()
    learner, config = load_learner(run)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    learner.to(where)
    store = open_store(store_path)
    manifest = plan_bias(store, config["num_frames"], config["stride"], config["crop"], options, progress, device=where)
    for name in ("num_frames", "stride", "crop"):
        if getattr(manifest, name) != config[name]:
            progress.warn(f"the manifest's clips have {name} {getattr(manifest, name)}; the run has {config[name]}")
    report = score_bias(
        lambda clips: learner.features(clips, which), store, manifest, progress, options=options, device=where
    )
    return replace(report, settings={"run": str(run), "feature": which, **report.settings})


def plan_bias(
    store: Store,
    num_frames: int,
    stride: int,
    crop: int,
    options: BiasOptions,
    progress: Progress,
    *,
    device: torch.device | str = "cpu",
) -> Manifest:
    """The manifest that the options name, or a new one.

    Args:
        store: with frames, masks and backgrounds, in a folder.
        num_frames: of a clip, for a new manifest.
        stride: distance of the frames, likewise.
        crop: side of the centre crop, likewise.
        options: what the test is made of.
        progress: receives what happens.
        device: where masks are cropped.

    Raises:
        UsageError: the manifest cannot be read or was made for another store, or too few videos can be used.
        StoreError: the store has no such bank.
    """
    hashed = content_hash(Path(store.path))
    if options.manifest is not None:
        manifest = read_manifest(options.manifest)
        check_manifest(manifest, store, hashed, str(options.manifest))
        return manifest
    scale = crop / 112
    chosen = {name: getattr(options, name) for name in Choice.__dataclass_fields__}
    chosen |= {name: round(getattr(options, name) * scale, 4) for name in ("grow", "feather", "ring")}
    return make_manifest(ClipReader(store, num_frames, stride, crop, device), hashed, Choice(**chosen), progress)


@torch.no_grad()
def score_bias(
    encode: Encode,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    device: torch.device | str = "cpu",
) -> BiasReport:
    """Evaluate any encoder on a manifest's composites.

    The classifier is a linear probe on plain clips: of the "train" split where the store has it and "test"; else each
    group in turn is held out (some at a time above twenty), so the probe never saw the group that it is tested on.

    Args:
        encode: from float32 clips in [0, 1], (B, 3, T, S, S), to features (B, D).
        store: that the manifest was made for.
        manifest: the test.
        progress: receives what happens.
        options: `out`, `folder`, `sheet_rows` and `batch_size` count here.
        device: where clips are composed and encoded.

    Raises:
        UsageError: a picture of a donor is not there or another one now, or no video is left to train the probe on.
    """
    options = options or BiasOptions()
    composer = Composer(store, manifest, options.folder, device)
    encoder = _Encoder(encode, options.batch_size)
    of_video, of_row = _encode_composites(encoder, composer, progress)
    train = _train_set(encoder, composer, of_video["plain"], progress)
    tested = _classify(train, store, manifest, of_video, of_row)
    metrics = _metrics(tested, of_video, of_row)
    metrics |= _scene_probe(encoder, composer, progress)
    metrics = {name: round(100 * value, 4 if name.endswith("drift") else 2) for name, value in metrics.items()}
    hits = {name: tested.hit(name) for name in (*OF_VIDEO, *OF_ROW)}
    names = tuple(row.name for row in manifest.rows)
    report = BiasReport(metrics, _settings(manifest, tested, options), _class_table(tested), manifest, names, hits)
    if options.out is not None:
        _write_report(report, composer, options.out, options.sheet_rows)
    return report


# --- composing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Base:
    """What all composites of one clip share."""

    clip: Tensor  # (1, 3, T, S, S)
    parts: Regions


class Composer:
    """Makes the clips that a manifest describes.

    Args:
        store: that it was made for.
        manifest: the test.
        folder: of the pictures, where donors are such.
        device: where the clips lie.
    """

    def __init__(
        self, store: Store, manifest: Manifest, folder: Path | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.store, self.manifest, self._folder = store, manifest, folder
        self.reader = ClipReader(store, manifest.num_frames, manifest.stride, manifest.crop, device)
        self._banks: dict[str, dict[str, NDArray[np.uint8]]] = {}

    def base(self, row: Row, start: int) -> _Base:
        """A clip of a row's video and its regions."""
        video = self.store.find(row.id)
        frames = self.reader.frames(video, row.shot, start)
        return _Base(self.reader.clip(video, frames), self._regions(self.reader.mask(video, frames)))

    def of_video(self, row: Row, base: _Base) -> dict[str, Tensor]:
        """The clips of `OF_VIDEO`, float32 (1, 3, T, S, S) each; `row` is the first of the video."""
        T = base.clip.shape[2]
        own = self.reader.background(self.store.find(row.id), row.shot)
        grey = torch.tensor(KINETICS_MEAN, device=base.clip.device).view(1, 3, 1, 1, 1).expand_as(own)
        return {
            "plain": base.clip,
            "static_clip": freeze(base.clip, row.still),
            "background_only": own.expand(-1, -1, T, -1, -1),
            "foreground_only": composite(base.clip, base.parts.foreground, grey),
        }

    def of_row(self, row: Row, base: _Base) -> dict[str, Tensor]:
        """The clips of `OF_ROW`, float32 (1, 3, T, S, S) each."""
        picture = self.picture(row.donor)
        scuba = composite(base.clip, base.parts.foreground, picture)
        other, frame = self.store.find(row.inserted.id), np.array([row.inserted.frame], np.int64)
        still, mask = self.reader.clip(other, frame), self._regions(self.reader.mask(other, frame)).foreground
        return {
            "scuba": scuba,
            "scufo": freeze(scuba, row.still),
            "conflict": conflict(base.clip, base.parts, picture, still, mask, row.inserted.shift),
            "far": far_swap(base.clip, base.parts, picture),
            "ring": ring_swap(base.clip, base.parts, picture),
        }

    def picture(self, donor: Donor) -> Tensor:
        """A donor's picture, float32 in [0, 1], (1, 3, 1, S, S).

        Raises:
            UsageError: it is not there, or another one now.
        """
        if donor.kind == "video":
            return self.reader.background(self.store.find(donor.id), donor.shot or 0)
        if donor.stripes is not None:
            return donor.stripes.picture(self.manifest.crop, self.reader.device)[None, :, None]
        image = self._of_bank(donor.id) if donor.kind == "bank" else self._of_folder(donor.id)
        if digest(image) != donor.sha256:
            raise UsageError(f"the {donor.kind} picture {donor.id} is not the one that the manifest was made with")
        return self.reader.picture(image)

    def _of_bank(self, name: str) -> NDArray[np.uint8]:
        bank, _, picture = name.partition("/")
        if bank not in self._banks:
            found = self.store.bank(bank)
            self._banks[bank] = dict(zip(found.names, found.pictures, strict=True))
        if picture not in self._banks[bank]:
            raise UsageError(
                f"the bank {bank!r} of {self.store.path} has no picture {picture!r}, which the manifest names"
            )
        return self._banks[bank][picture]

    def _of_folder(self, name: str) -> NDArray[np.uint8]:
        if self._folder is None:
            raise UsageError("the manifest's donors are pictures of a folder; say which folder")
        return read_picture(self._folder / name)

    def _regions(self, mask: Tensor) -> Regions:
        m = self.manifest
        return regions(mask, grow=m.grow, feather=m.feather, ring=m.ring)


@dataclass(frozen=True)
class _Encoder:
    encode: Encode
    batch_size: int

    def __call__(self, clips: Sequence[Tensor]) -> NDArray[np.float32]:
        """Features (N, D) of N clips (1, 3, T, S, S)."""
        values = [
            self.encode(torch.cat(list(clips[first : first + self.batch_size]))).float().cpu().numpy()
            for first in range(0, len(clips), self.batch_size)
        ]
        return np.concatenate(values)


Features = dict[str, NDArray[np.float32]]


def _by_video(manifest: Manifest) -> Iterator[list[Row]]:
    for _, rows in groupby(manifest.rows, key=lambda row: row.id):
        yield list(rows)


def _encode_composites(encoder: _Encoder, composer: Composer, progress: Progress) -> tuple[Features, Features]:
    """Features of the test videos, (V, D) by view, and of the composites, (R, D) by view: means over clips."""
    progress.start("composites", len(composer.manifest.rows))
    videos: dict[str, list[Any]] = {view: [] for view in OF_VIDEO}
    composites: dict[str, list[Any]] = {view: [] for view in OF_ROW}
    for rows in _by_video(composer.manifest):
        codes = []
        for start in rows[0].starts:
            base = composer.base(rows[0], start)
            clips = list(composer.of_video(rows[0], base).values())
            for row in rows:
                clips += composer.of_row(row, base).values()
            codes.append(encoder(clips))
        mean = np.mean(codes, axis=0)
        for view, code in zip(OF_VIDEO, mean, strict=False):
            videos[view].append(code)
        for k in range(len(rows)):
            first = len(OF_VIDEO) + k * len(OF_ROW)
            for view, code in zip(OF_ROW, mean[first : first + len(OF_ROW)], strict=True):
                composites[view].append(code)
        progress.advance(len(rows))
    return _stacked(videos), _stacked(composites)


def _stacked(lists: Mapping[str, list[Any]]) -> Features:
    return {view: np.stack(values) for view, values in lists.items()}


# --- the classifier -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _TrainSet:
    features: NDArray[np.float32]  # (N, D)
    labels: Ints  # (N,)
    groups: Sequence[str]  # N
    how: str


def _train_set(encoder: _Encoder, composer: Composer, plain: NDArray[np.float32], progress: Progress) -> _TrainSet:
    """Plain clips of the labelled videos that probes may learn from; those of test videos are there already."""
    store, reader, rows = composer.store, composer.reader, [part[0] for part in _by_video(composer.manifest)]
    columns = store.columns
    wanted = columns.label >= 0
    splits = has_splits(store)
    if splits:
        wanted &= columns.split == store.names.splits.index("train")
    known = {} if splits else {row.id: code for row, code in zip(rows, plain, strict=True)}
    videos = np.flatnonzero(wanted).tolist()
    progress.start("training features", len(videos))
    features, kept = [], []
    for video in videos:
        code = known.get(store.video_id(video))
        shot = reader.longest_shot(video, background=False)
        if code is None and shot is not None:
            starts = reader.starts(video, shot, len(rows[0].starts))
            clips = [reader.clip(video, reader.frames(video, shot, start)) for start in starts]
            code = encoder(clips).mean(axis=0)
        if code is not None:
            features.append(code)
            kept.append(video)
        progress.advance()
    if not kept:
        raise UsageError(f"{store.path} holds no labelled video to train the probe on")
    groups = [video_group(store, video) for video in kept]
    how = "test split against train split" if splits else "each group against the others"
    return _TrainSet(np.stack(features), columns.label[kept].astype(np.int64), groups, how)


@dataclass(frozen=True, eq=False)
class _Tested:
    """Scores of everything, and what it is.

    Attributes:
        rows: the composites, R.
        place: int64 (R,), which video each is of.
        scores: by view, float64 (V, K) or (R, K); minus infinity for classes that a probe did not see.
        labels: int64 (R,).
        statics: int64 (R,), class of the inserted foreground.
        donors: int64 (R,), class of the donor, -1 where it has none.
        classes: names, K.
        how: which videos the probe learnt from.
    """

    rows: tuple[Row, ...]
    place: Ints
    scores: Mapping[str, Floats]
    labels: Ints
    statics: Ints
    donors: Ints
    classes: Sequence[str]
    how: str

    def of_rows(self, view: str) -> Floats:
        """Scores (R, K), those of a video repeated for each of its composites."""
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


def _classify(train: _TrainSet, store: Store, manifest: Manifest, of_video: Features, of_row: Features) -> _Tested:
    classes, rows = list(store.header.classes), manifest.rows
    of_class = {name: number for number, name in enumerate(classes)}
    sizes = [len(part) for part in _by_video(manifest)]
    groups = np.array([row.group for row in rows])
    first = np.cumsum([0, *sizes[:-1]])
    scores = {view: np.full((len(values), len(classes)), -np.inf) for view, values in {**of_video, **of_row}.items()}
    for learns, held_out in _folds(train, groups):
        if not learns.any():
            raise UsageError("no video is left to train the probe on: all are of one group")
        probe = LinearProbe().fit(train.features[learns], train.labels[learns])
        columns = np.unique(train.labels[learns])
        for view, values in {**of_video, **of_row}.items():
            tested = np.flatnonzero(held_out[first] if view in OF_VIDEO else held_out)
            scores[view][np.ix_(tested, columns)] = probe.scores(values[tested])
    return _Tested(
        rows=rows,
        place=np.repeat(np.arange(len(sizes)), sizes),
        scores=scores,
        labels=np.array([of_class[row.label] for row in rows]),
        statics=np.array([of_class[row.inserted.label] for row in rows]),
        donors=np.array([of_class.get(row.donor.label or "", -1) for row in rows]),
        classes=classes,
        how=train.how,
    )


def _folds(train: _TrainSet, groups: NDArray[np.str_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """(which of the training videos to learn from, which composites to test) of each fold."""
    if train.how.startswith("test"):
        yield np.ones(len(train.labels), np.bool_), np.ones(len(groups), np.bool_)
        return
    tested_groups = groups.tolist()
    fold_of = {name: number % MAX_FOLDS for number, name in enumerate(sorted({*train.groups, *tested_groups}))}
    learnt, tested = (np.array([fold_of[name] for name in names]) for names in (train.groups, tested_groups))
    for fold in np.unique(tested).tolist():
        yield learnt != fold, tested == fold


# --- numbers ------------------------------------------------------------------------------------------------------


def _metrics(tested: _Tested, of_video: Features, of_row: Features) -> dict[str, float]:
    """Shares by name; those of a video count once for each of its composites, which are as many for all."""
    labels = tested.labels
    found = {"chance": 1 / len(np.unique(labels))}
    hits = {name: tested.hit(name) for name in (*OF_VIDEO, *OF_ROW)}
    for name in (*OF_VIDEO, "scuba", "scufo", "far", "ring"):
        found |= _with_interval(name, hits[name], tested.groups)
    found |= _with_interval("contrasted", hits["scuba"] & ~hits["scufo"], tested.groups)
    assert found["contrasted"] == contrasted(hits["scuba"], hits["scufo"]).contrasted
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


def _conflict_shares(tested: _Tested) -> dict[str, float]:
    """What is said of clips in which one action moves and another stands still."""
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


def _class_table(tested: _Tested) -> list[dict[str, Any]]:
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


def _scene_probe(encoder: _Encoder, composer: Composer, progress: Progress) -> dict[str, float]:
    """How often a probe tells which picture a foreground of another half stands before; nothing where none was planned."""
    scene = composer.manifest.scene
    if scene is None:
        return {}
    first_rows = {rows[0].id: rows[0] for rows in _by_video(composer.manifest)}
    progress.start("scene probe", len(scene.halves))
    features, pictures, halves = [], [], []
    for name, half in scene.halves.items():
        row = first_rows[name]
        base = composer.base(row, row.starts[0])
        shown = [place for place, donor in enumerate(scene.donors) if donor.id != name]
        clips = [composite(base.clip, base.parts.foreground, composer.picture(scene.donors[place])) for place in shown]
        features.append(encoder(clips))
        pictures += shown
        halves += [half] * len(shown)
        progress.advance()
    values, labels, half_of = np.concatenate(features), np.array(pictures), np.array(halves)
    right = [
        LinearProbe().fit(values[half_of != half], labels[half_of != half]).predict(values[half_of == half])
        == labels[half_of == half]
        for half in (0, 1)
    ]
    return {"scene_probe": float(np.concatenate(right).mean()), "scene_chance": 1 / len(scene.donors)}


def _settings(manifest: Manifest, tested: _Tested, options: BiasOptions) -> dict[str, Any]:
    rows = manifest.rows
    return {
        "manifest_sha256": manifest.sha256,
        "manifest": None if options.manifest is None else str(options.manifest),
        "content_hash": manifest.content_hash,
        "seed": manifest.seed,
        "donors": ", ".join(sorted({row.donor.kind for row in rows})),
        "videos": len(np.unique(tested.place)),
        "composites": len(rows),
        "clips": len(rows[0].starts),
        "frames": manifest.num_frames,
        "stride": manifest.stride,
        "crop": manifest.crop,
        "grow": manifest.grow,
        "feather": manifest.feather,
        "ring": manifest.ring,
        "held_out": tested.how,
    }


# --- to look at ---------------------------------------------------------------------------------------------------


def bias_sheet(composer: Composer, *, rows: int = 8, width: int = 160) -> NDArray[np.uint8]:
    """Contact sheet of the first composites of as many videos: `SHEET`, one frame each, uint8 (H, W, 3) RGB.

    Args:
        composer: of a manifest.
        rows: composites shown, spread evenly over the manifest.
        width: of one picture, pixels.
    """
    all_ = composer.manifest.rows
    strips = []
    for place in np.unique(np.linspace(0, len(all_) - 1, rows).round().astype(int)).tolist():
        row = all_[place]
        base = composer.base(row, row.starts[0])
        clips = {"plain": base.clip, **composer.of_row(row, base)}
        # Far from the still frame: the static counterpart then differs from what moves.
        T = composer.manifest.num_frames
        frame = (row.still + T // 2) % T
        pictures = [(clips[view][0, :, frame] * 255).round().byte().permute(1, 2, 0).cpu().numpy() for view in SHEET]
        behind = row.donor.id + (f" ({row.donor.label})" if row.donor.label else "")
        strips.append(
            (pictures, f"{row.name} ({row.label}) over {behind}, beside {row.inserted.id} ({row.inserted.label})")
        )
    return picture_sheet(strips, SHEET, width=width)


def _write_report(report: BiasReport, composer: Composer, out: Path, rows: int) -> None:
    write_manifest(report.manifest, out / "manifest.json")
    write_picture(out / "sheet.png", bias_sheet(composer, rows=rows))
    (out / "report.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
