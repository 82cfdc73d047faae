"""What TensorBoard shows of a run: numbers, composites, where the saliency lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.heatmap import stretch
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.meters import BiasMeters, evaluating
from bgaug.visualize import heat_overlay

FOLDER = "tensorboard"
SHOWN = 8
SKIPPED = ("step", "epoch")


class Board:
    """Writes a run's TensorBoard files.

    Args:
        run: folder of the run.
        step: lines behind this one are dropped, when a run goes on.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs the extra: pip install 'bgaug[tensorboard]'") from error
        self._writer: Any = SummaryWriter(str(run / FOLDER), purge_step=step + 1 if step else None)

    def numbers(self, values: Mapping[str, float], step: int, group: str) -> None:
        """Scalars of a step."""
        for name, value in values.items():
            if name not in SKIPPED:
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, learner: ContrastiveLearner, meters: BiasMeters, step: int) -> None:
        """Anchors, composites, and the saliency over the composites, of a few clips."""
        pairs = meters.compose()
        clips = pairs.semi[:SHOWN]
        with evaluating(learner):
            saliency = learner.encode(clips).saliency.float()
        heat = stretch(saliency).cpu().numpy()
        anchors, composites = (_middle_frames(part[:SHOWN]) for part in (pairs.anchor, pairs.semi))
        over = [heat_overlay(image, one) for image, one in zip(composites, heat, strict=True)]
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in (list(anchors), list(composites), over)])
        self._writer.add_image("clip, composite, saliency", sheet, step, dataformats="HWC")

    def close(self) -> None:
        """Everything to disk."""
        self._writer.close()


def _middle_frames(clips: torch.Tensor) -> NDArray[np.uint8]:
    """From float (B, 3, T, h, w) in [0, 1] to uint8 (B, h, w, 3), the middle frames."""
    frames = clips[:, :, clips.shape[2] // 2].permute(0, 2, 3, 1)
    return np.asarray((frames * 255).round().to(torch.uint8).cpu().numpy())
