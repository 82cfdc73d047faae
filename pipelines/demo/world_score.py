"""An encoder in the synthetic world: accuracies of a linear probe, and an image of class maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.metrics import LinearProbe
from bgaug.metrics.heatmap import centre_crop_masks, stretch, upsample
from bgaug.model import ContrastiveLearner
from bgaug.pairs import centre_crop
from bgaug.pipelines.evaluate import features
from bgaug.pipelines.heatmap.compute import class_code, class_map
from bgaug.testing.synthetic import ACTIONS, REFERENCE_SIZE, SyntheticSplit
from bgaug.visualize import HeatmapRow, heatmap_sheet

CROP = 32  # of frames of 40 pixels; scales with them
FRAMES = 8


def probe_accuracies(
    learner: ContrastiveLearner,
    splits: Mapping[str, SyntheticSplit],
    tests: Sequence[str],
    which: str = "global",
) -> dict[str, float]:
    """Accuracy in percent of a linear probe on frozen features, by test.

    Args:
        learner: learner in evaluation mode.
        splits: the splits `probe_train` and the tests, by name.
        tests: names of splits.
        which: name of the feature, see `ContrastiveLearner.features`.
    """
    train = splits["probe_train"]
    probe = LinearProbe().fit(encode(learner, train.frames, which), train.labels)
    return {
        name: round(100 * probe.accuracy(encode(learner, splits[name].frames, which), splits[name].labels), 2)
        for name in tests
    }


def class_maps(
    learner: ContrastiveLearner, probe: LinearProbe, clips: torch.Tensor, which: str = "global"
) -> dict[str, torch.Tensor]:
    """Class maps of each clip's predicted class in every stage except the first, at the clips' size.

    Args:
        learner: learner in evaluation mode.
        probe: probe that was fitted on the code `which`.
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
    """Class maps of the second stage by several encoders, side by side on the same clips.

    Args:
        learners: learners in evaluation mode, by title.
        split: a few videos with their truth.
        probe_train: split on which the probes are trained.
    """
    assert split.masks is not None
    clips = middle_clips(split.frames)
    known = centre_crop_masks(torch.from_numpy(middle(split.masks)), _crop_of(split.frames)).numpy()
    heats = []
    for learner in learners.values():
        probe = LinearProbe().fit(encode(learner, probe_train.frames), probe_train.labels)
        heats.append(stretch(class_maps(learner, probe, clips)["stage2"]).numpy())
    place, rows = FRAMES // 2, []
    for n in range(len(clips)):
        image = (clips[n, :, place].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        rows.append(HeatmapRow(image, [heat[n, place] for heat in heats], known[n, place], ACTIONS[split.labels[n]]))
    return heatmap_sheet(rows, list(learners))


def encode(
    learner: ContrastiveLearner, frames: NDArray[np.uint8], which: str = "global", batch_size: int = 128
) -> NDArray[np.float32]:
    """Features (N, D) of the middle frames of uint8 videos (N, T, S, S, 3)."""
    device = next(learner.parameters()).device
    return features.encode(lambda clips: learner.features(clips, which), _clips(frames, batch_size, device))


def middle(values: NDArray[Any]) -> NDArray[Any]:
    """The middle frames of (N, T, ...)."""
    first = (values.shape[1] - FRAMES) // 2
    return values[:, first : first + FRAMES]


def _crop_of(frames: NDArray[np.uint8]) -> int:
    """Side of the crops of frames (N, T, S, S, 3), pixels."""
    side: int = frames.shape[2] * CROP // REFERENCE_SIZE
    return side


def middle_clips(frames: NDArray[np.uint8], device: torch.device | None = None) -> torch.Tensor:
    """The middle frames as clips: uint8 (N, T, S, S, 3) to float32 in [0, 1], (N, 3, 8, s, s).

    Whole frames are resized, on the device (by default the CPU).
    """
    clips = torch.from_numpy(middle(frames)).to(device)
    box = torch.tensor([[0, 0, frames.shape[2], frames.shape[3]]], device=device).expand(len(clips), -1)
    return centre_crop(clips, box, _crop_of(frames))


def _clips(frames: NDArray[np.uint8], batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(frames), batch_size):
        yield middle_clips(frames[start : start + batch_size], device)


def _percent(share: float) -> float:
    return round(100 * share, 2)
