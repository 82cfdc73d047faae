"""The folder of a run: one process trains into it at a time, and its log has one line per step."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from bgaug.errors import CheckpointError, StoreLockedError
from bgaug.files import make_folder, write_bytes, writing
from bgaug.store.lock import locked

CONFIG = "config.json"
LOG = "log.jsonl"
_LOCK = ".bgaug-run.lock"


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Lock the folder for the block. Folders that were created for it are removed if they stay empty.

    Raises:
        CheckpointError: another process trains into the folder; the message names it.
        WriteError: the folder cannot be written.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    with ExitStack() as held:
        held.callback(_remove_empty, made)
        try:
            with writing(out):
                held.enter_context(locked(out / _LOCK))
        except StoreLockedError as error:
            raise CheckpointError(f"{out} {error.message}") from error
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def holds_something(out: Path) -> bool:
    """Whether the folder has a file other than those that a killed run leaves."""
    return out.is_dir() and any(not path.name.startswith(".bgaug-") for path in out.iterdir())


class Log:
    """Appends lines to a run's log. Use it in a `with` block.

    Args:
        path: path of the log.
        writes: False in all processes but the one that writes.
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
        """Write one line of JSON without buffering.

        Raises:
            WriteError: the file cannot be written.
        """
        left = json.dumps(line).encode() + b"\n"
        with writing(self._path):
            while left:
                left = left[self._file.write(left) :]


def drop_lines_behind(path: Path, step: int) -> None:
    """Remove the lines of steps after `step`, and an unfinished last line."""
    if not path.exists():
        return
    kept = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # the line was cut by a kill or a full disk
        if isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] <= step:
            kept.append(text + b"\n")
    write_bytes(path, b"".join(kept))


def memory_megabytes(device: torch.device) -> int:
    """Peak memory so far: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


def plain(value: Any) -> Any:
    """Tensors as lists, for JSON; numbers that are not finite as text."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
