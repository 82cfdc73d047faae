"""What is told of a run while it is trained: a bar, a table, TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from bgaug.model import ContrastiveLearner
from bgaug.pipelines.train.bias_monitor import BiasMeters
from bgaug.pipelines.train.loop import Line
from bgaug.progress import Progress

TERMS = ("loss", "global", "dynamic", "static", "align", "grad_norm")


class Telling:
    """Tells of a run's steps and epochs: to whoever watches, and to TensorBoard. Use it in a `with` block.

    Args:
        progress: receives what happens.
        learner: what is trained.
        meters: measure its bias after each epoch, if there are any.
        total_steps: of the whole run.
        clips_a_step: clips encoded in a step, of all processes.
    """

    def __init__(
        self,
        progress: Progress,
        learner: ContrastiveLearner,
        meters: BiasMeters | None,
        total_steps: int,
        clips_a_step: int,
    ) -> None:
        self._progress, self._learner, self._meters = progress, learner, meters
        self._total, self._clips = total_steps, clips_a_step
        self._out: Path | None = None
        self._board: Any = None
        self._seconds = self._waiting = 0.0
        self._measured: dict[str, float] = {}
        self._first = self._last = 0

    def watch(self, out: Path) -> None:
        """Also write what TensorBoard shows, into the folder of the run."""
        self._out = out

    def begin(self, step: int) -> Self:
        """The run goes on behind this step; for a `with` statement."""
        self._first = self._last = step
        if self._out is not None:
            from bgaug.pipelines.train.tensorboard_writer import Board

            self._board = Board(self._out, step, self._progress)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def step(self, line: Line) -> None:
        """A step's log line."""
        self._last = line["step"]
        self._seconds, self._waiting = self._seconds + line["seconds"], self._waiting + line["waiting"]
        if self._board is not None:
            self._board.numbers(line, self._last, "train")
        self._progress.advance(1, f"loss {line['loss']:.3f}")
        self._progress.state(self._rows(line))

    def epoch(self) -> dict[str, float]:
        """At the end of an epoch: how biased the encoder is now."""
        if self._meters is None:
            return {}
        self._measured = self._meters(self._learner)
        if self._board is not None:
            self._board.numbers(self._measured, self._last, "bias")
            self._board.pictures(self._learner, self._meters, self._last)
        return self._measured

    def _rows(self, line: Line) -> dict[str, str]:
        a_step = self._seconds / max(1, self._last - self._first)
        clips = self._clips / max(a_step, 1e-9)
        rows = {name: f"{line[name]:.4f}" for name in TERMS if name in line}
        rows |= {"learning rate": f"{line['lr']:.2e}", "epoch": f"{line['epoch'] + 1}"}
        rows |= {
            "clips a second": f"{clips:.1f}",
            "waiting for data": f"{100 * self._waiting / max(self._seconds, 1e-9):.1f} %",
        }
        rows |= {"memory": f"{line['memory_mb']:,} MB", "time left": duration(a_step * (self._total - self._last))}
        return rows | {name.replace("_", " "): f"{value:.1f} %" for name, value in self._measured.items()}


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as a clock has them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
