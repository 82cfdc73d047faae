"""Maps of a clip, the linear probes behind class maps, the numbers of a map, and their means over clips.

Letters: N videos, K classes, D features, T frames of a clip, H, W pixels of a frame, T', H', W' cells of a stage,
S side of the centre crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.errors import UsageError
from bgaug.metrics import LinearProbe, bootstrap_interval
from bgaug.metrics.heatmap import (
    activation_map,
    centre_crop_masks,
    grad_cam,
    hires_cam,
    localisation,
    stretch,
    upsample,
)
from bgaug.metrics.held_out import group_folds
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import Run
from bgaug.model.encoder import codes_of
from bgaug.pairs import centre_crop
from bgaug.pipelines.evaluate.features import feature_of, frozen_features
from bgaug.pipelines.heatmap.clips import Clip, ClipMasks
from bgaug.progress import Progress
from bgaug.store import Store

NUMBERS = ("energy", "energy_ratio", "pointing", "ring", "ring_ratio", "far", "far_ratio", "iou")

_PROBE_CLIPS = 5  # clips of each video whose features are averaged for the probe
_FOLDS = 10

Ints = NDArray[np.int64]
_ByRun = dict[str, dict[str, dict[str, Any]]]
"""By map, run and number."""


# --- probes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClipProbe:
    """Linear probes on one code of an encoder; a video is explained by a probe that was not fitted on its fold.

    Attributes:
        feature: the code that the probes read, "global" or "dynamic"; a class map has to explain the same code.
        classes: names of all classes, by label.
        ids: ids of the labelled videos, N.
        values: float32 (N, D), the code of each video.
        labels: int64 (N,).
        fold: int64 (N,), fold of each video; -1 for all if the videos shown are of another store or split.
        train: bool (N,), videos that any probe may be fitted on.
    """

    feature: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    values: NDArray[np.float32]
    labels: Ints
    fold: Ints
    train: NDArray[np.bool_]
    _fitted: dict[int, tuple[LinearProbe, Ints]] = field(default_factory=dict)

    def weight(
        self, video_id: str, code: NDArray[np.float32], target: str | int | None
    ) -> tuple[NDArray[np.float64], int]:
        """Weights of a class on a clip's code, float64 (D,), and the label of the class.

        Args:
            video_id: video of the clip; the probe was fitted without its fold.
            code: float32 (1, D), the code that `feature` names.
            target: name or label of the class. None, or a class without training videos, stands for the predicted
                class.

        Raises:
            UsageError: there is no such class, or the training videos have fewer than two classes.
        """
        if isinstance(target, str) and target not in self.classes:
            raise UsageError(f"no class {target!r}; there are {', '.join(self.classes)}")
        label = self.classes.index(target) if isinstance(target, str) else target
        probe, labels = self._probe(video_id)
        column = int(probe.scores(code)[0].argmax())
        if label is not None and label in labels:
            column = int(np.searchsorted(labels, label))
        return probe.weight[:, column], int(labels[column])

    def _probe(self, video_id: str) -> tuple[LinearProbe, Ints]:
        fold = int(self.fold[self.ids.index(video_id)]) if video_id in self.ids else -1
        if fold not in self._fitted:
            train = self.train & ((self.fold != fold) if fold >= 0 else True)
            labels = self.labels[train]
            if len(np.unique(labels)) < 2:
                raise UsageError(
                    f"a probe needs training videos of two classes; the {int(train.sum())} labelled videos that it may "
                    f"be fitted on have {len(np.unique(labels))}"
                )
            self._fitted[fold] = LinearProbe().fit(self.values[train], labels), np.unique(labels)
        return self._fitted[fold]


def fit_probes(run: Run, store: Store, progress: Progress, *, hold_out: bool, feature: str | None = None) -> ClipProbe:
    """Probes on the labelled videos of a store.

    With `hold_out`, videos of this store are shown: the probe is then fitted on the train split if there are a train
    and a test split, else without the group of the video if groups are known, else without a tenth of the videos.

    Raises:
        UsageError: the store has no labelled videos.
    """
    feature = feature_of(run, feature)
    c, names = store.columns, store.names.splits
    videos = np.flatnonzero(c.label >= 0)
    if not len(videos):
        raise UsageError(f"{store.path} has no labelled videos to fit a probe on; see `bgaug build-shards --labels`")
    found = frozen_features(run, store, videos, progress, clips=_PROBE_CLIPS, cache=False)
    fold, train = np.full(len(videos), -1), np.ones(len(videos), np.bool_)
    if "train" in names and ("test" in names or not hold_out):
        train = c.split[videos] == names.index("train")
    elif hold_out:
        fold = group_folds(c.group[videos].astype(np.int64), _FOLDS)
    ids = tuple(store.video_id(video) for video in videos.tolist())
    labels = c.label[videos].astype(np.int64)
    return ClipProbe(feature, store.header.classes, ids, found.of(feature), labels, fold, train)


# --- maps ---------------------------------------------------------------------------------------------------------


def encoder_maps(
    run: Run, clip: Clip, maps: Sequence[str], stage: str | None, probe: ClipProbe | None, target: str | int | None
) -> tuple[dict[str, Tensor], int | None]:
    """Maps of one clip, on the CPU, 0 or more, and the label of the class that "cam" explains.

    Args:
        run: the encoder.
        clip: the clip.
        maps: names in `MAPS`.
        stage: see `HeatmapOptions`.
        probe: the probe of "cam"; the map explains the code that this probe was fitted on.
        target: class of "cam"; None for the class that the probe predicts.

    Returns:
        By map, float32 (1, T', H', W'); the saliency has no time, (1, H', W').

    Raises:
        UsageError: there is no such stage.
    """
    crop = centre_crop(clip.frames.to(run.device), clip.box.to(run.device), run.config["crop"])
    # Only the clip needs a gradient; the weights keep none.
    with torch.set_grad_enabled("cam" in maps):
        stages: dict[str, Tensor] = run.learner.encoder.backbone(crop.requires_grad_("cam" in maps))
    names = list(stages)
    if stage is not None and stage not in stages:
        raise UsageError(f"{run.path} has no stage {stage!r}; it has {', '.join(names)}")
    found: dict[str, Tensor] = {}
    label = None
    if "cam" in maps:
        assert probe is not None
        with torch.enable_grad():
            code = class_code(run.learner, stages, probe.feature)
            weight, label = probe.weight(clip.id, code.detach().cpu().numpy(), target)
            score = code @ torch.from_numpy(weight).to(code)
            found["cam"] = class_map(run.learner, stages, stage or names[1], probe.feature, score).cpu()
    with torch.no_grad():
        if "activation" in maps:
            found["activation"] = activation_map(stages[stage or names[-1]].detach()).cpu()
        if "saliency" in maps:
            still = {name: value.detach() for name, value in stages.items()}
            found["saliency"] = run.learner.encoder.decomposition(still).saliency.float().cpu()
    return {name: found[name] for name in maps}, label


def class_code(learner: ContrastiveLearner, stages: Mapping[str, Tensor], feature: str) -> Tensor:
    """The code that a probe reads and a class map explains, float32 (B, D), with gradient to the stages.

    It equals `ContrastiveLearner.features`. The learner is in evaluation mode; `stages` are those of its backbone, in
    order.
    """
    return codes_of(dict(stages), learner.encoder.decomposition).feature(feature)


def class_map(
    learner: ContrastiveLearner, stages: Mapping[str, Tensor], at: str, feature: str, score: Tensor
) -> Tensor:
    """Evidence for a score of a code in one stage: Grad-CAM for the global code, HiResCAM for the dynamic code.

    The learner is in evaluation mode; `stages` are those of its backbone, with gradient. `score`, (B,), was computed
    from the code named `feature`, such as the logit of each clip's class; `at` names the stage. Returns float32, 0 or
    more, (B, T', H', W').
    """
    if feature == "global":
        return grad_cam(stages[at], score)
    return hires_cam(stages[at], score, about_mean=learner.encoder.decomposition.reads_deviation(stages))


def pixel_map(name: str, heat: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map (1, T', H', W') or (1, H', W') at `size` pixels, float32 (1, *size) in [0, 1]: what is drawn and scored.

    The zero of "cam" has a meaning, no evidence, and stays 0; other maps are stretched, see
    `bgaug.metrics.heatmap.stretch`.
    """
    whole = upsample(heat, size)
    if name != "cam":
        return stretch(whole)
    return whole / whole.max().clamp(min=torch.finfo(whole.dtype).tiny)


# --- numbers ------------------------------------------------------------------------------------------------------


def score_map(name: str, heat: Tensor, masks: ClipMasks, box: Tensor, size: int) -> dict[str, float]:
    """`NUMBERS` of one clip's map, of `size` pixels, against the frames that have masks; nan where undefined.

    A map with time, (1, T', H', W'), is compared with the mask of each frame; one without, (1, H', W'), with the union
    of all masks.
    """
    if not masks.there.any():
        return dict.fromkeys(NUMBERS, float("nan"))
    there = torch.from_numpy(masks.there)
    mask, unknown = (
        centre_crop_masks(torch.from_numpy(values)[None], size, box)[:, there]
        for values in (masks.foreground, masks.unknown)
    )
    known = ~unknown
    if heat.ndim == 3:
        mask, known = mask.any(dim=1), known.all(dim=1) | mask.any(dim=1)
        heat = pixel_map(name, heat, (size, size))
    else:
        heat = pixel_map(name, heat, (len(masks.there), size, size))[:, there]
    numbers = localisation(heat, mask, max(1, round(size / 16)), known=known)
    return {name: float(numbers[name]) for name in NUMBERS}


def means_and_differences(
    clips: Sequence[Mapping[str, Mapping[str, Mapping[str, float | None]]]],
    groups: Ints,
    maps: Sequence[str],
    titles: Sequence[str],
) -> tuple[_ByRun, _ByRun]:
    """Means over clips, and for each run except the first the mean difference to the first run.

    `clips` has the numbers of each clip by map, run and number, None where undefined.
    """

    def values(name: str, title: str, number: str) -> NDArray[np.float64]:
        """Values of all clips, nan where any run has none, so that a difference of means is the mean difference."""
        found = np.array([[clip[name][t][number] for clip in clips] for t in titles], np.float64)
        return np.where(np.isfinite(found).all(axis=0), found[titles.index(title)], np.nan)

    means = {name: {t: {n: averaged(values(name, t, n), groups) for n in NUMBERS} for t in titles} for name in maps}
    differences = {
        name: {
            t: {n: averaged(values(name, t, n) - values(name, titles[0], n), groups) for n in NUMBERS}
            for t in titles[1:]
        }
        for name in maps
    }
    return means, differences


def averaged(values: NDArray[np.float64], groups: Ints) -> dict[str, float | int | None]:
    """Mean over the clips with a value, not nan, with a 95 % interval over groups; None if no clip has a value."""
    there = np.isfinite(values)
    if not there.any():
        return {"mean": None, "low": None, "high": None, "clips": 0}
    values, groups = values[there], groups[there]
    low, high = bootstrap_interval(values, groups) if len(np.unique(groups)) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high, "clips": int(there.sum())}
