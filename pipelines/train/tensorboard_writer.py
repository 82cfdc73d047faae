"""What TensorBoard shows of a run: numbers, composites, where the saliency lies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.files import write_error, writing
from bgaug.metrics.heatmap import stretch
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.train.bias_monitor import BiasMeters, evaluating
from bgaug.progress import Progress, Silent
from bgaug.visualize import heat_overlay

FOLDER = "tensorboard"
SHOWN = 8
SKIPPED = ("step", "epoch")


class Board:
    """Writes a run's TensorBoard files.

    Args:
        run: folder of the run.
        step: lines behind this one are dropped, when a run goes on.
        progress: is told, once, where the files cannot be written; the run goes on without them.

    Raises:
        UsageError: TensorBoard is not installed.
        WriteError: its folder cannot be made.
    """

    def __init__(self, run: Path, step: int = 0, progress: Progress | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs the extra: pip install 'bgaug[tensorboard]'") from error
        self._folder, self._progress = run / FOLDER, progress or Silent()
        self._hook = threading.excepthook
        threading.excepthook = self._leave_to_caller
        with writing(self._folder):
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)

    def _leave_to_caller(self, told: threading.ExceptHookArgs) -> None:
        """What TensorBoard's thread could not write is raised again at the next call, and warned of there."""
        if not isinstance(told.exc_value, OSError) or told.thread is None or "Writer" not in type(told.thread).__name__:
            self._hook(told)

    def _write(self, act: Callable[[Any], object]) -> None:
        """A disk that refuses costs what TensorBoard shows, and not the run."""
        if self._writer is None:
            return
        try:
            act(self._writer)
        except OSError as error:
            self._writer = None
            self._progress.warn(f"TensorBoard's files are not written any further: {write_error(self._folder, error)}")

    def numbers(self, values: Mapping[str, float], step: int, group: str) -> None:
        """Scalars of a step."""
        shown = {f"{group}/{name}": value for name, value in values.items() if name not in SKIPPED}
        self._write(lambda writer: [writer.add_scalar(name, value, step) for name, value in shown.items()])

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
        self._write(lambda writer: writer.add_image("clip, composite, saliency", sheet, step, dataformats="HWC"))

    def close(self) -> None:
        """Everything to disk."""
        self._write(lambda writer: writer.close())
        threading.excepthook = self._hook


def _middle_frames(clips: torch.Tensor) -> NDArray[np.uint8]:
    """From float (B, 3, T, h, w) in [0, 1] to uint8 (B, h, w, 3), the middle frames."""
    frames = clips[:, :, clips.shape[2] // 2].permute(0, 2, 3, 1)
    return np.asarray((frames * 255).round().to(torch.uint8).cpu().numpy())
