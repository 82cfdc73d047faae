"""What a run says of itself: a line a step, in `log.jsonl`, and what went wrong, in full."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from bgaug.files import write_bytes, writing

CONFIG = "config.json"
LOG = "log.jsonl"


class Log:
    """Appends lines to a run's log. Use it in a `with` block.

    Args:
        path: of the file.
        writes: False where another process writes.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self._path = path if writes else Path(os.devnull)

    def __enter__(self) -> Self:
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: dict[str, Any]) -> None:
        """One line of JSON, out at once.

        Raises:
            WriteError: the system refuses.
        """
        left = json.dumps(line).encode() + b"\n"
        with writing(self._path):
            while left:
                left = left[self._file.write(left) :]


def drop_lines_behind(path: Path, step: int) -> None:
    """Forget the lines of steps after `step`, and a last line that was not finished."""
    if not path.exists():
        return
    kept = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # a kill or a full disk came in the middle of it
        if isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] <= step:
            kept.append(text + b"\n")
    write_bytes(path, b"".join(kept))


def memory_megabytes(device: torch.device) -> int:
    """The most that was held so far: on the device, or by this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


def plain(value: Any) -> Any:
    """Tensors as lists, for JSON; what is not finite as text."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
