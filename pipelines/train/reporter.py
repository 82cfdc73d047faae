"""Reports of a run during its training: a progress bar, a table, TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.files import write_error, writing
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import CODES
from bgaug.pipelines.train.bias_monitor import BiasMonitor, evaluating
from bgaug.pipelines.train.labelled import HeldOutAccuracy
from bgaug.pipelines.train.loop import Line
from bgaug.progress import Progress, Silent
from bgaug.visualize import heat_overlay

_TERMS = ("loss", "accuracy", *CODES, "align", "adversarial", "entropy", "penalty", "grad_norm")
_SHOWN = 8  # clips in TensorBoard's image


class TrainingReporter:
    """Reports steps and epochs of a run to a progress display and to TensorBoard. Use it in a `with` block.

    Args:
        progress: receives the reports.
        learner: the learner that is trained.
        monitor: measures its bias after each epoch, or None.
        total_steps: steps of the whole run.
        clips_per_step: clips encoded per step, of all processes.
        accuracy: measures the accuracy on held-out videos after each epoch, or None.
    """

    def __init__(
        self,
        progress: Progress,
        learner: ContrastiveLearner,
        monitor: BiasMonitor | None,
        total_steps: int,
        clips_per_step: int,
        accuracy: HeldOutAccuracy | None = None,
    ) -> None:
        self._progress, self._learner, self._monitor = progress, learner, monitor
        self._total, self._clips, self._accuracy = total_steps, clips_per_step, accuracy
        self._out: Path | None = None
        self._writer: _TensorBoardWriter | None = None
        self._seconds = self._waiting = 0.0
        self._measured: dict[str, float] = {}
        self._first = self._last = 0

    def use_tensorboard(self, out: Path) -> None:
        """Also write events for TensorBoard into the folder of the run."""
        self._out = out

    def begin(self, step: int) -> Self:
        """Start at this step; for a `with` statement."""
        self._first = self._last = step
        if self._out is not None:
            self._writer = _TensorBoardWriter(self._out, step, self._progress)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, line: Line) -> None:
        """Report the log line of a step."""
        self._last = line["step"]
        self._seconds, self._waiting = self._seconds + line["seconds"], self._waiting + line["waiting"]
        if self._writer is not None:
            self._writer.numbers(line, self._last, "train")
        self._progress.advance(1, f"loss {line['loss']:.3f}")
        self._progress.state(self._rows(line))

    def epoch(self) -> dict[str, float]:
        """Measure accuracy and bias at the end of an epoch."""
        accuracy = {} if self._accuracy is None else self._accuracy(self._learner)
        bias = {} if self._monitor is None else self._monitor(self._learner)
        if self._writer is not None:
            self._writer.numbers(accuracy, self._last, "accuracy")
            self._writer.numbers(bias, self._last, "bias")
            if self._monitor is not None:
                self._writer.images(self._learner, self._monitor, self._last)
        self._measured = accuracy | bias
        return self._measured

    def _rows(self, line: Line) -> dict[str, str]:
        seconds = self._seconds / max(1, self._last - self._first)
        clips = self._clips / max(seconds, 1e-9)
        rows = {name: f"{line[name]:.4f}" for name in _TERMS if name in line}
        rows |= {"learning rate": f"{line['lr']:.2e}", "epoch": f"{line['epoch'] + 1}"}
        rows |= {
            "clips per second": f"{clips:.1f}",
            "waiting for data": f"{100 * self._waiting / max(self._seconds, 1e-9):.1f} %",
        }
        rows |= {"memory": f"{line['memory_mb']:,} MB", "time left": _duration(seconds * (self._total - self._last))}
        return rows | {name.replace("_", " "): f"{value:.1f} %" for name, value in self._measured.items()}


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class _TensorBoardWriter:
    """Writes a run's TensorBoard files.

    Args:
        run: folder of the run.
        step: events after this step are dropped, when a run is resumed.
        progress: receives one warning if the files cannot be written; the run continues without them.

    Raises:
        UsageError: TensorBoard is not installed.
        WriteError: its folder cannot be created.
    """

    def __init__(self, run: Path, step: int = 0, progress: Progress | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs the extra: pip install 'bgaug[tensorboard]'") from error
        self._folder, self._progress = run / "tensorboard", progress or Silent()
        self._hook = threading.excepthook
        threading.excepthook = self._leave_to_caller
        with writing(self._folder):
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)

    def _leave_to_caller(self, error: threading.ExceptHookArgs) -> None:
        # TensorBoard raises errors of its writing thread again at the next call, which turns them into a warning.
        if not isinstance(error.exc_value, OSError) or "Writer" not in type(error.thread).__name__:
            self._hook(error)

    def _write(self, act: Callable[[Any], object]) -> None:
        # A full disk must not end the run.
        if self._writer is None:
            return
        try:
            act(self._writer)
        except OSError as error:
            self._writer = None
            self._progress.warn(f"TensorBoard files are no longer written: {write_error(self._folder, error)}")

    def numbers(self, values: Mapping[str, float], step: int, group: str) -> None:
        """Scalars of a step."""
        shown = {f"{group}/{name}": value for name, value in values.items() if name not in ("step", "epoch")}
        self._write(lambda writer: [writer.add_scalar(name, value, step) for name, value in shown.items()])

    def images(self, learner: ContrastiveLearner, monitor: BiasMonitor, step: int) -> None:
        """Anchors, composites, and the saliency over the composites, of a few clips."""
        pairs = monitor.compose()
        clips = pairs.semi[:_SHOWN]
        with evaluating(learner):
            heat = learner.encode(clips).saliency.cpu().numpy()
        anchors, composites = (_middle_frames(part[:_SHOWN]) for part in (pairs.anchor, pairs.semi))
        over = [heat_overlay(image, one) for image, one in zip(composites, heat, strict=True)]
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in (list(anchors), list(composites), over)])
        self._write(lambda writer: writer.add_image("clip, composite, saliency", sheet, step, dataformats="HWC"))

    def close(self) -> None:
        """Write all pending events."""
        self._write(lambda writer: writer.close())
        threading.excepthook = self._hook


def _middle_frames(clips: torch.Tensor) -> NDArray[np.uint8]:
    """The middle frames: float (B, 3, T, h, w) in [0, 1] to uint8 (B, h, w, 3)."""
    frames = clips[:, :, clips.shape[2] // 2].permute(0, 2, 3, 1)
    return np.asarray((frames * 255).round().to(torch.uint8).cpu().numpy())
