"""Scores of an encoder in the synthetic world: accuracies where the background helps, and where it misleads.

A linear probe is trained on frozen features of biased videos and tested on each split; other probes measure how well
scene, prop and motion can be predicted from the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.metrics import LinearProbe, knn_accuracy
from bgaug.metrics.heatmap import centre_crop_masks, localisation, score_heatmaps, stretch, upsample
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import CODES
from bgaug.pairs import centre_crop
from bgaug.pipelines.evaluate import features
from bgaug.pipelines.heatmap.compute import class_code, class_map
from bgaug.testing.synthetic import ACTIONS, KINDS, REFERENCE_SIZE, SyntheticSplit
from bgaug.visualize import HeatmapRow, heatmap_sheet

CROP = 32  # of frames of 40 pixels; scales with them
FRAMES = 8
TESTS = ("iid", "wide", "micro", "swap", "photo", "conflict", "bgonly")
SPLITS_NEEDED = ("probe_train", *TESTS, "unbiased_train", "unbiased_test")


def probe_accuracies(
    learner: ContrastiveLearner,
    splits: Mapping[str, SyntheticSplit],
    tests: Sequence[str] = TESTS,
    which: str = "global",
) -> dict[str, float]:
    """Accuracy in percent of a linear probe on frozen features, by test.

    Args:
        learner: in evaluation mode.
        splits: probe_train and the tests, by name.
        tests: names of splits.
        which: feature, see `ContrastiveLearner.features`.
    """
    train = splits["probe_train"]
    probe = LinearProbe().fit(encode(learner, train.frames, which), train.labels)
    return {
        name: _percent(probe.accuracy(encode(learner, splits[name].frames, which), splits[name].labels))
        for name in tests
    }


def world_scores(learner: ContrastiveLearner, splits: Mapping[str, SyntheticSplit]) -> dict[str, dict[str, float]]:
    """All scores of an encoder in the world, in percent, by code.

    Of each feature: the tests of `probe_accuracies`; `knn_iid`, `knn_swap` (ten nearest neighbours); `unbiased`, where
    the probe is trained and tested on videos without correlations: how much motion is in the feature at all; `scene`
    and
    `prop`, how well a probe reads those, by chance 12.5. In the micro world also `wide` and `swap` by the kind of prop,
    such as `swap_held`.

    Args:
        learner: in evaluation mode.
        splits: those of `SPLITS_NEEDED`.
    """
    features: dict[str, dict[str, NDArray[np.float32]]] = {which: {} for which in CODES}
    for name in SPLITS_NEEDED:
        for which, values in encode_all(learner, splits[name].frames).items():
            features[which][name] = values
    return {which: _scores(values, splits) for which, values in features.items()}


def _scores(features: Mapping[str, NDArray[np.float32]], splits: Mapping[str, SyntheticSplit]) -> dict[str, float]:
    labels = {name: splits[name].labels for name in SPLITS_NEEDED}
    probe = LinearProbe().fit(features["probe_train"], labels["probe_train"])
    found = {name: probe.accuracy(features[name], labels[name]) for name in TESTS}
    for name, kind in _several_kinds(splits):
        chosen = splits[name].kind == kind
        found[f"{name}_{KINDS[kind]}"] = probe.accuracy(features[name][chosen], labels[name][chosen])
    for name in ("iid", "swap"):
        found[f"knn_{name}"] = knn_accuracy(
            features["probe_train"], labels["probe_train"], features[name], labels[name]
        )
    train, test = splits["unbiased_train"], splits["unbiased_test"]
    for name, factor in (("unbiased", "labels"), ("scene", "scene"), ("prop", "prop")):
        probe = LinearProbe().fit(features["unbiased_train"], getattr(train, factor))
        found[name] = probe.accuracy(features["unbiased_test"], getattr(test, factor))
    return {name: _percent(value) for name, value in found.items()}


def _several_kinds(splits: Mapping[str, SyntheticSplit]) -> Iterator[tuple[str, int]]:
    """Splits and kinds of prop to test apart: where only the scene is strange, and where the prop is, too."""
    for name in ("wide", "swap"):
        kinds = np.unique(splits[name].kind).tolist()
        if len(kinds) > 1:
            yield from ((name, kind) for kind in kinds)


def heatmap_scores(
    learner: ContrastiveLearner,
    splits: Mapping[str, SyntheticSplit],
    probe_train: SyntheticSplit,
    which: str = "global",
) -> dict[str, dict[str, dict[str, float]]]:
    """How much of what an encoder looks at, and of what its decisions rest on, is the mover.

    "activation", "activation_mean", "saliency": of the last stage, whatever the class, see
    `bgaug.metrics.heatmap.score_heatmaps`. "cam stage2" and so on: the map of the class that a linear probe on a code
    predicts, of that same code, against each frame's mask; of the last stage that is the class activation map.

    Args:
        learner: in evaluation mode.
        splits: with their truth.
        probe_train: what the probe is trained on.
        which: the code, "global" or "dynamic".

    Returns:
        Numbers by split and map, means over its videos.

    Raises:
        ValueError: a split comes without masks.
    """
    probe = LinearProbe().fit(encode(learner, probe_train.frames, which), probe_train.labels)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, split in splits.items():
        if split.masks is None:
            raise ValueError(f"heat maps are scored against true masks; make {name!r} with truth=True")
        frames, masks = (torch.from_numpy(middle(values)) for values in (split.frames, split.masks))
        crop = crop_of(split.frames)
        found[name] = score_heatmaps(_maps_of(learner), frames, masks, crop)
        numbers: dict[str, dict[str, list[torch.Tensor]]] = {}
        known = torch.split(centre_crop_masks(masks, crop), 64)
        for clips, mask in zip(torch.split(middle_clips(split.frames), 64), known, strict=True):
            for stage, heat in class_maps(learner, probe, clips, which).items():
                for number, values in localisation(heat, mask, width=crop // 16).items():
                    numbers.setdefault(f"cam {stage}", {}).setdefault(number, []).append(values)
        for title, parts in numbers.items():
            found[name][title] = {number: float(torch.cat(values).nanmean()) for number, values in parts.items()}
    return found


def class_maps(
    learner: ContrastiveLearner, probe: LinearProbe, clips: torch.Tensor, which: str = "global"
) -> dict[str, torch.Tensor]:
    """What speaks for each clip's predicted class in every stage but the first, at the clips' size.

    Args:
        learner: in evaluation mode.
        probe: fitted on the code that `which` names.
        clips: float32 in [0, 1], (B, 3, T, h, w).
        which: "global" or "dynamic", see `bgaug.pipelines.heatmap.compute.class_map`.

    Returns:
        By stage, float32, 0 or more, (B, T, h, w).
    """
    weight = torch.from_numpy(probe.weight).float()
    with torch.enable_grad():
        stages = learner.encoder.backbone(clips.detach().requires_grad_())  # weights may be frozen
        code = class_code(learner, stages, which)
        predicted = torch.from_numpy(probe.scores(code.detach().numpy()).argmax(axis=1))
        score = (code * weight[:, predicted].T).sum(dim=1)
        maps = {stage: class_map(learner, stages, stage, which, score) for stage in list(stages)[1:]}
    return {stage: upsample(heat, clips.shape[2:]) for stage, heat in maps.items()}


def heatmap_image(
    learners: Mapping[str, ContrastiveLearner], split: SyntheticSplit, probe_train: SyntheticSplit
) -> NDArray[np.uint8]:
    """What each encoder's decision by its global code rests on, side by side on the same clips: Grad-CAM, second stage.

    Args:
        learners: by title, in evaluation mode.
        split: a few videos with their truth.
        probe_train: what the probes are trained on.
    """
    assert split.masks is not None
    clips = middle_clips(split.frames)
    known = centre_crop_masks(torch.from_numpy(middle(split.masks)), crop_of(split.frames)).numpy()
    heats = []
    for learner in learners.values():
        probe = LinearProbe().fit(encode(learner, probe_train.frames), probe_train.labels)
        heats.append(stretch(class_maps(learner, probe, clips)["stage2"]).numpy())
    place, rows = FRAMES // 2, []
    for n in range(len(clips)):
        image = (clips[n, :, place].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        rows.append(HeatmapRow(image, [heat[n, place] for heat in heats], known[n, place], ACTIONS[split.labels[n]]))
    return heatmap_sheet(rows, list(learners))


def _maps_of(learner: ContrastiveLearner) -> Any:
    def encode(clips: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        stages = learner.encoder.backbone(clips)
        return stages, learner.encoder.decomposition(stages).saliency

    return encode


def encode(
    learner: ContrastiveLearner, frames: NDArray[np.uint8], which: str = "global", batch_size: int = 128
) -> NDArray[np.float32]:
    """Features (N, D) of the middle frames of uint8 videos (N, T, S, S, 3)."""
    device = next(learner.parameters()).device
    return features.encode(lambda clips: learner.features(clips, which), _clips(frames, batch_size, device))


def encode_all(
    learner: ContrastiveLearner, frames: NDArray[np.uint8], batch_size: int = 128
) -> dict[str, NDArray[np.float32]]:
    """All codes of the same clips in one pass."""
    clips = _clips(frames, batch_size, next(learner.parameters()).device)
    values = features.encode(lambda part: torch.cat(list(learner.encode(part).by_name.values()), dim=1), clips)
    return dict(zip(CODES, np.split(values, len(CODES), axis=1), strict=True))


def middle(values: NDArray[Any]) -> NDArray[Any]:
    """The middle frames of (N, T, ...)."""
    first = (values.shape[1] - FRAMES) // 2
    return values[:, first : first + FRAMES]


def crop_of(frames: NDArray[np.uint8]) -> int:
    """Side of what an encoder sees of frames (N, T, S, S, 3)."""
    side: int = frames.shape[2] * CROP // REFERENCE_SIZE
    return side


def middle_clips(frames: NDArray[np.uint8], device: torch.device | None = None) -> torch.Tensor:
    """The middle frames as the evaluation sees them: uint8 (N, T, S, S, 3) to float32 in [0, 1], (N, 3, 8, s, s).

    Whole frames, shrunk to `crop_of` them, on the device (by default the CPU).
    """
    clips = torch.from_numpy(middle(frames)).to(device)
    box = torch.tensor([[0, 0, frames.shape[2], frames.shape[3]]], device=device).expand(len(clips), -1)
    return centre_crop(clips, box, crop_of(frames))


def _clips(frames: NDArray[np.uint8], batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(frames), batch_size):
        yield middle_clips(frames[start : start + batch_size], device)


def _percent(share: float) -> float:
    return round(100 * share, 2)
