"""Checkpoints on disk: written in one step, the last few and the best kept, read without executing anything."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from bgaug.errors import CheckpointError
from bgaug.files import replacing, writing

FORMAT = "bgaug-checkpoint"
VERSION = 1
CHECKPOINTS = "checkpoints"
BEST = "best.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int, best: bool = False) -> Path:
    """Write a checkpoint in one step, and clear away all but the last `keep`.

    Args:
        folder: of the run's checkpoints.
        step: names the file.
        state: plain values and tensors.
        keep: the last so many stay, at least 1.
        best: also keep it as the best, until a better one comes.

    Returns:
        Its absolute path.

    Raises:
        CheckpointError: it cannot be written; those before are as they were.
    """
    path = folder / f"step-{step:08d}.pt"
    try:
        with replacing(path) as unfinished, open(unfinished, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "step": step, **state}, file)
        if best:
            _keep_as_best(path)
    except (OSError, RuntimeError) as error:  # torch wraps what the system refuses
        raise CheckpointError(
            f"{path} cannot be written ({_reason(error)}); --resume goes on from the checkpoint before"
        ) from error
    with writing(folder):
        for old in sorted(folder.glob("step-*.pt"))[:-keep]:
            old.unlink()
    return path.resolve()


def _keep_as_best(path: Path) -> None:
    """The same bytes under a second name, which outlives the first; a copy where the disk knows no links."""
    with replacing(path.with_name(BEST)) as unfinished:
        unfinished.unlink()
        try:
            os.link(path, unfinished)
        except OSError:
            shutil.copyfile(path, unfinished)


def _reason(error: Exception) -> str:
    """What the system said, which torch buries under an error of its own."""
    said: BaseException | None = error
    while said is not None and not isinstance(said, OSError):
        said = said.__cause__ or said.__context__
    text = str(said.strerror if isinstance(said, OSError) else error)
    return text.splitlines()[0].removeprefix("cannot be written: ")


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is none.
    """
    found = sorted((run / CHECKPOINTS).glob("step-*.pt"))
    if not found:
        raise CheckpointError(f"{run} holds no checkpoint; is it a folder that `bgaug train --out` made?")
    return found[-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: it is missing, not whole, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; is it whole? ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a bgaug checkpoint")
    if state["version"] != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {state['version']}; this bgaug reads {VERSION}: update bgaug"
        )
    return state
