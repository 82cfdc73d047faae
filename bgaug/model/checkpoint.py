"""Checkpoints on disk: written in one step, the last few and the best kept. `bgaug.model.pretrained.run` reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bgaug.errors import CheckpointError
from bgaug.files import replacing, writing
from bgaug.model.pretrained.run import BEST, FORMAT, VERSION


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


def saved_config(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's configuration, which is made of plain JSON values.

    Raises:
        CheckpointError: it is not.
    """
    config = state.get("config")
    if not isinstance(config, dict) or not _is_json(config):
        raise CheckpointError(f"{path} has no configuration of plain values")
    return config


def check_resumable(state: Mapping[str, Any], path: Path, optimiser: torch.optim.Optimizer, total_steps: int) -> None:
    """See that a training can go on from a checkpoint, which may come from elsewhere: types, ranges and shapes.

    Args:
        state: as `bgaug.model.pretrained.load_checkpoint` read it.
        path: of the checkpoint, for messages.
        optimiser: of the training, whose own settings count.
        total_steps: of the whole run.

    Raises:
        CheckpointError: something is missing, or is not what this training would have written.
    """
    faults = [
        f"{name} is {_shown(state.get(name))}" for name, is_good in _PARTS.items() if not is_good(state.get(name))
    ]
    if not faults and not 0 <= state["step"] <= total_steps:
        faults = [f"step is {state['step']} of {total_steps}"]
    faults = faults or _optimiser_faults(state["optimiser"], optimiser)
    if faults:
        raise CheckpointError(f"{path} cannot be gone on from: {'; '.join(faults[:3])}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_plain(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, (str, int, float, bool, type(None))) for part in value.values()
    )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_loader(value: Any) -> bool:
    return _are_plain(value) and _is_count(value.get("epoch")) and _is_count(value.get("step"))


def _are_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 1


_PARTS: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "recent": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "best": lambda value: value is None or _is_number(value),
    "loader": _is_loader,
    "scaler": lambda value: value is None or _are_plain(value),
    "rng": _are_bytes,
    "cuda_rng": lambda value: value is None or _are_bytes(value),
    "optimiser": lambda value: (
        isinstance(value, dict)
        and isinstance(value.get("state"), dict)
        and isinstance(value.get("param_groups"), list)
        and all(isinstance(group, dict) for group in value["param_groups"])
    ),
}


def _optimiser_faults(saved: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> list[str]:
    """Settings other than the optimiser's own, and numbers of another shape than their weights."""
    own = optimiser.state_dict()["param_groups"]
    if len(saved["param_groups"]) != len(own):
        return [f"the optimiser has {len(saved['param_groups'])} groups of weights, not {len(own)}"]
    for theirs, ours in zip(saved["param_groups"], own, strict=True):
        for name, value in ours.items():
            if name != "lr" and (type(theirs.get(name)) is not type(value) or theirs[name] != value):
                return [f"the optimiser's {name} is {_shown(theirs.get(name))}, not {_shown(value)}"]
    weights = {
        number: weight for number, weight in enumerate(w for group in optimiser.param_groups for w in group["params"])
    }
    for number, parts in saved["state"].items():
        if number not in weights or not isinstance(parts, dict):
            return [f"the optimiser has numbers of the weight {_shown(number)}, which is none"]
        for name, value in parts.items():
            shapes = (weights[number].shape, torch.Size())
            if not (value is None or _is_number(value) or (isinstance(value, Tensor) and value.shape in shapes)):
                return [f"the optimiser's {_shown(name)} of the weight {number} is {_shown(value)}"]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__
