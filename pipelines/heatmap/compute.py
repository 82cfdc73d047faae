"""Maps of a clip, how much of each is the foreground, and what that comes to over all clips.

Letters: T frames of a clip, H, W pixels of a frame, T', H', W' places of a stage, S side of the centre crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.errors import UsageError
from bgaug.metrics import bootstrap_interval
from bgaug.metrics.heatmap import (
    activation_map,
    centre_crop_masks,
    grad_cam,
    hires_cam,
    localisation,
    stretch,
    upsample,
)
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import Codes
from bgaug.pairs import centre_crop
from bgaug.pipelines.heatmap.clip_masks import ClipMasks
from bgaug.pipelines.heatmap.clip_probe import ClipProbe
from bgaug.pipelines.heatmap.clips import Clip, Run

NUMBERS = ("energy", "energy_ratio", "pointing", "ring", "ring_ratio", "far", "far_ratio", "iou")

ByRun = dict[str, dict[str, dict[str, Any]]]
"""By map, run and number."""


def encoder_maps(
    run: Run, clip: Clip, maps: Sequence[str], stage: str | None, probe: ClipProbe | None, target: str | int | None
) -> tuple[dict[str, Tensor], int | None]:
    """Maps of one clip, on the CPU, 0 or more, and the class that "cam" speaks of.

    Args:
        run: the encoder.
        clip: the clip.
        maps: of `MAPS`.
        stage: see `HeatmapOptions`.
        probe: for "cam", which explains the code that the probe was fitted on, and no other.
        target: the class of "cam"; None for what the probe predicts.

    Returns:
        By map, float32 (1, T', H', W') by frame, or (1, H', W') of "saliency".

    Raises:
        UsageError: no such stage.
    """
    crop = centre_crop(clip.frames.to(run.device), clip.box.to(run.device), run.config["crop"])
    # Gradient of the clip alone: weights keep none.
    with torch.set_grad_enabled("cam" in maps):
        stages: dict[str, Tensor] = run.learner.encoder.backbone(crop.requires_grad_("cam" in maps))
    names = list(stages)
    if stage is not None and stage not in stages:
        raise UsageError(f"{run.title} has no stage {stage!r}; it has {', '.join(names)}")
    found: dict[str, Tensor] = {}
    label = None
    if "cam" in maps:
        assert probe is not None
        at = stage or names[1]
        with torch.enable_grad():
            code = class_code(run.learner, stages, probe.feature)
            weight, label = probe.weight(clip.id, code.detach().cpu().numpy(), target)
            score = code @ torch.from_numpy(weight).to(code)
            found["cam"] = class_map(run.learner, stages, at, probe.feature, score).cpu()
    with torch.no_grad():
        if "activation" in maps:
            found["activation"] = activation_map(stages[stage or names[-1]].detach()).cpu()
        if "saliency" in maps:
            still = {name: value.detach() for name, value in stages.items()}
            found["saliency"] = run.learner.encoder.decomposition(still).saliency.float().cpu()
    return {name: found[name] for name in maps}, label


def class_code(learner: ContrastiveLearner, stages: Mapping[str, Tensor], feature: str) -> Tensor:
    """The code that a probe reads and a class map explains, with gradient to the stages.

    Args:
        learner: in evaluation mode.
        stages: from its backbone, in order, float (B, C, T', H', W').
        feature: "global" or "dynamic".

    Returns:
        float32 (B, D), what `ContrastiveLearner.features` gives.
    """
    codes: Codes = learner.encoder.decomposition(stages)
    return codes.feature(feature)


def class_map(
    learner: ContrastiveLearner, stages: Mapping[str, Tensor], at: str, feature: str, score: Tensor
) -> Tensor:
    """What speaks for a score of a code, in one stage: Grad-CAM of the global code, HiResCAM of the dynamic one.

    Args:
        learner: in evaluation mode.
        stages: from its backbone, in order, float (B, C, T', H', W'), with gradient.
        at: name of the stage.
        feature: what `score` was computed from, see `class_code`.
        score: float (B,), such as the logit of each clip's class.

    Returns:
        float32, 0 or more, (B, T', H', W').
    """
    if feature == "global":
        return grad_cam(stages[at], score)
    return hires_cam(stages[at], score, about_mean=learner.encoder.decomposition.reads_deviation(stages))


def pixel_map(name: str, heat: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map at the size of pixels, in [0, 1]: what is drawn, and what is scored.

    "cam" keeps its zero, which says that nothing speaks for the class; the others are stretched, see
    `bgaug.metrics.heatmap.stretch`.

    Args:
        name: of `MAPS`.
        heat: 0 or more, (1, T', H', W') or (1, H', W').
        size: (T, H, W), or (H, W).

    Returns:
        float32 (1, *size).
    """
    whole = upsample(heat, size)
    if name != "cam":
        return stretch(whole)
    return whole / whole.max().clamp(min=torch.finfo(whole.dtype).tiny)


def score_map(name: str, heat: Tensor, masks: ClipMasks, box: Tensor, size: int) -> dict[str, float]:
    """Numbers of one clip's map against the frames whose masks are known.

    Args:
        name: of `MAPS`.
        heat: 0 or more, (1, T', H', W'), held against the mask of each frame; or (1, H', W'), held against all that is
            foreground in one of them.
        masks: of the clip.
        box: where the picture lies in a frame.
        size: S, pixels that the map is brought to.

    Returns:
        `NUMBERS`, nan where there is no answer.
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
    groups: NDArray[np.int64],
    maps: Sequence[str],
    titles: Sequence[str],
) -> tuple[ByRun, ByRun]:
    """Means over clips, and of each run but the first the means of its numbers less those of the first.

    Args:
        clips: numbers of each clip by map, run and number; None where there is no answer.
        groups: int (clips,), what stands or falls together.
        maps: of `MAPS`.
        titles: of the runs.
    """

    def values(name: str, title: str, number: str) -> NDArray[np.float64]:
        """Of all clips for which every run has an answer, nan for the others: so means differ by the difference."""
        told = np.array([[clip[name][t][number] for clip in clips] for t in titles], np.float64)
        return np.where(np.isfinite(told).all(axis=0), told[titles.index(title)], np.nan)

    means = {name: {t: {n: averaged(values(name, t, n), groups) for n in NUMBERS} for t in titles} for name in maps}
    differences = {
        name: {
            t: {n: averaged(values(name, t, n) - values(name, titles[0], n), groups) for n in NUMBERS}
            for t in titles[1:]
        }
        for name in maps
    }
    return means, differences


def averaged(values: NDArray[np.float64], groups: NDArray[np.int64]) -> dict[str, float | int | None]:
    """Mean over the clips that have an answer, with a 95 % interval over groups; None where there is none.

    Args:
        values: (clips,), nan where there is no answer.
        groups: int (clips,), what stands or falls together.
    """
    there = np.isfinite(values)
    if not there.any():
        return {"mean": None, "low": None, "high": None, "clips": 0}
    values, groups = values[there], groups[there]
    low, high = bootstrap_interval(values, groups) if len(np.unique(groups)) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high, "clips": int(there.sum())}


def finite(value: float) -> float | None:
    """The number, or None for JSON, which has no nan."""
    return value if np.isfinite(value) else None
